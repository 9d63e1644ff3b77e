"""One native activation with stretched and shifted axes, y = alpha·act(beta·u + delta) + eta, one per neuron."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from mncompress.spline._acts import ACT_DERIVATIVES, ACT_VALUES
from mncompress.spline._arrays import Array, Indices, as_finite
from mncompress.spline._functions import (
    ScalarFunctions,
    as_domain,
    center_and_half_width,
    max_abs_error,
    neuron_blocks,
    sample_finite,
)
from mncompress.types import RELU_LIKE, Act

FIT_POINTS = 97
FIT_ERROR_POINTS = 513
ITERATIONS = 30
SCALES = np.geomspace(0.08, 24.0, 20)
"""|b| of the starts, in the normalised domain x in [-1, 1], where the activation's argument is b·x + d."""
CENTERS = np.linspace(-1.26, 1.26, 127)
"""-d/b of the starts."""
STARTS = 3
"""Starts refined per function."""
SCALE_LIMITS = (0.05, 100.0)
OFFSET_LIMIT = 8.0
"""|d| <= |b| + this: further out an act is a tail with an enormous factor, which float32 cannot carry."""
FLOAT32_ROUNDING = 2.0**-23
"""Half an ulp for the activation, half an ulp for alpha."""
TINY = 1e-280


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


@dataclass(frozen=True)
class _Problems:
    """P least-squares problems at their current b, d, with alpha and eta solved for (variable projection)."""

    b: Array
    d: Array
    alpha: Array
    cost: Array
    gradient: Array
    """Descent direction of the cost by (b, d), (P, 2)."""
    hessian: Array
    """Gauss-Newton matrix, (P, 2, 2)."""

    def take(self, indices: Indices) -> Self:
        return type(self)(**{name: value[indices] for name, value in vars(self).items()})

    def put_(self, indices: Indices, other: "_Problems") -> None:
        for name, value in vars(self).items():
            value[indices] = getattr(other, name)


def _project(act: Act, x: Array, y: Array, b: Array, d: Array) -> _Problems:
    """Solve for alpha and eta, and linearise what is left in b and d.

    `y` (P, G) has mean 0. Eliminating eta centers everything; eliminating alpha projects the derivatives on what is
    orthogonal to the activation (Kaufman's form of variable projection, doi:10.1007/BF01932995).
    """
    z = b[:, None] * x + d[:, None]
    slope = ACT_DERIVATIVES[act](z)
    basis = np.stack([ACT_VALUES[act](z), slope * x, slope], axis=1)
    basis -= basis.mean(axis=2, keepdims=True)
    gram = basis @ basis.transpose(0, 2, 1)
    norm = np.maximum(gram[:, 0, 0], TINY)
    alpha = np.einsum("pg,pg->p", basis[:, 0], y) / norm
    rest = y - alpha[:, None] * basis[:, 0]
    gradient = alpha[:, None] * np.einsum("pkg,pg->pk", basis[:, 1:], rest)
    cross = gram[:, 0, 1:]
    inner = gram[:, 1:, 1:] - cross[:, :, None] * cross[:, None, :] / norm[:, None, None]
    cost = np.einsum("pg,pg->p", rest, rest)
    return _Problems(b, d, alpha, cost, gradient, inner * (alpha * alpha)[:, None, None])


def _damped_step(problems: _Problems, damping: Array) -> tuple[Array, Array]:
    """Levenberg-Marquardt step of (b, d)."""
    h, g = problems.hessian, problems.gradient
    h00, h11 = (h[:, i, i] * (1 + damping) + TINY for i in (0, 1))
    h01 = h[:, 0, 1]
    determinant = np.maximum(h00 * h11 - h01 * h01, TINY)
    return (h11 * g[:, 0] - h01 * g[:, 1]) / determinant, (h00 * g[:, 1] - h01 * g[:, 0]) / determinant


def _refine(act: Act, x: Array, y: Array, b: Array, d: Array) -> _Problems:
    """Levenberg-Marquardt from (b, d), all problems side by side; those that make no more progress drop out."""
    result = _project(act, x, y, b, d)
    floor = 1e-28 * np.einsum("pg,pg->p", y, y)
    active, damping = np.arange(len(b)), np.full(len(b), 1e-3)
    for _ in range(ITERATIONS):
        active = active[(result.cost[active] > floor[active]) & (damping[active] < 1e6)]
        if not active.size:
            break
        old = result.take(active)
        step_b, step_d = _damped_step(old, damping[active])
        sign = np.sign(old.b)  # a step across b = 0 would have to pass a constant
        new_b = sign * np.clip(sign * (old.b + step_b), *SCALE_LIMITS)
        limit = np.abs(new_b) + OFFSET_LIMIT
        new = _project(act, x, y[active], new_b, np.clip(old.d + step_d, -limit, limit))
        better = new.cost < old.cost
        result.put_(active[better], new.take(np.flatnonzero(better)))
        damping[active] *= np.where(better, 0.1, 8.0)
        stalled = better & (new.cost > 0.999 * old.cost)
        damping[active[stalled]] = np.inf
    return result


