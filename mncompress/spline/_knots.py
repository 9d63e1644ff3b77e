"""Uniform knots, in the numbers that a float32 kernel has."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from mncompress.spline._arrays import Array, Indices, round_float32
from mncompress.spline._functions import center_and_half_width

INTERVALS = (1, 2, 3, 4, 6, 7, 12, 15, 24, 31, 48, 63, 96, 127, 192, 256)
"""The numbers of intervals worth trying: at most half as many again as are needed. With its continuation a table of 15,
31, 63 or 127 fills one, two, four or eight AVX-512 registers, and one of 7 a register of AVX2."""


@dataclass(frozen=True, eq=False)
class Knots:
    """The knots of N splines of K intervals each."""

    start: Array
    """First knot, (N,)."""
    inverse_step: Array
    """1 / width of an interval, (N,)."""
    intervals: int

    @property
    def positions(self) -> Array:
        """All of them, (K + 1, N)."""
        return np.asarray(self.start + np.arange(self.intervals + 1.0)[:, None] / self.inverse_step)

    def select(self, indices: Indices) -> Self:
        """Those of the splines at `indices` (M,)."""
        return type(self)(self.start[indices], self.inverse_step[indices], self.intervals)


def span_knots(lo: Array, hi: Array, intervals: int) -> Knots:
    """Knots from `lo` to `hi` (N,), further apart where float32 cannot resolve that.

    Raises:
        ValueError: `intervals` < 1.
    """
    if intervals < 1:
        raise ValueError(f"a spline needs at least one interval, got {intervals = }")
    center, half_width = center_and_half_width(lo, hi)
    return Knots(round_float32(center - half_width), round_float32(intervals / (2 * half_width)), intervals)
