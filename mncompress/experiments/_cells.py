"""A cell: one population of networks, trained, tested and looked at. Nothing but its recipe determines its result.

Its file is JSON, named by the SHA-256 of the recipe (the configuration without the device and the place of the data, the
data's content hash, the version of this format), so equal cells of several figures are computed once, wherever.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mncompress import runtime
from mncompress.calibration import calibrate
from mncompress.checkpoint import Run
from mncompress.data import Dataset, load_dataset
from mncompress.errors import CheckpointError, ConfigError
from mncompress.experiments._store import hash_recipe, read_result, without_free, write_result
from mncompress.nn import count_parameters
from mncompress.training import TrainProgress, choose_device, evaluate_run, train
from mncompress.types import STRICT, TrainConfig, to_json

SCHEMA = "mncompress.cell/1"
GRID = 121
"""Points of the domain at which an activation is sampled."""
DRAWN = 8
"""Replicates whose activations are kept as curves, to be drawn."""
FLAT = 1e-6
"""An activation that varies less than this over its domain is constant."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SampledActivation:
    """What one neuron has learned, on its calibrated domain."""

    __pydantic_config__ = STRICT

    replicate: int
    layer: int
    index: int
    domain: tuple[float, float]
    r_squared: float | None
    """Of the best line through it, every point of the domain counting the same; None for a constant."""
    values: tuple[float, ...]
    """At equally spaced points of the domain; empty beyond the first replicates."""


@dataclass(frozen=True)
class CellResult:
    """The result of a cell: M replicates over E epochs."""

    __pydantic_config__ = STRICT

    key: str
    config: TrainConfig
    data_hash: str
    metric: str
    """`accuracy`, or `rmse` in the target's units."""
    validation_metric: tuple[tuple[float | None, ...], ...]
    """M by E; None where a network gave no finite value."""
    test_metric: tuple[float | None, ...]
    """M, after the last epoch."""
    parameters: int
    """Of one network."""
    seconds: float
    """Of training, all replicates together."""
    activations: tuple[SampledActivation, ...]
    """Empty for fixed activations."""
    environment: Mapping[str, Any]
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        shape = {len(row) for row in self.validation_metric}
        if len(self.validation_metric) != self.config.replicates or shape != {self.config.epochs}:
            raise ConfigError(f"validation_metric is not {self.config.replicates} rows of {self.config.epochs} epochs")
        if len(self.test_metric) != self.config.replicates:
            raise ConfigError(f"test_metric does not have {self.config.replicates} values")
        if "device" not in self.environment:
            raise ConfigError("environment does not name the device")
        numbers = [value for row in (*self.validation_metric, self.test_metric) for value in row if value is not None]
        numbers += [value for found in self.activations for value in (*found.domain, *found.values, found.r_squared or 0.0)]
        if not all(map(math.isfinite, numbers)):
            raise ConfigError("a number is not finite")
        if any(found.replicate >= self.config.replicates or len(found.values) not in (0, GRID) for found in self.activations):
            raise ConfigError("activations are of networks that are not there, or not of the right length")

    @property
    def curves(self) -> Floats:
        """Validation metric (M, E)."""
        return np.array(self.validation_metric, np.float64)

    @property
    def test(self) -> Floats:
        """Test metric (M,)."""
        return np.array(self.test_metric, np.float64)


def make_key(config: TrainConfig, data_hash: str) -> str:
    """The name of a cell: a hash of everything that determines its result."""
    return hash_recipe(SCHEMA, config, data_hash)


