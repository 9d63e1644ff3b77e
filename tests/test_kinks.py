from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mncompress.analysis._inner import ACTIVATED, LINEAR, End, InnerNetworks
from mncompress.analysis._kinks import as_native, count_knots, extract_piecewise_linear
from mncompress.spline import ACT_VALUES, PiecewiseLinear

VECTORS = Path(__file__).parent / "vectors" / "vectors.npz"
SHAPES = [("linear", 1), ("activated", 1), ("activated", 2), ("activated", 3), ("activated", 5), ("leaky", 2),
          ("gated", 1), ("gated", 3), ("skip", 2)]
FAR = np.array([-1e6, -1e3, 1e3, 1e6])

PLAIN, STRAIGHT = (ACTIVATED, ACTIVATED), (LINEAR, LINEAR)


def make_ends(kind, neurons, draw):
    if kind in ("linear", "activated"):
        return STRAIGHT if kind == "linear" else PLAIN
    if kind == "leaky":
        return (End(np.ones(1), np.full(1, 0.1)),) * 2
    skips = draw(neurons), draw(neurons)
    return tuple(End(1 - skip if kind == "gated" else np.ones(neurons), skip) for skip in skips)


def make_inner(rng, act, ends, depth, width, neurons, draw=None):
    draw = draw or (lambda *shape: rng.standard_normal(shape))
    return InnerNetworks(act, make_ends(ends, neurons, draw), draw(neurons, width),
                         tuple(draw(neurons, width) for _ in range(depth)),
                         tuple(draw(neurons, width, width) for _ in range(depth - 1)), draw(neurons, width),
                         draw(neurons))


def make_points(form):
    """A grid, far points, every knot, points right beside knots and between them."""
    grid = np.concatenate([np.linspace(-8, 8, 401), FAR])[:, None] * np.ones(form.n)
    k = form.knots.T
    return np.concatenate([grid, k, k * (1 - 1e-9), k * (1 + 1e-9), (k[1:] + k[:-1]) / 2])


def term_size(inner, u):
    """The sum of all terms' magnitudes on the way through the network: the scale of its rounding errors."""
    a = inner.ends[0].size(*[np.abs(u).T[:, None]] * 2)
    h = np.abs(inner.first_weight)[:, :, None] * a + np.abs(inner.biases[0])[:, :, None]
    for weight, bias in zip(inner.weights, inner.biases[1:], strict=True):
        h = np.abs(weight) @ h + np.abs(bias)[:, :, None] + h
    y = np.abs(inner.out_weight)[:, None] @ h + np.abs(inner.out_bias)[:, None, None]
    return inner.ends[1].size(y, y)[:, 0].T


def evaluate_float32(form, u):
    knots, changes, slope, intercept = (
        part.astype(np.float32) for part in (form.knots, form.slope_changes, form.slope, form.intercept))
    y = intercept + slope * u
    for knot, change in zip(knots.T, changes.T, strict=True):
        y = y + change * np.maximum(u - knot, np.float32(0))
    return y


def assert_same_function(inner, form, rtol):
    u = make_points(form)
    u = np.where(np.abs(u) <= 1e14, u, 0)
    assert np.all(np.abs(form.evaluate(u) - inner.evaluate(u)) <= rtol * term_size(inner, u) + 1e-30)


@pytest.mark.parametrize("act", ["relu", "leaky_relu"])
@pytest.mark.parametrize(("ends", "depth"), SHAPES)
@pytest.mark.parametrize("width", [1, 2, 5, 16])
def test_equals_network_everywhere(act, ends, depth, width):
    rng = np.random.default_rng([depth, width, ["linear", "activated", "leaky", "gated", "skip"].index(ends)])
    inner = make_inner(rng, act, ends, depth, width, 60)
    form = extract_piecewise_linear(inner)
    # float64 rounding of some tens of operations
    assert_same_function(inner, form, rtol=3e-15)
    assert (np.diff(form.knots, axis=1) >= 0).all()
    # Exactness beyond rounding of the terms: at +-1e6 the relative error is that of a sum of terms of size slope * 1e6.
    u = FAR[:, None] * np.ones(60)
    slope_size = np.abs(form.slope) + np.abs(form.slope_changes).sum(1)
    np.testing.assert_allclose(form.evaluate(u), inner.evaluate(u), rtol=1e-10, atol=1e-15 * 1e6 * slope_size.max())


