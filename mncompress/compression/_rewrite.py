"""Rewriting a network: every activation by its replacement, with all that is linear folded into the weights.

In a layer u = W h + b, y = f(u), a replacement f(u) = alpha g(beta u + delta) + eta leaves only g behind: beta and delta
fold into the layer's own W and b; alpha and eta into the next layer's, unless something else reads y too (a residual sum,
or nobody follows), in which case they stay as an explicit scale and shift. Constants leave altogether where they can.
Neurons are permuted so that those with one form lie together; where the order matters, a gather restores it.
Everything is computed in float64 and rounded to float32 once.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mncompress import spline
from mncompress.analysis import Affine, Replacement
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
)
from mncompress.types import ActivationSpec

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Group:
    """Neurons of a layer that share a form.

    Attributes:
        key: the option's key, a kind or `native:ACT`.
        indices: which neurons of the original layer, (k,).
        form: what they become, in the units of the original pre-activation; None for `kept`.
        exact: for which of them the form equals the learned activation at every input, (k,).
    """

    key: str
    indices: Indices
    form: Replacement | None
    exact: NDArray[np.bool_]


@dataclass
class _Weights:
    """A linear layer in float64 while it is being rewritten."""

    weight: Floats
    bias: Floats

    def make_linear(self) -> nn.Linear:
        linear: nn.Linear = nn.utils.skip_init(nn.Linear, self.weight.shape[1], self.weight.shape[0])
        linear.load_state_dict({"weight": torch.as_tensor(self.weight.astype(np.float32)),
                                "bias": torch.as_tensor(self.bias.astype(np.float32))})
        return linear


def rewrite(network: Network, groups: Sequence[Sequence[Group]]) -> Network:
    """The compressed network.

    Args:
        network: with learned activations.
        groups: per activated layer a partition of its neurons.
    """
    weights = [_Weights(layer.linear.weight.detach().double().numpy().copy(), layer.linear.bias.detach().double().numpy().copy())
               for layer in network.layers]
    layers, remaining = network.layers, iter(groups)
    activations: list[nn.Module | None] = []
    for position, layer in enumerate(layers):
        if layer.activation is None:
            activations.append(None)
            continue
        follower = position + 1 < len(layers)
        free = follower and not layer.residual and not layers[position + 1].residual
        assert isinstance(layer.activation, LearnedActivation)
        activations.append(_rewrite_layer_(weights[position], weights[position + 1] if free else None, layer.activation,
                                           next(remaining)))
    rewritten = [Layer(w.make_linear(), activation, layer.residual)
                 for w, activation, layer in zip(weights, activations, layers, strict=True)]
    features, targets = copy.deepcopy((network.features, network.targets))
    return Network(network.spec, rewritten, features, targets).eval().requires_grad_(False)


def _rewrite_layer_(own: _Weights, following: _Weights | None, activation: LearnedActivation,
                    groups: Sequence[Group]) -> nn.Module:
    """Fold one layer's groups into its weights and the next's (None where they cannot take anything).

    Returns:
        The activation module that is left.
    """
    if following is not None:
        groups = _remove_constants_(following, groups)
    order = np.concatenate([group.indices for group in groups])
    own.weight, own.bias = own.weight[order], own.bias[order]
    forms, start = [], 0
    for group in groups:
        part = slice(start, start + len(group.indices))
        form, scale, shift = _fold_(own, part, group, activation)
        start = part.stop
        if following is not None:
            columns = group.indices
            following.bias = following.bias + following.weight[:, columns] @ shift
            following.weight[:, columns] *= scale
        elif np.any(scale != 1) or np.any(shift != 0):
            form = nn.Sequential(form, Scale(scale, shift))
        forms.append(form)
    if following is not None:
        following.weight = following.weight[:, order]
        positions = None
    else:
        positions = None if np.array_equal(order, np.arange(len(order))) else np.argsort(order).tolist()
    if len(forms) == 1 and positions is None:
        return forms[0]
    return Grouped([len(group.indices) for group in groups], forms, positions)


def _remove_constants_(following: _Weights, groups: Sequence[Group]) -> list[Group]:
    """Move constants into the next bias; one neuron stays if there is no other, since no layer can be empty."""
    kept = [group for group in groups if group.key != "constant"]
    for group in groups:
        if group.key == "constant":
            assert isinstance(group.form, Affine)
            first = 0 if kept else 1
            gone = group.indices[first:]
            following.bias = following.bias + following.weight[:, gone] @ group.form.intercept[first:]
            if first:
                kept = [Group("constant", group.indices[:1], group.form.select(np.arange(1)), group.exact[:1])]
    return kept


def _fold_(own: _Weights, part: slice, group: Group, activation: LearnedActivation) -> tuple[nn.Module, Floats, Floats]:
    """Fold the inner affine map into rows `part` of the layer; return what is left with its outer scale and shift."""
    form, count = group.form, len(group.indices)
    scale, shift = np.ones(count), np.zeros(count)
    if form is None:
        return activation.select(group.indices.tolist()), scale, shift
    if isinstance(form, Affine):
        _scale_rows_(own, part, form.slope, form.intercept)
        return nn.Identity(), scale, shift
    if isinstance(form, spline.Native):
        _scale_rows_(own, part, form.beta, form.delta)
        return make_activation(ActivationSpec("fixed", form.act), count), form.alpha, form.eta
    if isinstance(form, spline.PiecewiseLinear):
        return PiecewiseLinear(form), scale, shift
    if isinstance(form, spline.Polynomial):
        _scale_rows_(own, part, form.inverse_half_width, -form.center * form.inverse_half_width)
        return Polynomial(spline.Polynomial(np.zeros(count), np.ones(count), form.coefficients)), scale, shift
    _scale_rows_(own, part, form.inverse_step, -form.start * form.inverse_step)
    in_intervals = spline.CubicSpline(np.zeros(count), np.ones(count), form.coefficients)
    return (LinearTable if group.key.endswith(":linear") else CubicSpline)(in_intervals), scale, shift


def _scale_rows_(own: _Weights, part: slice, scale: Floats, shift: Floats) -> None:
    """Replace u by scale u + shift for the neurons in `part`."""
    own.weight[part] *= scale[:, None]
    own.bias[part] = own.bias[part] * scale + shift
