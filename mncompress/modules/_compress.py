"""Compressing any torch module: find its activations, probe them, calibrate, choose within the budget, rewrite.

As for mncompress's own networks: one number, the contribution that a single channel may make to the outputs, divided by each
channel's sensitivity gives its tolerance; from tight to loose, the last network before the first that breaks the budget on the
validation data is taken. Activations of mncompress's families are analyzed exactly, others through their sampled values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mncompress import spline
from mncompress.analysis import Choice, choose, find_options, keep_all, kind_of
from mncompress.calibration import LayerCalibration
from mncompress.compression import (
    Group,
    Verdict,
    assign,
    check_budget,
    check_is_budget,
    complete_budget,
    describe_fit,
    go_while_ok,
    make_groups,
    make_settings,
    make_tolerances,
    reach_all,
    spread_tolerance,
)
from mncompress.errors import ConfigError, DataError
from mncompress.modules._functions import ModuleFunctions, as_inner_networks, as_learned, make_functions
from mncompress.modules._observe import Observation, copy_module, measure_sensitivity, observe, run_module, to_cpu
from mncompress.modules._pieces import add_pieces
from mncompress.modules._probe import probe
from mncompress.modules._registry import STANDARD, channel_axis_of, find_activations
from mncompress.modules._rewrite import Site, can_lose_channels, rewrite
from mncompress.modules._topology import Topology, fits_axis, fold_norms
from mncompress.types import Budget, Decision, Task

Rows: TypeAlias = NDArray[Any] | Tensor
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ModuleResult:
    """A compressed torch module, and why it is what it is.

    Attributes:
        network: on the CPU, in float32 and eval mode, of the same class as the original.
        decisions: by the name of each replaced activation, what each channel became; `layer` counts these activations.
        left_alone: by name, what stays as it was, with the reason.
        verdict: the budget's verdict on the validation data: `ok`, `verdict` (a sentence) and the numbers behind it.
        tolerance: as in `Plan`: what a single channel may contribute to the outputs.
        task: what the outputs are.
    """

    network: nn.Module
    decisions: Mapping[str, tuple[Decision, ...]]
    left_alone: Mapping[str, str]
    verdict: Mapping[str, float | int | str | None]
    tolerance: float
    task: Task


@dataclass(frozen=True)
class _Attempt:
    """A network that was tried."""

    tolerance: float
    tolerances: list[Floats]
    choices: list[Choice]
    groups: list[tuple[Group, ...]]
    network: nn.Module
    verdict: Verdict


def compress_module(module: nn.Module, x_calibration: Rows, validation: tuple[Rows, Rows], budget: Budget | None = None, *,
                    task: Task = "classification", progress: Callable[[str], None] | None = None) -> ModuleResult:
    """Replace the learned activations of any torch module by the cheapest forms within a budget.

    Args:
        module: takes one tensor, samples first, and gives one row of outputs a sample. It is not changed.
        x_calibration: inputs that give the domains and sensitivities, (rows, ...), such as the training data.
        validation: inputs, and labels (rows,) or targets (rows, outputs), on which the budget must hold.
        budget: what compression may cost; the default preset where None.
        task: what the outputs are: logits, or targets.
        progress: called with a line for each step.

    Raises:
        ConfigError: the module is an activation itself, is compiled, cannot be copied or gives what depends on the batch; the
            budget has a target or patterns; or the task is none.
        DataError: there are no rows, the labels do not fit, or the module fails on the data.
    """
    tell = progress or (lambda line: None)
    if task not in get_args(Task):
        raise ConfigError(f"the task must be {' or '.join(get_args(Task))}, got {task!r}")
    check_is_budget(budget)
    if channel_axis_of(module) is not None or isinstance(module, STANDARD):
        raise ConfigError("the module is itself an activation; give the network that it is in, or put it into nn.Sequential")
    budget = _complete(budget or Budget())
    network = copy_module(module)
    x, x_validation = _as_tensor(x_calibration), _as_tensor(validation[0])
    original = run_module(network, x_validation)
    y = _as_labels(validation[1], original, task)
    run_module(network, x[:2])
    classes = cache(lambda: run_module(network, x).argmax(1))
    tell("looking for activations")
    unit = 1.0 if task == "classification" else _spread(y)
    base, sites, left = prepare(network, x, budget, unit)
    tell(f"{len(sites)} activations can be replaced: {', '.join(site.name for site in sites) or 'none'}")

    def attempt(tolerance: float, *, keep: bool = False, tolerances: list[Floats] | None = None) -> _Attempt:
        tolerances = tolerances or [spread_tolerance(tolerance, site.calibration.sensitivity) for site in sites]
        choices = [keep_all(site.options, allowed) if keep else _choose(site, allowed)
                   for site, allowed in zip(sites, tolerances, strict=True)]
        groups = [make_groups(site.options, assign(site.options, choice, allowed))
                  for site, choice, allowed in zip(sites, choices, tolerances, strict=True)]
        compressed = rewrite(base, sites, groups)
        verdict = check_budget(budget, task, original, run_module(compressed, x_validation), y,
                               lambda: int((classes() != run_module(compressed, x).argmax(1)).sum()), unit)
        tell(f"tolerance {tolerance:.2g}: {verdict.reason}")
        return _Attempt(tolerance, tolerances, choices, groups, compressed, verdict)

    found, _ = go_while_ok(attempt(tolerance) for tolerance in make_tolerances(budget, original / unit))
    if found is not None and sites:
        closest = reach_all([site.options for site in sites], found.tolerances)
        found = found if closest is None else go_while_ok([attempt(found.tolerance, tolerances=closest)])[0] or found
    found = found or go_while_ok([attempt(0.0)])[0] or attempt(0.0, keep=True)
    decisions = {parts[0].name: _decide(number, *parts)
                 for number, parts in enumerate(zip(sites, found.choices, found.tolerances, found.groups, strict=True))}
    verdict = found.verdict
    return ModuleResult(found.network, decisions, left, {"ok": verdict.ok, "verdict": verdict.reason, **verdict.evidence},
                        found.tolerance, task)


def prepare(network: nn.Module, x: Tensor, budget: Budget, unit: Floats | float = 1.0
            ) -> tuple[nn.Module, list[Site], dict[str, str]]:
    """Fold the normalizations, and work out what each activation could become; sensitivities are those of outputs / `unit`.

    Returns:
        The network with folded normalizations; the activations that can be replaced; and what is left alone, with why.
    """
    found = list(find_activations(network))
    left = {name: f"{type(module).__name__} is native: every runtime computes it as it stands"
            for name, module, axis in found if axis is None}
    learned = {name: (module, axis) for name, module, axis in found if axis is not None}
    base, stays = fold_norms(network, [module for _, module, _ in found], x)
    learned = {name: (base.get_submodule(name), axis) for name, (_, axis) in learned.items()}
    seen = observe(base, learned, x)
    functions: dict[str, ModuleFunctions] = {}
    for name, (module, _) in learned.items():
        reason = _look_at_(functions, name, module, seen[name])
        if reason is not None:
            seen[name].problem = left[name] = reason
    rows = measure_sensitivity(base, learned, x, seen, unit)
    topology = Topology(base, [base.get_submodule(name) for name, _, _ in found])
    sites = [_make_site(base, topology, name, learned[name][0], seen[name].calibration(rows), each, budget)
             for name, each in functions.items()]
    return base, sites, {**left, **stays, **topology.functional(), **topology.problems}


def _look_at_(functions: dict[str, ModuleFunctions], name: str, module: nn.Module, seen: Observation) -> str | None:
    """Add the functions of an activation, or say why it is none."""
    if seen.problem is not None:
        return seen.problem
    made = make_functions(module, seen.axis, len(seen.shape), seen.n)
    reason = probe(made, seen.shape, seen.extremes.observed)
    if reason is None:
        functions[name] = made
    return reason


def _make_site(network: nn.Module, topology: Topology, name: str, module: nn.Module, calibration: LayerCalibration,
               functions: ModuleFunctions, budget: Budget) -> Site:
    inner, family = as_inner_networks(module, functions)
    histogram = None if budget.limits_largest else spline.Histogram(calibration.histogram, calibration.observed)
    options = find_options(inner, family, calibration.domain, budget.preset,
                           "portable" if budget.target == "portable" else "native", histogram)
    if as_learned(module) is None:
        options = (add_pieces(options) if budget.preset != "exact" else
                   replace(options, errors={}, exact={}, ladder={}, found={}))

    def neighbor(linear: str | None) -> str | None:
        return linear if linear and fits_axis(network.get_submodule(linear), functions.rank, functions.axis) else None

    producer, consumer = neighbor(topology.producer(module)), neighbor(topology.consumer(module))
    can_leave = bool(producer and consumer and can_lose_channels(*map(network.get_submodule, (producer, consumer))))
    return Site(name, module, functions.axis, functions.rank, producer, consumer, can_leave, options, calibration)


def _choose(site: Site, tolerance: Floats) -> Choice:
    """What a layer's channels become; a module that is no inner network cannot be kept for some channels alone."""
    choice = choose(site.options, tolerance, can_leave=site.can_leave)
    if as_learned(site.module) is None and (choice.keys == "kept").any():
        return keep_all(site.options, tolerance)
    return choice


