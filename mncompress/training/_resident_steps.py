"""Optimizer steps without the host: a Triton program trains a network for many of them, as `_network_kernel` says."""

from collections.abc import Sequence

import torch

from mncompress.training._fused_steps import FusedStepper, pad
from mncompress.training._optimizer import Adam
from mncompress.training._population import Population
from mncompress.training._steps import DeviceSplit
from mncompress.types import Task, TrainConfig

MAX_VALUES = 4096
"""Of a layer for a whole batch, or of weights at a time: what shared memory has room for, and registers with little spilling."""
FEW_FEATURES = 128
"""Up to which a program reads its rows alone even where they are float32; pixels take a quarter of that."""
MAX_NEURONS = 64
"""Of a layer: more are work enough for several programs."""
MAX_READ = 2**14
"""Features of all rows at a time."""
TILE, FLOATS = {True: 128, False: 32}, 256
"""Features at a time at most, of pixels and of others; and other parameters at a time."""


def can_stay(population: Population, config: TrainConfig, split: DeviceSplit) -> bool:
    """Whether a `ResidentStepper` suits these networks, which can be fused."""
    batch = pad(min(config.batch_size, len(split.y)))
    widest = max(pad(layer.linear.out_features) for layer in population.template.layers)
    return (widest <= MAX_NEURONS and batch * widest <= MAX_VALUES
            and (split.pixels is not None or split.raw.shape[1] <= FEW_FEATURES))


class ResidentStepper(FusedStepper):
    """Trains a population whose networks are small enough for a program each."""

    def __init__(self, population: Population, optimizer: Adam, split: DeviceSplit, configs: Sequence[TrainConfig],
                 task: Task) -> None:
        super().__init__(population, optimizer, split, configs, task)
        self.gradients = self._zeros(population.replicates, self.floats)

    def _steps(self, start: int, sizes: Sequence[int]) -> None:
        from mncompress.training._network_kernel import train

        networks, batch = self.population.replicates, self.sizes[0]
        flat, first, second = self.population.flat, self.optimizer.first, self.optimizer.second
        rows = pad(batch)
        widest = max(pad(layer.linear.out_features) for layer in self.population.template.layers)
        tile = min(TILE[self.parts > 0], MAX_READ // rows, MAX_VALUES // widest, pad(self.features))
        with torch.cuda.device_of(flat):
            train[networks,](
                self.x, self.x.shape[1], self.shift, self.factor, self.split.y, self.order, self.stride, flat, first, second,
                self.gradients, self.total, self.schedule, self.rates, self.decays, self.place, self.spread, self.kind, start,
                len(sizes), len(self.split.y), batch, networks, self.features, self.floats, LAYER=self.layer, R=rows,
                K=tile, FLOATS=FLOATS, CLASSIFY=self.task == "classification", PARTS=self.parts, PRECISION=self.precision,
                num_warps=8 if widest * rows >= MAX_VALUES // 2 else 4)
