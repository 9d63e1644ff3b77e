"""The picture of a data set's frontier: error against each cost, learned families in color over fixed ones in grey."""

from collections.abc import Mapping, Sequence
from typing import Any

from mncompress.experiments._frontier import FIXED, LEARNED, Point
from mncompress.experiments._plots import DARK, GREY, LIGHT, PALETTE

MARKERS = ("o", "s", "^", "D")
DASHES = ("-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (1, 1)))


def draw_frontier(points: Sequence[Point], axes: Sequence[tuple[str, Mapping[str, float]]], title: str) -> Any:
    """The picture (`matplotlib.figure.Figure`).

    Args:
        points: of one data set.
        axes: for each plot the label of the cost and the cost of each point by its key.
        title: of the page.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure = Figure(figsize=(10.5, 7.4), facecolor="white")
    figure.text(0.02, 0.972, title, fontsize=11, fontweight="bold", color=DARK, va="center", parse_math=False)
    plots = figure.subplots(2, 2, sharey=True, gridspec_kw={
        "left": 0.075, "right": 0.985, "bottom": 0.075, "top": 0.875, "wspace": 0.08, "hspace": 0.26}).flat
    for plot, (label, costs) in zip(plots, axes, strict=True):
        for name in (*FIXED, *LEARNED):
            own = sorted((point for point in points if point.contender == name), key=lambda point: point.width)
            style = _style(name)
            plot.plot([costs[point.key] for point in own], [point.error for point in own], label=name, **style)
        plot.set_xscale("log")
        plot.set_yscale("log")
        for axis in (plot.xaxis, plot.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_locator(NullLocator())
        plot.set_xlabel(label, fontsize=8, color=GREY, labelpad=2)
        plot.spines[["top", "right"]].set_visible(False)
        plot.spines[["left", "bottom"]].set_color(LIGHT)
        plot.tick_params(which="both", labelsize=7, colors=GREY, length=2, width=0.6)
        plot.grid(which="major", color=LIGHT, linewidth=0.4, alpha=0.6)
    metric = {"nrmse": "test RMSE / standard deviation of the targets", "error rate": "test error rate"}[points[0].metric]
    figure.supylabel(metric, fontsize=8, color=GREY, x=0.012)
    handles, labels = next(iter(figure.axes)).get_legend_handles_labels()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(0.015, 0.925), ncols=len(labels), frameon=False, fontsize=7.5,
                  labelcolor=DARK, columnspacing=1.2, handlelength=2.4, handletextpad=0.5)
    return figure


def _style(name: str) -> dict[str, Any]:
    if name in FIXED:
        number = list(FIXED).index(name)
        return {"color": "#8a919c", "linestyle": DASHES[number], "marker": MARKERS[number], "markersize": 3, "linewidth": 1.1}
    number = list(LEARNED).index(name)
    return {"color": PALETTE[number], "linestyle": "-", "marker": "o", "markersize": 4, "linewidth": 1.5}
