"""Does a compressed network keep the budget?

A budget is a statement about all samples, the validation split is a finite one. For classification the paired change
counts: samples that became wrong minus samples that became right. Its upper bound takes exact binomial limits (Clopper, Pearson
1934) of the two counts, with seven tenths of the risk for what became wrong. Where the split is so small
that even without a single flip the bound exceeds the budget, nothing can be shown on it. Then no validation sample may
become wrong, and no sample of the training and calibration splits may change its class: a flip needs no label to be seen,
and the drop cannot exceed the share of flips. Besides, an estimate of that share must keep the budget: how often the change
that one validation sample sees would exceed the top-1 margin of another, over all pairs. The verdict says so.

For regression errors count in units of their target's spread, so that no choice of units decides what is kept. The bound is that of
the mean paired difference of squared errors (Student's t), relative to the mean of the original's. Few rows, near a pole say,
often carry most of their sum, and a finite split does not tell how often there are such rows, so that one of them must not make
room for changing all others. Therefore the budget must hold twice: for all rows as they are, and for rows that are weighted so
that of the original's squared errors the largest hundredth counts no more than what is below it, and what becomes of such a row
counts in proportion.

A network can also come *closer* to the labels or targets by chance while it no longer is the network that was trained. So
the accuracy must not rise by more than the budget either; and for regression the change of the outputs must be no larger than
one that would use up the budget if it were independent of the residuals,
rms(change)^2 <= ((1 + p)^2 - 1) rmse^2, with weighted means here too.

Who takes the best of many candidates on one split takes what is good by chance. So the planner looks at them in sequences from
the safest to the cheapest, in an order that the split does not decide, and each sequence ends at the first candidate that fails:
then the first bad one would have to pass by chance, whatever their number (fixed sequence testing: Maurer, Hothorn, Lehmacher 1995;
as a search, "Learn then Test": Angelopoulos et al., arXiv:2110.01052). There are `SEQUENCES` of them, which share the risk; so
the confidence, `CONFIDENCE`, is that of the network that is chosen.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mncompress.errors import ConfigError
from mncompress.native import load_library
from mncompress.types import Budget, Task

CONFIDENCE = 0.95
SEQUENCES = 5
"""In which candidates are looked at: forms, structures in large and in small steps, closest forms and then numbers of intervals,
and the network after distillation."""
RISK = (1 - CONFIDENCE) / SEQUENCES
WORSE_SHARE = 0.7
"""Of the risk, for what became wrong: so 5000 samples without a flip show a drop of at most 0.1 points."""
FAR = 0.01
"""Share of the squared errors that count no more than the largest below them."""
DEFAULT_MAX_DROP: Mapping[str, float] = {"default": 0.1, "aggressive": 0.5}
"""Where the user names neither limit; per cent of RMSE for regression."""

HOLDS = "the budget holds on the validation split"
UNKNOWN = 1e6
"""Stands for the relative spread of squared errors where a single sample tells none."""

Floats = NDArray[np.float64]
Evidence = Mapping[str, float | int | str | None]


@dataclass(frozen=True)
class Verdict:
    """Whether the budget holds, and the evidence.

    Attributes:
        ok: every limit holds.
        reason: one sentence.
        evidence: the numbers, for the plan and the report.
    """

    ok: bool
    reason: str
    evidence: Evidence


class HasVerdict(Protocol):
    """A network that was held against the budget."""

    @property
    def verdict(self) -> Verdict:
        """What came of it."""


Candidate = TypeVar("Candidate", bound=HasVerdict)


def go_while_ok(candidates: Iterable[Candidate]) -> tuple[Candidate | None, int]:
    """Look at candidates, the safest first, up to the first that fails; the one before it, and how many there are before it."""
    last, count = None, 0
    for candidate in candidates:
        if not candidate.verdict.ok:
            break
        last, count = candidate, count + 1
    return last, count


def check_is_budget(budget: object) -> None:
    """Refuse what is neither None nor a budget.

    Raises:
        ConfigError: it is something else, a number for instance.
    """
    if budget is not None and not isinstance(budget, Budget):
        raise ConfigError(f"the budget must be a Budget, such as Budget(max_drop=0.1), got {budget!r:.100}")


def complete_budget(budget: Budget) -> Budget:
    """Fill in the preset's limit where the user gave neither a limit nor a target, and what `auto` targets here."""
    target = ("native" if load_library() else "portable") if budget.target == "auto" else budget.target
    budget = replace(budget, target=target)
    if budget.preset == "exact" or budget.is_limited or budget.has_target:
        return budget
    return replace(budget, max_drop=DEFAULT_MAX_DROP[budget.preset])


