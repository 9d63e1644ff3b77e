"""Learned activations as one GPU kernel forward and one backward, in place of a dozen that each write (N, batch, H) numbers.

`fused_activation` computes what the modules of `_families` compute, in float32 and up to rounding. It keeps nothing but u and
the parameters for the backward pass, which computes the inner networks again. All families are inner networks with ends, the
parametric ones of width one:

| family  | ends        | w1   | b1    | v     | c   |
|---------|-------------|------|-------|-------|-----|
| `meta`  | `spec.ends` | w1   | b1    | v     | c   |
| `vaf`   | linear      | a    | b     | v     | c   |
| `agsig` | linear      | beta | 0     | alpha | 0   |
| `frelu` | linear      | 1    | delta | 1     | eta |
| `warp`  | linear      | beta | delta | alpha | eta |

The kernels are in `_fused_kernels` and need triton, which is not on every platform and is imported when it is first used.
"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mncompress.nn._families import FIXED_ENDS, INNER_PARAMETERS, LEARNED_ENDS, LearnedActivation
from mncompress.types import Act, ActivationSpec

MAX_WIDTH = 32
"""Of inner networks: loops over it are unrolled, and compile in seconds up to here."""

Direction = Literal["forward", "backward"]
Kinds = tuple[str, str]
"""Of the ends at input and output: `linear`, `act` or `mixed`, as in `_fused_kernels`."""


def fused_available(device: torch.device, spec: ActivationSpec) -> bool:
    """Whether `fused_activation` can compute these activations on this device.

    `fixed` activations are a single kernel anyway and not available. See `triton_runs`.
    """
    return spec.family != "fixed" and spec.width <= MAX_WIDTH and triton_runs(device)


@functools.cache
def triton_runs(device: torch.device) -> bool:
    """Whether Triton's kernels compile and run on a device; if not on a CUDA device, a warning says why.

    It takes triton, and what triton needs to compile (a C compiler, Python's headers). The first call for a device finds out by
    running a kernel, so it must come before CUDA graph capture.
    """
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    try:
        one = torch.ones(1, 1, device=device)
        _Inner.apply(one, "relu", ("linear", "linear"), one, one, one, one[0], *[None] * 6)
        torch.cuda.synchronize(device)
    except Exception as error:   # whatever it is, the plain activations still work
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        warnings.warn(f"activations run without fused kernels, which is slower; one failed with {reason}", stacklevel=3)
        return False
    return True


def fused_activation(activation: LearnedActivation, parameters: Mapping[str, Tensor], u: Tensor) -> Tensor:
    """Apply learned activations to pre-activations, with gradients by `u` and all parameters.

    Args:
        activation: says which family; its own parameters and number of neurons do not matter.
        parameters: as `activation.named_parameters()`, but of any N neurons: each (N, ...). Those of `shared` activations are
            expanded by the caller.
        u: float32 (batch, N). It is not copied where the batch is its contiguous axis, as in `v.T` of a contiguous (N, batch).

    Returns:
        y (batch, N), with the batch as its contiguous axis. It can be differentiated once.
    """
    spec = activation.spec
    kinds, ends = _make_ends(spec, parameters) if spec.family == "meta" else (("linear", "linear"), [None] * 4)
    y: Tensor = _Inner.apply(u.T, spec.act, kinds, *_make_layer(spec, parameters), *_make_stack(spec, parameters), *ends)
    return y.T


def _make_layer(spec: ActivationSpec, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """w1, b1, v (N, H) and c (N,)."""
    names = INNER_PARAMETERS[spec.family]
    if spec.width:
        return [parameters[name] for name in names if name is not None]
    some = next(iter(parameters.values())).detach()
    absent = [torch.full_like(some, value) for value in (1.0, 0.0, 1.0, 0.0)]
    w, b, v, c = (like if name is None else parameters[name] for name, like in zip(names, absent, strict=True))
    return [w.unsqueeze(-1), b.unsqueeze(-1), v.unsqueeze(-1), c]


def _make_stack(spec: ActivationSpec, parameters: Mapping[str, Tensor]) -> list[Tensor | None]:
    """W (N, L-1, H, H) and b (N, L-1, H) of the layers after the first, or None for both."""
    if spec.depth <= 1:
        return [None, None]
    return [torch.stack([parameters[f"{name}.{k}"] for k in range(spec.depth - 1)], 1) for name in ("weights", "biases")]


def _make_ends(spec: ActivationSpec, parameters: Mapping[str, Tensor]) -> tuple[Kinds, list[Tensor | None]]:
    """The kinds of a meta-neuron's ends; scale and skip (N,) of the input, then of the output, or None."""
    if spec.ends == "activated":
        return ("act", "act"), [None] * 4
    if spec.ends in FIXED_ENDS:
        numbers = [*FIXED_ENDS[spec.ends]] * 2
    else:
        name, make_end = LEARNED_ENDS[spec.ends]
        numbers = [number for place in ("in", "out") for number in make_end(parameters[f"{place}_{name}"])]
    like = parameters["out_bias"].detach()
    return ("mixed", "mixed"), [x if isinstance(x, Tensor) else torch.full_like(like, x) for x in numbers]


@dataclass(frozen=True)
class Launch:
    """How the kernels run for inner networks of one kind on a batch."""

    act: Act
    kinds: Kinds
    width: int
    stack: int
    """Inner layers after the first."""
    batch: int

    @property
    def block(self) -> int:
        """Rows of a program: a power of two, not much above the batch, with which no kernel spills registers."""
        most = 64 if self.stack or self.width > 16 else 128 if self.width > 8 else 256
        return min(most, max(32, 1 << (self.batch - 1).bit_length()))

    @property
    def blocks(self) -> int:
        """Programs along the batch."""
        return -(-self.batch // self.block)

    @property
    def warps(self) -> int:
        """Warps of a program."""
        return 4 if self.stack else 1

    @property
    def constants(self) -> dict[str, int | str]:
        """The kernels' compile-time arguments."""
        inner = {"STACK": self.stack, "HP": max(16, 1 << (self.width - 1).bit_length())} if self.stack else {}
        return {"H": self.width, **inner, "ACT": self.act, "IN": self.kinds[0], "OUT": self.kinds[1], "BLOCK": self.block}

    def kernel(self, direction: Direction) -> Any:
        """The Triton kernel."""
        from mncompress.nn import _fused_kernels

        return getattr(_fused_kernels, f"{'deep' if self.stack else 'shallow'}_{direction}")

    def run(self, direction: Direction, u: Tensor, tensors: Sequence[Tensor | None], *others: Tensor | int) -> None:
        """Launch a kernel for u (N, batch) and the tensors of `_Inner`, and what follows these in its arguments."""
        given = tensors if self.stack else [*tensors[:4], *tensors[6:]]
        with torch.cuda.device_of(u):
            self.kernel(direction)[len(u), self.blocks](u, *given, *others, **self.constants, num_warps=self.warps)


class _Inner(torch.autograd.Function):
    """y (N, batch) from u (N, batch), act, the kinds of the ends, and w1, b1, v, c, W, b, scale and skip of the input, scale
    and skip of the output, as `_fused_kernels` names them; None for those that there are not.
    """  # noqa: D205

    @staticmethod
    def forward(ctx: Any, u: Tensor, act: Act, kinds: Kinds, *tensors: Tensor | None) -> Tensor:
        assert {u.dtype, *(tensor.dtype for tensor in tensors if tensor is not None)} == {torch.float32}, "kernels are float32"
        u = u.contiguous()
        given = [None if tensor is None else tensor.contiguous() for tensor in tensors]
        assert all(tensor is None or len(tensor) == len(u) for tensor in given), f"{u.shape = }, not as many rows of parameters"
        first_weight, weights = given[0], given[4]
        assert first_weight is not None
        ctx.launch = Launch(act, kinds, first_weight.shape[1], 0 if weights is None else weights.shape[1], u.shape[1])
        ctx.save_for_backward(u, *given)
        y = torch.empty_like(u)
        ctx.launch.run("forward", u, given, y, u.shape[1])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_grad: Tensor) -> tuple[Tensor | None, ...]:
        u, *given = ctx.saved_tensors
        sizes = [tensor.numel() for tensor in given if tensor is not None]
        u_grad, partials = torch.empty_like(u), u.new_empty(ctx.launch.blocks, sum(sizes))
        ctx.launch.run("backward", u, given, y_grad.contiguous(), u_grad, partials, u.shape[1], len(u), sum(sizes))
        pieces = iter((partials.sum(0) if len(partials) > 1 else partials[0]).split(sizes))
        return u_grad, None, None, *(None if tensor is None else next(pieces).view(tensor.shape) for tensor in given)
