import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf, expit

from mncompress.analysis._bounds import FLOOR, SLACK, bound_error, bound_lipschitz, enclose
from mncompress.analysis._inner import ACTIVATED, LINEAR, End, InnerNetworks, from_native
from mncompress.analysis._jets import ACT_JETS, EXTREMA, propagate, range_from
from mncompress.analysis._kinks import extract_piecewise_linear
from mncompress.analysis._rounding import FLOAT32, FLOAT64, bound_arithmetic, bound_rounding, find_jumps
from mncompress.analysis._tables import tabulate_errors, tabulate_slopes
from mncompress.spline import (
    ACT_DERIVATIVES,
    ACT_VALUES,
    CubicSpline,
    Native,
    PiecewiseLinear,
    Polynomial,
    fit_line,
    fit_native,
    fit_polynomial,
    fit_spline,
    make_target,
    span_knots,
)
from mncompress.types import ACTS, RELU_LIKE

SMOOTH = [act for act in ACTS if act not in RELU_LIKE]
SHAPES = [("linear", 1, 16), ("linear", 1, 3), ("activated", 1, 5), ("activated", 2, 8), ("activated", 4, 4), ("leaky", 1, 6),
          ("gated", 1, 5), ("gated", 3, 4), ("skip", 2, 8)]
GRID = 1001

PLAIN, STRAIGHT = (ACTIVATED, ACTIVATED), (LINEAR, LINEAR)


def make_ends(kind, neurons, draw):
    if kind in ("linear", "activated"):
        return STRAIGHT if kind == "linear" else PLAIN
    if kind == "leaky":
        return (End(np.ones(1), np.full(1, 0.1)),) * 2
    skips = draw(neurons), draw(neurons)
    return tuple(End(1 - skip if kind == "gated" else np.ones(neurons), skip) for skip in skips)


def make_inner(rng, act, ends, depth, width, neurons):
    draw = lambda *s: rng.standard_normal(s)  # noqa: E731
    return InnerNetworks(act, make_ends(ends, neurons, draw), draw(neurons, width),
                         tuple(draw(neurons, width) for _ in range(depth)),
                         tuple(draw(neurons, width, width) / np.sqrt(width) for _ in range(depth - 1)),
                         draw(neurons, width), draw(neurons))


def make_grid(lo, hi, neurons):
    return np.linspace(lo, hi, GRID)[:, None] * np.ones(neurons)


def add_knots(u, *functions):
    """The points u, and the knots of functions with kinks, cut to the points' range."""
    pieces = [extract_piecewise_linear(f) for f in functions if isinstance(f, InnerNetworks) and f.act in RELU_LIKE]
    return np.concatenate([u, *(np.clip(piece.knots.T, u.min(0), u.max(0)) for piece in pieces)])


def make_line(form):
    return PiecewiseLinear(np.zeros((form.n, 1)), np.zeros((form.n, 1)), form.slope, form.intercept)


def fit_cubic(target, intervals):
    return fit_spline(target, span_knots(target.lo, target.hi, intervals), 3)


def fit_forms(inner, lo, hi):
    target = make_target(inner, lo, hi)
    yield fit_cubic(target, 24)
    yield fit_polynomial(target, 7)
    yield fit_native(target, "softplus")[0]
    yield fit_native(target, "relu")[0]
    yield make_line(fit_line(target))


