"""The certificate: a bound on how much any output can change, in float32 and with everything that rounding does.

It holds for the evaluated samples, and for every other input that stays, layer by layer, within the ranges of
pre-activations and the magnitudes of terms |W| |h| + |b| that the original network shows on them (or within the calibrated
domains, if these are wider); where weights were refitted, within the ranges of features and activations too. Let f be a learned
activation and g its replacement, u and v the pre-activations that the two networks give them. Over the range of u, widened on
either side by the bound of |v - u|,

    |g(v) - f(u)| <= sup |g - f| + L |v - u|,        L the Lipschitz constant of f,

where sup and L come from analysis, not from samples; and likewise with that of g, for which sup over the range of u itself will
do. Carried through |W| from layer to layer, and added to what a residual connection brings along, this bounds the outputs in exact
arithmetic. Where neurons left or weights were refitted, the compressed network reads other things by other weights: what its
linear maps would give on the original's values differs from the original's pre-activations by an affine function of these values,
bounded over their ranges, and by what the lines of neurons that left miss.

For the samples themselves the same is done with |g(u) - f(u)| and that affine function as they are at each sample: bounds per
sample, which say who keeps its class.

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
from numpy.typing import NDArray

from mncompress import spline
from mncompress.analysis import (
    FLOAT32,
    InnerNetworks,
    Replacement,
    bound_error,
    bound_form_rounding,
    bound_lipschitz,
    bound_rounding,
)
from mncompress.compression._mismatch import Mismatch, References, find_mismatch
from mncompress.compression._planner import Compressed
from mncompress.compression._rewrite import FEATURES, Group, LinearMap
from mncompress.compression._rows import Signals, observe_signals
from mncompress.nn import Network, Vaf
from mncompress.spline import ACT_VALUES, Affine

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
        sample_bounds: largest possible change of each sample's outputs, (rows, out_features); None without a bound.
    """

    bounds: Floats | None
    replacement_bound: float | None
    reason: str
    certified: float | None
    sample_bounds: Floats | None = None


def certify(network: Network, compressed: Compressed, x: NDArray[np.generic]) -> Certificate:
    """Bound the outputs' change on samples x (rows, d) of raw features."""
    if compressed.plan.finetuned:
        return Certificate(None, None, "fine-tuning moved weights and activations together, for which there is no bound", None)
    signals = observe_signals(network, x)
    with np.errstate(over="ignore", invalid="ignore"):
        bound = _propagate(network, compressed, signals)
    if not (np.isfinite(bound.total).all() and np.isfinite(bound.local).all()):
        return Certificate(None, None, "an activation has no finite bound on the range its pre-activations visit", None)
    replacement = float(bound.replacements.max())
    reason = ("sup-norm errors from interval analysis, carried through the weights and the activations' Lipschitz constants, "
              "with float32 rounding of both networks, elementary functions being accurate to 4 ulp or 5e-7")
    bounds, local = bound.total, np.minimum(bound.local, bound.total)
    if network.spec.task == "regression":
        return Certificate(bounds, replacement, reason, None, local)
    logits = signals.outputs[-1].double().numpy()
    top = logits.argmax(1)[:, None]
    margins = np.take_along_axis(logits, top, 1) - logits
    doubt = np.take_along_axis(local, top, 1) + local
    safe = (margins > doubt) | (np.arange(logits.shape[1]) == top)
    return Certificate(bounds, replacement, reason, float(safe.all(1).mean()), local)


@dataclass(frozen=True)
class _Bound:
    """How far the networks may be apart at one place.

    What a step makes of each, with |W| for the weights' sizes, L for the Lipschitz constant of f or g, whichever gives less, e for
    sup |g - f| and r for rounding:

                        linear map (_pass_linear)     activation (_activate)            residual sum (_add_skip)
        total           |W| total + mismatch + r      L total + e + r                   total + skip's + r
        replacements    |W| replacements + mismatch   L replacements + e                replacements + skip's
        local           |W| local + mismatch + r      L local + (|g(u) - f(u)|, e) + r  local + skip's + r
        drift           |W| drift + r                 L drift + r                       drift + skip's + r
        folded          0, being spent in r           |eta|; of a merged vaf its terms  0

    Attributes:
        total: with rounding, (n,).
        replacements: by the replacements in exact arithmetic, (n,).
        local: as `total`, for each sample by itself, (rows, n).
        drift: how far two evaluations of the original may be apart, (n,).
        folded: what is left in the biases behind, and enlarges the terms there, (n,).
    """

    total: Floats
    replacements: Floats
    local: Floats
    drift: Floats
    folded: Floats

    @classmethod
    def nothing(cls, rows: int, n: int) -> "_Bound":
        none = np.zeros(n)
        return cls(none, none, np.zeros((rows, n)), none, none)

    def select(self, columns: slice) -> "_Bound":
        return _Bound(self.total[columns], self.replacements[columns], self.local[:, columns], self.drift[columns],
                      self.folded[columns])

    def append(self, other: "_Bound") -> "_Bound":
        return _Bound(*(np.concatenate([getattr(self, name), getattr(other, name)], -1) for name in vars(self)))


