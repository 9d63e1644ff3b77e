"""The certificate: a bound on how much any output can change, for every input whose first pre-activations stay in range.

For each neuron, with original activation f and replacement g, over the union of its calibrated domain and the range that
the evaluated samples visit (widened by the error that arrives there),

    |g(v) - f(u)| <= sup |g - f| + L |v - u|,        L the Lipschitz constant of f,

where sup and L come from analysis, not from samples. Carried through |W| from layer to layer this bounds the outputs. Both
networks run in float32: each linear layer adds gamma(n + 4) (|W| |h| + |b|), the folding of weights included, and each
activation its own rounding bound, once for either network (Higham 2002, chapter 3).

A sample keeps its class for certain if its top-1 margin exceeds the sum of the bounds of the two logits compared.
"""

from collections.abc import Sequence
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
from mncompress.nn import Network

UNIT_ROUNDOFF = 2.0**-24

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
    bounds = _propagate(network, compressed, x, UNIT_ROUNDOFF)
    exact_arithmetic = float(_propagate(network, compressed, x, 0.0).max())
    if not np.isfinite(bounds).all():
        return Certificate(None, None, "an activation has no finite bound on the range its pre-activations visit", None)
    reason = ("sup-norm errors from interval analysis, carried through the weights and the activations' Lipschitz constants, "
              "with float32 rounding of both networks")
    if network.spec.task == "regression":
        return Certificate(bounds, exact_arithmetic, reason, None)
    logits = run_network(network, x)
    top = logits.argmax(1)
    margins = np.take_along_axis(logits, top[:, None], 1) - logits
    doubt = bounds[top][:, None] + bounds[None, :]
    safe = (margins > doubt) | (np.arange(logits.shape[1]) == top[:, None])
    return Certificate(bounds, exact_arithmetic, reason, float(safe.all(1).mean()))


def _propagate(network: Network, compressed: Compressed, x: NDArray[np.generic], unit: float) -> Floats:
    """Bound per output; `unit` is the unit roundoff, 0 for exact arithmetic."""
    visited, magnitudes = visited_ranges(network, x), _term_magnitudes(network, x)
    arriving = np.zeros(network.spec.in_features)
    activated = 0
    for layer, magnitude in zip(network.layers, magnitudes, strict=True):
        weight = np.abs(layer.linear.weight.detach().double().numpy())
        terms = (layer.linear.in_features + 4) * unit
        error = weight @ arriving + 2 * terms / (1 - terms) * (magnitude + weight @ arriving)
        if layer.activation is not None:
            options, groups = compressed.options[activated], compressed.groups[activated]
            low = np.minimum(options.domain[:, 0], visited[activated][:, 0]) - error
            high = np.maximum(options.domain[:, 1], visited[activated][:, 1]) + error
            error = _activation_error(options.inner, groups, low, high, error, rounding=unit > 0)
            activated += 1
        arriving = error + arriving if layer.residual else error
    if network.targets is None:
        return arriving
    scale, shift = (value.double().numpy() for value in (network.targets.scale, network.targets.shift))
    largest = np.abs(run_network(network, x)).max(0) + 2 * np.abs(shift)
    return np.asarray(arriving * scale + 8 * unit * largest)


def _activation_error(inner: InnerNetworks, groups: Sequence[Group], low: Floats, high: Floats, arriving: Floats, *,
                      rounding: bool) -> Floats:
    """Bound of |g(v) - f(u)| per neuron where |v - u| <= arriving, with the rounding of both if asked for."""
    error = np.full(inner.n, np.nan)
    for group in groups:
        mine = group.indices
        part, lo, hi = inner.select(mine), low[mine], high[mine]
        change = bound_lipschitz(part, lo, hi) * arriving[mine]
        if rounding:
            change += bound_rounding(part, lo, hi)
            change += bound_rounding(part, lo, hi) if group.form is None else bound_form_rounding(_for_bounds(group.form), lo, hi)
        if group.form is not None:
            form = _for_bounds(group.form)
            inexact = np.flatnonzero(~group.exact)
            if inexact.size:
                change[inexact] += bound_error(part.select(inexact), form.select(inexact), lo[inexact], hi[inexact])
        error[mine] = change
    return error


def _for_bounds(form: Replacement) -> spline.CubicSpline | spline.PiecewiseLinear | spline.Polynomial | spline.Native:
    if not isinstance(form, Affine):
        return form
    none = np.zeros((form.n, 1))
    return spline.PiecewiseLinear(none, none, form.slope, form.intercept)


def _term_magnitudes(network: Network, x: NDArray[np.generic]) -> list[Floats]:
    """Per linear layer, the largest |W| |h| + |b| of each neuron over all rows of x: what rounding is relative to."""
    features = network.features
    largest: list[Floats] = [np.zeros(layer.linear.out_features) for layer in network.layers]
    for rows in torch.as_tensor(x).split(BATCH_ROWS):
        h = features(rows)
        size = (rows.to(h.dtype).abs() + features.shift.abs()) / features.scale
        for position, layer in enumerate(network.layers):
            terms = (size @ layer.linear.weight.abs().T + layer.linear.bias.abs()).amax(0).double().numpy()
            largest[position] = np.maximum(largest[position], terms)
            h = layer(h)
            size = h.abs()
    return largest
