"""What is fitted, on which points, and how far a fit is off.

A *domain* is a pair `lo`, `hi` of shape (N,), lo <= hi. Errors are the largest difference found on a uniform grid that
includes both ends. Where a function is not finite somewhere on its domain, no fit exists: the parameters stay finite
and the error is infinite.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from mncompress.spline._arrays import Array, Indices, as_finite
from mncompress.spline._histogram import Histogram, weigh

ERROR_POINTS = 1537
"""1536 is a multiple of twice most candidate numbers of spline intervals: the grid meets all knots and all middles of
intervals, where the error of a spline peaks. For the others (7, 15, 31, 63, 127) it has twelve points an interval at least."""
FEWER_POINTS = 513
"""Enough for what has at most 63 intervals, or for a mean."""
BLOCK = 2**18
"""Function values held at a time, per block of neurons."""
NARROWEST = 2.0**-16
"""Half-width of a domain relative to its center below which float32 can no longer resolve it."""
SMALLEST = 1e-6
"""The same for domains around zero."""
LARGEST_VALUE = 1e30
"""Function values are cut off here before fitting, so that fits stay free of overflow."""


class ScalarFunctions(Protocol):
    """N scalar functions, one per neuron, evaluated side by side in float64."""

    @property
    def n(self) -> int:
        """Number of functions."""

    def __call__(self, u: Array) -> Array:
        """The values at `u` (G, N), of the same shape."""

    def derivative(self, u: Array) -> Array:
        """The derivatives by `u` at `u` (G, N), of the same shape."""

    def select(self, indices: Indices) -> "ScalarFunctions":
        """The functions at `indices` (M,), in that order."""


class Form(Protocol):
    """N fitted functions: what `Affine`, `CubicSpline`, `PiecewiseLinear`, `Polynomial` and `Native` have in common."""

    @property
    def n(self) -> int:
        """Number of functions."""

    def evaluate(self, u: Array) -> Array:
        """The values at `u` (..., N), of the same shape."""

    def derivative(self, u: Array) -> Array:
        """The derivatives by `u` at `u` (..., N), of the same shape."""

    def select(self, indices: Indices) -> Self:
        """The functions at `indices` (M,), in that order."""


def as_domain(n: int, lo: npt.ArrayLike, hi: npt.ArrayLike) -> tuple[Array, Array]:
    """Check a domain of `n` functions; scalars stand for all of them.

    Raises:
        ValueError: the shape differs, an end is not finite, or lo > hi somewhere.
    """
    ends = [np.broadcast_to(end, (n,)) if np.ndim(end) == 0 else end for end in (lo, hi)]
    low, high = (as_finite(name, end, (n,)) for name, end in zip(("lo", "hi"), ends, strict=True))
    if (low > high).any():
        raise ValueError(f"lo > hi for {np.count_nonzero(low > high)} of {n} functions")
    return low, high


def center_and_half_width(lo: Array, hi: Array) -> tuple[Array, Array]:
    """Center and half-width of each domain, widened where float32 cannot resolve it (a single point, for one)."""
    center = lo + (hi - lo) / 2
    return center, np.maximum((hi - lo) / 2, np.maximum(NARROWEST * np.abs(center), SMALLEST))


def make_grid(lo: Array, hi: Array, points: int) -> Array:
    """`points` equidistant points of each domain, both ends included exactly, of shape (points, N)."""
    weight = np.linspace(0, 1, points)[:, None]
    return lo * (1 - weight) + hi * weight


def neuron_blocks(n: int, points: int) -> Iterator[Indices]:
    """Consecutive blocks of neurons, each small enough to hold `points` values per neuron; at least one block."""
    size = max(1, BLOCK // points)
    for first in range(0, max(n, 1), size):
        yield np.arange(first, min(first + size, n))


def sample(function: ScalarFunctions, u: Array, *, derivative: bool = False) -> Array:
    """The values (or derivatives) at `u` (G, N), a block of neurons at a time; they may be NaN or infinite."""
    values = np.empty(u.shape)
    for block in neuron_blocks(function.n, len(u)):
        part = function.select(block)
        with np.errstate(all="ignore"):
            points = u.take(block, axis=1)      # faster than an index
            values[:, block] = part.derivative(points) if derivative else part(points)
    return values


def sample_finite(function: ScalarFunctions, u: Array, *, derivative: bool = False) -> Array:
    """As `sample`, with NaN as 0 and what is too large cut off."""
    values = sample(function, u, derivative=derivative)
    return np.clip(np.nan_to_num(values, copy=False), -LARGEST_VALUE, LARGEST_VALUE)


@dataclass(frozen=True, eq=False)
class Target:
    """N functions on their domains, sampled once: what several forms are fitted to and compared with.

    Made by `make_target`. All points and values are (G, N).
    """

    function: ScalarFunctions
    lo: Array
    """(N,)"""
    hi: Array
    """(N,)"""
    histogram: Histogram | None
    """What the functions are given: fits then minimise the mean square error over it, else the largest error."""
    points: int
    """Of a uniform grid, both ends of the domain included."""
    extra: Array
    """Further points (K, N); those outside of the domain count as its ends."""

    @property
    def n(self) -> int:
        """Number of functions."""
        return len(self.lo)

    @cached_property
    def u(self) -> Array:
        """All points, ascending."""
        grid = make_grid(self.lo, self.hi, self.points)
        return np.sort(np.concatenate([grid, np.clip(self.extra, self.lo, self.hi)]), axis=0) if len(self.extra) else grid

    @cached_property
    def values(self) -> Array:
        """As the function gives them, so NaN and infinities among them."""
        return sample(self.function, self.u)

    @cached_property
    def weights(self) -> Array:
        """Of the points in a mean over what the functions are given; evenly over the domain without a histogram."""
        return weigh(self.u, self.histogram)

    def measure(self, form: Form) -> tuple[Array, Array]:
        """Largest absolute and root mean square difference from N forms, each (N,); infinite where a value is not finite."""
        largest, mean = np.empty(self.n), np.empty(self.n)
        for block in neuron_blocks(self.n, len(self.u)):
            with np.errstate(all="ignore"):
                u, values, weights = (part.take(block, axis=1) for part in (self.u, self.values, self.weights))
                difference = np.abs(form.select(block).evaluate(u) - values)
                largest[block] = difference.max(axis=0)
                mean[block] = np.sqrt(np.einsum("gn,gn,gn->n", weights, difference, difference))
        return tuple(np.where(np.isnan(error), np.inf, error) for error in (largest, mean))  # type: ignore[return-value]


def make_target(function: ScalarFunctions, lo: npt.ArrayLike, hi: npt.ArrayLike, histogram: Histogram | None = None,
                points: int = ERROR_POINTS, extra: Array | None = None) -> Target:
    """Functions on uniform grids of their domains; sampled when that is asked for.

    Args:
        function: N functions.
        lo: lower ends of the domains, (N,).
        hi: upper ends, (N,).
        histogram: what they are given, if fits and mean errors should go by it.
        points: of the grid, both ends included.
        extra: further points (K, N).

    Raises:
        ValueError: `lo` and `hi` are not a domain, or the histogram is of other functions.
    """
    low, high = as_domain(function.n, lo, hi)
    if histogram is not None and histogram.n != function.n:
        raise ValueError(f"a histogram of {histogram.n} functions was given for {function.n}")
    return Target(function, low, high, histogram, points, np.empty((0, function.n)) if extra is None else extra)


def max_abs_error(
    function: ScalarFunctions, form: Form, lo: npt.ArrayLike, hi: npt.ArrayLike, points: int = ERROR_POINTS
) -> Array:
    """Largest |form - function| of each neuron on a uniform grid of its domain.

    Args:
        function: N functions.
        form: N forms, in the same order.
        lo: lower ends of the domains, (N,).
        hi: upper ends, (N,).
        points: grid points per neuron, both ends included.

    Returns:
        The errors, (N,); infinite where a value is not finite.

    Raises:
        ValueError: `lo` or `hi` is not a domain of N functions.
    """
    return make_target(function, lo, hi, points=points).measure(form)[0]
