"""Optimizer steps as a few GPU kernels each, many of them in one CUDA graph; `_step_kernels` says what they do.

A `FusedStepper` computes what a `Stepper` does, in float32 and up to rounding, for the populations that `can_fuse` admits: inner
networks of one hidden layer, layers that fit into registers, no batch normalization. Products have the precision that
`torch.get_float32_matmul_precision()` asks for: that of float32, in the kernels from three products of TensorFloat-32 each, or
of one such product where it is not `highest`.

The products with the features are `project`'s and `update`'s up to `LIBRARY_NEURONS` first neurons of all networks together, where
launches are what costs; from there on they are torch's, on rows that are gathered before.
"""

import itertools
import math
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
from mncompress.training._steps import DeviceSplit, batch_sizes
from mncompress.types import Task, TrainConfig

MAX_NUMBERS = 8192
"""Of a layer's values for a block of rows, and of the weights between two layers: what a program has registers for."""
MAX_PARAMETERS = 2**31 - 1
"""Of all networks: kernels index them with 32 bits."""
CHUNK = 64
"""Steps in a graph."""
PROJECT_ROWS, UPDATE_ROWS, UPDATE_FLOATS = 128, 64, 256
"""Of a program of `project` and `update`, with which no registers spill."""
LIBRARY_NEURONS = 256
"""Neurons of the first layers of all networks from which on the library's products are taken."""
PROGRAMS = 132
"""Of a launch, to aim at: about as many as a large GPU has multiprocessors."""


@dataclass(frozen=True)
class FusedLayer:
    """A layer with all behind it, as `_step_kernels` reads them; an offset is -1 where the family has no such parameter."""

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
    widths = [_pad(layer.linear.out_features) for layer in layers]
    return (not config.batch_norm and population.flat.numel() <= MAX_PARAMETERS
            and all(spec.depth <= 1 for spec in specs)
            and max(widths) * _block_rows(widths) <= MAX_NUMBERS
            and all(a * b <= MAX_NUMBERS for a, b in itertools.pairwise(widths))
            and triton_runs(population.flat.device))


