"""Run folders: what training leaves behind and every later step starts from.

    config.json             the configuration, the network's shape, the data's content hash, and the results
    model.safetensors       the best replicate on the validation split, as a `Network` state
    replicates.safetensors  all replicates, stacked along a leading axis
    metrics.csv             one row per epoch and replicate
    checkpoint.safetensors  replicates and optimizer state after the last whole epoch, for `--resume`

Only safetensors, JSON and CSV: nothing that is read can run code. Every file is written beside its destination and renamed.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mncompress.data import Standardization
from mncompress.errors import CheckpointError, ConfigError
from mncompress.files import atomic_path, write_json, write_text
from mncompress.nn import Network, Standardize, make_body
from mncompress.types import STRICT, EpochMetrics, NetworkSpec, TrainConfig, from_json, to_json

SCHEMA = "mncompress.run/2"
COMPRESSED_FILES = (r"(original|compressed|portable|relu_twin)\.onnx|(plan|report)\.json|report\.html|activations\.safetensors"
                    r"|inspect(-\d+)?")
"""What the files are called that `compress` writes into its folder, and folders of `inspect` there."""
METRICS = tuple(EpochMetrics.__dataclass_fields__)
"""The columns of `metrics.csv`."""
SMALL_NETWORK = 100_000
"""Parameters of a network whose shapes are known at once, so that what is missing can be named."""


@dataclass(frozen=True)
class RunRecord:
    """`config.json`: everything about a run but its tensors."""

    __pydantic_config__ = STRICT

    config: TrainConfig
    network: NetworkSpec
    data_hash: str
    samples: Mapping[str, int]
    """Rows of each split."""
    initial_max_abs_error: tuple[tuple[float, ...], ...]
    """Per replicate and activated layer: how far the initial activations were from the fixed one on [-3, 3]."""
    metric: str
    """`accuracy` or `rmse`."""
    validation_metric: tuple[float | None, ...] = ()
    """Per replicate, of the weights that it ended with; None for a diverged one. Empty while training is unfinished."""
    epoch: tuple[int | None, ...] = ()
    """Per replicate the epoch that these weights are of: the last, or its best."""
    kept: tuple[int, ...] = ()
    """The replicates whose weights were kept, ascending; they lie in this order in `replicates.safetensors`."""
    best: int | None = None
    """The replicate in `model.safetensors`."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        record: what `config.json` holds.
        replicates: `Network` parameters and buffers; parameters have a leading axis over the replicates of `record.kept`.
        folder: where it was saved, or None.
        history: the metrics of every epoch and replicate of a run that was just trained; empty for one that was read, also by
            `train` where nothing was left to train: see `read_metrics`.
    """

    record: RunRecord
    replicates: Mapping[str, Tensor]
    folder: Path | None = None
    history: tuple[EpochMetrics, ...] = ()

    @property
    def config(self) -> TrainConfig:
        """The configuration it was trained with."""
        return self.record.config

    @property
    def best(self) -> int:
        """The best replicate on the validation split."""
        assert self.record.best is not None
        return self.record.best

    @property
    def validation_metric(self) -> tuple[float | None, ...]:
        """Accuracy or RMSE of each replicate on the validation split; None for a diverged one."""
        return self.record.validation_metric

    @property
    def data_hash(self) -> str:
        """Content hash of the data it was trained on."""
        return self.record.data_hash

    def network(self, replicate: int | None = None) -> Network:
        """One trained network on the CPU, by default the best.

        Raises:
            ConfigError: there is no such replicate, or it diverged.
        """
        chosen = self.best if replicate is None else replicate
        if not 0 <= chosen < self.config.replicates:
            there = f"replicates 0 to {self.config.replicates - 1}" if self.config.replicates > 1 else "only replicate 0"
            raise ConfigError(f"replicate {chosen} does not exist: the run has {there}")
        if self.validation_metric[chosen] is None:
            raise ConfigError(f"replicate {chosen} diverged in training; choose another one, such as the best, {self.best}")
        if chosen not in self.record.kept:
            raise ConfigError(f"replicate {chosen} was not kept; choose one of {', '.join(map(str, self.record.kept))}")
        return make_network(self.record.network, select_replicate(self.replicates, self.record.kept.index(chosen)))


def select_replicate(replicates: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """The state of one network out of stacked ones (M, ...); standardization constants have no leading axis."""
    return {name: value[index] if name.startswith("body.") else value for name, value in replicates.items()}


def make_template(spec: NetworkSpec, features: Standardization, targets: Standardization | None) -> Network:
    """A network of the given shape with uninitialized weights."""
    return Network(spec, make_body(spec), Standardize(features.shift, features.scale),
                   None if targets is None else Standardize(targets.shift, targets.scale))


def make_network(spec: NetworkSpec, state: Mapping[str, Tensor]) -> Network:
    """A network of the given shape from its state; names and shapes must be those of the spec."""
    targets = Standardization(np.zeros(spec.out_features), np.ones(spec.out_features)) if spec.task == "regression" else None
    network = make_template(spec, Standardization(np.zeros(spec.in_features), np.ones(spec.in_features)), targets)
    network.load_state_dict(dict(state))
    return network.eval().requires_grad_(False)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors of any shape as a safetensors file, atomically."""
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        # not save_file: it makes files that only their owner can read
        temporary.write_bytes(sort_metadata(save(contiguous, dict(metadata))))


