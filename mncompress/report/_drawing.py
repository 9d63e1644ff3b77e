"""A panel as SVG paths for the HTML page: the numbers of `_panels`, in the coordinates of a small plot.

The page's style sheet gives the colors, so one drawing serves light, dark and print.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mncompress.report._panels import Floats, Panel

WIDTH, HEIGHT = 200, 100
"""Of the plot, in SVG units; y points down."""
_FAR = 10.0
"""Values are drawn at most so many plot heights away: the plot clips them."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    position: float
    value: float


@dataclass(frozen=True)
class Drawing:
    """One activation as path data."""

    histogram: str
    original: str
    replacement: str
    """Empty where nothing was replaced."""
    edges: tuple[Tick, ...]
    """Of the domain."""
    y_ticks: tuple[Tick, ...]


def make_drawing(panel: Panel) -> Drawing:
    """The path data of `panel`."""
    (left, right), (bottom, top) = panel.x_limits, panel.y_limits

    def x(u: Any) -> Any:
        return WIDTH * (u - left) / (right - left)

    def y(v: Any) -> Any:
        return np.clip(HEIGHT * (top - v) / (top - bottom), -_FAR * HEIGHT, _FAR * HEIGHT)

    horizontal = x(panel.u)
    return Drawing(
        histogram=_make_histogram(x(panel.bin_edges), HEIGHT * (1 - 0.5 * panel.heights)),
        original=_make_path(horizontal, y(panel.original)),
        replacement="" if panel.replacement is None else _make_path(horizontal, y(panel.replacement)),
        edges=tuple(Tick(float(x(edge)), edge) for edge in dict.fromkeys(panel.domain)),
        y_ticks=tuple(Tick(float(y(value)), value) for value in make_ticks(bottom, top)),
    )


def make_ticks(bottom: float, top: float) -> list[float]:
    """Two to five round numbers in [bottom, top]."""
    magnitude = 10.0 ** math.floor(math.log10(top - bottom))
    step = next(step for step in (5 * magnitude, 2 * magnitude, magnitude, magnitude / 2)
                if math.floor(top / step) - math.ceil(bottom / step) >= 1)
    return [number * step for number in range(math.ceil(bottom / step), math.floor(top / step) + 1)]


def _make_path(x: Floats, y: Floats) -> str:
    """A polyline with a gap at every value that is not finite."""
    finite = np.isfinite(y)
    starts = finite & ~np.concatenate([[False], finite[:-1]])
    return "".join(f"{'M' if start else 'L'}{a:.1f} {b:.1f}"
                   for a, b, start, draw in zip(x, y, starts, finite, strict=True) if draw)


def _make_histogram(edges: Floats, tops: Floats) -> str:
    """Steps over the bins, closed along the bottom."""
    steps = "".join(f"V{top:.1f}H{right:.1f}" for (_, right), top in zip(pairwise(edges), tops, strict=True))
    return f"M{edges[0]:.1f} {HEIGHT}{steps}V{HEIGHT}Z"
