"""Does a compressed network keep the budget on the validation split?

A budget is a statement about all samples, the split is a finite one. For classification the paired change counts: samples
that became wrong minus samples that became right. Its upper bound at confidence `CONFIDENCE` takes exact binomial limits
(Clopper, Pearson 1934) of the two counts, each at half the remaining risk. Where the split is so small that even without a
single flip the bound exceeds the budget, no network can be shown to keep it: then not one sample may become wrong, and the
verdict says that the split cannot show more. For regression the bound is that of the mean paired difference of squared
errors (normal approximation).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mncompress.types import Budget, Task

CONFIDENCE = 0.95
DEFAULT_MAX_DROP: Mapping[str, float] = {"default": 0.1, "aggressive": 0.5}
"""Where the user names neither limit; per cent of RMSE for regression."""

Floats = NDArray[np.float64]


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
    evidence: Mapping[str, float | int | str | None]


def complete_budget(budget: Budget) -> Budget:
    """Fill in the preset's limit where the user gave none."""
    if budget.preset == "exact" or budget.max_drop is not None or budget.max_logit_error is not None:
        return budget
    return Budget(DEFAULT_MAX_DROP[budget.preset], None, budget.preset)


def check_budget(budget: Budget, task: Task, original: Floats, compressed: Floats, y: NDArray[np.generic]) -> Verdict:
    """Compare outputs (n, out_features) of both networks on the validation split with labels or targets y."""
    error = float(np.abs(compressed - original).max(initial=0.0))
    if not np.isfinite(compressed).all():
        return Verdict(False, "the compressed network's outputs are not finite", {"max_abs_logit_error": None})
    paired = _paired_classification if task == "classification" else _paired_regression
    drop, upper, attainable, harmless, evidence = paired(original, compressed, y, budget.max_drop)
    evidence = {"samples": len(y), "max_abs_logit_error": error, "drop": drop, "drop_upper_bound": upper,
                "confidence": CONFIDENCE, **evidence}
    if budget.max_logit_error is not None and error > budget.max_logit_error:
        return Verdict(False, f"an output changes by {error:.3g}, more than {budget.max_logit_error:g}", evidence)
    if budget.max_drop is None or upper <= budget.max_drop:
        return Verdict(True, "the budget holds on the validation split", evidence)
    if not attainable and harmless:
        return Verdict(True, f"no validation sample got worse, but {len(y)} samples are too few to show a drop below "
                             f"{budget.max_drop:g} with {CONFIDENCE:.0%} confidence", evidence)
    return Verdict(False, f"the drop may be {upper:.3g}, more than {budget.max_drop:g}", evidence)


def _paired_classification(original: Floats, compressed: Floats, y: NDArray[np.generic], max_drop: float | None
                           ) -> tuple[float, float, bool, bool, dict[str, float | int | str | None]]:
    was, became = original.argmax(1) == y, compressed.argmax(1) == y
    worse, better, n = int((was & ~became).sum()), int((~was & became).sum()), len(y)
    upper = 100 * (_upper(worse, n) - _lower(better, n))
    flips = int((original.argmax(1) != compressed.argmax(1)).sum())
    attainable = max_drop is not None and 100 * _upper(0, n) <= max_drop
    return 100 * (worse - better) / n, upper, attainable, worse == 0, {"flips": flips, "worse": worse, "better": better}


def _paired_regression(original: Floats, compressed: Floats, y: NDArray[np.generic], max_drop: float | None
                       ) -> tuple[float, float, bool, bool, dict[str, float | int | str | None]]:
    """Relative increase of the RMSE in per cent; the smallest change can always be shown, so `attainable` is true."""
    before, after = ((outputs - y) ** 2 for outputs in (original, compressed))
    difference = (after - before).mean(1)
    mse = max(float(before.mean()), np.finfo(np.float64).tiny)
    spread = float(difference.std(ddof=1) / np.sqrt(len(y))) if len(y) > 1 else float("inf")
    limit = float(difference.mean() + stats.norm.ppf(CONFIDENCE) * spread)
    drop, upper = (100 * float(np.sqrt(max(1 + value / mse, 0.0)) - 1) for value in (float(difference.mean()), limit))
    return drop, upper, True, False, {"rmse": float(np.sqrt(mse)), "rmse_compressed": float(np.sqrt(after.mean()))}


def _upper(count: int, n: int) -> float:
    risk = (1 - CONFIDENCE) / 2
    return 1.0 if count == n else float(stats.beta.ppf(1 - risk, count + 1, n - count))


def _lower(count: int, n: int) -> float:
    risk = (1 - CONFIDENCE) / 2
    return 0.0 if count == 0 else float(stats.beta.ppf(risk, count, n - count + 1))
