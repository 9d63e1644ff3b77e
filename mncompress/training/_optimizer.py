"""The optimizer of a population: AdamW on slices of its parameter vector, and the learning rate over the steps."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from mncompress.training._population import Population
from mncompress.types import Schedule, TrainConfig

BETAS = 0.9, 0.999


class Adam:
    """AdamW with a learning rate and a weight decay for each slice of the parameter vector, of as few slices as there can be.

    Args:
        population: networks in the order of `configs`.
        configs: each stands for its `replicates` networks.

    Attributes:
        first, second: the moments, vectors like `population.flat`.
        steps: how many steps each slice has behind it.
    """

    def __init__(self, population: Population, configs: Sequence[TrainConfig]) -> None:
        self.slices: dict[tuple[float, float], list[list[int]]] = {}
        """Start and stop, by learning rate and weight decay."""
        start = 0
        for name, value in population.parameters.items():
            size = value.numel() // population.replicates
            for config in configs:
                stop = start + size * config.replicates
                slices = self.slices.setdefault(rate_and_decay(name, config), [])
                if slices and slices[-1][1] == start:
                    slices[-1][1] = stop
                else:
                    slices.append([start, stop])
                start = stop
        self.flat = population.flat
        self.first, self.second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.steps = torch.zeros(sum(map(len, self.slices.values())), device=self.flat.device)

    def state(self) -> dict[str, Tensor]:
        """What steps change, but for the parameters."""
        return {"first": self.first, "second": self.second, "steps": self.steps}

    def count_steps(self, steps: int) -> None:
        """Take note of how many steps have been done with the moments, elsewhere."""
        self.steps.fill_(steps)

    def step(self, factor: Tensor | None = None) -> None:
        """A step along the gradients, by torch; `factor` multiplies the learning rates."""
        if factor is not None:
            for group in self._torch.param_groups:
                group["lr"].copy_(group["rate"] * factor)
        self._torch.step()

    @cached_property
    def _torch(self) -> torch.optim.AdamW:
        """Made where it is used: it imports torch's compiler, which takes longer than training a small network."""
        device = self.flat.device
        optimizer = torch.optim.AdamW(
            [{"params": [_slice(self.flat, a, b) for a, b in slices], "lr": torch.tensor(rate, device=device), "rate": rate,
              "weight_decay": decay} for (rate, decay), slices in self.slices.items()],
            betas=BETAS, fused=True, capturable=device.type == "cuda")
        values = (value for group in optimizer.param_groups for value in group["params"])
        for value, step in zip(values, self.steps, strict=True):
            start = value.storage_offset()
            optimizer.state[value] = {"step": step, "exp_avg": self.first[start:start + len(value)],
                                      "exp_avg_sq": self.second[start:start + len(value)]}
        return optimizer


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
