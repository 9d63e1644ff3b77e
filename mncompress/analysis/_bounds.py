"""Guaranteed bounds of errors, slopes and ranges of scalar functions over a domain: from analysis, not from samples.

A domain is cut into cells at every knot of both functions and at the ends of a form's own domain, beyond which it is
linear. In a cell with middle m and half-width r, the difference e of two functions obeys Taylor's theorem,

    |e(u)| <= |e(m)| + |e'(m)| r + sup |e''| r^2 / 2,

with e'' enclosed by intervals (`_jets`); the second derivative of a spline is linear in a cell, that of a polynomial is
enclosed by its Taylor expansion at m, and functions with relu or leaky_relu are taken as their exact pieces (`_kinks`).
Branch and bound: |e(m)| is a lower bound of the maximum, and cells whose upper bound exceeds the best lower bound by
more than `SLACK` are split in four, up to `ROUNDS` times. What is still loose then, is reported loose.

Rounding allowance: the bounds are computed in float64; four times the float64 rounding bounds of both functions
(`_rounding`) are added. For a bound of a float32 evaluation add `bound_rounding` and `bound_form_rounding`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from mncompress.analysis._inner import Array, Indices, InnerNetworks, from_native
from mncompress.analysis._jets import Jet, magnitude, propagate
from mncompress.analysis._kinks import extract_piecewise_linear
from mncompress.analysis._rounding import FLOAT64, AnyForm, bound_form_rounding, bound_rounding
from mncompress.spline import CubicSpline, Native, PiecewiseLinear, Polynomial
from mncompress.types import RELU_LIKE

Curve = InnerNetworks | CubicSpline | PiecewiseLinear | Polynomial
Score = Callable[[Indices, Array, Array], tuple[Array, Array]]

SLACK = 0.1
"""A cell is fine enough when its upper bound is within this of the largest value found."""
FLOOR = 1e-8
"""Bounds of errors and slopes below this are not refined: float32 does not resolve them."""
ROUNDS = 8
MOST_CELLS = 256
"""Cells of a neuron that are split in one round."""
BLOCK = 2**18
"""Inner units times cells in hand at a time."""


def bound_error(inner: InnerNetworks, form: AnyForm, lo: ArrayLike, hi: ArrayLike, cells: int = 64) -> Array:
    """Upper bound of the largest |form(u) - inner(u)| for u in [lo, hi].

    Args:
        inner: N inner networks.
        form: N forms in the same order; the parameters are taken as they are, so round them to float32 first if that is
            what will be evaluated. A line is a `PiecewiseLinear` without slope changes.
        lo: lower ends of the domains, (N,) or a scalar; the domain may extend beyond a form's own.
        hi: upper ends, likewise.
        cells: cells per neuron at the start, at least.

    Returns:
        (N,)
    """
    f, g = _as_curve(inner), _as_curve(form)
    low, high = _as_ends(inner.n, lo, hi)

    def score(index: Indices, middle: Array, radius: Array) -> tuple[Array, Array]:
        a, b = (_enclose(curve.select(index), middle, radius) for curve in (f, g))
        difference = Jet(b.value - a.value, b.slope - a.slope,
                         (b.slopes[0] - a.slopes[1], b.slopes[1] - a.slopes[0]),
                         (b.curvatures[0] - a.curvatures[1], b.curvatures[1] - a.curvatures[0]))
        error = np.abs(difference.value)
        return error, error + difference.deviation(radius)

    edges = _make_edges([f, g], low, high)
    bound = _maximize(edges, cells, _width(f), score, lambda best: (1 + SLACK) * best + FLOOR)
    return bound + _allowance(f, low, high) + _allowance(g, low, high)


def bound_lipschitz(function: InnerNetworks | AnyForm, lo: ArrayLike, hi: ArrayLike, cells: int = 64) -> Array:
    """Upper bound of the largest slope |function'(u)| for u in [lo, hi], (N,)."""
    curve = _as_curve(function)
    low, high = _as_ends(curve.n, lo, hi)

    def score(index: Indices, middle: Array, radius: Array) -> tuple[Array, Array]:
        jet = _enclose(curve.select(index), middle, radius)
        return np.abs(jet.slope), magnitude(jet.slopes)

    bound = _maximize(_make_edges([curve], low, high), cells, _width(curve), score,
                      lambda best: (1 + SLACK) * best + FLOOR)
    return bound * (1 + 1e-9) + 1e-12


def bound_range(function: InnerNetworks | AnyForm, lo: ArrayLike, hi: ArrayLike, cells: int = 64) -> tuple[Array, Array]:
    """Lower and upper bound of function(u) for u in [lo, hi], each (N,): within `SLACK` / 5 of the range's width."""
    curve = _as_curve(function)
    low, high = _as_ends(curve.n, lo, hi)
    edges = _make_edges([curve], low, high)
    sample = curve.evaluate(np.linspace(low, high, 65))
    slack = SLACK / 10 * (sample.max(0) - sample.min(0)) + FLOOR
    ends = []
    for sign in (-1.0, 1.0):
        def score(index: Indices, middle: Array, radius: Array, sign: float = sign) -> tuple[Array, Array]:
            jet = _enclose(curve.select(index), middle, radius)
            return sign * jet.value, sign * jet.value + jet.deviation(radius)

        ends.append(_maximize(edges, cells, _width(curve), score, lambda best, index: best + slack))
    allowance = _allowance(curve, low, high)
    return -ends[0] - allowance, ends[1] + allowance
