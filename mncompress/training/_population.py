"""M networks of one shape as one stacked computation.

Every parameter has a leading axis of length M; forward and backward run through `torch.func.vmap` over that axis, so the
same modules serve one network (without vmap, which would only cost) and a hundred. Replicate k of a population equals a
single network trained with the same seed and initialized as replicate k, up to rounding.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from mncompress.checkpoint import make_template
from mncompress.data import Standardization
from mncompress.nn import Network, initialize_
from mncompress.types import Init, NetworkSpec


class Population:
    """Stacked networks on one device.

    Args:
        template: a network of the right shape; its weights do not matter, its standardization does.
        parameters: body parameters by name, each (M, ...).
    """

    def __init__(self, template: Network, parameters: Mapping[str, Tensor], device: torch.device) -> None:
        self.template = template.to(device)
        self.parameters = {name: value.detach().to(device).requires_grad_() for name, value in parameters.items()}
        self.replicates = len(next(iter(self.parameters.values())))

    def forward(self, x: Tensor) -> Tensor:
        """Raw features (batch, d) to standardized outputs (M, batch, out_features)."""
        z = self.template.features(x)
        if self.replicates == 1:
            state = {name: value[0] for name, value in self.parameters.items()}
            return functional_call(self.template.body, state, (z,)).unsqueeze(0)   # type: ignore[no-any-return]
        return vmap(lambda state: functional_call(self.template.body, state, (z,)))(self.parameters)  # type: ignore[no-any-return]

    def state(self) -> dict[str, Tensor]:
        """Everything a `Network` needs, on the CPU, with stacked body parameters."""
        buffers = {name: value for name, value in self.template.state_dict().items() if not name.startswith("body.")}
        stacked = {f"body.{name}": value for name, value in self.parameters.items()}
        return {name: value.detach().cpu().clone() for name, value in (stacked | buffers).items()}


def make_population(spec: NetworkSpec, init: Init, seed: int, replicates: int, features: Standardization,
                    targets: Standardization | None, device: torch.device) -> tuple[Population, list[tuple[float, ...]]]:
    """Initialize M networks, each from its own seed.

    Returns:
        The population, and per replicate and activated layer the initial distance from the fixed activation.
    """
    states, errors = [], []
    for replicate in range(replicates):
        template = make_template(spec, features, targets)
        errors.append(tuple(initialize_(template.layers, init, _generator(seed, replicate))))
        states.append(dict(template.body.named_parameters()))
    stacked = {name: torch.stack([state[name].detach() for state in states]) for name in states[0]}
    return Population(template, stacked, device), errors


def _generator(seed: int, replicate: int) -> torch.Generator:
    """A generator whose stream is fixed by both numbers."""
    mixed = torch.randint(2**62, (replicate + 1,), generator=torch.Generator().manual_seed(seed % 2**63))
    return torch.Generator().manual_seed(int(mixed[replicate]))