DRAWS = {
    "integers": lambda rng: lambda *s: np.round(1.5 * rng.standard_normal(s)),  # coincident knots, cancelling slopes
    "twelve decades": lambda rng: lambda *s: rng.standard_normal(s) * 10.0 ** rng.uniform(-12, 2, s),  # far knots
    "forty decades": lambda rng: lambda *s: rng.standard_normal(s) * 10.0 ** rng.uniform(-40, 2, s),
    "half zero": lambda rng: lambda *s: rng.standard_normal(s) * (rng.random(s) < 0.5),
    "zero": lambda rng: lambda *s: np.zeros(s),
}


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["relu", "leaky_relu"]), st.sampled_from(SHAPES), st.integers(1, 8),
       st.sampled_from(sorted(DRAWS)))
def test_equals_network_for_awkward_weights(seed, act, shape, width, draw):
    rng = np.random.default_rng(seed)
    inner = make_inner(rng, act, *shape, width, 20, DRAWS[draw](rng))
    # 1e-13 is what a dropped knot may contribute, and several may be dropped.
    assert_same_function(inner, extract_piecewise_linear(inner), rtol=1e-12)


@pytest.mark.parametrize("act", ["relu", "leaky_relu"])
def test_evaluates_well_in_float32(act):
    rng = np.random.default_rng(5)
    inner = make_inner(rng, act, "activated", 3, 8, 80, DRAWS["twelve decades"](rng))
    form = extract_piecewise_linear(inner)
    u = make_points(form).astype(np.float32)
    size = term_size(inner, u.astype(float)) + np.abs(form.intercept) + np.abs(form.slope * u) + sum(
        np.abs(c) * (np.abs(u) + np.abs(k)) for k, c in zip(form.knots.T, form.slope_changes.T, strict=True))
    error = np.abs(evaluate_float32(form, u) - inner.evaluate(u.astype(float)))
    # a handful of float32 roundings, 6e-8 each, of what is added up
    assert np.all(error <= 4e-7 * size + 1e-35)


def load_cases():
    vectors = np.load(VECTORS, allow_pickle=False)
    for act in ("relu", "leaky_relu"):
        yield pytest.param(f"vaf_{act}", act, 0, id=f"vaf_{act}")
        for depth, width in [(1, 1), (1, 5), (2, 5), (4, 3)]:
            case = f"meta_{act}_l{depth}_h{width}"
            assert f"{case}/y" in vectors
            yield pytest.param(case, act, depth, id=case)


