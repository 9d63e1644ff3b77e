"""The forms' compiled operators: `mncompress::cubic_spline` and `mncompress::piecewise_linear`, forward and backward.

    cubic_spline(u, start, inverse_step, coefficients) -> y
    piecewise_linear(u, knots, slope_changes, slope, intercept) -> y

u and y are float32 (..., n), parameters as in `_forms`, whose plain torch code is the definition; each has a second operator
`*_backward(y_grad, u, ...)` that gives the gradients by u and all parameters in one pass. They can be differentiated once,
compiled and exported by torch, and take any layout, copying what is not contiguous. Eager code runs the same kernels without
going through torch's dispatcher.

On the CPU they call the library of `mncompress.native`, which splits large batches over `torch.get_num_threads()` threads.
On CUDA they launch the Triton kernels of `_operator_kernels`, which are tested in Triton's interpreter against float64 autograd
and compiled ahead of time for sm_90; **they have not run on a GPU yet**. There the gradient by `coefficients` is summed in an
order that varies, so with `torch.use_deterministic_algorithms` the plain code runs.
"""

import ctypes
import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mncompress.native import load_library
from mncompress.nn._fused import _kernels_run

ROWS, NEURONS = 128, 16
"""What a Triton program has at a time."""

NATIVE = hasattr(load_library(), "mncompress_cubic_spline_backward")
"""Whether the library is there."""

Operator = Callable[..., Any]


def can_run(u: Tensor, *parameters: Tensor) -> bool:
    """Whether the operators can compute this: float32 on one device that has kernels, and u (..., n) for parameters (n, ...)."""
    if any(tensor.dtype != torch.float32 or tensor.device != u.device for tensor in (u, *parameters)):
        return False
    if u.dim() == 0 or u.shape[-1] != len(parameters[0]):
        return False
    if u.device.type == "cpu":
        return NATIVE
    return u.device.type == "cuda" and not torch.are_deterministic_algorithms_enabled() and _triton_runs(u.device)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _triton_runs(device: torch.device) -> bool:
    return find_spec("triton") is not None and _kernels_run(device)


def _sizes(u: Tensor, parameters: tuple[Tensor, ...]) -> tuple[int, int, int]:
    """Rows, neurons, and what the largest parameter has of each neuron: intervals or knots."""
    neurons = u.shape[-1]
    assert all(tensor.dtype == torch.float32 for tensor in (u, *parameters)), "kernels are float32"
    assert all(len(tensor) == neurons for tensor in parameters), f"{u.shape = }, not as many rows of parameters"
    return u.numel() // max(neurons, 1), neurons, next(tensor.shape[1] for tensor in parameters if tensor.dim() > 1)


@functools.cache
def _native_function(name: str, pointers: int) -> Callable[..., None]:
    function = getattr(load_library(), f"mncompress_{name}")
    function.argtypes, function.restype = [ctypes.c_size_t] * 4 + [ctypes.c_void_p] * pointers, None
    return function  # type: ignore[no-any-return]


def _call_native(name: str, u: Tensor, parameters: tuple[Tensor, ...], *others: Tensor) -> None:
    """Run a function of the library for contiguous tensors; `others` follow the parameters in its arguments."""
    pointers = [tensor.data_ptr() for tensor in (u, *parameters, *others)]
    _native_function(name, len(pointers))(*_sizes(u, parameters), torch.get_num_threads(), *pointers)


def _native_forward(name: str, u: Tensor, *parameters: Tensor) -> Tensor:
    u, *given = (tensor.contiguous() for tensor in (u, *parameters))
    y = torch.empty_like(u)
    _call_native(name, u, tuple(given), y)
    return y