@pytest.mark.parametrize("act", SMOOTH)
def test_derivatives_of_activations(act):
    z = np.linspace(-12, 12, 4001)
    z = z[np.abs(z) > 1e-3]  # elu'' jumps at 0
    first, second = ACT_JETS[act](z)
    # 1 - tanh^2 and the like lose relative, not absolute, accuracy
    np.testing.assert_allclose(first, ACT_DERIVATIVES[act](z), rtol=1e-12, atol=1e-15)
    quotient = (ACT_JETS[act](z + 1e-5)[0] - ACT_JETS[act](z - 1e-5)[0]) / 2e-5
    # central differences: h^2 / 6 of the fourth derivative, and rounding / h
    np.testing.assert_allclose(second, quotient, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_ranges_of_activations(act, order):
    if act in RELU_LIKE and order == 2:
        assert act not in ACT_JETS
        return
    derivative = (ACT_VALUES[act], ACT_DERIVATIVES[act], lambda z: ACT_JETS[act](z)[1])[order]
    rng = np.random.default_rng(order)
    low = rng.uniform(-7, 6, 3000)
    high = low + rng.exponential(2, 3000)
    extrema = {c: float(derivative(np.float64(c))) for c in EXTREMA[act][order]}
    least, most = range_from(derivative(low), derivative(high), (low, high), extrema)
    values = derivative(np.linspace(low, high, 400))
    assert np.all((least <= values + 1e-15) & (values - 1e-15 <= most))
    # Attained, up to the sampling of a smooth curve; elu'' jumps.
    if (act, order) != ("elu", 2):
        np.testing.assert_allclose(np.stack([least, most]), [values.min(0), values.max(0)], rtol=1e-3, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SMOOTH), st.sampled_from(SHAPES), st.floats(-9, 1.5), st.integers(0, 2**32))
def test_jets_enclose_slope_and_curvature(act, shape, log_radius, seed):
    rng = np.random.default_rng(seed)
    inner = make_inner(rng, act, *shape, 12)
    middle, radius = rng.uniform(-5, 5, (12, 6)), np.full((12, 6), np.exp(log_radius))
    jet = propagate(inner, middle, radius)
    # float64 rounding of slopes and values, relative to sums of terms of size up to about 1e3
    eps = 1e-11
    np.testing.assert_allclose(jet.value.T, inner.evaluate(middle.T), rtol=eps, atol=eps)
    np.testing.assert_allclose(jet.slope.T, inner.derivative(middle.T), rtol=eps, atol=eps)
    for place in np.linspace(-1, 1, 21):
        u = middle + place * radius
        slope = inner.derivative(u.T).T
        assert np.all((jet.slopes[0] - eps <= slope) & (slope <= jet.slopes[1] + eps))
        assert np.all(np.abs(inner.evaluate(u.T).T - jet.value) <= jet.deviation(radius) + eps)
        if act != "elu":  # central differences of the slope stay in the cell's hull at the inner points
            h = 1e-4 * radius * (1 - abs(place)) + 1e-300
            curvature = (inner.derivative((u + h).T) - inner.derivative((u - h).T)).T / (2 * h)
            noise = 1e-12 / h * (1 + np.abs(slope))
            assert np.all((jet.curvatures[0] - noise <= curvature) & (curvature <= jet.curvatures[1] + noise))


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_error_bound_holds_and_is_tight(act, shape):
    neurons, lo, hi = 16, -4.0, 3.5
    inner = make_inner(np.random.default_rng(1), act, *shape, neurons)
    for form in fit_forms(inner, lo, hi):
        for low, high in ((lo, hi), (lo - 3, hi + 2)):  # beyond the form's own domain it is linear
            kinked = from_native(form) if isinstance(form, Native) else form
            u = add_knots(make_grid(low, high, neurons), inner, kinked)
            sampled = np.abs(form.evaluate(u) - inner.evaluate(u)).max(0)
            bound = bound_error(inner, form, low, high)
            assert np.all(bound >= sampled), type(form)
            loose = sampled > 1e-4
            # 1 + SLACK where the refinement ends by itself; the grid misses a little of the maximum
            assert np.all(bound[loose] <= (1 + SLACK) * 1.01 * sampled[loose] + FLOOR), type(form)


