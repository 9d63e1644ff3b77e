"""Splines with the least weighted mean square error on given knots, for many functions side by side.

A spline of degree p on K intervals is a sum of K + p cardinal B-splines. On interval k, with t in [0, 1], those numbered k to
k + p are polynomials, the same on every interval (`CARDINAL`); beyond the knots they go on as lines. So the normal equations of all
points in an interval follow from its moments, sums of w t^i and of w y t^i, and the equations of all functions are one banded
system. Where points are sparse, it is the least rough of the splines.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import cho_solve_banded, cholesky_banded

from mncompress.spline._arrays import Array, Indices
from mncompress.spline._functions import LARGEST_VALUE, Target
from mncompress.spline._knots import Knots

CARDINAL = {1: np.array([[1.0, 0.0], [-1.0, 1.0]]),
            3: np.array([[1.0, 4.0, 1.0, 0.0], [-3.0, 0.0, 3.0, 0.0], [3.0, -6.0, 3.0, 0.0], [-1.0, 3.0, -3.0, 1.0]]) / 6}
"""By degree p, (p + 1, p + 1): [i, a] multiplies t^i in the B-spline number k + a."""
BY_END = {1: np.array([[1.0, 0.0], [1.0, 1.0]]),
          3: np.array([[1.0, -1.0, 1 / 3], [1.0, 0.0, -1 / 6], [1.0, 1.0, 1 / 3]])}
"""By degree, the factors of the first B-splines from value and slope at the first knot, and for degree 3 the curvature there."""
FEWEST_BANDED = 6
"""Intervals from which on the equations of one end do not meet those of the other, and so have bands."""
FEWEST_POINTS = 3
"""Of an interval, without which its error is not known."""
ROUGHNESS = 1e-8
"""Of the mean weight of an interval, times the squares of the factors' differences of order (p + 1) / 2."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Functions as they are fitted, (N, G) or (N,): points ascending, weights, values without their mean, and their mean square."""

    u: Array
    weights: Array
    values: Array
    mean: Array
    square: Array

    @classmethod
    def of(cls, target: Target, indices: Indices) -> Self:
        """Those of some functions; NaN counts as 0, and what is too large is cut off."""
        u, weights, values = (np.ascontiguousarray(part[:, indices].T) for part in (target.u, target.weights, target.values))
        values = np.clip(np.nan_to_num(values, copy=False), -LARGEST_VALUE, LARGEST_VALUE)
        mean = np.einsum("ng,ng->n", weights, values)
        values -= mean[:, None]
        return cls(u, weights, values, mean, np.einsum("ng,ng,ng->n", weights, values, values))

    def select(self, indices: Indices) -> Self:
        """The functions at `indices` (M,)."""
        return type(self)(*(part[indices] for part in (self.u, self.weights, self.values, self.mean, self.square)))


def solve(samples: Samples, knots: Knots, degree: int) -> tuple[Array, Array]:
    """Fit splines of degree 1 or 3, degree - 1 times continuously differentiable between the knots.

    Returns:
        The coefficients (N, K, 4) of t^0 to t^3; and the root mean square errors (N,), as exact as a difference of mean squares is,
        infinite where an interval between the outermost points has fewer than `FEWEST_POINTS`.
    """
    n, intervals = len(samples.u), knots.intervals
    s = (samples.u - knots.start[:, None]) * knots.inverse_step[:, None]
    piece = np.floor(np.clip(s, -1, intervals))
    t = (s - np.maximum(piece, 0)).ravel()
    piece += np.arange(1, n * (intervals + 2), intervals + 2)[:, None]      # one number for each interval and tail of all functions
    piece = piece.ravel()
    first = np.concatenate([[0], np.flatnonzero(piece[1:] != piece[:-1]) + 1])
    place = piece[first].astype(np.intp)

    def add_up(powers: int, values: Array) -> Array:
        """Sums of values t^i over each tail and interval: (powers, N, K + 2)."""
        sums, values = np.zeros((powers, n * (intervals + 2))), values.ravel()
        for power in range(powers):
            sums[power, place] = np.add.reduceat(values, first)
            if power + 1 < powers:
                values = values * t
        return sums.reshape(powers, n, intervals + 2)

    moments, products = add_up(2 * degree + 1, samples.weights), add_up(degree + 1, samples.weights * samples.values)
    points = np.zeros((n, intervals + 2), np.intp)
    points.ravel()[place] = np.diff(first, append=t.size)
    solution, explained = _Equations(moments, products, degree).solve()
    coefficients = np.zeros((n, intervals, 4))
    coefficients[..., :degree + 1] = np.lib.stride_tricks.sliding_window_view(solution, degree + 1, axis=1) @ CARDINAL[degree].T
    coefficients[..., 0] += samples.mean[:, None]
    error = np.sqrt(np.maximum(samples.square - explained, 0.0))
    at, ends = knots.positions.T, samples.u[:, [0, -1]]
    unknown = (points[:, 1:-1] < FEWEST_POINTS) & (at[:, :-1] >= ends[:, :1]) & (at[:, 1:] <= ends[:, 1:])
    return coefficients, np.where(unknown.any(1), np.inf, error)


