"""A network and what became of it in float64, in the original's order of neurons: the values that bounds start from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis import InnerNetworks, LayerOptions
from mncompress.calibration import BATCH_ROWS
from mncompress.compression._rewrite import FEATURES, Group, LinearMap, make_linear_maps
from mncompress.nn import Network

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Exact:
    """A network in exact arithmetic (but for float64's), on samples.

    Attributes:
        maps: what its layers read.
        inner: the learned activations of the original by layer.
        groups: what they became, by layer; everybody is kept in the original itself.
        preactivations: per layer, (rows, n).
        outputs: by source, (rows, n + units), the linear units of a map behind its neurons; those that left give zero.
    """

    maps: Sequence[LinearMap]
    inner: Mapping[int, InnerNetworks]
    groups: Mapping[int, Sequence[Group]]
    preactivations: Sequence[Floats]
    outputs: Mapping[int, Floats]


def standardize(network: Network, x: NDArray[np.generic]) -> Floats:
    """Raw features x (rows, d) as the network's layers get them."""
    shift, scale = (value.double().numpy() for value in (network.features.shift, network.features.scale))
    return np.asarray((np.asarray(x, np.float32).astype(np.float64) - shift) / scale)


def evaluate_original(network: Network, options: Sequence[LayerOptions], x: NDArray[np.generic]) -> Exact:
    """The original network on raw features.

    Args:
        network: the original.
        options: what its activations could become, per activated layer.
        x: samples, (rows, d).
    """
    positions = [position for position, layer in enumerate(network.layers) if layer.activation is not None]
    inner = {position: each.inner for position, each in zip(positions, options, strict=True)}
    kept = {position: (Group("kept", np.arange(each.n), None, np.ones(each.n, bool)),) for position, each in inner.items()}
    return _carry(network, make_linear_maps(network), inner, kept, standardize(network, x))


def evaluate_compressed(network: Network, original: Exact, groups: Sequence[Sequence[Group]], maps: Sequence[LinearMap]) -> Exact:
    """The compressed network on the samples of the original.

    Args:
        network: the original.
        original: its values.
        groups: what its activations became, per activated layer.
        maps: what the compressed network's layers read.
    """
    replaced = dict(zip(original.groups, groups, strict=True))
    return _carry(network, maps, original.inner, replaced, original.outputs[FEATURES])


def _apply(linear: LinearMap, outputs: Mapping[int, Floats]) -> Floats:
    """What a map gives on values by source, (rows, n + units)."""
    total = np.zeros((len(outputs[FEATURES]), len(linear.bias))) + linear.bias
    for source, weight in linear.weights.items():
        total += outputs[source] @ weight.T
    return total


def _carry(network: Network, maps: Sequence[LinearMap], inner: Mapping[int, InnerNetworks],
           groups: Mapping[int, Sequence[Group]], features: Floats) -> Exact:
    outputs, preactivations = {FEATURES: features}, []
    for position, (layer, linear) in enumerate(zip(network.layers, maps, strict=True)):
        values = _apply(linear, outputs)
        n = len(linear.bias) - linear.units
        preactivations.append(values[:, :n].copy())
        if position in groups:
            values[:, :n] = activate(inner[position], groups[position], preactivations[-1])
        if layer.residual:
            values[:, :n] += outputs[position - 1][:, :n]
        outputs[position] = values
    return Exact(maps, inner, groups, preactivations, outputs)


def activate(inner: InnerNetworks, groups: Sequence[Group], v: Floats) -> Floats:
    """What became of activations, at pre-activations v (rows, n)."""
    y = np.zeros_like(v)
    for group in groups:
        if not group.left:
            function = inner.select(group.indices) if group.form is None else group.form
            for first in range(0, len(v), BATCH_ROWS):
                rows = slice(first, first + BATCH_ROWS)
                y[rows, group.indices] = function.evaluate(v[rows, group.indices])
    return y