def test_error_bound_of_a_difference_known_in_closed_form():
    # tanh against its own stretched copy: the largest difference of tanh(u) and 1.5 tanh(u) on [0, 2] is tanh(2) / 2
    native = Native("tanh", np.full(1, 1.5), np.ones(1), np.zeros(1), np.zeros(1))
    inner = InnerNetworks("tanh", STRAIGHT, np.ones((1, 1)), (np.zeros((1, 1)),), (), np.ones((1, 1)), np.zeros(1))
    bound = bound_error(inner, native, 0.0, 2.0)[0]
    assert np.tanh(2) / 2 <= bound <= (1 + SLACK) * np.tanh(2) / 2


def test_equal_functions_have_a_bound_at_rounding():
    rng = np.random.default_rng(0)
    native = Native("silu", *rng.standard_normal((4, 20)))
    # intervals do not know that the two are one; the refinement stops at FLOOR or by the number of cells
    assert np.all(bound_error(from_native(native), native, -50.0, 50.0) <= 100 * FLOOR)


@pytest.mark.parametrize("radius", [1e-3, 0.1, 0.4])
def test_curvatures_of_forms_are_enclosed(radius):
    rng = np.random.default_rng(11)
    for form in (CubicSpline(rng.random(30), np.full(30, 1.2), rng.standard_normal((30, 5, 4))),
                 Polynomial(rng.standard_normal(30), np.full(30, 0.4), rng.standard_normal((30, 8)))):
        middle = form.start + 2.5 / 1.2 if isinstance(form, CubicSpline) else form.center + rng.uniform(-1, 1, 30)
        jet = enclose(form, middle[:, None], np.full((30, 1), radius))
        low, high = (side[:, 0] for side in jet.curvatures)
        u = middle + radius * np.linspace(-0.99, 0.99, 41)[:, None]
        # central differences: h^2 / 6 of the fourth derivative (at most about 1e2), and rounding / h
        curvature = (form.derivative(u + 1e-6) - form.derivative(u - 1e-6)) / 2e-6
        assert np.all((low - 1e-7 <= curvature) & (curvature <= high + 1e-7))


def test_narrow_and_wide_domains():
    inner = make_inner(np.random.default_rng(3), "tanh", "activated", 2, 8, 20)
    spline = fit_cubic(make_target(inner, -3.0, 3.0), 16)
    error = lambda u: np.abs(spline.evaluate(u) - inner.evaluate(u))  # noqa: E731
    at = np.full((1, 20), 1.25)
    # one point: nothing but the rounding allowance is added
    np.testing.assert_allclose(bound_error(inner, spline, 1.25, 1.25), error(at)[0], rtol=1e-9, atol=1e-11)
    u = make_grid(-1000.0, 1000.0, 20)
    assert np.all(bound_error(inner, spline, -1000.0, 1000.0) >= error(u).max(0))


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_slope_bounds(act, shape):
    neurons, lo, hi = 40, -6.0, 5.0
    inner = make_inner(np.random.default_rng(2), act, *shape, neurons)
    u = make_grid(lo, hi, neurons)
    value, slope = inner.evaluate(add_knots(u, inner)), np.abs(inner.derivative(u)).max(0)
    bound = bound_lipschitz(inner, lo, hi)
    assert np.all(bound >= slope)
    steps = np.abs(np.diff(value[:GRID], axis=0)).max(0) / (u[1, 0] - u[0, 0])
    assert np.all(bound >= steps * (1 - 1e-9))
    loose = slope > 1e-3
    # A piece narrower than the grid's step may be missed by the samples of a kinked function.
    assert np.median(bound[loose] / slope[loose]) <= 1 + SLACK


