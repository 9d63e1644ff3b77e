"""Latency as a chart: times and ratios by batch size, a row for each provider and number of threads, with 95 % intervals."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from mncompress.report._format import count, number
from mncompress.report._latency import MODELS, Condition
from mncompress.report._style import MODEL_COLORS, PALETTE, add_legend, make_figure, style_axes, style_log_axis
from mncompress.types import LatencyRow

_MARKERS = {"original": "s", "compressed": "o", "portable": "^", "relu_twin": "D"}
ROW_HEIGHT = 2.7
"""Inches."""


def draw_latency(conditions: Sequence[Condition], width: float = 7.2) -> Any:
    """The chart (`matplotlib.figure.Figure`) of the conditions that were measured.

    On the left microseconds per run, on the right how many times as fast as the original the compressed network is, and how many
    times as long as its ReLU twin it takes; both axes are logarithmic. Narrow charts have the two below each other.

    Args:
        conditions: at least one.
        width: inches.
    """
    groups = [(key, list(members)) for key, members in groupby(conditions, key=lambda each: (each.provider, each.threads))]
    narrow = width < 5
    rows, columns = len(groups) * (2 if narrow else 1), 1 if narrow else 2
    figure = make_figure(width, 0.4 + ROW_HEIGHT * rows)
    drawn = figure.subplots(rows, columns, squeeze=False).reshape(len(groups), 2)
    for (left, right), ((provider, threads), members) in zip(drawn, groups, strict=True):
        where = f"{provider}, {threads} thread{'' if threads == 1 else 's'}"
        _draw_times(left, members)
        _draw_ratios(right, members)
        style_axes(left, f"microseconds per run ({where})")
        style_axes(right, f"compressed against the others ({where})")
        for axes in (left, right):
            _style_batches(axes, [member.batch for member in members])
    models = list(dict.fromkeys(row.model for condition in conditions for row in condition.rows))
    add_legend(figure, [_handle(model) for model in models], [MODELS.get(model, model) for model in models],
               columns=2 if narrow else 6)
    return figure


def describe_latency(conditions: Sequence[Condition]) -> str:
    """The chart in words, for those who do not see it."""
    lines = []
    for condition in conditions:
        times = ", ".join(f"{MODELS.get(row.model, row.model)} {number(row.median_us, 3)}" for row in condition.rows)
        speedup = condition.speedup
        ratio = "" if speedup is None else f"; compressed {speedup.ratio:.2f} times as fast as the original"
        lines.append(f"{condition.name}: {times} microseconds{ratio}")
    return ". ".join(lines) + "."


def _draw_times(axes: Any, members: list[Condition]) -> None:
    rows: dict[str, list[tuple[int, LatencyRow]]] = {}
    for member in members:
        for row in member.rows:
            rows.setdefault(row.model, []).append((member.batch, row))
    for model, found in rows.items():
        batches, values = [batch for batch, _ in found], [row.median_us for _, row in found]
        _draw_series(axes, model, batches, values, [(row.median_low, row.median_high) for _, row in found])
    style_log_axis(axes)


def _draw_ratios(axes: Any, members: list[Condition]) -> None:
    """Speed over the original in the original's color, time over the twin in the twin's, and the line at 1."""
    axes.axhline(1, color=PALETTE["muted"], linewidth=0.8, zorder=0)
    speedups = [(member.batch, member.speedup) for member in members if member.speedup is not None]
    _draw_series(axes, "original", [batch for batch, _ in speedups], [each.ratio for _, each in speedups],
                 [(each.low, each.high) for _, each in speedups], "speed, original = 1")
    twins = [(member.batch, row) for member in members for row in member.rows
             if row.model == "compressed" and row.ratio_to_relu_twin is not None]
    _draw_series(axes, "relu_twin", [batch for batch, _ in twins], [row.ratio_to_relu_twin or 0.0 for _, row in twins],
                 [(row.ratio_low, row.ratio_high) for _, row in twins], "time, ReLU twin = 1")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low / 1.3, 0.5), max(high * 1.3, 2.0))
    style_log_axis(axes)


def _draw_series(axes: Any, model: str, batches: list[int], values: list[float],
                 intervals: list[tuple[float | None, float | None]], label: str = "") -> None:
    """One model's points by batch size, joined, with the intervals that there are; its label stands at the first point."""
    color = PALETTE[MODEL_COLORS.get(model, "muted")]
    axes.plot(batches, values, color=color, marker=_MARKERS.get(model, "o"), markersize=4.5, linewidth=1.3)
    for batch, (low, high) in zip(batches, intervals, strict=True):
        if low is not None and high is not None:
            axes.plot([batch, batch], [low, high], color=color, linewidth=3.2, alpha=0.45, solid_capstyle="butt")
    if label and batches:
        above = values[0] >= 1          # away from the line at 1
        axes.annotate(label, (batches[0], values[0]), xytext=(-4, 7 if above else -8), textcoords="offset points", fontsize=8,
                      ha="left", va="bottom" if above else "top", color=PALETTE["muted"], zorder=5,
                      bbox={"facecolor": PALETTE["paper"], "edgecolor": "none", "alpha": 0.85, "pad": 0.8})


def _style_batches(axes: Any, batches: list[int]) -> None:
    from matplotlib.ticker import FixedLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(batches))))
    axes.xaxis.set_major_formatter(lambda value, _: count(round(value)))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.set_xlabel("samples in a run")
    axes.set_xlim(min(batches) / 1.5, max(batches) * 1.5)


def _handle(model: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=PALETTE[MODEL_COLORS.get(model, "muted")], marker=_MARKERS.get(model, "o"), markersize=4.5,
                  linewidth=1.3)
