"""Learned activations that consist of few lines, such as a relu with a learned slope: recognized by their values alone.

Cells of a grid with the same slope lie on one line, and neighboring lines meet in a knot, wherever between the points that is.
What is found counts no more than other fits: with the largest error that was measured, at the knots too.
"""

from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mncompress import spline
from mncompress.analysis import LayerOptions

MOST_KNOTS = 8
"""More are dearer than a spline."""
SAME = 1e-9
"""Relative to a function's largest slope: two slopes that differ by less are the same."""

Floats = NDArray[np.float64]
_Lines: TypeAlias = tuple[Floats, Floats, float, float]
"""Knots and slope changes (K,); the slope and the intercept of the first line."""


def add_pieces(options: LayerOptions) -> LayerOptions:
    """The options with exact knots, where functions of the layer have any; with infinite errors for the other functions."""
    lo, hi = options.domain.T
    grid = spline.make_target(options.inner, lo, hi, points=spline.FEWER_POINTS)
    found = [_find_lines(u, y) for u, y in zip(grid.u.T, grid.values.T, strict=True)]
    if all(lines is None for lines in found):
        return options
    form = _join(found)
    knots = np.count_nonzero(form.slope_changes, axis=1)
    target = spline.make_target(options.inner, lo, hi, extra=form.knots.T)
    exists = np.array([lines is not None for lines in found])
    largest, rms = (np.where(exists, error, np.inf) for error in target.measure(form))
    key = "piecewise_linear"
    return replace(options, errors={**options.errors, key: largest}, rms={**options.rms, key: rms}, knots=knots,
                   exact={**options.exact, key: np.zeros(options.n, bool)}, found={**options.found, key: form})


def _find_lines(u: Floats, y: Floats) -> _Lines | None:
    """The lines on which values y lie at ascending points u; None where these do not meet one after another, or are too many."""
    width = np.diff(u)
    if not np.isfinite(y).all() or not (width > 0).all():
        return None
    steps = np.diff(y) / width
    steepest = np.abs(steps).max()
    rounding = 8 * np.finfo(np.float64).eps * (np.abs(y).max() + steepest * np.abs(u).max()) / width.min()
    turns = np.flatnonzero(np.abs(np.diff(steps)) > SAME * steepest + rounding) + 1
    first, last = np.concatenate([[0], turns]), np.concatenate([turns, [len(steps)]])
    first, last = first[last - first > 1], last[last - first > 1]
    slope = (y[last] - y[first]) / (u[last] - u[first])
    cells_with_knots = len(steps) - int((last - first).sum())
    if not cells_with_knots < len(slope) <= MOST_KNOTS + 1 or (np.abs(np.diff(slope)) <= SAME * steepest).any():
        return None
    intercept, slack = y[first] - slope * u[first], width.max() / 2
    knots = -np.diff(intercept) / np.diff(slope)
    if (knots < u[last[:-1]] - slack).any() or (knots > u[first[1:]] + slack).any():
        return None
    return knots, np.diff(slope), float(slope[0]), float(intercept[0])


def _join(found: list[_Lines | None]) -> spline.PiecewiseLinear:
    """The functions of these lines side by side; zero where there are none."""
    lines = [each or (np.zeros(0), np.zeros(0), 0.0, 0.0) for each in found]
    columns = max(len(knots) for knots, *_ in lines)
    knots, changes = np.zeros((2, len(lines), columns))
    for row, (at, change, *_) in enumerate(lines):
        knots[row, :len(at)], knots[row, len(at):] = at, at[-1] if len(at) else 0.0
        changes[row, :len(at)] = change
    return spline.PiecewiseLinear(knots, changes, *(np.array([line[end] for line in lines]) for end in (2, 3)))
