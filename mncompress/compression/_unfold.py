"""The inverse of rewriting: the parts of a compressed network that was trained on, in the original's order and units.

Rewriting folded the affine maps around every form into weights and biases. Here they are divided out again, as they were folded, so
that a network whose parameters have moved can be held against the original like one that was just built. What the rewritten network
no longer has, the weights of neurons that are not computed, stays as it was.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mncompress import spline
from mncompress.analysis import InnerNetworks, Replacement, make_inner_networks
from mncompress.compression._rewrite import (
    FEATURES,
    Factors,
    Group,
    LinearMap,
    find_fold,
    find_staying,
    is_bypassed,
    is_free,
    linear_units,
    value_of,
)
from mncompress.nn import CubicSpline, Grouped, LearnedActivation, Network, PiecewiseLinear, Polynomial, Scale
from mncompress.spline import Affine

LEAST = 1e-6
"""What counts as the least factor: what was folded with a smaller one, or with zero, was trained since like anything else."""

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass
class _Outputs:
    """How readers get the outputs y (n,) of a layer, or the features: y = scale z + shift, z in `order`; others are the shift."""

    order: Indices
    scale: Floats
    shift: Floats

    @classmethod
    def of(cls, n: int) -> Self:
        return cls(np.arange(n), np.ones(n), np.zeros(n))

    def unfold(self, stored: Floats, known: Floats) -> Floats:
        """Weights (k, n) by y, from those by z and, for what is not stored, those that were known."""
        weights = known.copy()
        weights[:, self.order] = stored / self.scale[self.order]
        return weights


def unfold(network: Network, groups: Sequence[Sequence[Group]], maps: Sequence[LinearMap], rewritten: Network
           ) -> tuple[tuple[tuple[Group, ...], ...], tuple[LinearMap, ...]]:
    """Groups and maps of a rewritten network whose parameters may have moved.

    Args:
        network: the original.
        groups: with which it was rewritten, per activated layer.
        maps: with which it was, per layer.
        rewritten: what `rewrite` made of it, trained on.

    Returns:
        Groups and maps that stand for what the rewritten network computes; its tables of lines, which are not trained, before they
        were rounded.
    """
    stored, remaining = iter(rewritten.layers), iter(groups)
    outputs, sources = {FEATURES: _Outputs.of(network.spec.in_features)}, [FEATURES]
    found_groups, found_maps = [], []
    for position, (layer, linear) in enumerate(zip(network.layers, maps, strict=True)):
        n = len(linear.bias)
        own = outputs[position] = _Outputs.of(n)
        staying: list[Group] = []
        gone: list[Group] = []
        order, free = own.order, is_free(network, position)
        if layer.activation is not None:
            staying = [*next(remaining), *linear_units(n - linear.units, linear.units)]
            if free:
                staying, gone = find_staying(staying, can_vanish=is_bypassed(maps, position))
            order = np.concatenate([np.zeros(0, np.intp), *(group.indices for group in staying)])
        for group in gone:
            own.shift[group.indices] = value_of(group)
        if free:                # else they are put back into the original's order
            own.order = order
        if len(order):
            linears = [next(stored) for _ in range(1 if linear.factors is None else 2)]
            scale, shift = np.ones(n), np.zeros(n)
            for group in staying:
                scale[group.indices], shift[group.indices] = _find_fold(group)
            staying = [_unfold_form(group, form, own, free=free)
                       for group, form in zip(staying, _split(linears[-1].activation, staying), strict=True)]
            read = {source: outputs[source] for source in dict.fromkeys([*sources, *linear.weights])}
            linear = _unfold_map(linear, [each.linear for each in linears], read, order, scale[order], shift[order])
            sources = [position, *sources] if is_bypassed(maps, position) else [position]
        found_maps.append(linear)
        if layer.activation is not None:
            found_groups.append(tuple(group for group in (*staying, *gone)
                                      if len(group.indices) and group.indices[0] < n - linear.units))
    return tuple(found_groups), tuple(found_maps)


def _unfold_map(linear: LinearMap, stored: Sequence[nn.Linear], read: Mapping[int, _Outputs], order: Indices, scale: Floats,
                shift: Floats) -> LinearMap:
    """A map from its linear layer, or its two.

    Args:
        linear: as it was.
        stored: the layer, or the two factors of its weights.
        read: what it reads, in the order in which the layer does.
        order: the rows that are stored.
        scale: by which these are multiplied, (k,).
        shift: and what is added, (k,).
    """
    outer, bias = _array(stored[-1].weight) / scale[:, None], (_array(stored[-1].bias) - shift) / scale
    ends = np.cumsum([len(own.order) for own in read.values()])[:-1]
    if linear.factors is None:
        weights = {}
        for (source, own), block in zip(read.items(), np.split(outer, ends, 1), strict=True):
            weights[source] = linear.weights.get(source, np.zeros((len(linear.bias), len(own.scale)))).copy()
            weights[source][order] = own.unfold(block, weights[source][order])
            bias = bias - weights[source][order] @ own.shift
        return replace(linear, weights=weights, bias=_scatter(bias, order, linear.bias))
    assert not stored[0].bias.any(), "the first of two factors has no bias of its own"
    whole, inner = _scatter(outer, order, np.zeros((len(linear.bias), outer.shape[1]))), {}
    for (source, own), block in zip(read.items(), np.split(_array(stored[0].weight), ends, 1), strict=True):
        inner[source] = own.unfold(block, linear.factors.inner.get(source, np.zeros((len(block), len(own.scale)))))
        bias = bias - outer @ (inner[source] @ own.shift)
    return LinearMap({source: whole @ part for source, part in inner.items()}, _scatter(bias, order, linear.bias),
                     factors=Factors(whole, inner))


def _scatter(values: Floats, order: Indices, known: Floats) -> Floats:
    whole = known.copy()
    whole[order] = values
    return whole


def _split(module: nn.Module | None, groups: Sequence[Group]) -> Iterator[nn.Module]:
    """Each group's module; lines behind one another share one."""
    forms = iter(module.forms if isinstance(module, Grouped) else [module])
    last: nn.Module | None = None
    for group in groups:
        if not (isinstance(group.form, Affine) and isinstance(last, nn.Identity)):
            last = next(forms)
        assert last is not None
        yield last


