"""Piecewise-linear functions with few knots, chosen among many: greedy removal of knots, then the best values at the rest.

A function is given by its values at points of its domain, some of which may become knots. Between knots the approximation is
a line, and it goes on beyond the domain with the slopes of its first and last pieces. Where the function itself is piecewise
linear and all of its knots are among the points, errors at the points are errors everywhere.

Knots go one after another, always the one whose absence does least harm, that is the one with the smallest error of the chord
over the gap (Visvalingam and Whyatt 1993, doi:10.1179/000870493786962263, have the same order with areas for errors). The
values at the knots that are left follow by weighted least squares, a tridiagonal system of hat functions; for the largest error
the weights are multiplied by the errors several times (Lawson's algorithm: Rice and Usow 1968,
doi:10.1090/S0025-5718-1968-0227661-2).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mncompress.spline._arrays import Array, Indices
from mncompress.spline._functions import LARGEST_VALUE, Target
from mncompress.spline._piecewise import PiecewiseLinear

KNOTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
"""The numbers of knots worth trying."""
CLOSEST = 2.0**-20
"""Of the domain's width: of knots closer than this one is enough."""
ROUNDS = 8
"""Of Lawson's algorithm."""
RIDGE = 1e-9
"""Relative, towards the function's own values at the knots."""


@dataclass(frozen=True, eq=False)
class Polylines:
    """N functions at G points of their domains, ascending, and the order in which their knots may go."""

    x: Array
    """(N, G)"""
    y: Array
    """(N, G)"""
    weights: Array
    """(N, G), of the points in a mean."""
    rank: npt.NDArray[np.intp]
    """(N, G): k for the knot that is the k-th from last to go, 0 for what is no knot."""
    is_mean: bool
    """Whether the mean square error is to be small, and not the largest error."""

    @property
    def most(self) -> int:
        """Knots of the function with the most."""
        return int(self.rank.max(initial=0))

    def select(self, indices: Indices) -> "Polylines":
        """The functions at `indices` (M,)."""
        return Polylines(self.x[indices], self.y[indices], self.weights[indices], self.rank[indices], self.is_mean)


def make_polylines(target: Target, is_knot: npt.NDArray[np.bool_], step: int = 1) -> Polylines:
    """Sort possible knots by the harm that their absence does.

    Args:
        target: N functions, sampled at G points.
        is_knot: which of the points may become knots, (G, N).
        step: take every so many of the points alone.
    """
    x, y, weights = (np.ascontiguousarray(part[::step].T) for part in (target.u, target.values, target.weights))
    y = np.clip(np.nan_to_num(y), -LARGEST_VALUE, LARGEST_VALUE)
    width = np.maximum(x[:, -1:] - x[:, :1], np.finfo(np.float64).tiny)
    cell = np.floor((x - x[:, :1]) / width / CLOSEST)
    can = is_knot[::step].T & (cell > np.roll(cell, 1, axis=1)) & (x > x[:, :1]) & (cell < cell[:, -1:])
    lines = Polylines(x, y, weights, np.zeros(x.shape, np.intp), target.histogram is not None)
    return Polylines(x, y, weights, _rank(lines, can), lines.is_mean)


