"""Properties of the forms and the fits: against scipy, the conformance vectors and the formulas themselves."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import interpolate, optimize

from mncompress import spline as sp
from mncompress.types import ACTS

VECTORS = np.load(Path(__file__).parent / "vectors" / "vectors.npz", allow_pickle=False)
EPS32 = 2.0**-24  # half an ulp: the relative error of rounding to float32
seeds = st.integers(0, 2**32 - 1)


def cases(prefix):
    return sorted({key.split("/")[0] for key in VECTORS.files if key.startswith(prefix)})


def arrays(case, *names):
    return [VECTORS[f"{case}/{name}"] for name in names]


@dataclass
class Functions:
    """Any form as functions to fit."""

    form: object

    @property
    def n(self):
        return self.form.n

    def __call__(self, u):
        return self.form.evaluate(u)

    def derivative(self, u):
        return self.form.derivative(u)

    def select(self, indices):
        return Functions(self.form.select(indices))


@dataclass
class Waves:
    """sin(frequency·u + phase): smooth, with bounded derivatives of every order."""

    frequency: np.ndarray
    phase: np.ndarray

    @property
    def n(self):
        return len(self.frequency)

    def __call__(self, u):
        return np.sin(self.frequency * u + self.phase)

    def derivative(self, u):
        return self.frequency * np.cos(self.frequency * u + self.phase)

    def select(self, indices):
        return Waves(self.frequency[indices], self.phase[indices])


def make_waves(seed, n=12):
    rng = np.random.default_rng(seed)
    lo = rng.uniform(-3, 1, n)
    return Waves(rng.uniform(0.5, 3, n), rng.uniform(0, 6, n)), lo, lo + rng.uniform(0.5, 4, n)


def make_polynomials(seed, degree, n=6):
    rng = np.random.default_rng(seed)
    center, width = rng.uniform(-5, 5, n), rng.uniform(0.1, 8, n)
    form = sp.Polynomial(center, 2 / width, rng.standard_normal((n, degree + 1)))
    return Functions(form), center - width / 2, center + width / 2


def fit_form(how, function, lo, hi, *settings):
    """What is fitted, and its largest errors on the domains."""
    target = sp.make_target(function, lo, hi)
    form = how(target, *settings)
    return form, target.measure(form)[0]


def fit_uniform(target, intervals, degree=3):
    """Splines with knots from end to end."""
    return sp.fit_spline(target, sp.span_knots(target.lo, target.hi, intervals), degree)


def make_pair(act="relu"):
    """Two functions for the error paths."""
    return Functions(sp.Native(act, np.ones(2), np.ones(2), np.zeros(2), np.zeros(2)))


def make_spline(seed, n=4, intervals=7):
    rng = np.random.default_rng(seed)
    return sp.CubicSpline(rng.standard_normal(n), rng.uniform(0.5, 2, n), rng.standard_normal((n, intervals, 4)))


FORMS = {
    "cubic": make_spline(1),
    "piecewise": sp.PiecewiseLinear(np.array([[-1, 0, 2.0]] * 4), np.arange(1, 13.0).reshape(4, 3), *np.ones((2, 4))),
    "polynomial": make_polynomials(2, 5, 4)[0].form,
    "line": make_polynomials(2, 1, 4)[0].form,
    "constant": make_polynomials(2, 0, 4)[0].form,
    **{act: sp.Native(act, np.arange(1, 5.0), np.array([1, -1, 2, -0.5]), np.arange(4.0), np.ones(4)) for act in ACTS},
    "affine": sp.Affine(np.arange(4.0), np.ones(4)),
}


# ---- evaluation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("cubic_spline"))
def test_cubic_spline_meets_the_conformance_vectors(case):
    x, start, inverse_step, coefficients, expected = arrays(case, "x", "start", "inverse_step", "coefficients", "y")
    y = sp.CubicSpline(start, inverse_step, coefficients).evaluate(x)
    assert y.dtype == np.float64
    # the same float64 arithmetic up to the order of additions
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", cases("piecewise_linear"))
def test_piecewise_linear_meets_the_conformance_vectors(case):
    x, *parameters, expected = arrays(case, "x", "knots", "slope_changes", "slope", "intercept", "y")
    y = sp.PiecewiseLinear(*parameters).evaluate(x)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", cases("warp") + cases("agsig"))
def test_native_meets_the_conformance_vectors(case):
    u, parameters, expected = arrays(case, "u", "parameters", "y")
    act = case.removeprefix("warp_") if case != "agsig" else "sigmoid"
    native = sp.Native(act, *np.append(parameters, np.zeros(4 - len(parameters)))[:, None])
    # gelu by erf (the vectors) loses digits in its tail where ndtr does not: absolute error of one rounding of z
    np.testing.assert_allclose(native.evaluate(u[:, None])[:, 0], expected, rtol=1e-12, atol=1e-13)


@given(seeds, st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_cubic_spline_agrees_with_scipy_ppoly(seed, intervals):
    form = make_spline(seed, intervals=intervals)
    s = np.random.default_rng(seed).uniform(0, intervals, (50, form.n))
    u = form.start + s / form.inverse_step
    value, slope = form.evaluate(u), form.derivative(u)
    for i in range(form.n):
        reference = interpolate.PPoly(form.coefficients[i, :, ::-1].T, np.arange(intervals + 1.0))
        at = (u[:, i] - form.start[i]) * form.inverse_step[i]
        np.testing.assert_allclose(value[:, i], reference(at), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(slope[:, i] / form.inverse_step[i], reference(at, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_derivative_is_the_difference_quotient(form):
    u = np.random.default_rng(3).uniform(-9, 9, (200, form.n))  # a knot between u and u + h has probability 1e-3
    h = 1e-6
    quotient = (form.evaluate(u + h) - form.evaluate(u - h)) / (2 * h)
    # truncation h**2·|f'''|, cancellation 1e-16·|f|/h with |f| up to 1e4
    np.testing.assert_allclose(form.derivative(u), quotient, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_nan_gives_nan_and_infinities_do_not_raise(form):
    u = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0])[:, None].repeat(form.n, axis=1)
    with np.errstate(all="raise", under="ignore"):
        y, slope = form.evaluate(u), form.derivative(u)
    assert np.isnan(y[0]).all()
    assert np.isnan(slope[0]).all()
    assert np.isfinite(slope[1:]).all()
    assert np.isfinite(y[5]).all()


def test_infinities_give_what_the_arithmetic_gives():
    rising_then_flat = np.array([[[0.0, 1.0, 0.0, 0.0], [1.0, 1.0, -0.5, 0.0]]])
    form = sp.CubicSpline(np.zeros(1), np.ones(1), rising_then_flat)
    y = form.evaluate(np.array([[-np.inf], [np.inf]]))
    assert y[0, 0] == -np.inf
    assert np.isnan(y[1, 0])  # ∞·0


@pytest.mark.parametrize("name", ["cubic", "polynomial"])
def test_continuation_is_linear_with_the_boundary_slope(name):
    form = FORMS[name]
    if name == "cubic":
        ends = form.start, form.start + form.intervals / form.inverse_step
    else:
        ends = form.center - 1 / form.inverse_half_width, form.center + 1 / form.inverse_half_width
    for end, direction in zip(ends, (-1, 1), strict=True):
        distance = direction * np.array([0.0, 0.5, 3.0, 1e3])[:, None]
        inner_slope = form.derivative(end - direction * 1e-9)  # from inside, off by |f''|·1e-9
        expected = form.evaluate(end) + distance * inner_slope
        np.testing.assert_allclose(form.evaluate(end + distance), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_shapes_and_select(form):
    u = np.random.default_rng(4).uniform(-3, 3, (2, 5, form.n))
    y = form.evaluate(u)
    assert y.shape == u.shape
    chosen = np.array([3, 0])
    part = form.select(chosen)
    assert part.n == 2
    np.testing.assert_array_equal(part.evaluate(u[..., chosen]), y[..., chosen])
    np.testing.assert_array_equal(part.derivative(u[..., chosen]), form.derivative(u)[..., chosen])


def test_piecewise_linear_without_knots_gets_an_unused_one():
    form = sp.PiecewiseLinear(np.zeros((2, 0)), np.zeros((2, 0)), np.array([1.0, -2.0]), np.array([0.5, 0.0]))
    assert form.knots.shape == form.slope_changes.shape == (2, 1)
    np.testing.assert_array_equal(form.evaluate(np.array([[3.0, 3.0]])), [[3.5, -6.0]])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: sp.CubicSpline([0.0], [1.0, 1.0], np.zeros((1, 2, 4))), "inverse_step: array.shape = (2,)"),
    (lambda: sp.CubicSpline([0.0], [1.0], np.zeros((1, 2, 3))), "coefficients: array.shape = (1, 2, 3)"),
    (lambda: sp.CubicSpline([0.0], [1.0], np.zeros((1, 0, 4))), "at least one interval"),
    (lambda: sp.CubicSpline([0.0], [0.0], np.zeros((1, 1, 4))), "inverse_step must be positive, got 0.0"),
    (lambda: sp.CubicSpline([np.nan], [1.0], np.zeros((1, 1, 4))), "start: 1 of 1 elements are not finite"),
    (lambda: sp.PiecewiseLinear([[1.0, 0.0]], [[1.0, 1.0]], [0.0], [0.0]), "knots must ascend"),
    (lambda: sp.PiecewiseLinear([[1.0]], [[1.0, 1.0]], [0.0], [0.0]), "slope_changes: array.shape = (1, 2)"),
    (lambda: sp.Polynomial([0.0], [1.0], np.zeros((1, 0))), "at least one coefficient"),
    (lambda: sp.Native("relu", np.ones(2), np.ones(1), np.ones(2), np.ones(2)), "beta: array.shape = (1,)"),
    (lambda: fit_form(sp.fit_constant, make_pair(), [0.0, 1.0], [1.0, 0.0]), "lo > hi for 1 of 2 functions"),
    (lambda: fit_form(sp.fit_line, make_pair(), np.zeros(3), np.ones(3)), "lo: array.shape = (3,)"),
    (lambda: fit_form(fit_uniform, make_pair(), 0.0, 1.0, 0), "intervals = 0"),
    (lambda: fit_form(fit_uniform, make_pair(), 0.0, 1.0, 0, 1), "intervals = 0"),
    (lambda: fit_form(sp.fit_polynomial, make_pair(), 0.0, 1.0, 99), "degree = 99"),
])
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("act", ACTS)
def test_acts_have_their_limits_and_no_warnings(act):
    z = np.array([-np.inf, -1e300, -750.0, 750.0, 1e300, np.inf, np.nan])
    with np.errstate(all="raise", under="ignore"):
        value, slope = sp.ACT_VALUES[act](z), sp.ACT_DERIVATIVES[act](z)
    below = {"leaky_relu": 0.01 * z[:3], "tanh": [-1, -1, -1], "elu": [-1, -1, -1]}.get(act, np.zeros(3))
    above = np.ones(3) if act in ("sigmoid", "tanh") else z[3:6]
    np.testing.assert_allclose(value[:6], [*below, *above], rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(slope[:3], 0.01 if act == "leaky_relu" else 0.0, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(slope[3:6], 0.0 if act in ("sigmoid", "tanh") else 1.0, rtol=1e-15, atol=1e-15)
    assert np.isnan([value[6], slope[6]]).all()


# ---- constants, lines, polynomials ----------------------------------------------------------------------------------


def test_constant_is_the_middle_of_the_range():
    function, lo, hi = make_waves(0)
    form, error = fit_form(sp.fit_constant, function, lo, hi)
    y = function(np.linspace(lo, hi, 1537))
    np.testing.assert_allclose(form.intercept, (y.min(0) + y.max(0)) / 2, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(error, np.ptp(y, axis=0) / 2, rtol=1e-12, atol=1e-12)


def test_affine_is_the_minimax_line():
    function, lo, hi = make_waves(5)
    form, error = fit_form(sp.fit_line, function, lo, hi)
    u = np.linspace(lo, hi, 257)
    y = function(u)
    for i in range(function.n):  # the same as a linear program: minimise e with |y - slope·u - intercept| <= e
        rows = np.stack([u[:, i], np.ones(257), -np.ones(257)], axis=1)
        matrix = np.concatenate([rows, rows * [-1, -1, 1]])
        best = optimize.linprog([0, 0, 1], matrix, np.concatenate([y[:, i], -y[:, i]]), bounds=(None, None))
        # the error is measured on six times as many points: curvature 9 · (4/256)**2 / 8 at most
        assert best.fun - 1e-9 <= error[i] <= best.fun + 3e-4
    found = np.abs(form.evaluate(u) - y).max(axis=0)
    assert (found <= error * (1 + 1e-9)).all()


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_lines_are_recovered(seed):
    function, lo, hi = make_polynomials(seed, 1)
    form, error = fit_form(sp.fit_line, function, lo, hi)
    np.testing.assert_allclose(form.slope, function.derivative(lo), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(form.evaluate(lo), function(lo), rtol=1e-9, atol=1e-9)
    assert (error < 1e-9).all()


@given(seeds, st.integers(0, 7))
@settings(max_examples=30, deadline=None)
def test_polynomials_are_recovered_to_float32(seed, degree):
    function, lo, hi = make_polynomials(seed, degree)
    form, error = fit_form(sp.fit_polynomial, function, lo, hi, degree)
    # each of at most 8 coefficients is rounded, and so are center and half-width, which the inner slopes multiply
    size = np.abs(function.form.coefficients).sum(axis=1) + 1
    assert (error <= 20 * EPS32 * size * (1 + np.abs(function.form.center * function.form.inverse_half_width))).all()
    assert form.degree == degree


@pytest.mark.parametrize("degree", [2, 3, 5, 7])
def test_polynomial_is_near_the_minimax_polynomial(degree):
    function, lo, hi = make_waves(6, n=4)
    form, error = fit_form(sp.fit_polynomial, function, lo, hi, degree)
    u = np.linspace(lo, hi, 257)
    y = function(u)
    for i in range(function.n):
        x = np.linspace(-1, 1, 257)
        rows = np.concatenate([np.polynomial.chebyshev.chebvander(x, degree), -np.ones((257, 1))], axis=1)
        matrix = np.concatenate([rows, rows * ([-1] * (degree + 1) + [1])])
        target = np.concatenate([y[:, i], -y[:, i]])
        best = optimize.linprog([0] * (degree + 1) + [1], matrix, target, bounds=(None, None))
        assert best.fun * 0.999 - 1e-9 <= error[i] <= 3.2 * best.fun + 20 * EPS32
    assert (form.coefficients == form.coefficients.astype(np.float32)).all()


# ---- cubic splines --------------------------------------------------------------------------------------------------


@given(seeds, st.sampled_from([1, 2, 3, 5, 16, 64]))
@settings(max_examples=30, deadline=None)
def test_spline_is_twice_continuous_at_every_knot(seed, intervals):
    function, lo, hi = make_waves(seed)
    form, _ = fit_form(fit_uniform, function, lo, hi, intervals)
    c = form.coefficients
    for parameter in (form.start, form.inverse_step, c):
        assert (parameter == parameter.astype(np.float32)).all()
    left, right = c[:, :-1], c[:, 1:]
    jumps = (
        left.sum(axis=2) - right[..., 0],
        left @ np.array([0.0, 1, 2, 3]) - right[..., 1],
        left @ np.array([0.0, 0, 2, 6]) - 2 * right[..., 2],
    )
    for order, jump in enumerate(jumps):
        # each coefficient was rounded to float32, and enters the derivative with a factor of at most 6
        rounding = 8 * EPS32 * np.abs(c[..., order:]).sum(axis=2).max(axis=1, initial=0)
        assert (np.abs(jump) <= rounding[:, None] + 1e-15).all(), order


@given(seeds, st.sampled_from([1, 2, 7, 64]))
@settings(max_examples=30, deadline=None)
def test_spline_is_exact_on_cubics(seed, intervals):
    function, lo, hi = make_polynomials(seed, 3)
    form, error = fit_form(fit_uniform, function, lo, hi, intervals)
    size = np.abs(function.form.coefficients).sum(axis=1)
    assert (error <= 20 * EPS32 * size * (1 + np.abs(function.form.center * function.form.inverse_half_width))).all()
    np.testing.assert_allclose(
        form.derivative(np.stack([lo, hi])), function.derivative(np.stack([lo, hi])),
        rtol=1e-4, atol=1e-5 * intervals * size.max(),  # rounding of the coefficients times the inverse step
    )


def test_spline_is_scipys_clamped_spline():
    function, lo, hi = make_waves(8, n=3)
    form, _ = fit_form(fit_uniform, function, lo, hi, 9)
    u = np.linspace(lo, hi, 100)
    for i in range(3):
        one = function.select(np.array([i]))
        knots = np.linspace(lo[i], hi[i], 10)[:, None]
        ends = [(1, one.derivative(knots[[k]])[0, 0]) for k in (0, 9)]
        reference = interpolate.CubicSpline(knots[:, 0], one(knots)[:, 0], bc_type=ends)
        # knots and coefficients rounded to float32, values of size 1, slopes up to 3
        np.testing.assert_allclose(form.evaluate(u)[:, i], reference(u[:, i]), rtol=0, atol=2e-6)


def test_spline_converges_with_order_four():
    function, lo, hi = make_waves(9)
    errors = np.array([fit_form(fit_uniform, function, lo, hi, k)[1] for k in (8, 16, 32)])
    order = np.log2(errors[:-1] / errors[1:])
    above_rounding = errors[1:] > 1e-5
    assert above_rounding.sum() > 5
    np.testing.assert_allclose(order[above_rounding], 4, rtol=0, atol=0.4)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 300))
def test_lines_join_the_values_at_the_knots(seed, intervals):
    function, lo, hi = make_waves(seed)
    form, error = fit_form(fit_uniform, function, lo, hi, intervals, 1)
    assert form.coefficients.shape == (12, intervals, 4)
    assert not form.coefficients[..., 2:].any()
    knots = form.start + np.arange(intervals)[:, None] / form.inverse_step
    values = function(knots)
    # Values and slopes are rounded to float32, 6e-8 of each.
    np.testing.assert_allclose(form.coefficients[..., 0].T, values, rtol=1.2e-7, atol=1e-12)
    ends = form.coefficients[..., 0] + form.coefficients[..., 1]
    np.testing.assert_allclose(ends[:, :-1], form.coefficients[:, 1:, 0], rtol=0, atol=2.4e-7 * np.abs(values).max() + 1e-12)
    # The error of a chord over h is at most h^2 / 8 times the largest second derivative.
    assert np.all(error <= function.frequency**2 / form.inverse_step**2 / 8 + 1e-6)


def test_the_stated_error_holds_between_the_grid_points():
    function, lo, hi = make_waves(10)
    for k in sp.INTERVALS:
        form, error = fit_form(fit_uniform, function, lo, hi, k)
        fine = sp.max_abs_error(function, form, lo, hi, points=20_001)
        assert (fine <= 1.01 * error + 4 * EPS32).all(), k


# ---- native ---------------------------------------------------------------------------------------------------------


def fit_native(function, lo, hi, act):
    """The fit, and its largest errors with the rounding."""
    target = sp.make_target(function, lo, hi)
    form, rounding = sp.fit_native(target, act)
    return form, target.measure(form)[0] + rounding


def make_native(act, seed, n=64):
    """Random parameters with the knee or center in the domain; |beta|·width from 0.2 to 30."""
    rng = np.random.default_rng(seed)
    lo, width = rng.uniform(-10, 5, n), np.exp(rng.uniform(-1, 2.5, n))
    beta = rng.choice([-1, 1], n) * np.exp(rng.uniform(np.log(0.2), np.log(30), n)) / width
    alpha = rng.choice([-1, 1], n) * np.exp(rng.uniform(-2, 2, n))
    center = lo + width * rng.uniform(0.03, 0.97, n)
    return sp.Native(act, alpha, beta, -beta * center, rng.standard_normal(n)), lo, lo + width


@pytest.mark.parametrize("act", ACTS)
def test_native_parameters_are_recovered(act):
    true, lo, hi = make_native(act, 11)
    fit, error = fit_native(Functions(true), lo, hi, act)
    spread = np.ptp(true.evaluate(np.linspace(lo, hi, 200)), axis=0)
    exact = sp.max_abs_error(Functions(true), fit, lo, hi)
    assert (exact <= 1e-9 * spread).all()
    assert (exact <= error).all()
    assert (error <= 1e-5 * spread).all()  # it includes the float32 rounding of an alpha up to 20 times the spread
    if act in ("relu", "leaky_relu"):
        scale, alpha = np.abs(true.beta), true.alpha * np.abs(true.beta)
        beta, delta = true.beta / scale, true.delta / scale
    else:
        sign = np.sign(true.beta) if act in ("sigmoid", "tanh") else np.ones(true.n)
        alpha, beta, delta = true.alpha * sign, true.beta * sign, true.delta * sign
    # the argument beta·u + delta to 1e-6 of its range; at beta·width = 0.2 the parameters are ill-conditioned
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-6, atol=0)
    np.testing.assert_allclose(fit.alpha, alpha, rtol=1e-6, atol=0)
    np.testing.assert_allclose(fit.beta * lo + fit.delta, beta * lo + delta, rtol=1e-6, atol=1e-6)


def test_native_fit_of_another_function_states_its_error():
    function, lo, hi = make_waves(12)
    for act in ACTS:
        fit, error = fit_native(function, lo, hi, act)
        measured = sp.max_abs_error(function, fit, lo, hi, points=513)
        assert (measured <= error).all()
        _, constant = fit_form(sp.fit_constant, function, lo, hi)
        assert (measured <= 2 * constant + 1e-3).all(), act  # no worse than the mean, which is one of the fits


def test_a_huge_alpha_is_charged_for_its_rounding():
    line = Functions(sp.Polynomial(np.zeros(1), np.ones(1), np.array([[0.0, 1.0]])))
    fit, error = fit_native(line, -1.0, 1.0, "tanh")
    assert fit.alpha > 10
    assert error >= fit.alpha * 2.0**-23


# ---- all fits -------------------------------------------------------------------------------------------------------


FITS = {
    "cubic": lambda f, lo, hi: fit_form(fit_uniform, f, lo, hi, 4),
    "linear": lambda f, lo, hi: fit_form(fit_uniform, f, lo, hi, 4, 1),
    "polynomial": lambda f, lo, hi: fit_form(sp.fit_polynomial, f, lo, hi, 3),
    "tanh": lambda f, lo, hi: fit_native(f, lo, hi, "tanh"),
    "relu": lambda f, lo, hi: fit_native(f, lo, hi, "relu"),
    "pieces": lambda f, lo, hi: fit_pieces(f, lo, hi),
}


def fit_pieces(function, lo, hi):
    target = sp.make_target(function, lo, hi)
    lines = sp.make_polylines(target, np.broadcast_to((np.arange(1537) % 48 == 0)[:, None], target.u.shape), 6)
    form = sp.fit_polylines(lines, 4)
    return form, target.measure(form)[0]


def make_histogram(lo, hi, seed=0, bins=64, rows=4000):
    """Samples of a narrow distribution inside the domains, and their histogram."""
    rng = np.random.default_rng(seed)
    x = np.clip(lo + (hi - lo) * (rng.uniform(0.3, 0.7, len(lo)) + 0.08 * rng.standard_normal((rows, len(lo)))), lo, hi)
    observed = np.stack([x.min(0), x.max(0)], 1)
    counts = np.stack([np.histogram(column, bins, ends)[0] for column, ends in zip(x.T, observed, strict=True)])
    return sp.Histogram(counts, observed), x


@given(seeds, st.integers(2, 60))
@settings(max_examples=30, deadline=None)
def test_weights_are_those_of_the_histogram(seed, points):
    function, lo, hi = make_waves(seed)
    histogram, x = make_histogram(lo, hi, seed)
    target = sp.make_target(function, lo, hi, histogram, points, extra=x[:3])
    assert target.u.shape == (points + 3, function.n)
    np.testing.assert_allclose(target.weights.sum(0), 1, rtol=1e-12, atol=0)
    assert (target.weights >= 0).all()
    # The mean of u: each point stands for its cell, so it is off by half a cell at most; bins are 1/64 of the range wide.
    mean = 0.95 * x.mean(0) + 0.05 * (lo + hi) / 2
    cell = (hi - lo).max() * (0.5 / (points - 1) + 1 / 64)
    np.testing.assert_allclose((target.weights * target.u).sum(0), mean, rtol=0, atol=cell)
    even = sp.make_target(function, lo, hi, points=points)
    np.testing.assert_allclose(even.weights[1:-1], 1 / (points - 1), rtol=1e-9, atol=0)
    nothing = sp.Histogram(np.zeros_like(histogram.counts), histogram.observed)
    np.testing.assert_allclose(sp.make_target(function, lo, hi, nothing, points).weights, even.weights, rtol=1e-9, atol=0)


def test_counts_are_even_within_a_bin():
    histogram = sp.Histogram(np.array([[1, 3]]), np.array([[0.0, 2.0]]))
    below = histogram.accumulate(np.array([[-1.0], [0.5], [1.0], [1.5], [9.0]]))
    np.testing.assert_allclose(below[:, 0], [0, 0.125, 0.25, 0.625, 1], rtol=1e-15, atol=0)


def test_a_histogram_of_one_value_lies_at_its_point():
    function, lo, hi = make_waves(3, n=2)
    counts, observed = np.zeros((2, 8), np.int64), np.repeat((lo / 2 + hi / 2)[:, None], 2, 1)
    counts[:, 0] = 7
    weights = sp.make_target(function, lo, hi, sp.Histogram(counts, observed), 101).weights
    assert (weights.argmax(0) == 50).all()
    assert (weights[50] > 0.95).all()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: sp.Histogram(np.zeros((2, 3), np.int64), np.zeros((3, 2))), "counts (N, bins) and observed (N, 2)"),
    (lambda: sp.Histogram(np.full((1, 3), -1), np.zeros((1, 2))), "not negative"),
    (lambda: sp.Histogram(np.zeros((1, 3), np.int64), np.array([[1.0, 0.0]])), "do not descend"),
    (lambda: sp.make_target(make_pair(), 0.0, 1.0, make_histogram(np.zeros(3), np.ones(3))[0]), "of 3 functions was given for 2"),
])
def test_wrong_histograms_are_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_with_a_histogram_constants_and_lines_have_the_least_mean_square():
    function, lo, hi = make_waves(4)
    target = sp.make_target(function, lo, hi, make_histogram(lo, hi)[0])
    line, constant = sp.fit_line(target), sp.fit_constant(target)
    for i in range(function.n):
        slope, intercept = np.polyfit(target.u[:, i], target.values[:, i], 1, w=np.sqrt(target.weights[:, i]))
        np.testing.assert_allclose([line.slope[i], line.intercept[i]], [slope, intercept], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(constant.intercept, (target.weights * target.values).sum(0), rtol=1e-12, atol=1e-12)
    largest, mean = target.measure(line)
    difference = line.evaluate(target.u) - target.values
    np.testing.assert_allclose(mean, np.sqrt((target.weights * difference**2).sum(0)), rtol=1e-12, atol=0)
    np.testing.assert_allclose(largest, np.abs(difference).max(0), rtol=1e-12, atol=0)
    assert (mean < largest).all()


def test_with_a_histogram_fits_are_closer_where_the_functions_are_used():
    function, lo, hi = make_waves(5)
    histogram, x = make_histogram(lo, hi)
    even, weighted = sp.make_target(function, lo, hi), sp.make_target(function, lo, hi, histogram)

    def rms(form):
        return np.sqrt(np.square(form.evaluate(x) - function(x)).mean(0))

    fits = [lambda t: sp.fit_polynomial(t, 3), *(lambda t, act=act: sp.fit_native(t, act)[0] for act in ACTS)]
    for fit in fits:
        better = rms(fit(weighted)) / rms(fit(even))
        # What counts includes the even share; on the samples alone a fit may be a little worse where both are good.
        assert np.median(better) < 0.8
        assert (rms(fit(weighted)) <= 1.1 * rms(fit(even)) + 1e-4).all()


def fit_dense(target, i, lo, hi, intervals, degree):
    """Function i's weighted least-squares spline from `lo` to `hi`, continued by lines, at the target's points: SciPy and lstsq."""
    ends = np.zeros(degree), np.arange(intervals + 1.0), np.full(degree, float(intervals))
    basis = interpolate.BSpline(np.concatenate(ends), np.eye(intervals + degree), degree)
    s = (target.u[:, i] - lo) / (hi - lo) * intervals
    inside = np.clip(s, 0, intervals)
    design = basis(inside) + (s - inside)[:, None] * basis.derivative()(inside)
    root = np.sqrt(target.weights[:, i])
    return design @ np.linalg.lstsq(design * root[:, None], target.values[:, i] * root, rcond=None)[0]


@pytest.mark.parametrize("degree", [1, 3])
@pytest.mark.parametrize("intervals", [1, 2, 5, 24, 63])
@pytest.mark.parametrize("part", [1.0, 0.6])
def test_with_a_histogram_splines_are_least_squares(degree, intervals, part):
    function, lo, hi = make_waves(7, n=5)
    target = sp.make_target(function, lo, hi, make_histogram(lo, hi)[0], 513)
    first, last = (1 - part) * 0.4 * (hi - lo) + lo, hi - (1 - part) * 0.6 * (hi - lo)
    form = sp.fit_spline(target, sp.span_knots(first, last, intervals), degree)
    for i in range(function.n):
        reference = fit_dense(target, i, first[i], last[i], intervals, degree)
        # Knots and coefficients are rounded to float32; and where weights hardly decide, roughness does.
        error = np.sqrt((target.weights[:, i] * (reference - target.values[:, i])**2).sum())
        np.testing.assert_allclose(form.evaluate(target.u)[:, i], reference, rtol=0,
                                   atol=4e-6 * max(1, np.abs(reference).max()) + 1e-3 * error)
        assert target.measure(form)[1][i] <= error * (1 + 1e-6) + 1e-6
    assert (form.coefficients[..., degree + 1:] == 0).all()


@pytest.mark.parametrize("degree", [1, 3])
def test_a_domain_of_one_point_is_interpolated(degree):
    function, lo, hi = make_waves(7, n=5)
    hi[2:] = lo[2:]
    target = sp.make_target(function, lo, hi, make_histogram(lo, hi)[0], 513)
    form, = sp.place_splines(target, [4], degree)
    np.testing.assert_allclose(form.evaluate(lo[None])[:, 2:], function(lo[None])[:, 2:], rtol=0, atol=1e-5)
    assert (target.measure(form)[1][:2] < 0.5).all()


class Steps:
    """tanh in the middle of wide domains, with a slope beside it: lines at both ends."""

    def __init__(self, scale):
        self.scale, self.n = scale, len(scale)

    def __call__(self, u):
        return np.tanh(self.scale * u) + 0.1 * u

    def derivative(self, u):
        return self.scale / np.cosh(self.scale * u)**2 + 0.1

    def select(self, indices):
        return Steps(self.scale[indices])


def test_weights_are_not_negative_where_a_domain_is_a_point():
    point = np.random.default_rng(0).standard_normal(50) * 3
    counts = np.full((50, 4), 5)
    target = sp.make_target(Powers(np.full(50, 2.0)), point, point, sp.Histogram(counts, np.stack([point, point], 1)), 513)
    assert (target.weights >= 0).all()
    np.testing.assert_allclose(target.weights.sum(0), 1, rtol=1e-12, atol=0)


@pytest.mark.parametrize("degree", [1, 3])
def test_knots_go_where_a_function_is_no_line(degree):
    """With the same number of intervals nearly as good as the best of many spans, and much better than end to end.

    Of spans in which an interval has 4.5 of the 513 points: with fewer the errors are not what they seem.
    """
    function = Steps(np.array([2.0, 5.0, 1.0, 9.0]))
    lo, hi = np.array([-4.0, -1.0, -9.0, -3.0]), np.array([4.0, 7.0, 3.0, 2.0])
    target = sp.make_target(function, lo, hi, make_histogram(lo, hi, seed=2)[0], 513)
    for form in sp.place_splines(target, (2, 6, 12, 31), degree)[1:]:
        placed, knots = target.measure(form)[1], form.knots
        spanned = target.measure(sp.fit_spline(target, sp.span_knots(lo, hi, knots.intervals), degree))[1]
        assert (knots.positions[0] >= lo - 1e-5).all()
        assert (knots.positions[-1] <= hi + 1e-5).all()
        assert (placed <= spanned).all()
        assert np.median(spanned / placed) > 2
        for i in range(function.n):
            narrowest = form.intervals * 4.5 / 512 * (hi[i] - lo[i])
            fits = (fit_dense(target, i, a, b, knots.intervals, degree)
                    for a in np.linspace(lo[i], lo[i] + 0.7 * (hi[i] - lo[i]), 12)
                    for b in np.linspace(hi[i] - 0.7 * (hi[i] - lo[i]), hi[i], 12) if b - a > narrowest)
            best = min(np.sqrt((target.weights[:, i] * (fit - target.values[:, i])**2).sum()) for fit in fits)
            assert placed[i] <= 1.6 * best + 1e-7, (i, knots.intervals)


class Powers:
    """|u|^power."""

    def __init__(self, power):
        self.power = power
        self.n = len(power)

    def __call__(self, u):
        return np.abs(u)**self.power

    def derivative(self, u):
        return self.power * np.abs(u)**(self.power - 1) * np.sign(u)

    def select(self, indices):
        return Powers(self.power[indices])


@pytest.mark.parametrize("degree", [1, 3])
def test_placed_knots_are_never_worse_than_those_from_end_to_end(degree):
    function = Powers(np.linspace(1.2, 4, 20))
    lo, hi = np.random.default_rng(9).uniform([[-6], [1]], [[-1], [6]], (2, 20))
    target = sp.make_target(function, lo, hi, make_histogram(lo, hi, seed=3)[0], 513)
    for form in sp.place_splines(target, sp.INTERVALS, degree):
        spanned = sp.fit_spline(target, sp.span_knots(lo, hi, form.intervals), degree)
        assert (target.measure(form)[1] <= 1.001 * target.measure(spanned)[1] + 1e-6).all(), form.intervals


def test_knots_span_the_domain_where_nothing_is_known_of_it():
    function, lo, hi = make_waves(5)
    for form in sp.place_splines(sp.make_target(function, lo, hi), (1, 8), 3):
        np.testing.assert_allclose(form.knots.positions[[0, -1]], [lo, hi], rtol=1e-6, atol=1e-6)


def make_outliers(n, reach, rows=4000, seed=0):
    """Domains and histograms of normal samples with one far off, and the samples."""
    x = np.random.default_rng(seed).standard_normal((rows, n))
    x[0] = reach
    observed = np.stack([x.min(0), x.max(0)], 1)
    counts = np.stack([np.histogram(column, 64, ends)[0] for column, ends in zip(x.T, observed, strict=True)])
    margin = 0.05 * np.diff(observed, axis=1)[:, 0]
    return observed[:, 0] - margin, observed[:, 1] + margin, sp.Histogram(counts, observed), x


@pytest.mark.parametrize("degree", [1, 3])
@pytest.mark.parametrize("reach", [10.0, 1e3, 1e6])
def test_long_tails_are_fitted_exactly(degree, reach):
    function = Steps(np.array([1.0, 3.0, 0.3]))
    lo, hi, histogram, _ = make_outliers(3, reach)
    target = sp.make_target(function, lo, hi, histogram, 513, histogram.core(513))
    for intervals in (1, 2, 3, 5, 6, 31, 256):
        first, last = np.full(3, -1.7), np.array([2.2, 1.1, 2.0])
        form = sp.fit_spline(target, sp.span_knots(first, last, intervals), degree)
        found = target.measure(form)[1]
        for i in range(3):
            reference = fit_dense(target, i, first[i], last[i], intervals, degree)
            least = np.sqrt((target.weights[:, i] * (reference - target.values[:, i])**2).sum())
            # Numbers are as large as 0.1 reach.
            assert found[i] <= 1.02 * least + 2e-8 * reach + 1e-6, (i, intervals)
    for form in sp.place_splines(target, sp.INTERVALS, degree):
        assert np.isfinite(form.knots.positions).all()


@pytest.mark.parametrize("degree", [1, 3])
def test_errors_hold_between_the_points_and_fall_with_more_intervals(degree):
    function = Steps(np.array([0.5, 3.0, 10.0, 30.0]))
    lo, hi, histogram, x = make_outliers(4, 4.0)
    target = sp.make_target(function, lo, hi, histogram, 1537, histogram.core(1537))
    even, last = np.linspace(lo, hi, 20001), np.full(4, np.inf)
    for form in sp.place_splines(target, sp.INTERVALS, degree):
        largest, rms = target.measure(form)
        difference, dense = (np.abs(form.evaluate(u) - function(u)) for u in (x, even))
        true = np.sqrt(0.95 * np.square(difference).mean(0) + 0.05 * np.square(dense).mean(0))
        assert (true <= 1.25 * rms + 1e-6).all(), form.intervals      # counts are even within a bin
        # Of an interval's arcs three points see a part.
        assert (dense.max(0) <= 2 * largest + 1e-6).all(), form.intervals
        assert (rms <= 1.5 * last + 1e-6).all(), form.intervals        # knots from end to end are kept where little is lost
        last = rms


def test_functions_are_placed_by_themselves():
    """In blocks, of which some have nothing to place, and in any selection."""
    scale = np.tile([1.0, 2.0, 5.0], 300)
    lo, hi, histogram, _ = make_outliers(900, 5.0, rows=300)
    lo[450:] = hi[450:]
    target = sp.make_target(Steps(scale), lo, hi, histogram, 513, histogram.core(513))
    some = np.array([3, 449, 450, 899])
    part = sp.make_target(Steps(scale[some]), lo[some], hi[some], histogram.select(some), 513, histogram.select(some).core(513))
    for form, alone in zip(sp.place_splines(target, (6, 15, 31), 3), sp.place_splines(part, (6, 15, 31), 3), strict=True):
        again = sp.fit_spline(part, form.knots.select(some), 3)
        for other in (alone, again):
            np.testing.assert_allclose(other.knots.positions, form.knots.select(some).positions, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(other.coefficients, form.coefficients[some], rtol=1e-5, atol=1e-6)


def test_between_sparse_points_a_spline_is_smooth():
    """Nearly all points lie in a hundredth of the domain, and there are fewer of them than intervals."""
    function, lo, hi = Steps(np.array([1.0])), np.array([-50.0]), np.array([50.0])
    counts = np.zeros((1, 100), np.int64)
    counts[0, 50] = 1000
    histogram = sp.Histogram(counts, np.array([[-50.0, 50.0]]))
    target = sp.make_target(function, lo, hi, histogram, 33, histogram.core(64))
    form = sp.fit_spline(target, sp.span_knots(np.array([-8.0]), np.array([8.0]), 256), 3)
    u = np.linspace(-8, 8, 5001)[:, None]
    assert np.abs(form.evaluate(u) - function(u)).max() < 1.2       # between points 3 apart nothing is known of a step
    u = np.linspace(0, 1, 1001)[:, None]
    assert np.abs(form.evaluate(u) - function(u)).max() < 2e-5


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_the_core_has_nearly_all_samples(seed):
    _, lo, hi = make_waves(seed)
    histogram, x = make_histogram(lo, hi, seed)
    core, expected = histogram.core(9), np.quantile(x, (0.005, 0.995), axis=0)
    assert (np.abs(core[[0, -1]] - expected) <= 1.2 * np.diff(histogram.observed, axis=1)[:, 0] / 64).all()
    np.testing.assert_allclose(np.diff(core, n=2, axis=0), 0, rtol=0, atol=1e-12)
    nothing, width = sp.Histogram(np.zeros_like(histogram.counts), histogram.observed), np.diff(histogram.observed, axis=1)[:, 0]
    ends = histogram.observed.T + np.outer((0.005, -0.005), width)
    np.testing.assert_allclose(nothing.core(3)[[0, -1]], ends, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("act", ACTS)
def test_with_a_histogram_natives_and_polynomials_are_recovered(act):
    true, lo, hi = make_native(act, 11)
    target = sp.make_target(Functions(true), lo, hi, make_histogram(lo, hi)[0])
    fit, _ = sp.fit_native(target, act)
    spread = np.ptp(true.evaluate(np.linspace(lo, hi, 200)), axis=0)
    found = target.measure(fit)[0] <= 1e-6 * spread
    # A knee where nothing is given has 5 % of the weight: a few of these may end in another minimum.
    assert found.mean() > 0.9
    line, lo, hi = make_polynomials(3, 4)
    polynomial = sp.fit_polynomial(sp.make_target(line, lo, hi, make_histogram(lo, hi)[0]), 4)
    np.testing.assert_allclose(polynomial.coefficients, line.form.coefficients, rtol=1e-4, atol=1e-4)


def make_lines(seed, n=9, knots=12):
    """Piecewise-linear functions with knots inside and outside of their domains, sampled with all knots."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.uniform(-3, 3, (n, knots)), 1)
    form = sp.PiecewiseLinear(at, rng.standard_normal((n, knots)), *rng.standard_normal((2, n)))
    return form, np.full(n, -2.0), rng.uniform(0, 2, n)


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(1, 15), st.booleans())
def test_few_knots_are_as_good_as_least_squares_or_minimax(seed, knots, is_mean):
    form, lo, hi = make_lines(seed, 3)
    target = sp.make_target(Functions(form), lo, hi, make_histogram(lo, hi)[0] if is_mean else None, 65, form.knots.T)
    lines = sp.make_polylines(target, (target.u[:, :, None] == form.knots).any(2))
    reduced = sp.fit_polylines(lines, knots)
    inside = (form.knots > lo[:, None]) & (form.knots < hi[:, None])
    assert lines.most == inside.sum(1).max()
    assert ((reduced.slope_changes != 0).sum(1) <= np.minimum(knots, inside.sum(1))).all()
    largest, mean = target.measure(reduced)
    dense = np.linspace(lo, hi, 3001)
    measured = np.abs(reduced.evaluate(dense) - form.evaluate(dense)).max(0)
    assert (measured <= largest + 1e-9).all()       # both have their knots among the points, so nothing peaks between
    if knots >= lines.most:
        np.testing.assert_allclose(largest, 0, rtol=0, atol=1e-9)
    for i in range(form.n):
        at = np.unique(np.concatenate([[lo[i]], reduced.knots[i][reduced.slope_changes[i] != 0], [hi[i]]]))
        u, y, w = target.u[:, i], target.values[:, i], target.weights[:, i]
        hats = np.stack([np.interp(u, at, row) for row in np.eye(len(at))], 1)
        if is_mean:
            root = np.sqrt(w)[:, None]
            rest = y - hats @ np.linalg.lstsq(hats * root, y * root[:, 0], rcond=None)[0]
            assert mean[i] <= 1.001 * np.sqrt((w * rest**2).sum()) + 1e-6
        else:
            ones = np.ones((len(u), 1))
            best = optimize.linprog([0] * len(at) + [1], np.block([[hats, -ones], [-hats, -ones]]), np.concatenate([y, -y]),
                                    bounds=(None, None))
            assert largest[i] <= 1.6 * best.fun + 1e-6       # a few rounds of Lawson's algorithm


