"""What the activations of any network are given, and how much their outputs matter: seen through hooks, whatever the forward does.

The domain of a channel is its range over all samples and positions of the calibration data, widened as in
`mncompress.calibration`, by the gaps between samples. The sensitivity is the root mean square, over samples, of the norm of the
outputs' gradient by all outputs of the channel.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mncompress.calibration import BINS, Extremes, LayerCalibration, make_probes, widen
from mncompress.errors import ConfigError, DataError
from mncompress.modules._probe import first_line

BATCH_ROWS = 256
SENSITIVITY_ROWS = 512
NEVER_CALLED = "it is never called on the calibration data"

Floats = NDArray[np.float64]


@dataclass
class Observation:
    """What one activation was given.

    Attributes:
        axis: its channel axis, counted from the front once an input was seen.
        shape: of the first input.
        extremes: of the samples' smallest and largest values.
        problem: why it cannot be described by one range per channel, or None.
    """

    axis: int
    shape: tuple[int, ...] = ()
    extremes: Extremes = field(default_factory=lambda: Extremes.none(0))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, BINS), np.int64))
    squares: Tensor = field(default_factory=lambda: torch.zeros(0))
    problem: str | None = NEVER_CALLED

    @property
    def n(self) -> int:
        """Number of channels."""
        return self.shape[self.axis]

    def calibration(self, rows: int) -> LayerCalibration:
        """In the form that a network's calibration has; `rows` is how many samples the gradients come from."""
        return LayerCalibration(widen(self.extremes), self.counts, self.extremes.observed, np.sqrt(self.squares.numpy() / rows))


def observe(network: nn.Module, activations: Mapping[str, tuple[nn.Module, int]], x: Tensor) -> dict[str, Observation]:
    """Ranges and histograms of what each activation is given over the calibration data.

    Args:
        network: in eval mode.
        activations: module and channel axis by name.
        x: the calibration data, rows first.
    """
    found = {name: Observation(axis) for name, (_, axis) in activations.items()}
    run_hooked(network, activations, x, lambda name, u: _range_(found[name], u))
    for seen in found.values():
        if seen.problem is None:
            seen.counts = np.zeros((seen.n, BINS), np.int64)
            if not np.isfinite(seen.extremes.observed).all():
                seen.problem = "what it is given is not finite on the calibration data"
    run_hooked(network, activations, x, lambda name, u: _count_(found[name], u))
    return found


@torch.no_grad()
def run_hooked(network: nn.Module, modules: Mapping[str, tuple[nn.Module, int]], x: Tensor, see: Callable[[str, Any], None]
               ) -> None:
    """Run the network over x, and call `see(name, input)` before each call of a module; the input may be no tensor.

    Raises:
        DataError: the network fails on the data.
    """
    with ExitStack() as hooks:
        for name, (module, _) in modules.items():
            hooks.enter_context(_hook(module.register_forward_pre_hook(
                lambda _, args, name=name: see(name, args[0] if len(args) == 1 else None))))
        run_module(network, x)


def measure_sensitivity(network: nn.Module, activations: Mapping[str, tuple[nn.Module, int]], x: Tensor,
                        found: Mapping[str, Observation], unit: NDArray[np.float64] | float) -> int:
    """Add the squared gradients of outputs / `unit` at the first rows to each observation's `squares`; returns how many rows.

    A tensor of zeros is added to each activation's output, and the gradient is taken by that.

    Raises:
        DataError: the outputs have no gradient.
    """
    x = x[:SENSITIVITY_ROWS]
    names = [name for name, seen in found.items() if seen.problem is None]
    for name in names:
        found[name].squares = torch.zeros(found[name].n, dtype=torch.float64)
    zeros: list[tuple[str, Tensor]] = []

    def add_zeros(name: str, y: Tensor) -> Tensor:
        zeros.append((name, torch.zeros_like(y).requires_grad_()))
        return y + zeros[-1][1]

    with ExitStack() as hooks, torch.enable_grad():
        for name in names:
            hooks.enter_context(_hook(activations[name][0].register_forward_hook(
                lambda _, args, y, name=name: add_zeros(name, y))))
        for part in x.split(BATCH_ROWS // 4):
            zeros.clear()
            outputs = network(part) / torch.as_tensor(unit, dtype=torch.float32)
            for direction in make_probes(*outputs.shape) if zeros else ():
                try:
                    gradients = torch.autograd.grad((outputs * direction).sum(), [zero for _, zero in zeros], retain_graph=True,
                                                    allow_unused=True)
                except RuntimeError as error:
                    raise DataError(f"the network's outputs have no gradient ({first_line(error)}); let its forward run without "
                                    "torch.no_grad, inference_mode and detach") from error
                for (name, _), gradient in zip(zeros, gradients, strict=True):
                    if gradient is not None:
                        squares = gradient.double().square().movedim(found[name].axis, -1)
                        found[name].squares += squares.reshape(-1, squares.shape[-1]).sum(0)
    return len(x)


def to_cpu(what: str, values: Tensor | NDArray[Any]) -> Tensor:
    """What a user gave as a tensor on the CPU.

    Raises:
        DataError: it is no numeric array; `what` it is.
    """
    try:
        return torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{what} of type {type(values).__name__} cannot be read: {first_line(error)}; give a tensor or a numeric "
                        "array") from error


