"""From an assignment to a network: the same assignment, data and network always give the same weights.

Layer by layer from the features on: what each neuron becomes, what the next layer then reads, and where it is asked for the
closed-form repair of that layer, on what the layers rebuilt so far compute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mncompress import nn, spline
from mncompress.analysis import InnerNetworks, LayerOptions
from mncompress.calibration import measure_metrics
from mncompress.compression._factors import factor
from mncompress.compression._repair import Refit, Samples, Solution, cut_rank
from mncompress.compression._rewrite import FEATURES, Group, LinearMap, make_linear_maps
from mncompress.compression._rows import Rows, observe
from mncompress.data import Dataset
from mncompress.nn import LearnedActivation, Network
from mncompress.spline import Affine
from mncompress.types import ActivationSpec

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Assignment:
    """What becomes of a layer of n neurons.

    Attributes:
        keys: per neuron the option's key, or `kept`, (n,).
        rungs: by key the degree or the number of intervals.
        left: the neurons that leave, (n,); their key is `affine`.
        rank: of the bypass for these; 0 for none, and the smaller of its two sizes for one that is not factored.
        ridge: of the repair of the layer behind; `search` for the best on the validation rows, None for no repair. What a bypass
            that is cut to its rank needs then is searched for in any case.
        factored: the rank at which the layer's own weights are carried out in two factors, 0 for none; not with a bypass.
    """

    keys: NDArray[np.str_]
    rungs: Mapping[str, int]
    left: NDArray[np.bool_]
    rank: int = 0
    ridge: float | Literal["search"] | None = None
    factored: int = 0

    @property
    def needs_study(self) -> bool:
        """Whether carrying it out takes the original's values on rows."""
        return self.ridge is not None or self.factored > 0

    def has_forms_of(self, other: Self) -> bool:
        """Whether the neurons become the same."""
        return bool((self.keys == other.keys).all()) and self.rungs == other.rungs


@dataclass(frozen=True)
class Study:
    """What repairs need.

    Attributes:
        rows: the original's signals.
        metrics: per layer R (k, n), with which |R e|^2 is what an error e of its pre-activations does to the outputs.
    """

    rows: Rows
    metrics: Sequence[Floats]

    @classmethod
    def of(cls, network: Network, dataset: Dataset) -> Self:
        """Observe a network on a data set."""
        return cls(observe(network, dataset), measure_metrics(network, dataset.calibration.x))


@dataclass(frozen=True)
class Blueprint:
    """A network in the original's order of neurons, ready to be rewritten.

    Attributes:
        groups: per activated layer a partition of its neurons.
        maps: per layer what it reads.
        ridges: per activated layer the ridge of the repair behind it, None where there was none.
    """

    groups: tuple[tuple[Group, ...], ...]
    maps: tuple[LinearMap, ...]
    ridges: tuple[float | None, ...]


def build(network: Network, options: Sequence[LayerOptions], assignments: Sequence[Assignment], study: Study | None = None
          ) -> Blueprint:
    """Carry out an assignment per activated layer; repairs, bypasses of low rank and factors need a study."""
    maps, groups, ridges = make_linear_maps(network), [], []
    values = None if study is None else _Values(network, study)
    for position, (option, assignment) in enumerate(zip(options, assignments, strict=True)):
        parts = make_groups(option, assignment)
        groups.append(parts)
        if values is not None and assignment.factored:
            maps[position] = values.factor(position, maps[position], assignment)
        if values is not None:
            values.activate_(position, maps[position], parts)
        ridge = None
        if position + 1 < len(maps):
            ridge = _connect_(maps, position, parts, assignment, values)
        ridges.append(ridge)
    return Blueprint(tuple(groups), tuple(maps), tuple(ridges))


