"""How much error a network is allowed, and each of its neurons: what the planner goes through from tight to loose."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis import LayerOptions
from mncompress.types import Budget

TOLERANCES: tuple[float, ...] = tuple(float(t) for t in np.geomspace(0.3, 1e-8, 16)[::-1])
"""Relative to the root mean square of the outputs around their mean."""
CONSTANT = 1e-6
"""Outputs that vary less, relative to the largest, are the same but for rounding."""
SENSITIVITY_FLOOR = 1e-3
"""Of a layer's largest: a gradient that is zero on all calibration samples need not be so on others."""

Floats = NDArray[np.float64]


def make_tolerances(budget: Budget, outputs: Floats) -> list[float]:
    """What to try as the error of the outputs (rows, k), from tight to loose: nothing where all must be exact."""
    spread = float(np.sqrt(np.var(outputs, axis=0).mean()))
    scale = spread if spread > CONSTANT * np.abs(outputs).max(initial=0.0) else 1.0
    return [] if budget.preset == "exact" else [scale * tolerance for tolerance in TOLERANCES]


def reach_all(options: Sequence[LayerOptions], tolerances: Sequence[Floats]) -> list[Floats] | None:
    """The tolerances of each layer's neurons, (n,), raised to the error of the closest form where none is within; None if none is.

    A single neuron without a form can keep a whole layer as it is. Whether its closest form will do, the budget is to say.
    """
    closest = [_reach(*pair) for pair in zip(options, tolerances, strict=True)]
    raised = any((after > before).any() for after, before in zip(closest, tolerances, strict=True))
    return closest if raised else None


def _reach(options: LayerOptions, tolerance: Floats) -> Floats:
    errors = [np.where(options.exact[key], 0.0, options.limited[key]) for key in options.limited]
    closest = np.min(errors, axis=0, initial=np.inf)
    return np.where(np.isfinite(closest), np.maximum(tolerance, closest), tolerance)


def spread_tolerance(tolerance: float, sensitivity: Floats) -> Floats:
    """What each neuron is allowed, given what each may contribute to the outputs.

    Args:
        tolerance: root mean square of the contribution, in units of the outputs' scale; 0 where only exact replacements count.
        sensitivity: of each neuron, (n,).

    Returns:
        Errors of the activations, (n,); infinite where the outputs depend on none of the layer, -1 where only exact replacements
        count.
    """
    if tolerance == 0:
        return np.full(len(sensitivity), -1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(tolerance / np.maximum(sensitivity, SENSITIVITY_FLOOR * sensitivity.max()))
