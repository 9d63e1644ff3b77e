"""Guaranteed bounds of errors and slopes of scalar functions over a domain: from analysis, not from samples.

A domain is cut into cells at every knot of both functions and at the ends of a form's own domain, beyond which it is
linear. In a cell with middle m and half-width r, the difference e of two functions obeys Taylor's theorem,

    |e(u)| <= |e(m)| + |e'(m)| r + sup |e''| r^2 / 2,

with e'' enclosed by intervals (`_jets`); the second derivative of a spline is linear in a cell, that of a polynomial is
enclosed by its Taylor expansion at m, and functions with relu or leaky_relu are taken as their exact pieces (`_kinks`).
Cells are split until the bound is within `SLACK` of the largest |e(m)| found, as far as `_maximum` goes.

Rounding allowance: the bounds are computed in float64; four times the float64 rounding bounds of both functions
(`_rounding`) are added. For a bound of a float32 evaluation add `bound_arithmetic` of both and `find_jumps`.
"""

import numpy as np
from numpy.typing import ArrayLike

from mncompress.analysis._inner import Array, Indices, InnerNetworks, from_native
from mncompress.analysis._jets import Jet, magnitude, propagate
from mncompress.analysis._kinks import extract_piecewise_linear
from mncompress.analysis._maximum import bound_maximum
from mncompress.analysis._rounding import FLOAT64, AnyForm, bound_arithmetic
from mncompress.spline import CubicSpline, Native, PiecewiseLinear, Polynomial
from mncompress.types import RELU_LIKE

Curve = InnerNetworks | CubicSpline | PiecewiseLinear | Polynomial

SLACK = 0.2
"""A cell is fine enough when its upper bound is within this of the largest value found."""
FLOOR = 1e-8
"""Bounds of errors and slopes below this are not refined: float32 does not resolve them."""


def bound_error(inner: InnerNetworks, form: AnyForm, lo: ArrayLike, hi: ArrayLike) -> Array:
    """Upper bound of the largest |form(u) - inner(u)| for u in [lo, hi].

    Args:
        inner: N inner networks.
        form: N forms in the same order; the parameters are taken as they are, so round them to float32 first if that is
            what will be evaluated. A line is a `PiecewiseLinear` without slope changes.
        lo: lower ends of the domains, (N,) or a scalar; the domain may extend beyond a form's own.
        hi: upper ends, likewise.

    Returns:
        (N,)
    """
    f, g = as_curve(inner), as_curve(form)
    low, high = as_ends(inner.n, lo, hi)

    def score(index: Indices, middle: Array, radius: Array) -> tuple[Array, Array]:
        a, b = (enclose(curve.select(index), middle, radius) for curve in (f, g))
        error = np.abs((b - a).value)
        return error, error + (b - a).deviation(radius)

    edges = make_edges([f, g], low, high)
    bound = bound_maximum(edges, width_of(f), score, lambda best: (1 + SLACK) * best + FLOOR)
    return bound + allowance(inner, f, low, high) + allowance(form, g, low, high)


def bound_lipschitz(function: AnyForm, lo: ArrayLike, hi: ArrayLike) -> Array:
    """Upper bound of the largest slope |function'(u)| for u in [lo, hi], (N,); the arguments are as for `bound_error`.

    The rounding allowance is 1e-9 of the bound plus 1e-12.
    """
    curve = as_curve(function)
    low, high = as_ends(curve.n, lo, hi)

    def score(index: Indices, middle: Array, radius: Array) -> tuple[Array, Array]:
        jet = enclose(curve.select(index), middle, radius)
        return np.abs(jet.slope), magnitude(jet.slopes)

    bound = bound_maximum(make_edges([curve], low, high), width_of(curve), score,
                      lambda best: (1 + SLACK) * best + FLOOR)
    return bound * (1 + 1e-9) + 1e-12


def as_curve(function: AnyForm) -> Curve:
    """What can be enclosed: piecewise-linear functions as their pieces, smooth ones as jets or coefficients."""
    inner = from_native(function) if isinstance(function, Native) else function
    if isinstance(inner, InnerNetworks) and inner.act in RELU_LIKE:
        return extract_piecewise_linear(inner)
    return inner


