"""Activation families, networks and compressed forms, against scalar Python, conformance vectors and autograd."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from mncompress import spline
from mncompress.errors import ConfigError
from mncompress.nn import (
    CubicSpline,
    Grouped,
    Layer,
    LearnedActivation,
    LinearTable,
    Meta,
    Network,
    PiecewiseLinear,
    Polynomial,
    Scale,
    Standardize,
    count_macs,
    count_parameters,
    initialize_,
    initialize_activation_,
    make_activation,
    make_body,
    make_linear,
    make_relu_twin,
    mismatch,
)
from mncompress.types import ACTS, ENDS, RELU_LIKE, Act, ActivationSpec, Ends, Init, NetworkSpec, TrainConfig

VECTORS = np.load(Path(__file__).parent / "vectors" / "vectors.npz", allow_pickle=False)
CASES = sorted({key.split("/")[0] for key in VECTORS.files})
FLOAT64 = {"rtol": 1e-12, "atol": 1e-12}
"""A few hundred roundings of 1e-16 each, of sums that may cancel."""
FLOAT32 = {"rtol": 2e-5, "atol": 2e-5}
"""A few hundred roundings of 6e-8 each, of terms of size up to about 10."""

SCALAR_ACTS: dict[Act, Callable[[float], float]] = {
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: z if z >= 0 else 0.01 * z,
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "tanh": math.tanh,
    "silu": lambda z: z / (1 + math.exp(-z)),
    "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2,
    "softplus": lambda z: math.log1p(math.exp(z)),
    "elu": lambda z: z if z > 0 else math.expm1(z),
}


def all_specs() -> list[ActivationSpec]:
    """Every family with every act it can have."""
    specs = [ActivationSpec("agsig", "sigmoid"), ActivationSpec("frelu", "relu")]
    for act in ACTS:
        specs += [ActivationSpec("meta", act, 3, 2, ends=ends) for ends in ENDS if ends != "activated"]
        specs += [ActivationSpec("fixed", act), ActivationSpec("warp", act), ActivationSpec("vaf", act, 4, 1),
                  ActivationSpec("meta", act, 1, 1), ActivationSpec("meta", act, 3, 3)]
    return specs


def spec_id(spec: ActivationSpec) -> str:
    return f"{spec.family}-{spec.act}-{spec.width}x{spec.depth}-{spec.ends}"


every_spec = pytest.mark.parametrize("spec", all_specs(), ids=spec_id)


def shared(spec: ActivationSpec) -> ActivationSpec:
    return dataclasses.replace(spec, shared=True)


def make_random(spec: ActivationSpec, n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> LearnedActivation:
    activation = make_activation(spec, n).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    for parameter in activation.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return activation


def scalar_reference(activation: LearnedActivation, neuron: int, u: float) -> float:
    """One neuron at one point, from the formulas of the docstring, in Python floats."""
    spec, act = activation.spec, SCALAR_ACTS[activation.spec.act]
    row = 0 if spec.shared else neuron
    p = {name: value[row].tolist() for name, value in activation.state_dict().items()}
    if spec.family == "fixed":
        return act(u)
    if spec.family == "agsig":
        return p["alpha"] * act(p["beta"] * u)
    if spec.family == "frelu":
        return act(u + p["delta"]) + p["eta"]
    if spec.family == "warp":
        return p["alpha"] * act(p["beta"] * u + p["delta"]) + p["eta"]

    def end(place: str, z: float) -> float:
        gate, skip = p.get(f"{place}_gate", 0.0), 0.1 if spec.ends == "leaky" else p.get(f"{place}_skip", 0.0)
        return act(z) + gate * (z - act(z)) + skip * z if spec.family == "meta" else z

    z = end("in", u)
    h = [act(w * z + b) for w, b in zip(p["first_weight"], p["first_bias"], strict=True)]
    for i in range(spec.depth - 1):
        rows = zip(p[f"weights.{i}"], p[f"biases.{i}"], h, strict=True)
        h = [act(sum(w * x for w, x in zip(weights, h, strict=True)) + b) + before for weights, b, before in rows]
    y = sum(w * x for w, x in zip(p["out_weight"], h, strict=True)) + p["out_bias"]
    return end("out", y)


# Families


@every_spec
@pytest.mark.parametrize("make_shared", [False, True])
def test_family_matches_its_formula_neuron_by_neuron(spec: ActivationSpec, make_shared: bool) -> None:
    spec = shared(spec) if make_shared else spec
    activation = make_random(spec, 3)
    u = torch.linspace(-4, 4, 18, dtype=torch.float64).view(2, 3, 3)
    expected = torch.tensor([[[scalar_reference(activation, k, float(v)) for k, v in enumerate(row)] for row in block]
                             for block in u], dtype=torch.float64)
    y = activation(u)
    torch.testing.assert_close(y, expected, **FLOAT64)
    torch.testing.assert_close(activation(u[0, 1]), y[0, 1], **FLOAT64)
    y32 = make_random(spec, 3).float()(u.float())
    assert y32.dtype == torch.float32
    scale = max(float(expected.abs().max()), 1.0)
    torch.testing.assert_close(y32.double(), expected, rtol=FLOAT32["rtol"], atol=FLOAT32["atol"] * scale)


def load_case(case: str) -> LearnedActivation:
    """The module of one neuron that a conformance case describes."""
    get = {key.split("/")[1]: torch.from_numpy(VECTORS[key]) for key in VECTORS.files if key.startswith(f"{case}/")}
    family, _, rest = case.partition("_")
    if family == "meta":
        act, layers, width = rest.rsplit("_", 2)
        depth = int(layers[1:])
        activation = make_activation(ActivationSpec("meta", act, int(width[1:]), depth), 1)  # type: ignore[arg-type]
        state = {"first_weight": get["w0"], "first_bias": get["b0"], "out_weight": get["out_w"], "out_bias": get["out_b"]}
        for i in range(1, depth):
            state |= {f"weights.{i - 1}": get[f"w{i}"], f"biases.{i - 1}": get[f"b{i}"]}
    elif family == "vaf":
        activation = make_activation(ActivationSpec("vaf", rest, 5, 1), 1)  # type: ignore[arg-type]
        state = {"first_weight": get["a"], "first_bias": get["b"], "out_weight": get["w"], "out_bias": get["c"]}
    else:
        names = {"warp": ("alpha", "beta", "delta", "eta"), "agsig": ("alpha", "beta"), "frelu": ("delta", "eta")}[family]
        act = {"warp": rest, "agsig": "sigmoid", "frelu": "relu"}[family]
        activation = make_activation(ActivationSpec(family, act), 1)  # type: ignore[arg-type]
        state = dict(zip(names, get["parameters"], strict=True))
    activation.double().load_state_dict({name: value[None] for name, value in state.items()})
    return activation


FAMILY_CASES = [case for case in CASES if not case.startswith(("cubic", "piecewise"))]


@pytest.mark.parametrize("sizes", [(3, 2), (0, 2), (3, 0)])
def test_linear_layers_of_any_size(sizes) -> None:
    """Also of no neurons, without a warning, of which this suite makes an error."""
    linear = make_linear(*sizes)
    assert (linear.in_features, linear.out_features) == sizes
    assert (linear.weight.shape, linear.bias.shape) == (sizes[::-1], sizes[1:])
    linear.load_state_dict({"weight": torch.ones(sizes[::-1]), "bias": torch.ones(sizes[1])})
    assert torch.equal(linear(torch.ones(4, sizes[0])), torch.full((4, sizes[1]), 1.0 + sizes[0]))


def test_there_are_vectors_for_every_act_and_family() -> None:
    assert len(FAMILY_CASES) == len(ACTS) * 6 + 2


@pytest.mark.parametrize("case", FAMILY_CASES)
def test_family_matches_the_conformance_vectors(case: str) -> None:
    activation = load_case(case)
    u, y = (torch.from_numpy(VECTORS[f"{case}/{key}"]).unsqueeze(1) for key in ("u", "y"))
    torch.testing.assert_close(activation(u), y, **FLOAT64)
    # float32: u reaches 40, and depth 4 sums terms far larger than the result
    scale = max(float(y.abs().max()), 1.0)
    torch.testing.assert_close(activation.float()(u.float()).double(), y, rtol=1e-4, atol=1e-5 * scale)


@every_spec
def test_gradients_by_input_and_parameters(spec: ActivationSpec) -> None:
    activation = make_random(spec, 2, seed=3)
    names = list(activation.state_dict())
    u = (torch.arange(6, dtype=torch.float64).view(3, 2) - 2.6) * 0.9
    if spec.act in RELU_LIKE:
        assert distance_to_kinks(activation, u) > 1e-4      # gradcheck steps by 1e-6
    inputs = (u.requires_grad_(), *[p.detach().clone().requires_grad_() for p in activation.parameters()])
    assert torch.autograd.gradcheck(
        lambda u, *p: functional_call(activation, dict(zip(names, p, strict=True)), (u,)), inputs)


def distance_to_kinks(activation: LearnedActivation, u: Tensor) -> float:
    """Smallest absolute argument that the inner activation is given."""
    smallest, act = [], activation.act
    try:
        activation.act = lambda z: (smallest.append(float(z.detach().abs().min())), act(z))[1]
        activation(u)
    finally:
        activation.act = act
    return min(smallest)


@every_spec
def test_shared_parameters_gather_the_gradient_of_all_neurons(spec: ActivationSpec) -> None:
    one, many = make_random(shared(spec), 4), make_random(spec, 4)
    many.load_state_dict({name: value.expand_as(many.state_dict()[name]) for name, value in one.state_dict().items()})
    u = torch.linspace(-2, 2.1, 12, dtype=torch.float64).view(3, 4)
    torch.testing.assert_close(one(u), many(u), **FLOAT64)
    if spec.family != "fixed":
        one(u).sum().backward()
        many(u).sum().backward()
        for ours, theirs in zip(one.parameters(), many.parameters(), strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            torch.testing.assert_close(ours.grad, theirs.grad.sum(0, keepdim=True), **FLOAT64)


@every_spec
@pytest.mark.parametrize("make_shared", [False, True])
def test_select_takes_neurons_in_the_order_asked_for(spec: ActivationSpec, make_shared: bool) -> None:
    activation = make_random(shared(spec) if make_shared else spec, 5)
    u = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = torch.zeros(7, 5, dtype=torch.float64)
    whole[:, [3, 0, 4]] = u
    subset = activation.select([3, 0, 4])
    assert subset.n == 3
    torch.testing.assert_close(subset(u), activation(whole)[:, [3, 0, 4]], **FLOAT64)   # parameters keep their float64 digits
    before = activation(whole)
    for parameter in subset.parameters():
        parameter.data.add_(1)
    assert torch.equal(activation(whole), before)                       # copies
    assert activation.select([])(u[:, :0]).shape == (7, 0)


@every_spec
@pytest.mark.parametrize("make_shared", [False, True])
def test_stacked_activations_equal_single_ones(spec: ActivationSpec, make_shared: bool) -> None:
    spec = shared(spec) if make_shared else spec
    singles = [make_random(spec, 3, seed) for seed in range(4)]
    u = torch.randn(5, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    if spec.family == "fixed":
        return
    stacked = {name: torch.stack([single.state_dict()[name] for single in singles]) for name in singles[0].state_dict()}
    together = singles[0].compute(u.mT.expand(4, -1, -1), stacked)
    torch.testing.assert_close(together.mT, torch.stack([single(u) for single in singles]), **FLOAT64)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(all_specs()), st.integers(1, 4), st.lists(st.integers(0, 3), max_size=3), st.booleans())
def test_any_leading_shape(spec: ActivationSpec, n: int, leading: list[int], make_shared: bool) -> None:
    activation = make_random(shared(spec) if make_shared else spec, n)
    u = torch.randn(*leading, n, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    y = activation(u)
    assert y.shape == u.shape
    torch.testing.assert_close(y.view(-1, n), activation(u.reshape(-1, n)), **FLOAT64)


# Initialization


def initialized(spec: ActivationSpec, n: int, init: Init = "matched", seed: int = 0) -> LearnedActivation:
    activation = make_activation(spec, n)
    initialize_activation_(activation, init, torch.Generator().manual_seed(seed))
    return activation


EXACT = [spec for spec in all_specs() if spec.family != "meta" or spec.act in RELU_LIKE]
LARGEST_MISMATCH: dict[Act, float] = {"sigmoid": 0.09, "tanh": 0.13, "silu": 0.08, "gelu": 0.08, "softplus": 0.13, "elu": 0.18}
"""Half more than the largest of 5 seeds with 64 neurons of inner width 5 and 1 to 3 layers (0.059 to 0.116 was found)."""


@pytest.mark.parametrize("spec", EXACT, ids=spec_id)
@pytest.mark.parametrize("make_shared", [False, True])
def test_matched_is_exact_where_one_unit_can_carry(spec: ActivationSpec, make_shared: bool) -> None:
    activation = initialized(shared(spec) if make_shared else spec, 6)
    u = torch.linspace(-8, 8, 1001).unsqueeze(1).expand(-1, 6)
    # torch's vectorized gelu is 7e-7 off its scalar one, and memory layout decides which is taken
    torch.testing.assert_close(activation(u), activation.act(u), rtol=1e-6, atol=1e-6)
    assert mismatch(activation) <= 1e-6


@pytest.mark.parametrize("act", LARGEST_MISMATCH)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_matched_meta_is_close_elsewhere(act: Act, depth: int) -> None:
    errors = [mismatch(initialized(ActivationSpec("meta", act, 5, depth), 64, seed=seed)) for seed in range(2)]
    assert max(errors) <= LARGEST_MISMATCH[act]
    leaky = mismatch(initialized(ActivationSpec("meta", act, 5, depth, ends="leaky"), 64))
    # a leaky silu or gelu maps two u to one value where act does not: 0.091 and 0.109 found, whatever the draw
    assert leaky <= {"silu": 0.12, "gelu": 0.14}.get(act, LARGEST_MISMATCH[act] / 2)
    for ends in ("gated", "skip"):
        assert mismatch(initialized(ActivationSpec("meta", act, 5, depth, ends=ends), 64)) == errors[0]
    plain = mismatch(initialized(ActivationSpec("meta", act, 5, depth), 64, "glorot"))
    assert max(errors) < plain / 5      # the best found there is 0.84


@pytest.mark.parametrize("act", LARGEST_MISMATCH)
def test_matched_meta_of_width_one_and_shared(act: Act) -> None:
    for spec in (ActivationSpec("meta", act, 1, 1), ActivationSpec("meta", act, 5, 1, shared=True)):
        activation = initialized(spec, 3)
        assert all(bool(p.isfinite().all()) for p in activation.parameters())
        assert mismatch(activation) < (LARGEST_MISMATCH[act] if spec.shared else 0.95)      # largest found: 0.072 to 0.624


def test_matched_units_that_carry_nothing_can_learn() -> None:
    for spec in (ActivationSpec("vaf", "relu", 5, 1), ActivationSpec("meta", "relu", 5, 1), ActivationSpec("meta", "relu", 5, 2)):
        activation = initialized(spec, 8)
        activation(torch.linspace(-3, 3, 61).unsqueeze(1).expand(-1, 8)).square().sum().backward()
        gradient = activation.out_weight.grad
        assert isinstance(gradient, Tensor)
        assert (gradient[:, 1:] != 0).float().mean() > 0.5


@pytest.mark.parametrize("init", get_args(Init))
@pytest.mark.parametrize("spec", [s for s in all_specs() if s.family != "fixed"], ids=spec_id)
def test_seed_determines_the_parameters(spec: ActivationSpec, init: Init) -> None:
    def state(seed: int) -> Tensor:
        return torch.cat([p.detach().flatten() for p in initialized(spec, 4, init, seed).parameters()])

    assert torch.equal(state(1), state(1))
    random = not (init == "matched" and spec.family in ("agsig", "frelu", "warp"))
    random = random and not (init == "matched" and spec.width == 1 and spec.act in RELU_LIKE)    # only the carrying unit
    random = random and not (init == "glorot" and spec.family == "frelu")                           # only biases
    assert torch.equal(state(1), state(2)) is not random


def test_ranges_of_uniform_and_glorot() -> None:
    spec = ActivationSpec("meta", "tanh", 4, 2)
    uniform, glorot = initialized(spec, 2000, "uniform"), initialized(spec, 2000, "glorot")
    limits = {"first_weight": (1, (6 / 5) ** 0.5), "first_bias": (1, 0), "out_weight": (0.5, (6 / 5) ** 0.5), "out_bias": (0.5, 0),
              "weights.0": (0.5, (6 / 8) ** 0.5), "biases.0": (0.5, 0)}
    for name, (of_uniform, of_glorot) in limits.items():
        for activation, limit in ((uniform, of_uniform), (glorot, of_glorot)):
            value = activation.state_dict()[name]
            assert float(value.abs().max()) <= limit
            assert float(value.max()) >= 0.98 * limit
            assert float(value.min()) <= -0.98 * limit
    warp = initialized(ActivationSpec("warp", "tanh"), 2000, "uniform").state_dict()
    assert all(0.98 <= float(value.abs().max()) <= 1 for value in warp.values())


@pytest.mark.parametrize("init", get_args(Init))
@pytest.mark.parametrize("ends", ["gated", "skip"])
def test_learned_ends_start_activated(ends: Ends, init: Init) -> None:
    learned = initialized(ActivationSpec("meta", "tanh", 3, 2, ends=ends), 4, init)
    plain = initialized(ActivationSpec("meta", "tanh", 3, 2), 4, init)
    state = learned.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(state.pop(name), value)
    assert len(state) == 2
    assert all((value == 0).all() for value in state.values())
    u = torch.linspace(-4, 4, 36).view(9, 4)
    assert torch.equal(learned(u), plain(u))
    learned(u).square().sum().backward()
    assert all((learned.get_parameter(name).grad != 0).all() for name in state)


@pytest.mark.parametrize("act", sorted(RELU_LIKE))
def test_narrow_leaky_ends_are_solved(act: Act) -> None:
    activation = initialized(ActivationSpec("meta", act, 1, 1, ends="leaky"), 3)
    assert mismatch(activation) <= (1e-6 if act == "relu" else 0.8)     # a leaky unit is no line; 0.55 found


def test_only_meta_has_ends() -> None:
    with pytest.raises(ConfigError, match=r"^activation 'vaf' has no ends to choose, got ends 'gated'; only 'meta' has$"):
        ActivationSpec("vaf", "relu", 2, 1, ends="gated")
    config = TrainConfig(activation="meta,vaf,fixed:relu", hidden=(4, 4, 4), ends="gated")
    assert [spec.ends for spec in config.make_activations()] == ["gated", "activated", "activated"]


@pytest.mark.parametrize("init", get_args(Init))
def test_initialize_network(init: Init) -> None:
    spec = NetworkSpec(50, (40, 30), 20, (ActivationSpec("meta", "tanh", 3, 1), ActivationSpec("warp", "relu")))
    layers = make_body(spec)
    errors = initialize_(layers, init, torch.Generator().manual_seed(0))
    assert errors == [mismatch(layer.activation) for layer in layers[:2]]  # type: ignore[arg-type]
    u = torch.linspace(-3, 3, 121).unsqueeze(1).expand(-1, 40)
    assert errors[0] == float((layers[0].activation(u) - torch.tanh(u)).detach().abs().max())  # type: ignore[misc]
    for layer in layers:
        layer.requires_grad_(False)
        fans = layer.linear.in_features, layer.linear.out_features
        limit = (6 / sum(fans)) ** 0.5 if init == "glorot" else fans[0] ** -0.5
        assert 0.95 * limit < float(layer.linear.weight.abs().max()) <= limit
        assert float(layer.linear.bias.abs().max()) <= (0 if init == "glorot" else limit)


# Forms


def random_cubic(n: int = 3, intervals: int = 4) -> spline.CubicSpline:
    rng = np.random.default_rng(0)
    round32 = lambda x: np.asarray(x, np.float32).astype(np.float64)  # noqa: E731
    y, d = rng.standard_normal((n, intervals + 1)), rng.standard_normal((n, intervals + 1))
    c = [y[:, :-1], d[:, :-1], 3 * (y[:, 1:] - y[:, :-1]) - 2 * d[:, :-1] - d[:, 1:],
         2 * (y[:, :-1] - y[:, 1:]) + d[:, :-1] + d[:, 1:]]
    return spline.CubicSpline(round32(-1 - rng.random(n)), round32(1 + rng.random(n)), round32(np.stack(c, -1)))


def random_piecewise(n: int = 3, knots: int = 5) -> spline.PiecewiseLinear:
    rng = np.random.default_rng(1)
    values = [np.sort(rng.standard_normal((n, knots)), 1), rng.standard_normal((n, knots)), *rng.standard_normal((2, n))]
    return spline.PiecewiseLinear(*[v.astype(np.float32).astype(np.float64) for v in values])


@pytest.mark.parametrize("intervals", [1, 2, 63, 256])
def test_linear_table_is_the_linear_spline(intervals: int) -> None:
    cubic = random_cubic(5, intervals)
    form = spline.CubicSpline(np.zeros(5), np.ones(5), cubic.coefficients * np.array([1.0, 1.0, 0.0, 0.0]))
    table = LinearTable(form)
    s = np.concatenate([np.linspace(-intervals, 2 * intervals, 999), [-1e6, 1e6]])[:, None].repeat(5, 1)
    with torch.no_grad():
        y = table(torch.as_tensor(s, dtype=torch.float32)).numpy()
        odd = table(torch.tensor([[math.nan] * 5, [math.inf] * 5])).numpy()
    # Outside, the table goes on with its first and last line, as the spline does. Two float32 products and sums, each 6e-8.
    size = np.abs(form.coefficients[..., 0]).max() + 2 * np.abs(form.coefficients[..., 1]).max() * np.maximum(np.abs(s), intervals)
    inside = (np.abs(s - np.round(s)) > 1e-3) | (s < 0) | (s > intervals)      # the random pieces do not join
    assert np.all((np.abs(y - form.evaluate(s)) <= 5 * 2.0**-24 * size)[inside])
    assert np.isnan(odd[0]).all()
    assert np.isinf(odd[1]).all()


def random_polynomial(n: int = 3, degree: int = 5) -> spline.Polynomial:
    rng = np.random.default_rng(2)
    values = [rng.standard_normal(n), 0.5 + rng.random(n), rng.standard_normal((n, degree + 1))]
    return spline.Polynomial(*[v.astype(np.float32).astype(np.float64) for v in values])


FORMS: list[tuple[type[nn.Module], spline.Form]] = [
    (CubicSpline, random_cubic()), (CubicSpline, random_cubic(2, 1)), (PiecewiseLinear, random_piecewise()),
    (PiecewiseLinear, random_piecewise(2, 0)), (Polynomial, random_polynomial()), (Polynomial, random_polynomial(2, 0)),
    (Polynomial, random_polynomial(2, 1))]
every_form = pytest.mark.parametrize(("cls", "form"), FORMS, ids=[f"{cls.__name__}-{i}" for i, (cls, _) in enumerate(FORMS)])


@every_form
def test_form_equals_its_float64_definition(cls: Callable[..., nn.Module], form: spline.Form) -> None:
    u = np.random.default_rng(3).standard_normal((4, 50, form.n)) * 3
    u[0, 0], u[0, 1], u[0, 2] = -1e4, 1e4, 0.0
    if isinstance(form, spline.CubicSpline):
        for k in range(form.intervals + 1):
            u[1, k] = form.start + k / form.inverse_step
    module, expected = cls(form), form.evaluate(u)
    torch.testing.assert_close(module.double()(torch.from_numpy(u)), torch.from_numpy(expected), rtol=1e-11, atol=1e-11)
    y32 = module.float()(torch.from_numpy(u).float())
    assert y32.dtype == torch.float32
    # the error of a rounded u is |u|·eps·slope, and 1e4 is extrapolated
    torch.testing.assert_close(y32.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


@every_form
def test_form_gradients(cls: Callable[..., nn.Module], form: spline.Form) -> None:
    module = cls(form).double()
    u = torch.tensor([[-7.0], [-0.613], [0.137], [1.271], [9.0]], dtype=torch.float64).repeat(1, form.n).requires_grad_()
    names = [name for name, _ in module.named_parameters()]
    parameters = [p.detach().clone().requires_grad_() for p in module.parameters()]
    assert torch.autograd.gradcheck(
        lambda u, *p: functional_call(module, dict(zip(names, p, strict=True)), (u,)), (u, *parameters))
    (slope,) = torch.autograd.grad(module(u).sum(), u)
    torch.testing.assert_close(slope, torch.from_numpy(form.derivative(u.detach().numpy())), rtol=1e-10, atol=1e-10)


@every_form
def test_form_keeps_nan_apart_and_infinities_do_not_raise(cls: Callable[..., nn.Module], form: spline.Form) -> None:
    module, n = cls(form), form.n
    u = torch.zeros(4, n)
    u[1, 0], u[2], u[3] = torch.nan, torch.inf, -torch.inf
    y = module(u)
    assert torch.isnan(y[1, 0])
    assert torch.isfinite(y[0]).all()
    assert torch.isfinite(y[1, 1:]).all()
    assert not torch.isfinite(y[2:]).any() or cls is Polynomial     # a degree of 0 is flat: NaN, or its value


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith(("cubic", "piecewise"))])
def test_form_matches_the_conformance_vectors(case: str) -> None:
    get = {key.split("/")[1]: VECTORS[key] for key in VECTORS.files if key.startswith(f"{case}/")}
    if case.startswith("cubic"):
        module: nn.Module = CubicSpline(spline.CubicSpline(get["start"], get["inverse_step"], get["coefficients"]))
    else:
        module = PiecewiseLinear(
            spline.PiecewiseLinear(get["knots"], get["slope_changes"], get["slope"], get["intercept"]))
    x, y = torch.from_numpy(get["x"]), torch.from_numpy(get["y"])
    torch.testing.assert_close(module.double()(x.double()), y, rtol=1e-11, atol=1e-9)
    # s = (x - start)·inverse_step has a rounding error of up to 256·6e-8, which the slope in s multiplies
    torch.testing.assert_close(module.float()(x).double(), y, rtol=1e-4, atol=2e-3)


def test_scale_and_grouped() -> None:
    scale = Scale(np.array([2.0, -1.0]), np.array([0.5, 3.0]))
    cubic, piecewise = CubicSpline(random_cubic()), PiecewiseLinear(random_piecewise(2))
    u = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(scale(u[:, :2]), u[:, :2] * torch.tensor([2.0, -1.0]) + torch.tensor([0.5, 3.0]), **FLOAT32)
    parts = torch.cat([scale(u[:, :2]), cubic(u[:, 2:5]), piecewise(u[:, 5:7]), u[:, 7:]], -1)
    sizes, forms, order = (2, 3, 2, 1), [scale, cubic, piecewise, nn.Identity()], [7, 0, 2, 1, 6, 5, 4, 3]
    assert torch.equal(Grouped(sizes, forms)(u), parts)
    assert torch.equal(Grouped(sizes, forms, order)(u), parts[:, order])
    with pytest.raises(ValueError, match="zip"):
        Grouped(sizes, forms[:3])(u)


# Networks


def make_random_network(spec: NetworkSpec, seed: int = 0) -> Network:
    layers = make_body(spec)
    initialize_(layers, "uniform", torch.Generator().manual_seed(seed))
    rng = np.random.default_rng(seed)
    features = Standardize(rng.standard_normal(spec.in_features), 0.5 + rng.random(spec.in_features))
    targets = Standardize(rng.standard_normal(spec.out_features), 0.5 + rng.random(spec.out_features))
    return Network(spec, layers, features, targets if spec.task == "regression" else None).double().requires_grad_(False)


VAF, WARP = ActivationSpec("vaf", "tanh", 2, 1), ActivationSpec("warp", "silu")
NETWORKS = [
    NetworkSpec(3, (3, 3, 5, 5), 2, (VAF, WARP, VAF, WARP), residual=True),
    NetworkSpec(3, (4,), 2, (VAF, WARP), output_activation=True),
    NetworkSpec(3, (4, 4), 4, (VAF, WARP, VAF), task="regression", output_activation=True, residual=True),
    NetworkSpec(3, (), 2, ()), NetworkSpec(3, (), 2, (WARP,), task="regression", output_activation=True)]
every_network = pytest.mark.parametrize("spec", NETWORKS, ids=range(len(NETWORKS)))


@every_network
def test_network_computes_what_its_spec_says(spec: NetworkSpec) -> None:
    network = make_random_network(spec)
    x = np.random.default_rng(1).standard_normal((6, 3)).astype(np.float32)
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    h, seen = (x - state["features.shift"]) / state["features.scale"], []
    last = len(spec.hidden)
    for i in range(last + 1):
        u = h @ state[f"body.{i}.linear.weight"].T + state[f"body.{i}.linear.bias"]
        y = u
        if i < last or spec.output_activation:
            seen.append(u)
            activation = network.layers[i].activation
            assert isinstance(activation, LearnedActivation)
            y = np.array([[scalar_reference(activation, k, float(v)) for k, v in enumerate(row)] for row in u])
        joins = spec.residual and 0 < i < last and spec.hidden[i - 1] == spec.hidden[i]      # never at the output
        h = y + h if joins else y
    expected = h * state["targets.scale"] + state["targets.shift"] if spec.task == "regression" else h
    np.testing.assert_allclose(network(torch.from_numpy(x)).numpy(), expected, **FLOAT64)
    found = network.preactivations(torch.from_numpy(x))
    assert len(found) == len(seen) == len(network.activated_layers) == len(spec.activations)
    for ours, theirs in zip(found, seen, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, **FLOAT64)


def test_standardize_takes_pixels_and_inverts() -> None:
    module = Standardize(np.array([1.0, 2.0]), np.array([2.0, 0.5]))
    pixels = torch.tensor([[0, 255], [3, 2]], dtype=torch.uint8)
    assert torch.equal(module(pixels), torch.tensor([[-0.5, 506.0], [1.0, 0.0]]))
    assert torch.equal(module.invert(module(pixels)), pixels.float())


@every_network
def test_relu_twin_has_relu_in_every_activated_layer(spec: NetworkSpec) -> None:
    network = make_random_network(spec)
    before = network(torch.ones(1, 3, dtype=torch.float64))
    twin = make_relu_twin(network)
    h = network.features(torch.eye(3, dtype=torch.float64))
    for layer in network.layers:
        y = layer.linear(h)
        y = torch.relu(y) if layer.activation is not None else y
        h = y + h if layer.residual else y
    expected = h if network.targets is None else network.targets.invert(h)
    torch.testing.assert_close(twin(torch.eye(3, dtype=torch.float64)), expected, **FLOAT64)
    assert torch.equal(network(torch.ones(1, 3, dtype=torch.float64)), before)
    assert count_macs(twin) == sum(a * b for a, b in zip(spec.sizes, spec.sizes[1:], strict=False))


def test_costs_counted_by_hand() -> None:
    def costs(activation: ActivationSpec) -> tuple[int, int]:
        network = make_random_network(NetworkSpec(10, (6,), 3, (activation,)))
        return count_macs(network) - (60 + 18), count_parameters(network) - (60 + 6 + 18 + 3)

    assert costs(ActivationSpec("fixed", "relu")) == (0, 0)
    assert costs(ActivationSpec("meta", "relu", 5, 1)) == (6 * 10, 6 * 16)
    assert costs(ActivationSpec("meta", "relu", 5, 3)) == (6 * (10 + 50), 6 * (16 + 60))
    assert costs(ActivationSpec("meta", "relu", 5, 1, shared=True)) == (6 * 10, 16)
    assert costs(ActivationSpec("meta", "relu", 5, 1, ends="leaky")) == (6 * 12, 6 * 16)
    assert costs(ActivationSpec("meta", "relu", 5, 1, ends="gated")) == (6 * 12, 6 * 18)
    assert costs(ActivationSpec("meta", "relu", 5, 1, ends="skip")) == (6 * 12, 6 * 18)
    assert costs(ActivationSpec("vaf", "tanh", 5, 1)) == (6 * 10, 6 * 16)
    assert costs(ActivationSpec("agsig", "sigmoid")) == (6 * 2, 6 * 2)
    assert costs(ActivationSpec("frelu", "relu")) == (0, 6 * 2)
    assert costs(ActivationSpec("warp", "tanh")) == (6 * 2, 6 * 4)


def test_costs_of_forms_counted_by_hand() -> None:
    piecewise = PiecewiseLinear(spline.PiecewiseLinear(*[np.array(v, float) for v in (
        [[0, 1, 1], [0, 1, 2]], [[1, 2, 0], [1, 1, 1]], [0, 0], [0, 0])]))
    forms = [CubicSpline(random_cubic(3)), piecewise, Polynomial(random_polynomial(2, 5)), nn.Identity(),
             nn.Sequential(make_activation(ActivationSpec("fixed", "relu"), 2), Scale(np.ones(2), np.zeros(2))),
             make_random(ActivationSpec("meta", "relu", 5, 2), 1)]
    grouped = Grouped((3, 2, 2, 1, 2, 1), forms)
    spec = NetworkSpec(2, (11,), 1, (VAF,))
    layers = [Layer(nn.Linear(2, 11), grouped), Layer(nn.Linear(11, 1), None)]
    network = Network(spec, layers, Standardize(np.zeros(2), np.ones(2)), None)
    assert count_macs(network) == 22 + 11 + 3 * 4 + 5 + 2 * 5 + 0 + 2 + (10 + 25)
    numbers = 33 + 12 + 3 * (2 + 16) + 2 * (6 + 2) + 2 * (2 + 6) + 4 + (16 + 30)
    assert count_parameters(network) == numbers


def test_meta_residual_joins_adjacent_inner_layers() -> None:
    activation = Meta(ActivationSpec("meta", "relu", 1, 2), 1)
    activation.first_weight.data.fill_(1)
    activation.weights[0].data.fill_(10)
    activation.out_weight.data.fill_(1)
    assert activation(torch.tensor([2.0])).tolist() == [2 * 10 + 2]
