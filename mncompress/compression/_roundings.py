"""How far float32 evaluations of a network can be from exact arithmetic, at each sample and over a domain.

A linear layer with n inputs adds gamma(n + 4) times the magnitude of its terms |W| |h| + |b| (Higham 2002, chapter 3): n + 1 for
the sum, in any order, the rest for the rounding of weights and of standardization, folded or not. In a compressed network the
terms are larger by what was folded into them: y = alpha act(beta u + delta) + eta leaves eta in the next bias and delta in its
own, where they may cancel. Activations multiply what arrives by their steepest slope near by and, like residual sums, add their own
rounding. Elementary functions are assumed as accurate as `mncompress.analysis._rounding` says.

An ONNX file may hold the linear ends of a `vaf` multiplied into the layers around it. Its inner units then see the rounding of
the layer before each by itself, so that it no longer cancels among them, and the layer behind sums their terms.

Arrays (rows + 1, n) hold bounds for each sample and, last, for every input of the domain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mncompress import spline
from mncompress.analysis import (
    FLOAT32,
    AnyForm,
    InnerNetworks,
    bound_arithmetic,
    count_cells,
    find_jumps,
    magnitude,
    tabulate_slopes,
)
from mncompress.compression._evaluate import Exact
from mncompress.compression._gaps import Domain, Gaps, for_bounds
from mncompress.compression._rewrite import FEATURES, Group
from mncompress.nn import Network, Vaf
from mncompress.spline import ACT_VALUES, Affine

LARGEST_SLOPE = 1.13
"""Of any inner activation: gelu's."""
DEEPEST_DIP = 0.28
"""How far an inner activation can go beyond its values at the ends of an interval: silu's minimum is -0.2785."""

Floats = NDArray[np.float64]


def bound_roundings(network: Network, exact: Exact, domain: Domain, gaps: Gaps) -> Floats:
    """Bounds of the outputs' rounding, (rows + 1, out_features), in units of the targets.

    Args:
        network: the original.
        exact: it, or what became of it, on samples.
        domain: of the original.
        gaps: from the original, and sizes.
    """
    rows = len(exact.outputs[FEATURES]) + 1
    errors = {FEATURES: np.zeros((rows, network.spec.in_features))}
    folded = {FEATURES: np.zeros(network.spec.in_features)}       # what is left in the biases behind, and enlarges the terms there
    widths = [layer.linear.out_features for layer in network.layers]
    for position, (layer, linear, behind) in enumerate(zip(network.layers, exact.maps, [*widths[1:], None], strict=True)):
        n, gamma = widths[position], FLOAT32.gamma(linear.terms + 4)
        terms = _find_terms(network, exact, position, domain, gaps)
        error, folded[position] = np.zeros_like(terms), np.zeros(len(linear.bias))
        for source, weight in linear.weights.items():
            error += errors[source] @ np.abs(weight).T
            terms += (errors[source] + folded[source]) @ linear.magnitudes(source).T
        error += gamma * terms
        if position in domain.ranges:
            inner, (low, high), gap = exact.inner[position], domain.ranges[position], gaps.before[position]
            part = _Layer(inner, exact.groups[position], low - gap, high + gap, gamma, exact.preactivations[position])
            reach = error[-1, :n].copy()
            error[:, :n], folded[position][:n] = _activate(part, error[:, :n])
            if isinstance(layer.activation, Vaf):
                is_whole = all(_is_whole(exact, each) for each in (position - 1, position, position + 1))
                sizes = (layer.linear.in_features, behind) if is_whole else (0, None if behind is None else 0)
                for group in (each for each in part.groups if each.key == "kept"):
                    mine = group.indices
                    gain, size = _merged_vaf(part, group, reach[mine], *sizes)
                    error[:, mine] += gamma * terms[:, mine] * gain
                    folded[position][mine] += size
        if layer.residual:
            outputs = _sizes(exact, position, gaps)[:, :n]
            error[:, :n] += errors[position - 1][:, :n]
            error[:, :n] += FLOAT32.gamma(1) * (outputs + error[:, :n])
        errors[position] = error
    return error if network.targets is None else _invert_targets(network, exact, error, gamma, gaps)


def _find_terms(network: Network, exact: Exact, position: int, domain: Domain, gaps: Gaps) -> Floats:
    """|W| |h| + |b| of a layer, (rows + 1, n + units)."""
    linear = exact.maps[position]
    terms = np.zeros((len(exact.outputs[FEATURES]) + 1, len(linear.bias))) + np.abs(linear.bias)
    for source in linear.weights:
        size = _feature_sizes(network, exact, domain) if source == FEATURES else _sizes(exact, source, gaps)
        terms += size @ linear.magnitudes(source).T
    return terms


def _feature_sizes(network: Network, exact: Exact, domain: Domain) -> Floats:
    """(|x| + |shift|) / scale of raw features x, or |x - shift| / scale where files subtract the shifts first, (rows + 1, d)."""
    shift = (network.features.shift / network.features.scale).double().numpy() * (not network.features.is_far)
    visited, ends = exact.outputs[FEATURES], np.stack(domain.ranges[FEATURES])
    return np.asarray(np.concatenate([np.abs(visited + shift), np.abs(ends + shift).max(0)[None]]) + np.abs(shift))


def _sizes(exact: Exact, source: int, gaps: Gaps) -> Floats:
    """Of values at the samples and, last, of any, (rows + 1, n + units)."""
    return np.concatenate([np.abs(exact.outputs[source]), gaps.sizes[source][None]])


