"""Optimizer steps in GPU kernels: what is common to the two kinds, `ResidentStepper` and `LaunchedStepper`.

A `FusedStepper` computes what a `Stepper` does, in float32 and up to rounding, for the populations that `can_fuse` admits: inner
networks of one hidden layer, layers that fit into registers, no batch normalization. Products have the precision that
`torch.get_float32_matmul_precision()` asks for: that of float32, or of one product of TensorFloat-32 where it is not `highest`.
`_kernel_parts` says how features enter them.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mncompress.nn import LearnedActivation, triton_runs
from mncompress.training._layout import (
    LINEAR,
    LayerEnd,
    inner_offsets,
    make_ends,
    make_rates,
    make_schedule,
    own_offsets,
    parameter_offsets,
)
from mncompress.training._optimizer import Adam
from mncompress.training._population import Population
from mncompress.training._steps import DeviceSplit, Stepper, batch_sizes
from mncompress.types import Task, TrainConfig

MAX_NUMBERS = 8192
"""Of a layer's values for a block of rows, and of the weights between two layers: what a program has registers for."""
MAX_PARAMETERS = 2**31 - 1
"""Of all networks: kernels index them with 32 bits."""
CHUNK = 64
"""Steps of a graph, or of a launch."""
ALIGNMENT = 16
"""Bytes to which rows of pixels are padded, so that several can be read at a time."""
CHECKED_STEPS, LARGEST_DIFFERENCE = 2, {"tf32x3": 0.02, "tf32": 0.5}
"""Steps that are held against plain ones before kernels are used, and how far the mean gradients may then be apart: TensorFloat-32,
which torch rounds otherwise, switches neurons and first steps of Adam over."""


@dataclass(frozen=True)
class FusedLayer:
    """A layer with all behind it, as `_kernel_parts` reads them; an offset is -1 where the family has no such parameter."""

    neurons: int
    padded: int
    residual: bool
    weight: int
    bias: int
    behind: "FusedLayer | None"
    act: str = ""
    """Empty where nothing is activated."""
    width: int = 0
    shared: bool = False
    first_weight: int = -1
    first_bias: int = -1
    out_weight: int = -1
    out_bias: int = -1
    in_end: LayerEnd = LINEAR
    out_end: LayerEnd = LINEAR


def can_fuse(population: Population, config: TrainConfig) -> bool:
    """Whether a `FusedStepper` can train these networks where they are; finding out may compile a kernel."""
    layers = population.template.layers
    specs = [layer.activation.spec for layer in layers if isinstance(layer.activation, LearnedActivation)]
    widths = [pad(layer.linear.out_features) for layer in layers]
    return (not config.batch_norm and population.flat.numel() <= MAX_PARAMETERS
            and all(spec.depth <= 1 for spec in specs)
            and max(widths) * block_rows(widths) <= MAX_NUMBERS
            and all(a * b <= MAX_NUMBERS for a, b in itertools.pairwise(widths))
            and triton_runs(population.flat.device))


