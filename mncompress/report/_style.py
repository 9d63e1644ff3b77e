"""The look of the report's pictures: colors by role, and axes.

Colors are named by what they show. The page's style sheet has a variable of the same name for each (`--learned`), once for light
and once for dark, so a chart that was drawn here can follow the reader's theme. They differ in lightness and the functions
in form too (a broad line below, dashes above), so pictures survive color blindness and grey print.
"""

from typing import Any

from mncompress.report._format import count, number

PALETTE = {
    "paper": "#ffffff", "ink": "#14202b", "muted": "#55616e", "line": "#dde2e7", "histogram": "#e1e7ed",
    "learned": "#338ecb", "accent": "#b8650a", "twin": "#7d8792",
}
"""On white; one value for each role, so that a value can be turned back into its role. Replacements are drawn in ink."""
MODEL_COLORS = {"original": "learned", "compressed": "ink", "portable": "accent", "relu_twin": "twin"}
"""The role of each model's color."""


def make_figure(width: float, height: float) -> Any:
    """An empty `matplotlib.figure.Figure` of so many inches, laid out by itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor=PALETTE["paper"], layout="constrained")


def style_axes(axes: Any, title: str = "") -> None:
    """Bare axes: no box, quiet ticks, the title above on the left instead of labels along the sides."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALETTE["line"])
    axes.tick_params(labelsize=8, colors=PALETTE["muted"], length=2.5, width=0.6, which="both")
    axes.tick_params(which="minor", labelleft=False, labelbottom=False, length=0)
    axes.xaxis.label.set(color=PALETTE["muted"], fontsize=8)
    if title:
        axes.set_title(title, loc="left", fontsize=8.5, color=PALETTE["ink"], pad=7, parse_math=False)


def style_log_axis(axes: Any) -> None:
    """A logarithmic y axis with plain numbers, and more of them where it spans hardly a power of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 30 else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: number(value, 3) if value < 1000 else count(round(value)))


def add_legend(figure: Any, handles: list[Any], labels: list[str], *, columns: int = 6) -> None:
    """A legend along the top of a figure."""
    figure.legend(handles, labels, loc="outside upper left", ncols=min(columns, len(labels)), frameon=False, fontsize=8,
                  labelcolor=PALETTE["muted"], borderpad=0.2, handletextpad=0.5, handlelength=1.4, columnspacing=1.4)
