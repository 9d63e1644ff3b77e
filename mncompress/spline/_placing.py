"""Where the uniform knots of a spline go: not over the whole domain, where a function is nearly a line at its ends.

Beyond its knots a spline is a line, so the knots need only span what the histogram's weights and the function's bends ask for: with
the same number of intervals the error is then several times smaller, or half as many intervals do. From an error follows how much
a line may be off in either tail, from that the ends of the knots, and from these another error: by turns, as long as it falls.
The first is that from end to end, or the one that fewer intervals promise.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from mncompress.spline._arrays import Array, Indices, round_float32
from mncompress.spline._cubic import CubicSpline, interpolate_spline, weighted_blocks
from mncompress.spline._functions import Target
from mncompress.spline._knots import Knots, span_knots
from mncompress.spline._least_squares import FEWEST_POINTS, Samples, solve

POINTS_BETWEEN = {1: 1.5 * FEWEST_POINTS, 3: FEWEST_POINTS + 1}
"""By degree: of an interval, on average. With fewer, errors are larger than they look, those of lines above all."""
ROUNDS = 6
"""Steps of a search."""
TAIL_SHARE = 0.2
"""Of the error, that the two tails together may have on the next knots; 0.1 to 0.3 do about as well."""
GAIN = 0.9
"""An error that does not fall below this share of the one before is as small as it gets, and one within it is as expected."""
MISSED = 2.0
"""Times the error that was expected: above that, the ends with fewer intervals are tried again."""
WORTH = 0.7
"""Of the error with knots from end to end: with less to gain these are kept, since they are better where little is given."""
FLOOR = 1e-6
"""Errors below this share of a function's spread are small enough."""


def place_splines(target: Target, intervals: Sequence[int], degree: int, near: Knots | None = None) -> list[CubicSpline]:
    """As `fit_spline`, on good knots for each number of intervals; where no histogram says what is given, from end to end.

    Args:
        target: N functions.
        intervals: numbers of intervals, at least 1, ascending: each search begins with the knots of the one before.
        degree: of the splines, 1 or 3.
        near: knots of fewer intervals, to begin with.

    Raises:
        ValueError: a number of intervals is < 1.
    """
    splines = [interpolate_spline(target, span_knots(target.lo, target.hi, number), degree) for number in intervals]
    for block in weighted_blocks(target):
        found = _Search(Samples.of(target, block), degree).run(intervals, None if near is None else near.select(block))
        for spline, best in zip(splines, found, strict=True):
            spline.start[block], spline.inverse_step[block] = best.start, best.inverse_step
            spline.coefficients[block] = round_float32(best.coefficients)
    return splines


class _Fits:
    """The best splines so far of some functions, and their errors (N,)."""

    def __init__(self, samples: Samples, knots: Knots, degree: int) -> None:
        self.samples, self.degree, self.intervals = samples, degree, knots.intervals
        self.start, self.inverse_step = knots.start, knots.inverse_step
        self.coefficients, self.error = solve(samples, knots, degree)

    def try_(self, indices: Indices, knots: Knots) -> Indices:
        """Try other knots (M,) for the functions at `indices`; returns those whose error falls by much."""
        if not indices.size:
            return indices
        coefficients, error = solve(self.samples.select(indices), knots, self.degree)
        before, better = self.error[indices], error <= self.error[indices]
        place = indices[better]
        self.start[place], self.inverse_step[place] = knots.start[better], knots.inverse_step[better]
        self.coefficients[place], self.error[place] = coefficients[better], error[better]
        return indices[error < GAIN * before]