def as_ends(n: int, lo: ArrayLike, hi: ArrayLike) -> tuple[Array, Array]:
    low, high = (np.broadcast_to(np.asarray(end, np.float64), (n,)) for end in (lo, hi))
    assert (low <= high).all(), "a domain needs lo <= hi"
    return low, high


def width_of(curve: Curve) -> int:
    return curve.first_weight.shape[1] if isinstance(curve, InnerNetworks) else 1


def make_edges(curves: list[Curve], low: Array, high: Array) -> Array:
    """Ends of the domain and the knots inside it, (N, E) ascending; what is outside collapses onto the ends."""
    parts = [low[:, None], high[:, None]]
    for curve in curves:
        if isinstance(curve, PiecewiseLinear):
            parts.append(curve.knots)
        elif isinstance(curve, CubicSpline):
            parts.append(curve.start[:, None] + np.arange(curve.intervals + 1) / curve.inverse_step[:, None])
        elif isinstance(curve, Polynomial):
            half_width = 1 / np.abs(curve.inverse_half_width)
            parts.append(np.stack([curve.center - half_width, curve.center + half_width], 1))
    return np.sort(np.clip(np.concatenate(parts, 1), low[:, None], high[:, None]), 1)


def enclose(curve: Curve, middle: Array, radius: Array) -> Jet:
    """The jets (N, C) of functions over cells without a knot inside."""
    if isinstance(curve, InnerNetworks):
        return propagate(curve, middle, radius)
    value, slope = curve.evaluate(middle.T).T, curve.derivative(middle.T).T
    if isinstance(curve, PiecewiseLinear):
        curvatures = np.zeros_like(value), np.zeros_like(value)
    elif isinstance(curve, CubicSpline):
        curvatures = _spline_curvatures(curve, middle, radius)
    else:
        curvatures = _polynomial_curvatures(curve, middle, radius)
    change = magnitude(curvatures) * radius
    return Jet(value, slope, (slope - change, slope + change), curvatures)


def _spline_curvatures(curve: CubicSpline, middle: Array, radius: Array) -> tuple[Array, Array]:
    scale = curve.inverse_step[:, None]
    s = (middle - curve.start[:, None]) * scale
    interval = np.clip(np.floor(s), 0, curve.intervals - 1)
    c = np.take_along_axis(curve.coefficients, interval.astype(np.intp)[:, :, None], 1)
    inside = (s >= 0) & (s < curve.intervals)
    at_middle = (2 * c[..., 2] + 6 * c[..., 3] * (s - interval)) * scale**2 * inside
    change = np.abs(6 * c[..., 3]) * radius * scale**3 * inside
    return at_middle - change, at_middle + change


def _polynomial_curvatures(curve: Polynomial, middle: Array, radius: Array) -> tuple[Array, Array]:
    """P'' and the terms of its Taylor expansion at the middle, the latter by their largest absolute values."""
    scale = curve.inverse_half_width[:, None]
    x, reach = (middle - curve.center[:, None]) * scale, radius * np.abs(scale)
    inside = np.abs(x) < 1
    c, factor = curve.coefficients, np.ones_like(x)
    at_middle, change = np.zeros_like(x), np.zeros_like(x)
    for order in range(1, curve.degree + 1):
        c = c[:, 1:] * np.arange(1, c.shape[1])
        term = sum((c[:, p, None] * x**p for p in range(c.shape[1])), np.zeros_like(x))
        if order == 2:
            at_middle = term
        elif order > 2:
            factor = factor * reach / (order - 2)
            change = change + np.abs(term) * factor
    at_middle, change = at_middle * scale**2 * inside, change * scale**2 * inside
    return at_middle - change, at_middle + change


def allowance(function: AnyForm, curve: Curve, low: Array, high: Array) -> Array:
    """Cells end at the knots as float64 has them, and each takes its own interval's polynomial up to both ends."""
    error = bound_arithmetic(function, low, high, FLOAT64)
    if isinstance(curve, PiecewiseLinear) and curve is not function:  # exact pieces, extracted in float64
        error = error + bound_arithmetic(curve, low, high, FLOAT64)
    return 4 * error