def test_knots_that_do_least_harm_go_first():
    x = np.array([[-1.0, 0.0, 0.001, 0.7, 2.5]])
    form = sp.PiecewiseLinear(x, np.array([[5.0, 2.0, -1.0, 1e-3, 4.0]]), np.zeros(1), np.zeros(1))
    target = sp.make_target(Functions(form), np.array([-0.5]), np.array([2.0]), points=33, extra=form.knots.T)
    lines = sp.make_polylines(target, (target.u[:, :, None] == form.knots).any(2))
    assert lines.most == 3      # those within the domain
    assert sorted(lines.x[lines.rank > 0].tolist()) == [0.0, 0.001, 0.7]
    one = sp.fit_polylines(lines, 1)
    assert one.knots[0, 0] in (0.0, 0.001)
    np.testing.assert_allclose(one.slope_changes[0, 0], 1.0, rtol=0, atol=0.01)
    assert lines.select(np.array([0, 0])).rank.shape[0] == 2


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
@pytest.mark.parametrize("point", [0.0, 1.0, -1e-7, 250.0])
def test_a_domain_may_be_one_point(fit, point):
    function = make_waves(13)[0]
    form, error = fit(function, point, point)
    u = np.full((1, function.n), point)
    # float32 resolves 250 to 1.5e-5, times the largest frequency; a kink may sit anywhere in the widened domain
    np.testing.assert_allclose(form.evaluate(u), function(u), rtol=0, atol=1e-6 + 3e-5 * abs(point))
    assert (error <= 1e-6 + 3e-5 * abs(point)).all()
    line, affine_error = fit_form(sp.fit_line, function, point, point)
    np.testing.assert_allclose(line.evaluate(u), function(u), rtol=0, atol=1e-9)
    np.testing.assert_allclose([affine_error, fit_form(sp.fit_constant, function, point, point)[1]], 0, rtol=0, atol=1e-12)


