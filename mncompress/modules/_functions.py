"""An activation module as scalar functions, one per channel: what the fits of `mncompress.spline` sample.

The module itself is evaluated, in float64. For `mncompress.analysis` the functions also say what `find_options` and `choose` read
of `InnerNetworks`: an `act` that is not piecewise linear, since nothing is known about kinks, and the sizes of an inner network
of about the same cost, one unit for each parameter of a channel.
"""

import copy
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mncompress.analysis import InnerNetworks, make_inner_networks
from mncompress.modules._registry import AlongAxis
from mncompress.nn import LearnedActivation
from mncompress.types import Act, Family

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ModuleFunctions:
    """The functions of the channels `indices` of a module.

    Attributes:
        module: in float64, in eval mode.
        axis: the channel axis, counted from the front.
        rank: axes of the module's input.
        channels: functions that the module has.
        indices: which of them these are.
    """

    module: nn.Module
    axis: int
    rank: int
    channels: int
    indices: Indices

    @property
    def n(self) -> int:
        """Number of functions."""
        return len(self.indices)

    @property
    def act(self) -> Act:
        """See the module's docstring."""
        return "tanh"

    @property
    def first_weight(self) -> Array:
        """See the module's docstring: (n, width)."""
        return np.zeros((self.n, 1 + sum(p.numel() for p in self.module.parameters()) // self.channels))

    @property
    def biases(self) -> tuple[Array, ...]:
        """See the module's docstring: one inner layer."""
        return (self.first_weight,)

    def evaluate(self, u: Array) -> Array:
        """The values at `u` (G, n)."""
        with torch.no_grad():
            return self._columns(self._apply(self._spread(u)))

    __call__ = evaluate

    def derivative(self, u: Array) -> Array:
        """The derivatives by `u` at `u` (G, n); zero where torch knows none."""
        points = self._spread(u).requires_grad_()
        y = self._apply(points)
        if not y.requires_grad:
            return np.zeros(u.shape)
        (slope,) = torch.autograd.grad(y.sum(), points)
        return self._columns(slope)

    def select(self, indices: Indices) -> "ModuleFunctions":
        """The functions at `indices` (M,)."""
        return replace(self, indices=self.indices[indices])

    def _spread(self, u: Array) -> Tensor:
        """Points (G, n) as (G, channels), with zeros for the channels that are not asked for."""
        full = np.zeros((len(u), self.channels))
        full[:, self.indices] = u
        return torch.from_numpy(full)

    def _apply(self, points: Tensor) -> Tensor:
        """The module on (G, channels), as a tensor of its rank with one position a sample."""
        shape = [len(points)] + [1] * (self.rank - 1)
        shape[self.axis] = self.channels
        y: Tensor = self.module(points.reshape(shape).clone())
        return y.reshape(points.shape)

    def _columns(self, values: Tensor) -> Array:
        return np.asarray(values.detach().numpy()[:, self.indices], np.float64)


def make_functions(module: nn.Module, axis: int, rank: int, channels: int) -> ModuleFunctions:
    """The functions of a module whose input has `rank` axes, `channels` long along `axis`."""
    exact = copy.deepcopy(module).double().eval().requires_grad_(False)
    return ModuleFunctions(exact, axis, rank, channels, np.arange(channels))


def as_learned(module: nn.Module) -> LearnedActivation | None:
    """The mncompress family that a module is, or has inside an `AlongAxis`."""
    inner = module.module if isinstance(module, AlongAxis) else module
    return inner if isinstance(inner, LearnedActivation) else None


def as_inner_networks(module: nn.Module, functions: ModuleFunctions) -> tuple[InnerNetworks, Family]:
    """What `find_options` takes: the inner networks of a mncompress family, or else the sampled functions in their place."""
    learned = as_learned(module)
    if learned is not None:
        return make_inner_networks(learned), learned.spec.family
    return cast(InnerNetworks, functions), "meta"
