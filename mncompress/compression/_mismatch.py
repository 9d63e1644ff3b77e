"""What a compressed network's linear maps would give on the original network's values, against what the original has there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mncompress.compression._rewrite import FEATURES, Group, LinearMap
from mncompress.compression._rows import Signals
from mncompress.nn import Network
from mncompress.spline import Affine

Floats = NDArray[np.float64]


class References:
    """The original's values on samples by source, with what the compressed network's linear units would give on them.

    Args:
        network: the original.
        maps: what the compressed network's layers read.
        signals: of the original.
    """

    def __init__(self, network: Network, maps: Sequence[LinearMap], signals: Signals) -> None:
        self.network, self.maps = network, maps
        self.features = signals.features.double().numpy()
        self._values = {FEATURES: self.features}
        shift, scale = network.features.shift.double().numpy(), network.features.scale.double().numpy()
        self._feature_size = np.abs(self.features + shift / scale) + np.abs(shift / scale)     # (|x| + |shift|) / scale
        for position, values in enumerate(signals.outputs):
            units = self.apply(maps[position], slice(maps[position].bias.size - maps[position].units, None))
            self._values[position] = np.concatenate([values.double().numpy(), units], 1)

    def __getitem__(self, source: int) -> Floats:
        """Values of a source, (rows, n + units)."""
        return self._values[source]

    def apply(self, linear: LinearMap, rows: slice) -> Floats:
        """Some of the pre-activations that a map gives on these values, (rows, k)."""
        result = np.zeros((len(self.features), len(linear.bias[rows]))) + linear.bias[rows]
        for source, weight in linear.weights.items():
            if len(linear.bias[rows]):
                result = result + self._values[source] @ weight[rows].T
        return result

    def weight(self, position: int) -> Floats:
        """The original's weights, (n, fan-in)."""
        weight: Floats = self.network.layers[position].linear.weight.detach().double().numpy()
        return weight

    def bias(self, position: int) -> Floats:
        """The original's bias, (n,)."""
        bias: Floats = self.network.layers[position].linear.bias.detach().double().numpy()
        return bias

    def fan_in(self, position: int) -> int:
        """What a layer of the original reads."""
        return self.network.layers[position].linear.in_features

    def preactivations(self, position: int) -> Floats:
        """The original's, (rows, n)."""
        weight = self.weight(position)
        return np.asarray(self._values[position - 1][:, :weight.shape[1]] @ weight.T + self.bias(position))

    def magnitudes(self, position: int) -> Floats:
        """The largest absolute output of each neuron, (n,)."""
        return np.abs(self._values[position][:, :len(self.bias(position))]).max(0)  # type: ignore[no-any-return]

    def terms(self, position: int, more: Floats | None = None) -> Floats:
        """The largest |W| |h| + |b| of a layer of the original, with |h| larger by `more`, (n,)."""
        weight = np.abs(self.weight(position))
        size = self._size(position - 1)[:, :weight.shape[1]]
        if more is not None:
            size = size + more[:weight.shape[1]]
        return (size @ weight.T).max(0) + np.abs(self.bias(position))  # type: ignore[no-any-return]

    def map_terms(self, linear: LinearMap) -> Floats:
        """The largest sum of |W| |h| over a map's sources, plus |b|, (n + units,)."""
        total = np.zeros((len(self.features), len(linear.bias)))
        for source in linear.weights:
            total = total + self._size(source) @ linear.magnitudes(source).T
        return total.max(0) + np.abs(linear.bias)  # type: ignore[no-any-return]

    def _size(self, source: int) -> Floats:
        size: Floats = self._feature_size if source == FEATURES else np.abs(self._values[source])
        return size


@dataclass(frozen=True)
class Mismatch:
    """How far the compressed network's map, on the original's values, is from the original's pre-activations.

    Attributes:
        total: over the ranges of the values, (n,).
        local: at each sample, (rows, n).
    """

    total: Floats
    local: Floats


def find_mismatch(references: References, position: int, groups: Sequence[Group], before: Mismatch | None, missed: Floats
                  ) -> Mismatch | None:
    """The mismatch of a layer; None where the map is the original's.

    Args:
        references: the original's values.
        position: of the layer.
        groups: what the neurons of the layer before became.
        before: that layer's own mismatch.
        missed: by how much the lines of its neurons that left may miss them, (n,).
    """
    linear, weight = references.maps[position], references.weight(position)
    is_own = list(linear.weights) == [position - 1]
    if is_own and np.array_equal(linear.weights[position - 1][:len(weight)], weight) and np.array_equal(
            linear.bias[:len(weight)], references.bias(position)):
        return None
    rows, n = slice(len(weight)), weight.shape[1]
    slope, intercept, left = np.zeros(n), np.zeros(n), np.zeros(n, bool)
    for group in groups:
        if group.left:
            assert isinstance(group.form, Affine)
            slope[group.indices], intercept[group.indices], left[group.indices] = group.form.slope, group.form.intercept, True
    units = linear.weights[position - 1][rows, n:]
    through = weight * slope
    change = {position - 1: (linear.weights[position - 1][rows, :n] - weight) * ~left}
    constant = linear.bias[rows] - references.bias(position) - weight @ (intercept * left)
    if position:        # the features have no layer before
        previous = references.maps[position - 1]
        constant = constant - through @ previous.bias[:n] + units @ previous.bias[n:]
        for source, block in previous.weights.items():
            change[source] = units @ block[n:] - through @ block[:n]
    for source, block in linear.weights.items():
        if source != position - 1:
            change[source] = change.get(source, 0.0) + block[rows]
    center, spread = constant, np.zeros(len(weight))
    for source, coefficient in change.items():
        values = references[source][:, :coefficient.shape[1]]
        low, high = values.min(0), values.max(0)
        center = center + coefficient @ ((low + high) / 2)
        spread = spread + np.abs(coefficient) @ ((high - low) / 2)
    carried = np.zeros(n) if not position else missed * left + np.abs(slope) * (before.total if before is not None else 0.0)
    local = np.abs(references.apply(linear, rows) - references.preactivations(position))
    return Mismatch(np.abs(center) + spread + np.abs(weight) @ (carried * left), local)