def test_forms_have_slope_bounds_too():
    inner = make_inner(np.random.default_rng(4), "tanh", "linear", 1, 8, 25)
    u = make_grid(-5.0, 5.0, 25)
    for form in fit_forms(inner, -3.0, 3.0):
        assert np.all(bound_lipschitz(form, -5.0, 5.0) >= np.abs(form.derivative(u)).max(0))


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_tables_hold_slopes_and_errors_over_any_interval(act, shape):
    """And over intervals that are not narrow, they are close to what is there."""
    rng = np.random.default_rng(5)
    neurons, lo, hi = 12, np.full(12, -5.0), rng.uniform(-4.9, 4.0, 12)
    inner = make_inner(rng, act, *shape, neurons)
    form = [*fit_forms(inner, -3.0, 2.5)][int(rng.integers(5))]
    slopes, errors = tabulate_slopes(inner, lo, hi, 512), tabulate_errors(inner, form, lo, hi, 512)
    ends = np.sort(rng.uniform(lo, hi, (2, 200, neurons)), 0)
    ends[1, :100] = np.minimum(ends[0, :100] + (hi - lo) * 10.0 ** rng.uniform(-9, -1, (100, neurons)), hi)
    slope, error = slopes.over(*ends), errors.over(*ends)
    inside = [ends[0] + (ends[1] - ends[0]) * share for share in np.linspace(0, 1, 41)]
    seen = np.stack([form.evaluate(u) - inner.evaluate(u) for u in inside])
    assert np.all((error[0] <= seen) & (seen <= error[1]))
    steep = np.stack([inner.derivative(u) for u in inside])
    assert np.all((slope[0] <= steep) & (steep <= slope[1]))
    wide, close = ends[1] - ends[0] > (hi - lo) / 2, []
    pairs = [(error, seen)] if act in RELU_LIKE else [(error, seen), (slope, steep)]     # a piece between the points may be steeper
    for (low, high), values in pairs:
        found = np.abs(values).max(0)
        close.append(np.maximum(-low, high) <= np.where(wide & (found > 1e-3), 1.2 * found, np.inf))
    assert np.mean(close) > 0.9


def test_tables_of_a_point_and_of_what_overflows():
    inner = make_inner(np.random.default_rng(6), "tanh", "activated", 1, 4, 3)
    at = np.array([0.5, -1.0, 2.0])
    low, high = tabulate_slopes(inner, at, at, 32).over(at[None], at[None])
    np.testing.assert_allclose([low[0], high[0]], [inner.derivative(at[None])[0]] * 2, rtol=1e-8, atol=1e-11)
    huge = dataclasses.replace(inner, act="silu", out_weight=np.full((3, 4), 1e308))
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = tabulate_slopes(huge, at - 1, at + 1, 64).over(at[None], at[None])
    assert not np.isfinite(low).any()
    assert not np.isfinite(high).any()


FLOAT32_ACTS = {
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, np.float32(0.01) * z),
    "sigmoid": expit,
    "tanh": np.tanh,
    "silu": lambda z: z * expit(z),
    "gelu": lambda z: np.float32(0.5) * z * (1 + erf(z / np.sqrt(np.float32(2)))),
    "softplus": lambda z: np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))),
    "elu": lambda z: np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1),
}


def evaluate_float32(inner, u):
    act, single = FLOAT32_ACTS[inner.act], lambda a: a.astype(np.float32)

    def apply_end(end, z):
        if end is LINEAR or end is ACTIVATED:
            return z if end is LINEAR else act(z)
        return single(end.scale)[:, None, None] * act(z) + single(end.skip)[:, None, None] * z

    a = apply_end(inner.ends[0], u.T[:, None, :])
    h = act(single(inner.first_weight)[:, :, None] * a + single(inner.biases[0])[:, :, None])
    for weight, bias in zip(inner.weights, inner.biases[1:], strict=True):
        h = act(single(weight) @ h + single(bias)[:, :, None]) + h
    y = apply_end(inner.ends[1], single(inner.out_weight)[:, None] @ h + single(inner.out_bias)[:, None, None])
    assert y.dtype == np.float32
    return y[:, 0].T


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("span", [4.0, 60.0])
def test_float32_rounding_bound_of_networks(act, shape, span):
    inner = make_inner(np.random.default_rng(6), act, *shape, 60)
    u = make_grid(-span, span, 60).astype(np.float32)
    error = np.abs(evaluate_float32(inner, u) - inner.evaluate(u.astype(float))).max(0)
    bound = bound_rounding(inner, -span, span)
    assert np.all(error <= bound)
    # a worst case over all signs and layers, yet no absurd one; skips pass on what is large
    assert np.median(bound) <= (2e-3 if shape[0] == "skip" else 1e-3)
    assert np.all(bound_rounding(inner, -span, span, FLOAT64) < 1e-6 * bound + 1e-30)


