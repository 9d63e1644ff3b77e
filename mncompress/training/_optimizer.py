"""The optimizer of a population: AdamW on slices of its parameter vector, and the learning rate over the steps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mncompress.training._population import Population
from mncompress.types import Schedule, TrainConfig


class Adam(torch.optim.AdamW):
    """AdamW with a parameter group for each learning rate and weight decay, made of as few slices of the vector as there can be.

    Args:
        population: networks in the order of `configs`.
        configs: each stands for its `replicates` networks.

    Attributes:
        first, second: the moments, vectors like `population.flat`; what the optimizer keeps of its slices are views of them.
    """

    def __init__(self, population: Population, configs: Sequence[TrainConfig]) -> None:
        groups: dict[tuple[float, float], list[list[int]]] = {}
        start = 0
        for name, value in population.parameters.items():
            size = value.numel() // population.replicates
            for config in configs:
                stop = start + size * config.replicates
                slices = groups.setdefault(rate_and_decay(name, config), [])
                if slices and slices[-1][1] == start:
                    slices[-1][1] = stop
                else:
                    slices.append([start, stop])
                start = stop
        flat = population.flat
        super().__init__(
            [{"params": [_slice(flat, a, b) for a, b in slices], "lr": torch.tensor(rate, device=flat.device), "rate": rate,
              "weight_decay": decay} for (rate, decay), slices in groups.items()],
            fused=True, capturable=flat.device.type == "cuda")
        self.first, self.second = torch.zeros_like(flat), torch.zeros_like(flat)
        for value in (value for group in self.param_groups for value in group["params"]):
            start = value.storage_offset()
            self.state[value] = {"step": torch.zeros((), device=flat.device), "exp_avg": self.first[start:start + len(value)],
                                 "exp_avg_sq": self.second[start:start + len(value)]}

    def count_steps(self, steps: int) -> None:
        """Take note of how many steps have been done with the moments, elsewhere."""
        for slot in self.state.values():
            slot["step"].fill_(steps)


def _slice(flat: Tensor, start: int, stop: int) -> Tensor:
    assert flat.grad is not None
    view = flat[start:stop].requires_grad_()
    view.grad = flat.grad[start:stop]
    return view


def rate_and_decay(name: str, config: TrainConfig) -> tuple[float, float]:
    """The learning rate, before the schedule, and the weight decay of the parameter of that name."""
    return (config.lr * (config.activation_lr if ".activation." in name else 1.0),
            config.weight_decay if name.endswith("linear.weight") else 0.0)


def rate_factor(schedule: Schedule, step: Tensor, steps: int, warmup_steps: int) -> Tensor:
    """What multiplies the learning rate at `step` (from 0) of `steps`: rising linearly over the warm-up, then as scheduled."""
    done = (step.double() - warmup_steps) / (steps - warmup_steps)
    factor = {"constant": torch.ones_like(done), "linear": 1 - done, "cosine": (1 + torch.cos(torch.pi * done)) / 2}[schedule]
    return torch.where(step < warmup_steps, (step + 1) / (warmup_steps + 1), factor)