def _decide(number: int, site: Site, choice: Choice, tolerance: Floats, groups: Sequence[Group]) -> tuple[Decision, ...]:
    decisions: dict[int, Decision] = {}
    for group in groups:
        lo, hi = site.options.domain[group.indices].T
        inner = site.options.inner.select(group.indices)
        errors = np.zeros(len(group.indices)) if group.form is None else spline.max_abs_error(inner, group.form, lo, hi)
        for position, index in enumerate(group.indices.tolist()):
            allowed = float(np.clip(tolerance[index], 0.0, np.finfo(np.float32).max))
            decisions[index] = Decision(
                number, index, kind_of(group.key), (float(lo[position]), float(hi[position])), float(errors[position]), allowed,
                float(site.calibration.sensitivity[index]), _reason(site, group, position, float(errors[position]), allowed),
                choice.refused[index], make_settings(group, site.options, index))
    return tuple(decisions[index] for index in range(site.options.n))


def _reason(site: Site, group: Group, position: int, error: float, allowed: float) -> str:
    if group.form is None:
        return "no cheaper form of the whole activation keeps the budget"
    if group.exact[position]:
        return "it equals the activation at every input"
    return describe_fit(error, allowed, site.options.criterion)


def _complete(budget: Budget) -> Budget:
    """As for mncompress's own networks; refuse what only a search there could do."""
    for name in ("max_error_bound", "target_macs", "target_latency", "include", "exclude"):
        if getattr(budget, name) not in (None, ()):
            raise ConfigError(f"{name} is for mncompress's own networks; of a torch module all activations may change, "
                              "the structure stays, and nothing is proven")
    return complete_budget(budget)


