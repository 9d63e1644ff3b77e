"""The figures: small multiples of accuracy over epochs, accuracy at the end, and learned activations.

matplotlib is imported on first use and only through its objects, as in `report`. Ordered labels take their colors from
viridis, others from the palette of Okabe and Ito (2008); both survive color blindness. Bands and bars are 95 % intervals.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mncompress.experiments import _statistics as statistics
from mncompress.experiments._cells import GRID, CellResult, SampledActivation
from mncompress.experiments._claims import LINEAR, Results, final, is_line
from mncompress.experiments._figures import Curve, Experiment, Panel

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000", "#8c6d31")
DARK, GREY, LIGHT = "#16283a", "#6b7280", "#c3c8cf"
BENT, LINE, CONSTANT = PALETTE[0], PALETTE[3], "#9aa1ab"
MARKERS = {"o": "\N{BLACK CIRCLE}", "s": "\N{BLACK SQUARE}"}
"""Of the panels, where their accuracies at the end are drawn together."""
_SIZE, _HEAD, _FOOT, _GAP, _LEFT = (2.9, 1.85), 0.8, 0.5, (0.5, 0.62), 0.6
"""Inches: a panel, the head and the foot of a page, the space between panels and before the first."""
_SKIPPED = 0.03
"""Share of the epochs, at the beginning, that the accuracy axis need not reach down to."""


def draw_experiment(experiment: Experiment, results: Results, title: str) -> Any:
    """The picture (`matplotlib.figure.Figure`) of an experiment."""
    if experiment.draws_activations:
        return _draw_activations(experiment, results, title)
    colors = _make_colors(experiment)
    panels = len(experiment.panels) + bool(experiment.axis)
    figure, grid = _make_page(panels, min(experiment.columns, panels), title)
    _draw_legend(figure, experiment, colors)
    rows = [experiment.panels[start:start + experiment.columns] for start in range(0, len(experiment.panels), experiment.columns)]
    for number, panel in enumerate(experiment.panels):
        row, column = divmod(number, experiment.columns)
        sign = f"{list(MARKERS.values())[number]}  " if experiment.axis and len(experiment.panels) > 1 else ""
        _draw_panel(grid[number], panel, results, colors)
        grid[number].set_ylim(_find_limits(rows[row], results))
        grid[number].set_title(sign + panel.title, loc="left", fontsize=8, color=DARK, pad=4)
        if column == 0:
            grid[number].set_ylabel("validation accuracy", fontsize=7, color=GREY, labelpad=3)
    if experiment.axis:
        _draw_ends(grid[-1], experiment, results, colors)
    return figure


def _make_page(count: int, columns: int, title: str) -> tuple[Any, list[Any]]:
    """A page with so many empty plots, row by row."""
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    width = _LEFT + columns * _SIZE[0] + (columns - 1) * _GAP[0] + 0.2
    height = _HEAD + rows * _SIZE[1] + (rows - 1) * _GAP[1] + _FOOT
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(0.2 / width, 1 - 0.22 / height, title, fontsize=10, fontweight="bold", color=DARK, va="center", parse_math=False)
    grid = []
    for number in range(count):
        row, column = divmod(number, columns)
        left = _LEFT + column * (_SIZE[0] + _GAP[0])
        bottom = height - _HEAD - (row + 1) * _SIZE[1] - row * _GAP[1]
        axes = figure.add_axes((left / width, bottom / height, _SIZE[0] / width, _SIZE[1] / height))
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(LIGHT)
        axes.tick_params(labelsize=7, colors=GREY, length=2, width=0.6)
        grid.append(axes)
    return figure, grid


def _make_colors(experiment: Experiment) -> dict[str, Any]:
    """A color for each label."""
    labels = list(dict.fromkeys(curve.label for panel in experiment.panels for curve in panel.curves))
    if not experiment.ordered:
        return dict(zip(labels, PALETTE, strict=False))
    from matplotlib import colormaps

    return dict(zip(labels, colormaps["viridis"](np.linspace(0.0, 0.9, len(labels))), strict=True))


def _draw_legend(figure: Any, experiment: Experiment, colors: dict[str, Any]) -> None:
    from matplotlib.lines import Line2D

    curves = {curve.name: curve for panel in experiment.panels for curve in panel.curves}
    handles = [Line2D([], [], color=colors[curve.label], linewidth=1.8, linestyle=_dashes(curve)) for curve in curves.values()]
    width, height = figure.get_size_inches()
    figure.legend(handles, list(curves), loc="center left", bbox_to_anchor=(0.2 / width, 1 - 0.47 / height), ncols=len(curves),
                  frameon=False, fontsize=7.5, labelcolor=GREY, borderpad=0, borderaxespad=0, handletextpad=0.5,
                  handlelength=1.4 if len(curves) > 4 else 2.2, columnspacing=1.0 if len(curves) > 4 else 1.8)


def _dashes(curve: Curve) -> Any:
    return (0, (3, 1.8)) if curve.variant else "-"


def _draw_panel(axes: Any, panel: Panel, results: Results, colors: dict[str, Any]) -> None:
    """Validation accuracy over the epochs, mean and interval."""
    opacity = 0.18 if len(panel.curves) <= 5 else 0.1
    for curve in panel.curves:
        center, low, high = bands(results[curve.config])
        epochs = np.arange(1, len(center) + 1)
        axes.fill_between(epochs, low, high, color=colors[curve.label], alpha=opacity, linewidth=0)
        axes.plot(epochs, center, color=colors[curve.label], linewidth=1.3, linestyle=_dashes(curve))
    axes.set_xlim(1, max(len(epochs), 2))
    axes.locator_params(axis="x", integer=True, nbins=5)
    axes.set_xlabel("epoch", fontsize=7, color=GREY, labelpad=2)


def bands(result: CellResult) -> tuple[Any, Any, Any]:
    """Mean, lower and upper limit of the validation metric in each epoch; the limits are nan where there is no interval."""
    estimates = [statistics.mean(column) for column in result.curves.T]
    low, high = (np.array([np.nan if limit is None else limit for limit in limits])
                 for limits in ([found.low for found in estimates], [found.high for found in estimates]))
    return np.array([found.value for found in estimates]), low, high


def _find_limits(panels: Sequence[Panel], results: Results) -> tuple[float, float]:
    """Of the accuracy axis of a row: all curves but for their first epochs."""
    means = [results[curve.config].curves.mean(0) for panel in panels for curve in panel.curves]
    bottom = min(center[int(_SKIPPED * len(center)):].min() for center in means)
    top = max(center.max() for center in means)
    margin = 0.05 * (top - bottom) or 0.01
    return bottom - margin, min(top + margin, 1.005)


def _draw_ends(axes: Any, experiment: Experiment, results: Results, colors: dict[str, Any]) -> None:
    """Test accuracy at the end over the labels, one series of points a panel."""
    labels = list(colors)
    for number, (panel, marker) in enumerate(zip(experiment.panels, MARKERS, strict=False)):
        found = {curve.label: statistics.mean(final(results[curve.config]) / 100) for curve in panel.curves}
        shift = 0.22 * (number - (len(experiment.panels) - 1) / 2)
        places = [labels.index(label) + shift for label in found]
        values = [estimate.value for estimate in found.values()]
        if experiment.ordered:
            axes.plot(places, values, color=LIGHT, linewidth=1, zorder=1)
        for place, (label, estimate) in zip(places, found.items(), strict=True):
            if estimate.low is not None:
                axes.vlines(place, estimate.low, estimate.high, color=colors[label], linewidth=1.4)
        axes.scatter(places, values, c=[colors[label] for label in found], s=16, marker=marker, zorder=3)
    axes.set_xticks(range(len(labels)), labels)
    if experiment.ordered:
        axes.set_xlabel(experiment.axis, fontsize=7, color=GREY, labelpad=2)
    else:
        axes.tick_params(axis="x", labelrotation=30)
    axes.set_title("test accuracy at the end", loc="left", fontsize=8, color=DARK, pad=4)


def _draw_activations(experiment: Experiment, results: Results, title: str) -> Any:
    """A row of small plots for each panel and neuron: replicates side by side, colored by what they are."""
    rows = [(panel, index) for panel in experiment.panels
            for index in sorted({found.index for found in results[panel.curves[0].config].activations})]
    columns = max(1, *(len(_drawn(results[panel.curves[0].config], index)) for panel, index in rows))
    size, gap, left, head, foot = 0.95, (0.34, 0.34), 0.95, 0.95, 0.35

    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    width = left + columns * (size + gap[0])
    height = head + len(rows) * (size + gap[1]) - gap[1] + foot
    figure = Figure(figsize=(max(width, 5.5), height), facecolor="white")
    width = figure.get_size_inches()[0]
    figure.text(0.2 / width, 1 - 0.22 / height, title, fontsize=10, fontweight="bold", color=DARK, va="center", parse_math=False)
    handles = [Line2D([], [], color=color, linewidth=1.8) for color in (BENT, LINE, CONSTANT)]
    figure.legend(handles, ["bent", f"a line (R² above {LINEAR})", "constant"], loc="center left", frameon=False, fontsize=7.5,
                  bbox_to_anchor=(0.2 / width, 1 - 0.47 / height), ncols=3, labelcolor=GREY, borderpad=0, borderaxespad=0)
    for row, (panel, index) in enumerate(rows):
        for column, found in enumerate(_drawn(results[panel.curves[0].config], index)):
            bottom = height - head - row * (size + gap[1]) - size
            axes = figure.add_axes(((left + column * (size + gap[0])) / width, bottom / height, size / width, size / height))
            _draw_activation(axes, found)
            if row == 0:
                axes.set_title(f"network {found.replicate}", fontsize=7.5, color=DARK, pad=5)
            if column == 0:
                axes.set_ylabel(f"{panel.title.split()[0]}\nneuron {index}", fontsize=7.5, color=DARK, labelpad=5)
    return figure


def _drawn(result: CellResult, index: int) -> list[SampledActivation]:
    """One neuron of the networks whose activations were kept."""
    return [found for found in result.activations if found.layer == 0 and found.index == index and found.values]


def _draw_activation(axes: Any, found: SampledActivation) -> None:
    color = CONSTANT if found.r_squared is None else LINE if is_line(found) else BENT
    axes.plot(np.linspace(*found.domain, GRID), found.values, color=color, linewidth=1.5)
    low, high = min(found.values), max(found.values)
    room = 0.08 * (high - low) or 0.5
    axes.set_ylim(low - room, high + room)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LIGHT)
    axes.tick_params(labelsize=6, colors=GREY, length=2, width=0.6, pad=1.5)
    axes.locator_params(nbins=3)