def _propagate(network: Network, compressed: Compressed, signals: Signals) -> _Bound:
    """The bound at the outputs; not finite where a step has none."""
    references = References(network, compressed.maps, signals)
    bounds = {FEATURES: _Bound.nothing(len(signals.features), network.spec.in_features)}
    activated = iter(zip(compressed.options, compressed.groups, strict=True))
    widths = [layer.linear.out_features for layer in network.layers]
    mismatch: Mismatch | None = None
    left_errors = np.zeros(0)
    for position, (layer, behind) in enumerate(zip(network.layers, [*widths[1:], None], strict=True)):
        groups_before = compressed.groups[position - 1] if position else ()
        mismatch = find_mismatch(references, position, groups_before, mismatch, left_errors)
        own = _pass_linear(references, position, compressed.maps[position], bounds, mismatch)
        bound, units = own.select(slice(widths[position])), own.select(slice(widths[position], None))
        gamma = FLOAT32.gamma(max(references.fan_in(position), compressed.maps[position].terms) + 4)
        if layer.activation is not None:
            options, groups = next(activated)
            u = references.preactivations(position)
            low, high = np.minimum(options.domain[:, 0], u.min(0)), np.maximum(options.domain[:, 1], u.max(0))
            part = _Layer(options.inner, groups, low, high, gamma, u)
            before = bound.total
            bound, left_errors = _activate(part, bound)
            if isinstance(layer.activation, Vaf):
                factors = compressed.maps[position].factors
                read = layer.linear.in_features if factors is None else factors.outer.shape[1]
                gain, size = _merged_vaf(part, before, read, behind)
                extra = 2 * gamma * references.terms(position, bounds[position - 1].total)[:widths[position]] * gain
                bound = _Bound(bound.total + extra, bound.replacements, bound.local + extra, bound.drift + extra,
                               bound.folded + size)
        if layer.residual:
            bound = _add_skip(bound, bounds[position - 1], references.magnitudes(position))
        bounds[position] = bound.append(units)
    return bounds[len(network.layers) - 1] if network.targets is None else _invert_targets(
        network, bounds[len(network.layers) - 1], references.magnitudes(len(network.layers) - 1), gamma)


def _pass_linear(references: References, position: int, linear: LinearMap, bounds: dict[int, _Bound], mismatch: Mismatch | None
                 ) -> _Bound:
    """The bound behind a linear map: what arrives through |W|, the mismatch, and rounding."""
    total, replacements, drift, folded = np.zeros((4, len(linear.bias)))
    local = np.zeros((len(references.features), len(linear.bias)))
    shifted = np.zeros(len(linear.bias))
    for source, block in linear.weights.items():
        weight, bound = np.abs(block), bounds[source]
        shifted = shifted + linear.magnitudes(source) @ bound.total
        total, replacements = total + weight @ bound.total, replacements + weight @ bound.replacements
        local = local + bound.local @ weight.T
        folded = folded + linear.magnitudes(source) @ bound.folded
    before = bounds[position - 1]
    original = np.abs(references.weight(position))
    n = len(original)
    own_rounding = FLOAT32.gamma(references.fan_in(position) + 4)
    drift[:n] = original @ before.drift[:original.shape[1]] + 2 * own_rounding * references.terms(position, before.drift)[:n]
    if mismatch is None:
        terms, gamma = references.terms(position), own_rounding
        rounding = gamma * (2 * (terms + shifted[:n]) + 2 * folded[:n])
    else:
        gamma = FLOAT32.gamma(linear.terms + 4)
        terms = references.map_terms(linear)[:n] + shifted[:n] + 2 * folded[:n]
        rounding = own_rounding * references.terms(position) + gamma * terms
        between = original @ before.drift[:original.shape[1]]      # the mismatch is that of one evaluation of the original
        total = total + np.concatenate([mismatch.total + between, np.zeros(linear.units)])
        replacements = replacements + np.concatenate([mismatch.total, np.zeros(linear.units)])
        local[:, :n] += mismatch.local + between
    if linear.units:
        gamma = FLOAT32.gamma(linear.terms + 4)
        unit_terms = references.map_terms(linear)[n:] + shifted[n:] + 2 * folded[n:]
        rounding = np.concatenate([rounding, 2 * gamma * unit_terms])
    return _Bound(total + rounding, replacements, local + rounding, drift, np.zeros(len(linear.bias)))


def _add_skip(bound: _Bound, skip: _Bound, outputs: Floats) -> _Bound:
    total = bound.total + skip.total
    rounding = 2 * FLOAT32.gamma(1) * (outputs + total)
    return _Bound(total + rounding, bound.replacements + skip.replacements, bound.local + skip.local + rounding,
                  bound.drift + skip.drift + rounding, np.zeros(len(total)))


