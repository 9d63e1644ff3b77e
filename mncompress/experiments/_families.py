"""`families`: on every data set, where learned activations win over ReLU, tanh, silu and gelu, by how much, and where they stop.

Networks of growing width give every family a line of error against cost: parameters, and multiply-adds and measured latency of
the compressed network. The fixed networks together have an envelope, the least error that any of them has at up to
a cost, interpolated between them in the logarithm of both. The advantage of a learned network is how many times its own cost
the envelope needs for the same error; its interval comes from resampling the replicates of all networks.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mncompress.data import FUNCTION_NAMES, Dataset
from mncompress.errors import CheckpointError, DataError
from mncompress.experiments._cells import probe_speed
from mncompress.experiments._frontier import (
    BATCHES,
    FIXED,
    LEARNED,
    RATES,
    Point,
    has_point,
    load_data,
    load_point,
    make_points,
    measure_latency,
    run_point,
)
from mncompress.experiments._frontier_plot import draw_frontier
from mncompress.experiments._tables import Row, write_csv
from mncompress.experiments._workers import run_in_workers
from mncompress.figures import FORMATS, save_figure
from mncompress.files import write_text
from mncompress.runtime import library_path
from mncompress.training import TrainProgress
from mncompress.types import TrainConfig

DATA_SETS = ("mnist", "mnist1d", "digits", *(f"function:{name}" for name in FUNCTION_NAMES))
RESAMPLES = 1000
MIN_REPLICATES = 5
"""Networks of a point from which the median can be resampled."""
PROBE_SECONDS = 1.0
Floats = NDArray[np.float64]
Latencies = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Axis:
    """A cost: its name, and how to read it off a point and the latencies."""

    name: str
    label: str
    cost: Callable[[Point, Latencies], float]


def _latency(batch: int, point: Point, latencies: Latencies) -> float:
    return latencies[point.key][batch]


AXES = (
    Axis("macs", "multiply-adds of the compressed network", lambda point, latency: float(point.macs)),
    Axis("parameters", "parameters of the trained network", lambda point, latency: float(point.parameters)),
    *(Axis(f"us_batch_{batch}", f"measured latency at batch {batch}, µs", partial(_latency, batch)) for batch in BATCHES),
)


@dataclass(frozen=True)
class Advantage:
    """A learned network against the envelope of the fixed ones, by one cost."""

    data: str
    axis: str
    point: Point
    cost: float
    ratio: float
    """Cost of the fixed networks at the same error over its own; infinite where none of them reaches that error."""
    low: float | None
    high: float | None
    """95 % interval; None with fewer than `MIN_REPLICATES` networks."""
    most: float
    """Cost of the largest fixed network over its own: what can be said where the ratio is infinite."""

    @property
    def wins(self) -> bool:
        """Whether the interval lies above 1."""
        return self.low is not None and self.low > 1

    def text(self) -> str:
        """The ratio with its interval."""
        if self.low is None or self.high is None:
            return self._show(self.ratio)
        return f"{self._show(self.ratio)} ({self._show(self.low)} to {self._show(self.high)})"

    def _show(self, value: float) -> str:
        return f"> {self.most:.2f}" if np.isinf(value) else f"{value:.2f}"


@dataclass(frozen=True)
class FamiliesPlan:
    """What there is to compute for `families`."""

    data_sets: tuple[str, ...]
    """Those that can be loaded here."""
    points: int
    finished: int
    networks: int
    """To be trained."""
    seconds: float
    """Estimated for what is not finished."""


def plan_families(settings: TrainConfig, data_sets: Sequence[str], out: Path, *, tell: Callable[[str], None]) -> FamiliesPlan:
    """Which data sets are there, how much is to be trained, and about how long that takes.

    Raises:
        DataError: there is only one data set, and it cannot be loaded; of several, those are left out and told.
    """
    loaded, points, missing, seconds = [], 0, 0, 0.0
    speeds: dict[tuple[int, int], float] = {}
    for data in data_sets:
        try:
            dataset = load_data(settings, data)
        except DataError as error:
            if len(data_sets) == 1:
                raise
            tell(f"{data} is left out: {error}")
            continue
        loaded.append(data)
        configs = list(make_points(dataclasses.replace(settings, data=data), dataset).values())
        open_points = [config for config in configs if not has_point(config, dataset.content_hash, out / "cells")]
        points, missing = points + len(configs), missing + len(open_points)
        if open_points:
            kind = len(dataset.train), len(configs[0].hidden)
            middle = dataclasses.replace(open_points[len(open_points) // 2], replicates=settings.replicates * len(RATES))
            speeds[kind] = speeds.get(kind) or probe_speed(middle, PROBE_SECONDS)
            seconds += len(open_points) * speeds[kind] * configs[0].epochs
    return FamiliesPlan(tuple(loaded), points, points - missing, missing * settings.replicates * len(RATES), seconds)


def run_families(settings: TrainConfig, data_sets: Sequence[str], out: Path, command: str, *, workers: int = 1,
                 tell: Callable[[str], None], progress: Callable[[float, str], None] | None = None) -> list[Path]:
    """Compute what is missing in `out/cells`, measure latencies, and write a picture and tables for each data set.

    Args:
        settings: replicates, epochs, data folder, device and seed.
        data_sets: names for `load_dataset`.
        out: the folder.
        command: that reproduces this, for the summary.
        workers: processes that compute points side by side; latencies are measured when they are done.
        tell: called with a line of text for each network shape.
        progress: called with the share done and a text.

    Returns:
        The files that were written.
    """
    files: list[Path] = []
    advantages: list[Advantage] = []
    everything: list[Point] = []
    for number, data in enumerate(data_sets):
        dataset = load_data(settings, data)

        def watch(share: float, text: str, number: int = number) -> None:
            if progress is not None:
                progress((number + share) / len(data_sets), text)

        points = _run_points(settings, data, dataset, out / "cells", workers, tell, watch)
        tell(f"{data}: latency of {len(points)} networks")
        latencies = measure_latency(points, dataset, out / "cells")
        found = [advantage for axis in AXES for advantage in compare(points, latencies, axis)]
        advantages += found
        everything += points
        name = f"families-{data.replace(':', '-')}"
        write_text(out / f"{name}.csv", write_csv(_make_rows(points, latencies)))
        costs = [(axis.label, {point.key: axis.cost(point, latencies) for point in points}) for axis in AXES]
        picture = draw_frontier(points, costs, f"{data}, {settings.replicates} networks each")
        for kind in FORMATS:
            save_figure(out / f"{name}.{kind}", picture)
            files.append(out / f"{name}.{kind}")
        files.append(out / f"{name}.csv")
        write_text(out / "families.md", render_summary(advantages, everything, command))
    return [*files, *([out / "families.md"] if files else [])]


def _run_points(settings: TrainConfig, data: str, dataset: Dataset, folder: Path, workers: int, tell: Callable[[str], None],
                watch: Callable[[float, str], None]) -> list[Point]:
    """The points of a data set in their order, those computed that are not there."""
    configs = make_points(dataclasses.replace(settings, data=data), dataset)
    points: dict[tuple[str, int], Point] = {}
    for key, config in configs.items():
        try:
            found = load_point(config, dataset.content_hash, folder)
        except CheckpointError as error:
            tell(f"cells/{error}; computing it again")
        else:
            if found is not None:
                points[key] = found
    missing = {key: config for key, config in configs.items() if key not in points}
    for key, point in _compute_points(missing, dataset, folder, workers, lambda share, text: watch(share, f"{data}: {text}")):
        points[key] = point
        tell(f"{data}: {_label(key)}: {point.metric} {point.error:.4g} at learning rate {point.rate:g}, "
             f"{point.macs} multiply-adds, {point.seconds:.0f} s")
        watch(len(points) / len(configs), f"{data}: {_label(key)}")
    return [points[key] for key in configs]


def _compute_points(configs: Mapping[tuple[str, int], TrainConfig], dataset: Dataset, folder: Path, workers: int,
                    watch: Callable[[float, str], None]) -> Iterator[tuple[tuple[str, int], Point]]:
    """Each contender and width with its point, as they are finished."""
    if workers > 1:
        keys = list(configs)
        calls = [(name, config, dataset, folder) for (name, _), config in configs.items()]
        for number, point in run_in_workers(run_point, calls, workers):
            yield keys[number], point
        return
    for number, (key, config) in enumerate(configs.items()):
        def report(at: TrainProgress, number: int = number, key: tuple[str, int] = key) -> None:
            share = (at.epoch - 1 + at.step / at.steps) / at.epochs
            watch((number + share) / len(configs), f"{_label(key)}, epoch {at.epoch} of {at.epochs}")

        yield key, run_point(key[0], config, dataset, folder, report)


def _label(key: tuple[str, int]) -> str:
    name, width = key
    return f"{name}, width {width}"


def compare(points: Sequence[Point], latencies: Latencies, axis: Axis) -> list[Advantage]:
    """The advantage of every learned network, with its interval.

    Args:
        points: of one data set.
        latencies: of their compressed networks.
        axis: which cost.
    """
    fixed = [point for point in points if not point.learned]
    costs = np.array([axis.cost(point, latencies) for point in fixed])
    rng = np.random.default_rng(0)
    resampled = np.array([_resample(point, rng) for point in fixed])             # (fixed, RESAMPLES)
    found = []
    for point in points:
        if not point.learned:
            continue
        own = axis.cost(point, latencies)
        ratio = envelope_cost(costs, np.array([other.error for other in fixed]), point.error) / own
        ratios = [envelope_cost(costs, errors, error) / own
                  for errors, error in zip(resampled.T, _resample(point, rng), strict=True)]
        low, high = map(float, np.quantile(ratios, [0.025, 0.975], method="inverted_cdf"))
        enough = min(len(other.errors) for other in points) >= MIN_REPLICATES
        found.append(Advantage(point.data, axis.name, point, own, float(ratio), low if enough else None, high if enough else None,
                               float(costs.max() / own)))
    return found


def _resample(point: Point, rng: np.random.Generator) -> Floats:
    """Medians of the errors of replicates drawn with replacement: (RESAMPLES,)."""
    errors = np.array([np.inf if error is None else error for error in point.errors])
    resampled: Floats = np.median(rng.choice(errors, (RESAMPLES, len(errors))), 1)
    return resampled


def envelope_cost(costs: Floats, errors: Floats, error: float) -> float:
    """What the cheapest network costs that has at most this error, interpolated along the envelope.

    Between neighbors of the envelope the logarithm of the error is linear in the logarithm of the cost. Below the cheapest
    network nothing is extrapolated: its cost is returned. Infinite where no network has so small an error.
    """
    order = np.argsort(costs, kind="stable")
    costs, best = costs[order], np.minimum.accumulate(errors[order])
    kept = np.flatnonzero(np.diff(best, prepend=np.inf) < 0)
    costs, best = costs[kept], best[kept]
    if error < best[-1]:
        return float("inf")
    index = int(np.argmax(best <= error))
    if index == 0 or best[index] == error:
        return float(costs[index])
    share = (np.log(best[index - 1]) - np.log(error)) / (np.log(best[index - 1]) - np.log(max(best[index], 1e-300)))
    return float(np.exp(np.log(costs[index - 1]) + share * (np.log(costs[index]) - np.log(costs[index - 1]))))


def _make_rows(points: Sequence[Point], latencies: Latencies) -> Iterator[Row]:
    for point in points:
        finite = [error for error in point.errors if error is not None]
        kinds = " ".join(f"{kind}:{count}" for kind, count in point.kinds.items())
        yield {"contender": point.contender, "width": point.width, "learning_rate": point.rate, "metric": point.metric,
               "median": f"{point.error:.6g}", "best": min(finite), "worst": max(finite),      # the median may be infinite
               "compressed": point.error_compressed, "original": point.error_original,
               "macs": point.macs, "macs_original": point.macs_original, "parameters": point.parameters, "kinds": kinds,
               **{f"us_batch_{batch}": f"{latencies[point.key][batch]:.2f}" for batch in BATCHES}}


def render_summary(advantages: Sequence[Advantage], points: Sequence[Point], command: str) -> str:
    """One table: for every data set and cost the learned network with the largest advantage, and how many of them win."""
    environment = points[0].environment
    machine = environment["gpu"] if environment["device"] == "cuda" else environment["cpu"]
    kernels = "with the kernel library" if library_path() else "in standard operators"
    lines = [f"`{command}`, on {machine} (torch {environment['torch']}), {len(points[0].errors)} networks for each point.",
             "Every family has the same number of steps and its own best learning rate of four, by validation. Latencies are those",
             f"of the compressed networks under ONNX Runtime on one CPU thread, {kernels}, from one interleaved",
             "run for each data set.", "",
             "How many times its own cost the best fixed networks (ReLU, tanh, silu, gelu) need for the error of a learned one:",
             "for each data set the learned network with the largest advantage, with the 95 % interval from resampling replicates,",
             "and how many of the learned networks have an interval above 1. Intervals are those of single comparisons: which",
             "network is the best was seen on the same errors. After a >, no fixed network was as good: the number is the cost of",
             "the largest.",
             "",
             "| data | " + " | ".join(axis.label for axis in AXES) + " |", "|---" * (len(AXES) + 1) + "|"]
    for data in dict.fromkeys(advantage.data for advantage in advantages):
        cells = []
        for axis in AXES:
            own = [advantage for advantage in advantages if (advantage.data, advantage.axis) == (data, axis.name)]
            best = max(own, key=_rank)
            wins = sum(advantage.wins for advantage in own)
            cells.append(f"{best.point.contender} {best.point.width}: {best.text()}; {wins} of {len(own)}")
        lines.append(f"| {data} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_render_equal_width(points)]) + "\n"


def _rank(advantage: Advantage) -> tuple[float, float]:
    low = advantage.ratio if advantage.low is None else advantage.low
    return min(low, advantage.most), min(advantage.ratio, advantage.most)


def _render_equal_width(points: Sequence[Point]) -> list[str]:
    names, widths = (*FIXED, *LEARNED), sorted({point.width for point in points})
    lines = ["At equal width: median test error (RMSE over the standard deviation of the targets, or error rate).",
             "", f"| data | width | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for data in dict.fromkeys(point.data for point in points):
        for width in widths:
            own = {point.contender: point for point in points if (point.data, point.width) == (data, width)}
            if own.keys() >= set(names):
                lines.append(f"| {data} | {width} | " + " | ".join(f"{own[name].error:.4g}" for name in names) + " |")
    return lines
