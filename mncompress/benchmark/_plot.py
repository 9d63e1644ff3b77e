"""The distribution of the times as one picture: a panel for each condition, a curve for each model.

matplotlib is imported on first use and only through its objects: no window, no global state.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mncompress.benchmark._measure import Measurement
from mncompress.benchmark._rows import Row
from mncompress.benchmark._run import Benchmark
from mncompress.figures import save_figure

COLORS = ("#16283a", "#1f8ac0", "#d9822b", "#5a9e4b", "#a4539b", "#8c6d31", "#6b7280", "#c43d4b")
STYLES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
_PANEL, _HEAD, _GAP = (3.1, 2.1), 0.62, (0.45, 0.62)
"""Inches: a panel, the head of the picture, the space between panels."""
SHOWN = (0, 98)
"""Percentiles between which the times of a panel are shown."""
HEAD = "share of samples that took at most this long  ·  dots: medians  ·  text: time / baseline"


def save_plot(path: Path, result: Benchmark) -> None:
    """Draw the empirical distribution functions of a benchmark as PNG or SVG, by the suffix of `path`, atomically.

    Raises:
        ConfigError: another suffix.
        OutputError: `path` cannot be written.
    """
    save_figure(path, draw(result))


def draw(result: Benchmark) -> Any:
    """The picture (`matplotlib.figure.Figure`): rows are providers and threads, columns batch sizes."""
    from matplotlib.figure import Figure

    places = list(dict.fromkeys((each.provider, each.threads) for each in result.measurements))
    batches = list(dict.fromkeys(each.batch for each in result.measurements))
    width = max(len(batches) * (_PANEL[0] + _GAP[0]) + 0.35, 5.5)
    height = len(places) * (_PANEL[1] + _GAP[1]) + _HEAD
    figure = Figure(figsize=(width, height), facecolor="white")
    names = tuple(each.model for each in result.models)
    for each in result.measurements:
        row, column = places.index((each.provider, each.threads)), batches.index(each.batch)
        left = 0.55 + column * (_PANEL[0] + _GAP[0])
        bottom = height - _HEAD - (row + 1) * _PANEL[1] - row * _GAP[1] - 0.12
        axes = figure.add_axes((left / width, bottom / height, _PANEL[0] / width, _PANEL[1] / height))
        place = (each.provider, each.threads, each.batch)
        rows = [line for line in result.latency if (line.provider, line.threads, line.batch) == place]
        _draw_panel(axes, each, names, rows, is_first=column == 0)
    _draw_head(figure, names, result.baseline, height)
    return figure


def _draw_panel(axes: Any, measurement: Measurement, names: tuple[str, ...], rows: list[Row], *, is_first: bool) -> None:
    from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter, ScalarFormatter

    low, high = np.percentile(measurement.samples_us, SHOWN, axis=1)
    is_wide = high.max() > 4 * low.min()
    for row, samples in zip(rows, measurement.samples_us, strict=True):
        number = names.index(row.model)
        ordered = np.sort(samples)
        axes.step([ordered[0], *ordered], np.linspace(0, 1, len(samples) + 1), where="post", **_line(number), linewidth=1.6)
        axes.plot([row.median_us], [0.5], "o", color=COLORS[number % len(COLORS)], markersize=4)
    axes.set_xscale("log" if is_wide else "linear")
    span = (high.max() / low.min()) ** 0.04 if is_wide else 1.0
    pad = 0.0 if is_wide else 0.04 * (high.max() - low.min() or high.max())
    axes.set_xlim(low.min() / span - pad, high.max() * span + pad)
    if is_wide:
        ticks = _log_ticks(low.min() / span, high.max() * span)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        formatter = ScalarFormatter(useOffset=False)
        formatter.set_scientific(False)
        axes.xaxis.set_major_formatter(formatter)
    compared = [row for row in rows if row.ratio_to_baseline is not None and row.verdict != "baseline"]
    for place, row in enumerate(reversed(compared)):
        text = f"{row.ratio_to_baseline:.3f} ({row.baseline_low:.3f} to {row.baseline_high:.3f}) {row.verdict}"
        axes.text(0.98, 0.03 + 0.085 * place, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=6.3,
                  color=COLORS[names.index(row.model) % len(COLORS)],
                  bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6})
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.tick_params(labelsize=7, labelleft=is_first)
    axes.set_xlabel("µs per run", fontsize=7.5, labelpad=2)
    threads = f"{measurement.threads} thread{'s' * (measurement.threads > 1)}"
    axes.set_title(f"{measurement.provider}, {threads}, batch {measurement.batch}", fontsize=8.5, loc="left", pad=4)
    axes.grid(color="#e2e5ea", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_head(figure: Any, names: tuple[str, ...], baseline: str, height: float) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=f"{name} (baseline)" if name == baseline and len(names) > 1 else name, **_line(number))
               for number, name in enumerate(names)]
    width = figure.get_size_inches()[0]
    figure.text(0.12 / width, 1 - 0.17 / height, HEAD, fontsize=8.5, fontweight="bold", va="center")
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.06 / width, 1 - 0.26 / height), ncols=min(len(names), 6),
                  fontsize=7.5, frameon=False, borderaxespad=0, handlelength=2.6)


def _line(number: int) -> dict[str, Any]:
    return {"color": COLORS[number % len(COLORS)], "linestyle": STYLES[number % len(STYLES)]}


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two positive numbers, or powers of ten where those are many."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for factors in ((1, 2, 5), (1,)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors if low <= factor * 10.0**decade <= high]
        if len(ticks) <= 7:
            break
    return ticks