def _as_tensor(x: Rows) -> Tensor:
    """Inputs as a network takes them: floats in float32, integers as they are."""
    tensor = to_cpu("inputs", x)
    if tensor.dim() < 2 or len(tensor) == 0:
        raise DataError(f"inputs of shape {tuple(tensor.shape)} are no samples; give at least one row, samples first")
    return tensor.float() if tensor.is_floating_point() else tensor


def _spread(y: NDArray[np.generic]) -> Floats:
    """The standard deviation of each target, (outputs,); 1 of one that does not vary."""
    single = y.astype(np.float32)       # where a constant is one, whatever float64 makes of it
    return np.where(np.ptp(single, 0) > 0, single.astype(np.float64).std(0), 1.0)


def _as_labels(y: Rows, outputs: Floats, task: Task) -> NDArray[np.generic]:
    """Labels (rows,) of classes that the network has, or targets of the outputs' shape."""
    tensor = to_cpu("validation labels", y)
    shape, expected = tuple(tensor.shape), outputs.shape[:1] if task == "classification" else outputs.shape
    if shape != expected:
        hint = "; for targets pass task='regression'" if task == "classification" and shape == outputs.shape else ""
        raise DataError(f"the validation labels have the shape {shape}, for {task} with this network it must be {expected}{hint}")
    is_float = tensor.is_floating_point()
    if tensor.is_complex() or tensor.dtype == torch.bool or (is_float and task == "classification"):
        raise DataError(f"the validation labels have the type {tensor.dtype}; {task} takes "
                        f"{'integers' if task == 'classification' else 'floats or integers'}")
    labels: NDArray[np.generic] = (tensor.double() if is_float else tensor).numpy()
    if task == "classification":
        _check_classes(labels, outputs.shape[1])
    elif not np.isfinite(labels).all():
        row = int(np.isfinite(labels).all(1).argmin())
        raise DataError(f"the validation targets of row {row} are not finite; leave such rows out")
    return labels


def _check_classes(labels: NDArray[Any], classes: int) -> None:
    if classes < 2:
        raise DataError(f"the network gives {classes} output, which tells no classes apart; give targets and task='regression'")
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"validation row {row} has the label {labels[row]}; this network's {classes} outputs are the classes 0 to "
                        f"{classes - 1}")
