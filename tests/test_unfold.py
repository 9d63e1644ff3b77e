"""Compressed networks that were trained on, in the original's order and units: what they compute, and what is proven of it."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from structure_samples import assign, make_dataset, make_network, make_options, sizes_of

from mncompress import spline
from mncompress.calibration import run_network
from mncompress.compression import Assignment, Compressed, Study, build, certify, compress_network, rewrite
from mncompress.compression._evaluate import evaluate_compressed, evaluate_original
from mncompress.compression._finetune import _Hermite, _make_trainable_
from mncompress.compression._unfold import unfold
from mncompress.nn import CubicSpline
from mncompress.types import Budget, Plan

FORMS = ["piecewise_linear", "piecewise_linear:reduced", "cubic_spline:linear", "constant", "affine", "cubic_spline", "polynomial"]


def move(network, size, seed=0):
    """A copy in which all that distillation trains has moved by about `size` of its magnitude."""
    moved, generator = copy.deepcopy(network), torch.Generator().manual_seed(seed)
    student = copy.deepcopy(network)
    _make_trainable_(student)
    trained = {name.replace(".parametrizations", "").replace("coefficients.original0", "coefficients")
               for name, value in student.named_parameters() if value.requires_grad}
    with torch.no_grad():
        for name, value in moved.named_parameters():
            if name in trained:     # columns that fill up a neuron's knots stay without effect
                step = size * (value.abs().mean() + 0.1) * torch.randn(value.shape, generator=generator)
                value += step * (value != 0) if name.endswith("slope_changes") else step
        for module in moved.modules():
            if isinstance(module, CubicSpline):     # trained by values and slopes at the knots, so they stay continuous
                hermite = _Hermite()
                module.coefficients.copy_(hermite(*hermite.right_inverse(module.coefficients.double())))
    return moved


def assign_all(rng, options, ranks, ridge):
    """Every form that there is, and neurons that leave."""
    assignments = assign(rng, options, ranks, ridge, 0.3)
    for option, assignment in zip(options, assignments, strict=True):
        natives = [key for key in option.errors if key.startswith("native:")]
        keys = ["kept", *(key for key in [natives[0], *FORMS] if np.isfinite(option.errors.get(key, np.inf)).all())]
        assignment.keys[:] = np.where(assignment.left, "affine", rng.choice(keys, option.n))
        assignment.rungs.update({"cubic_spline:linear": 24, "piecewise_linear:reduced": 3})
    return assignments


def compress_and_move(rng, network, assignments, options, dataset, size):
    blueprint = build(network, options, assignments, Study.of(network, dataset))
    rewritten = rewrite(network, blueprint.groups, blueprint.maps)
    moved = move(rewritten, size) if size else rewritten
    groups, maps = unfold(network, blueprint.groups, blueprint.maps, moved)
    return Compressed(moved, Plan(Budget(), (), 0.0, {}), groups, maps, options, ()), blueprint


def check_outputs(network, compressed, x):
    """The parts give what the network gives, and the certificate covers that."""
    original = evaluate_original(network, compressed.options, x)
    found = evaluate_compressed(network, original, compressed.groups, compressed.maps).outputs[len(network.layers) - 1]
    exact = copy.deepcopy(compressed.network).double()
    features = (torch.as_tensor(x).double() - network.features.shift.double()) / network.features.scale.double()
    outputs = exact.body(features).detach().numpy()
    np.testing.assert_allclose(found, outputs, rtol=1e-9, atol=1e-9 * (1 + np.abs(outputs).max()))
    certificate = certify(network, compressed, x)
    assert certificate.bounds is not None
    change = np.abs(run_network(compressed.network, x) - run_network(network, x))
    assert (change <= certificate.sample_bounds).all()
    assert (change.max(0) <= certificate.bounds).all()
    return change.max(), certificate


@pytest.mark.parametrize("size", [0.0, 0.03])
@pytest.mark.parametrize("seed", range(6))
def test_parts_give_what_the_network_gives(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    act, task = ("tanh", "relu", "silu")[seed % 3], ("classification", "regression")[seed % 2]
    network = make_network(rng, sizes_of(rng, 3), ("vaf", "meta")[seed // 3], act, task)
    dataset = make_dataset(rng, network)
    options = make_options(network, dataset.train.x)
    ridge = [None, 1e-3][seed % 2]
    ranks = rng.choice([0, 1, 2, 99] if ridge else [99], len(options)).tolist()
    compressed, _ = compress_and_move(rng, network, assign_all(rng, options, ranks, ridge), options, dataset, size)
    check_outputs(network, compressed, dataset.test.x)


@pytest.mark.parametrize("family", ["vaf", "agsig", "warp"])
def test_residual_layers_and_scales_behind_forms(family: str) -> None:
    rng = np.random.default_rng(3)
    network = make_network(rng, (4, 6, 6, 6, 2), family, "sigmoid" if family == "agsig" else "tanh", residual=True)
    dataset = make_dataset(rng, network)
    options = make_options(network, dataset.train.x)
    assignments = [dataclasses.replace(each, left=np.zeros_like(each.left)) for each in assign_all(rng, options, [0] * 3, None)]
    compressed, blueprint = compress_and_move(rng, network, assignments, options, dataset, 0.03)
    check_outputs(network, compressed, dataset.test.x)
    assert any(not np.array_equal(a.form.alpha, b.form.alpha) for now, then in zip(compressed.groups, blueprint.groups, strict=True)
               for a, b in zip(now, then, strict=True) if isinstance(b.form, spline.Native))


def test_layers_in_two_factors_and_layers_that_are_gone() -> None:
    rng = np.random.default_rng(5)
    network = make_network(rng, (6, 9, 7, 3))
    dataset = make_dataset(rng, network)
    options = make_options(network, dataset.train.x)
    everyone, nobody = np.ones(7, bool), np.zeros(9, bool)
    keys = np.array(["cubic_spline"] * 6 + ["native:tanh"] * 2 + ["constant"])
    factored = Assignment(keys, {"cubic_spline": 24}, nobody, 0, 1e-3, 3)
    for second in (Assignment(np.full(7, "affine"), {}, everyone, 99, 1e-3),
                   Assignment(np.full(7, "constant"), {}, ~everyone, 0, 1e-3),
                   Assignment(np.full(7, "cubic_spline"), {"cubic_spline": 24}, ~everyone, 0, 1e-3, 3)):
        compressed, _ = compress_and_move(rng, network, [factored, second], options, dataset, 0.03)
        assert [each.factors is not None for each in compressed.maps] == [True, second.factored > 0, False]
        check_outputs(network, compressed, dataset.test.x)


@pytest.mark.parametrize("residual", [False, True])
def test_factors_that_are_zero_or_tiny(residual: bool) -> None:
    """What they were folded into was trained all the same."""
    rng = np.random.default_rng(8)
    network = make_network(rng, (10, 8, 8, 3), "warp", residual=residual)
    first = network.layers[0].activation
    first.alpha[:4] = torch.tensor([0.0, 1e-17, -1e-20, 0.0])
    first.beta[4] = 0.0
    dataset = make_dataset(rng, network)
    options = make_options(network, dataset.train.x)
    keys = np.array(["native:tanh"] * 3 + ["affine"] + ["native:tanh"] * 4)
    assignments = [Assignment(each, {}, np.zeros(8, bool), 0, None) for each in (keys, np.full(8, "native:tanh"))]
    bounds = []
    for size in (0.0, 1e-3):
        compressed, blueprint = compress_and_move(rng, network, assignments, options, dataset, size)
        assert any(np.abs(group.form.slope).min() < 1e-9 for group in blueprint.groups[0] if group.key == "affine")
        bounds.append(check_outputs(network, compressed, dataset.test.x)[1].bounds.max())
    assert bounds[0] < 1e-3
    assert bounds[1] < 0.1


def test_distilled_networks_are_certified() -> None:
    rng = np.random.default_rng(11)
    network = make_network(rng, (2, 8, 8, 1), task="regression")
    dataset = make_dataset(rng, network, 1500)
    plain, tuned = (compress_network(network, dataset, Budget(target_macs="50%"), epochs=epochs) for epochs in (0, 4))
    assert tuned.plan.finetuned
    change, certificate = check_outputs(network, tuned, dataset.test.x)
    assert certificate.bounds.max() < 2 * change      # branch and bound; the samples do not hit the worst place
    assert np.square(certificate.sample_bounds).mean() < np.square(certify(network, plain, dataset.test.x).sample_bounds).mean()


def test_a_bound_may_be_asked_for_of_distilled_networks() -> None:
    rng = np.random.default_rng(4)
    network = make_network(rng, (2, 6, 3))
    dataset = make_dataset(rng, network)
    lines: list[str] = []
    result = compress_network(network, dataset, Budget(max_error_bound=0.05), lines.append, epochs=2)
    assert result.holds
    assert result.plan.validation["error_bound"] <= 0.05
    bounds = certify(network, result, dataset.validation.x, dataset.calibration.x, dataset.train.x).bounds
    assert bounds is not None
    assert bounds.max() <= 0.05