class FusedStepper(ABC):
    """Trains a population on a split, step by step: see `Stepper`."""

    def __init__(self, population: Population, optimizer: Adam, split: DeviceSplit, configs: Sequence[TrainConfig],
                 task: Task) -> None:
        self.population, self.optimizer, self.split, self.config, self.task = population, optimizer, split, configs[0], task
        self.sizes = batch_sizes(len(split.y), self.config.batch_size)
        self.layer = make_layer(population)
        networks, self.device = population.replicates, population.flat.device
        self.groups = 1 if self.config.order == "shared" else networks
        self.precision = "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
        if split.pixels is None:
            self.x, self.shift, self.factor, self.parts = split.x.contiguous(), 0.0, 1.0, 0
        else:
            values = split.pixels.values
            missing = -values.shape[1] % ALIGNMENT
            self.x = torch.nn.functional.pad(values, (0, missing)) if missing else values
            self.shift, self.factor, self.parts = split.pixels.shift, split.pixels.factor, 2 if self.precision == "tf32x3" else 1
        self.floats = population.flat.numel() // networks - self.layer.bias
        self.order = self._zeros(self.groups, len(split.y), dtype=torch.long)
        self.schedule, self.total = self._zeros(len(self.sizes), 3), self._zeros(networks)
        self.rates, self.decays = make_rates(population, configs)
        self.place, self.spread, self.kind = _make_places(population)

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    @property
    def features(self) -> int:
        """Of the data."""
        return self.split.raw.shape[1]

    @property
    def stride(self) -> int:
        """From one network's order to the next one's."""
        return self.order.shape[1] if self.groups > 1 else 0

    def compile(self) -> None:
        """Make the kernels, and see that they do what plain steps do, in a few steps whose results are thrown away.

        Raises:
            RuntimeError: they do something else.
        """
        optimizer = self.optimizer
        changed = [self.population.flat, *optimizer.state().values(), self.total]
        saved = [value.detach().clone() for value in changed]
        order = torch.arange(len(self.split.y), device=self.device)
        try:
            expected = self._take_plain_steps(order)
            _restore(changed, saved)
            self.start_epoch(order.expand_as(self.order), 0)
            self._steps(0, self.sizes[:CHECKED_STEPS])
            difference = 0.0 if expected is None else self._compare(optimizer.first, expected)
            self._steps(len(self.sizes) - 1, self.sizes[-1:])
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        finally:
            _restore(changed, saved)
        if difference > LARGEST_DIFFERENCE[self.precision]:
            raise RuntimeError(f"its mean gradients differ from those of plain steps by {difference:.2g} of them")

    def _take_plain_steps(self, order: Tensor) -> Tensor | None:
        """The first moments after the checked steps on the rows in `order`; None where there is no memory for plain steps."""
        plain = Stepper(self.population, self.optimizer, self.split, self.config, self.task)
        plain.start_epoch(order.expand_as(plain.order), 0)
        try:
            list(itertools.islice(plain.run_epoch(), CHECKED_STEPS))
        except torch.OutOfMemoryError:
            return None
        return self.optimizer.first.clone()

    def _compare(self, found: Tensor, expected: Tensor) -> float:
        """The largest relative difference of a network's moments, of those networks that should have finite ones."""
        sizes = [value.numel() for value in self.population.parameters.values()]
        one, other = (torch.cat([part.view(len(self.total), -1) for part in flat.double().split(sizes)], 1)
                      for flat in (found, expected))
        error, size = (one - other).norm(dim=1), other.norm(dim=1)
        relative = torch.where(error == 0, 0.0, error / size).nan_to_num(nan=torch.inf)
        return float(relative[size.isfinite()].amax()) if size.isfinite().any() else 0.0

    def start_epoch(self, order: Tensor, epoch: int) -> None:
        """See `Stepper`."""
        self.order.copy_(order)
        self.total.zero_()
        self.schedule.copy_(make_schedule(self.config, epoch, len(self.sizes)))
        self.optimizer.count_steps((epoch + 1) * len(self.sizes))

    def run_epoch(self) -> Iterator[int]:
        """See `Stepper`; yields once every `CHUNK` steps."""
        for start in range(0, len(self.sizes), CHUNK):
            sizes = self.sizes[start:start + CHUNK]
            self._run(start, sizes)
            yield start + len(sizes)

    def _run(self, start: int, sizes: Sequence[int]) -> None:
        """Steps of the given sizes, from number `start` of the epoch."""
        self._steps(start, sizes)

    @abstractmethod
    def _steps(self, start: int, sizes: Sequence[int]) -> None:
        """The same, one launch after another."""


@torch.no_grad()
def _restore(values: Sequence[Tensor], saved: Sequence[Tensor]) -> None:
    for value, before in zip(values, saved, strict=True):
        value.copy_(before)


def make_layer(population: Population) -> FusedLayer:
    """The first layer of a population's networks, with those behind it."""
    offsets, found = parameter_offsets(population), None
    for k, layer in reversed(list(enumerate(population.template.layers))):
        n = layer.linear.out_features
        linear = n, pad(n), layer.residual, offsets[f"{k}.linear.weight"], offsets[f"{k}.linear.bias"], found
        if layer.activation is None:
            found = FusedLayer(*linear)
        else:
            assert isinstance(layer.activation, LearnedActivation)
            spec, own = layer.activation.spec, own_offsets(offsets, k)
            found = FusedLayer(*linear, spec.act, max(spec.width, 1), spec.shared and n > 1, *inner_offsets(layer, own),
                               *make_ends(layer, own))
    assert found is not None
    return found


def _make_places(population: Population) -> tuple[Tensor, Tensor, Tensor]:
    """Of each number of a network behind the first weights: its place in network 0, that in the next less it, its parameter."""
    start, rows = 0, []
    for kind, value in enumerate(population.parameters.values()):
        size = value[0].numel()
        if kind > 0:
            rows.append(torch.stack([torch.arange(start, start + size), torch.full((size,), size), torch.full((size,), kind)]))
        start += value.numel()
    place, pitch, kind_of = torch.cat(rows, 1).to(population.flat.device).contiguous()
    return place, pitch, kind_of


def pad(n: int) -> int:
    """The power of two, at least 16, that products of matrices take for n."""
    return max(16, 1 << (n - 1).bit_length())


def block_rows(widths: Sequence[int]) -> int:
    """Rows of a block of `descend`."""
    return 16 if max(widths) > 128 else 32