def check_budget(budget: Budget, task: Task, original: Floats, compressed: Floats, y: NDArray[np.generic],
                 flips_elsewhere: Callable[[], int], unit: Floats | float = 1.0) -> Verdict:
    """Compare both networks.

    Args:
        budget: the limits, completed.
        task: of the network.
        original: its outputs on the validation split, (n, out_features).
        compressed: the compressed network's.
        y: labels (n,) or targets (n, out_features).
        flips_elsewhere: counts changed classes in the training and calibration splits; called only where needed.
        unit: of each target, (out_features,), such as its standard deviation: errors of that size count alike.
    """
    for name, outputs in (("original", original), ("compressed", compressed)):
        if not np.isfinite(outputs).all():
            return Verdict(False, f"the {name} network's outputs are not finite", {"max_abs_logit_error": None})
    error = float(np.abs(compressed - original).max(initial=0.0))
    paired = (_paired_classification(original, compressed, y) if task == "classification" else
              _paired_regression(original, compressed, y.astype(np.float64), unit))
    evidence: dict[str, float] = {"samples": len(y), "max_abs_logit_error": error, "confidence": CONFIDENCE, **paired}
    if budget.max_logit_error is not None and error > budget.max_logit_error:
        return Verdict(False, f"an output changes by {error:.3g}, more than {budget.max_logit_error:g}", evidence)
    limit, upper = budget.max_drop, paired["drop_upper_bound"]
    if limit is None:
        is_free = budget.has_target and not budget.is_limited
        return Verdict(True, "a cost was asked for, and no limit" if is_free else HOLDS, evidence)
    if task == "classification" and 100 * _upper(0, len(y)) > limit:
        return _check_small(limit, {**evidence, "estimated_flips_percent": _estimate_flips(original, compressed)}, flips_elsewhere)
    if upper > limit:
        return Verdict(False, f"the drop may be {upper:.3g}, more than {limit:g}", evidence)
    if task == "classification" and -paired["drop"] > limit:
        return Verdict(False, f"the accuracy rises by {-paired['drop']:.3g} points, too much to be the same network within "
                              f"{limit:g}", evidence)
    if task == "regression" and paired["change_percent"] > 100 * np.sqrt((1 + limit / 100) ** 2 - 1):
        return Verdict(False, f"the outputs change by {paired['change_percent']:.3g} % of the RMSE, too much to be the same "
                              f"network within {limit:g} %", evidence)
    return Verdict(True, HOLDS, evidence)


def _check_small(limit: float, evidence: Mapping[str, float], flips_elsewhere: Callable[[], int]) -> Verdict:
    """The stricter rule for a validation split that is too small to show the budget."""
    if evidence["worse"]:
        return Verdict(False, f"{evidence['worse']} of {evidence['samples']} validation samples became wrong", evidence)
    if evidence["estimated_flips_percent"] > limit:
        return Verdict(False, f"an estimated {evidence['estimated_flips_percent']:.2g} % of samples would change their class",
                       evidence)
    flips = flips_elsewhere()
    evidence = {**evidence, "flips_elsewhere": flips}
    if flips:
        return Verdict(False, f"{flips} training and calibration samples changed their class", evidence)
    return Verdict(True, f"no validation sample became wrong and no training or calibration sample changed its class, but "
                         f"{evidence['samples']} validation samples are too few to show a drop below {limit:g} points with "
                         f"{CONFIDENCE:.0%} confidence", evidence)


def _estimate_flips(original: Floats, compressed: Floats) -> float:
    """Percentage of pairs of samples where some class gains more on one's top class than the other's top-1 margin."""
    rows, top = np.arange(len(original)), original.argmax(1)
    margin = np.subtract(*np.sort(original, 1)[:, [-1, -2]].T)
    change = compressed - original
    gain = (change - change[rows, top][:, None]).max(1)
    return 100 * float(np.searchsorted(np.sort(margin), gain, side="left").mean() / len(original))


def _paired_classification(original: Floats, compressed: Floats, y: NDArray[np.generic]) -> dict[str, float]:
    was, became = original.argmax(1) == y, compressed.argmax(1) == y
    worse, better, n = int((was & ~became).sum()), int((~was & became).sum()), len(y)
    return {"drop": 100 * (worse - better) / n, "drop_upper_bound": 100 * (_upper(worse, n) - _lower(better, n)),
            "flips": int((original.argmax(1) != compressed.argmax(1)).sum()), "worse": worse, "better": better}


def _paired_regression(original: Floats, compressed: Floats, y: Floats, unit: Floats | float) -> dict[str, float]:
    """Relative increase of the RMSE, with a bound for weighted rows, and the outputs' own change relative to it, in per cent."""
    rmse, rmse_compressed = (float(np.sqrt(((outputs - y) ** 2).mean())) for outputs in (original, compressed))
    before, after = ((((outputs - y) / unit) ** 2).mean(1) for outputs in (original, compressed))
    tiny = float(np.finfo(np.float32).tiny)
    weight = np.minimum(1.0, np.quantile(before, 1 - FAR) / np.maximum(before, tiny))
    weight[before <= tiny] = 1.0
    mse, weighted = (max(float(errors.mean()), tiny) for errors in (before, weight * before))
    drop = _increase(float((after - before).mean()) / mse)
    upper = _increase(max(_mean_limit(after - before, mse) / mse, _mean_limit(weight * (after - before), mse) / weighted))
    change = 100 * float(np.sqrt((weight * np.square((compressed - original) / unit).mean(1)).mean() / weighted))
    return {"drop": drop, "drop_upper_bound": upper, "change_percent": change,
            "rmse": rmse, "rmse_compressed": rmse_compressed}


def _mean_limit(difference: Floats, mse: float) -> float:
    """Upper limit of the mean of paired differences (n,), by Student's t."""
    n = len(difference)
    spread = float(difference.std(ddof=1) / np.sqrt(n)) if n > 1 else UNKNOWN * mse * bool(difference.any())
    return float(difference.mean()) + float(stats.t.ppf(1 - RISK, max(n - 1, 1))) * spread


def _increase(relative: float) -> float:
    """Of the RMSE in per cent, where the mean square grows by this share."""
    return 100 * float(np.sqrt(max(1 + relative, 0.0)) - 1)


def _upper(count: int, n: int) -> float:
    risk = RISK * WORSE_SHARE
    return 1.0 if count == n else float(stats.beta.ppf(1 - risk, count + 1, n - count))


def _lower(count: int, n: int) -> float:
    risk = RISK * (1 - WORSE_SHARE)
    return 0.0 if count == 0 else float(stats.beta.ppf(risk, count, n - count + 1))
