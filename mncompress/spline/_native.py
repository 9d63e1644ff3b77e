"""One native activation with stretched and shifted axes, y = alpha·act(beta·u + delta) + eta, one per neuron."""

from dataclasses import dataclass

import numpy as np

from mncompress.spline._acts import ACT_DERIVATIVES, ACT_VALUES
from mncompress.spline._arrays import Array, Indices, as_finite
from mncompress.spline._functions import Target, center_and_half_width, neuron_blocks, sample_finite
from mncompress.spline._histogram import weigh
from mncompress.spline._projection import TINY, fit_act
from mncompress.types import RELU_LIKE, Act

FIT_POINTS = 97
FLOAT32_ROUNDING = 2.0**-23
"""Half an ulp for the activation, half an ulp for alpha."""


@dataclass(frozen=True, eq=False)
class Native:
    """N functions alpha·act(beta·u + delta) + eta with one `act`.

    Raises:
        ValueError: the shapes are not all (N,), or an element is not finite.
    """

    act: Act
    alpha: Array
    beta: Array
    delta: Array
    eta: Array

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "delta", "eta"):
            object.__setattr__(self, name, as_finite(name, getattr(self, name), np.shape(self.alpha)[:1]))

    @property
    def n(self) -> int:
        """Number of functions."""
        return len(self.alpha)

    def evaluate(self, u: Array) -> Array:
        """The values at `u` (..., N): NaN at NaN; at ±∞ what the arithmetic gives."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.alpha * ACT_VALUES[self.act](self.beta * u + self.delta) + self.eta

    def derivative(self, u: Array) -> Array:
        """The derivatives by `u` at `u` (..., N)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.alpha * self.beta * ACT_DERIVATIVES[self.act](self.beta * u + self.delta)

    def select(self, indices: Indices) -> "Native":
        """The functions at `indices` (M,)."""
        return Native(self.act, self.alpha[indices], self.beta[indices], self.delta[indices], self.eta[indices])


def _rounded_size(act: Act, atoms: Array) -> Array:
    """What float32 rounding is relative to, (N,): runtimes compute exp(z) - 1 and 1 + erf(z), so 1 if not a relu."""
    size: Array = np.abs(atoms).max(axis=1)
    return size if act in RELU_LIKE else np.maximum(size, 1.0)


def fit_native(target: Target, act: Act) -> tuple[Native, Array]:
    """Fit alpha·act(beta·u + delta) + eta to each function by least squares, weighted where there is a histogram.

    alpha and eta follow linearly from beta and delta (variable projection: Golub and Pereyra, doi:10.1137/0710036),
    which Levenberg-Marquardt finds from several starts. A function of that very form is recovered to rounding if its
    knee or center lies in the domain or close to it and 0.2 <= |beta|·(hi - lo) <= 30. For relu and leaky_relu
    |beta| = 1; for sigmoid and tanh beta > 0.

    Args:
        target: N functions.
        act: the activation.

    Returns:
        The fits; and a bound (N,) of the rounding that a float32 activation multiplied by a large alpha brings (a nearly
        affine function is a tanh with a huge alpha), which comes on top of the error that is measured.
    """
    center, half_width = center_and_half_width(target.lo, target.hi)
    x = -np.cos(np.linspace(0, np.pi, FIT_POINTS))  # denser at the ends, where a knee has few points behind it
    y = sample_finite(target.function, center + half_width * x[:, None]).T
    if target.histogram is None:
        weights = np.full((1, FIT_POINTS), 1 / FIT_POINTS)
    else:
        grid = np.clip(center + half_width * x[:, None], target.lo, target.hi)
        weights = weigh(grid, target.histogram).T
    mean = y.mean(axis=1)
    spread = np.maximum(np.abs(y - mean[:, None]).max(axis=1), TINY)
    rows = (y - mean[:, None]) / spread[:, None]
    parts = [fit_act(act, x, rows[block], weights if len(weights) == 1 else weights[block])
             for block in neuron_blocks(len(y), 4 * FIT_POINTS)]
    alpha, b, d, offset = (np.concatenate(values) for values in zip(*parts, strict=True))
    alpha = alpha * spread
    rounding = FLOAT32_ROUNDING * np.abs(alpha) * _rounded_size(act, ACT_VALUES[act](b[:, None] * x + d[:, None]))
    beta, delta, eta = b / half_width, d - b * center / half_width, mean + offset * spread
    if act in RELU_LIKE:
        alpha, delta, beta = alpha * np.abs(beta), delta / np.abs(beta), np.sign(beta)
    return Native(act, alpha, beta, delta, eta), rounding
