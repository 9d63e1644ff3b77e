"""How far apart the two networks can be in exact arithmetic, layer by layer, from ranges alone.

Let f be a learned activation and g its replacement, u and v the pre-activations that the two networks give them. Over the range of
u, widened on either side by the bound of |v - u|,

    |g(v) - f(u)| <= sup |g - f| + L |v - u|,        L the Lipschitz constant of f,

where sup and L come from analysis, not from samples; and likewise with that of g, for which sup over the range of u itself will
do. This is carried through |W| from layer to layer, and added to what a residual connection brings along. Where neurons left or
weights were refitted, the compressed network reads other things by other weights: what its linear maps would give on the
original's values differs from the original's pre-activations by an affine function of these values, bounded over their ranges,
and by what the lines of neurons that left miss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mncompress import spline
from mncompress.analysis import (
    AnyForm,
    InnerNetworks,
    LayerOptions,
    Replacement,
    bound_error,
    bound_lipschitz,
    bound_range,
    find_jumps,
    magnitude,
)
from mncompress.compression._evaluate import Exact, standardize
from mncompress.compression._rewrite import FEATURES, Group, LinearMap
from mncompress.nn import Network
from mncompress.spline import Affine

Floats = NDArray[np.float64]


Ranges = Mapping[int, tuple[Floats, Floats]]
"""Lower and upper ends (n,) by layer, or by source."""


@dataclass(frozen=True)
class Domain:
    """The inputs that bounds are about: all whose features and, in the original, pre-activations stay within ranges.

    Attributes:
        ranges: of pre-activations by activated layer, and as `FEATURES` of standardized features.
        spans: what the original's values can be there, by source, (n,).
    """

    ranges: Ranges
    spans: Ranges

    def contains(self, original: Exact) -> NDArray[np.bool_]:
        """Which samples belong to it, (rows,)."""
        values = {FEATURES: original.outputs[FEATURES], **dict(enumerate(original.preactivations))}
        inside = [((values[key] >= low) & (values[key] <= high)).all(1) for key, (low, high) in self.ranges.items()]
        return np.asarray(np.logical_and.reduce(inside))


def find_domain(network: Network, options: Sequence[LayerOptions], original: Exact, seen: Sequence[NDArray[np.generic]]) -> Domain:
    """The domain of some samples.

    Args:
        network: the original.
        options: per activated layer; where calibrated domains go beyond what the samples visit, they count.
        original: the original on samples.
        seen: further raw features (rows, d), whose ranges count as well.
    """
    seen_ends = [standardize(network, np.stack([x.min(0), x.max(0)])) for x in seen if len(x)]
    features = np.concatenate([original.outputs[FEATURES], *seen_ends])
    ranges = {FEATURES: (features.min(0), features.max(0))}
    for position, option in zip(original.groups, options, strict=True):
        u = original.preactivations[position]
        ranges[position] = np.minimum(option.domain[:, 0], u.min(0)), np.maximum(option.domain[:, 1], u.max(0))
    spans = {FEATURES: ranges[FEATURES]}
    for position, (layer, linear) in enumerate(zip(network.layers, original.maps, strict=True)):
        low, high = _combine(linear.weights, linear.bias, spans)
        if position in ranges:
            low, high = ranges[position]
            if np.isfinite(low).all() and np.isfinite(high).all():
                low, high = bound_range(original.inner[position], low, high)
        if layer.residual:
            low, high = low + spans[position - 1][0], high + spans[position - 1][1]
        spans[position] = low, high
    return Domain(ranges, spans)


@dataclass(frozen=True)
class Gaps:
    """Bounds of the distance between a compressed network and its original in exact arithmetic.

    Attributes:
        before: per layer, of the pre-activations, (n,).
        behind: by source, of its values, (n + units,); of units, from what they would give on the original's values.
        sizes: by source, how large the compressed network's values can be, (n + units,).
    """

    before: Sequence[Floats]
    behind: Mapping[int, Floats]
    sizes: Mapping[int, Floats]


def no_gaps(original: Exact, domain: Domain) -> Gaps:
    """Those of the original from itself."""
    behind = {source: np.zeros(values.shape[1]) for source, values in original.outputs.items()}
    sizes = {source: magnitude(span) for source, span in domain.spans.items()}
    return Gaps([behind[position] for position in range(len(original.maps))], behind, sizes)


def bound_gaps(network: Network, original: Exact, compressed: Exact, domain: Domain) -> Gaps:
    """Bounds over a domain.

    Args:
        network: the original.
        original: its maps and activations.
        compressed: what became of them.
        domain: of the original.
    """
    before: list[Floats] = []
    behind = {FEATURES: np.zeros(network.spec.in_features)}
    spans, missed, mismatch = {FEATURES: domain.ranges[FEATURES]}, np.zeros(0), np.zeros(0)
    for position, (layer, linear) in enumerate(zip(network.layers, compressed.maps, strict=True)):
        n = layer.linear.out_features
        if _is_untouched(original.maps[position], linear):
            mismatch = np.zeros(n)
        else:
            mismatch = _find_mismatch(original, compressed, position, spans, mismatch, missed)
        gap = sum((np.abs(weight) @ behind[source] for source, weight in linear.weights.items()), np.zeros(len(linear.bias)))
        gap[:n] += mismatch
        before.append(gap[:n].copy())
        if position in domain.ranges:
            ends = domain.ranges[position]
            gap[:n], missed = _activate(original.inner[position], compressed.groups[position], *ends, before[-1])
        if layer.residual:
            gap[:n] += behind[position - 1][:n]
        behind[position] = gap
        units = _combine({source: block[n:] for source, block in linear.weights.items()}, linear.bias[n:], spans)
        low, high = (np.concatenate(each) for each in zip(domain.spans[position], units, strict=True))
        spans[position] = low, high
    return Gaps(before, behind, {source: magnitude(span) + behind[source] for source, span in spans.items()})


def _activate(inner: InnerNetworks, groups: Sequence[Group], low: Floats, high: Floats, before: Floats) -> tuple[Floats, Floats]:
    """The gap behind the activations; and by how much the lines of neurons that left may miss them, (n,)."""
    behind, missed = np.zeros((2, inner.n))
    for group in groups:
        mine, part = group.indices, inner.select(group.indices)
        ends, gap = (low[mine], high[mine]), before[mine]
        wide = ends[0] - gap, ends[1] + gap
        if group.left:
            missed[mine] = _bound_error(group, part, *ends)
        elif not np.isfinite(wide).all():
            behind[mine] = np.nan
        else:
            steepest = bound_lipschitz(part, *wide)
            behind[mine] = steepest * gap
            if group.form is not None:
                form = for_bounds(group.form)
                slope = np.where(group.exact, steepest, bound_lipschitz(form, *wide))
                behind[mine] = np.minimum(behind[mine] + _bound_error(group, part, *wide),
                                          slope * gap + find_jumps(form).sum(1) + _bound_error(group, part, *ends))
    return behind, missed


def _bound_error(group: Group, part: InnerNetworks, low: Floats, high: Floats) -> Floats:
    """Sup-norm errors of a group's forms on ranges, zero for exact ones."""
    assert group.form is not None
    form, error, inexact = for_bounds(group.form), np.zeros(part.n), np.flatnonzero(~group.exact)
    if inexact.size:
        error[inexact] = bound_error(part.select(inexact), form.select(inexact), low[inexact], high[inexact])
    return error


