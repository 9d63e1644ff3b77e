"""The activation families: modules that map `(..., n)` to `(..., n)`, elementwise along the last axis.

Every family has its own parameters per neuron, in arrays whose first axis is the neuron; `shared` families have a first
axis of 1 and broadcast it over the layer. Nothing here loops over neurons.

| family  | formula | source |
|---------|---------|--------|
| `fixed` | act(u) | |
| `meta`  | h1 = act(w1 act(u) + b1), hl = act(Wl h(l-1) + bl) + h(l-1), y = act(v.hL + c) | the meta-neuron |
| `vaf`   | v.act(a u + b) + c | Apicella, Isgro, Prevete 2019, doi:10.1016/j.neucom.2019.08.065 |
| `agsig` | alpha sigmoid(beta u) | Hu 1992 |
| `frelu` | relu(u + delta) + eta | Qiu, Xu, Cai 2018, doi:10.1109/ICPR.2018.8546022 |
| `warp`  | alpha act(beta u + delta) + eta | |
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from mncompress.nn._acts import ACT_FUNCTIONS
from mncompress.types import ActivationSpec, Family


class LearnedActivation(nn.Module):
    """Base of all families.

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

    def extra_repr(self) -> str:
        """Shown by `print(network)`."""
        return f"{self.spec.name}, n={self.n}, act={self.spec.act}, shared={self.spec.shared}"


class Fixed(LearnedActivation):
    """act(u): the control, without parameters."""

    def forward(self, u: Tensor) -> Tensor:
        """Apply the activation to pre-activations `(..., n)`."""
        return self.act(u)


class Meta(LearnedActivation):
    """The meta-neuron: a one-input, one-output network of any depth and width, activated at both ends.

    Parameters: `first_weight`, `first_bias` (n, H); for each further hidden layer `weights[l]` (n, H, H) as [to][from] and
    `biases[l]` (n, H), with a residual connection around it; `out_weight` (n, H), `out_bias` (n,).
    """

    first_weight: Tensor
    first_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, spec: ActivationSpec, n: int) -> None:
        super().__init__(spec, n)
        width = spec.width
        self.add_parameters(first_weight=(width,), first_bias=(width,), out_weight=(width,), out_bias=())
        self.weights = nn.ParameterList(torch.zeros(self.rows, width, width) for _ in range(spec.depth - 1))
        self.biases = nn.ParameterList(torch.zeros(self.rows, width) for _ in range(spec.depth - 1))

    def hidden(self, u: Tensor) -> Tensor:
        """Outputs of the last inner hidden layer, `(..., n)` to `(..., n, H)`."""
        h = self.act(self.act(u).unsqueeze(-1) * self.first_weight + self.first_bias)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = self.act(torch.einsum("...nh,ngh->...ng", h, weight.expand(self.n, -1, -1)) + bias) + h
        return h

    def forward(self, u: Tensor) -> Tensor:
        """Apply the activations to pre-activations `(..., n)`."""
        return self.act((self.hidden(u) * self.out_weight).sum(-1) + self.out_bias)


class Vaf(LearnedActivation):
    """One inner hidden layer between linear ends: `first_weight`, `first_bias`, `out_weight` (n, H), `out_bias` (n,)."""

    first_weight: Tensor
    first_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, spec: ActivationSpec, n: int) -> None:
        super().__init__(spec, n)
        self.add_parameters(first_weight=(spec.width,), first_bias=(spec.width,), out_weight=(spec.width,), out_bias=())

    def forward(self, u: Tensor) -> Tensor:
        """Apply the activations to pre-activations `(..., n)`."""
        h = self.act(u.unsqueeze(-1) * self.first_weight + self.first_bias)
        return (h * self.out_weight).sum(-1) + self.out_bias


class AGSig(LearnedActivation):
    """alpha sigmoid(beta u), parameters (n,)."""

    alpha: Tensor
    beta: Tensor

    def __init__(self, spec: ActivationSpec, n: int) -> None:
        super().__init__(spec, n)
        self.add_parameters(alpha=(), beta=())

    def forward(self, u: Tensor) -> Tensor:
        """Apply the activations to pre-activations `(..., n)`."""
        return self.alpha * self.act(self.beta * u)


class FReLU(LearnedActivation):
    """relu(u + delta) + eta, parameters (n,)."""

    delta: Tensor
    eta: Tensor

    def __init__(self, spec: ActivationSpec, n: int) -> None:
        super().__init__(spec, n)
        self.add_parameters(delta=(), eta=())

    def forward(self, u: Tensor) -> Tensor:
        """Apply the activations to pre-activations `(..., n)`."""
        return self.act(u + self.delta) + self.eta


class Warp(LearnedActivation):
    """alpha act(beta u + delta) + eta, parameters (n,): stretch and shift of both axes."""

    alpha: Tensor
    beta: Tensor
    delta: Tensor
    eta: Tensor

    def __init__(self, spec: ActivationSpec, n: int) -> None:
        super().__init__(spec, n)
        self.add_parameters(alpha=(), beta=(), delta=(), eta=())

    def forward(self, u: Tensor) -> Tensor:
        """Apply the activations to pre-activations `(..., n)`."""
        return self.alpha * self.act(self.beta * u + self.delta) + self.eta


FAMILY_CLASSES: dict[Family, type[LearnedActivation]] = {
    "fixed": Fixed, "meta": Meta, "vaf": Vaf, "agsig": AGSig, "frelu": FReLU, "warp": Warp,
}


def make_activation(spec: ActivationSpec, n: int) -> LearnedActivation:
    """Build the activation of a layer of `n` neurons with zero parameters; `initialize_` fills them."""
    return FAMILY_CLASSES[spec.family](spec, n)
