"""Loss and metric of stacked networks, and which of their epochs was the best."""

import math
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor

from mncompress.types import EpochMetrics, Task

METRIC_NAMES: dict[Task, str] = {"classification": "accuracy", "regression": "rmse"}


def loss_per_replicate(outputs: Tensor, y: Tensor, task: Task) -> Tensor:
    """Mean loss of each network.

    Args:
        outputs: (M, out_features, batch), standardized for regression.
        y: labels (batch,), or standardized targets (batch, out_features); with an axis of M in front if networks differ.
        task: cross-entropy for classification, mean squared error for regression.

    Returns:
        (M,).
    """
    if task == "regression":
        return (outputs - y.mT).square().mean((1, 2))
    labels = y.expand(len(outputs), -1).unsqueeze(1)
    return -F.log_softmax(outputs, 1).gather(1, labels).mean((1, 2))


def metric_per_replicate(outputs: Tensor, y: Tensor, task: Task, target_scale: Tensor | None) -> Tensor:
    """Accuracy, or RMSE in the targets' own units, of each network: (M,); `y` is the same for all, see above."""
    if task == "classification":
        return (outputs.argmax(1) == y).float().mean(1)
    assert target_scale is not None
    largest = target_scale.max()        # taken out of the square, which would overflow for large units
    return ((outputs - y.mT) * (target_scale / largest).unsqueeze(-1)).square().mean((1, 2)).sqrt() * largest


def is_finite(row: EpochMetrics) -> bool:
    """Whether a network's validation results are finite."""
    return math.isfinite(row.validation_loss) and math.isfinite(row.validation_metric)


def quality(row: EpochMetrics, task: Task) -> float:
    """What the best of finite results has most of: accuracy, or minus the loss, in which targets of different units count alike."""
    return row.validation_metric if task == "classification" else -row.validation_loss


Followed = tuple[EpochMetrics | None, bool]
"""One network's best row so far, and whether it was stopped: some epochs, its patience, after its best."""


def follow(rows: Iterable[EpochMetrics], patience: int, task: Task, so_far: Followed = (None, False)) -> Followed:
    """What further rows of a network make of `so_far`; those behind its stop do not count."""
    best, stopped = so_far
    for row in rows:
        if stopped:
            break
        if is_finite(row) and (best is None or quality(row, task) > quality(best, task)):
            best = row
        else:
            stopped = patience > 0 and row.epoch - (0 if best is None else best.epoch) >= patience
    return best, stopped
