"""Rewriting networks, the budget's arithmetic, and the planner that brings both together."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from mncompress.analysis import find_options, kind_of, make_inner_networks
from mncompress.calibration import calibrate, run_network
from mncompress.checkpoint import make_template
from mncompress.compression import Group, check_budget, compress_network, rewrite
from mncompress.compression._budget import Verdict, _lower, _upper, complete_budget, go_while_ok
from mncompress.compression._certificate import Reference
from mncompress.compression._evaluate import evaluate_original
from mncompress.compression._tolerances import TOLERANCES
from mncompress.data import Dataset, Split, Standardization, load_dataset
from mncompress.errors import ConfigError
from mncompress.native import library_path
from mncompress.nn import count_macs, initialize_
from mncompress.spline import Affine
from mncompress.training import train
from mncompress.types import ACTS, KINDS, RELU_LIKE, ActivationSpec, Budget, NetworkSpec, Plan, TrainConfig, from_json, to_json

FIXED_ACT = {"agsig": "sigmoid", "frelu": "relu"}
PARAMETRIC = ("fixed", "agsig", "frelu", "warp")
METAS = ("meta:leaky", "meta:gated", "meta:skip")
"""With their ends, as `make_spec` takes them."""


def make_spec(family, act, depth=1, width=4, shared=False):
    family, _, ends = family.partition(":")
    inner = family in ("meta", "vaf")
    return ActivationSpec(family, FIXED_ACT.get(family, act), width * inner, (depth if family == "meta" else 1) * inner, shared,
                          ends or "activated")


def make_network(rng, sizes, activations, *, task="classification", output_activation=False, residual=False, noise=0.3):
    """A matched network moved away from its start: weights of trained-like scale."""
    spec = NetworkSpec(sizes[0], tuple(sizes[1:-1]), sizes[-1], tuple(activations), task, output_activation, residual)
    targets = Standardization(rng.normal(size=sizes[-1]) * 3, rng.uniform(0.5, 4, sizes[-1])) if task == "regression" else None
    network = make_template(spec, Standardization(rng.normal(size=sizes[0]), rng.uniform(0.5, 2, sizes[0])), targets)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    initialize_(network.layers, "matched", generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=generator)
    return network.eval().requires_grad_(False)


def make_dataset(rng, network, rows=300, shift=0.0):
    """Samples that the network itself labels, a tenth of them wrongly, or with a tenth of noise."""
    x = rng.normal(size=(4 * rows, network.spec.in_features)).astype(np.float32)
    outputs, task = run_network(network, x), network.spec.task
    if task == "regression":
        y = (outputs + 0.1 * outputs.std(0) * rng.normal(size=outputs.shape)).astype(np.float32)
    else:
        y = np.where(rng.random(len(x)) < 0.1, rng.integers(0, network.spec.out_features, len(x)), outputs.argmax(1))
    splits = [Split(x[part::4] + np.float32(shift), y[part::4]) for part in range(4)]
    return Dataset("made", task, *splits, network.spec.out_features, "sha256:0")


def run_reference(network, groups, x):
    """The network in float64 NumPy with every activation replaced by its form, or the learned one where there is none."""
    h = (x.astype(np.float64) - network.features.shift.numpy()) / network.features.scale.numpy()
    remaining = iter(groups)
    for layer in network.layers:
        u = h @ layer.linear.weight.double().numpy().T + layer.linear.bias.double().numpy()
        y = u
        if layer.activation is not None:
            learned = make_inner_networks(layer.activation)
            y = np.full_like(u, np.nan)
            for group in next(remaining):
                form = learned.select(group.indices) if group.form is None else group.form
                y[:, group.indices] = form.evaluate(u[:, group.indices])
        h = y + h if layer.residual else y
    return h if network.targets is None else h * network.targets.scale.double().numpy() + network.targets.shift.double().numpy()


def random_groups(rng, network, x):
    """For every activated layer a random assignment of the options that are not absurd there, all neurons constant at times."""
    groups = []
    for layer, found in zip(network.activated_layers, calibrate(network, x), strict=True):
        options = find_options(make_inner_networks(layer.activation), layer.activation.spec.family, found.domain, "default")
        n, tolerance = options.n, np.full(options.n, 2.0)
        keys = rng.choice([*options.errors, "kept", "constant"], n)
        keys = np.where([key == "kept" or options.errors[key][row] <= 2.0 for row, key in enumerate(keys)], keys, "constant")
        keys[rng.random(n) < 0.25] = "constant"
        if rng.random() < 0.15:
            keys[:] = "constant"
        parts = []
        for key in rng.permutation(sorted(set(keys.tolist()))).tolist():
            indices = rng.permutation(np.flatnonzero(keys == key))
            form = None if key == "kept" else options.build(key, np.maximum(tolerance, options.errors.get(key, 0)), indices)
            parts.append(Group(key, indices, form, np.zeros(len(indices), bool)))
        groups.append(tuple(parts))
    return tuple(groups)


def random_network(rng):
    depth = int(rng.integers(0, 5))
    residual, output_activation = bool(rng.random() < 0.5), bool(rng.random() < 0.4)
    hidden = [int(rng.integers(2, 7)) for _ in range(depth)]
    if residual and depth >= 2:
        place = int(rng.integers(1, depth))
        hidden[place] = hidden[place - 1]
    residual = residual and any(a == b for a, b in itertools.pairwise(hidden))
    families = rng.choice([*PARAMETRIC, "meta", "vaf", "meta", "vaf", *METAS], depth + output_activation).tolist()
    activations = [make_spec(family, str(rng.choice(ACTS)), depth=2, shared=rng.random() < 0.3) for family in families]
    task = str(rng.choice(["classification", "regression"]))
    sizes = (int(rng.integers(1, 6)), *hidden, int(rng.integers(1, 4)))
    return make_network(rng, sizes, activations, task=task, output_activation=output_activation, residual=residual)


@pytest.mark.parametrize("seed", range(40))
def test_rewritten_networks_compute_the_forms(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    x = rng.normal(size=(200, network.spec.in_features)).astype(np.float32)
    groups = random_groups(rng, network, x)
    rewritten = rewrite(network, groups)
    expected = run_reference(network, groups, x)
    # Folded weights are rounded to float32 once; float64 evaluation leaves only that: 6e-8 times the layers' condition.
    actual = run_network(rewritten.double(), x.astype(np.float64))
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(expected).max()))
    remaining = iter(groups)
    for position, (old, new) in enumerate(zip(network.layers, rewritten.layers, strict=True)):
        parts = next(remaining) if old.activation is not None else ()
        constants = sum(len(part.indices) for part in parts if part.key == "constant")
        follower = network.layers[position + 1] if position + 1 < len(network.layers) else None
        free = follower is not None and not old.residual and not follower.residual
        kept = old.linear.out_features - (constants if free else 0)
        assert new.linear.out_features == (max(kept, 1) if parts else old.linear.out_features)
        assert follower is None or new.linear.out_features == rewritten.layers[position + 1].linear.in_features


def test_rewriting_leaves_the_original_unchanged():
    rng = np.random.default_rng(0)
    network = make_network(rng, (3, 5, 5, 2), [make_spec("warp", "tanh")] * 2)
    x = rng.normal(size=(50, 3)).astype(np.float32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rewrite(network, random_groups(rng, network, x))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_kept_activations_change_no_bit():
    rng = np.random.default_rng(1)
    network = make_network(rng, (3, 6, 6, 2), [make_spec("meta", "tanh"), make_spec("warp", "gelu", shared=True)], residual=True)
    x = rng.normal(size=(100, 3)).astype(np.float32)
    kept = [(Group("kept", np.arange(6), None, np.ones(6, bool)),)] * 2
    np.testing.assert_array_equal(run_network(rewrite(network, kept), x), run_network(network, x))


def test_a_layer_of_constants_keeps_one_neuron():
    rng = np.random.default_rng(2)
    network = make_network(rng, (3, 4, 2), [make_spec("warp", "tanh")])
    values = np.array([1.0, -2.0, 0.5, 3.0])
    group = Group("constant", np.array([2, 0, 3, 1]), Affine(np.zeros(4), values[[2, 0, 3, 1]]), np.zeros(4, bool))
    rewritten = rewrite(network, [[group]])
    assert [layer.linear.out_features for layer in rewritten.layers] == [1, 2]
    last = network.layers[-1].linear
    expected = last.weight.double().numpy() @ values + last.bias.double().numpy()
    outputs = run_network(rewritten, rng.normal(size=(7, 3)).astype(np.float32))
    np.testing.assert_allclose(outputs, np.tile(expected, (7, 1)), rtol=1e-6, atol=1e-6)


# The budget


def classes(correct, n_classes=3):
    """Logits of samples of class 0 that are right or wrong."""
    logits = np.zeros((len(correct), n_classes))
    logits[np.arange(len(correct)), np.where(correct, 0, 1)] = 1.0
    return logits


def refuse_to_count():
    raise AssertionError("flips elsewhere are counted only where the validation split is too small")


def paired_case(n, worse, better):
    was = np.ones(n, bool)
    was[:better] = False
    became = np.ones(n, bool)
    became[better:better + worse] = False
    return classes(was), classes(became), np.zeros(n, np.int64)


WORSE, BETTER = 0.05 / 5 * 0.7, 0.05 / 5 * 0.3
"""The risks of one look: of four sequences, for what became wrong and for what became right."""


def low_of(count, n):
    return stats.binomtest(count, n).proportion_ci(1 - 2 * BETTER, "exact").low


def high_of(count, n):
    return stats.binomtest(count, n).proportion_ci(1 - 2 * WORSE, "exact").high


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Budget(preset="Exact"), "preset: Input should be 'exact', 'default' or 'aggressive', got 'Exact'"),
    (lambda: Budget(target="Portable"), "target: Input should be"), (lambda: Budget(include="0"), "include: .*tuple, got '0'"),
    (lambda: Budget(include=(0,)), "include: .*string"), (lambda: Budget(max_drop="x"), "max_drop: .*number.*got 'x'"),
    (lambda: TrainConfig(select="Best"), "select: Input should be 'last' or 'best', got 'Best'"),
    (lambda: TrainConfig(init="Glorot"), "init: Input"), (lambda: TrainConfig(order="foo"), "order: Input"),
    (lambda: TrainConfig(epochs=2.5), "epochs: .*fractional part, got 2.5"),
    (lambda: TrainConfig(hidden=7), "hidden: .*tuple, got 7"),
    (lambda: TrainConfig(device="gpu"), "device: Input")])
def test_fields_of_another_type_or_choice_are_refused(make, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        make()


def test_fields_become_what_their_types_say():
    config = TrainConfig(data=Path("a.npz"), hidden=[np.int64(3), 4], epochs=np.int32(5), lr=np.float32(0.5), seed=np.uint8(7))
    assert (config.data, config.hidden, config.epochs, config.lr, config.seed) == ("a.npz", (3, 4), 5, 0.5, 7)
    assert all(type(value) is int for value in (config.epochs, config.seed, *config.hidden))
    budget = Budget(max_drop=np.float32(1), target_macs=np.int64(120), include=["0"])
    assert (budget.max_drop, budget.target_macs, budget.include) == (1.0, 120, ("0",))
    assert from_json(Budget, to_json(budget), where="here") == budget


def test_clopper_pearson_limits():
    for n, count in ((10, 0), (10, 3), (10, 10), (5000, 7)):
        np.testing.assert_allclose([_lower(count, n), _upper(count, n)], [low_of(count, n), high_of(count, n)], rtol=1e-12,
                                   atol=2e-12)       # to which scipy finds them
    # An independent statement of the limits: as few or fewer, as many or more, happen with these probabilities.
    assert stats.binom.cdf(7, 5000, _upper(7, 5000)) == pytest.approx(WORSE, rel=1e-9)
    assert stats.binom.sf(6, 5000, _lower(7, 5000)) == pytest.approx(BETTER, rel=1e-9)
    assert _upper(0, 100) == pytest.approx(1 - WORSE ** (1 / 100), rel=1e-12)
    assert _upper(0, 5000) < 0.001      # so the default budget of 0.1 points can be shown on MNIST's validation split


def test_paired_change_of_a_large_split():
    original, compressed, y = paired_case(5000, worse=3, better=1)
    verdict = check_budget(Budget(max_drop=0.5), "classification", original, compressed, y, refuse_to_count)
    evidence = verdict.evidence
    assert verdict.ok
    assert (evidence["worse"], evidence["better"], evidence["flips"], evidence["samples"]) == (3, 1, 4, 5000)
    assert evidence["drop"] == pytest.approx(0.04, rel=1e-12)
    assert evidence["drop_upper_bound"] == pytest.approx(100 * (high_of(3, 5000) - low_of(1, 5000)), rel=1e-9)
    tight = check_budget(Budget(max_drop=0.1), "classification", original, compressed, y, refuse_to_count)
    assert not tight.ok
    assert "may be" in tight.reason
    unlimited = check_budget(Budget(preset="exact"), "classification", original, compressed, y, refuse_to_count)
    assert unlimited.ok


def test_small_splits_follow_a_stricter_rule():
    n = 200
    assert 100 * _upper(0, n) > 0.1
    same, better = paired_case(n, 0, 0), paired_case(n, 0, 2)
    verdict = check_budget(Budget(max_drop=0.1), "classification", *same, lambda: 0)
    assert verdict.ok
    assert "too few to show" in verdict.reason
    assert verdict.evidence["flips_elsewhere"] == 0
    verdict = check_budget(Budget(max_drop=0.1), "classification", *same, lambda: 1)
    assert not verdict.ok
    assert verdict.reason == "1 training and calibration samples changed their class"
    # Two samples change by more than anyone's margin: 2 of 200 pairs each, above 0.1 % but not above 1.5 %.
    assert 100 * _upper(0, n) > 1.5
    verdict = check_budget(Budget(max_drop=0.1), "classification", *better, refuse_to_count)
    assert not verdict.ok
    assert verdict.reason == "an estimated 1 % of samples would change their class"
    assert verdict.evidence["estimated_flips_percent"] == pytest.approx(1.0, rel=1e-12)
    assert check_budget(Budget(max_drop=1.5), "classification", *better, lambda: 0).ok
    verdict = check_budget(Budget(max_drop=0.1), "classification", *paired_case(n, 1, 3), refuse_to_count)
    assert not verdict.ok
    assert verdict.reason == "1 of 200 validation samples became wrong"


def test_an_accuracy_that_rises_is_a_change_too():
    assert check_budget(Budget(max_drop=0.1), "classification", *paired_case(10_000, 0, 10), refuse_to_count).ok
    verdict = check_budget(Budget(max_drop=0.1), "classification", *paired_case(10_000, 0, 11), refuse_to_count)
    assert not verdict.ok
    assert verdict.reason == "the accuracy rises by 0.11 points, too much to be the same network within 0.1"


def test_largest_change_of_an_output():
    original, y = np.zeros((1000, 2)), np.zeros(1000, np.int64)
    compressed = original.copy()
    compressed[7, 1] = -0.25
    assert check_budget(Budget(max_logit_error=0.25), "classification", original, compressed, y, refuse_to_count).ok
    verdict = check_budget(Budget(max_logit_error=0.2499), "classification", original, compressed, y, refuse_to_count)
    assert not verdict.ok
    assert verdict.reason == "an output changes by 0.25, more than 0.2499"
    both = check_budget(Budget(max_drop=50, max_logit_error=0.1), "classification", original, compressed, y, refuse_to_count)
    assert not both.ok


def test_regression_bound_by_hand():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(400, 2)).astype(np.float32)
    original = y + 0.1 * rng.normal(size=y.shape)
    compressed = original + 0.002 * rng.normal(size=y.shape)
    evidence = check_budget(Budget(max_drop=1.0), "regression", original, compressed, y, refuse_to_count).evidence
    before, after = ((part - y) ** 2 for part in (original, compressed))
    assert evidence["rmse"] == pytest.approx(np.sqrt(before.mean()), rel=1e-12)
    assert evidence["rmse_compressed"] == pytest.approx(np.sqrt(after.mean()), rel=1e-12)
    assert evidence["drop"] == pytest.approx(100 * (np.sqrt(after.mean() / before.mean()) - 1), rel=1e-6)
    # Of 400 sorted values the 99 % quantile lies at place 398.01 - 3 = 395.01, counted from 0.
    rows = np.sort(before.mean(1))
    weight = np.minimum(1, (rows[395] + 0.01 * (rows[396] - rows[395])) / before.mean(1))
    assert (weight < 1).sum() == 4
    weighted = (weight * before.mean(1)).mean()
    difference = weight * (after - before).mean(1)
    upper = difference.mean() + 2.3357300 * difference.std(ddof=1) / 20     # Student's t, 399 degrees of freedom, 1 %
    assert evidence["drop_upper_bound"] == pytest.approx(100 * (np.sqrt(1 + upper / weighted) - 1), rel=1e-4)
    change = np.sqrt((weight * ((compressed - original) ** 2).mean(1)).mean() / weighted)
    assert evidence["change_percent"] == pytest.approx(100 * change, rel=1e-9)


@pytest.mark.parametrize("freedom", [3, np.inf])
@pytest.mark.parametrize("along", [0.0, 0.004, 0.008])
def test_a_network_that_is_too_bad_seldom_passes(freedom, along):
    """An error that rises by a little more than the limit, partly along the residuals: 1.25 % of looks may be fooled."""
    rng = np.random.default_rng(6)
    variance = 1.0 if freedom == np.inf else freedom / (freedom - 2)
    aside = np.sqrt((1.0101**2 - (1 + along) ** 2) * variance)
    passed = 0
    for _ in range(600):
        residual = rng.standard_t(freedom, (300, 1)) if freedom < np.inf else rng.normal(size=(300, 1))
        change = along * residual + aside * rng.normal(size=residual.shape)
        y = np.zeros_like(residual, np.float32)
        passed += check_budget(Budget(max_drop=1.0), "regression", residual, residual + change, y, refuse_to_count).ok
    assert passed <= stats.binom.ppf(0.999, 600, 0.0125)


def test_one_row_far_off_makes_no_room_for_others():
    rng = np.random.default_rng(3)
    y = np.zeros((300, 1), np.float32)
    residual = rng.normal(size=y.shape)
    change = 0.02 * rng.normal(size=y.shape)
    assert check_budget(Budget(max_drop=1.0), "regression", residual, residual + change, y, refuse_to_count).ok
    assert not check_budget(Budget(max_drop=1.0), "regression", residual, residual + 10 * change, y, refuse_to_count).ok
    residual[17] = 200.0
    change[17] = 0.0
    assert not check_budget(Budget(max_drop=1.0), "regression", residual, residual + 10 * change, y, refuse_to_count).ok


def test_units_of_targets_decide_nothing():
    rng = np.random.default_rng(3)
    y = rng.normal(size=(400, 2))
    original = y + 0.1 * rng.normal(size=y.shape)
    compressed = original + 0.02 * rng.normal(size=y.shape)
    expected = check_budget(Budget(max_drop=1.0), "regression", original, compressed, y, refuse_to_count).evidence
    for unit in np.array([[1e-30, 1e-30], [1e30, 1e30], [1e-19, 1e12]]):
        scaled = (part * unit for part in (original, compressed, y))
        evidence = check_budget(Budget(max_drop=1.0), "regression", *scaled, refuse_to_count, unit).evidence
        for name in ("drop", "drop_upper_bound", "change_percent"):
            assert evidence[name] == pytest.approx(expected[name], rel=1e-9)
        assert evidence["rmse"] == pytest.approx(np.sqrt(np.mean(((original - y) * unit) ** 2)), rel=1e-9)


def test_a_network_without_errors_that_does_not_change_is_the_same():
    y = np.ones((50, 1), np.float32)
    verdict = check_budget(Budget(max_drop=1.0), "regression", np.ones((50, 1)), np.ones((50, 1)), y, refuse_to_count)
    assert verdict.ok
    assert verdict.evidence["drop"] == verdict.evidence["drop_upper_bound"] == 0


def test_one_row_far_off_may_change_in_proportion():
    """Its own error may change by a share of the limit, though that is more than all other errors together."""
    rng = np.random.default_rng(3)
    y = np.zeros((300, 1), np.float32)
    residual = rng.normal(size=y.shape)
    change = 0.02 * rng.normal(size=y.shape)
    residual[17], change[17] = 2000.0, 2.0
    assert ((residual + change)**2 - residual**2)[17] > (np.delete(residual, 17)**2).sum()
    assert check_budget(Budget(max_drop=1.0), "regression", residual, residual + change, y, refuse_to_count).ok
    change[17] = 22.0
    verdict = check_budget(Budget(max_drop=1.0), "regression", residual, residual + change, y, refuse_to_count)
    assert not verdict.ok
    assert verdict.evidence["drop"] == pytest.approx(1.1, rel=1e-3)
    change[17] = 0.0
    change[18] = 2000.0
    assert not check_budget(Budget(max_drop=1.0), "regression", residual, residual + change, y, refuse_to_count).ok


def test_nothing_behind_a_failure_is_looked_at():
    @dataclasses.dataclass
    class Look:
        verdict: Verdict

    def make(*ok):
        for number, each in enumerate(ok):
            assert number <= 2, "looked at behind a failure"
            yield Look(Verdict(each, "", {"number": number}))

    last, count = go_while_ok(make(True, True, False, True))
    assert (last.verdict.evidence["number"], count) == (1, 2)
    assert go_while_ok(make(False, True, True)) == (None, 0)


def test_the_planner_goes_from_the_safest_to_the_cheapest():
    """In forms and structures all trials but the last hold, in each of the sequences; so what is taken came before a failure."""
    rng = np.random.default_rng(2)
    network = make_network(rng, (3, 8, 8, 1), [make_spec("vaf", "tanh")] * 2, task="regression")
    trials = compress_network(network, make_dataset(rng, network), Budget(max_drop=1.0)).trials
    forms = [trial for trial in trials if trial.tolerance != trials[-1].tolerance or trial.left == 0]
    tolerances = [trial.tolerance for trial in forms if trial.macs >= forms[-1].macs]
    assert len(tolerances) > 3
    assert tolerances == sorted(tolerances)
    failures = sum(not trial.ok for trial in trials)
    assert 1 <= failures <= 4
    assert any(trial.taken and trial.ok for trial in trials)


def test_regression_closer_by_chance_is_refused():
    rng = np.random.default_rng(1)
    y = rng.normal(size=(500, 1)).astype(np.float32)
    original = y + 0.5
    closer = y + 0.1 + 0 * original          # a quite different network that happens to be nearer to the targets
    verdict = check_budget(Budget(max_drop=1.0), "regression", original, closer, y, refuse_to_count)
    assert not verdict.ok
    assert "too much to be the same network" in verdict.reason
    assert verdict.evidence["drop_upper_bound"] < 0
    # At the limit rms(change)^2 = ((1 + p)^2 - 1) rmse^2.
    limit = 0.5 * np.sqrt(1.01**2 - 1)
    for factor, ok in ((0.999, True), (1.001, False)):
        shifted = original - factor * limit
        assert check_budget(Budget(max_drop=1.0), "regression", original, shifted, y, refuse_to_count).ok == ok


@pytest.mark.filterwarnings("error")
def test_outputs_that_are_not_finite_are_refused():
    fine, y = np.zeros((4, 2)), np.zeros(4, np.int64)
    for value in (np.nan, np.inf):
        broken = fine.copy()
        broken[2, 0] = value
        for pair, name in (((fine, broken), "compressed"), ((broken, fine), "original"), ((broken, broken), "original")):
            verdict = check_budget(Budget(max_drop=100, max_logit_error=1e9), "classification", *pair, y, refuse_to_count)
            assert not verdict.ok
            assert verdict.reason == f"the {name} network's outputs are not finite"


def test_presets_fill_in_a_limit():
    assert complete_budget(Budget()).max_drop == 0.1
    assert complete_budget(Budget(preset="aggressive")).max_drop == 0.5
    assert complete_budget(Budget(preset="exact")).max_drop is None
    assert complete_budget(Budget(max_logit_error=0.5)).max_drop is None
    assert complete_budget(Budget(max_drop=2.0, preset="aggressive")).max_drop == 2.0


# The planner


def check_plan(network, result):
    """What holds for every plan."""
    decisions = result.plan.decisions
    places = [(decision.layer, decision.index) for decision in decisions]
    assert places == [(number, index) for number, layer in enumerate(network.activated_layers)
                      for index in range(layer.linear.out_features)]
    for decision in decisions:
        assert decision.kind in KINDS
        assert list(decision.refused) == list(KINDS[:KINDS.index(decision.kind)])
        for text in (decision.reason, *decision.refused.values()):
            assert text.strip()
            assert "\n" not in text
            assert "-1 allowed" not in text
        limited = result.plan.budget.limits_largest or decision.tolerance == 0   # else the mean error is
        assert decision.max_abs_error <= decision.tolerance * (1 + 1e-9) if limited else np.isfinite(decision.max_abs_error)
        assert decision.domain[0] < decision.domain[1]
    for layer, groups in zip(network.activated_layers, result.groups, strict=True):
        together = np.sort(np.concatenate([group.indices for group in groups]))
        np.testing.assert_array_equal(together, np.arange(layer.linear.out_features))
    document = json.loads(json.dumps(to_json(result.plan), allow_nan=False))
    assert from_json(Plan, document, where="plan.json") == result.plan


def check_validation(network, result, dataset, budget):
    """The budget holds on the validation split, counted here anew."""
    x, y = dataset.validation.x, dataset.validation.y
    before, after = run_network(network, x), run_network(result.network, x)
    if budget.max_logit_error is not None:
        assert np.abs(after - before).max() <= budget.max_logit_error
    limit = complete_budget(budget).max_drop
    if limit is None:
        return
    if dataset.task == "regression":
        rmse = [np.sqrt(((outputs - y) ** 2).mean()) for outputs in (before, after)]
        assert 100 * (rmse[1] / rmse[0] - 1) <= limit
    else:
        drop = 100 * ((before.argmax(1) == y).mean() - (after.argmax(1) == y).mean())
        assert drop <= limit


CASES = [(family, act, task) for (family, act), task in zip(
    [(family, act) for family in ("meta", "vaf") for act in ACTS] + [("agsig", "sigmoid"), ("frelu", "relu"), ("warp", "silu"),
                                                                    ("warp", "elu"), ("fixed", "gelu"), ("fixed", "relu"),
                                                                    *itertools.product(METAS, ("relu", "tanh"))],
    itertools.cycle(["classification", "regression"]))]


@pytest.mark.parametrize(("family", "act", "task"), CASES)
def test_budgets_are_honoured(family, act, task):
    rng = np.random.default_rng(ACTS.index(act))
    network = make_network(rng, (3, 4, 4, 3), [make_spec(family, act)] * 2, task=task, residual=act in ("relu", "tanh"))
    dataset = make_dataset(rng, network)
    # The domains must cover what validation visits: beyond them a form is a line, which no tolerance makes better.
    together = Split(*(np.concatenate(parts) for parts in zip(
        *((split.x, split.y) for split in (dataset.calibration, dataset.validation)), strict=True)))
    dataset = dataclasses.replace(dataset, calibration=together)
    budgets = [Budget(), Budget(max_drop=2.0), Budget(max_logit_error=0.05)]
    results = [compress_network(network, dataset, budget) for budget in budgets]
    for budget, result in zip(budgets, results, strict=True):
        check_plan(network, result)
        check_validation(network, result, dataset, budget)
    assert results[0].plan.tolerance <= results[1].plan.tolerance
    if family not in PARAMETRIC:
        assert all(decision.kind != "kept" for result in results[:2] for decision in result.plan.decisions)


@pytest.mark.parametrize(("family", "act", "depth"), [
    ("agsig", "sigmoid", 1), ("frelu", "relu", 1), *(("warp", act, 1) for act in ACTS), ("fixed", "tanh", 1),
    ("vaf", "relu", 1), ("vaf", "leaky_relu", 1), ("meta", "relu", 1), ("meta", "relu", 3), ("meta", "leaky_relu", 2),
    ("meta", "tanh", 1), ("vaf", "silu", 1), ("meta:gated", "tanh", 2), *itertools.product(METAS, sorted(RELU_LIKE), (1, 2))])
def test_exact_preset_changes_nothing_but_rounding(family, act, depth):
    rng = np.random.default_rng(7)
    network = make_network(rng, (4, 6, 6, 3), [make_spec(family, act, depth)] * 2, residual=True)
    dataset = make_dataset(rng, network, rows=400)
    result = compress_network(network, dataset, Budget(preset="exact"))
    check_plan(network, result)
    kinds = {decision.kind for decision in result.plan.decisions}
    assert not kinds & {"polynomial", "cubic_spline"}
    if family in PARAMETRIC or act in RELU_LIKE:
        assert "kept" not in kinds
    else:
        assert kinds == {"kept"}
    assert all(decision.max_abs_error == 0 for decision in result.plan.decisions)
    before, after = run_network(network, dataset.test.x), run_network(result.network, dataset.test.x)
    # Each of three layers rounds sums of at most 7 terms, 4e-7 of their size, and their size is that of the logits by a
    # factor of a few: 2e-5 leaves a factor of ten for cancellation.
    assert np.abs(after - before).max() <= 2e-5 * np.abs(before).max()


@pytest.mark.parametrize("limit", [0.0, 1e-9])
@pytest.mark.parametrize(("family", "act"), [("warp", "tanh"), ("meta", "relu"), ("vaf", "gelu"), ("fixed", "relu")])
def test_no_change_at_all_allowed(family, act, limit):
    rng = np.random.default_rng(3)
    network = make_network(rng, (3, 5, 2), [make_spec(family, act)])
    dataset = make_dataset(rng, network)
    result = compress_network(network, dataset, Budget(max_logit_error=limit))
    check_plan(network, result)
    check_validation(network, result, dataset, Budget(max_logit_error=limit))
    kept = [decision for decision in result.plan.decisions if decision.kind == "kept"]
    assert len(kept) == (0 if family == "fixed" else 5)
    if family in ("warp", "meta"):
        assert kept[0].reason == "even the float32 rounding of an exact replacement would exceed the budget"
        assert "exact" in kept[0].refused["native" if family == "warp" else "piecewise_linear"]


@pytest.mark.parametrize(("sizes", "task"),
                         [((1, 6, 5, 1), "regression"), ((2, 6, 5, 3), "classification"), ((12, 8, 2), "regression")])
def test_proven_limits(sizes, task):
    """What is proven for the ranges of the training and validation rows holds there, and is what the network was chosen by."""
    rng = np.random.default_rng(len(sizes))
    network = make_network(rng, sizes, [make_spec("vaf", "tanh")] * (len(sizes) - 2), task=task)
    dataset = make_dataset(rng, network)
    scale = float(np.abs(run_network(network, dataset.test.x)).max())
    kept = []
    for limit in (0.1 * scale, 1e-3 * scale):
        result = compress_network(network, dataset, Budget(max_error_bound=limit))
        check_plan(network, result)
        assert result.holds
        assert result.plan.validation["error_bound"] <= limit
        assert "and outputs provably change by at most" in result.plan.validation["verdict"]
        rows = np.concatenate([dataset.train.x, dataset.calibration.x, dataset.validation.x])
        random = rng.uniform(rows.min(0), rows.max(0), (20000, sizes[0])).astype(np.float32)
        domain = Reference.of(network, result.options, dataset.validation.x, dataset.calibration.x, dataset.train.x).domain
        random = random[domain.contains(evaluate_original(network, result.options, random))]
        assert len(random) > 1000
        for x in (rows, random):
            assert np.abs(run_network(result.network, x) - run_network(network, x)).max() <= limit
        kept.append(sum(decision.kind == "kept" for decision in result.plan.decisions))
        loose = compress_network(network, dataset, Budget(max_logit_error=limit))
        assert count_macs(loose.network) <= count_macs(result.network)
    assert kept[0] == 0
    with pytest.raises(ConfigError, match=r"too tight even for the network as it was trained: .*, more than 1e-09, .*; allow"):
        compress_network(network, dataset, Budget(max_error_bound=1e-9))


def test_no_neuron_keeps_a_layer_that_the_budget_does_not(monkeypatch):
    """One so steep that no spline of it is within the tolerance: the finest is taken, if the outputs bear it."""
    rng = np.random.default_rng(3)
    network = make_network(rng, (1, 4, 1), [make_spec("vaf", "tanh")], task="regression")
    with torch.no_grad():
        network.layers[0].activation.first_weight[0].mul_(300)
    dataset, budget = make_dataset(rng, network), Budget(max_drop=30.0)
    result = compress_network(network, dataset, budget)
    check_plan(network, result)
    check_validation(network, result, dataset, budget)
    assert {decision.kind for decision in result.plan.decisions} == {"affine", "cubic_spline"}
    monkeypatch.setattr("mncompress.compression._planner.reach_all", lambda options, tolerances: None)
    assert "kept" in {decision.kind for decision in compress_network(network, dataset, budget).plan.decisions}


def test_no_neuron_leaves_where_moments_are_not_finite(monkeypatch):
    """A feature of 1e20 in a single row does that."""
    def fail(*args):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    rng = np.random.default_rng(0)
    network = make_network(rng, (2, 4, 1), [make_spec("vaf", "tanh")], task="regression")
    dataset, lines = make_dataset(rng, network), []
    monkeypatch.setattr("mncompress.compression._planner.find_levels", fail)
    result = compress_network(network, dataset, Budget(max_drop=5.0), lines.append)
    assert result.holds
    assert not any(decision.left for decision in result.plan.decisions)
    assert any("has no finite second moments" in line and "enormous values" in line for line in lines)


def test_tighter_budgets_never_loosen_the_tolerance():
    rng = np.random.default_rng(11)
    for task in ("classification", "regression"):
        network = make_network(rng, (3, 4, 3), [make_spec("vaf", "tanh")], task=task)
        dataset = make_dataset(rng, network, rows=300)
        drops = [compress_network(network, dataset, Budget(max_drop=drop)).plan.tolerance for drop in (0, 0.5, 3, 10)]
        errors = [compress_network(network, dataset, Budget(max_logit_error=error)).plan.tolerance
                  for error in (0, 0.03, 0.3, 10)]
        assert drops == sorted(drops)
        assert errors == sorted(errors)
        assert drops[-1] > drops[0]
        scale = np.sqrt(np.var(run_network(network, dataset.validation.x) / network.output_scale.numpy(), axis=0).mean())
        assert errors[-1] == pytest.approx(scale * TOLERANCES[-1])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_networks_without_activations(task):
    rng = np.random.default_rng(0)
    network = make_network(rng, (4, 3), [], task=task)
    dataset = make_dataset(rng, network)
    for budget in (Budget(), Budget(max_logit_error=0), Budget(preset="exact")):
        result = compress_network(network, dataset, budget)
        assert result.plan.decisions == ()
        assert result.groups == ()
        np.testing.assert_array_equal(run_network(result.network, dataset.test.x), run_network(network, dataset.test.x))


def test_a_neuron_that_calibration_does_not_reach_does_not_spoil_the_rest():
    """Behind a relu that only validation samples open, a neuron has no sensitivity; the budget must not end in `kept`."""
    rng = np.random.default_rng(4)
    network = make_network(rng, (2, 4, 4, 2), [make_spec("vaf", "tanh"), make_spec("fixed", "relu")], task="regression", noise=0.0)
    dataset = make_dataset(rng, network, rows=400)
    first, linear = network.layers[0], network.layers[1].linear

    def signal(split):
        return first(network.features(torch.as_tensor(split.x)))[:, 0].numpy()

    threshold = float(np.quantile(signal(dataset.validation), 0.9))
    linear.weight[:, 0] = 0.0
    linear.weight[0] = torch.tensor([6.0, 0.0, 0.0, 0.0])
    linear.bias[0] = -6.0 * threshold
    below = signal(dataset.calibration) < threshold
    calibration = Split(dataset.calibration.x[below], dataset.calibration.y[below])
    targets = run_network(network, dataset.validation.x)
    validation = Split(dataset.validation.x, (targets + 0.1 * targets.std(0)).astype(np.float32))
    altered = dataclasses.replace(dataset, calibration=calibration, validation=validation)
    result = compress_network(network, altered, Budget(max_drop=5.0))
    assert result.calibration[0].sensitivity[0] == 0
    assert all(decision.kind != "kept" for decision in result.plan.decisions)


def test_progress_and_evidence():
    rng = np.random.default_rng(5)
    network = make_network(rng, (3, 4, 2), [make_spec("vaf", "tanh")])
    lines = []
    result = compress_network(network, make_dataset(rng, network), Budget(max_drop=1.0), lines.append)
    assert lines[0].startswith("calibrating")
    assert lines[-1].endswith(str(result.plan.validation["verdict"]))
    assert result.plan.validation["samples"] == 300
    assert result.plan.budget == Budget(max_drop=1.0, target="native" if library_path() else "portable")


@pytest.mark.parametrize("config", [
    TrainConfig(data="digits", activation="vaf", inner="tanh", hidden=(8,), epochs=3, device="cpu"),
    TrainConfig(data="digits", activation="meta", inner="relu", hidden=(8,), epochs=3, device="cpu"),
    TrainConfig(data="digits", activation="meta", inner="tanh", ends="gated", hidden=(8,), epochs=3, device="cpu"),
    TrainConfig(data="digits", activation="meta", inner="relu", ends="gated", hidden=(8,), epochs=3, device="cpu"),
    TrainConfig(data="function:product", activation="vaf", inner="tanh", hidden=(6, 6), residual=True, epochs=3, device="cpu"),
])
def test_trained_networks(config):
    dataset = load_dataset(config.data, seed=config.seed)
    network = train(config).network()
    for budget in (Budget(), Budget(preset="exact")):
        result = compress_network(network, dataset, budget)
        check_plan(network, result)
        check_validation(network, result, dataset, budget)
        if budget.preset == "default" or config.inner == "relu":
            assert all(decision.kind != "kept" for decision in result.plan.decisions)
        kinds = {kind_of(group.key) for groups in result.groups for group in groups}
        assert kinds == {decision.kind for decision in result.plan.decisions}