def for_bounds(form: Replacement | InnerNetworks) -> AnyForm:
    """A form as `mncompress.analysis` bounds it: lines as pieces without a knot."""
    if not isinstance(form, Affine):
        return form
    none = np.zeros((form.n, 1))
    return spline.PiecewiseLinear(none, none, form.slope, form.intercept)


def _is_untouched(original: LinearMap, compressed: LinearMap) -> bool:
    """Whether a layer's neurons read what they read in the original, by the same weights."""
    (source, weight), = original.weights.items()
    n, fan_in = weight.shape
    own = compressed.weights.get(source)
    return (list(compressed.weights) == [source] and own is not None and np.array_equal(own[:n, :fan_in], weight)
            and not own[:n, fan_in:].any() and np.array_equal(compressed.bias[:n], original.bias))


def _find_mismatch(original: Exact, compressed: Exact, position: int, spans: Ranges, before: Floats, missed: Floats) -> Floats:
    """How far a layer's map, on the original's values, is from the original's pre-activations over their ranges, (n,).

    Args:
        original: the original.
        compressed: what became of it.
        position: of the layer.
        spans: ranges of the original's values by source, and behind them of what the linear units would give on these.
        before: the mismatch of the layer before.
        missed: by how much the lines of its neurons that left may miss them, (n,).
    """
    linear, bias, weight = compressed.maps[position], original.maps[position].bias, original.maps[position].weights[position - 1]
    n, fan_in = weight.shape
    slope, intercept, left = np.zeros(fan_in), np.zeros(fan_in), np.zeros(fan_in, bool)
    for group in compressed.groups.get(position - 1, ()):
        if group.left:
            assert isinstance(group.form, Affine)
            slope[group.indices], intercept[group.indices], left[group.indices] = group.form.slope, group.form.intercept, True
    units = linear.weights[position - 1][:n, fan_in:]
    through = weight * slope
    change = {position - 1: (linear.weights[position - 1][:n, :fan_in] - weight) * ~left}
    constant = linear.bias[:n] - bias - weight @ intercept
    if position:        # the features have no layer before
        previous = compressed.maps[position - 1]
        constant = constant - through @ previous.bias[:fan_in] + units @ previous.bias[fan_in:]
        for source, block in previous.weights.items():
            change[source] = units @ block[fan_in:] - through @ block[:fan_in]
    for source, block in linear.weights.items():
        if source != position - 1:
            change[source] = change.get(source, 0.0) + block[:n]
    carried = missed + np.abs(slope) * before if position else np.zeros(fan_in)      # of those that left; else zero
    return np.asarray(magnitude(_combine(change, constant, spans)) + np.abs(weight) @ carried)


def _combine(weights: Mapping[int, Floats], bias: Floats, spans: Ranges) -> tuple[Floats, Floats]:
    """Ranges (k,) of linear combinations (k, width) of values by source, plus a bias (k,)."""
    center, spread = bias, np.zeros(len(bias))
    for source, weight in weights.items():
        low, high = (end[:weight.shape[1]] for end in spans[source])
        center = center + weight @ ((low + high) / 2)
        spread = spread + np.abs(weight) @ ((high - low) / 2)
    return center - spread, center + spread
