"""Latencies, grouped by the condition they were measured under: only inside one condition are times comparable.

All ratios are the benchmark's own, of interleaved runs; none is formed here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mncompress.types import LatencyRow, Speedup

MODELS = {"original": "original", "compressed": "compressed", "portable": "portable", "relu_twin": "ReLU twin"}
"""What each model is called, in the order in which they are shown; others follow under their own names."""


@dataclass(frozen=True)
class Condition:
    """All models under one provider, thread count and batch size."""

    provider: str
    threads: int
    batch: int
    rows: tuple[LatencyRow, ...]
    speedup: Speedup | None
    """Of the compressed network over the original; None where it was not measured."""

    @property
    def name(self) -> str:
        """The condition in words, such as `cpu, 1 thread, batch 32`."""
        return f"{self.provider}, {self.threads} thread{'' if self.threads == 1 else 's'}, batch {self.batch}"

    @property
    def compressed_to_twin(self) -> float | None:
        """How many times as long the compressed network takes as its ReLU twin; None where it was not measured."""
        return next((row.ratio_to_relu_twin for row in self.rows if row.model == "compressed"), None)


def group_latency(latency: Iterable[LatencyRow], speedups: Iterable[Speedup] = ()) -> tuple[Condition, ...]:
    """The conditions in the order in which they first occur, each with its models in the order of `MODELS`."""
    groups: dict[tuple[str, int, int], list[LatencyRow]] = {}
    for row in latency:
        groups.setdefault((row.provider, row.threads, row.batch), []).append(row)
    measured = {(speedup.provider, speedup.threads, speedup.batch): speedup for speedup in speedups}
    place = {model: number for number, model in enumerate(MODELS)}
    return tuple(Condition(*key, tuple(sorted(rows, key=lambda row: place.get(row.model, len(place)))), measured.get(key))
                 for key, rows in groups.items())
