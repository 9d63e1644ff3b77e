"""Neurons that leave, bypasses, the closed-form repair, and plans that are given back."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from structure_samples import assign, make_dataset, make_network, make_options, sizes_of

from mncompress import runtime
from mncompress.analysis import make_inner_networks
from mncompress.calibration import measure_metrics, run_network
from mncompress.compression import Assignment, Compressed, Study, build, certify, compress_network, rewrite
from mncompress.compression._departures import NODE_MACS, Departure, Shape, distribute, find_departures
from mncompress.compression._factors import factor, find_factors
from mncompress.compression._repair import RIDGES, Refit, Samples, Solution, cut_rank, measure_error
from mncompress.compression._rewrite import LinearMap
from mncompress.errors import ConfigError
from mncompress.export import make_model, write_onnx
from mncompress.nn import CubicSpline, Network, Standardize, count_macs
from mncompress.types import Budget, LayerPlan, Plan, from_json, to_json


def run_blueprint(network, blueprint, x):
    """A blueprint in float64 NumPy, straight from its definition."""
    values = {-1: (x.astype(np.float64) - network.features.shift.numpy()) / network.features.scale.numpy()}
    for position, (layer, linear) in enumerate(zip(network.layers, blueprint.maps, strict=True)):
        u = sum(values[source] @ weight.T for source, weight in linear.weights.items()) + linear.bias
        y = u.copy()
        for group in blueprint.groups[position] if layer.activation is not None else ():
            form = make_inner_networks(layer.activation).select(group.indices) if group.form is None else group.form
            y[:, group.indices] = 0.0 if group.left else form.evaluate(u[:, group.indices])
        values[position] = y
    return y if network.targets is None else y * network.targets.scale.double().numpy() + network.targets.shift.double().numpy()


@pytest.mark.parametrize("seed", range(24))
def test_rewriting_computes_the_blueprint_and_so_does_the_file(seed, tmp_path):
    rng = np.random.default_rng(seed)
    task = ("classification", "regression")[seed % 2]
    network = make_network(rng, sizes_of(rng, 1 + seed % 3), ("vaf", "meta", "warp")[seed % 3], task=task)
    dataset = make_dataset(rng, network)
    options = make_options(network, dataset.train.x)
    repaired = seed % 4 != 0
    ranks = rng.choice([0, 1, 2, 99] if repaired else [99], len(options)).tolist()
    share = 1.0 if seed % 5 == 0 else 0.5
    assignments = assign(rng, options, ranks, "search" if repaired else None, share)
    blueprint = build(network, options, assignments, Study.of(network, dataset))
    rewritten = rewrite(network, blueprint.groups, blueprint.maps)
    x = dataset.test.x
    expected = run_blueprint(network, blueprint, x)
    atol = 2e-5 * max(1.0, np.abs(expected).max())      # weights are rounded to float32 once
    np.testing.assert_allclose(run_network(rewritten.double(), x.astype(np.float64)), expected, rtol=2e-5, atol=atol)
    for inline in (False, True):
        path = tmp_path / f"{inline}.onnx"
        write_onnx(rewritten.float(), path, opset_version=18, inline=inline, metadata={})
        np.testing.assert_allclose(runtime.run(runtime.make_session(path), x), expected, rtol=1e-4, atol=10 * atol)


def test_nothing_is_lost_where_lines_leave():
    rng = np.random.default_rng(0)
    network = make_network(rng, (3, 6, 5, 2), "warp")
    dataset = make_dataset(rng, network)
    options = make_options(network, dataset.train.x)
    everywhere = [Assignment(np.full(option.n, "affine"), {}, np.ones(option.n, bool), 99) for option in options]
    blueprint = build(network, options, everywhere)
    rewritten = rewrite(network, blueprint.groups, blueprint.maps)
    assert [layer.linear.weight.shape for layer in rewritten.layers] == [(2, 3)]     # both hidden layers are gone
    h = network.features(torch.as_tensor(dataset.test.x)).double().numpy()
    for layer, groups in zip(network.layers, [*blueprint.groups, ()], strict=True):
        h = h @ layer.linear.weight.double().numpy().T + layer.linear.bias.double().numpy()
        h = groups[0].form.evaluate(h) if groups else h
    np.testing.assert_allclose(run_network(rewritten, dataset.test.x), h, rtol=1e-4, atol=1e-4)


def test_units_of_targets_decide_nothing():
    rng = np.random.default_rng(2)
    network = make_network(rng, (3, 8, 8, 2), task="regression")
    dataset = make_dataset(rng, network)
    unit = np.float32([2.0**-90, 2.0**70])      # powers of two, so that nothing is rounded otherwise
    targets = Standardize(network.targets.shift.numpy() * unit, network.targets.scale.numpy() * unit)
    other = Network(network.spec, network.layers, network.features, targets)
    splits = {name: dataclasses.replace(split, y=split.y * unit) for name in ("train", "calibration", "validation", "test")
              for split in [getattr(dataset, name)]}
    scaled = dataclasses.replace(dataset, **splits)
    one, two = (compress_network(*each, Budget(max_drop=5)) for each in ((network, dataset), (other, scaled)))
    assert [trial.macs for trial in one.trials] == [trial.macs for trial in two.trials]
    assert [trial.drop for trial in one.trials] == pytest.approx([trial.drop for trial in two.trials], rel=1e-9, abs=1e-9)
    assert [decision.kind for decision in one.plan.decisions] == [decision.kind for decision in two.plan.decisions]
    assert count_macs(one.network) < count_macs(network)


@pytest.mark.parametrize("bypassed", [False, True])
def test_departures_cost_what_least_squares_says(bypassed):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3000, 3))
    h = np.tanh(x @ rng.normal(size=(3, 6))) + 0.3 * x @ rng.normal(size=(3, 6))
    weight, metric = rng.normal(size=(4, 6)), rng.normal(size=(4, 4))
    stages = find_departures(torch.as_tensor(h), torch.as_tensor(x), weight, metric, 1.0, np.arange(6))
    z = h @ weight.T
    checked = 0
    for stage in stages:
        if len(stage.left) and bool(stage.rank) == bypassed and stage.rank in (0, 3):
            kept = np.setdiff1d(np.arange(6), stage.left)
            read = np.concatenate([h[:, kept], x] if bypassed else [h[:, kept]], 1)
            read = np.concatenate([read, np.ones((len(x), 1))], 1)
            rest = z - read @ np.linalg.lstsq(read, z, rcond=None)[0]
            assert stage.error == pytest.approx(np.square(rest @ metric.T).sum(1).mean(), rel=5e-2, abs=1e-6)     # it has a ridge
            checked += 1
    assert checked == 6


def test_the_neuron_that_is_a_line_leaves_first():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2000, 3))
    u = x @ rng.normal(size=(3, 5))
    h = np.where(np.arange(5) == 3, u, np.abs(u))
    stages = find_departures(torch.as_tensor(h), torch.as_tensor(x), rng.normal(size=(2, 5)), np.eye(2), 1.0, np.arange(5))
    first = next(stage for stage in stages if stage.rank)
    assert first.left.tolist() == [3]
    assert first.error < 1e-3


def test_distribution_prefers_the_layer_where_it_costs_less():
    nobody = Departure(np.zeros(0, np.intp), 0, 0.0)
    cheap, dear = Departure(np.arange(10), 0, 1e-4), Departure(np.arange(10), 0, 1e-1)
    shape = Shape((20, 40, 40, 5), False)
    assert distribute([[nobody, dear], [nobody, cheap], [nobody]], shape, 0.05)[:2] == [nobody, cheap]
    assert distribute([[nobody, dear], [nobody, cheap], [nobody]], shape, 1e-9)[:2] == [nobody, nobody]
    assert distribute([[nobody, dear], [nobody, cheap], [nobody]], shape, 10.0)[:2] == [dear, cheap]


def test_repair_is_ridge_regression_towards_the_start():
    rng = np.random.default_rng(3)
    h, z = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(500, 3))
    start = Solution([rng.normal(size=(3, 4))], np.zeros(3))
    solution = Refit(Samples([torch.as_tensor(h)], torch.as_tensor(z)), start).solve(0.1)
    centered, targets = h - h.mean(0), z - z.mean(0)
    penalty = 0.1 * np.square(centered).mean(0).mean()
    stacked = np.concatenate([centered / np.sqrt(500), np.sqrt(penalty) * np.eye(4)])
    wanted = np.concatenate([targets / np.sqrt(500), np.sqrt(penalty) * start.weights[0].T])
    np.testing.assert_allclose(solution.weights[0], np.linalg.lstsq(stacked, wanted, rcond=None)[0].T, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(solution.bias, z.mean(0) - solution.weights[0] @ h.mean(0), rtol=1e-8, atol=1e-8)


def test_repair_never_makes_the_checked_rows_worse():
    rng = np.random.default_rng(4)
    h, weight = rng.normal(size=(30, 20)), rng.normal(size=(2, 20))      # few rows: refitting would follow the noise
    noise = 3 * rng.normal(size=(30, 2))
    start = Solution([weight], np.zeros(2))
    refit = Refit(Samples([torch.as_tensor(h)], torch.as_tensor(h @ weight.T + noise)), start)
    fresh = rng.normal(size=(500, 20))
    check = Samples([torch.as_tensor(fresh).float()], torch.as_tensor(fresh @ weight.T).float())
    assert refit.best(check, np.eye(2)) is start
    assert min(measure_error(refit.solve(ridge), check, np.eye(2)) for ridge in RIDGES) > measure_error(start, check, np.eye(2))


def test_cut_bypasses_keep_what_matters():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4000, 6)) @ rng.normal(size=(6, 6))
    bypass, metric = rng.normal(size=(5, 6)), rng.normal(size=(5, 5))
    moments = x.T @ x / len(x)
    values = np.linalg.eigvalsh(metric @ bypass @ moments @ bypass.T @ metric.T)[::-1]
    for rank in (1, 2, 4):
        q = x @ cut_rank(bypass, moments, metric, rank).T
        rest = x @ bypass.T - q @ np.linalg.lstsq(q, x @ bypass.T, rcond=None)[0]
        assert q.shape[1] == rank
        assert np.square(rest @ metric.T).sum(1).mean() == pytest.approx(values[rank:].sum(), rel=1e-6)


def test_metrics_predict_what_small_errors_do():
    rng = np.random.default_rng(6)
    network = make_network(rng, (4, 6, 5, 3), task="regression")
    x = rng.normal(size=(500, 4)).astype(np.float32)
    root = measure_metrics(network, x)[1]
    error = 1e-3 * rng.normal(size=5)
    double = network.double()
    h = double.layers[0](double.features(torch.as_tensor(x)))
    u = double.layers[1].linear(h)
    def finish(u):
        return double.layers[2](double.layers[1].activation(u))
    change = (finish(u + torch.as_tensor(error)) - finish(u)).numpy()
    assert np.square(change).sum(1).mean() == pytest.approx(np.square(root @ error).sum(), rel=2e-2)


@pytest.mark.parametrize(("family", "repair", "depth"), [*itertools.product(("vaf", "meta", "warp"), (None, 1e-3), (1, 2, 3))])
def test_certificates_hold_where_neurons_left(family, repair, depth):
    for seed, act in enumerate(("tanh", "relu", "gelu", "elu")):
        rng = np.random.default_rng(seed)
        task = ("classification", "regression")[seed % 2]
        network = make_network(rng, sizes_of(rng, depth), family, act, task)
        dataset = make_dataset(rng, network, 200)
        options = make_options(network, dataset.train.x)
        ranks = rng.choice([0, 1, 99] if repair else [99], depth).tolist()
        keys = [np.where(rng.random(option.n) < 0.4, "affine", "kept") for option in options]
        assignments = [Assignment(key, {}, key == "affine", rank, repair) for key, rank in zip(keys, ranks, strict=True)]
        blueprint = build(network, options, assignments, Study.of(network, dataset))
        compressed = Compressed(rewrite(network, blueprint.groups, blueprint.maps), Plan(Budget(), (), 0.0, {}), blueprint.groups,
                                blueprint.maps, options, ())
        x = dataset.test.x
        certificate = certify(network, compressed, x)
        change = np.abs(run_network(network, x) - run_network(compressed.network, x))
        assert certificate.bounds is not None
        assert np.all(change <= certificate.sample_bounds)
        assert np.all(certificate.sample_bounds <= certificate.bounds)
        # A bound that says nothing would be no use: at each sample it is within a factor of what one layer behind another loses.
        assert np.median(certificate.sample_bounds.max(1)) < 30 ** depth * max(np.median(change.max(1)), 1e-4)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_plans_given_back_give_the_same_network(task):
    rng = np.random.default_rng(7)
    network = make_network(rng, (5, 24, 16, 3), task=task)
    dataset = make_dataset(rng, network, 1500)
    first = compress_network(network, dataset, Budget(target_macs="60%"))
    assert any(decision.left for decision in first.plan.decisions)
    assert count_macs(first.network) <= 0.6 * count_macs(network)
    plan = from_json(Plan, to_json(first.plan), where="plan")
    again = compress_network(network, dataset, plan.budget, plan=plan)
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
    assert [(d.kind, d.left, d.settings) for d in again.plan.decisions] == [(d.kind, d.left, d.settings) for d in plan.decisions]
    kept = dataclasses.replace(plan, decisions=tuple(dataclasses.replace(d, kind="kept", settings={}, left=False)
                                                     for d in plan.decisions), layers=())
    np.testing.assert_array_equal(run_network(compress_network(network, dataset, plan=kept).network, dataset.test.x),
                                  run_network(network, dataset.test.x))


def test_edited_plans_are_checked():
    rng = np.random.default_rng(8)
    network = make_network(rng, (3, 4, 2))
    dataset = make_dataset(rng, network)
    plan = compress_network(network, dataset, Budget()).plan
    first, second, *rest = plan.decisions
    spline = dataclasses.replace(first, kind="cubic_spline", left=False, settings={"intervals": 9})
    degree = dataclasses.replace(first, kind="polynomial", left=False)
    gone = tuple(dataclasses.replace(each, kind="affine", left=True, settings={}) for each in plan.decisions)

    def with_first(decision):
        return {"decisions": (decision, second, *rest)}

    cases = [
        ("only affine neurons leave", with_first(dataclasses.replace(first, kind="kept", left=True, settings={}))),
        ("which it cannot become", with_first(dataclasses.replace(first, kind="native", left=False, settings={"act": "swish"}))),
        *(("needs the setting intervals", with_first(dataclasses.replace(spline, settings=settings)))
          for settings in ({}, {"intervals": 0}, {"intervals": True}, {"intervals": 9.0}, {"intervals": "9"})),
        ("degree, a number from 1 to 7", with_first(dataclasses.replace(degree, settings={"degree": 40}))),
        ("has 0 decisions for neuron 0 of layer 0", {"decisions": (second, *rest)}),
        ("has 2 decisions for neuron 1 of layer 0", {"decisions": (first, second, second, *rest)}),
        ("neuron 0 of layer 5, and the network has 0", {"decisions": (first, second, *rest, dataclasses.replace(first, layer=5))}),
        *(("there may be one entry for each of the layers 0 to 0", {"layers": layers})
          for layers in ((LayerPlan(1),), (LayerPlan(-1),), (LayerPlan(0), LayerPlan(0)))),
        *(("takes neurons that leave, and a rank of 0 to 2", {"layers": (LayerPlan(0, rank, 0.1),), "decisions": gone})
          for rank in (-1, 3)),
        ("takes neurons that leave", {"layers": (LayerPlan(0, 1, 0.1),), **with_first(spline)}),
        ("must not be negative", {"layers": (LayerPlan(0, 1, -0.1),), "decisions": gone}),
        *(("a rank of 1 to the 4 neurons that stay", {"layers": (LayerPlan(0, factored=factored),)}) for factored in (-1, 5)),
        ("a rank of 1 to the 0 neurons that stay", {"layers": (LayerPlan(0, 0, 0.1, 1),), "decisions": gone}),
        ("epochs of distillation are negative", {"finetuned": -3}),
    ]
    for message, changes in cases:
        with pytest.raises(ConfigError, match=message):
            compress_network(network, dataset, plan=dataclasses.replace(plan, **{
                "decisions": tuple(dataclasses.replace(each, left=False) for each in plan.decisions), "layers": (), **changes}))


def test_targets_that_cannot_be_reached_are_refused():
    rng = np.random.default_rng(9)
    network = make_network(rng, (6, 12, 3))
    with pytest.raises(ConfigError, match="cannot be reached; the smallest network found has"):
        compress_network(network, make_dataset(rng, network), Budget(target_macs=1))
    with pytest.raises(ConfigError, match=r"target of 3 us cannot be reached; the fastest network found takes 3\.5"):
        compress_network(network, make_dataset(rng, network), Budget(target_latency=3), measure_latency=lambda network: 3.5)
    times = iter([9.0, *[2.0] * 99])
    found = compress_network(network, make_dataset(rng, network), Budget(target_latency=3), measure_latency=lambda _: next(times))
    assert count_macs(found.network) < count_macs(network)


@pytest.mark.parametrize("value", ["0", "-3", "120%", "x", "1e3", ""])
def test_targets_are_checked(value):
    with pytest.raises(ConfigError, match="target_macs must be"):
        Budget(target_macs=value)


def test_excluded_layers_stay_as_they_are():
    rng = np.random.default_rng(10)
    network = make_network(rng, (5, 10, 9, 3))
    dataset = make_dataset(rng, network)
    for budget, fixed in ((Budget(exclude=("1",)), 1), (Budget(include=("body.1.*",)), 0)):
        decisions = compress_network(network, dataset, budget).plan.decisions
        assert {decision.kind for decision in decisions if decision.layer == fixed} == {"kept"}
        assert "kept" not in {decision.kind for decision in decisions if decision.layer != fixed}
    with pytest.raises(ConfigError, match="leave no layer to change"):
        compress_network(network, dataset, Budget(exclude=("*",)))
    for budget in (Budget(exclude=("7",)), Budget(include=("0", "7"))):     # a slip that would let the wrong layers change
        with pytest.raises(ConfigError, match="the pattern '7' is that of no layer"):
            compress_network(network, dataset, budget)


@pytest.mark.parametrize(("act", "task"), [("tanh", "classification"), ("relu", "classification"), ("silu", "regression")])
def test_distillation_comes_closer_and_splines_stay_smooth(act, task):
    rng = np.random.default_rng(11)
    network = make_network(rng, (6, 24, 12, 3), act=act, task=task)
    dataset = make_dataset(rng, network, 1500)
    plain = compress_network(network, dataset, Budget(target_macs="50%"))
    lines = []
    tuned = compress_network(network, dataset, Budget(target_macs="50%"), lines.append, epochs=4)
    assert 1 <= tuned.plan.finetuned <= 4
    assert sum(line.startswith("distillation") for line in lines) == 5
    before, after = (np.square(run_network(each.network, dataset.test.x) - run_network(network, dataset.test.x)).mean()
                     for each in (plain, tuned))
    assert after < 0.9 * before
    assert count_macs(tuned.network) == count_macs(plain.network)
    for module in tuned.network.modules():
        if isinstance(module, CubicSpline):
            c = module.coefficients.double()
            slopes = c @ torch.arange(4.0, dtype=torch.float64)
            np.testing.assert_allclose(c.sum(-1)[:, :-1], c[:, 1:, 0], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(slopes[:, :-1], c[:, 1:, 1], rtol=1e-4, atol=1e-4)
    # As many epochs are trained again, although fewer may have been kept.
    again = compress_network(network, dataset, plan=dataclasses.replace(tuned.plan, finetuned=1))
    assert (again.plan.finetuned, again.plan.finetune_epochs) == (tuned.plan.finetuned, 4)
    np.testing.assert_array_equal(run_network(again.network, dataset.test.x), run_network(tuned.network, dataset.test.x))


def make_lines_(network, layer, where):
    """Let relu units cancel in pairs: s relu(a u + b) - s relu(-a u - b) = s (a u + b) for every u."""
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])
    state = network.layers[layer].activation.state_dict()
    for name in ("first_weight", "first_bias", "out_weight"):
        state[name][where] = state[name][where][:, [0, 0, 1, 1]] * signs


@pytest.mark.parametrize(("lines", "is_cheaper"), [(0, False), (40, False), (140, True), (150, True)])
def test_exact_lines_leave_where_that_is_cheaper(lines, is_cheaper):
    """20 x 10 multiply-adds of a bypass and a node of 1300 against 34 for each line; and nothing but rounding changes."""
    rng = np.random.default_rng(lines)
    network = make_network(rng, (20, 150, 10), act="relu")
    dataset = make_dataset(rng, network)
    where = rng.permutation(150)[:lines]
    make_lines_(network, 0, where)
    found = compress_network(network, dataset, Budget(preset="exact"))
    decisions = found.plan.decisions
    left = [decision.index for decision in decisions if decision.left]
    assert left == (sorted(where.tolist()) if is_cheaper else [])
    assert all(decision.max_abs_error == 0 for decision in decisions)
    assert [(each.layer, each.rank, each.ridge) for each in found.plan.layers] == ([(0, 10, None)] if is_cheaper else [])
    x = np.concatenate([dataset.test.x, 1e3 * dataset.test.x])          # exact far outside of the domain as well
    before = run_network(copy.deepcopy(network).double(), x.astype(np.float64))
    # The rounding to float32 of sums of 21 and 151 terms, of the size of the outputs up to a factor of a few.
    np.testing.assert_allclose(run_network(found.network, x), before, rtol=1e-5, atol=1e-5 * np.abs(before).max())
    certificate = certify(network, found, dataset.test.x)
    assert certificate.replacement_bound < 1e-10
    again = compress_network(network, dataset, Budget(preset="exact"), plan=found.plan)
    np.testing.assert_array_equal(run_network(again.network, x), run_network(found.network, x))


def test_a_layer_of_exact_lines_is_gone_and_excluded_ones_stay():
    rng = np.random.default_rng(1)
    network = make_network(rng, (5, 8, 8, 3), act="relu")
    dataset = make_dataset(rng, network)
    for layer in (0, 1):
        make_lines_(network, layer, np.arange(8))
    found = compress_network(network, dataset, Budget(preset="exact"))
    assert [layer.linear.weight.shape for layer in found.network.layers] == [(3, 5)]
    found = compress_network(network, dataset, Budget(preset="exact", exclude=("0",)))
    assert [decision.left for decision in found.plan.decisions] == [False] * 8 + [True] * 8
    network = make_network(rng, (5, 8, 8, 3), act="relu", residual=True)
    make_lines_(network, 1, np.arange(8))
    assert not any(decision.left for decision in compress_network(network, dataset, Budget(preset="exact")).plan.decisions)


def test_plans_know_the_layers_behind():
    assert LayerPlan(0) == from_json(LayerPlan, {"layer": 0}, where="plan")
    model = make_model(make_network(np.random.default_rng(0), (2, 3, 1)), opset_version=18, metadata={})
    assert model.graph.node


@pytest.mark.parametrize("seed", range(6))
def test_layers_of_low_rank_compute_the_blueprint_and_are_certified(seed, tmp_path):
    rng = np.random.default_rng(seed)
    task = ("classification", "regression")[seed % 2]
    network = make_network(rng, (6, 9, 8, 3), ("vaf", "meta", "warp")[seed % 3], task=task)
    dataset = make_dataset(rng, network)
    options = make_options(network, dataset.train.x)
    assignments = [dataclasses.replace(each, factored=2 + seed % 2) for each in assign(rng, options, [0, 0], "search", 0.2)]
    blueprint = build(network, options, assignments, Study.of(network, dataset))
    rewritten = rewrite(network, blueprint.groups, blueprint.maps)
    assert [layer.linear.out_features for layer in rewritten.layers if layer.activation is None] == [2 + seed % 2] * 2 + [3]
    x = dataset.test.x
    expected = run_blueprint(network, blueprint, x)
    atol = 2e-5 * max(1.0, np.abs(expected).max())      # weights are rounded to float32 once
    path = tmp_path / "factored.onnx"
    write_onnx(rewritten, path, opset_version=18, inline=False, metadata={})
    np.testing.assert_allclose(runtime.run(runtime.make_session(path), x), expected, rtol=1e-4, atol=10 * atol)
    compressed = Compressed(rewritten, Plan(Budget(), (), 0.0, {}), blueprint.groups, blueprint.maps, options, ())
    certificate = certify(network, compressed, x)
    assert certificate.bounds is not None
    assert np.all(np.abs(run_network(network, x) - run_network(rewritten, x)) <= certificate.sample_bounds)


def test_lower_ranks_cost_what_is_predicted():
    rng = np.random.default_rng(3)
    values, weight = rng.normal(size=(4000, 12)) * np.geomspace(1, 0.01, 12), rng.normal(size=(10, 12))
    metric = np.diag(np.arange(1, 11.0))
    linear = LinearMap({-1: weight}, rng.normal(size=10))
    u = values @ weight.T + linear.bias
    nobody = [Departure(np.zeros(0, np.intp), 0, 0.0)]
    predicted = {each.factored: each.error for each in find_factors(torch.as_tensor(u), metric, 1.0, 12, nobody, np.arange(10))}
    assert sorted(predicted) == [1, 2, 3, 4, 5]
    for rank, error in predicted.items():
        found = factor(linear, values, metric, np.arange(10), rank)
        rest = values @ found.weights[-1].T + found.bias - u
        assert np.linalg.matrix_rank(found.weights[-1]) == rank
        assert np.square(rest @ metric.T).sum(1).mean() == pytest.approx(error, rel=1e-6)


def test_constants_leave_without_a_lower_rank():
    """With a dead neuron of seven, rank 6 loses nothing either, but costs more than the six rows and leaves the bound wide."""
    rng = np.random.default_rng(0)
    network = make_network(rng, (60, 7, 3), "fixed", "relu")
    with torch.no_grad():
        network.layers[0].linear.bias[2] = -100.0
    dataset = make_dataset(rng, network)
    found = compress_network(network, dataset, Budget(max_drop=0.1))
    constants = [decision.index for decision in found.plan.decisions if decision.kind == "constant"]
    assert constants == [2]
    assert all(layer.factored == 0 for layer in found.plan.layers)
    assert count_macs(found.network) == 6 * 60 + 3 * 6
    certificate = certify(network, found, dataset.test.x)
    assert certificate.replacement_bound < 1e-6


def everyone_leaves(network, dataset):
    """A network whose activated layers are empty: what the next layer reads is a constant."""
    found = compress_network(network, dataset, Budget(max_drop=90.0))
    decisions = tuple(dataclasses.replace(each, kind="affine", settings={}, left=True) for each in found.plan.decisions)
    layers = tuple(LayerPlan(position, 0, 1e-4) for position in range(len(found.options)))
    return compress_network(network, dataset, plan=dataclasses.replace(found.plan, decisions=decisions, layers=layers))


def test_sample_bounds_cover_that_evaluations_of_the_original_differ(tmp_path):
    """The outputs of an empty network are the same for all inputs, so the original's rounding is all that is left to cover."""
    worst = 0.0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        network = make_network(rng, (2, 4, 4, 4, 2), family="meta", act="gelu", task="regression")
        dataset = make_dataset(rng, network, 100)
        compressed = everyone_leaves(network, dataset)
        bounds = certify(network, compressed, dataset.test.x).sample_bounds
        exact = run_network(copy.deepcopy(network).double(), dataset.test.x.astype(np.float64))
        outputs = []
        for name, module in (("original", network), ("compressed", compressed.network)):
            write_onnx(module, tmp_path / f"{name}.onnx", opset_version=18, inline=False, metadata={})
            outputs.append(runtime.run(runtime.make_session(tmp_path / f"{name}.onnx"), dataset.test.x))
        after = run_network(copy.deepcopy(compressed.network).double(), dataset.test.x.astype(np.float64))
        changes = np.abs(outputs[1] - outputs[0]), np.abs(after - exact), np.abs(outputs[1] - exact), np.abs(after - outputs[0])
        worst = max(worst, *(float((change / bounds).max()) for change in changes))
    assert 0.99 < worst <= 1        # tight, since nothing but rounding is uncertain


