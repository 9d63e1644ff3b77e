"""Optimizer steps as three launches of Triton kernels each, many of them in one CUDA graph; `_step_kernels` says what they do.

The products with the features are `project`'s and `update`'s where features are pixels, and up to `LIBRARY_NEURONS` first neurons
of all networks together, where launches are what costs; elsewhere they are torch's, on rows that are gathered before.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch

from mncompress.training._fused_steps import FusedStepper, block_rows, pad
from mncompress.training._optimizer import Adam
from mncompress.training._population import Population
from mncompress.training._steps import DeviceSplit
from mncompress.types import Task, TrainConfig

Tile: TypeAlias = Mapping[str, int]
PROJECT: Tile = {"C": 64, "K": 32, "R": 128, "num_warps": 8}
UPDATE: Mapping[bool, Tile] = {False: {"C": 64, "K": 32, "R": 64, "num_warps": 4},
                               True: {"C": 64, "K": 128, "R": 64, "num_warps": 8}}
"""Neurons, features, rows and warps of a program, with which no registers spill; by whether features are pixels."""
FLOATS = 256
"""Other parameters of a program of `update`."""
LIBRARY_NEURONS = 256
"""Neurons of the first layers of all networks from which on the library's products are taken."""
PROGRAMS = 132
"""Of a launch, to aim at: about as many as a large GPU has multiprocessors."""


class LaunchedStepper(FusedStepper):
    """Trains any population that can be fused."""

    def __init__(self, population: Population, optimizer: Adam, split: DeviceSplit, configs: Sequence[TrainConfig],
                 task: Task) -> None:
        super().__init__(population, optimizer, split, configs, task)
        networks, batch, features = population.replicates, self.sizes[0], self.features
        self.columns = networks * self.layer.neurons // self.groups
        widths = [pad(layer.linear.out_features) for layer in population.template.layers]
        self.block, self.warps = block_rows(widths), 4 if max(widths) <= 32 else 8
        limits = {"C": pad(self.columns), "K": pad(features), "R": pad(batch)}
        self.project, self.update = ({key: min(limits.get(key, value), value) for key, value in tile.items()}
                                     for tile in (PROJECT, UPDATE[self.parts > 0]))
        self.tiles = self.groups * math.ceil(self.columns / self.project["C"])
        self.library = not self.parts and networks * self.layer.neurons >= LIBRARY_NEURONS
        depth = math.ceil(features / self.project["K"])
        splits = 1 if self.library else min(depth, math.ceil(PROGRAMS / self.tiles))
        self.split_features = math.ceil(depth / splits) * self.project["K"]
        blocks = math.ceil(batch / self.block)
        self.u = self._zeros(math.ceil(features / self.split_features), networks * self.layer.neurons, batch)
        self.u_grad = self._zeros(*self.u.shape[1:])
        self.partials, self.losses = self._zeros(networks, blocks, self.floats), self._zeros(networks, blocks)
        self.gathered = self._zeros(self.groups * batch if self.library else 0, features)
        self.offsets = torch.arange(batch, device=self.device)
        self.counter = self._zeros(1, dtype=torch.long)
        self.graphs: dict[tuple[int, ...], torch.cuda.CUDAGraph] = {}

    def _run(self, start: int, sizes: Sequence[int]) -> None:
        """Run steps as a graph, captured the first time: it has the sizes, and the first step's number lies on the device."""
        if self.device.type != "cuda":
            self._steps(start, sizes)
            return
        if (key := tuple(sizes)) not in self.graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._launch(sizes)
            self.graphs[key] = graph
        self.counter.fill_(start)
        self.graphs[key].replay()

    def _steps(self, start: int, sizes: Sequence[int]) -> None:
        self.counter.fill_(start)
        self._launch(sizes)

    def _launch(self, sizes: Sequence[int]) -> None:
        for ahead, size in enumerate(sizes):
            self._step(ahead, size)

    def _step(self, ahead: int, size: int) -> None:
        """The step `ahead` of the counter, of `size` rows."""
        from mncompress.training._step_kernels import descend, project, update

        networks, batch, features = self.population.replicates, self.sizes[0], self.features
        rows = self.order, self.stride, self.counter, ahead
        data, products = (self.x, self.x.shape[1], self.shift, self.factor), {"PARTS": self.parts, "PRECISION": self.precision}
        flat, first, second = self.population.flat, self.optimizer.first, self.optimizer.second
        with torch.cuda.device_of(flat):
            if self.library:
                self._project(ahead)
            else:
                project[self.tiles, len(self.u), math.ceil(batch / self.project["R"])](
                    *data, *rows, flat, self.u, size, batch, self.groups, self.columns, features, self.split_features,
                    **self.project, **products)
            descend[networks, self.losses.shape[1]](
                self.split.y, *rows, flat, self.u, self.u_grad, self.partials, self.losses, size, batch, networks, len(self.u),
                self.floats, LAYER=self.layer, R=self.block, CLASSIFY=self.task == "classification", PRECISION=self.precision,
                num_warps=self.warps)
            if self.library:
                self._multiply_gradient(size)
            programs = self.tiles * math.ceil(features / self.update["K"]) + math.ceil(networks * self.floats / FLOATS)
            update[programs,](
                *data, *rows, flat, first, second, self.u_grad, flat.grad, self.partials, self.losses, self.total,
                self.schedule, self.rates, self.decays, self.place, self.spread, self.kind, size, batch, networks, self.groups,
                self.columns, features, self.losses.shape[1], self.floats, GIVEN=self.library, FLOATS=FLOATS,
                **self.update, **products)

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
