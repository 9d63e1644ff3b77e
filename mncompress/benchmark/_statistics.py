"""What is said about times: their distribution, ratios with an interval, verdicts, break-even points.

**The ratio of two models** is taken within a round, where the two stand one behind the other and a drift of the machine
meets both. Rounds are no independent observations, though: neighbors share the machine's state, and all rounds of a
session share where its buffers and weights lie in memory, which alone makes two sessions of one file differ by about a
per cent. An interval from single rounds would be far too narrow: docs/benchmark.md has how often it calls one of two
equal files the winner. So rounds are gathered into *groups*, one for each session that was opened anew, and a group
counts once, by the median of the logarithms of its ratios.

From the groups' values come the Hodges-Lehmann estimate, the median of all pairwise averages (Walsh averages), and the
interval that inverts Wilcoxon's signed-rank test: from the k-th smallest average to the k-th largest. Its confidence is
at least 95 %, exactly known for few groups, whatever the distribution, as long as it is symmetric, and one or two
groups ruined by something else on the machine do not move it far. (Hollander, Wolfe, Chicken: Nonparametric Statistical
Methods, 3rd ed., section 3.3, doi:10.1002/9781119196037. Replicating at the level where the variation arises: Kalibera,
Jones: Rigorous benchmarking in reasonable time, 2013, doi:10.1145/2464157.2464160.)
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["baseline", "faster", "slower", "no difference shown", "not compared"]

MIN_GROUPS = 6
"""The fewest groups that have a 95 % interval: 2 · 2⁻⁶ < 0.05 < 2 · 2⁻⁵."""
TAIL = 0.025
"""What each end of an interval may miss."""


@dataclass(frozen=True)
class Distribution:
    """Where the times of one model lie, in microseconds per run; percentiles are interpolated linearly."""

    min_us: float
    p5_us: float
    median_us: float
    p95_us: float
    p99_us: float
    mean_us: float


@dataclass(frozen=True)
class Ratio:
    """How many times as long one model takes as another, with its 95 % interval: see the module."""

    median: float
    """The Hodges-Lehmann estimate over groups of the median of the rounds' ratios."""
    low: float
    high: float


def describe(samples_us: NDArray[Any]) -> Distribution:
    """The distribution of samples (n,) in microseconds."""
    p5, median, p95, p99 = np.percentile(samples_us, [5, 50, 95, 99])
    return Distribution(*map(float, (samples_us.min(), p5, median, p95, p99, samples_us.mean())))


def make_ratio(model_us: NDArray[Any], reference_us: NDArray[Any], starts: Sequence[int]) -> Ratio:
    """How many times as long the model takes, from paired samples (rounds,) of both.

    Args:
        model_us: one sample for each round.
        reference_us: the other model's samples of the same rounds.
        starts: the rounds at which sessions were opened anew, in order, the first is 0.
    """
    logs = np.log(model_us / reference_us)
    values = np.array([np.median(group) for group in split_groups(logs, starts)])
    middle, low, high = np.exp(signed_rank_interval(values))
    return Ratio(float(middle), float(low), float(high))


def split_groups(values: NDArray[Any], starts: Sequence[int]) -> list[NDArray[Any]]:
    """The values of each session."""
    return np.split(values, starts[1:])


def signed_rank_interval(values: NDArray[Any]) -> tuple[float, float, float]:
    """The Hodges-Lehmann estimate of the center of `values` (n,), n at least 6, and its 95 % interval."""
    first, second = np.triu_indices(len(values))
    averages = np.sort((values[first] + values[second]) / 2)
    cut = signed_rank_cut(len(values))
    assert cut > 0, f"{len(values)} values have no 95 % interval; MIN_GROUPS is {MIN_GROUPS}"
    return float(np.median(averages)), float(averages[cut - 1]), float(averages[-cut])


@functools.cache
def signed_rank_cut(count: int) -> int:
    """The largest k with P(W < k) at most 2.5 %, for Wilcoxon's signed-rank statistic W of `count` values.

    W is the sum of those of the ranks 1 to n whose value is positive, each with probability ½, so the number of ways to
    a sum is the coefficient of the product of 1 + zʳ over all ranks r.
    """
    ways = np.ones(1)
    for rank in range(1, count + 1):
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    return int(np.sum(np.cumsum(ways) / 2.0**count <= TAIL))


def decide(ratio: Ratio) -> Verdict:
    """What may be said of a model that takes `ratio` times as long as the baseline; no winner where the interval spans 1."""
    if ratio.high < 1:
        return "faster"
    return "slower" if ratio.low > 1 else "no difference shown"


def find_break_even(verdicts: Mapping[int, Verdict]) -> int | None:
    """The smallest measured batch size from which on every measured one is `faster`, or None."""
    found = None
    for batch in sorted(verdicts, reverse=True):
        if verdicts[batch] != "faster":
            break
        found = batch
    return found
