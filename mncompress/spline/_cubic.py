"""Cubic splines on uniform knots, one per neuron (convention: see the package docstring)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate

from mncompress.spline._arrays import Array, Indices, as_finite, round_float32
from mncompress.spline._functions import ScalarFunctions, Target, center_and_half_width, neuron_blocks, sample_finite
from mncompress.spline._knots import Knots
from mncompress.spline._least_squares import Samples, solve


@dataclass(frozen=True, eq=False)
class CubicSpline:
    """N cubic splines of K intervals each, continued linearly with the boundary slope.

    Raises:
        ValueError: a shape does not fit, K is 0, an element is not finite, or an inverse step is not positive.
    """

    start: Array
    """First knot, (N,)."""
    inverse_step: Array
    """1 / width of an interval, (N,)."""
    coefficients: Array
    """(N, K, 4): `coefficients[n, k, p]` multiplies t**p on interval k."""

    def __post_init__(self) -> None:
        start = as_finite("start", self.start, (None,))
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "inverse_step", as_finite("inverse_step", self.inverse_step, start.shape))
        object.__setattr__(self, "coefficients", as_finite("coefficients", self.coefficients, (self.n, None, 4)))
        if self.intervals < 1:
            raise ValueError(f"coefficients: {self.coefficients.shape = }, expected at least one interval")
        if not (self.inverse_step > 0).all():
            raise ValueError(f"inverse_step must be positive, got {self.inverse_step.min()}")

    @property
    def n(self) -> int:
        """Number of splines."""
        return len(self.start)

    @property
    def intervals(self) -> int:
        """Number K of intervals."""
        return int(self.coefficients.shape[1])

    @property
    def knots(self) -> Knots:
        """Where they meet."""
        return Knots(self.start, self.inverse_step, self.intervals)

    def _locate(self, u: Array) -> tuple[Indices, Array, Array]:
        """The nearest interval (..., N), numbered through all splines, t in [0, 1] in it, and how far s lies outside of [0, K]."""
        with np.errstate(over="ignore"):
            s = (np.asarray(u, dtype=np.float64) - self.start) * self.inverse_step
        inside = np.clip(s, 0.0, self.intervals)
        interval = np.fmin(np.floor(inside), self.intervals - 1)  # fmin: a NaN must not reach the cast to int
        return interval.astype(np.intp) + np.arange(self.n) * self.intervals, inside - interval, s - inside

    def evaluate(self, u: Array) -> Array:
        """The values at `u` (..., N): NaN at NaN; at ±∞ what the arithmetic gives (±∞, or NaN with a flat end)."""
        place, t, outside = self._locate(u)
        c0, c1, c2, c3 = self.coefficients.reshape(-1, 4).T
        inner = c0.take(place) + t * (c1.take(place) + t * (c2.take(place) + t * c3.take(place)))
        first, last = self.coefficients[:, 0, 1], self.coefficients[:, -1, 1:] @ np.arange(1.0, 4.0)
        with np.errstate(over="ignore", invalid="ignore"):
            return inner + outside * np.where(outside < 0, first, last)

    def derivative(self, u: Array) -> Array:
        """The derivatives by `u` at `u` (..., N)."""
        place, t, _ = self._locate(u)
        _, c1, c2, c3 = self.coefficients.reshape(-1, 4).T
        return (c1.take(place) + t * (2 * c2.take(place) + t * 3 * c3.take(place))) * self.inverse_step

    def select(self, indices: Indices) -> "CubicSpline":
        """The splines at `indices` (M,)."""
        return CubicSpline(self.start[indices], self.inverse_step[indices], self.coefficients[indices])


def is_weighted(target: Target) -> NDArray[np.bool_]:
    """Which functions are fitted by least squares, (N,): not those of a domain that float32 cannot resolve."""
    _, half_width = center_and_half_width(target.lo, target.hi)
    wide = 2 * half_width <= (target.hi - target.lo) * (1 + 1e-9)
    return np.asarray(wide & (target.histogram is not None))


def weighted_blocks(target: Target) -> Iterator[Indices]:
    """These functions, a block at a time."""
    weighted = is_weighted(target)
    if weighted.any():
        blocks = (block[weighted[block]] for block in neuron_blocks(target.n, len(target.u)))
        yield from (block for block in blocks if block.size)


def fit_spline(target: Target, knots: Knots, degree: int) -> CubicSpline:
    """Splines of degree 1 or 3 on given knots: interpolation, or with a histogram weighted least squares; see `place_splines`.

    Interpolating lines are off by K**-2 for smooth functions, cubics, which take the function's own derivative at both ends
    ("clamped"), by K**-4 (de Boor, A Practical Guide to Splines, 1978, chapter V). All parameters are rounded to float32,
    which leaves jumps of a few float32 roundings of the coefficients at the knots.

    Args:
        target: N functions.
        knots: of N splines of K intervals.
        degree: 1 or 3; the upper coefficients of lines are 0.
    """
    spline = interpolate_spline(target, knots, degree)
    for block in weighted_blocks(target):
        spline.coefficients[block] = round_float32(solve(Samples.of(target, block), knots.select(block), degree)[0])
    return spline


def interpolate_spline(target: Target, knots: Knots, degree: int) -> CubicSpline:
    """The splines that are not fitted by least squares; the coefficients of the others are 0 yet."""
    coefficients = np.zeros((target.n, knots.intervals, 4))
    interpolated = np.flatnonzero(~is_weighted(target))
    if interpolated.size:
        coefficients[interpolated] = _interpolate(target.function.select(interpolated), knots.select(interpolated), degree)
    return CubicSpline(knots.start, knots.inverse_step, round_float32(coefficients))


def _interpolate(function: ScalarFunctions, knots: Knots, degree: int) -> Array:
    """Coefficients (N, K, 4) of lines, or of the cubic spline with the function's own derivatives at both ends."""
    values = sample_finite(function, knots.positions)
    if degree == 1:
        coefficients = np.zeros((function.n, knots.intervals, 4))
        coefficients[..., 0], coefficients[..., 1] = values[:-1].T, np.diff(values, axis=0).T
        return coefficients
    ends = sample_finite(function, knots.positions[[0, -1]], derivative=True) / knots.inverse_step
    spline = interpolate.CubicSpline(np.arange(knots.intervals + 1.0), values, bc_type=((1, ends[0]), (1, ends[1])))
    return np.asarray(spline.c[::-1].transpose(2, 1, 0))     # scipy: (4, K, N), highest power first
