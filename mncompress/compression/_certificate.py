"""The certificate: a bound on how much any output can change, in float32 and with everything that rounding does.

It holds for the evaluated samples, and for every other input that stays, layer by layer, within the ranges of
pre-activations and the magnitudes of terms |W| |h| + |b| that the original network shows on them (or within the calibrated
domains, if these are wider). Let f be a learned activation and g its replacement, u and v the pre-activations that the two
networks give them. Over the range of u, widened on either side by the bound of |v - u|,

    |g(v) - f(u)| <= sup |g - f| + L |v - u|,        L the smaller Lipschitz constant of f and g,

where sup and L come from analysis, not from samples. Carried through |W| from layer to layer, and added to what a residual
connection brings along, this bounds the outputs in exact arithmetic.

Both networks run in float32. A linear layer with n inputs adds gamma(n + 4) times the magnitude of its terms (Higham 2002,
chapter 3): n + 1 for the sum, the rest for the rounding of weights and of standardization, folded or not. In a compressed
network the terms are larger by what was folded into them: y = alpha act(beta u + delta) + eta leaves eta in the next bias
and delta in its own, where they may cancel. Activations and residual sums add their own rounding bounds. Elementary functions
are assumed as accurate as `mncompress.analysis._rounding` says.

An ONNX file may hold the linear ends of a `vaf` multiplied into the layers around it. Its inner units then see the rounding of
the layer before each by itself, so that it no longer cancels among them, and the layer behind sums their terms.

The bound covers any two float32 evaluations, in any order of summation, of the original and of either network: so the ranges,
magnitudes and margins that one evaluation of the original shows will do for all. A sample keeps its class for certain if its
top-1 margin exceeds the sum of the bounds of the two logits compared.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mncompress import spline
from mncompress.analysis import (
    Affine,
    InnerNetworks,
    Replacement,
    bound_error,
    bound_form_rounding,
    bound_lipschitz,
    bound_rounding,
)
from mncompress.calibration import BATCH_ROWS, run_network, visited_ranges
from mncompress.compression._planner import Compressed
from mncompress.compression._rewrite import Group
from mncompress.nn import Network, Vaf
from mncompress.spline import ACT_VALUES

UNIT_ROUNDOFF = 2.0**-24
LARGEST_SLOPE = 1.13
"""Of any inner activation: gelu's."""
DEEPEST_DIP = 0.28
"""How far an inner activation can go beyond its values at the ends of an interval: silu's minimum is -0.2785."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Certificate:
    """What is guaranteed about the evaluated samples.

    Attributes:
        bounds: largest possible change of each output, (out_features,); None where a step has no finite bound.
        replacement_bound: the largest of these in exact arithmetic, what the replacements alone can do.
        reason: how it was obtained, or why there is none.
        certified: share of the samples whose class provably cannot change; None for regression or without a bound.
    """

    bounds: Floats | None
    replacement_bound: float | None
    reason: str
    certified: float | None


def certify(network: Network, compressed: Compressed, x: NDArray[np.generic]) -> Certificate:
    """Bound the outputs' change on samples x (rows, d) of raw features."""
    with np.errstate(over="ignore", invalid="ignore"):
        bound = _propagate(network, compressed, x)
    if not np.isfinite(bound.total).all():
        return Certificate(None, None, "an activation has no finite bound on the range its pre-activations visit", None)
    replacement = float(bound.replacements.max())
    reason = ("sup-norm errors from interval analysis, carried through the weights and the activations' Lipschitz constants, "
              "with float32 rounding of both networks, elementary functions being accurate to 4 ulp or 5e-7")
    if network.spec.task == "regression":
        return Certificate(bound.total, replacement, reason, None)
    logits = run_network(network, x)
    top = logits.argmax(1)
    margins = np.take_along_axis(logits, top[:, None], 1) - logits
    doubt = bound.total[top][:, None] + bound.total[None, :]
    safe = (margins > doubt) | (np.arange(logits.shape[1]) == top[:, None])
    return Certificate(bound.total, replacement, reason, float(safe.all(1).mean()))


@dataclass(frozen=True)
class _Bound:
    """How far the networks may be apart at one place, (n,): with rounding, and by the replacements in exact arithmetic."""

    total: Floats
    replacements: Floats