def _rank(lines: Polylines, can: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """The order of removal, with linked lists of the knots that are left."""
    n, points = lines.x.shape
    rank, count, last = np.zeros((n, points), np.intp), can.sum(1), points - 1
    before = np.maximum.accumulate(np.where(can, np.arange(points), 0), axis=1)
    before = np.concatenate([np.zeros((n, 1), np.intp), before[:, :-1]], axis=1)
    after = np.minimum.accumulate(np.where(can, np.arange(points), last)[:, ::-1], axis=1)[:, ::-1]
    after = np.concatenate([after[:, 1:], np.full((n, 1), last)], axis=1)
    harm = np.full((n, points), np.inf)

    def update_(rows: Indices, at: Indices) -> None:
        inner = (at > 0) & (at < last)
        rows, at = rows[inner], at[inner]
        harm[rows, at] = _harm(lines, rows, before[rows, at], after[rows, at])

    everyone, at = np.arange(n), np.zeros(n, np.intp)
    for _ in range(int(count.max(initial=0))):
        at = after[everyone, at]
        update_(everyone, at)
    while count.any():
        rows = np.flatnonzero(count)
        gone = harm[rows].argmin(1)
        rank[rows, gone], harm[rows, gone] = count[rows], np.inf
        count[rows] -= 1
        a, b = before[rows, gone], after[rows, gone]
        after[rows, a], before[rows, b] = b, a
        update_(rows, a)
        update_(rows, b)
    return rank


def _harm(lines: Polylines, rows: Indices, a: Indices, b: Indices) -> Array:
    """The error of the chords from point a to point b, one for each of `rows`."""
    x, y = lines.x[rows], lines.y[rows]
    row = np.arange(len(rows))
    slope = (y[row, b] - y[row, a]) / (x[row, b] - x[row, a])
    error = np.abs(y - y[row, a][:, None] - slope[:, None] * (x - x[row, a][:, None]))
    error *= (np.arange(x.shape[1]) > a[:, None]) & (np.arange(x.shape[1]) < b[:, None])
    return np.asarray((lines.weights[rows] * error**2).sum(1) if lines.is_mean else error.max(1))


def fit_polylines(lines: Polylines, knots: int) -> PiecewiseLinear:
    """The piecewise-linear functions with at most so many knots each, in as many columns as are used."""
    points = lines.x.shape[1]
    kept = (lines.rank > 0) & (lines.rank <= knots)
    kept[:, [0, -1]] = True
    columns = int(kept.sum(1).max(initial=2))
    place = np.sort(np.where(kept, np.arange(points), points - 1), axis=1)[:, :columns]
    x, y = (np.take_along_axis(part, place, 1) for part in (lines.x, lines.y))
    piece = np.minimum(np.cumsum(kept, axis=1) - 1, kept.sum(1, keepdims=True) - 2)
    values = y + _correct(lines, x, y, piece)
    run, used = np.diff(x, axis=1), np.arange(columns - 1) < kept.sum(1, keepdims=True) - 1
    slopes = np.divide(np.diff(values, axis=1), run, out=np.zeros_like(run), where=used & (run > 0))
    last = np.take_along_axis(x, np.maximum(kept.sum(1, keepdims=True) - 2, 0), 1)
    changes = np.where(used[:, 1:], np.diff(slopes, axis=1), 0.0)
    return PiecewiseLinear(np.where(used[:, 1:], x[:, 1:-1], last), changes, slopes[:, 0], values[:, 0] - slopes[:, 0] * x[:, 0])


def _correct(lines: Polylines, x: Array, y: Array, piece: npt.NDArray[np.intp]) -> Array:
    """What to add to the values y at the knots x (N, C), the ends among them; `piece` (N, G) is where the points lie."""
    n, columns = x.shape
    left, right = (np.take_along_axis(x, piece + side, 1) for side in (0, 1))
    t = np.divide(lines.x - left, right - left, out=np.zeros_like(left), where=right > left)
    flat = piece + columns * np.arange(n)[:, None]

    def spread(values: Array) -> Array:
        return (1 - t) * np.take_along_axis(values, piece, 1) + t * np.take_along_axis(values, piece + 1, 1)

    def gather(values: Array, side: int) -> Array:
        return np.asarray(np.bincount((flat + side).ravel(), values.ravel(), n * columns).reshape(n, columns), np.float64)

    rest, weights = lines.y - spread(y), lines.weights
    best, error = np.zeros((n, columns)), _size(lines, rest)
    for _ in range(1 if lines.is_mean else ROUNDS):
        a, b = weights * (1 - t), weights * t
        correction = _solve_tridiagonal(gather(a * (1 - t), 0) + gather(b * t, 1), gather(a * t, 0),
                                        gather(a * rest, 0) + gather(b * rest, 1))
        remaining = rest - spread(correction)
        new = _size(lines, remaining)
        better = new < error
        best[better], error[better] = correction[better], new[better]
        weights = weights * np.abs(remaining)
        weights = weights / np.maximum(weights.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    return best


def _size(lines: Polylines, difference: Array) -> Array:
    return np.asarray((lines.weights * difference**2).sum(1) if lines.is_mean else np.abs(difference).max(1))


def _solve_tridiagonal(diagonal: Array, beside: Array, right: Array) -> Array:
    """Solve symmetric positive systems (N, C), `beside[:, c]` coupling c and c + 1, by elimination."""
    diagonal = diagonal + RIDGE * diagonal.max(1, keepdims=True) + np.finfo(np.float64).tiny
    solution = right.copy()
    for c in range(1, diagonal.shape[1]):
        factor = beside[:, c - 1] / diagonal[:, c - 1]
        diagonal[:, c] -= factor * beside[:, c - 1]
        solution[:, c] -= factor * solution[:, c - 1]
    solution[:, -1] /= diagonal[:, -1]
    for c in range(diagonal.shape[1] - 2, -1, -1):
        solution[:, c] = (solution[:, c] - beside[:, c] * solution[:, c + 1]) / diagonal[:, c]
    return solution
