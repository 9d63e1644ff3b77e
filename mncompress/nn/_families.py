"""The activation families: modules that map `(..., n)` to `(..., n)`, elementwise along the last axis.

Every family has its own parameters per neuron, in arrays whose first axis is the neuron; `shared` families have a first
axis of 1 and broadcast it over the layer. Nothing here loops over neurons. What computes is `compute`: feature first, so that
every operation runs along the batch and inner layers are batched products, and with its parameters passed in, which may have
further axes in front: a stack of networks is one call.

| family  | formula | source |
|---------|---------|--------|
| `fixed` | act(u) | |
| `meta`  | h1 = act(w1 e(u) + b1), hl = act(Wl h(l-1) + bl) + h(l-1), y = e'(v.hL + c) | the meta-neuron |
| `vaf`   | v.act(a u + b) + c | Apicella, Isgro, Prevete 2019, doi:10.1016/j.neucom.2019.08.065 |
| `agsig` | alpha sigmoid(beta u) | Hu 1992 |
| `frelu` | relu(u + delta) + eta | Qiu, Xu, Cai 2018, doi:10.1109/ICPR.2018.8546022 |
| `warp`  | alpha act(beta u + delta) + eta | |

The ends of a `meta` are e(z) = scale act(z) + skip z, each an `End`. `activated` ones, e = act, are those of the source; the
others let z pass beside act, which at the input loses what it maps to one value, and at the output bounds what can be learned.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from mncompress.nn._acts import ACT_FUNCTIONS
from mncompress.types import ActivationSpec, Ends, Family


class LearnedActivation(nn.Module):
    """Base of all families. Parameters are zero until `initialize_activation_` draws them, and cannot be trained from there.

    Args:
        spec: family, inner activation and sizes.
        n: neurons of the layer.
    """

    def __init__(self, spec: ActivationSpec, n: int) -> None:
        super().__init__()
        self.spec = spec
        self.n = n
        self.rows = 1 if spec.shared else n
        self.act = ACT_FUNCTIONS[spec.act]

    def add_parameters(self, **shapes: tuple[int, ...]) -> None:
        """Register zero parameters of the given shapes, each with the neuron axis put in front."""
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(self.rows, *shape)))

    def select(self, indices: Sequence[int]) -> Self:
        """The same activations for a subset of the neurons, with copied parameters; `(k,)` indices to k neurons."""
        subset = type(self)(self.spec, len(indices)).to(next((p.dtype for p in self.parameters()), torch.float32))
        rows = [0] if self.spec.shared else list(indices)
        subset.load_state_dict({name: value[rows] for name, value in self.state_dict().items()})
        return subset

    def compute(self, u: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Apply the activations to pre-activations `(..., n, batch)`.

        Args:
            u: feature first, with any axes in front.
            parameters: by the names of `named_parameters`, with the same axes in front.
        """
        raise NotImplementedError

    def forward(self, u: Tensor) -> Tensor:
        """Apply the activations to pre-activations `(..., n)`."""
        y = self.compute(u.reshape(u.shape[:-1].numel(), self.n).mT.contiguous(), dict(self.named_parameters()))
        return y.mT.reshape(u.shape)

    def extra_repr(self) -> str:
        """Shown by `print(network)`."""
        return f"{self.spec.name}, n={self.n}, act={self.spec.act}, shared={self.spec.shared}"


class End(NamedTuple):
    """What an input or output neuron applies to z: scale act(z) + skip z, with numbers or tensors (n,)."""

    scale: Tensor | float
    skip: Tensor | float


Place = Literal["in", "out"]
FIXED_ENDS: Mapping[Ends, End] = {"activated": End(1.0, 0.0), "leaky": End(1.0, 0.1)}
LEARNED_ENDS: Mapping[Ends, tuple[str, Callable[[Tensor], End]]] = {
    "gated": ("gate", lambda p: End(1 - p, p)),
    "skip": ("skip", lambda s: End(1.0, s)),
}
"""The parameter's name, behind `in_` or `out_`, and the end that it makes; 0 makes an activated one."""