def _invert_targets(network: Network, exact: Exact, error: Floats, gamma: float, gaps: Gaps) -> Floats:
    assert network.targets is not None
    scale, shift = (value.double().numpy() for value in (network.targets.scale, network.targets.shift))
    outputs = _sizes(exact, len(network.layers) - 1, gaps)
    return np.asarray(scale * error + (gamma + FLOAT32.gamma(4)) * (np.abs(shift) + scale * (outputs + error)))


@dataclass(frozen=True)
class _Layer:
    """An activated layer of n neurons."""

    inner: InnerNetworks
    groups: Sequence[Group]
    low: Floats
    high: Floats
    gamma: float
    """Relative rounding error of its linear part."""
    samples: Floats
    """Its pre-activations, (rows, n)."""


def _activate(layer: _Layer, before: Floats) -> tuple[Floats, Floats]:
    """The error (rows + 1, n) behind the activations; and what they leave in the biases behind, (n,)."""
    error, folded, cells = np.zeros_like(before), np.zeros(layer.inner.n), count_cells(layer.inner)
    for group in layer.groups:
        mine = group.indices
        if group.left:
            continue
        arriving = before[:, mine] + layer.gamma * _inner_shift(group)
        low, high = layer.low[mine] - arriving[-1], layer.high[mine] + arriving[-1]
        if not (np.isfinite(low) & np.isfinite(high)).all():
            error[:, mine] = np.nan
            continue
        function = layer.inner.select(mine) if group.form is None else for_bounds(group.form)
        own = bound_arithmetic(function, low, high, FLOAT32)
        if not isinstance(function, InnerNetworks):
            own = own + layer.gamma * _outer_shift(group) + _table_rounding(group, low, high) + _jump(function, arriving)
        u, reach = layer.samples[:, mine], arriving[:-1]
        ends = np.concatenate([u - reach, low[None]]), np.concatenate([u + reach, high[None]])
        error[:, mine] = magnitude(tabulate_slopes(function, low, high, cells).over(*ends)) * arriving + own
        folded[mine] = np.abs(function.eta) if isinstance(function, spline.Native) else 0.0
    return error, folded


def _jump(form: AnyForm, reach: Floats) -> Floats:
    """What knots can add within a reach (rows + 1, n) of a place, one of which rounding may cross by itself."""
    if not isinstance(form, spline.CubicSpline):
        return np.zeros(form.n)
    crossed = np.minimum(2 + 2 * reach * form.inverse_step, form.intervals)
    return np.asarray(crossed * find_jumps(form).max(1, initial=0.0))


def _is_whole(exact: Exact, position: int) -> bool:
    """Whether a layer has the neurons that it had in the original, and reads what it read."""
    if not 0 <= position < len(exact.maps):
        return True
    linear = exact.maps[position]
    stays = not any(group.left or group.key == "constant" for group in exact.groups.get(position, ()))
    return stays and linear.factors is None and not linear.units and list(linear.weights) == [position - 1]


def _merged_vaf(layer: _Layer, group: Group, reach: Floats, before: int, behind: int | None) -> tuple[Floats, Floats]:
    """What merging the ends of a kept `vaf` does: how much its units multiply an error of u, and its terms in the layer behind.

    Merging with a layer of `before` inputs or `behind` outputs happens only where it takes no more multiply-adds; 0 where they
    are not known, None where there is none.
    """
    inner = layer.inner.select(group.indices) if group.form is None else group.form
    assert isinstance(inner, InnerNetworks)
    gain = LARGEST_SLOPE * (np.abs(inner.out_weight) * np.abs(inner.first_weight)).sum(1)
    domain = layer.low[group.indices] - reach, layer.high[group.indices] + reach
    ends = [inner.first_weight * u[:, None] + inner.biases[0] for u in domain]
    hidden = np.maximum(*(np.abs(ACT_VALUES[inner.act](z)) for z in ends)) + DEEPEST_DIP
    width = inner.first_weight.shape[1]
    is_merged = [size is not None and size * (width - 1) <= layer.inner.n * width for size in (before, behind)]
    return gain * is_merged[0], is_merged[1] * (width + 1) * ((np.abs(inner.out_weight) * hidden).sum(1) + np.abs(inner.out_bias))


def _inner_shift(group: Group) -> Floats:
    """What folding a form's inner affine map adds to the terms of its own linear layer, in units of u."""
    form = group.form
    if isinstance(form, spline.Native):
        return np.abs(np.divide(form.delta, form.beta, out=np.zeros(form.n), where=form.beta != 0))
    if isinstance(form, spline.CubicSpline):
        return np.abs(form.start)
    return np.abs(form.center) if isinstance(form, spline.Polynomial) else np.zeros(len(group.indices))


def _outer_shift(group: Group) -> Floats:
    """The same for a line, which is folded whole, in units of its value: it may be too flat to speak of u."""
    return np.abs(group.form.intercept) if isinstance(group.form, Affine) else np.zeros(len(group.indices))


def _table_rounding(group: Group, low: Floats, high: Floats) -> Floats:
    """What a table of lines, intercept[k] + slope[k] s, rounds beyond a spline: its two terms may be large beside their sum."""
    form = group.form
    if not group.key.endswith(":linear") or not isinstance(form, spline.CubicSpline):
        return np.zeros(len(group.indices))
    s = np.abs((np.stack([low, high]) - form.start) * form.inverse_step).max(0)
    value, slope = np.abs(form.coefficients[..., :2]).max(1).T
    return np.asarray(FLOAT32.gamma(4) * (value + 2 * slope * np.maximum(s, form.intervals)))