def copy_module(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in float32 and eval mode, without gradients.

    Tensors of a graph are not copied by torch: those that a forward left in an attribute, such as the weight that the old
    `torch.nn.utils.weight_norm` computes anew at each call, are detached.

    Raises:
        ConfigError: the module cannot be copied, or its outputs depend on the batch.
    """
    for name, each in module.named_modules():
        if isinstance(each, torch.jit.ScriptModule) or hasattr(each, "_orig_mod"):
            raise ConfigError(f"{name or 'the module'} is compiled by torch ({type(each).__name__}), and cannot be looked into; "
                              "give the module as it was before, and compile or script the result")
        if isinstance(each, _BatchNorm) and each.running_mean is None:
            raise ConfigError(f"{name or 'the module'} is a {type(each).__name__} without running statistics, so what a sample "
                              "gives depends on its batch; train the network with track_running_stats=True")
    left = {id(value): value.detach().clone() for each in module.modules() for value in vars(each).values()
            if isinstance(value, Tensor) and not value.is_leaf}
    try:
        return copy.deepcopy(module, left).cpu().float().eval().requires_grad_(False)
    except Exception as error:      # anything that a foreign module may hold
        raise ConfigError(f"the module cannot be copied: {first_line(error)}; keep nothing in its attributes but modules, "
                          "parameters, buffers and plain values") from error


def run_module(network: nn.Module, x: Tensor) -> Floats:
    """Outputs of a network (rows, n) in float64.

    Raises:
        DataError: the network fails on the data, or gives something else.
    """
    parts = []
    with torch.no_grad():
        for part in x.split(BATCH_ROWS):
            try:
                y = network(part)
            except Exception as error:      # anything that a foreign module may raise
                raise DataError(f"the network fails on data of shape {tuple(part.shape)}, {part.dtype}: {first_line(error)}; "
                                "give x as the network takes it, samples first") from error
            if not isinstance(y, Tensor) or y.dim() != 2 or len(y) != len(part):
                what = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
                raise DataError(f"the network gives {what} for {len(part)} samples; it must give one row of outputs a sample")
            parts.append(y.double())
    return torch.cat(parts).numpy()


def _range_(seen: Observation, u: Any) -> None:
    """Widen an observation's range by one input."""
    if seen.problem not in (None, NEVER_CALLED):
        return
    if not isinstance(u, Tensor) or not u.is_floating_point() or u.dim() < 2 or not -u.dim() <= seen.axis < u.dim():
        seen.problem = "it is not called with one tensor that has a batch and its channel axis"
        return
    axis = seen.axis % u.dim()
    if not seen.shape:
        seen.axis, seen.shape, seen.problem = axis, tuple(u.shape), None
        seen.extremes = Extremes.none(seen.n)
        if axis == 0:
            seen.problem = "its channel axis is that of the batch"
    if (u.dim(), u.shape[axis]) != (len(seen.shape), seen.n):
        seen.problem = "it is called with different numbers of axes or channels"
    if seen.problem is None:
        samples = _by_channel(u, axis).reshape(len(u), -1, seen.n)
        seen.extremes = seen.extremes.add(samples.amin(1).numpy(), samples.amax(1).numpy())


def _count_(seen: Observation, u: Tensor) -> None:
    if seen.problem is None:
        low, high = torch.from_numpy(seen.extremes.observed).T
        position = (_by_channel(u, seen.axis) - low) / (high - low).clamp_min(1e-300) * BINS
        index = position.long().clamp_(0, BINS - 1) + torch.arange(seen.n) * BINS
        seen.counts += torch.bincount(index.flatten(), minlength=seen.counts.size).view(seen.n, BINS).numpy()


def _by_channel(u: Tensor, axis: int) -> Tensor:
    return u.detach().double().movedim(axis, -1).reshape(-1, u.shape[axis])


@contextmanager
def _hook(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
