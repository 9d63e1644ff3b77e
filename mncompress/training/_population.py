"""M networks of one shape as one stacked computation.

All parameters lie in one vector: for each parameter a block of shape (M, ...), so that the optimizer steps through memory
once. Values are feature first, (M, features, batch): linear layers are batched products of weights as they are stored, the
first one a single product for all networks where they see the same batch, and activations run along the batch. Replicate k
equals a single network trained with the same seed and initialized as replicate k, up to rounding.
"""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mncompress.checkpoint import make_template
from mncompress.data import Standardization
from mncompress.nn import Layer, LearnedActivation, Network, fused_activation, fused_available, initialize_
from mncompress.types import Init, NetworkSpec

NORM_MOMENTUM = 0.1
NORM_EPS = 1e-5


class Population:
    """Stacked networks on one device.

    Args:
        template: a network of the right shape; its weights do not matter, its standardization does.
        parameters: body parameters by name, each (M, ...).
        batch_norm: normalize the pre-activations of activated layers. Each then has a parameter `I.norm.weight` (M, n), the
            linear layer's bias comes after the normalization, and `statistics` has its running mean and variance (M * n,).

    Attributes:
        flat: every parameter in one vector; `flat.grad` likewise.
        parameters: views of `flat` by name, each (M, ...), that collect gradients in views of `flat.grad`.
    """

    def __init__(self, template: Network, parameters: Mapping[str, Tensor], device: torch.device, batch_norm: bool = False) -> None:
        self.template = template.to(device)
        self.replicates = len(next(iter(parameters.values())))
        parameters = dict(parameters)
        self.statistics: dict[str, Tensor] = {}
        for position, layer in enumerate(template.layers if batch_norm else []):
            if layer.activation is not None:
                n = layer.linear.out_features
                parameters[f"{position}.norm.weight"] = torch.ones(self.replicates, n)
                self.statistics[f"{position}.norm.mean"] = torch.zeros(self.replicates * n, device=device)
                self.statistics[f"{position}.norm.variance"] = torch.ones(self.replicates * n, device=device)
        self.flat = torch.cat([value.detach().flatten().float() for value in parameters.values()]).to(device)
        self.flat.grad = torch.zeros_like(self.flat)
        self.parameters, start = {}, 0
        for name, value in parameters.items():
            view = self.flat[start:start + value.numel()].view(value.shape).requires_grad_()
            view.grad = self.flat.grad[start:start + value.numel()].view(value.shape)
            self.parameters[name], start = view, start + value.numel()

    def forward(self, x: Tensor, *, training: bool = False) -> Tensor:
        """Standardized features (d, batch), or (M, d, batch), to standardized outputs (M, out_features, batch)."""
        h = x
        for position, layer in enumerate(self.template.layers):
            u = self._linear(position, h, training)
            y = u if layer.activation is None else self._activate(position, layer, u)
            h = y + h if layer.residual else y
        return h

    def _linear(self, position: int, h: Tensor, training: bool) -> Tensor:
        weight, bias = self.parameters[f"{position}.linear.weight"], self.parameters[f"{position}.linear.bias"]
        if f"{position}.norm.weight" in self.parameters:
            return self._normalize(position, torch.matmul(weight, h), bias, training)
        if h.ndim == 2:
            return torch.addmm(bias.view(-1, 1), weight.flatten(0, 1), h).view(*bias.shape, -1)
        return torch.baddbmm(bias.unsqueeze(-1), weight, h)

    def _normalize(self, position: int, u: Tensor, bias: Tensor, training: bool) -> Tensor:
        name = f"{position}.norm"
        channels = F.batch_norm(
            u.reshape(1, -1, u.shape[-1]), self.statistics[f"{name}.mean"], self.statistics[f"{name}.variance"],
            self.parameters[f"{name}.weight"].flatten(), bias.flatten(), training and u.shape[-1] > 1, NORM_MOMENTUM, NORM_EPS)
        return channels.view(u.shape)

    def _activate(self, position: int, layer: Layer, u: Tensor) -> Tensor:
        assert isinstance(layer.activation, LearnedActivation)
        prefix = f"{position}.activation."
        own = {name.removeprefix(prefix): value for name, value in self.parameters.items() if name.startswith(prefix)}
        if not fused_available(u.device, layer.activation.spec):
            return layer.activation.compute(u, own)
        n = layer.activation.n
        stacked = {name: value.expand(-1, n, *value.shape[2:]).flatten(0, 1) for name, value in own.items()}
        return fused_activation(layer.activation, stacked, u.flatten(0, 1).T).T.view(u.shape)

    @torch.no_grad()
    def networks(self) -> dict[str, Tensor]:
        """The parameters of plain networks by name, each (M, ...), normalizations folded."""
        state = {name: value.detach().clone() for name, value in self.parameters.items()}
        for name in [name for name in state if name.endswith(".norm.weight")]:
            position = name.split(".")[0]
            weight, bias = state[f"{position}.linear.weight"], state[f"{position}.linear.bias"]
            mean = self.statistics[f"{position}.norm.mean"].view(bias.shape)
            variance = self.statistics[f"{position}.norm.variance"].view(bias.shape)
            gain = state.pop(name) * torch.rsqrt(variance + NORM_EPS)
            weight.mul_(gain.unsqueeze(-1))
            bias.sub_(gain * mean)
        return state

    def state(self, networks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Everything a `Network` needs, on the CPU, from what `networks` returned: stacked tensors (M, ...)."""
        buffers = {name: value for name, value in self.template.state_dict().items() if not name.startswith("body.")}
        stacked = {f"body.{name}": value for name, value in networks.items()}
        return {name: value.detach().cpu().clone() for name, value in (stacked | buffers).items()}


def make_population(spec: NetworkSpec, inits: Iterable[tuple[Init, int]], seed: int, features: Standardization,
                    targets: Standardization | None, device: torch.device,
                    batch_norm: bool = False) -> tuple[Population, list[tuple[float, ...]]]:
    """Initialize M networks, each from its own seed.

    Args:
        spec: the shape of all.
        inits: how to initialize each network, and the number that it is seeded with beside `seed`.
        seed: of the run.
        features: standardization of the features.
        targets: standardization of the targets, or None for classification.
        device: where the networks live.
        batch_norm: see `Population`.

    Returns:
        The population, and per replicate and activated layer the initial distance from the fixed activation.
    """
    states, errors = [], []
    for init, replicate in inits:
        template = make_template(spec, features, targets)
        errors.append(tuple(initialize_(template.layers, init, _generator(seed, replicate))))
        states.append(dict(template.body.named_parameters()))
    stacked = {name: torch.stack([state[name].detach() for state in states]) for name in states[0]}
    return Population(template, stacked, device, batch_norm), errors


def _generator(seed: int, replicate: int) -> torch.Generator:
    """A generator whose stream is fixed by both numbers."""
    mixed = torch.randint(2**62, (replicate + 1,), generator=torch.Generator().manual_seed(seed % 2**63))
    return torch.Generator().manual_seed(int(mixed[replicate]))