def _native_backward(name: str, y_grad: Tensor, u: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
    y_grad, u, *given = (tensor.contiguous() for tensor in (y_grad, u, *parameters))
    gradients = tuple(torch.empty_like(tensor) for tensor in (u, *given))
    _call_native(f"{name}_backward", u, tuple(given), y_grad, *gradients)
    return gradients


def _call_triton(name: str, u: Tensor, parameters: tuple[Tensor, ...], *others: Tensor | int) -> None:
    from mncompress.nn import _operator_kernels

    rows, neurons, pieces = _sizes(u, parameters)
    if u.numel():
        with torch.cuda.device_of(u):
            grid = -(-rows // ROWS), -(-neurons // NEURONS)
            getattr(_operator_kernels, name)[grid](u, *parameters, *others, rows, neurons, pieces, ROWS=ROWS, NEURONS=NEURONS)


def _triton_forward(name: str, u: Tensor, *parameters: Tensor) -> Tensor:
    u, *given = (tensor.contiguous() for tensor in (u, *parameters))
    y = torch.empty_like(u)
    _call_triton(f"{name}_forward", u, tuple(given), y)
    return y


def _triton_backward(name: str, y_grad: Tensor, u: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
    """The kernels add to the gradient by coefficients, and write those by other parameters for each block of rows."""
    y_grad, u, *given = (tensor.contiguous() for tensor in (y_grad, u, *parameters))
    added = [torch.zeros_like(tensor) for tensor in given if tensor.dim() == 3]
    written = [tensor for tensor in given if tensor.dim() < 3]
    floats = [tensor.numel() for tensor in written]
    u_grad, partials = torch.empty_like(u), u.new_empty(-(-_sizes(u, tuple(given))[0] // ROWS), sum(floats))
    _call_triton(f"{name}_backward", u, tuple(given), y_grad, u_grad, *added, partials, sum(floats))
    pieces = partials.sum(0).split(floats)
    return u_grad, *(piece.clone().view_as(tensor) for piece, tensor in zip(pieces, written, strict=True)), *added


def _fake(*like: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in like)


def _make_operator(name: str, *parameters: str) -> Operator:
    """Register an operator whose parameters have these names, with its gradient."""
    arguments = ", ".join(f"Tensor {argument}" for argument in ("u", *parameters))
    gradients = ", ".join("Tensor" for _ in ("u", *parameters))
    custom_op: Any = functools.partial(torch.library.custom_op, mutates_args=(), device_types="cpu")
    forward = custom_op(f"mncompress::{name}", functools.partial(_native_forward, name), schema=f"({arguments}) -> Tensor")
    forward.register_kernel("cuda", functools.partial(_triton_forward, name))
    forward.register_fake(lambda u, *_: _fake(u)[0])
    backward = custom_op(f"mncompress::{name}_backward", functools.partial(_native_backward, name),
                         schema=f"(Tensor y_grad, {arguments}) -> ({gradients})")
    backward.register_kernel("cuda", functools.partial(_triton_backward, name))
    backward.register_fake(lambda _, *tensors: _fake(*tensors))
    forward.register_autograd(lambda ctx, y_grad: backward(y_grad, *ctx.saved_tensors),
                              setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
    return forward  # type: ignore[no-any-return]


OPERATORS = {
    "cubic_spline": _make_operator("cubic_spline", "start", "inverse_step", "coefficients"),
    "piecewise_linear": _make_operator("piecewise_linear", "knots", "slope_changes", "slope", "intercept"),
}


class _Eager(torch.autograd.Function):
    """The same without the dispatcher, which would take most of the time of a small batch."""

    @staticmethod
    def forward(ctx: Any, name: str, *tensors: Tensor) -> Tensor:
        ctx.name = name
        ctx.save_for_backward(*tensors)
        return (_triton_forward if tensors[0].is_cuda else _native_forward)(name, *tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_grad: Tensor) -> tuple[Tensor | None, ...]:
        run = _triton_backward if y_grad.is_cuda else _native_backward
        return None, *run(ctx.name, y_grad, *ctx.saved_tensors)


def _apply(name: str, *tensors: Tensor) -> Tensor:
    eager = type(tensors[0]) is Tensor and not torch.compiler.is_compiling()
    y: Tensor = _Eager.apply(name, *tensors) if eager else OPERATORS[name](*tensors)
    return y


def cubic_spline(u: Tensor, start: Tensor, inverse_step: Tensor, coefficients: Tensor) -> Tensor:
    """Cubic splines at u (..., n), where `can_run` says so."""
    return _apply("cubic_spline", u, start, inverse_step, coefficients)


def piecewise_linear(u: Tensor, knots: Tensor, slope_changes: Tensor, slope: Tensor, intercept: Tensor) -> Tensor:
    """Piecewise-linear functions at u (..., n), where `can_run` says so."""
    return _apply("piecewise_linear", u, knots, slope_changes, slope, intercept)