@dataclass
class Broken(Waves):
    """The first function is NaN above 0, the second overflows."""

    def __call__(self, u):
        y = super().__call__(u)
        y[:, 0] = np.where(u[:, 0] > 0, np.nan, y[:, 0])
        y[:, 1] = np.exp(1e4 * u[:, 1])
        return y

    def select(self, indices):
        return self if len(indices) == self.n else Waves.select(self, indices)


def test_functions_that_are_not_finite_have_infinite_error():
    function = Broken(np.ones(3), np.zeros(3))
    errors = [fit(function, -1.0, 1.0)[1] for fit in FITS.values()]
    errors += [fit_form(sp.fit_line, function, -1.0, 1.0)[1], fit_form(sp.fit_constant, function, -1.0, 1.0)[1]]
    for error in errors:
        assert np.isinf(error[:2]).all()
        assert np.isfinite(error[2])


def test_error_of_many_neurons_is_measured_in_blocks():
    n = 700  # more than one block of the default grid
    rng = np.random.default_rng(14)
    function = Waves(rng.uniform(1, 2, n), rng.uniform(0, 6, n))
    form, error = fit_form(fit_uniform, function, -1.0, 1.0, 3)
    u = np.linspace(-np.ones(n), np.ones(n), 1537)
    np.testing.assert_allclose(error, np.abs(form.evaluate(u) - function(u)).max(axis=0), rtol=1e-9, atol=1e-15)


def test_no_functions_at_all():
    function = make_waves(15)[0].select(np.arange(0))
    for fit in FITS.values():
        form, error = fit(function, np.zeros(0), np.ones(0))
        assert form.n == 0
        assert error.shape == (0,)
