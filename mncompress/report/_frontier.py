"""The frontier: what the planner tried, as cost against multiply-adds.

Every network that was tried is a point with its 95 % limit; those that keep the budget are filled. The step line joins what nothing
tried beats in both. Networks far from what matters are drawn as triangles on the edge beyond which they lie.
"""

import math
from collections.abc import Sequence
from typing import Any

from mncompress.report._format import count
from mncompress.report._style import PALETTE, add_legend, make_figure, style_axes
from mncompress.types import Report, Trial

HEIGHT = 3.2
"""Inches."""
HEADROOM = 2.5
"""The chart reaches so many times the highest of what it must show: the budget, and the networks that keep it."""


def draw_frontier(report: Report, width: float = 7.2) -> Any:
    """The chart (`matplotlib.figure.Figure`) of the networks that were tried, so many inches wide; see the module."""
    figure = make_figure(width, HEIGHT)
    axes = figure.add_subplot()
    unit = "per cent of RMSE" if report.argmax_flips is None else "points of accuracy"
    style_axes(axes, f"loss on the validation split, {unit}")
    axes.set_xlabel("multiply-adds of one sample")
    low, high = _limits(report)
    shown = [trial for trial in report.trials if trial.drop is not None]
    for trial in shown:
        _draw_trial(axes, trial, low, high)
    line = [(report.original.macs, 0.0), *((t.macs, t.drop) for t in shown if t.drop is not None and low <= t.drop <= high)]
    axes.step(*zip(*find_frontier(line), strict=True), where="post", color=PALETTE["learned"], linewidth=1.2, zorder=1)
    axes.plot([report.original.macs], [0], marker="s", markersize=6, color=PALETTE["learned"], zorder=4)
    _draw_limits(axes, report)
    axes.set_ylim(low, high)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(_locator(5 if width > 5 else 3))
    axes.xaxis.set_major_formatter(lambda value, _: count(round(value)))
    _add_legend(figure, report, columns=5 if width > 5 else 2)
    return figure


def find_frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of the points (cost, loss) that no other beats in both, from the cheapest on: their losses fall as costs rise."""
    best, found = math.inf, []
    for cost, loss in sorted(points):
        if loss < best:
            found.append((cost, loss))
            best = loss
    return found


def describe_frontier(report: Report) -> str:
    """The chart in words, for those who do not see it."""
    kept = sum(trial.ok for trial in report.trials)
    taken = next((trial for trial in report.trials if trial.taken), None)
    end = "" if taken is None or taken.drop is None else (
        f" The one taken has {count(taken.macs)} multiply-adds and loses {taken.drop:.3g}"
        + ("." if taken.drop_upper_bound is None else f", at most {taken.drop_upper_bound:.3g} with 95 % confidence."))
    tried = "1 network was" if len(report.trials) == 1 else f"{len(report.trials)} networks were"
    return (f"{tried} tried and held against the budget on the validation split; {kept} of them "
            f"keep it. The original has {count(report.original.macs)} multiply-adds.{end}")


def _draw_trial(axes: Any, trial: Trial, low: float, high: float) -> None:
    assert trial.drop is not None
    color = PALETTE["ink"] if trial.ok else PALETTE["twin"]
    face = color if trial.ok else PALETTE["paper"]
    if not low <= trial.drop <= high:
        edge, marker = (high, 6) if trial.drop > high else (low, 7)
        axes.plot([trial.macs], [edge], marker=marker, markersize=5, color=PALETTE["twin"], clip_on=False, zorder=2)
        return
    if trial.drop_upper_bound is not None:
        axes.plot([trial.macs] * 2, [trial.drop, trial.drop_upper_bound], color=color, linewidth=0.8, alpha=0.6, zorder=2)
    axes.plot([trial.macs], [trial.drop], marker="D" if trial.left else "o", markersize=4.5 if trial.left else 5, color=color,
              markerfacecolor=face, markeredgewidth=1.1, linestyle="none", zorder=3)
    if trial.taken:
        axes.plot([trial.macs], [trial.drop], marker="o", markersize=11, markerfacecolor="none", color=PALETTE["accent"],
                  markeredgewidth=1.6, zorder=5)


def _draw_limits(axes: Any, report: Report) -> None:
    if report.budget.max_drop is not None:
        axes.axhline(report.budget.max_drop, color=PALETTE["accent"], linewidth=0.9, linestyle=(0, (5, 3)), zorder=0)
    target = report.budget.macs_limit(report.original.macs)
    if target is not None:
        axes.axvline(target, color=PALETTE["accent"], linewidth=0.9, linestyle=(0, (5, 3)), zorder=0)
    axes.axvline(report.relu_twin.macs, color=PALETTE["twin"], linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)


def _limits(report: Report) -> tuple[float, float]:
    """Where the axis of losses begins and ends."""
    wanted = [trial for trial in report.trials if (trial.ok or trial.taken) and trial.drop is not None]
    values = [value for trial in wanted for value in (trial.drop, trial.drop_upper_bound) if value is not None]
    values += [0.0, *([] if report.budget.max_drop is None else [report.budget.max_drop])]
    others = [trial.drop for trial in report.trials if trial.drop is not None]
    top = max(values) or (min((drop for drop in others if drop > 0), default=1.0))
    low = min(0.0, *values, *(drop for drop in others if drop > -HEADROOM * top))
    high = min(HEADROOM * top, 1.15 * max([top, *others]))
    return low - 0.08 * (high - low), high


def _locator(bins: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(bins, integer=True)


def _add_legend(figure: Any, report: Report, *, columns: int) -> None:
    from matplotlib.lines import Line2D

    def point(color: str, **style: Any) -> Any:
        return Line2D([], [], color=PALETTE[color], linestyle="none", markersize=5, **style)

    entries = [(point("learned", marker="s"), "original"), (point("ink", marker="o"), "keeps the budget")]
    if any(not trial.ok for trial in report.trials):
        entries.append((point("twin", marker="o", markerfacecolor=PALETTE["paper"]), "exceeds it"))
    if any(trial.left for trial in report.trials):
        entries.append((point("ink", marker="D"), "neurons have left"))
    entries.append((point("accent", marker="o", markerfacecolor="none", markeredgewidth=1.6), "taken"))
    if report.budget.max_drop is not None or report.budget.target_macs is not None:
        entries.append((Line2D([], [], color=PALETTE["accent"], linewidth=0.9, linestyle=(0, (5, 3))), "asked for"))
    entries.append((Line2D([], [], color=PALETTE["twin"], linewidth=0.9, linestyle=(0, (1, 2))), "same network with ReLU"))
    add_legend(figure, [handle for handle, _ in entries], [label for _, label in entries], columns=columns)
