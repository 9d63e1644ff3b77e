"""The certificate's bound is never exceeded, is not vacuous, and certifies only what cannot change."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from mncompress import runtime
from mncompress.analysis import choose, find_options, make_inner_networks
from mncompress.calibration import calibrate, run_network
from mncompress.checkpoint import make_template
from mncompress.compression import Compressed, Group, LinearMap, _boxes, certify, make_linear_maps, rewrite
from mncompress.compression._evaluate import evaluate_compressed, evaluate_original
from mncompress.compression._gaps import bound_gaps, find_domain
from mncompress.data import Standardization
from mncompress.export import make_model
from mncompress.nn import initialize_
from mncompress.spline import Affine
from mncompress.types import ACTS, FAMILIES, ActivationSpec, Budget, NetworkSpec, Plan

FIXED_ACT = {"agsig": "sigmoid", "frelu": "relu"}


@pytest.fixture(autouse=True)
def less_work(monkeypatch):
    """Bounds hold however early the search for better ones ends."""
    monkeypatch.setattr(_boxes, "WORK", 1e7)


def make_spec(family, act, depth=1, ends="activated"):
    inner = family in ("meta", "vaf")
    return ActivationSpec(family, FIXED_ACT.get(family, act), 4 * inner, (depth if family == "meta" else 1) * inner, ends=ends)


def make_network(rng, sizes, activations, *, task="classification", residual=False, noise=0.3, offset=1.0):
    """A matched network moved away from its start: weights of trained-like scale."""
    spec = NetworkSpec(sizes[0], tuple(sizes[1:-1]), sizes[-1], tuple(activations), task, False, residual)
    targets = Standardization(rng.normal(size=sizes[-1]) * 30, rng.uniform(0.5, 40, sizes[-1])) if task == "regression" else None
    network = make_template(spec, Standardization(offset * rng.normal(size=sizes[0]), rng.uniform(0.5, 2, sizes[0])), targets)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    initialize_(network.layers, "matched", generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=generator)
    return network.eval().requires_grad_(False)


def make_samples(rng, network, rows):
    features = network.features
    z = rng.normal(size=(rows, network.spec.in_features))
    return (z * features.scale.numpy() + features.shift.numpy()).astype(np.float32)


def compress(network, x, tolerance, preset="default", pick=None):
    """A compressed network at one tolerance, without a budget; `pick` gives the groups of a layer from its options."""
    calibration = calibrate(network, x)
    options = tuple(find_options(make_inner_networks(layer.activation), layer.activation.spec.family, found.domain, preset)
                    for layer, found in zip(network.activated_layers, calibration, strict=True))
    groups = tuple((pick or pick_cheapest)(each, np.full(each.n, tolerance)) for each in options)
    plan = Plan(Budget(preset=preset), (), tolerance, {})
    return Compressed(rewrite(network, groups), plan, groups, tuple(make_linear_maps(network)), options, calibration)


def pick_cheapest(options, tolerance):
    keys = choose(options, tolerance).keys
    groups = []
    for key in sorted(set(keys.tolist())):
        indices = np.flatnonzero(keys == key)
        form = None if key == "kept" else options.build(key, tolerance, indices)
        exact = np.ones(len(indices), bool) if form is None else options.exact[key][indices]
        groups.append(Group(key, indices, form, exact))
    return tuple(groups)


def pick_constant(options, tolerance):
    """Every neuron a constant, the middle of its range on the domain."""
    return (Group("constant", np.arange(options.n), options.found["constant"], np.zeros(options.n, bool)),)


def within_domain(network, compressed, seen, x):
    """The rows of x that belong to the domain of the samples `seen`."""
    domain = find_domain(network, compressed.options, evaluate_original(network, compressed.options, seen), ())
    return x[domain.contains(evaluate_original(network, compressed.options, x))]


def differences(network, compressed, x):
    return np.abs(run_network(network, x) - run_network(compressed.network, x)).max(0)


def check_certificate(network, compressed, x, rng):
    """Assert that the bound holds on x and on fresh samples in range, and that no certified sample changes its class."""
    certificate = certify(network, compressed, x)
    assert certificate.bounds is not None, certificate.reason
    measured = differences(network, compressed, x)
    assert np.all(measured <= certificate.bounds)
    changes = np.abs(run_network(network, x) - run_network(compressed.network, x))
    assert np.all(changes <= certificate.sample_bounds)
    assert np.all(certificate.sample_bounds <= certificate.bounds)
    assert 0 <= certificate.replacement_bound <= certificate.bounds.max()
    uniform = rng.uniform(x.min(0), x.max(0), (2000, x.shape[1])).astype(np.float32)
    fresh = within_domain(network, compressed, x, np.concatenate([uniform, make_samples(rng, network, 2000)]))
    if len(fresh):
        assert np.all(differences(network, compressed, fresh) <= certificate.bounds)
    if network.spec.task == "regression":
        assert certificate.certified is None
    else:
        before, after = run_network(network, x), run_network(compressed.network, x)
        margins = before.max(1, keepdims=True) - before
        doubt = certificate.bounds[before.argmax(1)][:, None] + certificate.bounds
        others = np.arange(before.shape[1]) != before.argmax(1)[:, None]
        certified = np.all((margins > doubt) | ~others, 1)
        assert certificate.certified >= certified.mean()
        assert certificate.certified <= (before.argmax(1) == after.argmax(1)).mean()
    return certificate, measured


CASES = [*itertools.product(FAMILIES, ACTS, ["activated"]), *(("meta", act, "gated") for act in ACTS),
         *itertools.product(["meta"], ["relu", "tanh"], ["leaky", "skip"])]


@pytest.mark.parametrize(("family", "act", "ends"), CASES)
def test_bound_holds(family, act, ends):
    if FIXED_ACT.get(family, act) != act:
        act = FIXED_ACT[family]
    seed = CASES.index((family, act, ends))
    rng = np.random.default_rng(seed)
    ratios = []
    for task, tolerance, depth in (("classification", 0.2, 1), ("regression", 0.02, 2), ("classification", 1e-3, 3)):
        width = int(rng.integers(3, 7))
        network = make_network(rng, (int(rng.integers(1, 7)), *[width] * depth, 3),
                               [make_spec(family, act, 1 + depth % 2, ends)] * depth, task=task, residual=depth > 1)
        x = make_samples(rng, network, 300)
        compressed = compress(network, x[:200], tolerance)
        certificate, measured = check_certificate(network, compressed, x, rng)
        if certificate.replacement_bound > 1e-4 * np.abs(run_network(network, x)).max():
            ratios.append(certificate.bounds.max() / measured.max())
    # Typical ratios are 1 to 10; through three layers of worst cases, each with its steepest slope, they multiply.
    assert not ratios or np.median(ratios) < 100


@pytest.mark.parametrize("family", ["agsig", "frelu", "warp"])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_bound_holds_where_folding_cancels(family, offset):
    """Large alpha and eta that cancel leave large terms in the next bias; so do knees far away, and raw features."""
    rng = np.random.default_rng(5)
    for factor in (1.0, 1e2, 1e4):
        network = make_network(rng, (3, 24, 24, 2), [make_spec(family, "sigmoid")] * 2, offset=offset)
        for layer in network.activated_layers:
            parameters = dict(layer.activation.named_parameters())
            if "alpha" in parameters:
                parameters["alpha"] *= factor
            if "eta" in parameters:
                parameters["eta"] -= 0.5 * factor
            if "delta" in parameters and family == "frelu":
                parameters["delta"] += factor / 2
        x = make_samples(rng, network, 400)
        compressed = compress(network, x, -1.0, "exact")
        assert {group.key.partition(":")[0] for groups in compressed.groups for group in groups} == {"native"}
        certificate, _ = check_certificate(network, compressed, x, rng)
        assert certificate.replacement_bound == 0
        assert certificate.certified is not None


def test_features_far_from_zero_cost_no_digits():
    """Files subtract their offset first, which is exact but for the rounding of what is left."""
    bounds = []
    for offset in (0.0, 1e6):
        rng = np.random.default_rng(5)
        network = make_network(rng, (3, 8, 2), [make_spec("agsig", "sigmoid")], offset=offset)
        x = make_samples(rng, network, 400)
        certificate, _ = check_certificate(network, compress(network, x, -1.0, "exact"), x, rng)
        bounds.append(certificate.bounds.max())
    # The samples, rounded to float32 near 1e6, are others; folded shifts would make it a million times as much.
    assert bounds[1] < 2 * bounds[0]


def test_constants_by_hand():
    """relu on [lo, hi] against its midrange: the error is half the range, and |W| carries it to the outputs."""
    rng = np.random.default_rng(0)
    network = make_network(rng, (2, 3, 2), [make_spec("fixed", "relu")])
    x = make_samples(rng, network, 200)
    compressed = compress(network, x, 1.0, pick=pick_constant)
    certificate, _ = check_certificate(network, compressed, x, rng)
    low, high = compressed.options[0].domain.T
    half = (np.maximum(high, 0) - np.maximum(low, 0)) / 2
    weight = np.abs(network.layers[-1].linear.weight.double().numpy())
    expected = weight @ half
    # The analysis may be loose by its slack of a fifth; rounding is 1e-6 of it.
    assert np.all(certificate.bounds >= expected * (1 - 1e-9))
    assert np.all(certificate.bounds <= expected * 1.21 + 1e-5)


def test_targets_scale_the_bound():
    rng = np.random.default_rng(1)
    network = make_network(rng, (3, 5, 4), [make_spec("warp", "tanh")], task="regression")
    x = make_samples(rng, network, 200)
    compressed = compress(network, x, 1.0, pick=pick_constant)
    certificate, _ = check_certificate(network, compressed, x, rng)
    scale = network.targets.scale.double().numpy()
    network.targets.scale.copy_(torch.full((4,), 2.0))
    network.targets.shift.zero_()
    plain, _ = check_certificate(network, compress(network, x, 1.0, pick=pick_constant), x, rng)
    np.testing.assert_allclose(certificate.bounds / scale, plain.bounds / 2, rtol=1e-3)


def test_residual_sums_add_what_arrives():
    """In a residual layer whose replacement is perfect and whose weights are zero, the error before it passes unchanged."""
    rng = np.random.default_rng(2)
    network = make_network(rng, (3, 4, 4, 4), [make_spec("warp", "tanh"), make_spec("fixed", "relu")], residual=True)
    for layer, weight in ((network.layers[1], torch.zeros(4, 4)), (network.layers[2], torch.eye(4))):
        layer.linear.weight.copy_(weight)
        layer.linear.bias.zero_()
    x = make_samples(rng, network, 200)
    picks = iter([pick_constant, pick_cheapest])
    compressed = compress(network, x, 1e-9, pick=lambda *arguments: next(picks)(*arguments))
    certificate, _ = check_certificate(network, compressed, x, rng)
    error = compressed.options[0].errors["constant"]
    assert np.all(certificate.bounds >= error * (1 - 1e-6))
    assert np.all(certificate.bounds <= error * 1.25 + 1e-4)


def test_nothing_replaced_leaves_rounding_alone():
    rng = np.random.default_rng(3)
    network = make_network(rng, (4, 6, 3), [make_spec("meta", "tanh")])
    x = make_samples(rng, network, 300)
    compressed = compress(network, x, -1.0, "exact")
    certificate, measured = check_certificate(network, compressed, x, rng)
    assert np.all(measured == 0)
    assert certificate.replacement_bound == 0
    assert 0 < certificate.bounds.max() < 1e-2 * np.abs(run_network(network, x)).max()
    assert certificate.certified > 0.9


def test_any_order_of_summation_stays_within_the_bound():
    """Float64 and float32 evaluations of either network are closer to the float32 original than the bound says."""
    rng = np.random.default_rng(4)
    network = make_network(rng, (5, 8, 8, 3), [make_spec("warp", "gelu"), make_spec("vaf", "relu")])
    x = make_samples(rng, network, 300)
    compressed = compress(network, x, -1.0, "exact")
    certificate, _ = check_certificate(network, compressed, x, rng)
    reference = run_network(network, x)
    with torch.no_grad():
        one_by_one = torch.cat([compressed.network(torch.as_tensor(row[None])) for row in x]).double().numpy()
    for outputs in (one_by_one, run_network(compressed.network.double(), x), run_network(network.double(), x)):
        assert np.all(np.abs(outputs - reference).max(0) <= certificate.bounds)


def run_in_order(network, x):
    """Float32 outputs where every linear layer adds one product after another to its bias: the least favorable order."""
    h = network.features(torch.as_tensor(x)).numpy()
    for layer in network.layers:
        weight, bias = layer.linear.weight.numpy(), layer.linear.bias.numpy()
        terms = np.concatenate([np.broadcast_to(bias[None, :, None], (len(h), len(bias), 1)), h[:, None] * weight], 2)
        u = np.cumsum(terms, axis=2, dtype=np.float32)[:, :, -1]
        h = layer.activate(torch.as_tensor(u), torch.as_tensor(h)).numpy()
    return h.astype(np.float64)


@pytest.mark.parametrize("case", ["inner shift", "outer shift", "next bias"])
def test_terms_that_folding_adds_are_counted(case):
    """Small terms vanish one by one beside a large shift that was folded into a bias, or constant terms round one way."""
    rng = np.random.default_rng(9)
    fan_in, width = (2, 2000) if case == "next bias" else (2000, 1)
    network = make_network(rng, (fan_in, width, 1), [make_spec("frelu", "relu")], noise=0.0, offset=0.0)
    network.features.scale.fill_(1.0)
    first, last = network.layers
    first.linear.bias.zero_()
    first.linear.weight.copy_(2e-5 * (1 + 0.1 * torch.rand(width, fan_in)))
    last.linear.weight.fill_(0.70013)
    last.linear.bias.zero_()
    first.activation.delta.fill_(10.0 if case == "outer shift" else 1000.0)
    first.activation.eta.fill_(1000.0 if case == "outer shift" else -1000.0)
    x = rng.uniform(0.9, 1.0, (20, fan_in)).astype(np.float32)

    def pick_line(options, tolerance):
        return (Group("affine", np.arange(1), Affine(np.ones(1), np.full(1, 1010.0)), np.zeros(1, bool)),)

    compressed = compress(network, x, -1.0, "exact", pick=pick_line if case == "outer shift" else None)
    certificate = certify(network, compressed, x)
    error = np.abs(run_in_order(compressed.network, x) - run_network(network, x)).max(0)
    assert error.max() > 0.01
    assert np.all(error <= certificate.bounds)


def test_what_arrives_passes_through_inexact_forms():
    """relu far above its kink, replaced by the line u: all of the error before it comes out."""
    rng = np.random.default_rng(10)
    network = make_network(rng, (2, 1, 1, 1), [make_spec("fixed", "relu")] * 2, noise=0.0)
    for layer in network.layers[1:]:
        layer.linear.weight.fill_(1.0)
        layer.linear.bias.fill_(100.0)
    x = make_samples(rng, network, 100)

    def pick_line(options, tolerance):
        return (Group("affine", np.arange(1), Affine(np.ones(1), np.zeros(1)), np.zeros(1, bool)),)

    picks = iter([pick_constant, pick_line])
    compressed = compress(network, x, 1.0, pick=lambda *arguments: next(picks)(*arguments))
    certificate, measured = check_certificate(network, compressed, x, rng)
    assert 0.5 * certificate.bounds[0] <= measured[0]


def test_constants_do_not_feel_what_arrives():
    """Whatever a constant would have been given: its error is that on the range of the original's pre-activations."""
    rng = np.random.default_rng(11)
    network = make_network(rng, (2, 1, 1, 1), [make_spec("fixed", "relu")] * 2, noise=0.0)
    for layer in network.layers[1:]:
        layer.linear.weight.fill_(1.0)
    network.layers[1].linear.bias.fill_(-100.0)

    def pick_off(options, tolerance):
        return (Group("affine", np.arange(1), Affine(np.zeros(1), np.full(1, 500.0)), np.zeros(1, bool)),)

    picks = iter([pick_off, pick_constant])
    x = make_samples(rng, network, 100)
    compressed = compress(network, x, 1.0, pick=lambda *arguments: next(picks)(*arguments))
    certificate, _ = check_certificate(network, compressed, x, rng)
    assert certificate.bounds[0] < 1e-3


