"""Optimizer steps that keep every input and counter on the device.

A step reads its batch's rows at a position that it advances itself, and computes its learning rate from a counter, so nothing
comes from the host; on CUDA the whole step, data gathering included, is captured as a graph and replayed. Elsewhere the same
code runs as it stands.
"""

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mncompress.nn import Standardize
from mncompress.training._metrics import loss_per_replicate
from mncompress.training._optimizer import Adam, rate_factor
from mncompress.training._population import Population
from mncompress.types import Task, TrainConfig

EAGER_STEPS = 3
"""Steps before the capture, in which libraries allocate what they keep."""


@dataclass(frozen=True)
class Pixels:
    """Features that are whole numbers of 8 bits, and alike: standardized they are (values - shift) * factor."""

    values: Tensor
    """(n, d), uint8."""
    shift: float
    factor: float


@dataclass(frozen=True)
class DeviceSplit:
    """A split on the device."""

    raw: Tensor
    """Features as they are stored, (n, d), uint8 or float."""
    features: Standardize
    y: Tensor
    """Labels (n,), or standardized targets (n, out_features)."""

    @functools.cached_property
    def x(self) -> Tensor:
        """Standardized features (n, d), float32: four times as many bytes as pixels."""
        x: Tensor = self.features(self.raw)
        return x

    @functools.cached_property
    def pixels(self) -> Pixels | None:
        """The features, if they are pixels."""
        shift, scale = self.features.shift, self.features.scale
        alike = self.raw.dtype == torch.uint8 and bool((shift == shift[0]).all() and (scale == scale[0]).all())
        return Pixels(self.raw.contiguous(), float(shift[0]), 1 / float(scale[0])) if alike else None


class Stepper:
    """Trains a population on a split, step by step.

    Attributes:
        sizes: rows of each step of an epoch.
        total: each network's sum of the losses of the epoch's rows so far, (M,).
    """

    def __init__(self, population: Population, optimizer: Adam, split: DeviceSplit, config: TrainConfig, task: Task) -> None:
        self.population, self.optimizer, self.split, self.task = population, optimizer, split, task
        self.sizes = batch_sizes(len(split.y), config.batch_size)
        self.batch_size, steps = self.sizes[0], len(self.sizes)
        self.schedule, self.scheduled = config.schedule, config.schedule != "constant" or config.warmup > 0
        self.steps, self.warmup_steps = config.epochs * steps, config.warmup * steps
        device = population.flat.device
        rows = (len(split.y),) if config.order == "shared" else (population.replicates, len(split.y))
        self.order = torch.zeros(rows, dtype=torch.long, device=device)
        self.offsets = torch.arange(self.batch_size, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.step_count = torch.zeros(1, dtype=torch.long, device=device)
        self.total = torch.zeros(population.replicates, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.eager_steps = EAGER_STEPS if device.type == "cuda" else -1

    def start_epoch(self, order: Tensor, epoch: int) -> None:
        """Begin an epoch: `order` are the rows, (n,) or (M, n), `epoch` counts from 0."""
        self.order.copy_(order)
        self.position.zero_()
        self.step_count.fill_(epoch * len(self.sizes))
        self.total.zero_()

    def run_epoch(self) -> Iterator[int]:
        """The steps of the epoch that was started; yields how many are done."""
        for step, size in enumerate(self.sizes):
            self._run(size)
            yield step + 1

    def _run(self, size: int) -> None:
        if self.graph is not None and size == self.batch_size:
            self.graph.replay()
        elif self.eager_steps == 0 and size == self.batch_size:
            self._capture()
        else:
            self._step(size)
            self.eager_steps -= size == self.batch_size

    def _step(self, size: int) -> None:
        rows = self.order.index_select(-1, self.position + self.offsets[:size])
        x = self.split.x.index_select(0, rows.flatten()).unflatten(0, rows.shape).mT
        y = self.split.y.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        assert self.population.flat.grad is not None
        self.population.flat.grad.zero_()
        losses = loss_per_replicate(self.population.forward(x, training=True), y, self.task)
        losses.sum().backward()
        self.optimizer.step(rate_factor(self.schedule, self.step_count.squeeze(), self.steps, self.warmup_steps)
                            if self.scheduled else None)
        self.total.add_(losses.detach(), alpha=size)
        self.position.add_(size)
        self.step_count.add_(1)

    def _capture(self) -> None:
        """Capture a whole step, then replay it once as the step that was due."""
        self.eager_steps = -1
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step(self.batch_size)
        except RuntimeError as error:
            torch.cuda.synchronize()
            warnings.warn(f"training runs without a CUDA graph, slower: {str(error).splitlines()[0]}", stacklevel=2)
            self._step(self.batch_size)
        else:
            self.graph = graph
            graph.replay()


def batch_sizes(rows: int, batch_size: int) -> list[int]:
    """How many rows each step of an epoch has: all but the last the same, none more than there are."""
    batch_size = min(batch_size, rows)
    return [batch_size] * (rows // batch_size) + [rows % batch_size] * (rows % batch_size > 0)
