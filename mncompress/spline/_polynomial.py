"""Polynomials of low degree on a normalised domain, one per neuron."""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

from mncompress.spline._arrays import Array, Indices, as_finite, round_float32
from mncompress.spline._functions import Target, center_and_half_width, sample_finite
from mncompress.spline._histogram import weigh

NODES = 64
"""Chebyshev nodes at which a function is sampled: many more than coefficients, so that aliasing does not matter."""


@dataclass(frozen=True, eq=False)
class Polynomial:
    """N polynomials P(x), x = (u - center)·inverse_half_width, continued linearly outside of [-1, 1].

    With xc = clip(x, -1, 1) the value is P(xc) + (x - xc)·P'(xc).

    Raises:
        ValueError: a shape does not fit, there is no coefficient, or an element is not finite.
    """

    center: Array
    """(N,)."""
    inverse_half_width: Array
    """(N,)."""
    coefficients: Array
    """(N, D + 1): `coefficients[n, p]` multiplies x**p."""

    def __post_init__(self) -> None:
        center = as_finite("center", self.center, (None,))
        object.__setattr__(self, "center", center)
        inverse = as_finite("inverse_half_width", self.inverse_half_width, center.shape)
        object.__setattr__(self, "inverse_half_width", inverse)
        object.__setattr__(self, "coefficients", as_finite("coefficients", self.coefficients, (self.n, None)))
        if self.degree < 0:
            raise ValueError(f"coefficients: {self.coefficients.shape = }, expected at least one coefficient")

    @property
    def n(self) -> int:
        """Number of polynomials."""
        return len(self.center)

    @property
    def degree(self) -> int:
        """Degree D."""
        return int(self.coefficients.shape[1]) - 1

    def _slope(self, x: Array) -> Array:
        return horner(self.coefficients[:, 1:] * np.arange(1, self.degree + 1), x)

    def _normalise(self, u: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return (np.asarray(u, dtype=np.float64) - self.center) * self.inverse_half_width

    def evaluate(self, u: Array) -> Array:
        """The values at `u` (..., N): NaN at NaN; at ±∞ what the arithmetic gives (±∞, or NaN with a flat end)."""
        x = self._normalise(u)
        inside = np.clip(x, -1.0, 1.0)
        below, above = self._slope(np.full((2, self.n), [[-1.0], [1.0]]))
        slope: Array = np.where(x < 0, below, above)
        with np.errstate(over="ignore", invalid="ignore"):
            return horner(self.coefficients, inside) + (x - inside) * slope

    def derivative(self, u: Array) -> Array:
        """The derivatives by `u` at `u` (..., N)."""
        return self._slope(np.clip(self._normalise(u), -1.0, 1.0)) * self.inverse_half_width

    def select(self, indices: Indices) -> "Polynomial":
        """The polynomials at `indices` (M,)."""
        return Polynomial(self.center[indices], self.inverse_half_width[indices], self.coefficients[indices])


def horner(coefficients: Array, x: Array) -> Array:
    """Σₚ coefficients[:, p]·x**p at `x` (..., N); NaN at NaN even without coefficients."""
    y = 0.0 * x
    for c in coefficients.T[::-1]:
        y = y * x + c
    return y


def fit_polynomial(target: Target, degree: int) -> Polynomial:
    """Each function's truncated Chebyshev series, or with a histogram its weighted least squares fit at the Chebyshev nodes.

    The series is close to the minimax polynomial. For the degrees used here its error is at most about three times the
    smallest possible one (one plus the Lebesgue constant: Trefethen, Approximation Theory and Approximation Practice, 2019,
    chapter 15). All parameters are rounded to float32.

    Args:
        target: N functions.
        degree: D, from 0 to half the number of nodes.

    Raises:
        ValueError: `degree` is out of range.
    """
    if not 0 <= degree <= NODES // 2:
        raise ValueError(f"a degree from 0 to {NODES // 2} is needed, got {degree = }")
    center, half_width = center_and_half_width(target.lo, target.hi)
    # Rounded first, as for splines.
    center, inverse = round_float32(center), round_float32(1 / half_width)
    nodes = chebyshev.chebpts1(NODES)
    values = sample_finite(target.function, center + nodes[:, None] / inverse)
    basis = chebyshev.chebvander(nodes, degree)
    if target.histogram is None:
        series = basis.T @ values * (2 / NODES)
        series[0] /= 2
    else:
        weights = weigh(target.lo + (nodes[:, None] + 1) * (target.hi - target.lo) / 2, target.histogram).T
        products = (basis[:, :, None] * basis[:, None, :]).reshape(NODES, -1)
        gram = (weights @ products).reshape(-1, degree + 1, degree + 1)
        series = np.asarray(np.linalg.solve(gram, ((weights * values.T) @ basis)[..., None]), np.float64)[..., 0].T
    to_powers = np.zeros((degree + 1, degree + 1))
    for p in range(degree + 1):
        to_powers[: p + 1, p] = chebyshev.cheb2poly(np.eye(degree + 1)[p, : p + 1])
    return Polynomial(center, inverse, round_float32((to_powers @ series).T))
