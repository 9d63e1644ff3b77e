"""What a report comes to, in sentences. They state the numbers; they do not praise them."""

import math

from mncompress.report._format import count, fixed, number, percent, ratio
from mncompress.report._latency import Condition
from mncompress.types import Report, Speedup


def describe_quality(report: Report) -> str:
    """What compression changed in the answers on the test split."""
    if report.argmax_flips is None:
        before, after = fixed(rmse(report.original.loss)), fixed(rmse(report.compressed.loss))
        return f"RMSE {before} before and {after} after compression, on {count(report.samples)} test samples."
    before, after = percent(report.original.accuracy), percent(report.compressed.accuracy)
    if report.argmax_flips == 0:
        return f"Not one of {count(report.samples)} test samples changed its class; accuracy stays at {before}."
    whose = "its" if report.argmax_flips == 1 else "their"
    return (f"Accuracy {before} before and {after} after compression: {count(report.argmax_flips)} of "
            f"{count(report.samples)} test samples changed {whose} class.")


def describe_speed(conditions: tuple[Condition, ...]) -> str:
    """How fast the compressed network is under the first provider measured, at its first and its last batch size.

    Both, since a small network can lose at batch 1 and win at large ones, or the other way round.
    """
    same = [condition for condition in conditions if condition.provider == conditions[0].provider]
    return " ".join(filter(None, map(_describe_condition, dict.fromkeys([*same[:1], *same[-1:]]))))


def _describe_condition(condition: Condition) -> str:
    parts = []
    if condition.speedup is not None:
        parts.append(f"is {_compare(condition.speedup)}")
    if condition.compressed_to_twin is not None:
        parts.append(f"takes {ratio(condition.compressed_to_twin)} the time of the same network with ReLU")
    return f"At batch {condition.batch} ({condition.provider}) it {' and '.join(parts)}." if parts else ""


def describe_drop(drop: float) -> str:
    """A drop in percentage points, or a gain."""
    if drop == 0:
        return "unchanged"
    size = f"{abs(drop):.2f}" if abs(drop) >= 0.01 else f"{abs(drop):.1g}"
    return f"{size} points {'lower' if drop > 0 else 'higher'}"


def describe_budget(report: Report) -> str:
    """What the user allowed."""
    budget = report.budget
    unit = "% of RMSE" if report.argmax_flips is None else "points"
    limits = [f"preset {budget.preset}"]
    if budget.max_drop is not None:
        limits.append(f"a drop of at most {number(budget.max_drop)} {unit}")
    if budget.max_logit_error is not None:
        limits.append(f"outputs changed by at most {number(budget.max_logit_error)}")
    if budget.max_error_bound is not None:
        limits.append(f"outputs that provably change by at most {number(budget.max_error_bound)}")
    if budget.target_macs is not None:
        limits.append(f"a target of {budget.target_macs} multiply-adds")
    if budget.target_latency is not None:
        limits.append(f"a target of {number(budget.target_latency)} µs")
    return ", ".join(limits)


def rmse(loss: float) -> float:
    """The root of a mean squared error."""
    return math.sqrt(loss)


def _compare(speedup: Speedup) -> str:
    if speedup.low <= 1 <= speedup.high:
        return f"about as fast as its original ({ratio(speedup.ratio)}, no clear difference)"
    if speedup.ratio > 1:
        return f"{ratio(speedup.ratio)} as fast as its original"
    return f"slower than its original ({ratio(speedup.ratio)} its speed)"
