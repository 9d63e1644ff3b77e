"""Plots for a terminal: curves in braille, two by four dots in a character."""

from collections.abc import Iterable, Sequence

import numpy as np

from mncompress.report._curves import Curves
from mncompress.report._format import error, number
from mncompress.report._pack import LEFT, name_kind
from mncompress.report._panels import Floats, make_panel
from mncompress.report._training import TrainingCurves

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""What a dot adds to U+2800, by its row and column in the character."""
WIDTH, HEIGHT = 30, 6
"""Of a neuron's plot, in characters."""
TRAINING_WIDTH, TRAINING_HEIGHT = 60, 8
"""Of a training's."""
GAP = "   "
"""Between what stands side by side."""


def plot_lines(lines: Iterable[tuple[Floats, Floats]], limits: tuple[float, float, float, float], width: int, height: int
               ) -> list[str]:
    """Rows of characters that show lines (x, y) within `limits`, (left, right, bottom, top); what is not finite is left out."""
    left, right, bottom, top = limits
    dots = np.zeros((4 * height, 2 * width), bool)
    for x, y in lines:
        places = np.linspace(left, right, 2 * width)
        values = np.interp(places, x, y, left=np.nan, right=np.nan)
        rows = (top - values) / ((top - bottom) or 1.0) * (4 * height - 1)
        previous = np.nan
        for column, row in enumerate(rows):
            begin = row if np.isnan(previous) else (row + previous) / 2     # half the way to the neighbor: steep lines have no gaps
            end = row if column + 1 == len(rows) or np.isnan(rows[column + 1]) else (row + rows[column + 1]) / 2
            previous = row
            if np.isfinite(row):
                ends = np.sort(np.round([begin, row, end]))
                dots[int(np.clip(ends[0], 0, 4 * height)):int(np.clip(ends[-1] + 1, 0, 4 * height)), column] = True
    cells = dots.reshape(height, 4, width, 2)
    codes = np.einsum("hrwc,rc->hw", cells, np.array(_DOTS))
    return ["".join(chr(0x2800 + int(code)) for code in row) for row in codes]


def sketch_neuron(curves: Curves, row: int) -> str:
    """The learned activation in `row` under its name, kind and error, and below it the edges of its domain."""
    panel = make_panel(curves, row)
    what = "" if panel.kind is None else f" {name_kind(LEFT if panel.left else panel.kind)}"
    loss = "" if panel.max_abs_error is None else f"  {error(panel.max_abs_error)}"
    plot = plot_lines([(panel.u, panel.original)], (*panel.x_limits, *panel.y_limits), WIDTH, HEIGHT)
    lo, hi = (number(edge, 3) for edge in panel.domain)
    return "\n".join([f"{panel.name}{what}{loss}"[:WIDTH].ljust(WIDTH), *plot, f"{lo:<{WIDTH - len(hi)}}{hi}"])


def arrange_sketches(sketches: Sequence[str], width: int) -> list[str]:
    """Put sketches of the same height side by side where they fit into `width` columns; one that is wider by itself is left out."""
    rows: list[list[list[str]]] = []
    for sketch in (sketch.splitlines() for sketch in sketches):
        if max(map(len, sketch)) > width:
            continue
        beside = [*rows[-1], sketch] if rows else [sketch]
        fits = sum(len(block[0]) + len(GAP) for block in beside) - len(GAP) <= width
        if fits and rows and len(sketch) == len(rows[-1][0]):
            rows[-1].append(sketch)
        else:
            rows.append([sketch])
    return ["\n".join(GAP.join(parts).rstrip() for parts in zip(*row, strict=True)) for row in rows]


def sketch_training(training: TrainingCurves) -> str:
    """The median of the validation metric by epoch, and below it its first and last epoch; empty without two finite ones."""
    values = training.validation_metric
    there = np.isfinite(values).any(0)
    if there.sum() < 2:
        return ""
    x = np.flatnonzero(there) + 1.0
    middle: Floats = np.nanmedian(values[:, there], axis=0)
    bottom, top = float(middle.min()), float(middle.max())
    rows = plot_lines([(x.astype(np.float64), middle)], (float(x[0]), float(x[-1]), bottom, top),
                      TRAINING_WIDTH, TRAINING_HEIGHT)
    labels = [number(top), *[""] * (TRAINING_HEIGHT - 2), number(bottom)]
    margin = max(map(len, labels))
    body = [f"{label:>{margin}} {row}".rstrip() for label, row in zip(labels, rows, strict=True)]
    last = f"{x[-1]:.0f}"
    foot = " " * (margin + 1) + f"{x[0]:<{TRAINING_WIDTH - len(last)}.0f}{last}"
    what = f"validation {training.metric}" if len(values) == 1 else f"median validation {training.metric}"
    return "\n".join([f"{what} by epoch", *body, foot])
