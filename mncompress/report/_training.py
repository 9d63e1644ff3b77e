"""How a population of networks was trained: loss and metric by epoch, and where its members ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mncompress.report._format import fixed
from mncompress.report._style import PALETTE, make_figure, style_axes, style_log_axis
from mncompress.types import EpochMetrics

MOST_LINES = 200
"""Single networks drawn; of more, these are spread evenly over the population."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrainingCurves:
    """The metrics of K networks over E epochs; NaN where a network had diverged or stopped.

    Attributes:
        metric: `accuracy`, a fraction, or `rmse` in the target's units.
        train_loss: (K, E).
        validation_loss: (K, E).
        validation_metric: (K, E).
        final: (K,), the metric of the weights that each network ended with; NaN for a diverged one.
        best: the network that was best on the validation split.
    """

    metric: str
    train_loss: Floats
    validation_loss: Floats
    validation_metric: Floats
    final: Floats
    best: int


def make_training_curves(rows: Sequence[EpochMetrics], metric: str, final: Sequence[float | None], best: int) -> TrainingCurves:
    """Arrange the rows of `metrics.csv`, of networks 0 to len(final) - 1; rows of others are left out."""
    epochs = max((row.epoch for row in rows), default=0)
    arrays = {name: np.full((len(final), epochs), np.nan) for name in ("train_loss", "validation_loss", "validation_metric")}
    for row in rows:
        if 0 <= row.replicate < len(final) and row.epoch >= 1:
            for name, array in arrays.items():
                array[row.replicate, row.epoch - 1] = getattr(row, name)
    ends = np.array([np.nan if value is None else value for value in final], np.float64)
    return TrainingCurves(metric, **{name: np.where(np.isfinite(array), array, np.nan) for name, array in arrays.items()},
                      final=ends, best=best)


def describe_training(training: TrainingCurves) -> str:
    """The final metrics in one line."""
    found = training.final[np.isfinite(training.final)]
    if not found.size:
        return "the network diverged" if len(training.final) == 1 else f"all {len(training.final)} networks diverged"
    low, median, high = np.quantile(found, [0.25, 0.5, 0.75])
    lost = len(training.final) - len(found)
    told = fixed(median, 4) if len(found) == 1 else (
        f"median {fixed(median, 4)}, quartiles {fixed(low, 4)} to {fixed(high, 4)}, from {fixed(found.min(), 4)} to "
        f"{fixed(found.max(), 4)}")
    return (f"validation {training.metric} of {len(found)} network{'' if len(found) == 1 else 's'}: {told}"
            + (f"; {lost} diverged" if lost else ""))


def draw_training(training: TrainingCurves, title: str = "") -> Any:
    """The chart (`matplotlib.figure.Figure`): loss and metric by epoch, and the distribution of what several networks ended with.

    Both have the median over the networks, their quartiles, every single network faintly and the best one in its own color.
    """
    single = len(training.final) == 1
    figure = make_figure(9.6, 3.3)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=PALETTE["ink"], parse_math=False)
    loss, metric, *ends = figure.subplots(1, 2) if single else figure.subplots(1, 3, width_ratios=(5, 5, 2))
    _draw_epochs(loss, training.validation_loss, training.best)
    _draw_median(loss, training.train_loss, linestyle=(0, (4, 2.5)))
    if np.nanmin(training.train_loss, initial=np.inf) > 0 and np.nanmin(training.validation_loss, initial=np.inf) > 0:
        style_log_axis(loss)
    style_axes(loss, "loss: validation, and dashed the training split")
    _draw_epochs(metric, training.validation_metric, training.best)
    style_axes(metric, f"validation {training.metric}" + ("" if single else ": median, quartiles, each network"))
    for axes in (loss, metric):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in ends:
        _draw_ends(axes, training)
    return figure


def _quantiles(values: Floats) -> Floats:
    """Quartiles over the networks, (3, E), NaN where no network is left."""
    found = np.full((3, values.shape[1]), np.nan)
    there = np.isfinite(values).any(0)
    if there.any():
        found[:, there] = np.nanquantile(values[:, there], [0.25, 0.5, 0.75], axis=0)
    return found


def _draw_epochs(axes: Any, values: Floats, best: int) -> None:
    networks, epochs = values.shape
    x = np.arange(1, epochs + 1)
    marker = "o" if epochs == 1 else None
    if networks > 1:
        chosen = np.unique(np.linspace(0, networks - 1, min(networks, MOST_LINES)).round().astype(int))
        faint = max(0.12, min(0.6, 6 / len(chosen)))
        axes.plot(x, values[chosen].T, color=PALETTE["twin"], linewidth=0.7, alpha=faint, marker=marker)
        low, _, high = _quantiles(values)
        axes.fill_between(x, low, high, color=PALETTE["learned"], alpha=0.25, linewidth=0)
        axes.plot(x, values[best], color=PALETTE["accent"], linewidth=1.1, marker=marker)
    _draw_median(axes, values, marker=marker)


def _draw_median(axes: Any, values: Floats, **style: Any) -> None:
    axes.plot(np.arange(1, values.shape[1] + 1), _quantiles(values)[1], color=PALETTE["ink"], linewidth=1.5, **style)


def _draw_ends(axes: Any, training: TrainingCurves) -> None:
    """Every network's end as a point beside the box of their quartiles; the best is ringed."""
    rng = np.random.default_rng(0)
    there = np.isfinite(training.final)
    found = training.final[there]
    if found.size:
        low, median, high = np.quantile(found, [0.25, 0.5, 0.75])
        axes.fill_between([-0.36, 0.36], low, high, color=PALETTE["learned"], alpha=0.25, linewidth=0)
        axes.plot([-0.36, 0.36], [median] * 2, color=PALETTE["ink"], linewidth=1.5)
        axes.plot(rng.uniform(-0.25, 0.25, found.size), found, ".", color=PALETTE["learned"], markersize=5, alpha=0.8)
        axes.axhline(training.final[training.best], color=PALETTE["accent"], linewidth=1.1)
    style_axes(axes, "in the end")
    axes.set_xlim(-0.6, 0.6)
    axes.set_xticks([])