def test_a_plan_has_a_budget_of_its_own():
    """What forms are fitted for is part of it."""
    rng = np.random.default_rng(17)
    network = make_network(rng, (5, 12, 3))
    dataset = make_dataset(rng, network)
    first = compress_network(network, dataset, Budget(max_logit_error=0.05))
    again = compress_network(network, dataset, plan=first.plan)
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
    compress_network(network, dataset, Budget(max_logit_error=0.05), plan=first.plan)
    for other in (Budget(), Budget(max_logit_error=0.06), Budget(max_logit_error=0.05, target="portable")):
        with pytest.raises(ConfigError, match="a plan has a budget of its own"):
            compress_network(network, dataset, other, plan=first.plan)


def test_distillation_that_breaks_the_budget_is_left_out(monkeypatch):
    rng = np.random.default_rng(3)
    network = make_network(rng, (5, 12, 3))
    dataset = make_dataset(rng, network)
    limits = Budget(max_logit_error=0.05), Budget(target_macs="80%")
    plain = [compress_network(network, dataset, budget) for budget in limits]

    def worsen(original, given, *args):
        worse = copy.deepcopy(given)
        with torch.no_grad():
            worse.layers[-1].linear.bias += 0.2
        return worse, 1

    monkeypatch.setattr("mncompress.compression._planner.finetune", worsen)
    lines = []
    limited, aimed = (compress_network(network, dataset, budget, lines.append, epochs=1) for budget in limits)
    assert any(line.startswith("distillation is left out, since an output changes by 0.2") for line in lines)
    assert (limited.holds, limited.plan.finetuned, limited.plan.finetune_epochs) == (True, 0, 1)
    np.testing.assert_array_equal(run_network(limited.network, dataset.test.x), run_network(plain[0].network, dataset.test.x))
    assert not any("before distillation" in decision.reason for decision in limited.plan.decisions)
    assert aimed.plan.finetuned == 1                # a target alone limits nothing
    assert all(decision.reason.endswith("; before distillation") for decision in aimed.plan.decisions)


