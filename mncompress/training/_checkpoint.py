"""What `--resume` needs: written after every epoch so that no moment of interruption loses a run, and read again."""

import json
import os
from pathlib import Path

from mncompress.checkpoint import RunRecord, load_tensors, read_metrics, save_record, save_tensors, write_metrics
from mncompress.errors import CheckpointError, ConfigError
from mncompress.files import remove_file, staging_folder
from mncompress.training._results import remove_results
from mncompress.training._trainer import Trainer
from mncompress.types import TrainConfig, to_json


def save_checkpoint(trainer: Trainer, record: RunRecord, out: Path) -> None:
    """Write what `--resume` needs. Whenever this is interrupted, the folder holds the old run or continues the new one.

    Metrics come before the checkpoint: a reader drops rows after the checkpoint's epoch, so none is lost or doubled.
    """
    with staging_folder(out) as staged:     # a full disk is noticed before anything of an old run is gone
        write_metrics(staged / "metrics.csv", trainer.lines)
        save_tensors(staged / "checkpoint.safetensors", trainer.state(),
                     {"epoch": str(trainer.epoch), "config": _identity(trainer.config)})
        if trainer.epoch == 1:
            save_record(staged, record)
            remove_file(out / "checkpoint.safetensors")
            os.replace(staged / "config.json", out / "config.json")
            for name in ("model.safetensors", "replicates.safetensors"):
                remove_file(out / name)
            remove_results(out)
        for name in ("metrics.csv", "checkpoint.safetensors"):
            os.replace(staged / name, out / name)


def load_checkpoint_(trainer: Trainer, out: Path) -> None:
    """Continue from what `save_checkpoint` wrote.

    Raises:
        CheckpointError: it is damaged, or belongs to another run.
        ConfigError: it is further than the configuration asks for.
    """
    path, config = out / "checkpoint.safetensors", trainer.config
    state, metadata = load_tensors(path)
    try:
        if metadata["config"] != _identity(config):
            raise CheckpointError(f"{path} belongs to another configuration than config.json; start again with --overwrite")
        trainer.load_state_(state)
        trainer.epoch = int(metadata["epoch"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit {out / 'config.json'} ({error}); start again with --overwrite") from None
    check_epochs(out, trainer.epoch, config.epochs)
    trainer.note_rows([row for row in read_metrics(out / "metrics.csv") if row.epoch <= trainer.epoch])
    expected = [(epoch, k) for epoch in range(1, trainer.epoch + 1) for k in range(trainer.replicates)]
    if not expected or [(row.epoch, row.replicate) for row in trainer.rows] != expected or all(
            result is None for result in trainer.results()):
        raise CheckpointError(f"{path} and metrics.csv do not fit each other or are damaged; start again with --overwrite")


def check_epochs(out: Path, reached: int, asked: int) -> None:
    """Refuse to continue a run of which there is more than is asked for.

    Raises:
        ConfigError: always then; it says how to go on.
    """
    if reached > asked:
        raise ConfigError(f"{out} is already trained for {reached} epochs, more than the {asked} asked for; continue with --epochs "
                          f"{reached} or more")


def _identity(config: TrainConfig) -> str:
    """What must be equal for a checkpoint to belong to a configuration."""
    document = to_json(config)
    return json.dumps({k: v for k, v in document.items() if k not in ("epochs", "device", "data_dir")}, sort_keys=True)