class _Search:
    """For the knots of some functions."""

    def __init__(self, samples: Samples, degree: int) -> None:
        self.samples, self.degree = samples, degree
        self.low, self.high = samples.u[:, 0], samples.u[:, -1]
        self.tails, self.floor = _measure_tails(samples), FLOOR * np.sqrt(samples.square)

    def run(self, intervals: Sequence[int], near: Knots | None) -> Iterator[_Fits]:
        """The best fits with each number of intervals, given knots to begin with."""
        best = _Fits(self.samples, span_knots(self.low, self.high, intervals[0]) if near is None else near, self.degree)
        for number in intervals:
            best = self._improve(best, number)
            yield best

    def _improve(self, before: _Fits, number: int) -> _Fits:
        """The best fits with more intervals: on the ends that the expected error asks for, or else on other ones."""
        expected = before.error * (before.intervals / number) ** (self.degree + 1)
        best = _Fits(self.samples, self._find_knots(np.arange(len(expected)), expected, number), self.degree)
        has_room = number / before.inverse_step <= self.high - self.low
        others = ((_extend(before, self.samples.u, number), np.where(has_room, GAIN * expected, np.inf)),
                  (_refine(before, number), MISSED * expected),
                  (span_knots(self.low, self.high, number), self.floor))
        for knots, enough in others:
            active = np.flatnonzero(best.error > np.maximum(enough, self.floor))
            best.try_(active, knots.select(active))
        as_expected = (best.error > GAIN * expected) & (best.error < expected / GAIN)
        active = np.flatnonzero(~as_expected & np.isfinite(best.error))
        for _ in range(ROUNDS):
            active = active[best.error[active] > self.floor[active]]
            active = best.try_(active, self._find_knots(active, best.error[active], number))
        return best

    def _find_knots(self, indices: Indices, error: Array, number: int) -> Knots:
        """The knots that an error (M,) of the functions at `indices` asks for: from end to end if less would hardly be better."""
        u, low, high = self.samples.u, self.low[indices], self.high[indices]
        allowed = (TAIL_SHARE * np.maximum(error, self.floor[indices])[:, None])**2 / 2
        left, right = (np.maximum((tail[indices] <= allowed).sum(1) - 1, 0) for tail in self.tails)
        missing = np.maximum(int(POINTS_BETWEEN[self.degree] * number) + 2 - u.shape[1] + left + right, 0)
        left, right = (np.maximum(side - (missing + 1) // 2, 0) for side in (left, right))
        first, last = u[indices, left], u[indices, u.shape[1] - 1 - right]
        worth = (((last - first) / (high - low)) ** (self.degree + 1) < WORTH) & (error > self.floor[indices]) & np.isfinite(error)
        return span_knots(np.where(worth, first, low), np.where(worth, last, high), number)


def _extend(fits: _Fits, u: Array, intervals: int) -> Knots:
    """More intervals of the same width, within the points u (N, G) if there is room.

    All knots stay where they are, so that the error cannot rise.
    """
    more = intervals - fits.intervals
    before = np.floor((fits.start - u[:, 0]) * fits.inverse_step)
    behind = np.floor((u[:, -1] - fits.start) * fits.inverse_step) - fits.intervals
    left = np.maximum(np.minimum(more // 2, before), more - behind)
    return Knots(round_float32(fits.start - left / fits.inverse_step), fits.inverse_step, intervals)


def _refine(fits: _Fits, intervals: int) -> Knots:
    """More intervals between the same ends."""
    return Knots(fits.start, round_float32(fits.inverse_step * (intervals / fits.intervals)), intervals)


def _measure_tails(samples: Samples) -> tuple[Array, Array]:
    """The weighted square error of the best line on the first points and on the last, one to all of them: two arrays (N, G)."""
    low, high = samples.u[:, :1], samples.u[:, -1:]
    x, w, y = (2 * samples.u - low - high) / (high - low), samples.weights, samples.values
    wx, wy = w * x, w * y
    parts = w, wx, wy, wx * x, wx * y, wy * y

    def measure(direction: int) -> Array:
        total, x1, y1, xx, xy, yy = (np.cumsum(part[:, ::direction], 1) for part in parts)
        total = np.maximum(total, np.finfo(float).tiny)
        spread = xx - x1 * x1 / total
        slope = np.divide(xy - x1 * y1 / total, spread, out=np.zeros_like(total), where=spread > 1e-14 * xx)
        rest = yy - y1 * y1 / total - slope * (xy - x1 * y1 / total)
        return np.asarray(np.maximum.accumulate(np.maximum(rest, 0.0), 1))

    return measure(1), measure(-1)
