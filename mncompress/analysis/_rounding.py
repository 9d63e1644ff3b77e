"""Upper bounds of the rounding error of float32 (or float64) evaluation, from running error analysis.

With the unit roundoff eps = 2**-24, a dot product of n terms is off by at most gamma(n) = n eps / (1 - n eps) times the
sum of the terms' magnitudes, in any order of summation (Higham, Accuracy and Stability of Numerical Algorithms, 2002,
chapter 3, doi:10.1137/1.9780898718027). Parameters are float64 here, and their rounding to float32 counts.

Assumptions, not proven here: pre-activations are given exactly; nothing overflows or underflows; tanh, sigmoid, erf,
exp and log1p are accurate to 4 units in the last place or, in float32, to 5e-7 absolute, whichever is larger, since
runtimes use rational approximations with absolute errors of that order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mncompress.analysis._inner import ACTIVATED, Array, End, InnerNetworks, Interval, from_native
from mncompress.analysis._jets import EXTREMA, magnitude, range_from
from mncompress.spline import ACT_DERIVATIVES, ACT_VALUES, CubicSpline, Native, PiecewiseLinear, Polynomial
from mncompress.types import Act

CELLS = 32
"""Cells of the domain on which an inner network's error is bounded separately."""

AnyForm = CubicSpline | PiecewiseLinear | Polynomial | Native | InnerNetworks


@dataclass(frozen=True)
class Precision:
    """A floating-point arithmetic."""

    unit: float
    """Unit roundoff."""
    elementary: float
    """Absolute error that elementary functions may have where it exceeds 4 units in the last place."""

    def gamma(self, n: int) -> float:
        """Relative error of n successive roundings."""
        return n * self.unit / (1 - n * self.unit)

    def elementary_error(self, size: Array | float) -> Array:
        """Error of an elementary function with values up to `size`; a unit in the last place is at most 2 eps."""
        return np.maximum(8 * self.unit * np.asarray(size), self.elementary)


FLOAT32 = Precision(2.0**-24, 5e-7)
FLOAT64 = Precision(2.0**-53, 0.0)


def bound_rounding(inner: InnerNetworks, lo: ArrayLike, hi: ArrayLike, precision: Precision = FLOAT32) -> Array:
    """Upper bound of the rounding error of inner networks for u in [lo, hi], (N,).

    Args:
        inner: N inner networks.
        lo: lower ends of the domains, (N,) or a scalar.
        hi: upper ends, likewise.
        precision: float32 unless told.
    """
    low, high = (np.broadcast_to(np.asarray(end, np.float64), (inner.n,))[:, None, None] for end in (lo, hi))
    edges = low + (high - low) * np.linspace(0, 1, CELLS + 1)
    a: Interval = edges[..., :-1], edges[..., 1:]
    error = np.zeros_like(a[0])
    a, error = _activate(inner.act, a, error, precision, inner.ends[0])
    z, error = _combine(inner.first_weight[:, :, None], inner.biases[0], a, error, precision)
    h, error = _activate(inner.act, z, error, precision)
    for weight, bias in zip(inner.weights, inner.biases[1:], strict=True):
        z, z_error = _combine(weight, bias, h, error, precision)
        g, g_error = _activate(inner.act, z, z_error, precision)
        h, error = (g[0] + h[0], g[1] + h[1]), error + g_error
        error = error + precision.unit * (magnitude(h) + error)
    y, error = _combine(inner.out_weight[:, None, :], inner.out_bias[:, None], h, error, precision)
    y, error = _activate(inner.act, y, error, precision, inner.ends[1])
    return error.max((1, 2))  # type: ignore[no-any-return]


def find_jumps(form: AnyForm) -> Array:
    """By how much forms jump at each of their knots, (N, knots): splines may, by the rounding of their coefficients.

    Where s rounds across a knot, the neighboring interval answers: its value there may differ by the jump.
    """
    if not isinstance(form, CubicSpline):
        return np.zeros((form.n, 0))
    return np.asarray(np.abs(form.coefficients[:, :-1].sum(2) - form.coefficients[:, 1:, 0]))


def bound_arithmetic(form: AnyForm, lo: ArrayLike, hi: ArrayLike, precision: Precision) -> Array:
    """Upper bound of the rounding error of forms, evaluated by the formulas of `mncompress.spline`, for u in [lo, hi], (N,).

    Without what splines jump where s rounds across a knot: see `find_jumps`.

    Args:
        form: N forms.
        lo: lower ends of the domains, (N,) or a scalar.
        hi: upper ends, likewise.
        precision: of the evaluation.
    """
    if isinstance(form, InnerNetworks):
        return bound_rounding(form, lo, hi, precision)
    if isinstance(form, Native):
        return bound_rounding(from_native(form), lo, hi, precision)
    ends = np.stack([np.broadcast_to(np.asarray(end, np.float64), (form.n,)) for end in (lo, hi)])
    if isinstance(form, PiecewiseLinear):
        return _piecewise_linear_error(form, ends, precision)
    if isinstance(form, CubicSpline):
        s = (ends - form.start) * form.inverse_step
        outside = np.maximum(np.maximum(-s[0], s[1] - form.intervals), 0.0)
        return _power_error(form.coefficients, outside, s, form.inverse_step * np.abs(form.start), precision)
    x = (ends - form.center) * form.inverse_half_width
    outside = np.maximum(np.abs(x).max(0) - 1, 0.0)
    return _power_error(form.coefficients[:, None], outside, x, np.abs(form.inverse_half_width * form.center),
                        precision)


