"""Exact knots of learned activations whose inner activation is relu or leaky_relu.

Such a function is piecewise linear on the whole real line. Its pieces are found from the weights, layer by layer: on
each piece so far every inner unit is affine, z = slope u + intercept by the chain rule, so it changes sign at most once
there, at -intercept / slope; those zeros refine the pieces. Residuals keep the pieces; the ends are units
too, of other slopes. Nothing is sampled and no slope is a difference of values.

Precision. Intercepts are values extrapolated to u = 0, that is masked sums of biases through weights, so they are
moderate on every piece, however far away it lies. Three conventions follow from float64 rounding and change the result
by no more than the rounding of a direct evaluation:

- a unit's slope within `ROUNDING` of the sum of its terms' magnitudes is zero; a knot beyond `FARTHEST`, where float32
  ends, is none;
- knots closer than a few units in the last place merge;
- a knot is dropped when its slope change is below `NEGLIGIBLE` of the slopes *and* change times knot below `NEGLIGIBLE`
  of the intercepts: the error at u is then at most NEGLIGIBLE (S |u| + V), S and V those magnitudes.

A slope change is the difference of the neighboring slopes, or minus the difference of the neighboring intercepts over
the knot, whichever has the smaller rounding error: at a far knot the first loses all digits of change times knot.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis._inner import ACTIVATED, Array, End, InnerNetworks
from mncompress.spline import PiecewiseLinear
from mncompress.types import LEAK, RELU_LIKE

ROUNDING = 1e-15
FARTHEST = 1e30
NEGLIGIBLE = 1e-15
SAME = 1e-12
"""Of the larger of two slopes: what they may differ by and still count as one."""


@dataclass(frozen=True)
class ExactForms:
    """Per neuron the simplest form that equals a piecewise-linear function at every u: alpha act(beta u + delta) + eta.

    All arrays are (N,). `kind` is `constant` (eta), `affine` (alpha u + eta), `native` (`act` is relu or leaky_relu) or
    `piecewise_linear` (none of these; the numbers are zero). `act` is empty where it is the identity. beta is 1 or -1.
    """

    kind: NDArray[np.str_]
    act: NDArray[np.str_]
    alpha: Array
    beta: Array
    delta: Array
    eta: Array


@dataclass(frozen=True)
class _Pieces:
    """Affine units on the pieces of the real line: piece j lies before break j.

    `breaks` (N, P) ascend and are padded with inf. `slope`, `intercept` (N, H, P + 1): unit = slope u + intercept.
    """

    breaks: Array
    slope: Array
    intercept: Array


def extract_piecewise_linear(inner: InnerNetworks) -> PiecewiseLinear:
    """The exact piecewise-linear form of inner networks with relu or leaky_relu, valid for every u.

    Returns:
        `PiecewiseLinear` with as many columns as the neuron with the most knots needs (at least 1).
    """
    assert inner.act in RELU_LIKE, f"{inner.act} is not piecewise linear"
    leak = LEAK if inner.act == "leaky_relu" else 0.0
    ones = np.ones((inner.n, 1, 1))
    a = _Pieces(np.empty((inner.n, 0)), ones, 0.0 * ones)
    a = _activate(a, leak, inner.ends[0])
    h = _activate(_combine(inner.first_weight[:, :, None], a, inner.biases[0]), leak)
    for weight, bias in zip(inner.weights, inner.biases[1:], strict=True):
        z = _activate(_combine(weight, h, bias), leak)
        source = _sources(h.breaks, z.breaks)
        h = _Pieces(z.breaks, z.slope + _gather(h.slope, source), z.intercept + _gather(h.intercept, source))
    y = _combine(inner.out_weight[:, None, :], h, inner.out_bias[:, None])
    sizes = [(np.abs(inner.out_weight[:, None, :]) @ np.abs(part).max(2, keepdims=True))[:, 0, 0]
             for part in (h.slope, h.intercept)]
    one = np.ones((1, 1, 1))
    gain = inner.ends[1].size(one, one)[:, 0, 0]
    y = _activate(y, leak, inner.ends[1])
    return _to_form(y, slope_size=gain * sizes[0], intercept_size=gain * (sizes[1] + np.abs(inner.out_bias)))


def count_knots(form: PiecewiseLinear) -> NDArray[np.intp]:
    """Knots in use per neuron, (N,)."""
    return np.count_nonzero(form.slope_changes, axis=1)  # type: ignore[no-any-return]


def as_native(form: PiecewiseLinear) -> ExactForms:
    """Classify piecewise-linear functions that a constant, a line or one relu or leaky_relu equals at every u.

    With left slope l, right slope r and knot k: relu where l = 0 (beta 1) or r = 0 (beta -1), leaky_relu where
    l = 0.01 r (beta 1) or r = 0.01 l (beta -1), each within `SAME`.
    """
    count = count_knots(form)
    at = np.argmax(form.slope_changes != 0, axis=1)[:, None]
    knot = np.take_along_axis(form.knots, at, 1)[:, 0]
    left = form.slope
    right = left + np.take_along_axis(form.slope_changes, at, 1)[:, 0]
    same = SAME * np.maximum(np.abs(left), np.abs(right))
    one = count == 1
    cases = [
        (count == 0) & (left == 0),
        count == 0,
        one & (np.abs(left) <= same),
        one & (np.abs(right) <= same),
        one & (np.abs(left - LEAK * right) <= same),
        one & (np.abs(right - LEAK * left) <= same),
    ]
    zero = np.zeros_like(knot)
    value = form.intercept + left * knot
    return ExactForms(
        kind=np.select(cases, ["constant", "affine", *["native"] * 4], "piecewise_linear"),
        act=np.select(cases, ["", "", "relu", "relu", "leaky_relu", "leaky_relu"], ""),
        alpha=np.select(cases, [zero, left, right, -left, right, -left], 0.0),
        beta=np.select(cases, [zero + 1, zero + 1, zero + 1, zero - 1, zero + 1, zero - 1], 0.0),
        delta=np.select(cases, [zero, zero, -knot, knot, -knot, knot], 0.0),
        eta=np.select(cases, [form.intercept, form.intercept, value, value, value, value], 0.0),
    )


def _combine(weight: Array, h: _Pieces, bias: Array) -> _Pieces:
    """Return weight h + bias with weight (N, H', H), bias (N, H'); slopes that are rounding alone become zero."""
    slope = weight @ h.slope
    slope[np.abs(slope) <= ROUNDING * (np.abs(weight) @ np.abs(h.slope))] = 0
    return _Pieces(h.breaks, slope, weight @ h.intercept + bias[:, :, None])


def _activate(z: _Pieces, leak: float, end: End = ACTIVATED) -> _Pieces:
    """Apply an end with max(z, leak z) for act to every unit, on pieces refined by the units' zeros."""
    if end.is_linear:
        return z
    bounded = np.abs(z.intercept) < FARTHEST * np.abs(z.slope)
    zeros = -z.intercept / np.where(bounded, z.slope, np.nan)
    left, right = _ends(z.breaks)
    inside = (left[:, None] < zeros) & (zeros < right[:, None])
    new = np.where(inside, zeros, np.inf).reshape(len(zeros), -1)
    breaks = np.sort(np.concatenate([z.breaks, new], 1), 1)
    breaks = breaks[:, :np.isfinite(breaks).sum(1).max(initial=0)]
    source = _sources(z.breaks, breaks)
    slope, intercept = _gather(z.slope, source), _gather(z.intercept, source)
    rising, falling = (end.mix(np.full((1, 1, 1), act_slope), np.ones(1)) for act_slope in (1.0, leak))
    factor = np.where(slope * _middles(breaks)[:, None] + intercept > 0, rising, falling)
    return _Pieces(breaks, factor * slope, factor * intercept)


