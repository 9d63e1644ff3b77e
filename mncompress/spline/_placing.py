"""Where the uniform knots of a spline go: not over the whole domain, where a function is nearly a line at its ends.

Beyond its knots a spline is a line, so the knots need only span what the histogram's weights and the function's bends ask for: with
the same number of intervals the error is then several times smaller, or half as many intervals do. The ends are found by turns:
from the error with the knots so far follows how much a line may be off in either tail, and from that the next knots, as long as
the error falls. With more intervals it begins with the knots found with fewer.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mncompress.spline._arrays import Array, Indices, round_float32
from mncompress.spline._cubic import weighted_blocks
from mncompress.spline._functions import Target
from mncompress.spline._knots import Knots, span_knots
from mncompress.spline._least_squares import FEWEST_BY_END, FEWEST_POINTS, Samples, solve

FEWEST_PLACED = FEWEST_BY_END
"""Intervals from which on knots are placed: with long tails, fewer could not be fitted exactly."""
ROUNDS, MOST_SEARCHED = 6, 63
"""Steps of the search, and with how many intervals at most; more take one step from what they begin with."""
TAIL_SHARE = 0.2
"""Of the error, that the two tails together may have on the next knots; 0.1 to 0.3 do about as well."""
GAIN = 0.9
"""An error that does not fall below this share of the one before is as small as it gets."""
WORTH = 0.7
"""Of the error with knots from end to end: with less to gain these are kept, since they are better where little is given."""
FLOOR = 1e-6
"""Errors below this share of a function's spread are small enough."""

Flags = NDArray[np.bool_]


def place_knots(target: Target, intervals: Sequence[int], degree: int, near: Knots | None = None) -> list[Knots]:
    """Knots for each number of intervals; from end to end of the domain where no histogram says what is given.

    Args:
        target: N functions.
        intervals: numbers of intervals, at least 1, ascending: each search begins with the knots of the one before.
        degree: of the splines, 1 or 3.
        near: knots of fewer intervals, to begin with.

    Raises:
        ValueError: a number of intervals is < 1.
    """
    knots = [span_knots(target.lo, target.hi, number) for number in intervals]
    for block in weighted_blocks(target):
        spans = [each.select(block) for each in knots]
        found = _place(Samples.of(target, block), spans, spans[0] if near is None else near.select(block), degree)
        for each, better in zip(knots, found, strict=True):
            each.start[block], each.inverse_step[block] = better.start, better.inverse_step
    return knots


def _place(samples: Samples, spans: Sequence[Knots], before: Knots, degree: int) -> Iterator[Knots]:
    """The better knots, given those from end to end, and some to begin with."""
    tails = _measure_tails(samples)
    floor = FLOOR * np.sqrt(samples.square)
    for span in spans:
        best = _Best(samples, span, degree)
        whole = best.error.copy()
        active = np.flatnonzero((whole > floor) & np.isfinite(whole) & (span.intervals >= FEWEST_PLACED))
        near = before.select(active)
        best.try_(active, _extend(near, samples.u[active], span.intervals), near.inverse_step)
        best.try_(active, near.start, round_float32(near.inverse_step * (span.intervals / near.intervals)))
        for _ in range(ROUNDS if span.intervals <= MOST_SEARCHED else 1):
            active = active[best.error[active] > floor[active]]
            allowed = (TAIL_SHARE * best.error[active, None]) ** 2 / 2
            left, right = (tail[active] <= allowed for tail in tails)
            low, high = _find_ends(left, right, (FEWEST_POINTS + 1) * span.intervals)
            new = span_knots(samples.u[active, low], samples.u[active, high], span.intervals)
            active = best.try_(active, new.start, new.inverse_step)
        worth = best.error < WORTH * whole
        start, inverse_step = np.where(worth, (best.start, best.inverse_step), (span.start, span.inverse_step))
        before = Knots(start, inverse_step, span.intervals)
        yield before


def _extend(knots: Knots, u: Array, intervals: int) -> Array:
    """Where to start (N,) with more intervals of the same width, within the points u (N, G) if there is room.

    All knots stay where they are, so that the error cannot rise.
    """
    more = intervals - knots.intervals
    before = np.floor((knots.start - u[:, 0]) * knots.inverse_step)
    behind = np.floor((u[:, -1] - knots.start) * knots.inverse_step) - knots.intervals
    left = np.maximum(np.minimum(more // 2, before), more - behind)
    return round_float32(knots.start - left / knots.inverse_step)


class _Best:
    """The best knots tried so far, with their errors (N,)."""

    def __init__(self, samples: Samples, first: Knots, degree: int) -> None:
        self.samples, self.degree, self.intervals = samples, degree, first.intervals
        self.start, self.inverse_step = first.start.copy(), first.inverse_step.copy()
        self.error = solve(samples, first, degree)[1]

    def try_(self, indices: Indices, start: Array, inverse_step: Array) -> Indices:
        """Try other knots (M,) for the functions at `indices`; returns those whose error falls by much."""
        if not indices.size:
            return indices
        _, error = solve(self.samples.select(indices), Knots(start, inverse_step, self.intervals), self.degree)
        before, better = self.error[indices], error < self.error[indices]
        place = indices[better]
        self.start[place], self.inverse_step[place], self.error[place] = start[better], inverse_step[better], error[better]
        return indices[error < GAIN * before]


def _find_ends(is_left: Flags, is_right: Flags, points: int) -> tuple[Indices, Indices]:
    """First and last point of the knots, (N,), given which points (N, G) end a tail; `points` apart if there are as many."""
    last = is_left.shape[1] - 1
    low = np.maximum(is_left.sum(1) - 1, 0)
    high = np.minimum(last + 1 - is_right.sum(1), last)
    missing = np.maximum(points + 1 - (high - low), 0)
    return np.maximum(low - (missing + 1) // 2, 0), np.minimum(high + (missing + 1) // 2, last)


def _measure_tails(samples: Samples) -> tuple[Array, Array]:
    """The weighted square error of the best line on all points up to each, and from each on: two arrays (N, G)."""
    low, high = samples.u[:, :1], samples.u[:, -1:]
    x = (2 * samples.u - low - high) / (high - low)

    def square_error(x: Array, w: Array, y: Array) -> Array:
        total, x1, y1, xx, xy, yy = (np.cumsum(part, 1) for part in (w, w * x, w * y, w * x * x, w * x * y, w * y * y))
        total = np.maximum(total, np.finfo(float).tiny)
        spread = xx - x1 * x1 / total
        slope = np.divide(xy - x1 * y1 / total, spread, out=np.zeros_like(x), where=spread > 1e-14 * xx)
        rest = yy - y1 * y1 / total - slope * (xy - x1 * y1 / total)
        return np.asarray(np.maximum.accumulate(np.maximum(rest, 0.0), 1))

    parts = x, samples.weights, samples.values
    return square_error(*parts), square_error(*(part[:, ::-1] for part in parts))[:, ::-1]