def make_groups(options: LayerOptions, assignment: Assignment) -> tuple[Group, ...]:
    """A layer's partition into forms; neurons that leave come last."""
    groups = []
    for key, left in sorted({(str(key), bool(gone)) for key, gone in zip(assignment.keys, assignment.left, strict=True)},
                            key=lambda each: each[::-1]):
        indices = np.flatnonzero((assignment.keys == key) & (assignment.left == left))
        if key == "kept":
            groups.append(Group(key, indices, None, np.ones(len(indices), bool)))
        else:
            form = options.build_rung(key, assignment.rungs.get(key), indices)
            groups.append(Group(key, indices, form, options.exact[key][indices], left))
    return tuple(groups)


class _Values:
    """What the network rebuilt so far computes on the rows, by source."""

    def __init__(self, network: Network, study: Study) -> None:
        self.network, self.study = network, study
        self.fit: dict[int, Tensor] = {FEATURES: study.rows.fit.features}
        self.check: dict[int, Tensor] = {FEATURES: study.rows.check.features}

    def read(self, sources: Sequence[int], columns: Indices | None = None) -> tuple[Tensor, Tensor]:
        """The sources side by side, or some columns of a single one, on the rows to fit to and to check on."""
        both = [torch.cat([values[source] for source in sources], 1) for values in (self.fit, self.check)]
        return (both[0], both[1]) if columns is None else (both[0][:, columns], both[1][:, columns])

    def factor(self, position: int, linear: LinearMap, assignment: Assignment) -> LinearMap:
        """A layer's own weights at a rank, for the neurons that stay and vary."""
        inputs = self.read(list(linear.weights))[0].double().numpy()
        stays = np.flatnonzero(~assignment.left & (assignment.keys != "constant"))
        return factor(linear, inputs, self.study.metrics[position], stays, assignment.factored)

    @torch.no_grad()
    def activate_(self, position: int, linear: LinearMap, groups: Sequence[Group]) -> None:
        """Add the outputs of a layer."""
        layer = self.network.layers[position]
        assert isinstance(layer.activation, LearnedActivation)
        for values in (self.fit, self.check):
            u = torch.as_tensor(linear.bias).float()
            for source, weight in linear.weights.items():
                u = u + values[source] @ torch.as_tensor(weight).float().T
            y = torch.zeros_like(u)
            for group in groups:
                if not group.left:
                    y[:, group.indices] = _apply(group, layer.activation, u[:, group.indices])
            values[position] = y + values[position - 1] if layer.residual else y

    def append_(self, position: int, sources: Sequence[int], units: Floats) -> tuple[Tensor, Tensor]:
        """Add the linear units of a bypass to a layer's outputs; return their values."""
        added = []
        for values, read in zip((self.fit, self.check), self.read(sources), strict=True):
            added.append(read @ torch.as_tensor(units).float().T)
            values[position] = torch.cat([values[position], added[-1]], 1)
        return added[0], added[1]


def _apply(group: Group, activation: LearnedActivation, u: Tensor) -> Tensor:
    """A group's form on its neurons' pre-activations (rows, k)."""
    form = group.form
    assert not isinstance(form, InnerNetworks)
    if form is None:
        result: Tensor = activation.select(group.indices.tolist())(u)
        return result
    if isinstance(form, Affine):
        return nn.Scale(form.slope, form.intercept)(u)  # type: ignore[no-any-return]
    if isinstance(form, spline.Native):
        act = nn.make_activation(ActivationSpec("fixed", form.act), form.n)
        return nn.Scale(form.alpha, form.eta)(act(nn.Scale(form.beta, form.delta)(u)))  # type: ignore[no-any-return]
    modules = {spline.CubicSpline: nn.CubicSpline, spline.PiecewiseLinear: nn.PiecewiseLinear, spline.Polynomial: nn.Polynomial}
    y: Tensor = modules[type(form)](form)(u)
    return y


