"""The planner: the cheapest network within the budget.

One number, the planner's tolerance, is how much a single neuron may contribute to the outputs (root mean square, in the
outputs' units); a neuron's own tolerance is that divided by its measured sensitivity. From loose to tight, each tolerance
gives a choice for every layer and so a network, which is run on the validation split; the first one that keeps the budget
is taken. Then comes what is exact for every input; and where even its float32 rounding exceeds the budget, nothing is replaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis import Choice, LayerOptions, choose, find_options, keep_all, kind_of, make_inner_networks
from mncompress.calibration import LayerCalibration, calibrate, run_network
from mncompress.compression._budget import Verdict, check_budget, complete_budget
from mncompress.compression._rewrite import Group, rewrite
from mncompress.data import Dataset
from mncompress.nn import LearnedActivation, Network
from mncompress.spline import max_abs_error
from mncompress.types import Budget, Decision, Plan

TOLERANCES: tuple[float, ...] = tuple(float(t) for t in np.geomspace(0.3, 1e-8, 16))
"""Relative to the root mean square of the outputs around their mean."""
SENSITIVITY_FLOOR = 1e-3
"""Of a layer's largest: a gradient that is zero on all calibration samples need not be so on others."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Compressed:
    """A compressed network with everything that led to it.

    Attributes:
        network: the torch module.
        plan: decision per neuron.
        groups: per activated layer which neurons became what.
        options: per activated layer what they could have become.
        calibration: per activated layer what they are given.
    """

    network: Network
    plan: Plan
    groups: tuple[tuple[Group, ...], ...]
    options: tuple[LayerOptions, ...]
    calibration: tuple[LayerCalibration, ...]


def compress_network(network: Network, dataset: Dataset, budget: Budget,
                     progress: Callable[[str], None] | None = None) -> Compressed:
    """Calibrate, analyze and compress a trained network.

    Args:
        network: with learned activations.
        dataset: its calibration split, and the ranges of the training split, give the domains; its validation split
            checks the budget.
        budget: what compression may cost.
        progress: called with a line for each step.

    Raises:
        DataError: the calibration split is empty.
    """
    tell = progress or (lambda line: None)
    budget = complete_budget(budget)
    tell("calibrating on the calibration split")
    calibration = calibrate(network, dataset.calibration.x, dataset.train.x)
    tell("analyzing the learned activations")
    options = tuple(_options_of(layer.activation, found, budget)
                    for layer, found in zip(network.activated_layers, calibration, strict=True))
    original = run_network(network, dataset.validation.x)
    before = cache(partial(_classes, network, dataset))     # needed for small validation splits alone
    scale = float(np.sqrt(np.var(original, axis=0).mean())) or 1.0
    steps = [] if budget.preset == "exact" else [scale * tolerance for tolerance in TOLERANCES]
    for tolerance, pick in (*((step, choose) for step in steps), (0.0, choose), (0.0, keep_all)):
        tolerances = [_tolerances(tolerance, found.sensitivity) for found in calibration]
        choices = [pick(*pair) for pair in zip(options, tolerances, strict=True)]
        groups = tuple(_make_groups(*each) for each in zip(options, choices, tolerances, strict=True))
        compressed = rewrite(network, groups)
        verdict = check_budget(budget, dataset.task, original, run_network(compressed, dataset.validation.x), dataset.validation.y,
                               partial(_count_flips, before, compressed, dataset))
        tell(f"tolerance {tolerance:.2g}: {verdict.reason}")
        if verdict.ok:
            break
    decisions = [decision for layer, parts in enumerate(zip(options, choices, tolerances, groups, calibration, strict=True))
                 for decision in _decide(layer, *parts)]
    return Compressed(compressed, Plan(budget, tuple(decisions), tolerance, _evidence(verdict)), groups, options, calibration)


def _count_flips(before: Callable[[], NDArray[np.intp]], compressed: Network, dataset: Dataset) -> int:
    """Training and calibration samples that the compressed network puts into another class than `before()` says."""
    return int((before() != _classes(compressed, dataset)).sum())


def _classes(network: Network, dataset: Dataset) -> NDArray[np.intp]:
    """The classes that a network gives the training and calibration samples."""
    return np.concatenate([run_network(network, split.x).argmax(1) for split in (dataset.train, dataset.calibration)])


