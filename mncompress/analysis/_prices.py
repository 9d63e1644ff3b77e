"""What a form costs in ONNX Runtime's CPU provider, one thread, by target.

Nanoseconds per sample and neuron, at a batch of 32. Tables, polynomials and kinks in standard operators are as
`benchmarks/forms.py` measures them, those of the kernels as `benchmarks/latency.py` does, the rest is estimated; only their order
of magnitude matters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from mncompress.types import Act

NODE_NS = 25.0
"""Of one operator."""
SPLIT_NS, SPLIT_NODES = 0.3, 2
"""Of splitting and joining a layer with more than one form, per neuron."""

UNIT_NS, DEEP_UNIT_NS, KEPT_NODES = 0.45, 2.4, 3
"""Of an inner network that is kept: per unit of its first layer, beside the act, and of each further one; and operators of a layer
of it."""

_NATIVE_ACTS = {"constant": -1.0, "affine": 0.0, "native:relu": 0.1, "native:leaky_relu": 0.2, "native:sigmoid": 0.3,
                "native:tanh": 0.3, "native:silu": 0.4, "native:gelu": 0.7, "native:softplus": 3.0, "native:elu": 1.5}
_NATIVE_NODES = {"constant": 0, "affine": 0, "native:relu": 0, "native:leaky_relu": 0, "native:sigmoid": 0, "native:tanh": 0,
                 "native:softplus": 0, "native:elu": 0, "native:silu": 2}
"""ONNX Runtime computes most acts that are one operator together with the Gemm before them, and makes gelu one operator."""


@dataclass(frozen=True)
class Prices:
    """The prices of one target.

    Attributes:
        element: by an option's key, per neuron.
        knot: of a piecewise-linear form, for each knot of the neuron with the most.
        nodes: operators of a form; 1 where it is not named.
    """

    element: Mapping[str, float]
    knot: float
    nodes: dict[str, int]


PRICES: Mapping[Literal["native", "portable"], Prices] = {
    "portable": Prices({**_NATIVE_ACTS, "polynomial": 2.2, "cubic_spline:linear": 2.4, "cubic_spline": 5.2}, 0.6,
                       {**_NATIVE_NODES, "polynomial": 14, "cubic_spline:linear": 7, "cubic_spline": 17, "piecewise_linear": 8,
                        "piecewise_linear:reduced": 8}),
    # A kernel computes the layer before it too, so it takes no node of its own.
    "native": Prices({**_NATIVE_ACTS, "polynomial": 2.2, "cubic_spline": 0.4}, 0.04,
                     {**_NATIVE_NODES, "polynomial": 14, "cubic_spline": 0, "piecewise_linear": 0, "piecewise_linear:reduced": 0}),
}
_NATIVE = PRICES["native"]
PRICES_IN_ONE_NODE = replace(_NATIVE, nodes=_NATIVE.nodes | {
    key: _NATIVE.nodes.get(key, 1) + 1 for key in _NATIVE_ACTS if key.startswith("native:")})
"""In a network that kernels alone make a single node: an act among them makes two or three of it."""


def price_of_keeping(neurons: int, width: int, depth: int, act: Act) -> float:
    """What `neurons` learned activations of a layer cost as they were trained, in the faster of their forms."""
    if neurons == 0:
        return 0.0
    return KEPT_NODES * depth * NODE_NS + neurons * width * (UNIT_NS + _NATIVE_ACTS[f"native:{act}"] + (depth - 1) * DEEP_UNIT_NS)
