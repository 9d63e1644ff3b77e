"""Ranges of slopes and errors over any interval within a domain, looked up: for the many intervals of a branch and bound."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from mncompress.analysis._bounds import Curve, allowance, as_curve, as_ends, enclose, make_edges, width_of
from mncompress.analysis._inner import Array, Indices, InnerNetworks, Interval
from mncompress.analysis._jets import magnitude
from mncompress.analysis._maximum import BLOCK
from mncompress.analysis._rounding import AnyForm

MOST_CELLS, FEWEST_CELLS = 512, 32
"""Of equal width, that a domain is cut into: a power of two."""
WORK = 2**25
"""Inner weights times cells of a layer: wide and deep inner networks have fewer cells."""
HAIR = 1e-9
"""Of a cell, by which an interval is widened: more than float64 rounds a place in cells."""


@dataclass(frozen=True)
class RangeTable:
    """What N functions of one variable take in cells of equal width.

    Attributes:
        low: start of the first cell, (N,).
        step: width of a cell, (N,).
        levels: lower and upper ends, (2, L, N, cells), over 2^l cells from each on.
    """

    low: Array
    step: Array
    levels: Array

    @classmethod
    def of(cls, low: Array, high: Array, cells: Interval) -> Self:
        """From ends of the domain (N,) and a range in each cell (N, cells)."""
        count = cells[0].shape[1]
        levels = [np.stack(cells)]
        span = 1
        while 2 * span <= count:
            ends = np.pad(levels[-1][:, :, span:], ((0, 0), (0, 0), (0, span)), mode="edge")
            levels.append(np.stack([np.minimum(levels[-1][0], ends[0]), np.maximum(levels[-1][1], ends[1])]))
            span *= 2
        step = (high - low) / count
        return cls(low, np.where(step > 0, step, 1.0), np.stack(levels, 1))

    def over(self, low: Array, high: Array) -> Interval:
        """The range over intervals with ends (P, N) inside the domain."""
        cells = self.levels.shape[-1]
        places = np.nan_to_num((low - self.low) / self.step - HAIR), np.nan_to_num((high - self.low) / self.step + HAIR)
        first = np.clip(np.floor(places[0]), 0, cells - 1).astype(np.intp)
        last = np.clip(np.floor(places[1]), first, cells - 1).astype(np.intp)
        level = np.frexp(last - first + 1)[1] - 1
        start = (level * len(self.low) + np.arange(len(self.low))) * cells
        covers = start + first, start + last + 1 - (1 << level)
        lower, upper = (values.ravel() for values in self.levels)
        return np.minimum(*(lower[each] for each in covers)), np.maximum(*(upper[each] for each in covers))


def count_cells(inner: InnerNetworks) -> int:
    """Of how many cells tables of a layer's learned activations are, and of what became of them."""
    weights = inner.first_weight.size + inner.out_weight.size + sum(weight.size for weight in inner.weights)
    return max(FEWEST_CELLS, min(MOST_CELLS, 1 << max(WORK // weights, 1).bit_length() - 1))


def tabulate_slopes(function: AnyForm, low: Array, high: Array, cells: int) -> RangeTable:
    """The slopes of N functions over domains with finite ends (N,)."""
    curve = as_curve(function)

    def enclose_slopes(index: Indices, middle: Array, radius: Array) -> Interval:
        slopes = enclose(curve.select(index), middle, radius).slopes
        slack = 1e-9 * magnitude(slopes) + 1e-12
        return slopes[0] - slack, slopes[1] + slack

    return _tabulate([curve], *as_ends(curve.n, low, high), cells, enclose_slopes)


def tabulate_errors(inner: InnerNetworks, form: AnyForm, low: Array, high: Array, cells: int) -> RangeTable:
    """form(u) - inner(u) over domains with finite ends (N,)."""
    f, g = as_curve(inner), as_curve(form)
    slack = allowance(inner, f, low, high) + allowance(form, g, low, high)

    def enclose_errors(index: Indices, middle: Array, radius: Array) -> Interval:
        a, b = (enclose(curve.select(index), middle, radius) for curve in (f, g))
        error, deviation = (b - a).value, (b - a).deviation(radius) + slack[index, None]
        return error - deviation, error + deviation

    return _tabulate([f, g], *as_ends(inner.n, low, high), cells, enclose_errors)


def bound_range(inner: InnerNetworks, low: Array, high: Array) -> Interval:
    """What N learned activations can be over domains with finite ends (N,)."""
    curve = as_curve(inner)
    slack = allowance(inner, curve, low, high)

    def enclose_values(index: Indices, middle: Array, radius: Array) -> Interval:
        jet = enclose(curve.select(index), middle, radius)
        deviation = jet.deviation(radius) + slack[index, None]
        return jet.value - deviation, jet.value + deviation

    table = _tabulate([curve], *as_ends(inner.n, low, high), FEWEST_CELLS, enclose_values)
    return table.levels[0, 0].min(1), table.levels[1, 0].max(1)


def _tabulate(curves: list[Curve], low: Array, high: Array, cells: int, score: Callable[[Indices, Array, Array], Interval]
              ) -> RangeTable:
    uniform = low[:, None] + (high - low)[:, None] * (np.arange(cells + 1) / cells)
    edges = np.sort(np.concatenate([uniform, make_edges(curves, low, high)], 1), 1)
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    radius = np.maximum(edges[:, 1:] - middle, middle - edges[:, :-1])
    owner = np.clip((middle - low[:, None]) / np.where(high > low, high - low, 1.0)[:, None] * cells, 0, cells - 1).astype(np.intp)
    lower, upper = np.full((len(low), cells), np.inf), np.full((len(low), cells), -np.inf)
    size = max(1, BLOCK // (width_of(curves[0]) * edges.shape[1]))
    for first in range(0, len(low), size):
        index = np.arange(first, min(first + size, len(low)))
        ends = score(index, middle[index], radius[index])
        rows = np.broadcast_to(index[:, None], owner[index].shape)
        np.minimum.at(lower, (rows, owner[index]), ends[0])
        np.maximum.at(upper, (rows, owner[index]), ends[1])
    return RangeTable.of(low, high, (np.where(np.isnan(lower), -np.inf, lower), np.where(np.isnan(upper), np.inf, upper)))