def _change_many(degree: int, size: int) -> tuple[list[tuple[slice, Array]], Array]:
    """Value, slope and, for degree 3, curvature at the ends as unknowns in place of the first and last factors.

    Returns:
        Places, each with the factors there as a matrix times the unknowns there; and value and slope inwards at either end, as
        rows that multiply all unknowns, (2, 2, size).
    """
    end = BY_END[degree]
    width = degree + len(end)
    first, last = np.eye(width), np.eye(width)
    first[:len(end), :len(end)], last[-len(end):, -len(end):] = end, end[::-1, ::-1]
    identity = np.eye(size)
    return [(slice(0, width), first), (slice(size - width, size), last)], np.stack([identity[:2], identity[:-3:-1]])


def _change_few(degree: int, size: int) -> tuple[list[tuple[slice, Array]], Array]:
    """The same for few intervals: value and slope at the ends, as far as these are independent, and the factors in between."""
    ends = np.zeros((2, 2, size))
    ends[0, :, :degree + 1] = CARDINAL[degree][:2]
    ends[1] = ends[0, :, ::-1]
    change = np.linalg.inv(np.concatenate([ends[0], ends[1, ::-1], np.eye(size)[2:-2]])[:size])
    return [(slice(0, size), change)], np.round(ends @ change, 9)


class _Equations:
    """Normal equations of N fits: the lower diagonals of their matrices, one after another, and the right-hand sides.

    From the sums of w t^i (2 degree + 1, N, K + 2) and of w y t^i (degree + 1, N, K + 2), those of the tails first and last.

    The unknowns at the ends are value and slope there. A tail, whose moments may be enormous, then has equations for these alone,
    and leaves all others as exact as they are.
    """

    def __init__(self, moments: Array, products: Array, degree: int) -> None:
        n, intervals = moments.shape[1], moments.shape[2] - 2
        size = intervals + degree
        self.degree = degree
        self.changes, ends = _change_few(degree, size) if intervals < FEWEST_BANDED else _change_many(degree, size)
        self.matrix, self.roughness = np.zeros((2, len(self.changes[0][1]), n, size))
        self.right = np.zeros((n, size))
        cardinal, right = CARDINAL[degree], np.tensordot(CARDINAL[degree].T, products, 1)
        for a in range(degree + 1):
            self.right[:, a:a + intervals] += right[a, :, 1:-1]
            for beside in range(degree + 1 - a):
                product = np.tensordot(np.convolve(cardinal[:, a], cardinal[:, a + beside]), moments, 1)
                self.matrix[beside][:, a:a + intervals] += product[:, 1:-1]
        differences = np.array([1.0, -1.0] if degree == 1 else [1.0, -2.0, 1.0])
        for a in range(len(differences)):
            for beside in range(len(differences) - a):
                places = slice(a, size + 1 - len(differences) + a)
                self.roughness[beside][:, places] += ROUGHNESS / intervals * differences[a] * differences[a + beside]
        for place, change in self.changes:
            self._change_(self.matrix, place, change)
            self._change_(self.roughness, place, change)
            self.right[:, place] = self.right[:, place] @ change
        for side, rows in enumerate(ends):
            self._add_tail_(rows, moments[:3, :, -side].T, products[:2, :, -side].T, -1.0 if side else 1.0)

    @staticmethod
    def _change_(bands: Array, place: slice, change: Array) -> None:
        """Write the part of the matrices in `place`, as wide as the bands, in other unknowns."""
        row, column = np.tril_indices(len(bands))
        block = np.zeros((bands.shape[1], len(bands), len(bands)))
        block[:, row, column] = bands[row - column, :, place.start + column].T
        block[:, column, row] = block[:, row, column]
        bands[row - column, :, place.start + column] = (change.T @ block @ change)[:, row, column].T

    def _add_tail_(self, rows: Array, moments: Array, products: Array, inwards: float) -> None:
        """Add the points beyond an end, where a spline is a line in t, by their sums (N, powers).

        `rows` (2, K + degree) are value and slope at the end, by the unknowns; slopes, and t times `inwards`, point inwards.
        """
        signs = np.array([1.0, inwards, 1.0])
        moments, products = moments * signs, products * signs[:2]
        unknowns = np.flatnonzero(rows.any(0))
        for place, a in enumerate(unknowns):
            self.right[:, a] += products @ rows[:, a]
            for b in unknowns[:place + 1]:
                self.matrix[a - b][:, b] += moments @ np.convolve(rows[:, a], rows[:, b])

    def solve(self) -> tuple[Array, Array]:
        """The factors of the splines (N, K + degree), and the mean square (N,) that they explain.

        Solved for what the roughness took away a second time, it only matters where the points do not decide.
        """
        bands = len(self.matrix)
        factor = cholesky_banded((self.matrix + self.roughness).reshape(bands, -1), lower=True, check_finite=False), True
        first = cho_solve_banded(factor, self.right.ravel(), check_finite=False).reshape(self.right.shape)
        rest = self.right - self._multiply(first)
        unknowns = first + cho_solve_banded(factor, rest.ravel(), check_finite=False).reshape(self.right.shape)
        explained = np.einsum("nk,nk->n", 2 * self.right - self._multiply(unknowns), unknowns)
        for place, change in self.changes:
            unknowns[:, place] = unknowns[:, place] @ change.T
        return unknowns, explained

    def _multiply(self, x: Array) -> Array:
        """The matrices without roughness, times x (N, K + degree)."""
        product = self.matrix[0] * x
        for beside, diagonal in enumerate(self.matrix[1:], 1):
            product[:, beside:] += diagonal[:, :-beside] * x[:, :-beside]
            product[:, :-beside] += diagonal[:, :-beside] * x[:, beside:]
        return np.asarray(product)