def test_no_activations_no_error_but_rounding():
    rng = np.random.default_rng(6)
    network = make_network(rng, (400, 3), [])
    x = make_samples(rng, network, 50)
    certificate = certify(network, compress(network, x, 0.0), x)
    assert certificate.replacement_bound == 0
    assert certificate.bounds.max() < 3e-2           # with 400 features at the largest of their range at once
    difference = np.abs(run_in_order(network, x) - run_network(network, x)).max(0)
    assert np.all(difference > 0)
    assert np.all(difference <= certificate.bounds)


@pytest.mark.parametrize("scale", [float("inf"), float("nan")])
def test_no_bound_gives_a_reason(scale):
    rng = np.random.default_rng(7)
    network = make_network(rng, (3, 4, 4, 2), [make_spec("warp", "silu")] * 2)
    x = make_samples(rng, network, 50)
    compressed = compress(network, x, 0.1)
    network.layers[1].linear.weight *= scale
    certificate = certify(network, compressed, x)
    assert certificate.bounds is None
    assert certificate.replacement_bound is None
    assert certificate.certified is None
    assert certificate.reason == "an activation has no finite bound on the range its pre-activations visit"


def test_a_line_with_a_large_intercept():
    """Lines are folded whole: the bias that holds the intercept is rounded with the sum."""
    rng = np.random.default_rng(8)
    network = make_network(rng, (3, 16, 2), [make_spec("frelu", "relu")])
    network.layers[0].activation.delta += 1e4
    network.layers[0].activation.eta -= 1e4
    x = make_samples(rng, network, 300)

    def pick_line(options, tolerance):
        line = Affine(np.ones(options.n), options.inner.biases[0][:, 0] + options.inner.out_bias)
        return (Group("affine", np.arange(options.n), line, np.zeros(options.n, bool)),)

    check_certificate(network, compress(network, x, 0.1, pick=pick_line), x, rng)


