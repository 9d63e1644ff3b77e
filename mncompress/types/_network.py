"""What a network is: its activations and its shape."""

from dataclasses import dataclass
from typing import Literal, get_args

from mncompress.errors import ConfigError

Task = Literal["classification", "regression"]
Family = Literal["fixed", "meta", "vaf", "agsig", "frelu", "warp"]
Act = Literal["relu", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "softplus", "elu"]
Ends = Literal["activated", "leaky", "gated", "skip"]

FAMILIES: tuple[Family, ...] = get_args(Family)
ACTS: tuple[Act, ...] = get_args(Act)
ENDS: tuple[Ends, ...] = get_args(Ends)
RELU_LIKE: frozenset[Act] = frozenset({"relu", "leaky_relu"})
"""Inner activations that make every learned activation exactly piecewise linear."""
LEAK = 0.01
"""Slope of `leaky_relu` below 0."""


@dataclass(frozen=True)
class ActivationSpec:
    """Which activation a layer has.

    `width` and `depth` are those of the inner network and are 0 for families without one.
    """

    family: Family
    act: Act
    """The activation inside; `agsig` is a sigmoid and `frelu` a relu by definition."""
    width: int = 0
    depth: int = 0
    shared: bool = False
    """One set of parameters for the whole layer instead of one per neuron."""
    ends: Ends = "activated"
    """What the input and the output neuron of `meta` apply to z: act(z); `leaky` act(z) + 0.1 z; `gated`
    act(z) + p (z - act(z)) and `skip` act(z) + s z, with p and s learned per neuron and end."""

    def __post_init__(self) -> None:
        if self.ends != "activated" and self.family != "meta":
            raise ConfigError(f"activation {self.family!r} has no ends to choose, got ends {self.ends!r}; only 'meta' has")
        if self.family in ("meta", "vaf") and (self.width < 1 or self.depth < 1):
            raise ConfigError(f"activation {self.family!r} needs an inner width and at least one inner layer, "
                              f"got width {self.width} and {self.depth} inner layers")
        if self.family == "vaf" and self.depth != 1:
            raise ConfigError(f"activation 'vaf' has exactly one inner layer, got {self.depth}; use 'meta' for more")

    @property
    def name(self) -> str:
        """The name as on the command line, such as `fixed:relu` or `vaf`."""
        return f"{self.family}:{self.act}" if self.family in ("fixed", "warp") else self.family

    @property
    def parameters(self) -> int:
        """Learned numbers of one neuron, or of the layer where it is shared."""
        if self.family in ("meta", "vaf"):
            ends = 2 if self.ends in ("gated", "skip") else 0
            return 3 * self.width + 1 + (self.depth - 1) * (self.width**2 + self.width) + ends
        return {"agsig": 2, "frelu": 2, "warp": 4}.get(self.family, 0)


def parse_activation(text: str, *, inner: Act, width: int, depth: int, shared: bool, ends: Ends = "activated"
                     ) -> ActivationSpec:
    """Parse `meta`, `vaf`, `agsig`, `frelu`, `warp:ACT` or `fixed:ACT`; only `meta` takes the `ends`.

    Raises:
        ConfigError: the family or the activation is unknown.
    """
    family, _, act = text.partition(":")
    if family not in FAMILIES:
        raise ConfigError(f"unknown activation {text!r}; choose from meta, vaf, agsig, frelu, warp:ACT, fixed:ACT")
    if family in ("fixed", "warp"):
        if act not in ACTS:
            raise ConfigError(f"activation {text!r} needs one of {', '.join(ACTS)} after the colon, as in {family}:tanh")
        return ActivationSpec(family, act, shared=shared)
    if act:
        raise ConfigError(f"activation {text!r}: only fixed and warp take an activation after a colon; use --inner {act}")
    if family == "agsig":
        return ActivationSpec("agsig", "sigmoid", shared=shared)
    if family == "frelu":
        return ActivationSpec("frelu", "relu", shared=shared)
    return ActivationSpec(family, inner, width, depth, shared, ends if family == "meta" else "activated")


@dataclass(frozen=True)
class NetworkSpec:
    """The shape of a network: everything but its weights."""

    in_features: int
    hidden: tuple[int, ...]
    out_features: int
    activations: tuple[ActivationSpec, ...]
    """One per activated layer: the hidden layers, then the output layer where `output_activation`."""
    task: Task = "classification"
    output_activation: bool = False
    residual: bool = False
    """Add a hidden layer's input to its output wherever the two have the same width (from the second hidden layer on)."""

    def __post_init__(self) -> None:
        if min((self.in_features, self.out_features, *self.hidden)) < 1:
            raise ConfigError(f"every layer needs at least one neuron, got layers of {', '.join(map(str, self.sizes))}")
        expected = len(self.hidden) + self.output_activation
        if len(self.activations) != expected:
            raise ConfigError(f"{len(self.activations)} activations given for {expected} activated layers")
        if self.residual and not any(a == b for a, b in zip(self.hidden, self.hidden[1:], strict=False)):
            sizes = ",".join(map(str, self.hidden)) or "none"
            raise ConfigError(f"residual connections need two adjacent hidden layers of equal width, got hidden {sizes}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Features in, neurons of each hidden layer, features out."""
        return (self.in_features, *self.hidden, self.out_features)

    @property
    def parameters(self) -> int:
        """Numbers that the network learns; from the shape alone, so that an impossible one is known before it is made."""
        linear = sum((a + 1) * b for a, b in zip(self.sizes, self.sizes[1:], strict=False))
        return linear + sum(spec.parameters * (1 if spec.shared else n)
                            for spec, n in zip(self.activations, self.sizes[1:], strict=False))
