"""The planner: the cheapest network within the budget, or the best one at a given cost.

First the forms. One number, the planner's tolerance, is how much a single neuron may contribute to the outputs (root mean
square, in units of the outputs' scale); a neuron's own tolerance is that divided by its measured sensitivity. From tight to loose,
each tolerance gives a choice for every layer and so a network, which is run on the validation split, up to the first that does not
keep the budget (`_budget` says why in this order); the one before it is taken. If there is none, what is exact for every input; and
where even its float32 rounding exceeds the budget, nothing is replaced.

Then the structure: which neurons leave (`_departures`), and which layers are carried out at a lower rank (`_factors`). A price of
multiply-adds against errors of the outputs decides between and within layers; raised step by step it gives ever cheaper networks,
each with the layers behind refitted (`_repair`). They are looked at from expensive to cheap as well, in large steps and then in
small ones, as long as the budget holds; with a target, the most expensive that reaches it is taken. Where only what is exact will
do, neurons that are lines for every input may leave behind a bypass that is not refitted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis import Choice, LayerOptions, choose, find_options, keep_all, make_inner_networks
from mncompress.calibration import LayerCalibration, calibrate, run_network
from mncompress.compression._budget import DEFAULT_MAX_DROP, Verdict, check_budget, complete_budget, go_while_ok
from mncompress.compression._build import Assignment, Blueprint, Study, build
from mncompress.compression._certificate import Reference, bound_change
from mncompress.compression._compressed import Compressed
from mncompress.compression._finetune import finetune
from mncompress.compression._plan import describe, read_plan
from mncompress.compression._rewrite import is_free, rewrite
from mncompress.compression._structure import find_levels, let_lines_leave
from mncompress.compression._tolerances import make_tolerances, reach_all, spread_tolerance
from mncompress.compression._unfold import unfold
from mncompress.data import Dataset
from mncompress.errors import ConfigError
from mncompress.nn import LearnedActivation, Network, count_macs, may_be_one_node
from mncompress.spline import Histogram
from mncompress.types import Budget, Decision, LayerPlan, Plan, Trial

WIDEST_SEARCHED = 4096
"""Neurons or inputs of a layer in whose network neurons may leave: that search takes memory by the square and time by the cube."""
COARSER = (1 / 2, 1 / 4, 1 / 8)
"""Shares of the intervals with which a network is tried again."""

Floats = NDArray[np.float64]
Tell = Callable[[str], None]


def compress_network(network: Network, dataset: Dataset, budget: Budget | None = None, progress: Tell | None = None, *,
                     plan: Plan | None = None, epochs: int = 0, measure_latency: Callable[[Network], float] | None = None
                     ) -> Compressed:
    """Calibrate, analyze and compress a trained network.

    Args:
        network: with learned activations.
        dataset: its calibration split, and the ranges of the training split, give the domains; its validation split
            checks the budget.
        budget: what compression may cost; by default the plan's, or `Budget()`.
        progress: called with a line for each step.
        plan: to carry out, instead of looking for one.
        epochs: of distillation behind everything else.
        measure_latency: microseconds that a network takes; needed for a target of latency alone.

    Raises:
        ConfigError: the plan does not fit the network or has another budget, the target cannot be reached within the limits, or
            what is proven exceeds the limit whatever is done.
        DataError: the calibration split is empty.
    """
    tell = progress or (lambda line: None)
    budget = complete_budget(_choose_budget(budget, plan))
    epochs = epochs or (plan.finetune_epochs or plan.finetuned if plan is not None else 0)
    names = [name for name, module in network.named_modules() if isinstance(module, LearnedActivation)]
    idle = [pattern for pattern in (*budget.include, *budget.exclude)
            if not any(replace(budget, include=(pattern,), exclude=()).may_change(*each) for each in enumerate(names))]
    if idle or ((budget.include or budget.exclude) and not any(budget.may_change(*each) for each in enumerate(names))):
        what = f"the pattern {idle[0]!r} is that of no layer" if idle else "the patterns leave no layer to change"
        raise ConfigError(f"{what}; the network's activated layers are {', '.join(names) or 'none'}")
    tell("calibrating on the calibration split")
    calibration = calibrate(network, dataset.calibration.x, dataset.train.x)
    tell("analyzing the learned activations")
    options = tuple(_options_of(layer.activation, found, budget)
                    for layer, found in zip(network.activated_layers, calibration, strict=True))
    movable = tuple(budget.may_change(*each) for each in enumerate(names))
    search = _Search(network, dataset, budget, options, calibration, movable, epochs, measure_latency, tell)
    return search.carry_out(plan) if plan is not None else search.run()


def _choose_budget(budget: Budget | None, plan: Plan | None) -> Budget:
    """A plan's own budget decides what its forms are fitted for, so it comes with the plan."""
    if plan is None:
        return budget or Budget()
    if budget is not None and complete_budget(budget) != complete_budget(plan.budget):
        raise ConfigError("a plan has a budget of its own, for which its forms are fitted; leave out limits, preset, targets and "
                          "patterns, or change them in the plan")
    return plan.budget


