"""The best constant and the best line of each function, in the sense of the largest error."""

import numpy as np
import numpy.typing as npt

from mncompress.spline._arrays import Array
from mncompress.spline._functions import (
    ERROR_POINTS,
    ScalarFunctions,
    as_domain,
    center_and_half_width,
    make_grid,
    sample,
    sample_finite,
)

SLOPE_POINTS = 257
BISECTIONS = 48


def _midrange(values: Array) -> tuple[Array, Array]:
    """Middle and half-width of the range of `values` (G, N); the half-width is infinite where a value is not finite."""
    low, high = values.min(axis=0), values.max(axis=0)
    finite = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(finite, low, 0.0), np.where(finite, high, 0.0)
    return low + (high - low) / 2, np.where(finite, (high - low) / 2, np.inf)


def fit_constant(function: ScalarFunctions, lo: npt.ArrayLike, hi: npt.ArrayLike) -> tuple[Array, Array]:
    """The constant closest to each function: the middle of its range.

    Args:
        function: N functions.
        lo: lower ends of the domains, (N,).
        hi: upper ends, (N,).

    Returns:
        The constants and their largest absolute errors on the domains, each (N,).

    Raises:
        ValueError: `lo` and `hi` are not a domain.
    """
    low, high = as_domain(function.n, lo, hi)
    return _midrange(sample(function, make_grid(low, high, ERROR_POINTS)))


def _minimax_slope(y: Array) -> Array:
    """Slope per grid step of the line that is closest to `y` (G, N) in the largest error.

    Half the range of y - m·x is convex in m, and its subgradient has the sign of (place of the minimum) - (place of the
    maximum): bisect between the smallest and the largest difference quotient.
    """
    quotients = np.diff(y, axis=0)
    low, high = quotients.min(axis=0), quotients.max(axis=0)
    x, y = np.arange(len(y)), np.ascontiguousarray(y.T)
    for _ in range(BISECTIONS):
        slope = low + (high - low) / 2
        rest = y - slope[:, None] * x
        too_steep = rest.argmax(axis=1) < rest.argmin(axis=1)
        low, high = np.where(too_steep, low, slope), np.where(too_steep, slope, high)
    return np.asarray(low + (high - low) / 2)


def fit_affine(function: ScalarFunctions, lo: npt.ArrayLike, hi: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """The line slope·u + intercept closest to each function in the largest error (minimax, to grid accuracy).

    Args:
        function: N functions.
        lo: lower ends of the domains, (N,).
        hi: upper ends, (N,).

    Returns:
        Slopes, intercepts and largest absolute errors on the domains, each (N,).

    Raises:
        ValueError: `lo` and `hi` are not a domain.
    """
    low, high = as_domain(function.n, lo, hi)
    center, half_width = center_and_half_width(low, high)
    grid = make_grid(center - half_width, center + half_width, SLOPE_POINTS)
    slope = _minimax_slope(sample_finite(function, grid)) * (SLOPE_POINTS - 1) / (2 * half_width)
    u = make_grid(low, high, ERROR_POINTS)
    with np.errstate(all="ignore"):
        intercept, error = _midrange(sample(function, u) - slope * u)
    return slope, intercept, error