def _options_of(activation: object, calibration: LayerCalibration, budget: Budget) -> LayerOptions:
    assert isinstance(activation, LearnedActivation)
    return find_options(make_inner_networks(activation), activation.spec.family, calibration.domain, budget.preset,
                        "portable" if budget.target == "portable" else "native")


def _tolerances(tolerance: float, sensitivity: Floats) -> Floats:
    """Per neuron; infinite where the outputs depend on none of the layer, -1 where only exact replacements count."""
    if tolerance == 0:
        return np.full(len(sensitivity), -1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(tolerance / np.maximum(sensitivity, SENSITIVITY_FLOOR * sensitivity.max()))


def _make_groups(options: LayerOptions, choice: Choice, tolerance: Floats) -> tuple[Group, ...]:
    groups = []
    for key in sorted(set(choice.keys.tolist())):
        indices = np.flatnonzero(choice.keys == key)
        kept = key == "kept"
        form = None if kept else options.build(key, tolerance, indices)
        groups.append(Group(key, indices, form, np.ones(len(indices), bool) if kept else options.exact[key][indices]))
    return tuple(groups)


def _evidence(verdict: Verdict) -> dict[str, float | int | str | None]:
    return {"verdict": verdict.reason, **verdict.evidence}


def _decide(layer: int, options: LayerOptions, choice: Choice, tolerance: Floats, groups: Sequence[Group],
            calibration: LayerCalibration) -> list[Decision]:
    decisions: dict[int, Decision] = {}
    for group in groups:
        errors = _errors_of(group, options)
        for position, index in enumerate(group.indices.tolist()):
            allowed = float(max(tolerance[index], 0.0))
            low, high = calibration.domain[index].tolist()
            decisions[index] = Decision(
                layer, index, kind_of(group.key), (low, high), float(errors[position]),
                allowed if np.isfinite(allowed) else float(np.finfo(np.float32).max), float(calibration.sensitivity[index]),
                _reason(group, options, index, float(errors[position]), allowed), choice.refused[index],
                _settings(group, options, index))
    return [decisions[index] for index in range(options.n)]


def _errors_of(group: Group, options: LayerOptions) -> Floats:
    if group.form is None:
        return np.zeros(len(group.indices))
    if group.key in options.found:
        return options.errors[group.key][group.indices]
    lo, hi = options.domain[group.indices].T
    return max_abs_error(options.inner.select(group.indices), group.form, lo, hi)


def _settings(group: Group, options: LayerOptions, index: int) -> dict[str, int | float | str]:
    form = group.form
    kind = kind_of(group.key)
    if kind == "cubic_spline":
        linear = {"degree": 1} if group.key.endswith(":linear") else {}
        return {"intervals": form.coefficients.shape[1], **linear}  # type: ignore[union-attr]
    if kind == "polynomial":
        return {"degree": form.coefficients.shape[1] - 1}  # type: ignore[union-attr]
    if kind == "piecewise_linear":
        return {"knots": int(options.knots[index])}
    return {"act": group.key.partition(":")[2]} if kind == "native" else {}


def _reason(group: Group, options: LayerOptions, index: int, error: float, allowed: float) -> str:
    kind = kind_of(group.key)
    if kind == "kept":
        possible = any(exact[index] for exact in options.exact.values())
        if allowed > 0 and (possible or any(found[index] <= allowed for found in options.errors.values())):
            return "the layer is faster with its inner networks than with what could replace them"
        if possible:
            return "even the float32 rounding of an exact replacement would exceed the budget"
        return "nothing cheaper is exact for every input" if allowed == 0 else "nothing cheaper is within the tolerance"
    what = {
        "constant": "does not vary", "affine": "is a straight line", "piecewise_linear": "its inner network is piecewise linear",
        "native": f"is a scaled and shifted {group.key.partition(':')[2]}", "polynomial": "is smooth and gentle on its domain",
        "cubic_spline": "is smooth",
    }[kind]
    if options.exact[group.key][index]:
        return f"{what}, exactly and for every input"
    limit = "its outputs do not reach the network's" if not np.isfinite(allowed) else f"{allowed:.2g} is allowed"
    return f"{what}: the error on its domain is {error:.2g}, {limit}"