@pytest.mark.parametrize(("case", "act", "depth"), list(load_cases()))
def test_conformance_vectors(case, act, depth):
    vectors = np.load(VECTORS, allow_pickle=False)
    get = lambda name: vectors[f"{case}/{name}"][None]  # noqa: E731
    if depth:
        inner = InnerNetworks(act, PLAIN, get("w0"), tuple(get(f"b{l}") for l in range(depth)),  # noqa: E741
                              tuple(get(f"w{l}") for l in range(1, depth)), get("out_w"), get("out_b"))  # noqa: E741
    else:
        inner = InnerNetworks(act, STRAIGHT, get("a"), (get("b"),), (), get("w"), get("c"))
    u, y = vectors[f"{case}/u"][:, None], vectors[f"{case}/y"][:, None]
    # float64 on both sides: a few roundings of values up to about 1e2
    np.testing.assert_allclose(inner.evaluate(u), y, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(extract_piecewise_linear(inner).evaluate(u), y, rtol=1e-12, atol=1e-13)


def test_finds_the_knots_of_a_known_function():
    # relu(u + 1) - 2 relu(u) + relu(u - 1), a hat; and the same knot from two units that cancel
    inner = InnerNetworks("relu", STRAIGHT, np.ones((2, 3)), (np.array([[1.0, 0, -1], [2, 2, 0]]),), (),
                          np.array([[1.0, -2, 1], [1, -1, 3]]), np.zeros(2))
    form = extract_piecewise_linear(inner)
    np.testing.assert_array_equal(form.knots, [[-1, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(form.slope_changes, [[1, -2, 1], [3, 0, 0]])
    np.testing.assert_array_equal(count_knots(form), [3, 1])


def test_derivative_matches_difference_quotients():
    inner = make_inner(np.random.default_rng(2), "leaky_relu", "activated", 3, 6, 30)
    u = np.linspace(-5, 5, 777)[:, None] * np.ones(30)
    near = np.abs(u[:, :, None] - extract_piecewise_linear(inner).knots).min(2) < 1e-4
    quotient = (inner.evaluate(u + 1e-5) - inner.evaluate(u - 1e-5)) / 2e-5
    # away from kinks the function is a line: only the rounding of the quotient is left
    np.testing.assert_allclose(inner.derivative(u)[~near], quotient[~near], rtol=1e-8, atol=1e-7)


def test_knots_merge_and_dead_units_have_none():
    ones = np.ones((1, 4))
    twins = InnerNetworks("relu", PLAIN, ones, (-ones / 3,), (), ones, np.ones(1))
    assert count_knots(extract_piecewise_linear(twins)).tolist() == [1]
    # -1 / 3, -0.1 / 0.3 and -1e-3 / 3e-3 differ in the last place
    close = InnerNetworks("relu", STRAIGHT, np.array([[3, 0.3, 3e-3]]), (np.array([[1, 0.1, 1e-3]]),), (), np.ones((1, 3)),
                          np.zeros(1))
    assert len({*(-close.biases[0] / close.first_weight).ravel()}) > 1
    assert count_knots(extract_piecewise_linear(close)).tolist() == [1]
    dead = InnerNetworks("relu", PLAIN, -ones, (-ones,), (), ones, np.ones(1))
    form = extract_piecewise_linear(dead)
    assert count_knots(form).tolist() == [0]
    assert form.evaluate(np.array([[-7.0], [9.0]])).tolist() == [[1.0], [1.0]]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["relu", "leaky_relu"]), st.sampled_from([1.0, -1.0]), st.integers(0, 2**32))
def test_native_form_is_recovered(act, beta, seed):
    rng = np.random.default_rng(seed)
    first, bias, out, eta = rng.standard_normal((4, 1))
    inner = InnerNetworks(act, STRAIGHT, beta * np.abs(first)[:, None], (bias[:, None],), (), out[:, None], eta)
    exact = as_native(extract_piecewise_linear(inner))
    assert (exact.kind[0], exact.act[0]) == ("native", act)
    assert exact.beta[0] == beta
    u = np.linspace(-30, 30, 501)
    y = exact.alpha * ACT_VALUES[act](exact.beta * u + exact.delta) + exact.eta
    # a few float64 roundings of terms of size out * (first * 30 + bias)
    np.testing.assert_allclose(y, inner.evaluate(u[:, None])[:, 0], rtol=1e-12, atol=1e-12)


def test_classification():
    form = PiecewiseLinear(
        knots=np.array([[0.0, 0], [0, 0], [2, 2], [2, 2], [2, 2], [-1, 2], [2, 2]]),
        slope_changes=np.array([[0.0, 0], [0, 0], [3, 0], [3, 0], [0.99, 0], [1, -1], [1, 0]]),
        slope=np.array([0.0, 0.5, 0, -3, 0.01, 0, 1]), intercept=np.array([4.0, 0, 1, 6, 0, 0, 0]))
    exact = as_native(form)
    assert exact.kind.tolist() == ["constant", "affine", "native", "native", "native", "piecewise_linear",
                                   "piecewise_linear"]
    assert exact.act.tolist() == ["", "", "relu", "relu", "leaky_relu", "", ""]
    assert exact.alpha.tolist() == [0, 0.5, 3, 3, 1, 0, 0]
    assert exact.beta.tolist() == [1, 1, 1, -1, 1, 0, 0]
    assert exact.delta.tolist() == [0, 0, -2, 2, -2, 0, 0]
    assert exact.eta.tolist() == [4, 0, 1, 0, 0.02, 0, 0]


def test_smooth_activations_are_refused():
    with pytest.raises(AssertionError, match="tanh is not piecewise linear"):
        extract_piecewise_linear(make_inner(np.random.default_rng(0), "tanh", "activated", 1, 2, 1))
