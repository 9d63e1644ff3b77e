"""From a torch activation module to plain float64 arrays, one inner network per neuron."""

import numpy as np
import torch
from torch import Tensor

from mncompress import nn
from mncompress.analysis._inner import LINEAR, Array, End, InnerNetworks, from_native
from mncompress.nn import LearnedActivation, Meta
from mncompress.spline import Native


def make_inner_networks(activation: LearnedActivation) -> InnerNetworks:
    """The inner networks of a layer's n neurons; shared parameters are repeated, parametric families have width 1."""
    def rows(value: Tensor) -> Array:
        array = value.detach().cpu().double().numpy()
        return np.array(np.broadcast_to(array, (activation.n, *array.shape[1:])))

    state = {name: rows(value) for name, value in activation.named_parameters()}
    act, n = activation.spec.act, activation.n
    if activation.spec.family in ("meta", "vaf"):
        weights = tuple(rows(value) for value in activation.weights) if isinstance(activation, Meta) else ()
        biases = tuple(rows(value) for value in activation.biases) if isinstance(activation, Meta) else ()
        ends = LINEAR, LINEAR
        if isinstance(activation, Meta):
            exact = {name: value.double() for name, value in activation.named_parameters()}
            ends = _as_end(activation.end("in", exact)), _as_end(activation.end("out", exact))
        return InnerNetworks(act, ends, state["first_weight"], (state["first_bias"], *biases), weights, state["out_weight"],
                             state["out_bias"])
    ones, zeros = np.ones(n), np.zeros(n)
    return from_native(Native(act, state.get("alpha", ones), state.get("beta", ones), state.get("delta", zeros),
                              state.get("eta", zeros)))


def _as_end(end: nn.End) -> End:
    scale, skip = (np.atleast_1d(torch.as_tensor(factor, dtype=torch.float64).detach().cpu().numpy()) for factor in end)
    return End(*np.broadcast_arrays(scale, skip))
