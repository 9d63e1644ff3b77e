"""Decisions in words, and plans back into assignments."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis import DEGREES, Choice, LayerOptions, kind_of
from mncompress.calibration import LayerCalibration
from mncompress.compression._build import Assignment
from mncompress.compression._rewrite import Group, is_free
from mncompress.errors import ConfigError
from mncompress.nn import Network
from mncompress.spline import max_abs_error
from mncompress.types import Decision, LayerPlan, Plan

Floats = NDArray[np.float64]
RUNG_SETTINGS = {"cubic_spline": "intervals", "polynomial": "degree"}
"""The setting by which a kind of form is finer or coarser."""
MOST = {"degree": DEGREES[-1]}


def read_plan(plan: Plan, network: Network, options: Sequence[LayerOptions]) -> list[Assignment]:
    """The assignments that a plan stands for.

    Raises:
        ConfigError: it is not a plan for this network, or asks for what is not possible.
    """
    rows = {(decision.layer, decision.index): decision for decision in plan.decisions}
    counts = Counter((decision.layer, decision.index) for decision in plan.decisions)
    wanted = Counter((layer, index) for layer, option in enumerate(options) for index in range(option.n))
    if wrong := [*sorted(counts - wanted), *sorted(wanted - counts)]:
        layer, index = wrong[0]
        raise ConfigError(f"the plan has {counts[layer, index]} decisions for neuron {index} of layer {layer}, and the network has "
                          f"{wanted[layer, index]} such neurons; give the plan of the same network")
    behind = {each.layer: each for each in plan.layers}
    if len(behind) < len(plan.layers) or not behind.keys() <= set(range(len(options))):
        raise ConfigError(f"the plan's layers are {', '.join(str(each.layer) for each in plan.layers)}; there may be one entry for "
                          f"each of the layers 0 to {len(options) - 1}")
    if plan.finetuned < 0 or plan.finetune_epochs < 0:
        raise ConfigError("the plan's epochs of distillation are negative; 0 is for none")
    assignments = []
    for layer, option in enumerate(options):
        decisions = [rows[layer, index] for index in range(option.n)]
        keys = np.array([_find_key(decision, option) for decision in decisions])
        rungs = {key: max(_read_rung(decisions[index], key) for index in np.flatnonzero(keys == key))
                 for key in set(keys.tolist()) if key in option.ladder}
        left = np.array([decision.left for decision in decisions], bool)
        if left.any() and not is_free(network, layer):
            raise ConfigError(f"the plan lets neurons of layer {layer} leave, which something else than the next layer reads")
        own = behind.get(layer, LayerPlan(layer))
        _check_layer(own, network, left)
        # Where nothing is refitted, all that neurons that left passed on must be read.
        rank = option.n if left.any() and own.ridge is None else own.rank
        if own.factored and left.any() and rank:
            raise ConfigError(f"the plan carries out layer {layer} in two factors, which a layer with a bypass cannot be")
        assignments.append(Assignment(keys, rungs, left, rank, own.ridge, own.factored))
    return assignments


def _check_layer(plan: LayerPlan, network: Network, left: NDArray[np.bool_]) -> None:
    """Refuse what cannot be done with a layer as a whole, `left` (n,) being the neurons that leave."""
    layers, where = network.layers, f"the plan's entry for layer {plan.layer}"
    widest = layers[plan.layer + 1].linear.out_features if plan.layer + 1 < len(layers) else 0
    if not 0 <= plan.rank <= widest or (plan.rank and not left.any()):
        raise ConfigError(f"{where} has a bypass of rank {plan.rank}; it takes neurons that leave, and a rank of 0 to {widest}")
    if plan.ridge is not None and plan.ridge < 0:
        raise ConfigError(f"{where} has a ridge of {plan.ridge:g}; it must not be negative")
    stay = int((~left).sum())
    if plan.factored and (layers[plan.layer].residual or not 0 < plan.factored <= stay):
        raise ConfigError(f"{where} is to be carried out at rank {plan.factored}, which takes a layer without a residual "
                          f"connection, and a rank of 1 to the {stay} neurons that stay")


def _find_key(decision: Decision, options: LayerOptions) -> str:
    where = f"the plan's decision for neuron {decision.index} of layer {decision.layer}"
    if decision.left and decision.kind != "affine":
        raise ConfigError(f"{where} lets it leave as {decision.kind}; only affine neurons leave")
    if decision.kind == "kept":
        return "kept"
    detail = decision.settings.get("act") or decision.settings.get("form")
    key = f"{decision.kind}:{detail}" if detail else str(decision.kind)
    possible = [name for name, errors in options.errors.items() if np.isfinite(errors[decision.index])]
    if key not in possible:
        raise ConfigError(f"{where} asks for {key}, which it cannot become; choose from {', '.join([*possible, 'kept'])}")
    return key


def _read_rung(decision: Decision, key: str) -> int:
    name = RUNG_SETTINGS.get(kind_of(key), "knots")
    value, most = decision.settings.get(name), MOST.get(name, 4096)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ConfigError(f"the plan's decision for neuron {decision.index} of layer {decision.layer} needs the setting {name}, a "
                          f"number from 1 to {most} for a {decision.kind}, got {value!r}")
    return value


def describe(layer: int, options: LayerOptions, choice: Choice | None, tolerance: Floats, groups: Sequence[Group],
             calibration: LayerCalibration, *, movable: bool, distilled: bool) -> list[Decision]:
    """A layer's decisions.

    Args:
        layer: its number among the activated ones.
        options: what its neurons could have become.
        choice: what was chosen, with what was refused; None for a plan that was given.
        tolerance: per neuron, (n,).
        groups: what they became.
        calibration: what they are given.
        movable: whether the layer was allowed to change.
        distilled: whether distillation changed it afterwards.
    """
    decisions: dict[int, Decision] = {}
    for group in groups:
        errors = _errors_of(group, options)
        for position, index in enumerate(group.indices.tolist()):
            allowed, error = np.inf if group.left else float(max(tolerance[index], 0.0)), float(errors[position])
            low, high = calibration.domain[index].tolist()
            refused: Mapping[str, str] = {}
            if choice is None:
                reason = "the plan that was given asks for it"
            elif not movable:
                reason = "the layer was excluded"
            else:
                reason = _reason(group, options, index, error, allowed)
                refused = {"constant": "leaving takes no less away and is made good for"} if group.left else choice.refused[index]
            decisions[index] = Decision(
                layer, index, kind_of(group.key), (low, high), error,
                allowed if np.isfinite(allowed) else float(np.finfo(np.float32).max), float(calibration.sensitivity[index]),
                f"{reason}; before distillation" if distilled else reason, refused, make_settings(group, options, index),
                group.left)
    return [decisions[index] for index in range(options.n)]


def _errors_of(group: Group, options: LayerOptions) -> Floats:
    if group.form is None:
        return np.zeros(len(group.indices))
    if group.key in options.found:
        return options.errors[group.key][group.indices]
    lo, hi = options.domain[group.indices].T
    return max_abs_error(options.inner.select(group.indices), group.form, lo, hi)


def make_settings(group: Group, options: LayerOptions, index: int) -> dict[str, int | float | str]:
    """What the fit of neuron `index` of a group chose: see `Decision.settings`."""
    form = group.form
    kind, _, detail = group.key.partition(":")
    extra = {"form": detail} if detail and kind != "native" else {}
    if kind == "cubic_spline":
        return {"intervals": form.coefficients.shape[1], **extra}  # type: ignore[union-attr]
    if kind == "polynomial":
        return {"degree": form.coefficients.shape[1] - 1}  # type: ignore[union-attr]
    if kind == "piecewise_linear":
        return {"knots": form.knots.shape[1] if detail else int(options.knots[index]), **extra}  # type: ignore[union-attr]
    return {"act": detail} if kind == "native" else {}


def _reason(group: Group, options: LayerOptions, index: int, error: float, allowed: float) -> str:
    kind = kind_of(group.key)
    if group.left:
        return "is missed least: the next layer's other inputs carry what it contributed"
    if kind == "kept":
        possible = any(exact[index] for exact in options.exact.values())
        if allowed > 0 and (possible or any(found[index] <= allowed for found in options.limited.values())):
            return "the layer is faster with its inner networks than with what could replace them"
        if possible:
            return "even the float32 rounding of an exact replacement would exceed the budget"
        return "nothing cheaper is exact for every input" if allowed == 0 else "nothing cheaper is within the tolerance"
    exact = options.exact[group.key][index]
    what = {
        "constant": "does not vary" if exact else "hardly varies",
        "affine": "is a straight line" if exact else "is close to a straight line",
        "piecewise_linear": "its inner network is piecewise linear",
        "native": f"is a scaled and shifted {group.key.partition(':')[2]}", "polynomial": "is smooth and gentle on its domain",
        "cubic_spline": "is smooth",
    }[kind]
    if exact:
        return f"{what}, exactly and for every input"
    if group.key == "piecewise_linear:reduced":
        what = "is close to a few straight pieces"
    if not np.isfinite(allowed):
        return f"{what}: the error on its domain is at most {error:.2g}, its outputs do not reach the network's"
    return f"{what}: {describe_fit(error, allowed, options.criterion)}"


def describe_fit(error: float, allowed: float, criterion: str) -> str:
    """The largest error of a form on its domain, and what was allowed, by `LayerOptions.criterion`."""
    if criterion == "rms":
        return f"its mean error over what it is given is within the {allowed:.2g} allowed, on its whole domain at most {error:.2g}"
    return f"the error on its domain is {error:.2g}, {allowed:.2g} is allowed"
