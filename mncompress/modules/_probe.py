"""Does a module act element by element, each channel by one function of its own?

It is tried, in float64, on values that the module met: an output must depend on nothing but its own input element and its
channel, be the same each time, at every position and in every batch. What is false is found with all but certainty where it is
false nearly everywhere; a module made to deceive could pass. Differences below `ROUNDING` of the largest output are taken for
rounding.
"""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mncompress.modules._functions import ModuleFunctions

ROUNDING = 1e-6
ROWS = 4
MASKS = 8
"""Random halves of the channels, and of the positions, that are changed: what depends on one other channel is missed by all of
them with a probability of 2**-8."""


def probe(functions: ModuleFunctions, shape: tuple[int, ...], domain: NDArray[np.float64]) -> str | None:
    """The reason why a module is no per-channel activation, or None.

    Args:
        functions: of the module.
        shape: of an input that it was given.
        domain: per channel the range of what it was given, (n, 2).
    """
    generator = torch.Generator().manual_seed(0)
    module, axis = functions.module, functions.axis
    u, other = (_draw(domain, (ROWS, *shape[1:]), axis, generator) for _ in range(2))
    state = copy.deepcopy(module.state_dict())
    try:
        with torch.no_grad():
            reason = _check_call(module, u)
            if reason is None and any(not torch.equal(value, state[name]) for name, value in module.state_dict().items()):
                reason = "it changes its own state"
            return reason or _check_independence(module, u, other, axis, generator) or _check_functions(functions, module(u), u)
    except Exception as error:  # anything that a foreign module may raise
        return f"it fails on inputs like those it was given: {type(error).__name__}: {first_line(error)}"


def first_line(error: Exception) -> str:
    """The beginning of an error's message."""
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def _check_call(module: nn.Module, u: Tensor) -> str | None:
    given = u.clone()
    y = module(given)
    if not torch.equal(given, u):
        return "it changes its input in place"
    if not isinstance(y, Tensor) or y.shape != u.shape:
        what = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        return f"it does not keep the shape of its input, {tuple(u.shape)} became {what}"
    if not torch.isfinite(y).all():
        return "its outputs are not finite"
    if not _equal(module(u), y, y):
        return "it gives different outputs for the same input"
    return None


def _check_independence(module: nn.Module, u: Tensor, other: Tensor, axis: int, generator: torch.Generator) -> str | None:
    """Change part of the input: the outputs of the rest must stay. Then move samples and positions."""
    y, y_other = module(u), module(other)
    for what, mask in _masks(u, axis, generator):
        mixed = module(torch.where(mask, u, other))
        if not _equal(mixed, torch.where(mask, y, y_other), y):
            return f"its outputs depend on other {what} than their own"
    if not _equal(module(u[:1]), y[:1], y):
        return "its outputs depend on the size of the batch"
    for what, move in _moves(u, axis, generator):
        if not _equal(module(move(u)), move(y), y):
            return f"it is not the same function at every {what}"
    return None


def _check_functions(functions: ModuleFunctions, y: Tensor, u: Tensor) -> str | None:
    """Sampled one point a sample, the functions must be those of whole inputs."""
    points, expected = (value.movedim(functions.axis, -1).reshape(-1, functions.channels) for value in (u, y))
    if not _equal(torch.from_numpy(functions(points.numpy())), expected, y):
        return "its outputs depend on the number of positions"
    return None


def _draw(domain: NDArray[np.float64], shape: tuple[int, ...], axis: int, generator: torch.Generator) -> Tensor:
    """Uniform in each channel's domain."""
    low, high = torch.from_numpy(domain.copy()).unbind(1)
    last = [size for position, size in enumerate(shape) if position != axis]
    u = low + (high - low) * torch.rand(*last, shape[axis], dtype=torch.float64, generator=generator)
    return u.movedim(-1, axis).contiguous()


def _masks(u: Tensor, axis: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """What to keep, by the kind of elements that the rest is: samples, channels, positions."""
    def along(name: int, keep: Tensor) -> Tensor:
        shape = [1] * u.dim()
        shape[name] = -1
        return keep.reshape(shape).expand(u.shape)

    yield "samples", along(0, torch.arange(len(u)) % 2 == 0)
    for _ in range(MASKS):
        yield "channels", along(axis, torch.rand(u.shape[axis], generator=generator) < 0.5)
    positions = [size if number not in (0, axis) else 1 for number, size in enumerate(u.shape)]
    for _ in range(MASKS if max(positions) > 1 else 0):
        yield "positions", (torch.rand(positions, generator=generator) < 0.5).expand(u.shape)


def _moves(u: Tensor, axis: int, generator: torch.Generator) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Permutations of the samples and of the positions."""
    for number, size in enumerate(u.shape):
        if number != axis and size > 1:
            order = torch.randperm(size, generator=generator)
            yield ("sample" if number == 0 else "position",
                   lambda value, number=number, order=order: value.index_select(number, order))  # type: ignore[misc]


def _equal(a: Tensor, b: Tensor, scale: Tensor) -> bool:
    return bool((a - b).abs().max() <= ROUNDING * max(1e-6, float(scale.abs().max())))
