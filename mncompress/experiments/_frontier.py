"""Learned against fixed activations at equal cost: one cell trains a network shape, compresses it, and counts what it costs.

Every contender is trained with each of `RATES` side by side, the same number of steps for all, and stands with the rate that is
best on validation. What it costs is counted, and its latency measured, on the compressed network of the replicate that is best
on validation; what it achieves is the median test error over all replicates at that rate.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mncompress import benchmark
from mncompress.checkpoint import Run, load_run, save_run
from mncompress.compression import compress_network
from mncompress.data import Dataset, load_dataset
from mncompress.errors import CheckpointError, TrainingError
from mncompress.experiments._cells import describe_environment
from mncompress.experiments._store import hash_recipe, read_result, write_result
from mncompress.files import atomic_path
from mncompress.nn import count_macs, count_parameters
from mncompress.pipeline import export_onnx
from mncompress.training import TrainProgress, evaluate_run, train_stacks
from mncompress.types import STRICT, Budget, TrainConfig, to_json

SCHEMA = "mncompress.frontier/1"
RATES = (1e-3, 4e-3, 1.6e-2, 6.4e-2)
SMALL_ROWS, SMALL_BATCH, SMALL_EPOCHS = 10_000, 32, 4
"""Data sets with fewer training rows take smaller batches, and so many times the epochs."""
DROP = {"classification": 0.1, "regression": 1.0}
"""What compression may cost: points of accuracy, or per cent of the RMSE."""
BATCHES = (1, 1024)
LATENCY_SECONDS = 0.15
"""Per network and batch size."""

LEARNED: dict[str, dict[str, Any]] = {
    "meta relu": {"activation": "meta", "inner": "relu"},
    "meta tanh, gated": {"activation": "meta", "inner": "tanh", "ends": "gated"},
    "vaf relu": {"activation": "vaf", "inner": "relu"},
    "vaf tanh": {"activation": "vaf", "inner": "tanh"},
    "agsig": {"activation": "agsig"},
    "frelu": {"activation": "frelu"},
    "warp tanh": {"activation": "warp:tanh"},
}
FIXED: dict[str, dict[str, Any]] = {act: {"activation": f"fixed:{act}"} for act in ("relu", "tanh", "silu", "gelu")}
WIDTHS = {"learned": (4, 8, 16), "fixed": (4, 8, 16, 24, 32, 48)}


@dataclass(frozen=True)
class Point:
    """A contender of one width."""

    __pydantic_config__ = STRICT

    key: str
    contender: str
    learned: bool
    width: int
    data: str
    data_hash: str
    metric: str
    """`error rate`, or `nrmse`: the RMSE over the standard deviation of the test targets."""
    rate: float
    """The learning rate that was best on validation."""
    errors: tuple[float | None, ...]
    """Of every replicate at that rate, on the test split."""
    error_original: float
    """Of the network that was compressed."""
    error_compressed: float
    macs: int
    """Multiply-adds of the compressed network."""
    macs_original: int
    parameters: int
    """Of the trained network."""
    kinds: Mapping[str, int]
    seconds: float
    environment: Mapping[str, Any]
    schema: str = SCHEMA

    @property
    def error(self) -> float:
        """Median over the replicates; a diverged one counts as infinite."""
        return float(np.median([math.inf if error is None else error for error in self.errors]))


def make_points(settings: TrainConfig, dataset: Dataset) -> dict[tuple[str, int], TrainConfig]:
    """The configuration of every contender and width on a data set, with the first of the rates."""
    small = len(dataset.train) < SMALL_ROWS
    base = dataclasses.replace(
        settings, batch_size=SMALL_BATCH if small else settings.batch_size, schedule="cosine", lr=RATES[0],
        epochs=settings.epochs * SMALL_EPOCHS if small else settings.epochs)
    layers = 2 if dataset.task == "regression" else 1
    return {(name, width): dataclasses.replace(base, hidden=(width,) * layers, **changes)
            for kind, contenders in (("learned", LEARNED), ("fixed", FIXED))
            for name, changes in contenders.items() for width in WIDTHS[kind]}


def make_key(config: TrainConfig, data_hash: str) -> str:
    """The name of a point: a hash of everything that determines its result."""
    return hash_recipe(SCHEMA, config, data_hash, rates=RATES, drop=DROP)


def run_point(name: str, config: TrainConfig, dataset: Dataset, folder: Path,
              progress: Callable[[TrainProgress], None] | None = None, *, trained: Path | None = None) -> Point:
    """Train, choose the rate, compress, and write the compressed network and then the result into `folder`.

    Args:
        name: of the contender.
        config: its configuration, with the first of the rates.
        dataset: what it is trained on.
        folder: of the results.
        progress: called after every epoch.
        trained: the folder of the trained networks: read where they are there, else written.
    """
    started = time.perf_counter()
    run = _train_best(config, progress, trained and trained / make_key(config, dataset.content_hash))
    scale = _target_scale(dataset)
    network = run.network()
    compressed = compress_network(network, dataset, Budget(max_drop=DROP[dataset.task]))
    key = make_key(config, dataset.content_hash)
    with atomic_path(folder / f"{key}.onnx") as temporary:
        export_onnx(compressed.network, temporary)
        after = _error(benchmark.evaluate(temporary, dataset.test.x, dataset.test.y), scale)
    _, metric = evaluate_run(run, dataset.test, config.device)
    found = metric / scale if dataset.task == "regression" else 1 - metric
    errors = tuple(None if run.validation_metric[k] is None else _finite(value) for k, value in enumerate(found.tolist()))
    original = errors[run.best]
    assert original is not None
    kinds: dict[str, int] = {}
    for decision in compressed.plan.decisions:
        kinds[decision.kind] = kinds.get(decision.kind, 0) + 1
    point = Point(
        key, name, name in LEARNED, config.hidden[0], config.data, dataset.content_hash,
        "nrmse" if dataset.task == "regression" else "error rate", run.config.lr, errors, original, after,
        count_macs(compressed.network), count_macs(network), count_parameters(network), kinds,
        round(time.perf_counter() - started, 3), describe_environment(config))
    write_result(folder, to_json(point))
    return point


def has_point(config: TrainConfig, data_hash: str, folder: Path) -> bool:
    """Whether a point was computed before, damaged or not."""
    key = make_key(config, data_hash)
    return (folder / f"{key}.json").exists() and (folder / f"{key}.onnx").exists()


def load_point(config: TrainConfig, data_hash: str, folder: Path) -> Point | None:
    """A point that was computed before, or None.

    Raises:
        CheckpointError: its file is damaged, or is that of another point.
    """
    path = folder / f"{make_key(config, data_hash)}.json"
    return read_result(Point, path, SCHEMA) if has_point(config, data_hash, folder) else None


def measure_latency(points: Sequence[Point], dataset: Dataset, folder: Path) -> dict[str, dict[int, float]]:
    """Median microseconds of a run of each point's compressed network, by key and batch size, from one interleaved run."""
    paths = {point.key: folder / f"{point.key}.onnx" for point in points}
    found: dict[str, dict[int, float]] = {point.key: {} for point in points}
    for batch in BATCHES:
        measured = benchmark.measure(paths, batch=batch, seconds=LATENCY_SECONDS * len(paths), inputs=dataset.test.x)
        for row in benchmark.summarize(measured):
            found[row.model][batch] = row.median_us
    return found


