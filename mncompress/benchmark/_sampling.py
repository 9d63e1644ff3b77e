"""Warming up, and rounds of interleaved samples. All that takes time here goes through a `Clock`, so that it can be tested.

A *sample* is one untimed run, which brings the caches back to this model, and then so many timed runs that together they
last at least `SAMPLE_US`; its value is their mean. A *round* has one sample of each model, in an order drawn anew.

A model counts as warm once the fastest run of a window of `WINDOW_SECONDS` has been no more than `WARM_TOLERANCE` faster
than all before, `WARM_WINDOWS` windows in a row: the fastest run, unlike the mean, is not moved by other programs. It
stops trying after `WARM_UP_SECONDS`.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RunOnce = Callable[[], object]
"""One inference."""

SAMPLE_US, POOL_SAMPLE_US = 50.0, 2000.0
"""Shortest sample with one thread (the clock's own cost is then below 1 %) and with more (worth its pause)."""
WINDOW_SECONDS, WARM_WINDOWS, WARM_TOLERANCE = 0.002, 3, 0.02
WARM_UP_RUNS, WARM_UP_SECONDS = 3, 1.0
"""The fewest runs, as the first ones allocate and choose kernels, and the time after which warming up is given up."""


@dataclass(frozen=True)
class Clock:
    """What passes time: the real one, or a test's."""

    now_ns: Callable[[], int] = time.perf_counter_ns
    """Nanoseconds from an arbitrary start."""
    sleep: Callable[[float], object] = time.sleep
    """Waits for some seconds."""


REAL_CLOCK = Clock()


@dataclass(frozen=True)
class WarmUp:
    """How a model became warm."""

    fastest_us: float
    runs: int
    is_stable: bool
    """False where runs were still getting faster when the time was up."""


@dataclass(frozen=True)
class Rounds:
    """Interleaved samples of several runs."""

    samples_us: NDArray[np.float64]
    """Microseconds per run, shape (runs, rounds); a column's samples were taken one right after another."""
    repeats: tuple[int, ...]
    """How many runs each sample is the mean of."""
    warm_ups: tuple[WarmUp, ...]


def sample_rounds(runs: Sequence[RunOnce], *, rng: np.random.Generator, seconds: float = math.inf, rounds: int | None = None,
                  sample_us: float = SAMPLE_US, idle_seconds: float = 0.0,
                  warm_seconds: float = 0.0, clock: Clock = REAL_CLOCK) -> Rounds:
    """Warm up, then sample every run once a round, both in an order drawn anew.

    Args:
        runs: one inference of each model.
        rng: draws the orders.
        seconds: without `rounds`, as many rounds as begin in this time, and at least one.
        rounds: how many rounds.
        sample_us: the least that the timed runs of a sample last together.
        idle_seconds: pause before each warm-up and each sample.
        warm_seconds: the least time to warm up each model.
        clock: passes time.
    """
    warmed = {index: _warm_up_alone(runs[index], clock, idle_seconds, warm_seconds) for index in rng.permutation(len(runs))}
    warm_ups = tuple(warmed[index] for index in range(len(runs)))
    repeats = tuple(repeats_for(warm.fastest_us, sample_us) for warm in warm_ups)
    columns: list[NDArray[np.float64]] = []
    end = clock.now_ns() + seconds * 1e9
    while len(columns) < (rounds or 1) or (rounds is None and clock.now_ns() < end):
        column = np.empty(len(runs))
        for index in rng.permutation(len(runs)):
            if idle_seconds:
                clock.sleep(idle_seconds)
            runs[index]()
            column[index] = _time(runs[index], repeats[index], clock)
        columns.append(column)
    return Rounds(np.stack(columns, axis=1), repeats, warm_ups)


def repeats_for(run_us: float, sample_us: float) -> int:
    """How many runs of about `run_us` make a sample of at least `sample_us`."""
    return max(1, math.ceil(sample_us / max(run_us, 0.1)))


def warm_up(run_once: RunOnce, clock: Clock, *, at_least_seconds: float = 0.0) -> WarmUp:
    """Run until warm, see the module, and for `at_least_seconds`."""
    begin, fastest, runs, settled = clock.now_ns(), math.inf, 0, 0
    while True:
        window_end, window = clock.now_ns() + WINDOW_SECONDS * 1e9, math.inf
        while window == math.inf or clock.now_ns() < window_end:
            window, runs = min(window, _time(run_once, 1, clock)), runs + 1
        settled = settled + 1 if window >= fastest * (1 - WARM_TOLERANCE) else 0
        fastest = min(fastest, window)
        elapsed = (clock.now_ns() - begin) / 1e9
        is_warm = settled >= WARM_WINDOWS and elapsed >= at_least_seconds
        if runs >= WARM_UP_RUNS and (is_warm or elapsed >= WARM_UP_SECONDS):
            return WarmUp(fastest, runs, settled > 0)


def _warm_up_alone(run_once: RunOnce, clock: Clock, idle_seconds: float, at_least_seconds: float) -> WarmUp:
    if idle_seconds:
        clock.sleep(idle_seconds)
    return warm_up(run_once, clock, at_least_seconds=at_least_seconds)


def _time(run_once: RunOnce, repeats: int, clock: Clock) -> float:
    """Microseconds per run over `repeats` runs."""
    begin = clock.now_ns()
    for _ in range(repeats):
        run_once()
    return (clock.now_ns() - begin) / repeats / 1e3
