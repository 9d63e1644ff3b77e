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
from mncompress.analysis import InnerNetworks, LayerOptions, Replacement, bound_error, bound_lipschitz, find_jumps
from mncompress.compression._evaluate import Exact, standardize
from mncompress.compression._rewrite import FEATURES, Group, LinearMap
from mncompress.nn import Network
from mncompress.spline import Affine

Floats = NDArray[np.float64]


Ranges = Mapping[int, tuple[Floats, Floats]]
"""Lower and upper ends (n,) of pre-activations by activated layer, and of the standardized features."""


@dataclass(frozen=True)
class Gaps:
    """Bounds of the distance between a compressed network and its original in exact arithmetic.

    Attributes:
        before: per layer, of the pre-activations, (n,).
        behind: by source, of its values, (n + units,); of units, from what they would give on the original's values.
    """

    before: Sequence[Floats]
    behind: Mapping[int, Floats]


def find_ranges(network: Network, options: Sequence[LayerOptions], original: Exact, seen: Sequence[NDArray[np.generic]]) -> Ranges:
    """Of the original's features and pre-activations.

    Args:
        network: the original.
        options: per activated layer; where calibrated domains go beyond what the samples visit, they count.
        original: the original on samples.
        seen: further raw features (rows, d), whose ranges count as well.
    """
    ends = [standardize(network, np.stack([x.min(0), x.max(0)])) for x in seen if len(x)]
    features = np.concatenate([original.outputs[FEATURES], *ends])
    ranges = {FEATURES: (features.min(0), features.max(0))}
    for (position, u), option in zip(((each, original.preactivations[each]) for each in original.groups), options, strict=True):
        ranges[position] = np.minimum(option.domain[:, 0], u.min(0)), np.maximum(option.domain[:, 1], u.max(0))
    return ranges


def no_gaps(original: Exact) -> Gaps:
    """Those of the original from itself."""
    behind = {source: np.zeros(values.shape[1]) for source, values in original.outputs.items()}
    return Gaps([behind[position] for position in range(len(original.maps))], behind)


def bound_gaps(network: Network, original: Exact, compressed: Exact, ranges: Ranges) -> Gaps:
    """Bounds over all inputs whose features and pre-activations stay within ranges, and activations within those of the samples.

    Args:
        network: the original.
        original: its values.
        compressed: what became of it.
        ranges: of the original's features and pre-activations.
    """
    before: list[Floats] = []
    behind = {FEATURES: np.zeros(network.spec.in_features)}
    spans, missed, mismatch = {FEATURES: ranges[FEATURES]}, np.zeros(0), np.zeros(0)
    for position, (layer, linear) in enumerate(zip(network.layers, compressed.maps, strict=True)):
        n = layer.linear.out_features
        if not is_untouched(original.maps[position], linear):
            mismatch = _find_mismatch(original, compressed, position, spans, mismatch, missed)
        else:
            mismatch = np.zeros(n)
        gap = sum((np.abs(weight) @ behind[source] for source, weight in linear.weights.items()), np.zeros(len(linear.bias)))
        gap[:n] += mismatch
        before.append(gap[:n].copy())
        if position in ranges:
            gap[:n], missed = _activate(original.inner[position], compressed.groups[position], *ranges[position], before[-1])
        if layer.residual:
            gap[:n] += behind[position - 1][:n]
        behind[position] = gap
        center, spread = _span({source: block[n:] for source, block in linear.weights.items()}, spans)
        units = center + linear.bias[n:]
        visited = original.outputs[position]
        spans[position] = (np.concatenate([visited.min(0), units - spread]), np.concatenate([visited.max(0), units + spread]))
    return Gaps(before, behind)


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


def for_bounds(form: Replacement) -> spline.CubicSpline | spline.PiecewiseLinear | spline.Polynomial | spline.Native:
    """A form as `mncompress.analysis` bounds it: lines as pieces without a knot."""
    if not isinstance(form, Affine):
        return form
    none = np.zeros((form.n, 1))
    return spline.PiecewiseLinear(none, none, form.slope, form.intercept)


def is_untouched(original: LinearMap, compressed: LinearMap) -> bool:
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
    constant = linear.bias[:n] - bias - weight @ (intercept * left)
    if position:        # the features have no layer before
        previous = compressed.maps[position - 1]
        constant = constant - through @ previous.bias[:fan_in] + units @ previous.bias[fan_in:]
        for source, block in previous.weights.items():
            change[source] = units @ block[fan_in:] - through @ block[:fan_in]
    for source, block in linear.weights.items():
        if source != position - 1:
            change[source] = change.get(source, 0.0) + block[:n]
    center, spread = _span(change, spans)
    carried = missed * left + np.abs(slope) * before if position else np.zeros(fan_in)
    return np.asarray(np.abs(constant + center) + spread + np.abs(weight) @ (carried * left))


def _span(coefficients: Mapping[int, Floats], spans: Ranges) -> tuple[Floats, Floats]:
    """Middles and half-widths (k,) of linear combinations (k, width) of values by source."""
    center = spread = np.zeros(len(next(iter(coefficients.values()))))
    for source, coefficient in coefficients.items():
        low, high = (end[:coefficient.shape[1]] for end in spans[source])
        center = center + coefficient @ ((low + high) / 2)
        spread = spread + np.abs(coefficient) @ ((high - low) / 2)
    return center, spread