def _find_fold(group: Group) -> tuple[Floats, Floats]:
    """What the rows of a form count as multiplied by, and what was added, (k,)."""
    scale, shift = find_fold(group)
    return _at_least(scale) if isinstance(group.form, Affine | spline.Native) else scale, shift


def _at_least(factors: Floats) -> Floats:
    """Factors that can be divided out: any will do, and the closer to those that were folded, the closer are the parts."""
    return np.where(np.abs(factors) < LEAST, np.copysign(LEAST, factors), factors)


def _unfold_form(group: Group, module: nn.Module, own: _Outputs, *, free: bool) -> Group:
    """A group with what its module has become; what readers were given, if they are `free` to take it, is noted in `own`."""
    form: Replacement | InnerNetworks | None = group.form
    scale, shift = _find_fold(group)
    if isinstance(form, Affine):
        form = Affine(scale, shift)
    elif isinstance(form, spline.Native):
        alpha, eta = _at_least(form.alpha), form.eta
        if free:
            own.scale[group.indices], own.shift[group.indices] = alpha, eta
        elif isinstance(module, nn.Sequential):
            assert isinstance(module[1], Scale)
            alpha, eta = _array(module[1].scale), _array(module[1].shift)
        form = spline.Native(form.act, alpha, scale, shift, eta)
    elif isinstance(module, PiecewiseLinear):
        ascending = np.argsort(_array(module.knots), 1)
        knots, changes = (np.take_along_axis(_array(each), ascending, 1) for each in (module.knots, module.slope_changes))
        form = spline.PiecewiseLinear(knots, changes, _array(module.slope), _array(module.intercept))
    elif isinstance(module, Polynomial):
        form = spline.Polynomial((_array(module.center) - shift) / scale, _array(module.inverse_half_width) * scale,
                                 _array(module.coefficients))
    elif isinstance(module, CubicSpline):
        assert isinstance(form, spline.CubicSpline)
        form = spline.CubicSpline(form.start, form.inverse_step, _array(module.coefficients))
    elif isinstance(module, LearnedActivation):
        form = make_inner_networks(module)
    return replace(group, form=form, exact=np.zeros(len(group.indices), bool))


def _array(parameter: Tensor) -> Floats:
    return np.asarray(parameter.detach().double().numpy())