def _activate(act: Act, z: Interval, error: Array, precision: Precision, end: End = ACTIVATED) -> tuple[Interval, Array]:
    """Range and error of an end over arguments in z that are off by `error`."""
    if end.is_linear:
        return z, error
    wide = z[0] - error, z[1] + error
    slope, value = ACT_DERIVATIVES[act], ACT_VALUES[act]
    slopes = range_from(slope(wide[0]), slope(wide[1]), wide, {c: float(slope(np.array(c))) for c in EXTREMA[act][1]})
    h = range_from(value(z[0]), value(z[1]), z, {c: float(value(np.array(c))) for c in EXTREMA[act][0]})
    size = magnitude(h) + magnitude(slopes) * error
    own = _own_error(act, magnitude(wide), size, precision)
    if end.is_activated:
        return h, magnitude(slopes) * error + own
    one = np.ones(1)
    carried = magnitude(end.mix_ranges(slopes, (one, one))) * error
    terms = end.size(size + own, magnitude(wide))  # each with its factor's rounding, the product's and the sum's
    return end.mix_ranges(h, z), carried + end.size(own, 0 * one) + precision.gamma(4) * terms


def _own_error(act: Act, z: Array, h: Array, precision: Precision) -> Array:
    """Error of act itself at arguments up to |z| with values up to |h|."""
    unit, unit_error = precision.unit, precision.elementary_error(1.0)
    match act:
        case "relu":
            return np.zeros_like(h)
        case "leaky_relu":
            return 2 * unit * h
        case "tanh" | "sigmoid":
            return precision.elementary_error(h)
        case "silu":  # z sigmoid(z)
            return z * unit_error + unit * h
        case "gelu":  # z (1 + erf(z / sqrt 2)) / 2; rounding its argument moves erf by less than eps
            return z / 2 * (unit_error + 4 * unit) + 2 * unit * h
        case _:  # softplus and elu: exp and log1p of what is at most 1, and an addition
            return unit_error + precision.elementary_error(h) + unit * h


def _combine(weight: Array, bias: Array, h: Interval, error: Array, precision: Precision) -> tuple[Interval, Array]:
    """Range and error of weight h + bias."""
    size = np.abs(weight)
    center, spread = weight @ ((h[0] + h[1]) / 2) + bias[:, :, None], size @ ((h[1] - h[0]) / 2)
    terms = size @ (magnitude(h) + error) + np.abs(bias)[:, :, None]
    return (center - spread, center + spread), size @ error + precision.gamma(weight.shape[-1] + 2) * terms


def _piecewise_linear_error(form: PiecewiseLinear, ends: Array, precision: Precision) -> Array:
    """The terms' magnitudes are convex in u, so they are largest at an end of the domain."""
    reach = np.maximum(ends[..., None] - form.knots, 0.0)
    terms = np.abs(form.intercept) + np.abs(form.slope * ends) + (np.abs(form.slope_changes) * reach).sum(2)
    near = form.knots - precision.unit * np.abs(form.knots) < ends[1][:, None]
    moved = (np.abs(form.slope_changes * form.knots) * near).sum(1)
    return precision.gamma(form.knots.shape[1] + 5) * terms.max(0) + 2 * precision.unit * moved  # type: ignore[no-any-return]


def _power_error(coefficients: Array, outside: Array, s: Array, shift: Array, precision: Precision) -> Array:
    """Error of Horner's rule on pieces (N, K, D + 1), continued linearly over the length `outside`.

    `s` (2, N) are the normalised pre-activations at the ends of the domain and `shift` the normalised origin: rounding,
    subtracting and scaling move s by at most eps (shift + 4 |s|), which the largest slope passes on.
    """
    degree = coefficients.shape[2] - 1
    size = np.abs(coefficients)
    value, slope = size.sum(2).max(1), (size * np.arange(degree + 1)).sum(2).max(1)
    moved = precision.unit * (shift + 4 * np.abs(s).max(0)) * (1 + 8 * precision.unit)
    return precision.gamma(3 * degree + 6) * (value + 2 * slope * (outside + moved)) + slope * moved  # type: ignore[no-any-return]
