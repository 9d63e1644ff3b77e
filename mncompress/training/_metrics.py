"""Loss and metric of stacked networks, and the rows of `metrics.csv`."""

import csv
import io
from dataclasses import asdict, dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from mncompress.errors import CheckpointError
from mncompress.files import write_text
from mncompress.types import Task

METRIC_NAMES: dict[Task, str] = {"classification": "accuracy", "regression": "rmse"}


@dataclass(frozen=True)
class EpochMetrics:
    """One row: a replicate after an epoch. `metric` is accuracy (a fraction) or RMSE in the target's units."""

    epoch: int
    replicate: int
    train_loss: float
    validation_loss: float
    validation_metric: float
    seconds: float


def loss_per_replicate(outputs: Tensor, y: Tensor, task: Task) -> Tensor:
    """Mean loss of each network.

    Args:
        outputs: (M, batch, out_features), standardized for regression.
        y: labels (batch,), or standardized targets (batch, out_features).
        task: cross-entropy for classification, mean squared error for regression.

    Returns:
        (M,).
    """
    if task == "regression":
        return (outputs - y).square().mean((1, 2))
    replicates, batch, _ = outputs.shape
    losses = F.cross_entropy(outputs.flatten(0, 1), y.repeat(replicates), reduction="none")
    return losses.view(replicates, batch).mean(1)


def metric_per_replicate(outputs: Tensor, y: Tensor, task: Task, target_scale: Tensor | None) -> Tensor:
    """Accuracy, or RMSE in the targets' own units, of each network: (M,)."""
    if task == "classification":
        return (outputs.argmax(-1) == y).float().mean(1)
    assert target_scale is not None
    largest = target_scale.max()        # taken out of the square, which would overflow for large units
    return ((outputs - y) * (target_scale / largest)).square().mean((1, 2)).sqrt() * largest


def write_metrics(path: Path, rows: list[EpochMetrics]) -> None:
    """Write `metrics.csv`, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(EpochMetrics.__dataclass_fields__))
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_text(path, text.getvalue())


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