def test_bound_covers_files_whose_linear_layers_are_merged():
    """Inner units that nearly cancel: merged into the layer before, each rounds its own pre-activation."""
    rng = np.random.default_rng(5)
    spec = NetworkSpec(16, (16,), 2, (ActivationSpec("vaf", "relu", 2, 1),))
    network = make_template(spec, Standardization(np.zeros(16), np.ones(16)), None).eval().requires_grad_(False)
    for layer in network.layers:
        torch.nn.init.normal_(layer.linear.weight, generator=torch.Generator().manual_seed(5))
        layer.linear.bias.zero_()
    activation = network.layers[0].activation
    activation.first_weight.copy_(torch.tensor([1.0, 1.37]))
    activation.out_weight.copy_(torch.tensor([1.0, -1 / 1.37]))
    x = rng.normal(size=(2000, 16)).astype(np.float32)
    compressed = compress(network, x, 0.0, "exact")
    models = [make_model(each, opset_version=18, metadata={}) for each in (network, compressed.network)]
    assert sum(node.op_type == "Gemm" for node in models[0].graph.node) == 2         # of four
    original, replaced = (runtime.run(runtime.make_session(model.SerializeToString()), x).astype(np.float64) for model in models)
    measured = np.abs(original - replaced).max(0)
    assert (measured > 0).all()
    assert (measured <= certify(network, compressed, x).bounds).all()


