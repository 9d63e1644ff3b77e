"""Cubic splines on uniform knots, one per neuron (convention: see the package docstring)."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import interpolate

from mncompress.spline._arrays import Array, Indices, as_finite, round_float32
from mncompress.spline._functions import LARGEST_VALUE, ScalarFunctions, Target, center_and_half_width, make_target, sample_finite

INTERVALS = (1, 2, 3, 4, 6, 8, 12, 15, 24, 31, 48, 63, 96, 127, 192, 256)
"""The numbers of intervals worth trying: at most 60 % more than a finer choice would find. With its continuation a table of 15,
31, 63 or 127 fills one, two, four or eight AVX-512 registers."""
MOST_INTERVALS = 63
"""That are fitted by least squares. With many, interpolation is nearly as good."""


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

    def _locate(self, u: Array) -> tuple[Array, Array, Array]:
        """Coefficients (..., N, 4) of the nearest interval, t in [0, 1] in it, and how far s lies outside of [0, K]."""
        with np.errstate(over="ignore"):
            s = (np.asarray(u, dtype=np.float64) - self.start) * self.inverse_step
        inside = np.clip(s, 0.0, self.intervals)
        interval = np.fmin(np.floor(inside), self.intervals - 1)  # fmin: a NaN must not reach the cast to int
        return self.coefficients[np.arange(self.n), interval.astype(np.intp)], inside - interval, s - inside

    def evaluate(self, u: Array) -> Array:
        """The values at `u` (..., N): NaN at NaN; at ±∞ what the arithmetic gives (±∞, or NaN with a flat end)."""
        c, t, outside = self._locate(u)
        inner = c[..., 0] + t * (c[..., 1] + t * (c[..., 2] + t * c[..., 3]))
        slope = c[..., 1] + t * (2 * c[..., 2] + t * 3 * c[..., 3])
        with np.errstate(over="ignore", invalid="ignore"):
            return inner + outside * slope

    def derivative(self, u: Array) -> Array:
        """The derivatives by `u` at `u` (..., N)."""
        c, t, _ = self._locate(u)
        return (c[..., 1] + t * (2 * c[..., 2] + t * 3 * c[..., 3])) * self.inverse_step

    def select(self, indices: Indices) -> "CubicSpline":
        """The splines at `indices` (M,)."""
        return CubicSpline(self.start[indices], self.inverse_step[indices], self.coefficients[indices])


def _make_knots(target: Target, intervals: int) -> tuple[Array, Array, Array]:
    """Start and inverse step (N,), and the knots (K + 1, N); rounded first, so that they are those of a float32 kernel."""
    if intervals < 1:
        raise ValueError(f"a spline needs at least one interval, got {intervals = }")
    center, half_width = center_and_half_width(target.lo, target.hi)
    start = round_float32(center - half_width)
    inverse_step = round_float32(intervals / (2 * half_width))
    return start, inverse_step, start + np.arange(intervals + 1.0)[:, None] / inverse_step


def _fit_least_squares(target: Target, intervals: int, degree: int) -> CubicSpline:
    """Splines of degree 1 or 3 with the least weighted mean square error, degree - 1 times continuously differentiable.

    In s the basis of B-splines is the same for all functions, so that their normal equations are a matrix product.
    """
    start, inverse_step, _ = _make_knots(target, intervals)
    s = np.linspace(0, intervals, len(target.u))
    weights, values = target.weights.T, np.clip(np.nan_to_num(target.values.T), -LARGEST_VALUE, LARGEST_VALUE)
    ends = np.zeros(degree), np.arange(intervals + 1.0), np.full(degree, float(intervals))
    size = intervals + degree
    splines = interpolate.BSpline(np.concatenate(ends), np.eye(size), degree)
    basis = splines(s)
    gram = np.zeros((target.n, size, size))
    for beside in range(degree + 1):
        i = np.arange(size - beside)
        gram[:, i, i + beside] = gram[:, i + beside, i] = weights @ (basis[:, i] * basis[:, i + beside])
    solution = np.linalg.solve(gram, ((weights * values) @ basis)[..., None])[..., 0]
    coefficients = np.zeros((target.n, intervals, 4))
    for power in range(degree + 1):
        coefficients[..., power] = solution @ splines(np.arange(intervals), power).T / math.factorial(power)
    return CubicSpline(start, inverse_step, round_float32(coefficients))


def _is_weighted(target: Target, intervals: int) -> bool:
    """Whether to fit by least squares: with many intervals, or in a domain that float32 cannot resolve, it gains nothing."""
    _, half_width = center_and_half_width(target.lo, target.hi)
    wide = not (2 * half_width > (target.hi - target.lo) * (1 + 1e-9)).any()
    return target.histogram is not None and intervals <= MOST_INTERVALS and wide and not len(target.kinks)


def approximate_cubic_spline(target: Target, intervals: int) -> CubicSpline:
    """As `fit_cubic_spline`, of functions that are sampled already, and without measuring the error.

    With a histogram up to `MOST_INTERVALS` intervals are fitted by weighted least squares.
    """
    if _is_weighted(target, intervals):
        return _fit_least_squares(target, intervals, 3)
    start, inverse_step, knots = _make_knots(target, intervals)
    ends = sample_finite(target.function, knots[[0, -1]], derivative=True) / inverse_step
    spline = interpolate.CubicSpline(np.arange(intervals + 1.0), sample_finite(target.function, knots),
                                     bc_type=((1, ends[0]), (1, ends[1])))
    coefficients = spline.c[::-1].transpose(2, 1, 0)  # scipy: (4, K, N), highest power first
    return CubicSpline(start, inverse_step, round_float32(coefficients))


def approximate_linear_spline(target: Target, intervals: int) -> CubicSpline:
    """As `fit_linear_spline`, otherwise as `approximate_cubic_spline`."""
    if _is_weighted(target, intervals):
        return _fit_least_squares(target, intervals, 1)
    start, inverse_step, knots = _make_knots(target, intervals)
    values = sample_finite(target.function, knots)
    coefficients = np.zeros((target.n, intervals, 4))
    coefficients[..., 0], coefficients[..., 1] = round_float32(values[:-1].T), round_float32(np.diff(values, axis=0).T)
    return CubicSpline(start, inverse_step, coefficients)


def fit_cubic_spline(
    function: ScalarFunctions, lo: npt.ArrayLike, hi: npt.ArrayLike, intervals: int
) -> tuple[CubicSpline, Array]:
    """Interpolate each function at `intervals` + 1 uniform knots, twice continuously differentiable.

    The boundary condition is the function's own derivative at both ends ("clamped"), so the error falls as K**-4 for
    smooth functions (de Boor, A Practical Guide to Splines, 1978, chapter V). All parameters are rounded to float32,
    which leaves jumps of a few float32 roundings of the coefficients at the knots; the error includes it.

    Args:
        function: N functions.
        lo: lower ends of the domains, (N,).
        hi: upper ends, (N,).
        intervals: K, at least 1.

    Returns:
        The splines and their largest absolute errors on the domains, (N,).

    Raises:
        ValueError: `lo` and `hi` are not a domain, or `intervals` < 1.
    """
    target = make_target(function, lo, hi)
    spline = approximate_cubic_spline(target, intervals)
    return spline, target.measure(spline)[0]


def fit_linear_spline(
    function: ScalarFunctions, lo: npt.ArrayLike, hi: npt.ArrayLike, intervals: int
) -> tuple[CubicSpline, Array]:
    """Join the values of each function at `intervals` + 1 uniform knots by lines: a spline whose upper coefficients are 0.

    The error (n,) falls as K**-2 for smooth functions. Arguments, shapes, results and errors are those of `fit_cubic_spline`.
    """
    target = make_target(function, lo, hi)
    spline = approximate_linear_spline(target, intervals)
    return spline, target.measure(spline)[0]