class FusedStepper:
    """Trains a population on a split, step by step: see `Stepper`."""

    def __init__(self, population: Population, optimizer: Adam, split: DeviceSplit, configs: Sequence[TrainConfig],
                 task: Task) -> None:
        self.population, self.optimizer, self.split, self.config, self.task = population, optimizer, split, configs[0], task
        self.sizes = batch_sizes(len(split.x), self.config.batch_size)
        self.layer = make_layer(population)
        networks, device, batch = population.replicates, population.flat.device, self.sizes[0]
        shared = self.config.order == "shared"
        self.groups, self.columns = (1, networks * self.layer.neurons) if shared else (networks, self.layer.neurons)
        widths = [_pad(layer.linear.out_features) for layer in population.template.layers]
        self.block, self.warps = _block_rows(widths), 4 if max(widths) <= 32 else 8
        self.precision = "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
        features = split.x.shape[1]
        self.tile = {"C": min(64, _pad(self.columns)), "K": min(32, _pad(features))}
        tiles, depth = self.groups * math.ceil(self.columns / self.tile["C"]), math.ceil(features / self.tile["K"])
        self.library = networks * self.layer.neurons >= LIBRARY_NEURONS
        splits = 1 if self.library else min(depth, math.ceil(PROGRAMS / tiles))
        self.split_features = math.ceil(depth / splits) * self.tile["K"]

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.floats = population.flat.numel() // networks - self.layer.bias
        blocks = math.ceil(batch / self.block)
        self.u = zeros(math.ceil(features / self.split_features), networks * self.layer.neurons, batch)
        self.u_grad = zeros(*self.u.shape[1:])
        self.partials, self.losses = zeros(networks, blocks, self.floats), zeros(networks, blocks)
        self.gathered = zeros(self.groups * batch if self.library else 0, features)
        self.order = zeros(self.groups, len(split.x), dtype=torch.long)
        self.offsets = torch.arange(batch, device=device)
        self.counter, self.schedule = zeros(1, dtype=torch.long), zeros(len(self.sizes), 3)
        self.total = zeros(networks)
        self.rates, self.decays = make_rates(population, configs)
        self.place, self.pitch, self.kind = _make_places(population)
        self.graphs: dict[tuple[int, ...], torch.cuda.CUDAGraph] = {}

    def compile(self) -> None:
        """Make the kernels, and see that they run, with a step whose results are thrown away."""
        changed = self.population.flat, self.optimizer.first, self.optimizer.second, self.total
        saved = [value.detach().clone() for value in changed]
        try:
            self._step(0, self.sizes[0])
            self._step(0, self.sizes[-1])
            torch.cuda.synchronize(self.total.device)
        finally:
            with torch.no_grad():
                for value, before in zip(changed, saved, strict=True):
                    value.copy_(before)

    def start_epoch(self, order: Tensor, epoch: int) -> None:
        """See `Stepper`."""
        self.order.copy_(order)
        self.counter.zero_()
        self.total.zero_()
        self.schedule.copy_(make_schedule(self.optimizer, self.config, epoch, len(self.sizes)))
        self.optimizer.count_steps((epoch + 1) * len(self.sizes))

    def run_epoch(self) -> Iterator[int]:
        """See `Stepper`; yields once a graph."""
        for start in range(0, len(self.sizes), CHUNK):
            sizes = tuple(self.sizes[start:start + CHUNK])
            if self.total.device.type == "cuda":
                self._replay(sizes)
            else:
                self._steps(sizes)
            yield start + len(sizes)

    def _replay(self, sizes: tuple[int, ...]) -> None:
        """Run steps as a graph, captured the first time."""
        if sizes not in self.graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._steps(sizes)
            self.graphs[sizes] = graph
        self.graphs[sizes].replay()

    def _steps(self, sizes: Sequence[int]) -> None:
        for ahead, size in enumerate(sizes):
            self._step(ahead, size)
        self.counter.add_(len(sizes))

    def _step(self, ahead: int, size: int) -> None:
        """The step `ahead` of the counter, of `size` rows."""
        from mncompress.training._step_kernels import descend, project, update

        networks, batch, features = self.population.replicates, self.sizes[0], self.split.x.shape[1]
        rows = self.order, self.order.shape[1] if self.groups > 1 else 0, self.counter, ahead
        flat, first, second = self.population.flat, self.optimizer.first, self.optimizer.second
        tiles, blocks = self.groups * math.ceil(self.columns / self.tile["C"]), self.losses.shape[1]
        tile = {**self.tile, "PRECISION": self.precision}
        with torch.cuda.device_of(flat):
            if self.library:
                self._project(ahead)
            else:
                project[tiles, len(self.u), math.ceil(batch / PROJECT_ROWS)](
                    self.split.x, *rows, flat, self.u, size, batch, self.groups, self.columns, features, self.split_features,
                    R=min(PROJECT_ROWS, _pad(batch)), num_warps=8, **tile)
            descend[networks, blocks](
                self.split.y, *rows, flat, self.u, self.u_grad, self.partials, self.losses, size, batch, networks, len(self.u),
                self.floats, LAYER=self.layer, R=self.block, CLASSIFY=self.task == "classification", PRECISION=self.precision,
                num_warps=self.warps)
            if self.library:
                self._multiply_gradient(size)
            programs = tiles * math.ceil(features / self.tile["K"]) + math.ceil(networks * self.floats / UPDATE_FLOATS)
            update[programs,](
                self.split.x, *rows, flat, first, second, self.u_grad, flat.grad, self.partials, self.losses, self.total,
                self.schedule, self.rates, self.decays, self.place, self.pitch, self.kind, size, batch, networks, self.groups,
                self.columns, features, blocks, self.floats, GIVEN=self.library, R=min(UPDATE_ROWS, _pad(batch)),
                FLOATS=UPDATE_FLOATS, num_warps=4, **tile)

    @torch.no_grad()
    def _project(self, ahead: int) -> None:
        """Gather the step's rows, and multiply them with the first weights."""
        batch = self.sizes[0]
        places = ((self.counter + ahead) * batch + self.offsets).clamp_(max=self.order.shape[1] - 1)    # those behind are not used
        torch.index_select(self.split.x, 0, self.order.index_select(1, places).flatten(), out=self.gathered)
        weight = self.population.parameters["0.linear.weight"].detach().view(self.groups, self.columns, -1)
        torch.bmm(weight, self.gathered.view(self.groups, batch, -1).mT, out=self.u.view(self.groups, self.columns, batch))

    @torch.no_grad()
    def _multiply_gradient(self, size: int) -> None:
        """The gradient of the first weights, into theirs."""
        gradient = self.population.parameters["0.linear.weight"].grad
        assert gradient is not None
        by_u, rows = self.u_grad.view(self.groups, self.columns, -1), self.gathered.view(self.groups, self.sizes[0], -1)
        torch.bmm(by_u[..., :size], rows[:, :size], out=gradient.view(self.groups, self.columns, -1))


def make_layer(population: Population) -> FusedLayer:
    """The first layer of a population's networks, with those behind it."""
    offsets, found = parameter_offsets(population), None
    for k, layer in reversed(list(enumerate(population.template.layers))):
        n = layer.linear.out_features
        linear = n, _pad(n), layer.residual, offsets[f"{k}.linear.weight"], offsets[f"{k}.linear.bias"], found
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


def _pad(n: int) -> int:
    """The power of two, at least 16, that products of matrices take for n."""
    return max(16, 1 << (n - 1).bit_length())


def _block_rows(widths: Sequence[int]) -> int:
    """Rows of a block of `descend`."""
    return 16 if max(widths) > 128 else 32
