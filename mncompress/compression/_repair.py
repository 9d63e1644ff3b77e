"""Closed-form repair: the layer behind replaced activations, refitted to give the original's pre-activations again.

Ridge regression towards the weights that folding gives: W minimizes mean |z - W h|^2 + ridge |W - W0|^2, with z what the
original network computes and h what the compressed one has. No label is read and nothing is trained. How much ridge is decided
on the validation rows, where doing nothing is one of the choices, so a repair cannot make the result worse there.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mncompress.compression._roots import find_root

Floats = NDArray[np.float64]

RIDGES = (1e-4, 1e-2, 1e-1)
"""Of the mean second moment of a kind of feature."""
KEEPS = 1e300
"""A ridge from which on nothing is refitted at all."""


@dataclass(frozen=True)
class Samples:
    """Features h, each kind (rows, p), and targets z (rows, m)."""

    features: list[Tensor]
    targets: Tensor


@dataclass(frozen=True)
class Solution:
    """z = sum of weights @ features + bias; a weight (m, p) for each kind of feature.

    Attributes:
        ridge: with which it was found; `KEEPS` where nothing was refitted.
    """

    weights: list[Floats]
    bias: Floats
    ridge: float = KEEPS


class Refit:
    """A least-squares problem whose moments are computed once.

    Args:
        samples: to fit to.
        start: the weights that ridge draws towards, and what to give where nothing is refitted.
    """

    def __init__(self, samples: Samples, start: Solution) -> None:
        self.start = start
        self.sizes = [part.shape[1] for part in samples.features]
        self.means = [part.double().mean(0).numpy() for part in samples.features]
        self.target_mean = samples.targets.double().mean(0).numpy()
        values = torch.cat([part - torch.as_tensor(mean).to(part.dtype)
                            for part, mean in zip(samples.features, self.means, strict=True)], 1)
        targets = samples.targets - torch.as_tensor(self.target_mean).to(samples.targets.dtype)
        self.moments: Floats = (values.T @ values / len(values)).double().numpy()
        self.cross: Floats = (values.T @ targets / len(values)).double().numpy()

    def solve(self, ridge: float) -> Solution:
        """The solution with a ridge."""
        if ridge >= KEEPS:
            return self.start
        start = np.concatenate(self.start.weights, 1)
        diagonal = np.diag(self._scales()) * ridge
        change = np.linalg.solve(self.moments + diagonal, self.cross - self.moments @ start.T).T
        weight = start + change
        bias = self.target_mean - weight @ np.concatenate(self.means)
        return Solution(np.split(weight, np.cumsum(self.sizes)[:-1], 1), bias, ridge)

    def best(self, check: Samples, metric: Floats) -> Solution:
        """The start or the solution whose error on `check` is smallest in the metric R: mean |R (z - W h - b)|^2."""
        return min([self.start, *map(self.solve, RIDGES)], key=lambda solution: measure_error(solution, check, metric))

    def conditional_moments(self, kind: int) -> Floats:
        """Second moments of a kind of feature given all others, with the smallest ridge."""
        ends = np.cumsum([0, *self.sizes])
        mine = np.arange(ends[kind], ends[kind + 1])
        precision = np.linalg.inv(self.moments + np.diag(self._scales()) * RIDGES[0])
        inverse: Floats = np.linalg.inv(precision[np.ix_(mine, mine)])
        return (inverse + inverse.T) / 2

    def _scales(self) -> Floats:
        parts = np.split(np.diag(self.moments), np.cumsum(self.sizes)[:-1])
        return np.concatenate([np.full(len(part), part.mean() if len(part) else 0.0) for part in parts]) + 1e-12


def measure_error(solution: Solution, samples: Samples, metric: Floats) -> float:
    """Mean |R (z - W h - b)|^2 over the samples."""
    found = torch.as_tensor(solution.bias).float()
    for part, weight in zip(samples.features, solution.weights, strict=True):
        found = found + part @ torch.as_tensor(weight).float().T
    rest = (samples.targets - found).double() @ torch.as_tensor(metric).T
    return float(rest.square().sum(1).mean())


def cut_rank(bypass: Floats, moments: Floats, metric: Floats, rank: int) -> Floats:
    """The linear units Q (rank, d) through which a bypass V (m, d) is approximated best: V x ~ A Q x.

    Args:
        bypass: V.
        moments: of x given the other features, (d, d).
        metric: R, (k, m), of the error.
        rank: how many units.
    """
    from sklearn.utils.extmath import randomized_svd  # where it is needed: importing it takes half a second

    root, inverse = find_root(moments + 1e-9 * np.trace(moments) / len(moments) * np.eye(len(moments)))
    _, _, directions = randomized_svd(metric @ bypass @ root, rank, random_state=0)
    return np.asarray(directions @ inverse)