def _propagate(network: Network, compressed: Compressed, x: NDArray[np.generic]) -> _Bound:
    """The bound at the outputs; not finite where a step has none."""
    visited, seen = iter(visited_ranges(network, x)), _magnitudes(network, x)
    activated = iter(zip(compressed.options, compressed.groups, strict=True))
    nothing = np.zeros(network.spec.in_features)
    arriving, folded = _Bound(nothing, nothing), nothing
    widths = [layer.linear.out_features for layer in network.layers]
    for layer, behind, (terms, outputs) in zip(network.layers, [*widths[1:], None], seen, strict=True):
        weight = np.abs(layer.linear.weight.detach().double().numpy())
        gamma = _gamma(layer.linear.in_features + 4)
        own = weight @ arriving.total + gamma * (2 * (terms + weight @ arriving.total) + 2 * weight @ folded)
        bound, folded = _Bound(own, weight @ arriving.replacements), np.zeros(len(own))
        if layer.activation is not None:
            options, groups = next(activated)
            observed = np.concatenate([options.domain, next(visited)], 1)
            part = _Layer(options.inner, groups, observed.min(1), observed.max(1), gamma)
            bound, folded = _activate(part, bound)
            if isinstance(layer.activation, Vaf):
                gain, size = _merged_vaf(part, own, layer.linear.in_features, behind)
                bound = _Bound(bound.total + 2 * gamma * (terms + weight @ arriving.total) * gain, bound.replacements)
                folded = folded + size
        if layer.residual:
            total = bound.total + arriving.total
            bound = _Bound(total + 2 * _gamma(1) * (outputs + total), bound.replacements + arriving.replacements)
        arriving = bound
    if network.targets is None:
        return arriving
    scale, shift = (value.double().numpy() for value in (network.targets.scale, network.targets.shift))
    rounding = 2 * (gamma + _gamma(4)) * (np.abs(shift) + scale * (outputs + arriving.total))
    return _Bound(arriving.total * scale + rounding, arriving.replacements * scale)


@dataclass(frozen=True)
class _Layer:
    """An activated layer: its learned activations, what they became, and the ranges (n,) of their pre-activations."""

    inner: InnerNetworks
    groups: tuple[Group, ...]
    low: Floats
    high: Floats
    gamma: float
    """Relative rounding error of its linear part."""


def _activate(layer: _Layer, bound: _Bound) -> tuple[_Bound, Floats]:
    """The bound behind the activations, and what each of them leaves in the next layer's bias."""
    total, replacements, left = np.full((3, layer.inner.n), np.nan)
    for group in layer.groups:
        mine = group.indices
        form = None if group.form is None else _for_bounds(group.form)
        before = bound.total[mine] + 2 * layer.gamma * _inner_shift(group)
        low, high = layer.low[mine] - before, layer.high[mine] + before
        if not (np.isfinite(low) & np.isfinite(high)).all():
            continue
        part = layer.inner.select(mine)
        slope, own = bound_lipschitz(part, low, high), bound_rounding(part, low, high)
        error, other = np.zeros(len(mine)), own
        if form is not None:
            slope = np.where(group.exact, slope, np.minimum(slope, bound_lipschitz(form, low, high)))
            other = bound_form_rounding(form, low, high) + layer.gamma * _outer_shift(group) + _table_rounding(group, low, high)
            inexact = np.flatnonzero(~group.exact)
            if inexact.size:
                error[inexact] = bound_error(part.select(inexact), form.select(inexact), low[inexact], high[inexact])
        total[mine] = slope * before + own + np.maximum(own, other + error)
        replacements[mine] = slope * bound.replacements[mine] + error
        left[mine] = np.abs(group.form.eta) if isinstance(group.form, spline.Native) else 0.0
    return _Bound(total, replacements), left


def _merged_vaf(layer: _Layer, own: Floats, before: int, behind: int | None) -> tuple[Floats, Floats]:
    """What merging the ends of a `vaf` does: how much its units multiply an error of u, and its terms in the layer behind.

    Merging with a layer of `before` inputs or `behind` outputs happens only where it takes no more multiply-adds.
    """
    inner = layer.inner
    gain = LARGEST_SLOPE * (np.abs(inner.out_weight) * np.abs(inner.first_weight)).sum(1)
    ends = [inner.first_weight * u[:, None] + inner.biases[0] for u in (layer.low - own, layer.high + own)]
    hidden = np.maximum(*(np.abs(ACT_VALUES[inner.act](z)) for z in ends)) + DEEPEST_DIP
    width = inner.first_weight.shape[1]
    is_merged = [size is not None and size * (width - 1) <= inner.n * width for size in (before, behind)]
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
    return np.asarray(_gamma(4) * (value + 2 * slope * np.maximum(s, form.intervals)))


def _for_bounds(form: Replacement) -> spline.CubicSpline | spline.PiecewiseLinear | spline.Polynomial | spline.Native:
    if not isinstance(form, Affine):
        return form
    none = np.zeros((form.n, 1))
    return spline.PiecewiseLinear(none, none, form.slope, form.intercept)


def _gamma(n: int) -> float:
    """Relative error of n successive float32 roundings."""
    return n * UNIT_ROUNDOFF / (1 - n * UNIT_ROUNDOFF)


@torch.no_grad()
def _magnitudes(network: Network, x: NDArray[np.generic]) -> list[tuple[Floats, Floats]]:
    """Per layer the largest |W| |h| + |b| and the largest |output| of each neuron over all rows of x."""
    features = network.features
    largest = [(np.zeros(layer.linear.out_features), np.zeros(layer.linear.out_features)) for layer in network.layers]
    for rows in torch.as_tensor(x).split(BATCH_ROWS):
        h = features(rows)
        size = (rows.double().abs() + features.shift.abs()) / features.scale
        for position, layer in enumerate(network.layers):
            terms = size @ layer.linear.weight.double().abs().T + layer.linear.bias.double().abs()
            h = layer(h)
            size = h.double().abs()
            found = terms.amax(0).numpy(), size.amax(0).numpy()
            largest[position] = np.maximum(largest[position][0], found[0]), np.maximum(largest[position][1], found[1])
    return largest