def bound_form_rounding(form, lo, hi):
    """With one knot that rounding crosses."""
    return bound_arithmetic(form, lo, hi, FLOAT32) + find_jumps(form).max(1, initial=0.0)


def evaluate_form_float32(form, u):
    """The formulas of `mncompress.spline` with every operation in float32."""
    one = np.float32(1)
    if isinstance(form, PiecewiseLinear):
        y = form.intercept.astype("f4") + form.slope.astype("f4") * u
        for knot, change in zip(form.knots.astype("f4").T, form.slope_changes.astype("f4").T, strict=True):
            y = y + change * np.maximum(u - knot, 0 * one)
        return y
    c = form.coefficients.astype("f4")
    if isinstance(form, CubicSpline):
        s = (u - form.start.astype("f4")) * form.inverse_step.astype("f4")
        low, high = 0 * one, np.float32(form.intervals)
        interval = np.clip(np.floor(s), 0, form.intervals - 1).astype(int)
        c = c[np.arange(form.n), interval]
        inside = np.clip(s, low, high)
        t = inside - interval.astype("f4")
    else:
        s = (u - form.center.astype("f4")) * form.inverse_half_width.astype("f4")
        inside = t = np.clip(s, -one, one)
    y, slope = np.zeros_like(u), np.zeros_like(u)
    for p in range(c.shape[-1] - 1, -1, -1):
        y = y * t + c[..., p]
        slope = slope * t + p * one * c[..., p] if p else slope
    y = y + (s - inside) * slope
    assert y.dtype == np.float32
    return y


@pytest.mark.parametrize("act", [*SMOOTH, "relu"])
def test_float32_rounding_bound_where_digits_cancel(act):
    # Zeros of the inner units at about 1000: what their sums lose dominates everything else.
    rng = np.random.default_rng(10)
    inner = make_inner(rng, act, "linear", 1, 2, 200)
    inner = dataclasses.replace(inner, biases=(rng.standard_normal((200, 2)) - 1000 * inner.first_weight,))
    u = make_grid(999.0, 1001.0, 200).astype(np.float32)
    error = np.abs(evaluate_float32(inner, u) - inner.evaluate(u.astype(float))).max(0)
    bound = bound_rounding(inner, 999.0, 1001.0)
    assert np.all(error <= bound)
    assert np.median(bound / error) < 20


