"""`train`: from a configuration to a run.

Data lies on the device, uint8 as uint8; only the batch is converted. All replicates see the same batches in the same order,
which the seed and the epoch determine, so an interrupted run continues as if nothing had happened.
"""

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mncompress.checkpoint import (
    Run,
    RunRecord,
    load_record,
    load_run,
    load_tensors,
    save_record,
    save_run,
    save_tensors,
)
from mncompress.data import Dataset, Split, load_dataset, standardization_of
from mncompress.errors import CheckpointError, ConfigError, TrainingError
from mncompress.files import check_output_folder, remove_file, staging_folder
from mncompress.training._device import choose_device
from mncompress.training._metrics import (
    METRIC_NAMES,
    EpochMetrics,
    loss_per_replicate,
    metric_per_replicate,
    read_metrics,
    write_metrics,
)
from mncompress.training._population import make_population
from mncompress.types import TrainConfig, to_json

EVALUATION_ROWS = 8192
"""Rows times replicates of one evaluation batch."""
REPORT_SECONDS = 0.1


@dataclass(frozen=True)
class TrainProgress:
    """Where training stands: within an epoch (`metric` is that of the epoch before) or at its end (`step == steps`)."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    """Mean training loss of the epoch so far, over the replicates."""
    metric: float | None
    """Best replicate's accuracy or RMSE on the validation split after the last whole epoch."""
    metric_name: str
    seconds: float


@dataclass(frozen=True)
class _DeviceSplit:
    x: Tensor
    y: Tensor
    """Labels (n,), or standardized targets (n, out_features)."""


