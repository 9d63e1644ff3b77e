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
ROUGHNESS = 1e-8
"""Of the mean weight of an interval, times the squares of the factors' differences of order (p + 1) / 2."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Functions as they are fitted, everything (N, G): points ascending, weights, and values without their mean."""

    u: Array
    weights: Array
    values: Array
    mean: Array
    """(N,)"""

    @classmethod
    def of(cls, target: Target, indices: Indices) -> Self:
        """Those of some functions; values that are no numbers count as 0."""
        u, weights, values = (np.ascontiguousarray(part[:, indices].T) for part in (target.u, target.weights, target.values))
        values = np.clip(np.nan_to_num(values, copy=False), -LARGEST_VALUE, LARGEST_VALUE)
        mean = np.einsum("ng,ng->n", weights, values)
        return cls(u, weights, values - mean[:, None], mean)

    def select(self, indices: Indices) -> Self:
        """The functions at `indices` (M,)."""
        return type(self)(self.u[indices], self.weights[indices], self.values[indices], self.mean[indices])


def solve(samples: Samples, knots: Knots, degree: int) -> tuple[Array, Array]:
    """Fit splines of degree 1 or 3, degree - 1 times continuously differentiable between the knots.

    Returns:
        The coefficients (N, K, 4) of t^0 to t^3; and the root mean square errors (N,), as exact as a difference of mean squares is.
    """
    n, intervals = len(samples.u), knots.intervals
    s = (samples.u - knots.start[:, None]) * knots.inverse_step[:, None]
    piece = np.clip(np.floor(s), -1, intervals).astype(np.intp)
    points = np.bincount((piece + 1 + np.arange(n)[:, None] * (intervals + 2)).ravel(), minlength=n * (intervals + 2))
    borders = points.reshape(n, -1).cumsum(1)[:, :-1]      # of the intervals, among the points
    below, above = piece < 0, piece == intervals
    t = np.where(below | above, 0.0, s - piece)

    weights, moments, products = samples.weights, [], []
    for power in range(2 * degree + 1):
        moments.append(_sum_between(weights, borders))
        if power <= degree:
            products.append(_sum_between(weights * samples.values, borders))
        weights = weights * t
    equations = _Equations(n, intervals, degree)
    cardinal = CARDINAL[degree]
    equations.add_(slice(0, intervals), cardinal, np.stack(moments, -1), np.stack(products, -1))
    at_end = np.stack([cardinal.sum(0), np.arange(degree + 1) @ cardinal])       # value and slope at t = 1
    counts = points.reshape(n, -1)
    for rows, place, origin, columns, tail in (
            (cardinal[:2], 0, 0, slice(0, counts[:, 0].max(initial=0)), below),
            (at_end, intervals - 1, intervals, slice(samples.u.shape[1] - counts[:, -1].max(initial=0), None), above)):
        weights = np.where(tail[:, columns], samples.weights[:, columns], 0.0)
        powers = (s[:, columns] - origin) ** np.arange(3)[:, None, None]
        equations.add_(slice(place, place + 1), rows, np.einsum("ng,png->np", weights, powers)[:, None],
                       np.einsum("ng,ng,png->np", weights, samples.values[:, columns], powers[:2])[:, None])
    solution, explained = equations.solve()
    coefficients = np.zeros((n, intervals, 4))
    coefficients[..., :degree + 1] = np.lib.stride_tricks.sliding_window_view(solution, degree + 1, axis=1) @ cardinal.T
    coefficients[..., 0] += samples.mean[:, None]
    total = np.einsum("ng,ng,ng->n", samples.weights, samples.values, samples.values)
    return coefficients, np.sqrt(np.maximum(total - explained, 0.0))


def _sum_between(values: Array, borders: Indices) -> Array:
    """Sums of values (N, G) from each border (N, K + 1) to the next: (N, K)."""
    below = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=below[:, 1:])
    return np.diff(np.take_along_axis(below, borders, 1), axis=1)


class _Equations:
    """Normal equations of N fits: the lower diagonals of their matrices, one after another, and the right-hand sides."""

    def __init__(self, n: int, intervals: int, degree: int) -> None:
        self.matrix, self.roughness = np.zeros((2, degree + 1, n, intervals + degree))
        self.right = np.zeros((n, intervals + degree))
        differences = np.array([1.0, -1.0] if degree == 1 else [1.0, -2.0, 1.0])
        for a in range(len(differences)):
            for beside in range(len(differences) - a):
                places = slice(a, intervals + degree + 1 - len(differences) + a)
                self.roughness[beside][:, places] += ROUGHNESS / intervals * differences[a] * differences[a + beside]

    def add_(self, places: slice, rows: Array, moments: Array, products: Array) -> None:
        """Add points in some intervals, where spline k + a is the sum over i of rows[i, a] t^i.

        Args:
            places: the intervals k.
            rows: (P, degree + 1)
            moments: sums of w t^i, (N, intervals, 2 P - 1).
            products: sums of w y t^i, (N, intervals, P).
        """
        right = products @ rows
        for a in range(rows.shape[1]):
            own = slice(places.start + a, places.stop + a)
            self.right[:, own] += right[..., a]
            for beside in range(rows.shape[1] - a):
                self.matrix[beside][:, own] += moments @ np.convolve(rows[:, a], rows[:, a + beside])

    def solve(self) -> tuple[Array, Array]:
        """The factors of the splines (N, K + degree), and the mean square (N,) that they explain.

        Solved for what the roughness took away a second time, it only matters where the points do not decide.
        """
        bands = len(self.matrix)
        factor = cholesky_banded((self.matrix + self.roughness).reshape(bands, -1), lower=True, check_finite=False), True
        first = cho_solve_banded(factor, self.right.ravel(), check_finite=False).reshape(self.right.shape)
        rest = self.right - self._multiply(first)
        solution = first + cho_solve_banded(factor, rest.ravel(), check_finite=False).reshape(self.right.shape)
        return solution, np.einsum("nk,nk->n", 2 * self.right - self._multiply(solution), solution)

    def _multiply(self, x: Array) -> Array:
        """The matrices without roughness, times x (N, K + degree)."""
        product = self.matrix[0] * x
        for beside, diagonal in enumerate(self.matrix[1:], 1):
            product[:, beside:] += diagonal[:, :-beside] * x[:, :-beside]
            product[:, :-beside] += diagonal[:, :-beside] * x[:, beside:]
        return np.asarray(product)