def test_a_target_must_keep_the_limits_beside_it():
    rng = np.random.default_rng(5)
    network = make_network(rng, (6, 24, 12, 3))
    dataset = make_dataset(rng, network, 1500)
    alone = compress_network(network, dataset, Budget(target_macs="40%"))
    change = alone.plan.validation["max_abs_logit_error"]
    assert alone.plan.validation["verdict"] == "a cost was asked for, and no limit"
    found = compress_network(network, dataset, Budget(target_macs="40%", max_logit_error=10 * change))
    assert found.plan.validation["verdict"] == "the budget holds on the validation split"
    with pytest.raises(ConfigError, match=r"the target cannot be reached within the limits: an output changes by .*; drop one"):
        compress_network(network, dataset, Budget(target_macs="40%", max_logit_error=0.01 * change))


@pytest.mark.parametrize("preset", ["default", "exact"])
def test_constants_that_cannot_leave_do_not_split_a_layer(preset):
    """Beside a residual connection a constant stays, and would cost a split, a join and an order."""
    rng = np.random.default_rng(9)
    network = make_network(rng, (6, 12, 12, 12, 3), act="relu", residual=True)
    with torch.no_grad():
        for layer in network.layers[:-1]:
            layer.activation.out_weight[::3] = 0
    found = compress_network(network, make_dataset(rng, network), Budget(preset=preset, target="native"))
    kinds = [{decision.kind for decision in found.plan.decisions if decision.layer == layer} for layer in range(3)]
    assert all("constant" not in each for each in kinds)
    assert not {node.op_type for node in make_model(found.network, opset_version=18, metadata={}).graph.node} & {"Split", "Concat"}


def test_lower_ranks_cost_a_small_network_no_node():
    """They run inside its one node, while a bypass ends that."""
    n, none = np.zeros(0, np.intp), Departure(np.zeros(0, np.intp), 0, 0.0)
    small, large = Shape((64, 64, 10), True), Shape((64, 64, 10), False)
    ranked, bypassed = Departure(n, 0, 0.0, 13), Departure(np.arange(3), 10, 0.0)
    saved = 64 * 64 - 13 * 128
    assert small.cost([none, none]) - small.cost([ranked, none]) == saved
    assert large.cost([none, none]) - large.cost([ranked, none]) == saved - NODE_MACS
    assert small.cost([bypassed, none]) - large.cost([bypassed, none]) == 4 * NODE_MACS