def _to_form(y: _Pieces, slope_size: Array, intercept_size: Array) -> PiecewiseLinear:
    """The knot form of pieces of one unit per neuron; the sizes (N,) scale what is negligible."""
    neurons = len(y.breaks)
    used = np.isfinite(y.breaks)
    knots = np.where(used, y.breaks, 0.0)
    slope, intercept = y.slope[:, 0], y.intercept[:, 0]
    slope_size, intercept_size = slope_size[:, None], intercept_size[:, None]
    far = np.abs(knots) * slope_size > intercept_size
    changes = np.where(far, -np.diff(intercept) / np.where(far, knots, 1.0), np.diff(slope)) * used
    # Each cluster of close knots becomes its first one, with the sum of the changes.
    close = np.diff(knots, prepend=-np.inf) <= 8 * np.finfo(float).eps * np.abs(knots)
    cluster = np.cumsum(~close, 1) - 1
    summed = np.zeros_like(changes)
    np.add.at(summed, (np.arange(neurons)[:, None], cluster), changes)
    changes = np.where(close, 0.0, np.take_along_axis(summed, cluster, 1))
    drop = np.abs(changes) <= NEGLIGIBLE * slope_size
    drop &= np.abs(changes * knots) <= NEGLIGIBLE * intercept_size
    keep = ~drop & (changes != 0)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :keep.sum(1).max(initial=0)]
    keep = np.take_along_axis(keep, order, 1)
    knots, changes = (np.where(keep, np.take_along_axis(part, order, 1), 0.0) for part in (knots, changes))
    last = np.take_along_axis(knots, np.maximum(keep.sum(1, keepdims=True) - 1, 0), 1) if knots.size else knots
    return PiecewiseLinear(np.where(keep, knots, last), changes, slope[:, 0], intercept[:, 0])


def _ends(breaks: Array) -> tuple[Array, Array]:
    """Left and right ends (N, P + 1) of the pieces between breaks (N, P)."""
    edge = np.full((len(breaks), 1), np.inf)
    return np.concatenate([-edge, breaks], 1), np.concatenate([breaks, edge], 1)


def _middles(breaks: Array) -> Array:
    """A point inside every piece, (N, P + 1); 0 for padding."""
    left, right = _ends(breaks)
    middle = np.zeros_like(left)
    both = np.isfinite(left) & np.isfinite(right)
    middle[both] = left[both] / 2 + right[both] / 2
    first, last = np.isinf(left) & np.isfinite(right), np.isfinite(left) & np.isinf(right)
    middle[first] = right[first] - 1 - np.abs(right[first])
    middle[last] = left[last] + 1 + np.abs(left[last])
    return middle


def _sources(coarse: Array, fine: Array) -> NDArray[np.intp]:
    """For each piece of `fine` (N, Q) the piece of `coarse` (N, P) that holds it; `fine` has all breaks of `coarse`."""
    middles = _middles(fine)
    return (coarse[:, None, :] <= middles[:, :, None]).sum(2)  # type: ignore[no-any-return]


def _gather(values: Array, source: NDArray[np.intp]) -> Array:
    """The values (N, H, P + 1) on the pieces `source` (N, Q + 1)."""
    return np.take_along_axis(values, source[:, None, :], 2)
