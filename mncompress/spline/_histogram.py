"""How often a function is given what: the weights of fits and of mean errors."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mncompress.spline._arrays import Array, Indices

OUTSIDE = 0.005
"""Share of the counts on either side of the core."""
UNIFORM_SHARE = 0.05
"""Of the weight, spread evenly over the domain: a sample says little of what it has not seen."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """What N functions were given: counts in equal bins.

    Raises:
        ValueError: a shape does not fit, a count is negative, or an observed range descends or is not finite.
    """

    counts: npt.NDArray[np.int64]
    """(N, bins)"""
    observed: Array
    """(N, 2): the ends of the first and the last bin."""

    def __post_init__(self) -> None:
        if self.counts.ndim != 2 or self.counts.shape[1] < 1 or self.observed.shape != (len(self.counts), 2):
            raise ValueError(f"a histogram needs counts (N, bins) and observed (N, 2), got {self.counts.shape = }, "
                             f"{self.observed.shape = }")
        if (self.counts < 0).any() or not np.isfinite(self.observed).all() or (np.diff(self.observed) < 0).any():
            raise ValueError("a histogram needs counts that are not negative and finite ranges that do not descend")

    @property
    def n(self) -> int:
        """Number of functions."""
        return len(self.counts)

    def select(self, indices: Indices) -> "Histogram":
        """The histograms of the functions at `indices` (M,)."""
        return Histogram(self.counts[indices], self.observed[indices])

    def accumulate(self, u: Array) -> Array:
        """The share of the counts below `u` (G, N), even within a bin; 0 where there are no counts at all."""
        bins = self.counts.shape[1]
        low, high = self.observed.T
        with np.errstate(over="ignore"):
            place = np.clip((u - low) / np.maximum(high - low, np.finfo(np.float64).tiny) * bins, 0, bins)
        index = np.minimum(place.astype(np.intp), bins - 1)
        part = place - index
        ends = np.concatenate([np.zeros((self.n, 1)), np.cumsum(self.counts, axis=1)], axis=1) / np.maximum(
            self.counts.sum(axis=1, keepdims=True), 1)
        index += np.arange(self.n) * (bins + 1)
        below = ends.take(index)
        return np.asarray(below + part * (ends.take(index + 1) - below))

    def core(self, points: int) -> Array:
        """Equidistant points (points, N) that span all counts but the outermost `OUTSIDE` on either side."""
        counts = np.where(self.counts.any(1, keepdims=True), self.counts, 1)
        bins = counts.shape[1]
        below = np.concatenate([np.zeros((self.n, 1)), np.cumsum(counts, axis=1)], axis=1) / counts.sum(1, keepdims=True)
        place = np.array([np.interp((OUTSIDE, 1 - OUTSIDE), row, np.arange(bins + 1)) for row in below]).reshape(self.n, 2)
        low, high = self.observed.T
        first, last = low + place.T / bins * (high - low)
        return np.linspace(first, last, points)


def weigh(u: Array, histogram: Histogram | None) -> Array:
    """The weights of points in a mean over their domain, each that of the interval nearer to it than to any other.

    Args:
        u: points (G, N), ascending; the first and the last are the ends of the domain.
        histogram: what is given; evenly distributed without one.

    Returns:
        (G, N), not negative, the sum over the points being 1.
    """
    edges = np.concatenate([u[:1], u[:-1] / 2 + u[1:] / 2, u[-1:]])
    edges = np.maximum.accumulate(edges)        # those of a domain that is a point are off by what is rounded
    width = np.diff(edges, axis=0)
    total = u[-1] - u[0]
    even = np.divide(width, total, out=np.full_like(u, 1 / len(u)), where=total > 0)
    if histogram is None:
        return np.asarray(even)
    below = histogram.accumulate(edges)
    below[0], below[-1] = 0.0, (histogram.counts > 0).any(axis=1)
    weights = UNIFORM_SHARE * even + (1 - UNIFORM_SHARE) * np.diff(below, axis=0)
    return np.asarray(weights / weights.sum(axis=0))