def _invert_targets(network: Network, bound: _Bound, outputs: Floats, gamma: float) -> _Bound:
    assert network.targets is not None
    scale, shift = (value.double().numpy() for value in (network.targets.scale, network.targets.shift))
    rounding = 2 * (gamma + FLOAT32.gamma(4)) * (np.abs(shift) + scale * (outputs + bound.total))
    return _Bound(bound.total * scale + rounding, bound.replacements * scale, bound.local * scale + rounding, bound.drift,
                  bound.folded)


@dataclass(frozen=True)
class _Layer:
    """An activated layer: its learned activations, what they became, and the ranges (n,) of their pre-activations."""

    inner: InnerNetworks
    groups: tuple[Group, ...]
    low: Floats
    high: Floats
    gamma: float
    """Relative rounding error of its linear part."""
    samples: Floats
    """Its pre-activations, (rows, n)."""


def _activate(layer: _Layer, bound: _Bound) -> tuple[_Bound, Floats]:
    """The bound behind the activations; and by how much the lines of neurons that left may miss them, (n,)."""
    n, rows = layer.inner.n, len(layer.samples)
    total, replacements, drift, folded, missed = np.full((5, n), np.nan)
    local = np.full((rows, n), np.nan)
    missed[:] = folded[:] = 0.0
    for group in layer.groups:
        mine, part = group.indices, layer.inner.select(group.indices)
        if group.left:
            total[mine], replacements[mine], local[:, mine] = 0.0, 0.0, 0.0
            missed[mine] = _error(group, part, layer.low[mine], layer.high[mine])
            reach = bound.drift[mine]
            drift[mine] = (bound_lipschitz(part, layer.low[mine] - reach, layer.high[mine] + reach) * reach
                           + 2 * bound_rounding(part, layer.low[mine] - reach, layer.high[mine] + reach))
            continue
        shift = 2 * layer.gamma * _inner_shift(group)
        before = bound.total[mine] + shift
        low, high = layer.low[mine] - before, layer.high[mine] + before
        if not (np.isfinite(low) & np.isfinite(high)).all():
            continue
        form = None if group.form is None else _for_bounds(group.form)
        steepest, own = bound_lipschitz(part, low, high), bound_rounding(part, low, high)
        slopes, errors, other, at_sample = [steepest], [np.zeros(len(mine))], own, np.zeros(len(mine))
        if form is not None:
            form_slope, drift_before = np.where(group.exact, steepest, bound_lipschitz(form, low, high)), bound.drift[mine]
            slopes.append(form_slope)
            errors = [_error(group, part, low, high),
                      _error(group, part, layer.low[mine] - drift_before, layer.high[mine] + drift_before)]
            other = bound_form_rounding(form, low, high) + layer.gamma * _outer_shift(group) + _table_rounding(group, low, high)
            u = layer.samples[:, mine]
            at_sample = np.abs(form.evaluate(u) - part.evaluate(u)) + (form_slope + steepest) * drift_before
            at_sample[:, group.exact] = 0.0
        by_slope = list(zip(slopes, errors, strict=True))
        worst = np.minimum.reduce([slope * before + np.maximum(own, other + error) for slope, error in by_slope])
        total[mine] = worst + own
        replacements[mine] = np.minimum.reduce([slope * bound.replacements[mine] + error for slope, error in by_slope])
        local_before = bound.local[:, mine] + shift
        here = np.minimum(slopes[0] * local_before + errors[0], slopes[-1] * local_before + at_sample)
        local[:, mine] = here + own + np.maximum(own, other)
        drift[mine] = steepest * bound.drift[mine] + 2 * own
        folded[mine] = np.abs(group.form.eta) if isinstance(group.form, spline.Native) else 0.0
    return _Bound(total, replacements, local, drift, folded), missed


def _error(group: Group, part: InnerNetworks, low: Floats, high: Floats) -> Floats:
    """Sup-norm errors of a group's forms on ranges, zero for exact ones."""
    assert group.form is not None
    form, error, inexact = _for_bounds(group.form), np.zeros(part.n), np.flatnonzero(~group.exact)
    if inexact.size:
        error[inexact] = bound_error(part.select(inexact), form.select(inexact), low[inexact], high[inexact])
    return error


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
    return np.asarray(FLOAT32.gamma(4) * (value + 2 * slope * np.maximum(s, form.intervals)))


def _for_bounds(form: Replacement) -> spline.CubicSpline | spline.PiecewiseLinear | spline.Polynomial | spline.Native:
    if not isinstance(form, Affine):
        return form
    none = np.zeros((form.n, 1))
    return spline.PiecewiseLinear(none, none, form.slope, form.intercept)
