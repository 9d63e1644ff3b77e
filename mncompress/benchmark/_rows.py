"""What is said of each model under each condition, and the remarks that a reader should not miss."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mncompress.benchmark._inputs import Specs
from mncompress.benchmark._measure import Condition, Measurement, ratio, summarize
from mncompress.benchmark._sessions import Agreement
from mncompress.benchmark._statistics import Verdict, decide, describe, find_break_even
from mncompress.types import LatencyRow


@dataclass(frozen=True)
class Row(LatencyRow):
    """The time of one model under one condition, and how it stands against the baseline."""

    min_us: float = 0.0
    p5_us: float = 0.0
    p99_us: float = 0.0
    mean_us: float = 0.0
    runs_per_sample: int = 1
    """Of how many runs a sample, whose distribution this is, is the mean."""
    sessions: int = 1
    """How often the model was opened anew."""
    ratio_to_baseline: float | None = None
    """How many times as long the model takes as the baseline; None for a model alone."""
    baseline_low: float | None = None
    baseline_high: float | None = None
    """95 % interval of that ratio."""
    verdict: Verdict = "not compared"
    tf32: bool = False
    """Whether CUDA multiplied matrices in TF32."""


@dataclass(frozen=True)
class BreakEven:
    """From which measured batch size on a model is shown to be faster than the baseline."""

    model: str
    provider: str
    threads: int
    batch: int | None
    """None where it is not, at the largest measured batch size."""


def make_rows(measurement: Measurement, baseline: str) -> tuple[Row, ...]:
    """What is said of each model under one condition."""
    rows = []
    for row, samples, runs in zip(summarize(measurement), measurement.samples_us, measurement.runs_per_sample, strict=True):
        found = describe(samples)
        rows.append(Row(
            **dataclasses.asdict(row), min_us=found.min_us, p5_us=found.p5_us, p99_us=found.p99_us, mean_us=found.mean_us,
            runs_per_sample=runs, sessions=len(measurement.starts), tf32=measurement.tf32,
            **_against(measurement, row.model, baseline)))
    return tuple(rows)


def _against(measurement: Measurement, model: str, baseline: str) -> dict[str, Any]:
    if baseline not in measurement.models or len(measurement.models) == 1:
        return {}
    if model == baseline:
        return {"ratio_to_baseline": 1.0, "baseline_low": 1.0, "baseline_high": 1.0, "verdict": "baseline"}
    found = ratio(measurement, model, baseline)
    return {"ratio_to_baseline": found.median, "baseline_low": found.low, "baseline_high": found.high, "verdict": decide(found)}


def find_break_evens(rows: Sequence[Row]) -> tuple[BreakEven, ...]:
    """For each model, provider and number of threads for which more than one batch size could be compared."""
    verdicts: dict[tuple[str, str, int], dict[int, Verdict]] = {}
    for row in rows:
        if row.verdict not in ("baseline", "not compared"):
            verdicts.setdefault((row.model, row.provider, row.threads), {})[row.batch] = row.verdict
    return tuple(BreakEven(*key, find_break_even(found)) for key, found in verdicts.items() if len(found) > 1)


def make_notes(specs: Mapping[str, Specs], cells: Mapping[int, Sequence[str]], measurements: Sequence[Measurement],
               agreement: Sequence[Agreement], baseline: str) -> tuple[str, ...]:
    """What a reader should know first."""
    return *_left_out(specs, cells), *_unstable(measurements), *_disagreements(agreement, baseline)


def _left_out(specs: Mapping[str, Specs], cells: Mapping[int, Sequence[str]]) -> Iterator[str]:
    for name in specs:
        missing = [str(batch) for batch, names in cells.items() if name not in names]
        if missing:
            yield f"{name} has a fixed batch and is not measured at batch {', '.join(missing)}."


def _unstable(measurements: Sequence[Measurement]) -> Iterator[str]:
    for each in measurements:
        for name in each.unstable:
            where = Condition(each.provider, each.threads, each.batch, each.tf32)
            yield f"{name} was still getting faster when its warm-up was given up ({where})."


def _disagreements(agreement: Sequence[Agreement], baseline: str) -> Iterator[str]:
    for name in dict.fromkeys(each.model for each in agreement if not each.is_close):
        found = [each for each in agreement if each.model == name]
        if problem := next((each.problem for each in found if each.problem), None):
            yield f"{name} cannot be held against {baseline}: {problem}."
            continue
        worst = max(found, key=lambda each: each.max_abs_difference or 0.0)
        yield (f"{name} does not compute exactly what {baseline} does: outputs differ by up to {worst.max_abs_difference:.3g}, "
               f"where the largest is {worst.max_abs_output:.3g}.")