def run_cell(config: TrainConfig, progress: Callable[[TrainProgress], None] | None = None) -> CellResult:
    """Train the networks of a cell, test all of them, and look at what they have learned.

    Raises:
        ConfigError, DataError, RuntimeProviderError: the configuration cannot be used, or not here.
        TrainingError: every network diverged.
    """
    run = train(config, progress=progress)
    dataset = load_dataset(config.data, data_dir=config.data_dir, seed=config.seed)
    curves: list[list[float | None]] = [[] for _ in range(config.replicates)]
    for row in run.history:
        curves[row.replicate].append(_rounded(row.validation_metric))
    _, test = evaluate_run(run, dataset.test, config.device)
    return CellResult(
        key=make_key(config, dataset.content_hash), config=config, data_hash=dataset.content_hash, metric=run.record.metric,
        validation_metric=tuple(map(tuple, curves)),
        test_metric=tuple(None if run.validation_metric[k] is None else _rounded(value) for k, value in enumerate(test.tolist())),
        parameters=count_parameters(run.network()), seconds=round(sum(row.seconds for row in run.history if row.replicate == 0), 3),
        activations=tuple(_learned_activations(run, dataset)), environment=describe_environment(config))


def save_cell(folder: Path, result: CellResult) -> None:
    """Write a cell's file, atomically."""
    document = to_json(result)
    document["config"] = without_free(document["config"])
    write_result(folder, document)


def load_cell(folder: Path, config: TrainConfig, data_hash: str) -> CellResult | None:
    """The result of a cell that was computed before, or None.

    Raises:
        CheckpointError: its file is damaged, or is that of another cell.
    """
    key = make_key(config, data_hash)
    path = folder / f"{key}.json"
    if not path.exists():
        return None
    result = read_result(CellResult, path, SCHEMA)
    if make_key(result.config, result.data_hash) != key:
        raise CheckpointError(f"{path.name} holds another result than its name says")
    return result


def probe_speed(config: TrainConfig, seconds: float) -> float:
    """Seconds that an epoch of a cell takes, from about so many seconds of training after the first reports."""
    seen: list[tuple[float, float]] = []

    def watch(progress: TrainProgress) -> None:
        seen.append((time.perf_counter(), progress.epoch - 1 + progress.step / progress.steps))
        if seen[-1][0] - seen[0][0] > seconds:
            raise _ProbeDoneError

    with contextlib.suppress(_ProbeDoneError):
        train(dataclasses.replace(config, epochs=max(config.epochs, 2)), progress=watch)
    (start, begun), (end, done) = seen[0], seen[-1]
    return (end - start) / (done - begun)


class _ProbeDoneError(Exception):
    """The probe has seen enough."""


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _learned_activations(run: Run, dataset: Dataset) -> Iterator[SampledActivation]:
    """Every activation with parameters, of every replicate that did not diverge."""
    if all(spec.family == "fixed" for spec in run.record.network.activations):
        return
    for k in (k for k in run.record.kept if run.validation_metric[k] is not None):
        network = run.network(k)
        layers = zip(network.activated_layers, calibrate(network, dataset.calibration.x), strict=True)
        for number, (layer, found) in enumerate(layers):
            assert layer.activation is not None
            grid = np.linspace(found.domain[:, 0], found.domain[:, 1], GRID)
            with torch.no_grad():
                values = layer.activation(torch.as_tensor(grid, dtype=torch.float32)).double().numpy()
            for index, ((low, high), y) in enumerate(zip(found.domain, values.T, strict=True)):
                kept = tuple(float(f"{value:.5g}") for value in y) if k < DRAWN else ()
                yield SampledActivation(k, number, index, (float(f"{low:.6g}"), float(f"{high:.6g}")), line_fit(y), kept)


def line_fit(y: Floats) -> float | None:
    """R² of the best line through equally spaced values, to six digits; None if they are constant."""
    x = np.linspace(-1.0, 1.0, len(y))
    centered = y - y.mean()
    total = float(centered @ centered)
    if np.ptp(y) <= FLAT:
        return None
    return round(float((x @ centered) ** 2 / (x @ x) / total), 6)


def describe_environment(config: TrainConfig) -> dict[str, Any]:
    """What the time, and the last digits, of a cell depend on."""
    device = choose_device(config.device)
    found = runtime.describe_environment(("cpu", "cuda") if device.type == "cuda" else ("cpu",))
    kept = {name: found[name] for name in ("cpu", "cores", "gpu", "os", "python", "numpy", "torch")}
    return {**kept, "mncompress": version("mncompress"), "device": device.type, "threads": torch.get_num_threads()}
