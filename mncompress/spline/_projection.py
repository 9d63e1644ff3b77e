"""Fitting one activation with stretched axes plus a constant, many functions side by side: variable projection."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from mncompress.spline._acts import ACT_DERIVATIVES, ACT_VALUES
from mncompress.spline._arrays import Array, Indices
from mncompress.types import RELU_LIKE, Act

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
TINY = 1e-280


@dataclass(frozen=True)
class _Rows:
    """P functions to fit at the same points x (G,): weighted, and with what an offset can do taken out."""

    x: Array
    root: Array
    """Square roots of the weights, (P, G), or (1, G) if all are the same."""
    constant: Array
    """The roots, of length one, (P, G) or (1, G)."""
    y: Array
    """Values times the roots, orthogonal to `constant`, (P, G)."""

    def take(self, indices: Indices) -> "_Rows":
        if len(self.root) == 1:
            return _Rows(self.x, self.root, self.constant, self.y[indices])
        return _Rows(self.x, self.root[indices], self.constant[indices], self.y[indices])

    def project(self, atoms: Array) -> Array:
        """Functions at x (P, K, G), weighted and orthogonal to `constant`."""
        atoms = atoms * self.root[:, None]
        return atoms - (atoms @ self.constant[:, :, None]) * self.constant[:, None]


def _make_rows(x: Array, y: Array, weights: Array) -> _Rows:
    root = np.sqrt(weights)
    rows = _Rows(x, root, root / np.linalg.norm(root, axis=1, keepdims=True), y)
    return _Rows(x, root, rows.constant, rows.project(y[:, None])[:, 0])


@dataclass(frozen=True)
class _Problems:
    """P least-squares problems at their current b, d, with alpha and the constant solved for (variable projection)."""

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


def _project(act: Act, rows: _Rows, b: Array, d: Array) -> _Problems:
    """Solve for alpha and the constant, and linearise what is left in b and d.

    Eliminating the constant makes everything orthogonal to it; eliminating alpha projects the derivatives on what is
    orthogonal to the activation (Kaufman's form of variable projection, doi:10.1007/BF01932995).
    """
    z = b[:, None] * rows.x + d[:, None]
    slope = ACT_DERIVATIVES[act](z)
    basis = rows.project(np.stack([ACT_VALUES[act](z), slope * rows.x, slope], axis=1))
    gram = basis @ basis.transpose(0, 2, 1)
    norm = np.maximum(gram[:, 0, 0], TINY)
    alpha = np.einsum("pg,pg->p", basis[:, 0], rows.y) / norm
    rest = rows.y - alpha[:, None] * basis[:, 0]
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


def _refine(act: Act, rows: _Rows, b: Array, d: Array) -> _Problems:
    """Levenberg-Marquardt from (b, d), all problems side by side; those that make no more progress drop out."""
    result = _project(act, rows, b, d)
    floor = 1e-28 * np.einsum("pg,pg->p", rows.y, rows.y)
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
        new = _project(act, rows.take(active), new_b, np.clip(old.d + step_d, -limit, limit))
        better = new.cost < old.cost
        result.put_(active[better], new.take(np.flatnonzero(better)))
        damping[active] *= np.where(better, 0.1, 8.0)
        stalled = better & (new.cost > 0.999 * old.cost)
        damping[active[stalled]] = np.inf
    return result


def _make_starts(act: Act, rows: _Rows) -> tuple[Array, Array]:
    """The most promising (b, d) of a fixed dictionary for each row: two arrays (P, STARTS).

    In the normalised domain the dictionary is the same for all neurons, so that scoring it is a few matrix products. The
    best start of each scale is found first, so that the chosen ones differ in scale (and sign).
    """
    scales = np.ones(1) if act in RELU_LIKE else SCALES  # a scale of a relu is a factor of alpha
    if act not in ("sigmoid", "tanh"):  # for these two, a sign of b is one of alpha
        scales = np.concatenate([scales, -scales])
    b, centers = (grid.ravel() for grid in np.meshgrid(scales, CENTERS, indexing="ij"))
    atoms = ACT_VALUES[act](b[:, None] * (rows.x - centers[:, None]))
    atoms -= atoms.mean(axis=1, keepdims=True)
    atoms = (atoms / np.maximum(np.sqrt(np.einsum("sg,sg->s", atoms, atoms)), 1e-9)[:, None]).astype(np.float32).T

    root = rows.root.astype(np.float32)
    norm = (root * root) @ (atoms * atoms) - ((root * rows.constant.astype(np.float32)) @ atoms) ** 2
    score = ((root * rows.y.astype(np.float32)) @ atoms) ** 2 / np.maximum(norm, 1e-5 / len(rows.x))
    score = score.reshape(len(rows.y), len(scales), len(CENTERS))
    place = score.argmax(axis=2)
    best = score.max(axis=2).argsort(axis=1)[:, ::-1][:, :STARTS]
    start = best * len(CENTERS) + np.take_along_axis(place, best, axis=1)
    return b[start], -b[start] * centers[start]


def fit_act(act: Act, x: Array, y: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """Fit alpha·act(b·x + d) + c by weighted least squares: the best of the refined starts.

    Args:
        act: the activation.
        x: points in [-1, 1], (G,).
        y: values (P, G), of size 1.
        weights: of the points, (P, G) or (1, G); they sum up to 1.

    Returns:
        alpha, b, d and c, each (P,).
    """
    rows = _make_rows(x, y, weights)
    b, d = _make_starts(act, rows)
    starts = b.shape[1]
    refined = _refine(act, rows.take(np.repeat(np.arange(len(y)), starts)), b.ravel(), d.ravel())
    best = refined.take(refined.cost.reshape(-1, starts).argmin(axis=1) + starts * np.arange(len(y)))
    rest = y - best.alpha[:, None] * ACT_VALUES[act](best.b[:, None] * x + best.d[:, None])
    return best.alpha, best.b, best.d, (weights * rest).sum(axis=1)