def _make_starts(act: Act, x: Array, y: Array) -> tuple[Array, Array]:
    """The most promising (b, d) of a fixed dictionary for each row of `y` (M, G): two arrays (M, STARTS).

    In the normalised domain the dictionary is the same for all neurons, so that scoring it is one matrix product. The
    best start of each scale is found first, so that the chosen ones differ in scale (and sign).
    """
    scales = np.ones(1) if act in RELU_LIKE else SCALES  # a scale of a relu is a factor of alpha
    if act not in ("sigmoid", "tanh"):  # for these two, a sign of b is one of alpha
        scales = np.concatenate([scales, -scales])
    b, centers = (grid.ravel() for grid in np.meshgrid(scales, CENTERS, indexing="ij"))
    atoms = ACT_VALUES[act](b[:, None] * (x - centers[:, None]))
    atoms -= atoms.mean(axis=1, keepdims=True)
    norms = np.maximum(np.sqrt(np.einsum("sg,sg->s", atoms, atoms)), 1e-9)
    score = np.square(y @ (atoms / norms[:, None]).T).reshape(len(y), len(scales), len(CENTERS))
    place = score.argmax(axis=2)
    best = score.max(axis=2).argsort(axis=1)[:, ::-1][:, :STARTS]
    start = best * len(CENTERS) + np.take_along_axis(place, best, axis=1)
    return b[start], -b[start] * centers[start]


def _fit_normalised(act: Act, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """alpha, b, d of each row of `y` (M, G), mean 0: the best of the refined starts."""
    b, d = _make_starts(act, x, y)
    starts = b.shape[1]
    refined = _refine(act, x, np.repeat(y, starts, axis=0), b.ravel(), d.ravel())
    best = refined.take(refined.cost.reshape(-1, starts).argmin(axis=1) + starts * np.arange(len(y)))
    return best.alpha, best.b, best.d


def _rounded_size(act: Act, atoms: Array) -> Array:
    """What float32 rounding is relative to, (N,): runtimes compute exp(z) - 1 and 1 + erf(z), so 1 if not a relu."""
    size: Array = np.abs(atoms).max(axis=1)
    return size if act in RELU_LIKE else np.maximum(size, 1.0)


def fit_native(function: ScalarFunctions, lo: npt.ArrayLike, hi: npt.ArrayLike, act: Act) -> tuple[Native, Array]:
    """Fit alpha·act(beta·u + delta) + eta to each function by least squares.

    alpha and eta follow linearly from beta and delta (variable projection: Golub and Pereyra, doi:10.1137/0710036),
    which Levenberg-Marquardt finds from several starts. A function of that very form is recovered to rounding if its
    knee or center lies in the domain or close to it and 0.2 <= |beta|·(hi - lo) <= 30. For relu and leaky_relu
    |beta| = 1; for sigmoid and tanh beta > 0.

    Args:
        function: N functions.
        lo: lower ends of the domains, (N,).
        hi: upper ends, (N,).
        act: the activation.

    Returns:
        The fits; and their largest absolute errors on the domains, (N,), each with a bound of the rounding that a
        float32 activation multiplied by a large alpha brings (a nearly affine function is a tanh with a huge alpha).

    Raises:
        ValueError: `lo` and `hi` are not a domain.
    """
    low, high = as_domain(function.n, lo, hi)
    center, half_width = center_and_half_width(low, high)
    x = -np.cos(np.linspace(0, np.pi, FIT_POINTS))  # denser at the ends, where a knee has few points behind it
    y = sample_finite(function, center + half_width * x[:, None]).T
    mean = y.mean(axis=1)
    spread = np.maximum(np.abs(y - mean[:, None]).max(axis=1), TINY)
    rows = (y - mean[:, None]) / spread[:, None]
    parts = [_fit_normalised(act, x, rows[block]) for block in neuron_blocks(len(y), 4 * FIT_POINTS)]
    alpha, b, d = (np.concatenate(values) for values in zip(*parts, strict=True))
    alpha = alpha * spread
    atoms = ACT_VALUES[act](b[:, None] * x + d[:, None])
    eta = mean - alpha * atoms.mean(axis=1)
    rounding = FLOAT32_ROUNDING * np.abs(alpha) * _rounded_size(act, atoms)
    beta, delta = b / half_width, d - b * center / half_width
    if act in RELU_LIKE:
        alpha, delta, beta = alpha * np.abs(beta), delta / np.abs(beta), np.sign(beta)
    native = Native(act, alpha, beta, delta, eta)
    return native, max_abs_error(function, native, low, high, FIT_ERROR_POINTS) + rounding
