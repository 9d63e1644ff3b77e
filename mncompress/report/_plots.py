"""Pictures for files and documents: every learned activation of a network.

matplotlib is imported on first use and only through its objects: no window, no global state, the same bytes every time.
Colors are those of `_style`.
"""

from collections.abc import Iterator
from typing import Any

from mncompress.report._curves import Curves
from mncompress.report._format import error
from mncompress.report._pack import LEFT, name_kind
from mncompress.report._panels import Panel, make_panel
from mncompress.report._style import PALETTE

COLUMNS, ROWS = 4, 6
"""Panels on a full page."""
LIGHT, DARK, GREY, SOFT = PALETTE["learned"], PALETTE["ink"], PALETTE["muted"], PALETTE["histogram"]
_SIZE, _HEAD, _GAP = (2.45, 1.55), 0.75, (0.5, 0.62)
"""Inches: a panel, the head of a page, the space between panels."""


def draw_activations(curves: Curves) -> Iterator[Any]:
    """Pages (`matplotlib.figure.Figure`) of at most 24 activations, in the order of `curves`; none for no neurons.

    Each panel shows the calibration histogram, the learned function, what replaced it, and the edges of the domain.
    """
    page = COLUMNS * ROWS
    for start in range(0, len(curves), page):
        rows = range(start, min(start + page, len(curves)))
        place = "" if len(curves) <= page else f"  ·  {start + 1} to {rows.stop} of {len(curves)}"
        yield _draw_page([make_panel(curves, row) for row in rows], (curves.title or "learned activations") + place)


def _draw_page(panels: list[Panel], title: str) -> Any:
    from matplotlib.figure import Figure

    columns = min(COLUMNS, max(2, len(panels)))
    rows = -(-len(panels) // columns)
    width, height = columns * (_SIZE[0] + _GAP[0]) + 0.3, rows * (_SIZE[1] + _GAP[1]) + _HEAD
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(0.5 / width, 1 - 0.22 / height, title, fontsize=11, fontweight="bold", color=DARK, va="center",
                parse_math=False)
    _draw_legend(figure, 0.5 / width, 1 - 0.47 / height, replaced=panels[0].replacement is not None)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        left = 0.5 + column * (_SIZE[0] + _GAP[0])
        bottom = height - _HEAD - (row + 1) * (_SIZE[1] + _GAP[1]) + 0.3
        axes = figure.add_axes((left / width, bottom / height, _SIZE[0] / width, _SIZE[1] / height))
        _draw_panel(axes, panel)
    return figure


def _draw_legend(figure: Any, x: float, y: float, *, replaced: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], color=LIGHT, linewidth=4)]
    labels = ["learned"]
    if replaced:
        handles.append(Line2D([], [], color=DARK, linewidth=1.3, linestyle=(0, (4, 2.5))))
        labels.append("replacement")
    handles += [Patch(color=SOFT), Line2D([], [], color=GREY, linewidth=0.8)]
    labels += ["pre-activations", "edge of the domain"]
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(x, y), ncols=len(labels), frameon=False, fontsize=8,
                  labelcolor=GREY, borderpad=0, borderaxespad=0, handletextpad=0.6, columnspacing=1.8)


def _draw_panel(axes: Any, panel: Panel) -> None:
    axes.set_xlim(panel.x_limits)
    axes.set_ylim(panel.y_limits)
    bottom, top = panel.y_limits
    axes.stairs(bottom + 0.5 * (top - bottom) * panel.heights, panel.bin_edges, baseline=bottom, fill=True, color=SOFT)
    for edge in panel.domain:
        axes.axvline(edge, color=GREY, linewidth=0.8, alpha=0.7)
    axes.plot(panel.u, panel.original, color=LIGHT, linewidth=3.6, solid_capstyle="round")
    if panel.replacement is not None:
        axes.plot(panel.u, panel.replacement, color=DARK, linewidth=1.3, linestyle=(0, (4, 2.5)))
    kind = "" if panel.kind is None else "  " + name_kind(LEFT if panel.left else panel.kind)
    axes.set_title(panel.name + kind, loc="left", fontsize=8, color=DARK, pad=4)
    if panel.max_abs_error is not None:
        axes.set_title(f"error {error(panel.max_abs_error)}", loc="right", fontsize=7, color=GREY, pad=4)
    axes.set_xticks(sorted(set(panel.domain)))
    axes.locator_params(axis="y", nbins=3)
    axes.xaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_major_formatter("{x:.4g}")
    _style(axes)


def _style(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c3c8cf")
    axes.tick_params(labelsize=7, colors=GREY, length=2, width=0.6)
