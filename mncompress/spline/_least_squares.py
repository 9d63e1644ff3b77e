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
FEWEST_BY_END = 6
"""Intervals from which on the two ends have unknowns of their own: with fewer the two would be in each other's equations."""
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


class _Equations:
    """Normal equations of N fits: the lower diagonals of their matrices, one after another, and the right-hand sides.

    From the sums of w t^i (2 degree + 1, N, K + 2) and of w y t^i (degree + 1, N, K + 2), those of the tails first and last.

    With at least `FEWEST_BY_END` intervals the unknowns at the ends are value, slope and curvature there. A tail, whose moments may
    be enormous, then has equations for value and slope alone, and leaves all others as exact as they are.
    """

    def __init__(self, moments: Array, products: Array, degree: int) -> None:
        n, intervals = moments.shape[1], moments.shape[2] - 2
        size = intervals + degree
        self.degree, self.by_end = degree, intervals >= FEWEST_BY_END
        self.end = BY_END[degree]
        self.matrix, self.roughness = np.zeros((2, degree + len(self.end), n, size))
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
        for side in (0, 1) if self.by_end else ():
            self._change_end_(self.matrix, side)
            self._change_end_(self.roughness, side)
            own = self.right[:, self._own(side)]
            own[:] = own @ self._basis(side)
        for side in (0, 1):
            self._add_tail_(side, moments[:3, :, -side].T, products[:2, :, -side].T)

    def _own(self, side: int) -> slice:
        """The unknowns of the first (0) or the last end (1)."""
        return slice(0, len(self.end)) if side == 0 else slice(self.right.shape[1] - len(self.end), None)

    def _basis(self, side: int) -> Array:
        """The factors at an end from its unknowns: at the last end value and slope come last, and the slope is the other way."""
        return self.end if side == 0 else self.end[::-1, ::-1]

    def _change_end_(self, bands: Array, side: int) -> None:
        """Write the part of the matrices that an end is in, in its unknowns."""
        width, size = len(bands), self.right.shape[1]
        start = 0 if side == 0 else size - width
        row, column = np.tril_indices(width)
        block = np.zeros((bands.shape[1], width, width))
        block[:, row, column] = bands[row - column, :, start + column].T
        block[:, column, row] = block[:, row, column]
        change = np.eye(width)
        place = slice(0, len(self.end)) if side == 0 else slice(width - len(self.end), None)
        change[place, place] = self._basis(side)
        bands[row - column, :, start + column] = (change.T @ block @ change)[:, row, column].T

    def _add_tail_(self, side: int, moments: Array, products: Array) -> None:
        """Add the points beyond the first end (0) or the last (1), where a spline is a line in t, by their sums (N, powers)."""
        inwards = np.array([1.0, -1.0, 1.0]) if side else np.ones(3)
        moments, products = moments * inwards, products * inwards[:2]
        cardinal, size = CARDINAL[self.degree], self.right.shape[1]
        rows = np.eye(2) if self.by_end else cardinal[:2]       # value and slope at the end, by the unknowns from there
        for a in range(rows.shape[1]):
            one = a if side == 0 else size - 1 - a
            self.right[:, one] += products @ rows[:, a]
            for b in range(a + 1):
                other = b if side == 0 else size - 1 - b
                self.matrix[abs(one - other)][:, min(one, other)] += moments @ np.convolve(rows[:, a], rows[:, b])

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
        for side in (0, 1) if self.by_end else ():
            own = unknowns[:, self._own(side)]
            own[:] = own @ self._basis(side).T
        return unknowns, explained

    def _multiply(self, x: Array) -> Array:
        """The matrices without roughness, times x (N, K + degree)."""
        product = self.matrix[0] * x
        for beside, diagonal in enumerate(self.matrix[1:], 1):
            product[:, beside:] += diagonal[:, :-beside] * x[:, :-beside]
            product[:, :-beside] += diagonal[:, :-beside] * x[:, beside:]
        return np.asarray(product)