def load_data(settings: TrainConfig, data: str) -> Dataset:
    """The data set of that name, split by the settings' seed."""
    return load_dataset(data, data_dir=settings.data_dir, seed=settings.seed)


def _train_best(config: TrainConfig, progress: Callable[[TrainProgress], None] | None, folder: Path | None) -> Run:
    """The run whose rate is best on validation, kept in a folder if there is one."""
    if folder is not None:
        with contextlib.suppress(CheckpointError):
            return load_run(folder)
    run = min(_train(config, progress), key=_validation_error)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        save_run(folder, run)
    return run


def _train(config: TrainConfig, progress: Callable[[TrainProgress], None] | None) -> list[Run]:
    """A run for each rate, without the largest ones where every network diverges."""
    for count in range(len(RATES), 0, -1):
        try:
            return train_stacks([dataclasses.replace(config, lr=rate) for rate in RATES[:count]], progress=progress)
        except TrainingError:
            if count == 1:
                raise
    raise AssertionError


def _validation_error(run: Run) -> float:
    """Mean over the replicates, lower is better; infinite if one diverged."""
    if any(value is None for value in run.validation_metric):
        return math.inf
    mean = float(np.mean([value for value in run.validation_metric if value is not None]))
    return mean if run.record.metric == "rmse" else -mean


def _target_scale(dataset: Dataset) -> float:
    return float(np.std(dataset.test.y)) if dataset.task == "regression" else 1.0


def _error(found: benchmark.Evaluation, scale: float) -> float:
    if found.rmse is not None:
        return found.rmse / scale
    assert found.accuracy is not None
    return 1 - found.accuracy


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
