"""Feed-forward networks: standardization, layers (linear, activation, optional residual), and its inverse at the output.

The same class holds a trained network and its compressed forms: only the activation modules differ.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mncompress.nn._families import make_activation
from mncompress.types import ActivationSpec, NetworkSpec

LARGEST_FOLDED_OFFSET = 64.0
"""Of a feature's shift, in units of its scale: beyond, folding into float32 weights loses more than six bits."""


class Standardize(nn.Module):
    """(x - shift) / scale, with constants that are exactly float32 so that every later form folds the same numbers.

    Args:
        shift: float array (d,).
        scale: likewise, positive.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: NDArray[np.floating], scale: NDArray[np.floating]) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(np.asarray(shift, np.float32)))
        self.register_buffer("scale", torch.tensor(np.asarray(scale, np.float32)))

    @property
    def is_far(self) -> bool:
        """Whether a feature is so far from zero that files subtract the shifts, and do not fold them into the first layer."""
        return bool((self.shift / self.scale).abs().max() > LARGEST_FOLDED_OFFSET)

    def forward(self, x: Tensor) -> Tensor:
        """Raw features `(..., d)`, uint8 or float, to standardized ones."""
        return (x.to(self.shift.dtype) - self.shift) / self.scale

    def invert(self, z: Tensor) -> Tensor:
        """Standardized values `(..., d)` to raw ones."""
        return z * self.scale + self.shift


class Layer(nn.Module):
    """linear, then an elementwise activation (or none); then the layer's input added where `residual`, or appended where `passes`.

    A layer that passes its input on is what a bypass begins with: the next layer's weights read both.
    """

    def __init__(self, linear: nn.Linear, activation: nn.Module | None, residual: bool = False, passes: bool = False) -> None:
        super().__init__()
        assert not (residual and passes)
        self.linear = linear
        self.activation = activation
        self.residual = residual
        self.passes = passes

    def forward(self, h: Tensor) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`, or to `(..., out_features + in_features)` where it passes its input."""
        return self.activate(self.linear(h), h)

    def activate(self, u: Tensor, h: Tensor) -> Tensor:
        """The layer's output from its pre-activations `u` (batch, n) and its input `h` (batch, inputs)."""
        y = u if self.activation is None else self.activation(u)
        if self.passes:
            return torch.cat([y, h], -1)
        return y + h if self.residual else y


class Network(nn.Module):
    """A network on raw features and targets.

    Args:
        spec: the shape it was trained with.
        layers: from the features to the output.
        features: standardization of the features.
        targets: standardization of the targets, inverted at the output; None for classification.
    """

    def __init__(self, spec: NetworkSpec, layers: list[Layer], features: Standardize, targets: Standardize | None) -> None:
        super().__init__()
        self.spec = spec
        self.features = features
        self.body = nn.Sequential(*layers)
        self.targets = targets

    @property
    def layers(self) -> list[Layer]:
        """All layers in order."""
        return list(self.body)  # type: ignore[arg-type]

    @property
    def output_scale(self) -> Tensor:
        """The size of each output, (out_features,): the scale of the targets, or 1 of logits."""
        return torch.ones(self.spec.out_features) if self.targets is None else self.targets.scale

    @property
    def activated_layers(self) -> list[Layer]:
        """The layers that have an activation, in order: what decisions and reports count as layer 0, 1, ..."""
        return [layer for layer in self.layers if layer.activation is not None]

    def forward(self, x: Tensor) -> Tensor:
        """Raw features `(batch, in_features)` to logits `(batch, classes)` or targets in their own units."""
        y = self.body(self.features(x))
        return y if self.targets is None else self.targets.invert(y)

    def preactivations(self, x: Tensor) -> list[Tensor]:
        """What each activated layer's activation is given: a list of `(batch, n)`."""
        h, found = self.features(x), []
        for layer in self.layers:
            u = layer.linear(h)
            if layer.activation is not None:
                found.append(u)
            h = layer.activate(u, h)
        return found


def make_linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer of uninitialized weights; torch's `skip_init` does this with an import of half a second."""
    linear = nn.Linear(1, 1, device="meta")
    linear.in_features, linear.out_features = in_features, out_features         # torch warns of a layer of no neurons
    linear.weight, linear.bias = nn.Parameter(torch.empty(out_features, in_features)), nn.Parameter(torch.empty(out_features))
    return linear


def make_body(spec: NetworkSpec) -> list[Layer]:
    """Layers of the given shape with uninitialized linear weights and zero activation parameters."""
    layers: list[Layer] = []
    activations = iter(spec.activations)
    for position, (fan_in, fan_out) in enumerate(zip(spec.sizes, spec.sizes[1:], strict=False)):
        hidden = position < len(spec.hidden)
        linear = make_linear(fan_in, fan_out)
        activation = make_activation(next(activations), fan_out) if hidden or spec.output_activation else None
        layers.append(Layer(linear, activation, residual=spec.residual and hidden and position > 0 and fan_in == fan_out))
    return layers


def make_relu_twin(network: Network) -> Network:
    """The same network with every activation replaced by ReLU: the floor of cost that a compressed network is held to."""
    layers = [Layer(layer.linear, None if layer.activation is None else
                    make_activation(ActivationSpec("fixed", "relu"), layer.linear.out_features), layer.residual, layer.passes)
              for layer in network.layers]
    return Network(network.spec, layers, network.features, network.targets)