@pytest.mark.parametrize("act", ["relu", "silu"])
def test_float32_rounding_bound_where_ends_cancel(act):
    # Far out, e(z) = s act(z) - (s - 1e-4) z is small: what is lost in its two products is what there is to bound.
    rng = np.random.default_rng(12)
    scale, one, zero = rng.uniform(1, 2, 200), np.ones((200, 1)), np.zeros((200, 1))
    for place in (0, 1):
        ends = [LINEAR, LINEAR]
        ends[place] = End(scale, 1e-4 - scale)
        inner = InnerNetworks(act, tuple(ends), one, (zero,), (), one, zero[:, 0])
        u = make_grid(50.0, 60.0, 200).astype(np.float32)
        error = np.abs(evaluate_float32(inner, u) - inner.evaluate(u.astype(float))).max(0)
        bound = bound_rounding(inner, 50.0, 60.0)
        assert np.all(error <= bound)
        assert np.all(error > 1e-6)
        assert np.median(bound / error) < 20


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_mixed_ranges_hold_the_mixture(seed):
    rng = np.random.default_rng(seed)
    end = End(*rng.choice([-1.0, 1.0], (2, 1)) * rng.random((2, 20)) + rng.choice([0.0, 0.0, 1.5], (2, 1)))
    ranges = [tuple(np.sort(rng.standard_normal((2, 20, 1, 5)), 0)) for _ in range(2)]
    low, high = end.mix_ranges(*ranges)
    corners = np.stack([end.mix(a, b) for a in ranges[0] for b in ranges[1]])
    # a sum over a box is extreme at its corners
    np.testing.assert_allclose(low, corners.min(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(high, corners.max(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("act", ["tanh", "gelu", "relu"])
@pytest.mark.parametrize("center", [0.0, 40.0, 1000.0])
def test_float32_rounding_bound_of_forms(act, center):
    inner = make_inner(np.random.default_rng(7), act, "linear", 1, 8, 60)
    lo, hi = center - 4, center + 4
    u = make_grid(lo - 3, hi + 2, 60).astype(np.float32)
    target = make_target(inner, lo, hi)
    forms = [fit_cubic(target, 30), fit_polynomial(target, 7), make_line(fit_line(target))]
    rng = np.random.default_rng(8)
    forms.append(PiecewiseLinear(np.sort(center + rng.standard_normal((60, 9)), 1), *rng.standard_normal((1, 60, 9)),
                                 *rng.standard_normal((2, 60))))
    forms.append(CubicSpline(lo + rng.random(60), 2 + rng.random(60), rng.standard_normal((60, 7, 4))))  # with jumps
    forms.append(Polynomial(lo + rng.random(60), 1 + rng.random(60), rng.standard_normal((60, 6))))
    for form in forms:
        if isinstance(form, CubicSpline):  # right at the knots s may round into the neighboring interval
            knots = form.start + np.arange(form.intervals + 1)[:, None] / form.inverse_step
            u = np.concatenate([u, np.clip(knots, lo - 3, hi + 2)]).astype(np.float32)
        error = np.abs(evaluate_form_float32(form, u) - form.evaluate(u.astype(float))).max(0)
        bound = bound_form_rounding(form, lo - 3, hi + 2)
        assert np.all(error <= bound), type(form)
        # every rounding at its worst and at the same place, and the sum of |coefficients| where terms cancel
        assert np.median(bound) < 500 * np.median(error) + 1e-4, type(form)


def test_rounding_of_a_far_start_is_bounded():
    start = 1000 / 3 + np.arange(20) / 7
    form = CubicSpline(start, np.ones(20), np.array([0.0, 1, 0, 0]) * np.ones((20, 1, 4)))
    u = (start + np.linspace(0, 1, 9)[:, None]).astype(np.float32)
    error = np.abs(evaluate_form_float32(form, u) - form.evaluate(u.astype(float))).max(0)
    bound = bound_form_rounding(form, u.min(0), u.max(0))
    assert np.all(error <= bound)
    assert np.median(bound) < 5 * np.median(error)


def test_rounding_bound_of_native_forms():
    native = Native("gelu", *np.random.default_rng(9).standard_normal((4, 40)))
    bound = bound_form_rounding(native, -3.0, 3.0)
    np.testing.assert_array_equal(bound, bound_rounding(from_native(native), -3.0, 3.0))


def test_what_overflows_has_no_bound():
    huge = np.full((2, 1), 1e160)
    inner = InnerNetworks("tanh", STRAIGHT, huge, (huge,), (), huge, np.zeros(2))
    assert bound_lipschitz(inner, -2.0, 1.0).tolist() == [np.inf, np.inf]


def test_a_domain_must_ascend():
    native = Native("gelu", *np.ones((4, 2)))
    with pytest.raises(AssertionError, match="lo <= hi"):
        bound_error(from_native(native), native, 1.0, 0.0)
