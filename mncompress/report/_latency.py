"""The arithmetic of latencies: rows grouped by the condition they were measured under, and their ratios.

Ratios are formed only inside one condition. `ratio_to_relu_twin` is the benchmark's own (a median of pairwise ratios);
`speedup` is the original's median divided by the model's median.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mncompress.types import LatencyRow

MODELS = ("original", "compressed", "portable", "relu_twin")
"""In the order in which they are shown; others follow."""


@dataclass(frozen=True)
class Timing:
    """One model under a condition."""

    row: LatencyRow
    speedup: float | None
    """How many times as fast as the original; None where the original was not measured."""


@dataclass(frozen=True)
class Condition:
    """All models under one provider, thread count and batch size."""

    provider: str
    threads: int
    batch: int
    timings: tuple[Timing, ...]

    @property
    def name(self) -> str:
        """The condition in words, such as `cpu, 1 thread, batch 32`."""
        return f"{self.provider}, {self.threads} thread{'' if self.threads == 1 else 's'}, batch {self.batch}"

    def find(self, model: str) -> Timing | None:
        """The timing of `model`, or None where it was not measured."""
        return next((timing for timing in self.timings if timing.row.model == model), None)


def group_latency(latency: Iterable[LatencyRow]) -> tuple[Condition, ...]:
    """The conditions in the order in which they first occur, each with its models in the order of `MODELS`."""
    groups: dict[tuple[str, int, int], list[LatencyRow]] = {}
    for row in latency:
        groups.setdefault((row.provider, row.threads, row.batch), []).append(row)
    return tuple(Condition(*key, _make_timings(rows)) for key, rows in groups.items())


def _make_timings(rows: list[LatencyRow]) -> tuple[Timing, ...]:
    original = next((row.median_us for row in rows if row.model == "original"), None)
    ordered = sorted(rows, key=lambda row: MODELS.index(row.model) if row.model in MODELS else len(MODELS))
    return tuple(Timing(row, original / row.median_us if original and row.median_us else None) for row in ordered)