def _connect_(maps: list[LinearMap], position: int, groups: Sequence[Group], assignment: Assignment,
              values: _Values | None) -> float | None:
    """Let the next layer read what layer `position` has become; returns the ridge of the repair, None where there is none."""
    own, following = maps[position], maps[position + 1]
    weight, bias, sources = following.weights[position], following.bias, list(own.weights)
    bypass: Floats = np.zeros((len(weight), sum(block.shape[1] for block in own.weights.values())))
    for group in groups:
        if group.left:
            assert isinstance(group.form, Affine)
            passed = weight[:, group.indices] * group.form.slope
            bypass = bypass + passed @ np.concatenate([block[group.indices] for block in own.weights.values()], 1)
            bias = bias + passed @ own.bias[group.indices] + weight[:, group.indices] @ group.form.intercept
    weight = weight * ~assignment.left
    start = Solution([weight, bypass], bias)
    if values is None or assignment.ridge is None:
        maps[position + 1] = _make_map(position, sources if assignment.left.any() else [], own, start)
        return None
    return _repair_(maps, position, start, assignment, values)


def _repair_(maps: list[LinearMap], position: int, start: Solution, assignment: Assignment, values: _Values) -> float:
    own, kept, sources = maps[position], np.flatnonzero(~assignment.left), list(maps[position].weights)
    rank = assignment.rank if assignment.left.any() else 0
    metric, rows = values.study.metrics[position + 1], values.study.rows
    targets = rows.fit.preactivations[position + 1], rows.check.preactivations[position + 1]
    outputs, inputs = values.read([position], kept), values.read(sources)
    parts = [outputs, inputs] if rank else [outputs]
    first = Solution([start.weights[0][:, kept], start.weights[1]][:len(parts)], start.bias)
    assert assignment.ridge is not None
    refit, solution = _solve(parts, targets, first, metric, assignment.ridge)
    ridge = solution.ridge
    if 0 < rank < min(start.weights[1].shape):
        bypass, moments = solution.weights[1], refit.conditional_moments(1)
        units = cut_rank(bypass, moments, metric, rank)
        seen = units @ moments
        through = np.asarray(np.linalg.solve(seen @ units.T + 1e-12 * np.eye(rank), seen @ bypass.T).T, np.float64)
        added = values.append_(position, sources, units)
        blocks = np.split(units, np.cumsum([block.shape[1] for block in own.weights.values()])[:-1], 1)
        maps[position] = LinearMap({source: np.concatenate([block, unit]) for (source, block), unit
                                    in zip(own.weights.items(), blocks, strict=True)},
                                   np.concatenate([own.bias, np.zeros(rank)]), rank)
        _, solution = _solve([outputs, added], targets, Solution([solution.weights[0], through], solution.bias), metric, "search")
        weight = _scatter(solution.weights[0], kept, start.weights[0].shape)
        maps[position + 1] = LinearMap({position: np.concatenate([weight, solution.weights[1]], 1)}, solution.bias)
        return ridge
    weights = [_scatter(solution.weights[0], kept, start.weights[0].shape), *solution.weights[1:]]
    maps[position + 1] = _make_map(position, sources if rank else [], own, Solution(weights, solution.bias))
    return ridge


def _solve(parts: Sequence[tuple[Tensor, Tensor]], targets: tuple[Tensor, Tensor], start: Solution, metric: Floats,
           ridge: float | Literal["search"]) -> tuple[Refit, Solution]:
    fit, check = (Samples([part[place] for part in parts], targets[place]) for place in (0, 1))
    refit = Refit(fit, start)
    return refit, refit.best(check, metric) if ridge == "search" else refit.solve(ridge)


def _scatter(weight: Floats, columns: Indices, shape: tuple[int, ...]) -> Floats:
    scattered = np.zeros(shape)
    scattered[:, columns] = weight
    return scattered


def _make_map(position: int, sources: Sequence[int], own: LinearMap, solution: Solution) -> LinearMap:
    """Reading layer `position` and, through a bypass, the sources that it reads itself."""
    weights = {position: solution.weights[0]}
    if sources:
        ends = np.cumsum([own.weights[source].shape[1] for source in sources])
        weights |= dict(zip(sources, np.split(solution.weights[1], ends[:-1], 1), strict=True))
    return LinearMap(weights, solution.bias)