def sort_metadata(content: bytes) -> bytes:
    """A safetensors file with its metadata in alphabetical order, so that equal contents are equal bytes."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + size])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size:]


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file and its metadata.

    Raises:
        CheckpointError: it is missing, truncated or not safetensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; is {path.parent} a run folder of mncompress train?")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}); train again, or restore the file") from None


def save_record(folder: Path, record: RunRecord) -> None:
    """Write `config.json`."""
    write_json(folder / "config.json", to_json(record))


def load_record(folder: Path) -> RunRecord:
    """Read `config.json`.

    Raises:
        CheckpointError: there is none, it is not JSON, of an unknown version, or has a wrong field.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; is {folder} a run folder of mncompress train?")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); restore the file, or train again") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise CheckpointError(f"{path} has schema {schema!r}, this version of mncompress reads {SCHEMA!r}")
    try:
        return from_json(RunRecord, document, where=str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def save_run(folder: Path, run: Run) -> None:
    """Write the results of a finished run; `config.json` comes last, and only with it does the run count as finished."""
    metadata = {"producer": "mncompress", "schema": SCHEMA, "epochs": str(run.config.epochs)}
    save_tensors(folder / "replicates.safetensors", run.replicates, metadata)
    best = run.record.kept.index(run.best)
    save_tensors(folder / "model.safetensors", select_replicate(run.replicates, best), metadata)
    save_record(folder, run.record)


def load_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        CheckpointError: a file is missing or damaged, the tensors do not fit the configuration, or training is unfinished.
    """
    folder = Path(folder)
    record = load_record(folder)
    if record.best is None:
        raise CheckpointError(f"{folder} holds an unfinished run; continue it with: mncompress train --resume --out {folder}")
    replicates, metadata = load_tensors(folder / "replicates.safetensors")
    if metadata.get("epochs") != str(record.config.epochs):     # interrupted while a longer run replaced a finished one
        raise CheckpointError(f"{folder} holds tensors after {metadata.get('epochs')} epochs, but config.json after "
                              f"{record.config.epochs}; continue it with: mncompress train --resume and the former --epochs")
    check_state(record, replicates, folder / "replicates.safetensors")
    model, _ = load_tensors(folder / "model.safetensors")
    best = select_replicate(replicates, record.kept.index(record.best))
    if model.keys() != best.keys() or not all(torch.equal(model[name], value) for name, value in best.items()):
        raise CheckpointError(f"{folder / 'model.safetensors'} is not replicate {record.best} of replicates.safetensors; "
                              "restore the file, or train again")
    return Run(record, replicates, folder)


def check_state(record: RunRecord, replicates: Mapping[str, Tensor], path: Path) -> None:
    """Compare stacked tensors (M, ...), and the results of a finished run, with what the configuration says.

    Raises:
        CheckpointError: naming the first thing that differs.
    """
    _check_record(record, path.parent / "config.json")
    if record.network.parameters > sum(value.numel() for value in replicates.values()) + SMALL_NETWORK:
        raise CheckpointError(f"{path} does not fit config.json, a network of impossible size: {record.network.parameters} "
                              "parameters, more than the file holds; restore the file, or train again")
    expected = _expected_shapes(record)
    if expected.keys() != replicates.keys():
        different = sorted(expected.keys() ^ replicates.keys())
        raise CheckpointError(f"{path} does not fit config.json: tensor {different[0]!r} is missing or unknown")
    for name, shape in expected.items():
        value = replicates[name]
        if tuple(value.shape) != shape or value.dtype != torch.float32:
            raise CheckpointError(f"{path} does not fit config.json: {name} is {value.dtype} {tuple(value.shape)}, "
                                  f"expected torch.float32 {shape}")
    for position, k in enumerate(record.kept):
        finite = all(bool(value.isfinite().all()) for value in select_replicate(replicates, position).values())
        if record.validation_metric[k] is not None and not finite:
            raise CheckpointError(f"{path} holds values that are not finite in replicate {k}; restore the file, or train again")


def _check_record(record: RunRecord, path: Path) -> None:
    config, network, metrics = record.config, record.network, record.validation_metric
    if config.make_spec(network.in_features, network.out_features, network.task) != network:
        raise CheckpointError(f"{path} is inconsistent: its network is not that of its config; restore the file, or train again")
    count = 0 if record.best is None else config.replicates
    if len(metrics) != count or not all(metric is None or math.isfinite(metric) for metric in metrics):
        raise CheckpointError(f"{path} is inconsistent: validation_metric is {metrics} for {config.replicates} replicates")
    if [epoch is None for epoch in record.epoch] != [metric is None for metric in metrics]:
        raise CheckpointError(f"{path} is inconsistent: epoch is {record.epoch} for {config.replicates} replicates")
    kept = record.kept
    most = min(count, config.keep) if config.keep else count
    if list(kept) != sorted({k for k in kept if 0 <= k < count}) or len(kept) > most or (not config.keep and len(kept) < most):
        raise CheckpointError(f"{path} is inconsistent: kept is {kept} of {config.replicates} replicates")
    if record.best is not None and (record.best not in kept or metrics[record.best] is None):
        raise CheckpointError(f"{path} is inconsistent: best is {record.best} of {config.replicates} replicates")


def _expected_shapes(record: RunRecord) -> dict[str, tuple[int, ...]]:
    network = record.network
    with torch.device("meta"):
        body = torch.nn.Sequential(*make_body(network)).state_dict()
    shapes: dict[str, tuple[int, ...]] = {f"body.{name}": (len(record.kept), *value.shape) for name, value in body.items()}
    shapes |= {f"features.{name}": (network.in_features,) for name in ("shift", "scale")}
    if network.task == "regression":
        shapes |= {f"targets.{name}": (network.out_features,) for name in ("shift", "scale")}
    return shapes


def format_metrics(rows: Iterable[EpochMetrics]) -> str:
    """The rows as lines of `metrics.csv`."""
    text = io.StringIO()
    csv.writer(text).writerows(map(attrgetter(*METRICS), rows))
    return text.getvalue()


def write_metrics(path: Path, lines: str) -> None:
    """Write `metrics.csv`, atomically: a head and what `format_metrics` gives."""
    write_text(path, ",".join(METRICS) + "\r\n" + lines)


def read_metrics(path: Path) -> list[EpochMetrics]:
    """Read `metrics.csv`.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [EpochMetrics(int(row["epoch"]), int(row["replicate"]), float(row["train_loss"]),
                                 float(row["validation_loss"]), float(row["validation_metric"]), float(row["seconds"]))
                    for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}); start again with --overwrite") from None