@dataclass(frozen=True)
class _Candidate:
    """A network that was tried.

    Attributes:
        choices: per activated layer, with the reasons; none for a plan that was given.
    """

    tolerance: float
    tolerances: list[Floats]
    choices: list[Choice] | None
    assignments: list[Assignment]
    blueprint: Blueprint
    network: Network
    verdict: Verdict
    trial: Trial


class _Search:
    """The search for one network; see the module."""

    def __init__(self, network: Network, dataset: Dataset, budget: Budget, options: tuple[LayerOptions, ...],
                 calibration: tuple[LayerCalibration, ...], movable: tuple[bool, ...], epochs: int,
                 measure_latency: Callable[[Network], float] | None, tell: Tell) -> None:
        self.network, self.dataset, self.budget = network, dataset, budget
        self.options, self.calibration, self.movable = options, calibration, movable
        self.epochs, self.measure_latency, self.tell = epochs, measure_latency, tell
        self.original = run_network(network, dataset.validation.x)
        self.unit = network.output_scale.double().numpy()
        self.classes = cache(partial(_classes, network, dataset))     # needed for small validation splits alone
        self.study = cache(partial(Study.of, network, dataset))
        self.reference = cache(partial(Reference.of, network, options, dataset.validation.x, dataset.calibration.x,
                                       dataset.train.x))
        self.trials: list[Trial] = []
        self.latencies: list[float] = []
        self.has_failed_closest = False
        self.last_forms: _Candidate | None = None

    def run(self) -> Compressed:
        """The forms, then the structure."""
        found = self.find_forms()
        if found.tolerance > 0:
            if max(self.network.spec.sizes) <= WIDEST_SEARCHED:
                found = self.find_structure(found)
            else:
                self.tell(f"a layer has more than {WIDEST_SEARCHED} neurons or inputs: activations are replaced, but none leaves")
            if self.budget.is_limited and not self.budget.limits_largest and not self.has_failed_closest:
                found = self.find_coarser(found)
        else:
            found = self.find_lines(found)
        self.check_target(found)
        return self.finish(found)

    def check_target(self, found: _Candidate) -> None:
        """Refuse a network that is dearer than what was asked for, or breaks a limit: one beside a target, or one to be proven."""
        limit, latency = self.budget.macs_limit(count_macs(self.network)), self.budget.target_latency
        if limit is not None and count_macs(found.network) > limit:
            raise ConfigError(f"the target of {limit:.0f} multiply-adds cannot be reached; the smallest network found has "
                              f"{count_macs(found.network)}")
        if latency is not None and min(self.latencies, default=np.inf) > latency and not self.is_reached(found):
            raise ConfigError(f"the target of {latency:g} us cannot be reached; the fastest network found takes "
                              f"{min(self.latencies):.1f}")
        if self.budget.has_target and not found.verdict.ok:
            raise ConfigError(f"the target cannot be reached within the limits: {found.verdict.reason}; drop one of them")
        if self.budget.max_error_bound is not None and not found.verdict.ok:
            raise ConfigError(f"the limit is too tight even for the network as it was trained: {found.verdict.reason}, which is "
                              "what float32 rounding may do; allow more")

    def carry_out(self, plan: Plan) -> Compressed:
        """A plan as it is."""
        assignments = read_plan(plan, self.network, self.options)
        rows = {(decision.layer, decision.index): decision.tolerance for decision in plan.decisions}
        tolerances = [np.array([rows[layer, index] for index in range(option.n)]) for layer, option in enumerate(self.options)]
        found = self.try_out(self.budget, plan.tolerance, tolerances, None, assignments)
        return self.finish(found)

    def find_forms(self) -> _Candidate:
        """The loosest tolerance up to which all networks keep the budget."""
        budget = self.budget
        if budget.has_target and not budget.is_limited:
            budget = replace(budget, max_drop=DEFAULT_MAX_DROP[budget.preset])
        found, _ = go_while_ok(self.try_forms(budget, tolerance, self.movable)
                               for tolerance in make_tolerances(budget, self.original / self.unit))
        if found is not None:
            return self.find_closest(budget, found)
        nothing = [False] * len(self.movable)
        return go_while_ok([self.try_forms(budget, 0.0, self.movable)])[0] or self.try_forms(budget, 0.0, nothing)

    def find_closest(self, budget: Budget, start: _Candidate) -> _Candidate:
        """With the closest form of each neuron that has none within its tolerance, if the budget holds.

        It is the first of a sequence of candidates that `find_coarser` goes on with.
        """
        closest = reach_all(self.options, start.tolerances)
        if closest is None:
            return start
        found, _ = go_while_ok([self.try_forms(budget, start.tolerance, self.movable, closest)])
        self.has_failed_closest = found is None
        return found or start

    def try_forms(self, budget: Budget, tolerance: float, movable: Sequence[bool], tolerances: list[Floats] | None = None
                  ) -> _Candidate:
        """A tolerance, carried out in the layers that may change; `tolerances` are those of the neurons, if not as they follow."""
        tolerances = tolerances or [spread_tolerance(tolerance, found.sensitivity) for found in self.calibration]
        in_one_node = may_be_one_node(self.network)
        choices = [choose(*pair, can_leave=is_free(self.network, position), in_one_node=in_one_node) if movable[position]
                   else keep_all(*pair) for position, pair in enumerate(zip(self.options, tolerances, strict=True))]
        assignments = [assign(*each) for each in zip(self.options, choices, tolerances, strict=True)]
        last = self.last_forms
        if last is not None and all(map(Assignment.has_forms_of, assignments, last.assignments)):     # no other form is within it
            candidate = replace(last, tolerance=tolerance, tolerances=tolerances, choices=choices)
        else:
            candidate = self.try_out(budget, tolerance, tolerances, choices, assignments)
            self.tell(f"tolerance {tolerance:.2g}: {candidate.verdict.reason}")
        self.last_forms = candidate
        return candidate

    def find_structure(self, start: _Candidate) -> _Candidate:
        """The cheapest network up to which all keep the budget, or the most expensive one that reaches the target."""
        try:
            levels = find_levels(self.network, start.assignments, self.options, self.movable, self.study)
        except np.linalg.LinAlgError:       # a single row of 1e20 does that
            self.tell("no neuron leaves: what the layers read has no finite second moments on the training rows; look for "
                      "enormous values in the data")
            return start
        if self.budget.has_target:
            return self.reach_target(start, levels)
        step = max(1, isqrt(len(levels)))
        large, steps = go_while_ok(self.try_level(start, level) for level in levels[step - 1::step])
        rest = levels[steps * step:steps * step + step - 1]
        small, _ = go_while_ok(self.try_level(start, level) for level in rest)
        return small or large or start

    def reach_target(self, start: _Candidate, levels: Sequence[list[Assignment]]) -> _Candidate:
        """Bisect the structures."""
        best, low, high = start, 0, len(levels) - 1
        if self.is_reached(start):
            return start
        while low <= high:
            middle = (low + high) // 2
            candidate = self.try_level(start, levels[middle])
            if self.is_reached(candidate):
                best, high = candidate, middle - 1
            else:
                best, low = (candidate if low == high and best is start else best), middle + 1
        return best

    def try_level(self, start: _Candidate, assignments: list[Assignment]) -> _Candidate:
        """A structure, carried out."""
        candidate = self.try_out(self.budget, start.tolerance, start.tolerances, start.choices, assignments)
        left = sum(int(assignment.left.sum()) for assignment in assignments)
        self.tell(f"neurons that leave: {left}, {count_macs(candidate.network)} multiply-adds: {candidate.verdict.reason}")
        return candidate

    def find_lines(self, start: _Candidate) -> _Candidate:
        """Without the neurons that are lines for every input, where that is cheaper."""
        assignments = let_lines_leave(self.network, start.assignments, self.options, self.movable)
        found, _ = go_while_ok([self.try_level(start, assignments)] if assignments is not None else [])
        return found or start

    def find_coarser(self, start: _Candidate) -> _Candidate:
        """With fewer intervals and lower degrees, as long as the budget holds.

        The neurons of a form have as many intervals as the most demanding of them asks for; together they may do with less.
        """
        best = start
        for share in COARSER:
            assignments = [replace(each, rungs={key: option.coarser(key, rung, share) for key, rung in each.rungs.items()})
                           for each, option in zip(start.assignments, self.options, strict=True)]
            if [each.rungs for each in assignments] == [each.rungs for each in best.assignments]:
                continue
            candidate = self.try_out(self.budget, start.tolerance, start.tolerances, start.choices, assignments)
            if not candidate.verdict.ok:
                break
            self.tell(f"1/{1 / share:.2g} of the intervals: {candidate.verdict.reason}")
            best = candidate
        return best

    def is_reached(self, candidate: _Candidate) -> bool:
        """Whether a candidate is as cheap as the target asks for."""
        limit, latency = self.budget.macs_limit(count_macs(self.network)), self.budget.target_latency
        if limit is not None and count_macs(candidate.network) > limit:
            return False
        if latency is None:
            return True
        assert self.measure_latency is not None
        measured = self.measure_latency(candidate.network)
        self.latencies.append(measured)
        self.tell(f"{measured:.1f} us for a batch of one")
        return measured <= latency

    def try_out(self, budget: Budget, tolerance: float, tolerances: list[Floats], choices: list[Choice] | None,
                assignments: list[Assignment]) -> _Candidate:
        """Build a network and hold it against the budget on the validation split."""
        study = self.study() if any(each.needs_study for each in assignments) else None
        blueprint = build(self.network, self.options, assignments, study)
        network = rewrite(self.network, blueprint.groups, blueprint.maps)
        verdict = self.check(budget, network, blueprint)
        numbers = map(verdict.evidence.get, ("drop", "drop_upper_bound", "max_abs_logit_error"))
        drop, upper, error = (value if isinstance(value, float) else None for value in numbers)
        left = sum(int(each.left.sum()) for each in assignments)
        self.trials.append(trial := Trial(tolerance, left, count_macs(network), drop, upper, error, verdict.ok, verdict.reason))
        return _Candidate(tolerance, tolerances, choices, assignments, blueprint, network, verdict, trial)

    def check(self, budget: Budget, network: Network, blueprint: Blueprint) -> Verdict:
        """Hold a network against the budget: on the validation split, and what can be proven."""
        validation = self.dataset.validation
        verdict = check_budget(budget, self.dataset.task, self.original, run_network(network, validation.x), validation.y,
                               partial(self.count_flips, network), self.unit)
        if budget.max_error_bound is None or not verdict.ok:
            return verdict
        return self.check_bound(budget.max_error_bound, blueprint, verdict)

    def check_bound(self, limit: float, blueprint: Blueprint, verdict: Verdict) -> Verdict:
        """Hold what is proven for the training and validation rows, and all in their ranges, against the limit."""
        found = bound_change(self.reference(), blueprint.groups, blueprint.maps, limit)
        bound = None if found.bounds is None else float(found.bounds.max())
        evidence = {**verdict.evidence, "error_bound": bound}
        if bound is None:
            return Verdict(False, found.reason, evidence)
        if bound > limit:
            return Verdict(False, f"what is proven is {bound:.3g}, more than {limit:g}", evidence)
        return Verdict(True, f"{verdict.reason}, and outputs provably change by at most {bound:.3g} in the ranges of the data",
                       evidence)

    def count_flips(self, network: Network) -> int:
        """Training and calibration samples that a network puts into another class than the original does."""
        return int((self.classes() != _classes(network, self.dataset)).sum())

    def finish(self, found: _Candidate) -> Compressed:
        """The result with its plan."""
        choices: Sequence[Choice | None] = found.choices or [None] * len(self.options)
        taken, kept = self.distill(found) if self.epochs else (found, 0)
        decisions: list[Decision] = []
        for layer, parts in enumerate(zip(self.options, choices, found.tolerances, found.blueprint.groups, self.calibration,
                                          strict=True)):
            decisions += describe(layer, *parts, movable=self.movable[layer], distilled=kept > 0)
        layers = [LayerPlan(layer, assignment.rank, ridge, assignment.factored) for layer, (assignment, ridge)
                  in enumerate(zip(found.assignments, found.blueprint.ridges, strict=True))
                  if ridge is not None or assignment.factored or assignment.left.any()]
        self.tell(f"taken: {taken.verdict.reason}")
        evidence = {"verdict": taken.verdict.reason, **taken.verdict.evidence}
        plan = Plan(self.budget, tuple(decisions), found.tolerance, evidence, tuple(layers), kept, self.epochs)
        trials = tuple(replace(trial, taken=trial is found.trial) for trial in self.trials)
        return Compressed(taken.network, plan, taken.blueprint.groups, taken.blueprint.maps, self.options, self.calibration, trials,
                          taken.verdict.ok)

    def distill(self, found: _Candidate) -> tuple[_Candidate, int]:
        """The network after distillation, and of how many epochs; the one before, where only that keeps the budget."""
        network, kept = finetune(self.network, found.network, self.dataset, self.epochs, self.tell)
        if not kept:
            return found, 0
        groups, maps = unfold(self.network, found.blueprint.groups, found.blueprint.maps, network)
        blueprint = replace(found.blueprint, groups=groups, maps=maps)
        verdict = self.check(self.budget, network, blueprint)
        if found.verdict.ok and not verdict.ok:
            self.tell(f"distillation is left out, since {verdict.reason} after it")
            return found, 0
        return replace(found, network=network, blueprint=blueprint, verdict=verdict), kept


def _classes(network: Network, dataset: Dataset) -> NDArray[np.intp]:
    """The classes that a network gives the training and calibration samples."""
    return np.concatenate([run_network(network, split.x).argmax(1) for split in (dataset.train, dataset.calibration)])


def _options_of(activation: object, calibration: LayerCalibration, budget: Budget) -> LayerOptions:
    assert isinstance(activation, LearnedActivation)
    histogram = None if budget.limits_largest else Histogram(calibration.histogram, calibration.observed)
    return find_options(make_inner_networks(activation), activation.spec.family, calibration.domain, budget.preset,
                        "portable" if budget.target == "portable" else "native", histogram)


def assign(options: LayerOptions, choice: Choice, tolerance: Floats) -> Assignment:
    """A layer's choice with the degrees and intervals that its tolerances (n,) ask for; nobody leaves."""
    rungs = {key: options.rung(key, tolerance, np.flatnonzero(choice.keys == key))
             for key in set(choice.keys.tolist()) if key in options.ladder}
    return Assignment(choice.keys, rungs, np.zeros(options.n, bool))
