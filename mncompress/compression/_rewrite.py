"""Rewriting a network by what its activations become.

A layer computes u = W h + b and y = g(u). Every replacement is an affine map in, a form, an affine map out; the maps belong
to neighboring linear layers. So beta u + delta -> alpha g(beta u + delta) + eta leaves only g behind: beta and delta
fold into the layer's own W and b; alpha and eta into the weights that read y, unless something else reads y too (a residual
sum, or nobody follows), in which case they stay as an explicit scale and shift. Constants leave altogether where they can.
Neurons are permuted so that those with one form lie together; where the order matters, a gather restores it.

Affine neurons may leave too. What they passed on is then in a bypass: weights by which a layer reads what an earlier layer
reads. In full, the layers between pass their inputs on; of low rank, it is a few linear units in the layer that was left. A
layer whose neurons all left is no longer there. A linear map in two factors becomes two layers, the first without activation.

Everything is computed in float64 and rounded to float32 once.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mncompress import spline
from mncompress.analysis import InnerNetworks, Replacement
from mncompress.nn import (
    CubicSpline,
    Grouped,
    Layer,
    LearnedActivation,
    LinearTable,
    Network,
    PiecewiseLinear,
    Polynomial,
    Scale,
    make_activation,
    make_linear,
)
from mncompress.spline import Affine
from mncompress.types import ActivationSpec

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

FEATURES = -1
"""As a source of values: the standardized features. Others are the numbers of layers."""


@dataclass(frozen=True)
class Group:
    """Neurons of a layer that share a form.

    Attributes:
        key: the option's key, a kind or `native:ACT`.
        indices: which neurons of the original layer, (k,).
        form: what they become, in the units of the original pre-activation; None for `kept`, or inner networks of their own, where
            they were kept and trained on.
        exact: for which of them the form equals the learned activation at every input, (k,).
        left: they are lines that left: the weights behind read what these neurons read.
    """

    key: str
    indices: Indices
    form: Replacement | InnerNetworks | None
    exact: NDArray[np.bool_]
    left: bool = False


@dataclass(frozen=True)
class Factors:
    """A linear map W = A Q through fewer values.

    Attributes:
        outer: A, (n, rank).
        inner: Q by source, (rank, width of the source).
    """

    outer: Floats
    inner: Mapping[int, Floats]


@dataclass(frozen=True)
class LinearMap:
    """What the pre-activations of a layer of n neurons are computed from, in the original network's order of neurons.

    Attributes:
        weights: by source, (n + units, width of the source); the weights of neurons that left are zero.
        bias: (n + units,).
        units: how many linear units follow the n neurons: a bypass of low rank, read as further columns of this source.
        factors: whose product the weights are, where the map is carried out as two linear layers; it has no units then.
    """

    weights: Mapping[int, Floats]
    bias: Floats
    units: int = 0
    factors: Factors | None = None

    def magnitudes(self, source: int) -> Floats:
        """By how much a value of a source enters the terms of the sums, (n + units, width of the source)."""
        if self.factors is None:
            return np.abs(self.weights[source])
        return np.abs(self.factors.outer) @ np.abs(self.factors.inner[source])

    @property
    def terms(self) -> int:
        """How many terms an output sums, through however many steps."""
        direct = sum(int(block.shape[1]) for block in self.weights.values())
        return direct if self.factors is None else direct + int(self.factors.outer.shape[1]) + 4


def make_linear_maps(network: Network) -> list[LinearMap]:
    """The linear layers as they were trained: each reads the one before."""
    return [LinearMap({position - 1: layer.linear.weight.detach().double().numpy()}, layer.linear.bias.detach().double().numpy())
            for position, layer in enumerate(network.layers)]


def is_free(network: Network, position: int) -> bool:
    """Whether only the weights of later layers read what layer `position` gives."""
    layers = network.layers
    return position + 1 < len(layers) and not layers[position].residual and not layers[position + 1].residual


@dataclass
class _Weights:
    """A linear map while it is being rewritten: its blocks by source, or of one in factors those of the inner factor."""

    blocks: dict[int, Floats]
    bias: Floats
    outer: Floats | None

    @classmethod
    def of(cls, linear: LinearMap) -> Self:
        blocks = linear.weights if linear.factors is None else linear.factors.inner
        outer = None if linear.factors is None else linear.factors.outer.copy()
        return cls({source: block.copy() for source, block in blocks.items()}, linear.bias.copy(), outer)

    def scale_rows_(self, part: slice, scale: Floats, shift: Floats) -> None:
        """Replace u by scale u + shift for the neurons in `part`."""
        for block in self.blocks.values() if self.outer is None else [self.outer]:
            block[part] *= scale[:, None]
        self.bias[part] = self.bias[part] * scale + shift

    def take_rows_(self, order: Indices) -> None:
        if self.outer is not None:
            self.outer = self.outer[order]
        else:
            self.blocks = {source: block[order] for source, block in self.blocks.items()}
        self.bias = self.bias[order]

    def add_input_(self, source: int, columns: Indices, values: Floats) -> None:
        """Add to the bias what some columns of a source give where they have these values."""
        given = self.blocks[source][:, columns] @ values
        self.bias = self.bias + (given if self.outer is None else self.outer @ given)

    def make_linears(self, sources: Sequence[int], widths: Mapping[int, int]) -> list[nn.Linear]:
        """One linear layer, or the two that a map in factors is."""
        rows = len(self.bias if self.outer is None else self.outer.T)
        weight = np.concatenate([self.blocks.get(source, np.zeros((rows, widths[source]))) for source in sources], 1)
        if self.outer is None:
            return [_make_linear(weight, self.bias)]
        return [_make_linear(weight, np.zeros(rows)), _make_linear(self.outer, self.bias)]


def _make_linear(weight: Floats, bias: Floats) -> nn.Linear:
    linear = make_linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": torch.as_tensor(weight.astype(np.float32)), "bias": torch.as_tensor(bias.astype(np.float32))})
    return linear


def rewrite(network: Network, groups: Sequence[Sequence[Group]], maps: Sequence[LinearMap] | None = None) -> Network:
    """The compressed network.

    Args:
        network: with learned activations.
        groups: per activated layer a partition of its neurons.
        maps: per layer what it computes its pre-activations from; by default what the network does.
    """
    maps = make_linear_maps(network) if maps is None else maps
    weights = [_Weights.of(each) for each in maps]
    layers, remaining = network.layers, iter(groups)
    activations: list[nn.Module | None] = []
    for position, (layer, each) in enumerate(zip(layers, maps, strict=True)):
        if layer.activation is None:
            activations.append(None)
            continue
        readers = [later for later in weights[position + 1:] if position in later.blocks] if is_free(network, position) else None
        assert isinstance(layer.activation, LearnedActivation)
        parts = [*next(remaining), *linear_units(layer.activation.n, each.units)]
        activations.append(_rewrite_layer_(weights[position], readers, position, layer.activation, parts,
                                           can_vanish=is_bypassed(maps, position)))
    features, targets = copy.deepcopy((network.features, network.targets))
    rewritten = _assemble(network, maps, weights, activations)
    return Network(network.spec, rewritten, features, targets).eval().requires_grad_(False)


def linear_units(first: int, units: int) -> list[Group]:
    """The linear units behind the neurons of a layer, as a group."""
    if not units:
        return []
    return [Group("affine", np.arange(first, first + units), Affine(np.ones(units), np.zeros(units)), np.ones(units, bool))]


def is_bypassed(maps: Sequence[LinearMap], position: int) -> bool:
    """Whether a later layer reads what lies before the layer `position`."""
    return any(source < position for later in maps[position + 1:] for source in later.weights)


def _assemble(network: Network, maps: Sequence[LinearMap], weights: Sequence[_Weights],
              activations: Sequence[nn.Module | None]) -> list[Layer]:
    """The layers that are left, each with the columns of its weights in the order in which its input holds the sources."""
    sources, widths = [FEATURES], {FEATURES: network.spec.in_features}
    rewritten = []
    for position, (layer, each, activation) in enumerate(zip(network.layers, weights, activations, strict=True)):
        widths[position] = len(each.bias)
        if not widths[position]:
            continue
        passes = is_bypassed(maps, position)
        *inner, outer = each.make_linears(sources, widths)
        assert not (inner and (passes or layer.residual))
        rewritten += [*(Layer(linear, None) for linear in inner), Layer(outer, activation, layer.residual, passes)]
        sources = [position, *sources] if passes else [position]
    return rewritten


def _rewrite_layer_(own: _Weights, readers: Sequence[_Weights] | None, source: int, activation: LearnedActivation,
                    groups: Sequence[Group], *, can_vanish: bool) -> nn.Module:
    """Fold one layer's groups into its weights and those that read it (None where they cannot take anything).

    Returns:
        The activation module that is left.
    """
    if readers is not None:
        groups, gone = find_staying(groups, can_vanish=can_vanish)
        for group in gone:
            for reader in readers:
                reader.add_input_(source, group.indices, value_of(group))
    order = np.concatenate([np.zeros(0, np.intp), *(group.indices for group in groups)])
    own.take_rows_(order)
    forms: list[nn.Module] = []
    sizes: list[int] = []
    start = 0
    for group in groups:
        part = slice(start, start + len(group.indices))
        form, scale, shift = _fold_(own, part, group, activation)
        start = part.stop
        if readers is None and (np.any(scale != 1) or np.any(shift != 0)):
            form = nn.Sequential(form, Scale(scale, shift))
        for reader in readers or ():
            reader.add_input_(source, group.indices, shift)
            reader.blocks[source][:, group.indices] *= scale
        if forms and isinstance(form, nn.Identity) and isinstance(forms[-1], nn.Identity):
            sizes[-1] += len(group.indices)
        else:
            forms.append(form)
            sizes.append(len(group.indices))
    for reader in readers or ():
        reader.blocks[source] = reader.blocks[source][:, order]
    in_order = readers is not None or np.array_equal(order, np.arange(len(order)))
    if len(forms) == 1 and in_order:
        return forms[0]
    return Grouped(sizes, forms, None if in_order else np.argsort(order).tolist())


def find_staying(groups: Sequence[Group], *, can_vanish: bool) -> tuple[list[Group], list[Group]]:
    """The groups of a layer that are computed, and those that are not: constants, which readers' biases take in, and what left.

    One neuron stays, as a constant, if there is no other and no bypass, since no layer can be empty.
    """
    staying = [group for group in groups if group.key != "constant" and not group.left]
    gone = [group for group in groups if group.key == "constant" or group.left]
    if gone and not staying and not can_vanish:
        first, *others = gone
        assert isinstance(first.form, Affine)
        staying = [Group("constant", first.indices[:1], Affine(np.zeros(1), value_of(first)[:1]), first.exact[:1])]
        rest = np.arange(1, len(first.indices))
        gone = [replace(first, indices=first.indices[rest], form=first.form.select(rest), exact=first.exact[rest]), *others]
    return staying, gone


def value_of(group: Group) -> Floats:
    """What neurons that are not computed count as: their constants, or nothing where they left, (k,)."""
    assert isinstance(group.form, Affine)
    return np.zeros(len(group.indices)) if group.left else group.form.intercept


def find_fold(group: Group) -> tuple[Floats, Floats]:
    """The inner affine map of a form, scale u + shift, (k,) each: what the rows of its layer take in."""
    form, count = group.form, len(group.indices)
    if isinstance(form, Affine):
        return form.slope, form.intercept
    if isinstance(form, spline.Native):
        return form.beta, form.delta
    if isinstance(form, spline.Polynomial):
        return form.inverse_half_width, -form.center * form.inverse_half_width
    if isinstance(form, spline.CubicSpline):
        return form.inverse_step, -form.start * form.inverse_step
    return np.ones(count), np.zeros(count)


def _fold_(own: _Weights, part: slice, group: Group, activation: LearnedActivation) -> tuple[nn.Module, Floats, Floats]:
    """Fold the inner affine map into rows `part` of the layer; return what is left with its outer scale and shift."""
    form, count = group.form, len(group.indices)
    scale, shift = np.ones(count), np.zeros(count)
    own.scale_rows_(part, *find_fold(group))
    if form is None:
        return activation.select(group.indices.tolist()), scale, shift
    if isinstance(form, Affine):
        return nn.Identity(), scale, shift
    if isinstance(form, spline.Native):
        return make_activation(ActivationSpec("fixed", form.act), count), form.alpha, form.eta
    if isinstance(form, spline.PiecewiseLinear):
        return PiecewiseLinear(form), scale, shift
    if isinstance(form, spline.Polynomial):
        return Polynomial(spline.Polynomial(np.zeros(count), np.ones(count), form.coefficients)), scale, shift
    assert isinstance(form, spline.CubicSpline)
    in_intervals = spline.CubicSpline(np.zeros(count), np.ones(count), form.coefficients)
    return (LinearTable if group.key.endswith(":linear") else CubicSpline)(in_intervals), scale, shift
