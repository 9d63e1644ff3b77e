"""What is claimed, how it is measured, and whether it held.

A claim says into which range its effects must fall. An effect whose 95 % interval lies inside the range replicates the
claim, one whose interval lies outside does not, and everything else is undecided. A claim about several comparisons
replicates if all of them do, and does not if one does not. Effects are in percentage points. Intervals are per comparison:
for a claim that must hold in all of them no correction is needed, single rows of the table are not corrected.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mncompress.experiments import _statistics as statistics
from mncompress.experiments._cells import CellResult, SampledActivation
from mncompress.experiments._statistics import Estimate
from mncompress.types import TrainConfig

Outcome = Literal["replicated", "not replicated", "undecided"]
Floats = NDArray[np.float64]
Results = Mapping[TrainConfig, CellResult]
"""Results by the recipe as it stands in the table of figures."""

LINEAR = 0.999
"""R² from which an activation counts as a line."""


def final(result: CellResult) -> Floats:
    """Test accuracy after the last epoch, in points."""
    return 100 * result.test


def early(result: CellResult) -> Floats:
    """Mean validation accuracy over the first tenth of the epochs, in points: who converges faster is ahead there."""
    curves = result.curves
    first: Floats = curves[:, :max(1, curves.shape[1] // 10)].mean(1)
    return 100 * first


def wobble(result: CellResult) -> Floats:
    """Mean change of the validation accuracy from epoch to epoch, up or down, over the second half, in points."""
    curves = result.curves
    late = curves[:, curves.shape[1] // 2 - 1:] if curves.shape[1] > 3 else curves
    return 100 * np.abs(np.diff(late, axis=1)).mean(1) if late.shape[1] > 1 else np.full(len(late), np.nan)


def linear_share(result: CellResult) -> Floats:
    """Per cent of each network's learned activations that are a line, and not constant."""
    return _share(result, is_line)


def constant_share(result: CellResult) -> Floats:
    """Per cent of each network's learned activations that are constant: dead neurons."""
    return _share(result, lambda found: found.r_squared is None)


def is_line(found: SampledActivation) -> bool:
    """Whether a learned activation is a line, and not constant."""
    return found.r_squared is not None and found.r_squared > LINEAR


def _share(result: CellResult, holds: Callable[[SampledActivation], bool]) -> Floats:
    networks = sorted({found.replicate for found in result.activations})
    return np.array([100 * np.mean([holds(found) for found in result.activations if found.replicate == k]) for k in networks])


Measure = Callable[[CellResult], Floats]
MEASURES: dict[Measure, str] = {
    final: "test accuracy at the end",
    early: "validation accuracy over the first tenth of the epochs",
    wobble: "change of the validation accuracy from epoch to epoch, second half",
    linear_share: "per cent of a network's activations that are lines",
    constant_share: "per cent of a network's activations that are constant",
}
"""What each measure is called."""


@dataclass(frozen=True)
class Difference:
    """How much more the first cell has than the second."""

    label: str
    first: TrainConfig
    second: TrainConfig

    def estimate(self, results: Results, measure: Measure) -> Estimate:
        """The difference of the means."""
        return statistics.difference(measure(results[self.first]), measure(results[self.second]))


@dataclass(frozen=True)
class Trend:
    """The rise of the straight line from the first cell to the last."""

    label: str
    x: tuple[int, ...]
    cells: tuple[TrainConfig, ...]

    def estimate(self, results: Results, measure: Measure) -> Estimate:
        """The rise over the whole range of x."""
        return statistics.trend(self.x, [measure(results[cell]) for cell in self.cells])


@dataclass(frozen=True)
class Level:
    """The mean of one cell, per cent."""

    label: str
    cell: TrainConfig

    def estimate(self, results: Results, measure: Measure) -> Estimate:
        """The mean over the replicates, its interval cut to 0 to 100."""
        found = statistics.mean(measure(results[self.cell]))
        if found.low is None or found.high is None:
            return found
        return Estimate(found.value, max(found.low, 0.0), min(found.high, 100.0))


@dataclass(frozen=True)
class Claim:
    """A sentence that the effects of a measure would bear out."""

    statement: str
    measure: Measure
    comparisons: tuple[Difference | Trend | Level, ...]
    above: float = -math.inf
    """The range that every effect must lie in, in points."""
    below: float = math.inf

    @property
    def standard(self) -> str:
        """The range in words."""
        limits = [f"{word} {limit:g}" for word, limit in (("above", self.above), ("below", self.below)) if math.isfinite(limit)]
        return f"{'every ' if len(self.comparisons) > 1 else ''}95 % interval {' and '.join(limits)}"


@dataclass(frozen=True)
class Comparison:
    """One measured effect."""

    label: str
    effect: Estimate
    outcome: Outcome


@dataclass(frozen=True)
class Verdict:
    """Whether a claim held."""

    figure: str
    statement: str
    measure: str
    standard: str
    outcome: Outcome
    weakest: Comparison
    """The comparison that is furthest from bearing the claim out."""
    comparisons: tuple[Comparison, ...]

    def count(self, outcome: Outcome) -> int:
        """How many comparisons came out so."""
        return sum(comparison.outcome == outcome for comparison in self.comparisons)


def judge(figure: str, claim: Claim, results: Results) -> Verdict:
    """Measure a claim's effects."""
    compared = []
    for comparison in claim.comparisons:
        effect = comparison.estimate(results, claim.measure)
        compared.append(Comparison(comparison.label, effect, judge_effect(effect, claim.above, claim.below)))
    weakest = min(compared, key=lambda comparison: _margin(comparison.effect, claim))
    return Verdict(figure, claim.statement, MEASURES[claim.measure], claim.standard, _all_of([c.outcome for c in compared]),
                   weakest, tuple(compared))


def judge_effect(effect: Estimate, above: float, below: float) -> Outcome:
    """Where the interval of an effect lies: inside the range, outside, or neither."""
    if effect.low is None or effect.high is None or math.isnan(effect.value):
        return "undecided"
    if above < effect.low and effect.high < below:
        return "replicated"
    if effect.high <= above or effect.low >= below:
        return "not replicated"
    return "undecided"


def _all_of(outcomes: Sequence[Outcome]) -> Outcome:
    if "not replicated" in outcomes:
        return "not replicated"
    return "undecided" if "undecided" in outcomes else "replicated"


def _margin(effect: Estimate, claim: Claim) -> float:
    """How far the interval lies inside the claim's range; what has no value is farthest outside."""
    if math.isnan(effect.value):
        return -math.inf
    low = effect.value if effect.low is None else effect.low
    high = effect.value if effect.high is None else effect.high
    return min(low - claim.above, claim.below - high)
