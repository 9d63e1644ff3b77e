"""Ever cheaper structures of a network: assignments in which more and more neurons leave, and layers have lower ranks."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis import LayerOptions
from mncompress.compression._build import Assignment, Study
from mncompress.compression._departures import NOTHING, Departure, Shape, distribute, find_departures, is_dense
from mncompress.compression._factors import find_factors
from mncompress.compression._rewrite import is_free
from mncompress.nn import Network, may_be_one_node

Indices = NDArray[np.intp]

PRICES = np.geomspace(1e-7, 1e2, 96)
"""Of all multiply-adds of the original, in units of the outputs' variance."""
STEP, WIDE_STEP, WIDE = 0.004, 0.05, 1200
"""Relative difference in cost between one structure and the next, and that of networks with a layer that has and reads more than
`WIDE` features."""
WORTHWHILE = 0.03
"""Of all multiply-adds, with nodes counted: a smaller gain is not worth the change."""


def find_levels(network: Network, assignments: Sequence[Assignment], options: Sequence[LayerOptions], movable: Sequence[bool],
                make_study: Callable[[], Study]) -> list[list[Assignment]]:
    """Assignments from expensive to cheap, each with other neurons that leave or other ranks; all refit the layers behind.

    Args:
        network: the original.
        assignments: what its neurons become; the same in every level for those that stay.
        options: per activated layer.
        movable: the activated layers that may change.
        make_study: called where a layer can lose neurons.
    """
    layers = network.layers
    free = tuple(position < len(movable) and movable[position] and is_free(network, position)
                 and "affine" in options[position].errors for position in range(len(layers)))
    can_factor = tuple(position < len(movable) and movable[position] and not layer.residual
                       for position, layer in enumerate(layers))
    if not any(free) and not any(can_factor):
        return []
    study = make_study()
    spec, varies = network.spec, _varying(network, assignments)
    shape = _shape_of(network, varies)
    signals = study.rows.fit
    variance = float(signals.outputs[-1].double().var(0, correction=0).sum()) or 1.0
    stages: list[list[Departure]] = []
    for position in range(len(layers)):
        stages.append([NOTHING])
        x = signals.outputs[position - 1] if position else signals.features
        if free[position]:
            read = layers[position + 1].linear.weight.detach().double().numpy()
            stages[-1] = find_departures(signals.outputs[position], x, read, study.metrics[position + 1], variance,
                                         varies[position])
        if can_factor[position]:
            inputs = len(varies[position - 1]) if position else x.shape[1]
            stages[-1] += find_factors(signals.preactivations[position], study.metrics[position], variance, inputs, stages[-1],
                                       varies[position])
    levels = [_Level(shape, chosen) for chosen in (distribute(stages, shape, float(price)) for price in PRICES)]
    levels += [_Level(shape, [*level.departures[:place], option, *level.departures[place + 1:]])
               for level in list(levels) for place, stage in enumerate(stages) if len(stage) > 1 for option in stage]
    step = STEP if max(a + b for a, b in itertools.pairwise(spec.sizes)) <= WIDE else WIDE_STEP
    most = (1 - WORTHWHILE) * shape.cost([each[0] for each in stages])
    return [_assign(level.departures, assignments, shape, spec.sizes, free) for level in _select(levels, most, step)]


def let_lines_leave(network: Network, assignments: Sequence[Assignment], options: Sequence[LayerOptions], movable: Sequence[bool]
                    ) -> list[Assignment] | None:
    """Assignments in which neurons that are lines for every input leave, and a bypass passes on all that they passed on.

    Nothing is refitted, so the network stays the same function. None where that saves nothing.
    """
    shape, sizes = _shape_of(network, _varying(network, assignments)), network.spec.sizes
    stages = [[NOTHING] for _ in network.layers]
    for position, (assignment, option) in enumerate(zip(assignments, options, strict=True)):
        stays = np.isin(assignment.keys, ["kept", "constant"])
        lines = np.flatnonzero(option.exact.get("affine", np.zeros(option.n, bool)) & ~stays)
        if lines.size and movable[position] and is_free(network, position):
            stages[position].append(Departure(lines, sizes[position + 2], 0.0))
    chosen = distribute(stages, shape, 1.0)
    if shape.cost(chosen) > (1 - WORTHWHILE) * shape.cost([NOTHING] * len(stages)):
        return None
    return _assign(chosen, assignments, shape, sizes, [False] * len(stages))


def _varying(network: Network, assignments: Sequence[Assignment]) -> list[Indices]:
    """Of each layer the neurons that are no constants: those are free, whatever the structure."""
    found = [np.flatnonzero(assignment.keys != "constant") for assignment in assignments]
    return found + [np.arange(size) for size in network.spec.sizes[1 + len(found):]]


def _shape_of(network: Network, varies: Sequence[Indices]) -> Shape:
    return Shape((network.spec.in_features, *map(len, varies)), may_be_one_node(network))


class _Level:
    """A departure for each layer."""

    def __init__(self, shape: Shape, departures: list[Departure]) -> None:
        self.departures = departures
        self.cost = shape.cost(departures)
        self.error = sum(departure.error for departure in departures)


def _select(levels: Sequence[_Level], most: float, step: float) -> list[_Level]:
    """From expensive to cheap those that no other beats in both cost and error, and that differ by `step` in cost."""
    selected: list[_Level] = []
    for level in sorted(levels, key=lambda each: (each.error, each.cost)):
        if level.cost <= (selected[-1].cost * (1 - step) if selected else most):
            selected.append(level)
    return selected


def _assign(departures: Sequence[Departure], assignments: Sequence[Assignment], shape: Shape, sizes: Sequence[int],
            free: Sequence[bool]) -> list[Assignment]:
    """What the departures make of the assignments: the cost goes by the neurons that vary, ranks in full by all, `sizes`."""
    result, inputs = [], sizes[0]
    for position, (assignment, departure) in enumerate(zip(assignments, departures, strict=False)):
        left = np.zeros(len(assignment.keys), bool)
        left[departure.left] = True
        rank = departure.rank
        outputs = sizes[position + 2] if position + 2 < len(sizes) else 0
        dense = rank > 0 and is_dense(rank, inputs, outputs and shape.sizes[position + 2] - len(departures[position + 1].left))
        result.append(replace(assignment, keys=np.where(left, "affine", assignment.keys), left=left,
                              rank=outputs if dense else rank, ridge="search" if free[position] else None,
                              factored=departure.factored))
        inputs = shape.sizes[position + 1] - int(left.sum()) + (inputs if dense else rank)
    return result
