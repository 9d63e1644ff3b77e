"""What one small picture of an activation shows, in numbers: the only place that decides limits and scales.

A panel spans the whole grid. Its height shows the functions inside the domain, and as much of their continuation outside
as fits into `_OUTSIDE` of that range: a polynomial's continuation must not flatten the part that matters.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mncompress.report._curves import Curves
from mncompress.types import Kind

_OUTSIDE = 0.35
_INSET = 0.06
_FLATTEST = (1e-6, 1e-3)
"""Least half height of a panel, absolute and relative to the values in it: rounding must not be drawn as a function."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Panel:
    """One activation, ready to draw."""

    name: str
    """`layer.index`."""
    kind: Kind | None
    left: bool
    domain: tuple[float, float]
    max_abs_error: float | None
    u: Floats
    original: Floats
    replacement: Floats | None
    bin_edges: Floats
    heights: Floats
    """Of the histogram's bins, 1 for the fullest."""
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]


def make_panel(curves: Curves, row: int) -> Panel:
    """The panel of the neuron in `row` of `curves`; values that are not finite become gaps."""
    u, original = _finite(curves.u[row]), _finite(curves.original[row])
    replacement = None if curves.replacement is None else _finite(curves.replacement[row])
    lo, hi = (float(value) for value in curves.domain[row])
    first, last = (float(value) for value in curves.histogram_range[row])
    counts = curves.histogram[row].astype(np.float64)
    return Panel(
        name=f"{curves.layer[row]}.{curves.index[row]}",
        kind=None if curves.kinds is None else curves.kinds[row],
        left=curves.left is not None and bool(curves.left[row]),
        domain=(lo, hi),
        max_abs_error=None if curves.max_abs_error is None else float(curves.max_abs_error[row]),
        u=u,
        original=original,
        replacement=replacement,
        bin_edges=np.linspace(first, last, len(counts) + 1),
        heights=counts / max(counts.max(initial=0.0), 1.0),
        x_limits=(float(u[0]), float(u[-1])),
        y_limits=_y_limits([original] if replacement is None else [original, replacement], (u >= lo) & (u <= hi)),
    )


def _finite(values: NDArray[np.float32]) -> Floats:
    values = values.astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _y_limits(functions: list[Floats], inside: NDArray[np.bool_]) -> tuple[float, float]:
    everywhere = np.concatenate(functions)
    within = np.concatenate([values[inside] for values in functions])
    everywhere, within = everywhere[np.isfinite(everywhere)], within[np.isfinite(within)]
    if not everywhere.size:
        return -1.0, 1.0
    if not within.size:  # a domain narrower than the grid's step
        within = everywhere
    center = float(within.max() + within.min()) / 2
    half = max(float(within.max() - within.min()) / 2, _FLATTEST[0], _FLATTEST[1] * abs(center))
    bottom = max(float(everywhere.min()), center - half * (1 + 2 * _OUTSIDE))
    top = min(float(everywhere.max()), center + half * (1 + 2 * _OUTSIDE))
    bottom, top = min(bottom, center - half), max(top, center + half)
    inset = _INSET * (top - bottom)
    return bottom - inset, top + inset
