"""What replicates say: estimates with 95 % intervals.

Every replicate is one observation, and cells are treated as independent samples. Replicate k of two cells of one shape starts
from the same random draw, which as a rule makes an interval of their difference too wide; all replicates share one split and
one order of batches, of which no interval speaks.

Means, differences and trends are all linear contrasts of the means of groups with unequal variances: the sum of w_g mean_g
has the variance sum of w_g² s_g² / n_g, and Student's t with the degrees of freedom of Welch (1947) and Satterthwaite (1946).
A difference is the contrast (1, -1), Welch's interval; a single mean is the contrast (1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value, nan where there is none, with its 95 % interval, which is None where there are too few replicates for one."""

    value: float
    low: float | None = None
    high: float | None = None


def contrast(groups: Sequence[ArrayLike], weights: Sequence[float]) -> Estimate:
    """The weighted sum of the groups' means; without an interval where a group has a single observation."""
    samples = [np.asarray(group, np.float64) for group in groups]
    value = float(sum(weight * sample.mean() for weight, sample in zip(weights, samples, strict=True)))
    if min(map(len, samples)) < 2:
        return Estimate(value)
    variances = np.array([weight**2 * sample.var(ddof=1) / len(sample) for weight, sample in zip(weights, samples, strict=True)])
    total = float(variances.sum())
    if total == 0:              # replicates that all agree say nothing of how much others would differ
        return Estimate(value)
    freedom = total**2 / float((variances**2 / [len(sample) - 1 for sample in samples]).sum())
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * math.sqrt(total)
    return Estimate(value, value - half, value + half)


def mean(sample: ArrayLike) -> Estimate:
    """The mean of replicates."""
    return contrast([sample], [1.0])


def difference(first: ArrayLike, second: ArrayLike) -> Estimate:
    """How much larger the mean of the first is."""
    return contrast([first, second], [1.0, -1.0])


def trend(x: Sequence[float], groups: Sequence[ArrayLike]) -> Estimate:
    """The rise, from the smallest to the largest x, of the least-squares line through the groups' means."""
    centered = np.asarray(x, np.float64) - np.mean(x)
    slope = centered / (centered**2).sum()
    return contrast(groups, list(slope * (max(x) - min(x))))


def median(sample: ArrayLike) -> Estimate:
    """The median of values that may be infinite, with the interval of order statistics that holds for any distribution."""
    ordered = np.sort(np.asarray(sample, np.float64))
    count = len(ordered)
    below = int(stats.binom.ppf((1 - CONFIDENCE) / 2, count, 0.5))
    if below == 0:
        return Estimate(float(np.median(ordered)))
    return Estimate(float(np.median(ordered)), float(ordered[below - 1]), float(ordered[count - below]))


def epochs_to(curves: Floats, accuracy: float) -> Floats:
    """The first epoch, from 1, in which each replicate (M, epochs) has at least this accuracy; infinity for never."""
    reached = curves >= accuracy
    return np.where(reached.any(1), reached.argmax(1) + 1.0, np.inf)