def test_bound_covers_linear_layers_that_are_merged_in_the_compressed_file_alone():
    """Neurons in front are constants: a `vaf` is merged with the few that are left, which with all of them it is not."""
    rng = np.random.default_rng(5)
    spec = NetworkSpec(16, (64, 16), 2, (ActivationSpec("fixed", "tanh"), ActivationSpec("vaf", "relu", 2, 1)))
    network = make_template(spec, Standardization(np.zeros(16), np.ones(16)), None).eval().requires_grad_(False)
    first, second, last = network.layers
    for layer in network.layers:
        torch.nn.init.normal_(layer.linear.weight, generator=torch.Generator().manual_seed(5))
        layer.linear.bias.zero_()
    first.linear.weight.mul_(1e-8)
    first.linear.weight[8:] = 0.0
    first.linear.bias.fill_(1.0)
    weight = second.linear.weight
    weight[:, 8:] = 0.0
    weight[:, :8] = 3000 * weight[:, :8]
    weight[:, :8] -= weight[:, :8].mean(1, keepdim=True)         # what they read cancels
    second.activation.first_weight.copy_(torch.tensor([1.0, 1.37]))
    second.activation.out_weight.copy_(torch.tensor([1.0, -1 / 1.37]))
    last.linear.bias.copy_(torch.tensor([1e-3, 0.0]))
    x = rng.normal(size=(2000, 16)).astype(np.float32)

    def pick(options, tolerance):
        if options.n != 64:
            return (Group("kept", np.arange(options.n), None, np.ones(options.n, bool)),)
        constant, native = np.arange(8, 64), np.arange(8)
        return (Group("native:tanh", native, options.build_rung("native:tanh", None, native), np.ones(8, bool)),
                Group("constant", constant, options.build_rung("constant", None, constant), np.ones(56, bool)))

    compressed = compress(network, x, 0.0, pick=pick)
    models = [make_model(each, opset_version=18, metadata={}) for each in (network, compressed.network)]
    assert [sum(node.op_type == "Gemm" for node in model.graph.node) for model in models] == [4, 3]
    original, replaced = (runtime.run(runtime.make_session(model.SerializeToString()), x).astype(np.float64) for model in models)
    certificate = certify(network, compressed, x)
    assert (np.abs(original - replaced) > 1e-4).any()
    assert (np.abs(original - replaced) <= certificate.sample_bounds).all()
    assert certificate.certified <= (original.argmax(1) == replaced.argmax(1)).mean()


