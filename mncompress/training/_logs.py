"""Metrics as TensorBoard events."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mncompress.errors import ConfigError
from mncompress.types import EpochMetrics


class EventLog:
    """Writes events into a folder, from the first row on, or nothing where the folder is None; a context manager.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.writer: Any = None
        if folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ConfigError("--tensorboard needs the package tensorboard: pip install 'mncompress[tensorboard]'") from None
            self.make_writer = SummaryWriter

    def add(self, rows: Sequence[EpochMetrics]) -> None:
        """Log rows: each metric is a tag with the replicate behind the slash."""
        if self.folder is None or not rows:
            return
        if self.writer is None:
            self.writer = self.make_writer(str(self.folder), purge_step=rows[0].epoch)
        for row in rows:
            for name in ("train_loss", "validation_loss", "validation_metric"):
                self.writer.add_scalar(f"{name}/{row.replicate}", getattr(row, name), row.epoch)
        self.writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.writer is not None:
            self.writer.close()
