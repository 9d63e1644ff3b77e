"""`train`: from a configuration to a run; `train_stacks`: from many configurations to their runs.

Data lies on the device. Replicates see the same batches in the same order, or each its own, which the seed and the epoch
determine, so an interrupted run continues as if nothing had happened.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mncompress.checkpoint import Run, RunRecord, load_record, load_run, read_metrics, save_run
from mncompress.data import Dataset, load_dataset
from mncompress.errors import CheckpointError, ConfigError, TrainingError
from mncompress.files import check_output_folder, hold_folder
from mncompress.training._checkpoint import check_epochs, load_checkpoint_, save_checkpoint
from mncompress.training._logs import EventLog
from mncompress.training._metrics import METRIC_NAMES, follow, quality
from mncompress.training._trainer import Trainer
from mncompress.types import EpochMetrics, TrainConfig

REPORT_SECONDS = 0.1
VARYING = ("lr", "activation_lr", "init", "weight_decay", "replicates", "keep")
"""The fields in which configurations of one stack may differ."""


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
    """Since the epoch began."""
    networks: int = 1

    @property
    def networks_epochs_per_second(self) -> float:
        """Networks times epochs trained in a second, in this epoch so far."""
        return self.networks * self.step / self.steps / max(self.seconds, 1e-9)


Progress = Callable[[TrainProgress], None]


def train(config: TrainConfig, *, out: Path | None = None, resume: bool = False, overwrite: bool = False,
          tensorboard: bool = False, progress: Progress | None = None, dataset: Dataset | None = None,
          loaded: Callable[[Dataset], None] | None = None) -> Run:
    """Train one network or several side by side.

    Args:
        config: what to train, on what, and how.
        out: the run folder; None keeps everything in memory.
        resume: continue the run in `out` after its last whole epoch (from the start where there is none); on the CPU, with
            the same number of threads, to the same weights bit for bit.
        overwrite: replace a run that is in `out` with what was made from it, once the first epoch of the new one is done.
        tensorboard: also log the metrics into `out/tensorboard`; needs the package tensorboard.
        progress: called several times a second and after each epoch.
        dataset: what `config.data` stands for, where it lies in memory already; None loads it.
        loaded: called with the data set before the first step.

    Returns:
        The run with its best replicate chosen on the validation split.

    Raises:
        ConfigError, DataError: the configuration or the data cannot be used.
        OutputError: `out` is not empty (and neither `resume` nor `overwrite`), cannot be written, or is in use by another process.
        CheckpointError: `out` holds a damaged run, or one of other data.
        TrainingError: every network diverged.
    """
    out = None if out is None else Path(out)
    if tensorboard and out is None:
        raise ConfigError("tensorboard needs the run's folder: pass --out DIR")
    with contextlib.nullcontext() if out is None else hold_folder(out):
        return _train(config, out, resume, overwrite, tensorboard, progress, dataset, loaded)


def _train(config: TrainConfig, out: Path | None, resume: bool, overwrite: bool, tensorboard: bool, progress: Progress | None,
           dataset: Dataset | None, loaded: Callable[[Dataset], None] | None) -> Run:
    """`train`, with the folder in hand."""
    saved = _check_folder(config, out, resume=resume, overwrite=overwrite)
    dataset = dataset or load_dataset(config.data, data_dir=config.data_dir, seed=config.seed)
    if saved is not None and saved.data_hash != dataset.content_hash:
        raise CheckpointError(f"{out} was trained on other data: {config.data!r} now has content {dataset.content_hash}, "
                              f"then {saved.data_hash}")
    if out is not None and saved is not None and saved.best is not None and saved.config.epochs == config.epochs:
        run = load_run(out)
        reached = max((row.epoch for row in read_metrics(out / "metrics.csv")), default=0)
        check_epochs(out, reached, config.epochs)       # it is further where a longer run was interrupted
        return run
    if loaded is not None:
        loaded(dataset)
    with _out_of_memory_told(config, config.replicates), EventLog(out / "tensorboard" if tensorboard and out else None) as log:
        trainer = Trainer((config,), dataset)
        if out is not None and saved is not None and (saved.best is not None or (out / "checkpoint.safetensors").exists()):
            load_checkpoint_(trainer, out)
        log.add(trainer.rows)
        while trainer.epoch < config.epochs and not trainer.all_stopped():
            rows = _run_epoch_(trainer, progress)
            if out is not None:
                save_checkpoint(trainer, _make_record(trainer, config), out)
            log.add(rows)
        run = _finish(trainer, (config,))[0]
    if out is not None:
        save_run(out, run)
        run = dataclasses.replace(run, folder=out)
    return run


def train_stacks(configs: Sequence[TrainConfig], *, progress: Progress | None = None) -> list[Run]:
    """Train many configurations in memory: those alike but for `VARYING` as one stack, one stack after another.

    Each run equals, up to rounding, what `train` gives for its configuration alone.

    Raises:
        ConfigError, DataError, TrainingError: as for `train`; every network of one stack diverged.
    """
    stacks: dict[TrainConfig, list[int]] = {}
    defaults: dict[str, Any] = {name: getattr(TrainConfig, name) for name in VARYING}
    for index, config in enumerate(configs):
        stacks.setdefault(dataclasses.replace(config, **defaults), []).append(index)
    runs: dict[int, Run] = {}
    for members in stacks.values():
        stack = [configs[index] for index in members]
        dataset = load_dataset(stack[0].data, data_dir=stack[0].data_dir, seed=stack[0].seed)
        with _out_of_memory_told(stack[0], sum(config.replicates for config in stack)):
            trainer = Trainer(stack, dataset)
            while trainer.epoch < stack[0].epochs and not trainer.all_stopped():
                _run_epoch_(trainer, progress)
            runs |= dict(zip(members, _finish(trainer, stack), strict=True))
    return [runs[index] for index in range(len(configs))]


@contextlib.contextmanager
def _out_of_memory_told(config: TrainConfig, networks: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "alloc" not in str(error):
            raise
        raise TrainingError(f"{networks} networks with hidden layers {config.hidden} and the data do not fit into memory; "
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
    free = {"device", "data_dir"} | ({"epochs"} if config.schedule == "constant" else set())
    for field in dataclasses.fields(config):
        then, now = getattr(saved.config, field.name), getattr(config, field.name)
        if field.name not in free and then != now:
            raise ConfigError(f"cannot resume {out} with another {field.name}: the run has {then!r}, now {now!r} was given")
    if saved.best is not None:
        check_epochs(out, saved.config.epochs, config.epochs)
    return saved


def _run_epoch_(trainer: Trainer, progress: Progress | None) -> list[EpochMetrics]:
    """One epoch with its validation; returns its rows."""
    started = reported = time.perf_counter()
    config, replicates, task = trainer.config, trainer.replicates, trainer.spec.task
    metric = _best_metric(trainer.rows[-replicates:], trainer)
    name = METRIC_NAMES[task]
    epoch = trainer.epoch + 1
    for step, steps in trainer.run_epoch():
        now = time.perf_counter()
        if progress is not None and now - reported > REPORT_SECONDS and step < steps:
            reported = now
            loss = float(trainer.losses(step).nanmean())
            progress(TrainProgress(epoch, config.epochs, step, steps, loss, metric, name, now - started, replicates))
    losses = trainer.losses(steps).tolist()
    validation_loss, validation_metric = trainer.validate()
    seconds = time.perf_counter() - started
    rows = [EpochMetrics(epoch, k, losses[k], float(validation_loss[k]), float(validation_metric[k]), seconds)
            for k in range(replicates)]
    trainer.add_rows(rows)
    if all(result is None for result in trainer.results()):
        raise TrainingError(f"training diverged in epoch {epoch}: no network has finite weights and loss; "
                            f"lower --lr (now {config.lr:g}) or choose another --init (now {config.init})")
    if progress is not None:
        metric = _best_metric(rows, trainer)
        loss = float(trainer.losses(steps).nanmean())
        progress(TrainProgress(epoch, config.epochs, steps, steps, loss, metric, name, seconds, replicates))
    return rows


def _best_metric(rows: Sequence[EpochMetrics], trainer: Trainer) -> float | None:
    best, _ = follow(rows, 0, trainer.spec.task)
    return None if best is None else best.validation_metric


def _make_record(trainer: Trainer, config: TrainConfig, start: int = 0) -> RunRecord:
    """What `config.json` holds of an unfinished run, whose networks begin at `start` in the stack."""
    splits = {name: len(getattr(trainer.dataset, name).x) for name in ("train", "calibration", "validation", "test")}
    environment = {"torch": torch.__version__, "device": str(trainer.device), "threads": torch.get_num_threads()}
    errors = trainer.initial_errors[start:start + config.replicates]
    return RunRecord(config, trainer.spec, trainer.dataset.content_hash, splits, tuple(errors), METRIC_NAMES[trainer.spec.task],
                     environment=environment)


def _finish(trainer: Trainer, configs: Sequence[TrainConfig]) -> list[Run]:
    """The finished run of each configuration of a stack.

    Raises:
        TrainingError: every network of one configuration diverged.
    """
    runs, start = [], 0
    results, networks = trainer.results(), trainer.networks()
    for config in configs:
        own = results[start:start + config.replicates]
        finite = {k: row for k, row in enumerate(own) if row is not None}
        if not finite:
            raise TrainingError(f"training diverged: no network with lr {config.lr:g} and init {config.init} has finite weights "
                                "and loss; lower --lr or choose another --init")
        ranking = sorted(finite, key=lambda k: (-quality(finite[k], trainer.spec.task), finite[k].validation_loss))
        kept = tuple(sorted(ranking[:config.keep])) if config.keep else tuple(range(config.replicates))
        record = dataclasses.replace(
            _make_record(trainer, config, start), best=ranking[0], kept=kept,
            validation_metric=tuple(None if row is None else row.validation_metric for row in own),
            epoch=tuple(None if row is None else row.epoch for row in own))
        rows = torch.tensor([start + k for k in kept], device=trainer.device)
        state = trainer.population.state({name: value.index_select(0, rows) for name, value in networks.items()})
        history = tuple(dataclasses.replace(row, replicate=row.replicate - start) for row in trainer.rows
                        if start <= row.replicate < start + config.replicates)
        runs.append(Run(record, state, history=history))
        start += config.replicates
    return runs