class Fixed(LearnedActivation):
    """act(u): the control, without parameters."""

    def compute(self, u: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        return self.act(u)


class Meta(LearnedActivation):
    """The meta-neuron: a one-input, one-output network of any depth and width, with an `End` at the input and at the output.

    Parameters: `first_weight`, `first_bias` (n, H); for each further hidden layer `weights[l]` (n, H, H), entry `to, from`, and
    `biases[l]` (n, H), with a residual connection around it; `out_weight` (n, H), `out_bias` (n,). Gated ends have `in_gate`,
    `out_gate` (n,), those with a learned skip `in_skip`, `out_skip` (n,).
    """

    first_weight: Tensor
    first_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, spec: ActivationSpec, n: int) -> None:
        super().__init__(spec, n)
        width = spec.width
        self.add_parameters(first_weight=(width,), first_bias=(width,), out_weight=(width,), out_bias=())
        if spec.ends in LEARNED_ENDS:
            name, _ = LEARNED_ENDS[spec.ends]
            self.add_parameters(**{f"in_{name}": (), f"out_{name}": ()})
        self.weights = nn.ParameterList(torch.zeros(self.rows, width, width) for _ in range(spec.depth - 1))
        self.biases = nn.ParameterList(torch.zeros(self.rows, width) for _ in range(spec.depth - 1))

    def end(self, place: Place, parameters: Mapping[str, Tensor] | None = None) -> End:
        """What the input or the output neuron applies, with the given parameters, gates and skips (n,), or its own."""
        if self.spec.ends in FIXED_ENDS:
            return FIXED_ENDS[self.spec.ends]
        name, make_end = LEARNED_ENDS[self.spec.ends]
        return make_end((parameters or dict(self.named_parameters()))[f"{place}_{name}"])

    def compute(self, u: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        return self._apply_end("out", _combine(self.hidden(u, parameters), parameters), parameters)

    def hidden(self, u: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Outputs of the last inner hidden layer, `(..., n, batch)` to `(..., n, H, batch)`."""
        h = self.act(_spread(self._apply_end("in", u, parameters), parameters))
        for layer in range(len(self.weights)):
            weight, bias = parameters[f"weights.{layer}"], parameters[f"biases.{layer}"]
            h = self.act(weight @ h + bias.unsqueeze(-1)) + h
        return h

    def _apply_end(self, place: Place, z: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        if self.spec.ends == "activated":
            return self.act(z)
        scale, skip = (x.unsqueeze(-1) if isinstance(x, Tensor) else x for x in self.end(place, parameters))
        return scale * self.act(z) + skip * z


def _spread(a: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """Pre-activations of the first inner hidden layer, `(..., n, batch)` to `(..., n, H, batch)`."""
    weight, bias = parameters["first_weight"].unsqueeze(-1), parameters["first_bias"].unsqueeze(-1)
    return torch.addcmul(bias, a.unsqueeze(-2), weight)


def _combine(h: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """The output neuron's pre-activation, `(..., n, H, batch)` to `(..., n, batch)`."""
    return (parameters["out_weight"].unsqueeze(-2) @ h).squeeze(-2) + parameters["out_bias"].unsqueeze(-1)


class Vaf(LearnedActivation):
    """One inner hidden layer between linear ends: `first_weight`, `first_bias`, `out_weight` (n, H), `out_bias` (n,).

    Source: Apicella, Isgro, Prevete 2019, doi:10.1016/j.neucom.2019.08.065.
    """

    first_weight: Tensor
    first_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, spec: ActivationSpec, n: int) -> None:
        super().__init__(spec, n)
        self.add_parameters(first_weight=(spec.width,), first_bias=(spec.width,), out_weight=(spec.width,), out_bias=())

    def compute(self, u: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        return _combine(self.act(_spread(u, parameters)), parameters)


class AGSig(LearnedActivation):
    """alpha sigmoid(beta u), parameters (n,). Source: Hu 1992."""

    alpha: Tensor
    beta: Tensor

    def __init__(self, spec: ActivationSpec, n: int) -> None:
        super().__init__(spec, n)
        self.add_parameters(alpha=(), beta=())

    def compute(self, u: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        alpha, beta = (parameters[name].unsqueeze(-1) for name in ("alpha", "beta"))
        return alpha * self.act(beta * u)


class FReLU(LearnedActivation):
    """relu(u + delta) + eta, parameters (n,). Source: Qiu, Xu, Cai 2018, doi:10.1109/ICPR.2018.8546022."""

    delta: Tensor
    eta: Tensor

    def __init__(self, spec: ActivationSpec, n: int) -> None:
        super().__init__(spec, n)
        self.add_parameters(delta=(), eta=())

    def compute(self, u: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        delta, eta = (parameters[name].unsqueeze(-1) for name in ("delta", "eta"))
        return self.act(u + delta) + eta


class Warp(LearnedActivation):
    """alpha act(beta u + delta) + eta, parameters (n,): stretch and shift of both axes."""

    alpha: Tensor
    beta: Tensor
    delta: Tensor
    eta: Tensor

    def __init__(self, spec: ActivationSpec, n: int) -> None:
        super().__init__(spec, n)
        self.add_parameters(alpha=(), beta=(), delta=(), eta=())

    def compute(self, u: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        alpha, beta, delta, eta = (parameters[name].unsqueeze(-1) for name in ("alpha", "beta", "delta", "eta"))
        return alpha * self.act(beta * u + delta) + eta


FAMILY_CLASSES: dict[Family, type[LearnedActivation]] = {
    "fixed": Fixed, "meta": Meta, "vaf": Vaf, "agsig": AGSig, "frelu": FReLU, "warp": Warp,
}


INNER_PARAMETERS: dict[Family, tuple[str | None, str | None, str | None, str | None]] = {
    "fixed": (None, None, None, None),
    "meta": ("first_weight", "first_bias", "out_weight", "out_bias"),
    "vaf": ("first_weight", "first_bias", "out_weight", "out_bias"),
    "agsig": ("beta", None, "alpha", None),
    "frelu": (None, "delta", None, "eta"),
    "warp": ("beta", "delta", "alpha", "eta"),
}
"""Each family as inner networks v.act(w1 x + b1) + c: its names of w1, b1, v and c; None where they are 1, 0, 1 and 0."""


def make_activation(spec: ActivationSpec, n: int) -> LearnedActivation:
    """Build the activation of a layer of `n` neurons with zero parameters; `initialize_` fills them."""
    return FAMILY_CLASSES[spec.family](spec, n)