class _Trainer:
    """Population, optimizer and data of one run; `epoch` counts the finished ones."""

    def __init__(self, config: TrainConfig, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        self.device = choose_device(config.device)
        self.spec = config.make_spec(dataset.in_features, dataset.out_features, dataset.task)
        features, targets = standardization_of(dataset.train)
        self.population, self.initial_errors = make_population(
            self.spec, config.init, config.seed, config.replicates, features, targets, self.device)
        self.optimizer = torch.optim.Adam(self.population.parameters.values(), lr=config.lr)
        self.train_split = self._to_device(dataset.train)
        self.validation_split = self._to_device(dataset.validation)
        self.rows: list[EpochMetrics] = []
        self.epoch = 0

    def _to_device(self, split: Split) -> _DeviceSplit:
        y = torch.as_tensor(split.y)
        targets = self.population.template.targets
        y = y.to(self.device)
        return _DeviceSplit(torch.as_tensor(split.x).to(self.device), y if targets is None else targets(y))

    def run_epoch(self) -> Iterator[tuple[int, int, Tensor]]:
        """Train for one epoch, yielding (step, steps, mean loss per replicate so far) after each step."""
        split, size = self.train_split, self.config.batch_size
        order = torch.randperm(len(split.x), generator=_order_generator(self.config.seed, self.epoch)).to(self.device)
        batches = order.split(min(size, len(order)))
        total = torch.zeros(self.config.replicates, device=self.device)
        for step, rows in enumerate(batches, 1):
            losses = loss_per_replicate(self.population.forward(split.x[rows]), split.y[rows], self.spec.task)
            self.optimizer.zero_grad()
            losses.sum().backward()
            self.optimizer.step()
            total += losses.detach() * len(rows)
            yield step, len(batches), total / min(step * size, len(split.x))
        self.epoch += 1

    @torch.no_grad()
    def validate(self) -> tuple[Tensor, Tensor]:
        """Loss and metric of each replicate on the validation split, each (M,)."""
        split, targets = self.validation_split, self.population.template.targets
        parts = split.x.split(max(EVALUATION_ROWS // self.config.replicates, 256))
        outputs = torch.cat([self.population.forward(part) for part in parts], 1)
        scale = None if targets is None else targets.scale
        return (loss_per_replicate(outputs, split.y, self.spec.task).cpu(),
                metric_per_replicate(outputs, split.y, self.spec.task, scale).cpu())

    def state(self) -> dict[str, Tensor]:
        """Parameters and optimizer state by name."""
        state = {}
        for name, value in self.population.parameters.items():
            state[f"parameters.{name}"] = value
            state |= {f"{key}.{name}": moment for key, moment in self.optimizer.state[value].items()}
        return state

    def load_state_(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned.

        Raises:
            KeyError, ValueError: a tensor is missing, or has another shape or type.
        """
        for name, value in self.population.parameters.items():
            saved = {key: state[f"{key}.{name}"] for key in ("parameters", "exp_avg", "exp_avg_sq", "step")}
            for key, found in saved.items():
                shape = () if key == "step" else value.shape
                if found.shape != shape or found.dtype != torch.float32:
                    raise ValueError(f"{key}.{name} is {found.dtype} {tuple(found.shape)}, expected torch.float32 {tuple(shape)}")
            with torch.no_grad():
                value.copy_(saved["parameters"])
            self.optimizer.state[value] = {"step": saved["step"]} | {
                key: saved[key].to(self.device) for key in ("exp_avg", "exp_avg_sq")}

    def record(self) -> RunRecord:
        """What `config.json` holds of an unfinished run."""
        splits = {name: len(getattr(self.dataset, name).x) for name in ("train", "calibration", "validation", "test")}
        environment = {"torch": torch.__version__, "device": str(self.device), "threads": torch.get_num_threads()}
        return RunRecord(self.config, self.spec, self.dataset.content_hash, splits, tuple(self.initial_errors),
                         METRIC_NAMES[self.spec.task], environment=environment)


def train(config: TrainConfig, *, out: Path | None = None, resume: bool = False, overwrite: bool = False,
          progress: Callable[[TrainProgress], None] | None = None) -> Run:
    """Train one network or several side by side.

    Args:
        config: what to train, on what, and how.
        out: the run folder; None keeps everything in memory.
        resume: continue the run in `out` after its last whole epoch (from the start where there is none); on the CPU, with
            the same number of threads, to the same weights bit for bit.
        overwrite: replace a run that is in `out`, once the first epoch of the new one is done.
        progress: called several times a second and after each epoch.

    Returns:
        The run with its best replicate chosen on the validation split.

    Raises:
        ConfigError, DataError: the configuration or the data cannot be used.
        OutputError: `out` is not empty (and neither `resume` nor `overwrite`), or cannot be written.
        CheckpointError: `out` holds a damaged run, or one of other data.
        TrainingError: every network diverged.
    """
    out = None if out is None else Path(out)
    saved = _check_folder(config, out, resume=resume, overwrite=overwrite)
    dataset = load_dataset(config.data, data_dir=config.data_dir, seed=config.seed)
    if saved is not None and saved.data_hash != dataset.content_hash:
        raise CheckpointError(f"{out} was trained on other data: {config.data!r} now has content {dataset.content_hash}, "
                              f"then {saved.data_hash}")
    if out is not None and saved is not None and saved.best is not None and saved.config.epochs == config.epochs:
        return load_run(out)
    with _out_of_memory_told(config):
        return _train(config, dataset, out, saved, progress)


def _train(config: TrainConfig, dataset: Dataset, out: Path | None, saved: RunRecord | None,
           progress: Callable[[TrainProgress], None] | None) -> Run:
    trainer = _Trainer(config, dataset)
    if out is not None and saved is not None and (saved.best is not None or (out / "checkpoint.safetensors").exists()):
        _load_checkpoint_(trainer, out)
    while trainer.epoch < config.epochs:
        _run_epoch_(trainer, progress)
        if out is not None:
            _save_checkpoint(trainer, out)
    run = _finish(trainer, out)
    if out is not None:
        save_run(out, run)
    return run


@contextlib.contextmanager
def _out_of_memory_told(config: TrainConfig) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "alloc" not in str(error):
            raise
        raise TrainingError(f"{config.replicates} networks with hidden layers {config.hidden} and the data do not fit into memory; "
                            "choose fewer replicates or neurons") from None


def _check_folder(config: TrainConfig, out: Path | None, *, resume: bool, overwrite: bool) -> RunRecord | None:
    """The record of the run to continue, or None to start a new one."""
    if out is None:
        if resume:
            raise ConfigError("resume needs the run's folder: pass --out DIR")
        return None
    if not resume:
        check_output_folder(out, overwrite=overwrite)
        return None
    if not os.path.exists(out / "config.json"):     # unlike Path.exists, false for a name that is too long
        check_output_folder(out, overwrite=False)
        return None
    saved = load_record(out)
    for field in dataclasses.fields(config):
        then, now = getattr(saved.config, field.name), getattr(config, field.name)
        if field.name not in ("epochs", "device", "data_dir") and then != now:
            raise ConfigError(f"cannot resume {out} with another {field.name}: the run has {then!r}, now {now!r} was given")
    if config.epochs < saved.config.epochs and saved.best is not None:
        raise ConfigError(f"{out} is already trained for {saved.config.epochs} epochs, more than the {config.epochs} asked for")
    return saved


def _run_epoch_(trainer: _Trainer, progress: Callable[[TrainProgress], None] | None) -> None:
    started = reported = time.perf_counter()
    config = trainer.config
    before = [row.validation_metric for row in trainer.rows[-config.replicates:]]
    metric = _best_metric(before, trainer.spec.task)
    name = METRIC_NAMES[trainer.spec.task]
    epoch = trainer.epoch + 1
    for step, steps, losses in trainer.run_epoch():
        now = time.perf_counter()
        if progress is not None and now - reported > REPORT_SECONDS and step < steps:
            reported = now
            progress(TrainProgress(epoch, config.epochs, step, steps, float(losses.nanmean()), metric, name, now - started))
    validation_loss, validation_metric = trainer.validate()
    seconds = time.perf_counter() - started
    trainer.rows += [EpochMetrics(epoch, k, float(losses[k]), float(validation_loss[k]), float(validation_metric[k]), seconds)
                     for k in range(config.replicates)]
    if not any(_finite_replicates(trainer)):
        raise TrainingError(f"training diverged in epoch {epoch}: no network has finite weights and loss; "
                            f"lower --lr (now {config.lr:g}) or choose another --init (now {config.init})")
    if progress is not None:
        metric = _best_metric(validation_metric.tolist(), trainer.spec.task)
        progress(TrainProgress(epoch, config.epochs, steps, steps, float(losses.nanmean()), metric, name, seconds))


def _finite_replicates(trainer: _Trainer) -> list[bool]:
    """Which replicates have finite parameters and finite validation results."""
    finite = torch.ones(trainer.config.replicates, dtype=torch.bool, device=trainer.device)
    for value in trainer.population.parameters.values():
        finite &= value.detach().isfinite().flatten(1).all(1)
    last = trainer.rows[-trainer.config.replicates:]
    return [ok and math.isfinite(row.validation_loss) and math.isfinite(row.validation_metric)
            for ok, row in zip(finite.tolist(), last, strict=True)]


def _best_metric(values: list[float], task: str) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    return max(finite) if task == "classification" else min(finite)


def _identity(config: TrainConfig) -> str:
    """What must be equal for a checkpoint to belong to a configuration."""
    document = to_json(config)
    return json.dumps({k: v for k, v in document.items() if k not in ("epochs", "device", "data_dir")}, sort_keys=True)


def _save_checkpoint(trainer: _Trainer, out: Path) -> None:
    """Write what `--resume` needs. Whenever this is interrupted, the folder holds the old run or continues the new one.

    Metrics come before the checkpoint: a reader drops rows after the checkpoint's epoch, so none is lost or doubled.
    """
    with staging_folder(out) as staged:     # a full disk is noticed before anything of an old run is gone
        write_metrics(staged / "metrics.csv", trainer.rows)
        save_tensors(staged / "checkpoint.safetensors", trainer.state(),
                     {"epoch": str(trainer.epoch), "config": _identity(trainer.config)})
        if trainer.epoch == 1:
            save_record(staged, trainer.record())
            remove_file(out / "checkpoint.safetensors")
            os.replace(staged / "config.json", out / "config.json")
            for name in ("model.safetensors", "replicates.safetensors"):
                remove_file(out / name)
        for name in ("metrics.csv", "checkpoint.safetensors"):
            os.replace(staged / name, out / name)


def _load_checkpoint_(trainer: _Trainer, out: Path) -> None:
    path, config = out / "checkpoint.safetensors", trainer.config
    state, metadata = load_tensors(path)
    try:
        if metadata["config"] != _identity(config):
            raise CheckpointError(f"{path} belongs to another configuration than config.json; start again with --overwrite")
        trainer.load_state_(state)
        trainer.epoch = int(metadata["epoch"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit {out / 'config.json'} ({error}); start again with --overwrite") from None
    if trainer.epoch > config.epochs:
        raise ConfigError(f"{out} is already trained for {trainer.epoch} epochs, more than the {config.epochs} asked for")
    trainer.rows = [row for row in read_metrics(out / "metrics.csv") if row.epoch <= trainer.epoch]
    expected = [(epoch, k) for epoch in range(1, trainer.epoch + 1) for k in range(config.replicates)]
    if not expected or [(row.epoch, row.replicate) for row in trainer.rows] != expected or not any(_finite_replicates(trainer)):
        raise CheckpointError(f"{path} and metrics.csv do not fit each other or are damaged; start again with --overwrite")


def _finish(trainer: _Trainer, out: Path | None) -> Run:
    last = trainer.rows[-trainer.config.replicates:]
    finite = _finite_replicates(trainer)
    metrics = tuple(row.validation_metric if ok else None for row, ok in zip(last, finite, strict=True))
    sign = -1 if trainer.spec.task == "classification" else 1
    best = min((k for k, ok in enumerate(finite) if ok), key=lambda k: (sign * last[k].validation_metric, last[k].validation_loss))
    record = dataclasses.replace(trainer.record(), validation_metric=metrics, best=best)
    return Run(record, trainer.population.state(), out)


def _order_generator(seed: int, epoch: int) -> torch.Generator:
    """The stream of an epoch's shuffling."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch + 0x5EED) % 2**63)