def test_linear_units_that_read_linear_units_go_where_features_go():
    """On samples of two features that are nearly equal, a unit of their difference hardly moves; elsewhere it does."""
    rng = np.random.default_rng(0)
    spec = NetworkSpec(2, (2, 2), 1, (ActivationSpec("fixed", "tanh"),) * 2, "regression")
    network = make_template(spec, Standardization(np.zeros(2), np.ones(2)), Standardization(np.zeros(1), np.ones(1)))
    network = network.eval().requires_grad_(False)
    for layer, weight in zip(network.layers, ([[0.5, 0.5], [0.3, 0.3]], [[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]]), strict=True):
        layer.linear.weight.copy_(torch.tensor(weight))
        layer.linear.bias.zero_()
    t = rng.uniform(-1, 1, 500)
    x = np.stack([t + 0.01 * rng.normal(size=500), t], 1).astype(np.float32)

    def pick(options, tolerance):
        line = options.build_rung("affine", None, np.array([1]))
        return (Group("kept", np.array([0]), None, np.ones(1, bool)), Group("affine", np.array([1]), line, np.zeros(1, bool), True))

    compressed = compress(network, x, 0.0, pick=pick)
    slope, intercept = (float(end[0]) for end in (compressed.groups[1][1].form.slope, compressed.groups[1][1].form.intercept))
    inner = float(compressed.groups[0][1].form.slope[0])
    maps = (LinearMap({-1: np.array([[0.5, 0.5], [0.0, 0.0], [1.3, -0.7]])}, np.zeros(3), 1),
            LinearMap({0: np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, inner]])}, np.zeros(3), 1),
            LinearMap({1: np.array([[1.0, 0.0, slope]])}, np.array([intercept])))
    compressed = dataclasses.replace(compressed, network=rewrite(network, compressed.groups, maps), maps=maps)
    certificate = certify(network, compressed, x)
    far = np.array([[0.5, -0.5], [-0.9, 0.9]], np.float32)
    assert (np.abs(run_network(network, x) - run_network(compressed.network, x)) <= certificate.sample_bounds).all()
    change = np.abs(run_network(network, far) - run_network(compressed.network, far)).max()
    original = evaluate_original(network, compressed.options, x)
    replaced = evaluate_compressed(network, original, compressed.groups, compressed.maps)
    gaps = bound_gaps(network, original, replaced, find_domain(network, compressed.options, original, ()))
    assert 1.0 < change <= certificate.bounds[0] <= gaps.behind[2][0] + 1e-5


def test_outputs_that_nothing_reaches_have_no_bound_but_rounding():
    rng = np.random.default_rng(12)
    network = make_network(rng, (2, 6, 5, 3), [make_spec("vaf", "tanh")] * 2)
    network.layers[2].linear.weight[1] = 0.0
    network.layers[2].linear.bias[1] = 0.0
    x = make_samples(rng, network, 200)
    with np.errstate(invalid="raise"):
        certificate, _ = check_certificate(network, compress(network, x, 0.1), x, rng)
    assert certificate.bounds[1] < 1e-30
