"""Which submodules of a network are activations.

A module counts as a learned activation if it is of mncompress.nn's families, if its type was registered, or if it has the
attribute `mncompress_channel_axis`. Its *channel axis* is the axis of its input along which the functions differ: -1 for modules
behind linear layers, 1 behind convolutions. That it really acts element by element is not believed but probed (`_probe`).
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import Tensor, nn

from mncompress.errors import ConfigError
from mncompress.nn import LearnedActivation

ModuleType = TypeVar("ModuleType", bound=type[nn.Module])

PROTOCOL = "mncompress_channel_axis"
"""An attribute of a class, or of a single module, with its channel axis: the same as registering it."""
STANDARD: tuple[type[nn.Module], ...] = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid, nn.Mish,
    nn.PReLU, nn.ReLU, nn.ReLU6, nn.RReLU, nn.SELU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh,
    nn.Tanhshrink, nn.Threshold)
"""Activations that every runtime has: nothing is cheaper, so they stay."""

_registered: dict[type[nn.Module], int] = {}


class AlongAxis(nn.Module):
    """Applies a module that acts on the last axis along another one: `AlongAxis(Vaf(spec, channels), 1)` behind a Conv2d.

    Args:
        module: takes `(..., n)`.
        axis: of the input, that has the n channels.
    """

    def __init__(self, module: nn.Module, axis: int) -> None:
        super().__init__()
        self.module = module
        self.axis = axis

    def forward(self, u: Tensor) -> Tensor:
        """Apply the module to `u`, of any shape, with `axis` at the end, and put it back."""
        y: Tensor = self.module(u.movedim(self.axis, -1))
        return y.movedim(-1, self.axis)

    def extra_repr(self) -> str:
        """Shown by `print(network)`."""
        return f"axis={self.axis}"


def register_activation(module_type: ModuleType | None = None, *, channel_axis: int = -1
                        ) -> ModuleType | Callable[[ModuleType], ModuleType]:
    """Tell `compress` that modules of a type, or of one derived from it, are learned elementwise activations.

    As a function, `register_activation(MyAct, channel_axis=1)`, or as a decorator of the class, with or without arguments. The
    class attribute `mncompress_channel_axis = 1` says the same without an import of mncompress.

    Args:
        module_type: a class of torch modules that map one tensor to one of the same shape.
        channel_axis: the axis of the input along which the functions differ.

    Raises:
        ConfigError: `module_type` is no class of torch modules, or the axis is that of the batch.
    """
    if channel_axis == 0:
        raise ConfigError("channel_axis is 0, which is the batch; give 1 for channels first, -1 for channels last")

    def register(found: ModuleType) -> ModuleType:
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise ConfigError(f"only a class derived from torch.nn.Module can be registered, got {found!r}")
        _registered[found] = channel_axis
        return found

    return register if module_type is None else register(module_type)


def channel_axis_of(module: nn.Module) -> int | None:
    """The channel axis of a learned activation; None for every other module."""
    axis = getattr(module, PROTOCOL, None)
    if axis is None:
        axis = next((_registered[base] for base in type(module).__mro__ if base in _registered), None)
    if axis is None and isinstance(module, LearnedActivation):
        return -1
    if axis is None and isinstance(module, AlongAxis) and channel_axis_of(module.module) is not None:
        return module.axis
    return axis


def find_activations(network: nn.Module, prefix: str = "", seen: set[int] | None = None
                     ) -> Iterator[tuple[str, nn.Module, int | None]]:
    """Name, module and channel axis of each activation, in order of definition; the axis is None for standard ones.

    What lies inside an activation belongs to it. A module with several names comes once, under the first.
    """
    seen = set() if seen is None else seen
    for name, child in network.named_children():
        if id(child) in seen:
            continue
        seen.add(id(child))
        axis = channel_axis_of(child)
        if axis is not None or isinstance(child, STANDARD):
            yield prefix + name, child, axis
        else:
            yield from find_activations(child, f"{prefix}{name}.", seen)
