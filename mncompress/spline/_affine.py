"""The best constant and the best line of each function, in the sense of the largest error or of the mean square error."""

from dataclasses import dataclass

import numpy as np

from mncompress.spline._arrays import Array, Indices, as_finite
from mncompress.spline._functions import LARGEST_VALUE, Target, center_and_half_width, make_target

SLOPE_POINTS = 257
BISECTIONS = 48


@dataclass(frozen=True, eq=False)
class Affine:
    """N lines slope·u + intercept; constants where the slope is zero.

    Raises:
        ValueError: the shapes differ, or an element is not finite.
    """

    slope: Array
    """(N,)"""
    intercept: Array
    """(N,)"""

    def __post_init__(self) -> None:
        for name in ("slope", "intercept"):
            object.__setattr__(self, name, as_finite(name, getattr(self, name), np.shape(self.slope)[:1]))

    @property
    def n(self) -> int:
        """Number of lines."""
        return len(self.slope)

    def evaluate(self, u: Array) -> Array:
        """The values at `u` (..., N)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.slope * u + self.intercept

    def derivative(self, u: Array) -> Array:
        """The derivatives by `u` at `u` (..., N)."""
        return np.where(np.isnan(u), np.nan, self.slope)

    def select(self, indices: Indices) -> "Affine":
        """The lines at `indices` (M,)."""
        return Affine(self.slope[indices], self.intercept[indices])


def fit_constant(target: Target) -> Affine:
    """The constants closest to the functions: the middle of their ranges, or with a histogram their means."""
    return Affine(np.zeros(target.n), _best_constant(target, _finite(target.values)))


def fit_line(target: Target) -> Affine:
    """The lines closest to the functions: minimax, or with a histogram by weighted least squares."""
    center, half_width = center_and_half_width(target.lo, target.hi)
    around = target
    if (target.hi <= target.lo).any():      # a single point has no slope, its surroundings have
        around = make_target(target.function, center - half_width, center + half_width, target.histogram, SLOPE_POINTS)
    x, y = (around.u - center) / half_width, _finite(around.values)
    if target.histogram is None:
        step = max(1, (len(x) - 1) // (SLOPE_POINTS - 1))
        slope = _minimax_slope(x[::step], y[::step])
    else:
        away = around.weights * (x - np.einsum("gn,gn->n", around.weights, x))
        square = np.maximum(np.einsum("gn,gn->n", away, x), np.finfo(np.float64).tiny)
        slope = np.einsum("gn,gn->n", away, y) / square
    slope = slope / half_width
    return Affine(slope, _best_constant(target, _finite(target.values) - slope * (target.u - center)) - slope * center)


def _best_constant(target: Target, values: Array) -> Array:
    if target.histogram is None:
        return np.asarray(values.min(axis=0) / 2 + values.max(axis=0) / 2)
    return np.asarray(np.einsum("gn,gn->n", target.weights, values))


def _finite(values: Array) -> Array:
    return np.clip(np.nan_to_num(values), -LARGEST_VALUE, LARGEST_VALUE)


def _minimax_slope(x: Array, y: Array) -> Array:
    """Slope of the line that is closest to `y` (G, N) at `x` (G, N), ascending, in the largest error.

    Half the range of y - m·x is convex in m, and its subgradient has the sign of (place of the minimum) - (place of the
    maximum): bisect between the smallest and the largest difference quotient.
    """
    overall = (y[-1] - y[0]) / (x[-1] - x[0])
    run = np.diff(x, axis=0)
    quotients = np.divide(np.diff(y, axis=0), run, out=np.broadcast_to(overall, run.shape).copy(), where=run > 0)
    low, high = quotients.min(axis=0), quotients.max(axis=0)
    x, y = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    for _ in range(BISECTIONS):
        slope = low + (high - low) / 2
        rest = y - slope[:, None] * x
        too_steep = rest.argmax(axis=1) < rest.argmin(axis=1)
        low, high = np.where(too_steep, low, slope), np.where(too_steep, slope, high)
    return np.asarray(low + (high - low) / 2)
