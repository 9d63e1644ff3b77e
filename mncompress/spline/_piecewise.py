"""Piecewise linear functions with arbitrary knots, one per neuron."""

from dataclasses import dataclass

import numpy as np

from mncompress.spline._arrays import Array, Indices, as_finite


@dataclass(frozen=True, eq=False)
class PiecewiseLinear:
    """N functions y = intercept + slope·u + Σₖ slope_changesₖ·max(u - knotsₖ, 0).

    Knots ascend; unused ones repeat the last knot with change 0. A table without knots is given one unused knot at 0,
    since the ONNX op needs one.

    Raises:
        ValueError: a shape does not fit, an element is not finite, or knots descend.
    """

    knots: Array
    """(N, K), ascending along the last axis."""
    slope_changes: Array
    """(N, K): slope behind the knot minus slope before it."""
    slope: Array
    """Slope before the first knot, (N,)."""
    intercept: Array
    """(N,)."""

    def __post_init__(self) -> None:
        knots = as_finite("knots", self.knots, (None, None))
        changes = as_finite("slope_changes", self.slope_changes, knots.shape)
        if (np.diff(knots, axis=1) < 0).any():
            raise ValueError("knots must ascend along the last axis")
        if knots.shape[1] == 0:
            knots = changes = np.zeros((len(knots), 1))
        object.__setattr__(self, "knots", knots)
        object.__setattr__(self, "slope_changes", changes)
        for name in ("slope", "intercept"):
            object.__setattr__(self, name, as_finite(name, getattr(self, name), (self.n,)))

    @property
    def n(self) -> int:
        """Number of functions."""
        return len(self.knots)

    def evaluate(self, u: Array) -> Array:
        """The values at `u` (..., N): NaN at NaN; at ±∞ what the arithmetic gives."""
        u = np.asarray(u, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            y = self.intercept + self.slope * u
            for knot, change in zip(self.knots.T, self.slope_changes.T, strict=True):
                y = y + change * np.maximum(u - knot, 0.0)
        return y

    def derivative(self, u: Array) -> Array:
        """The derivatives by `u` at `u` (..., N); at a knot that from the left."""
        u = np.asarray(u, dtype=np.float64)
        slope = np.broadcast_to(self.slope, u.shape)
        for knot, change in zip(self.knots.T, self.slope_changes.T, strict=True):
            slope = slope + change * (u > knot)
        return np.where(np.isnan(u), np.nan, slope)

    def select(self, indices: Indices) -> "PiecewiseLinear":
        """The functions at `indices` (M,)."""
        return PiecewiseLinear(
            self.knots[indices], self.slope_changes[indices], self.slope[indices], self.intercept[indices]
        )
