"""The forms' compiled operators: `mncompress::cubic_spline` and `mncompress::piecewise_linear`, forward and backward.

    cubic_spline(u, start, inverse_step, coefficients) -> y
    piecewise_linear(u, knots, slope_changes, slope, intercept) -> y

u and y are float32 (..., n), parameters as in `_plain`, whose code is the definition; each has a second operator
`*_backward(y_grad, u, ...)` that gives the gradients by u and all parameters in one pass. They can be compiled and exported by
torch, and take any layout, copying what is not contiguous. Eager code runs the same kernels without going through torch's
dispatcher, unless something listens there; its second derivatives are those of the plain code. `torch.func`, forward-mode
differentiation and `torch.jit.trace` take the plain code altogether.

On the CPU they call the library of `mncompress.native`, which splits large batches over `torch.get_num_threads()` threads.
On CUDA they launch the Triton kernels of `_operator_kernels`, which are tested against float64 autograd, in Triton's interpreter
where there is no GPU. There the gradient by `coefficients` is summed in an
order that varies, so with `torch.use_deterministic_algorithms` the plain code runs.
"""

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mncompress.native import load_library
from mncompress.nn import _plain
from mncompress.nn._fused import triton_runs

ROWS, NEURONS = 128, 16
"""What a Triton program has at a time."""

NATIVE = load_library() is not None

Operator = Callable[..., Any]


def can_run(u: Tensor, *parameters: Tensor) -> bool:
    """Whether the operators can compute this: float32 on one device that has kernels, of shapes that fit, not transformed."""
    if any(tensor.dtype != torch.float32 or tensor.device != u.device for tensor in (u, *parameters)):
        return False
    if (not torch.compiler.is_compiling() and _is_transformed()) or not _fit(u, parameters):
        return False
    if u.device.type == "cpu":
        return NATIVE
    return u.device.type == "cuda" and not torch.are_deterministic_algorithms_enabled() and _triton_runs(u.device)


def _fit(u: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Whether the shapes are those of one of the operators, for u (..., n)."""
    if u.dim() == 0:
        return False
    n = u.shape[-1]
    if len(parameters) == 3:
        coefficients = parameters[2]
        tables = coefficients.dim() == 3 and len(coefficients) == n and coefficients.shape[1] >= 1 and coefficients.shape[2] == 4
        return tables and all(tensor.shape == (n,) for tensor in parameters[:2])
    knots, slope_changes, *lines = parameters
    return knots.dim() == 2 and len(knots) == n and slope_changes.shape == knots.shape and all(line.shape == (n,) for line in lines)


def _is_transformed() -> bool:
    """Whether `torch.func`, forward-mode differentiation or `torch.jit.trace` is at work, which need to see every operation."""
    return (torch._C._functorch.maybe_current_level() is not None or torch.autograd.forward_ad._current_level >= 0
            or torch._C._get_tracing_state() is not None)


def _triton_runs(device: torch.device) -> bool:
    return triton_runs(device)


# What torch.compiler.assume_constant_result does, which would import the compiler, and that takes seconds.
_triton_runs._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _sizes(u: Tensor, parameters: tuple[Tensor, ...]) -> tuple[int, int, int]:
    """Rows, neurons, and what the largest parameter has of each neuron: intervals or knots."""
    if any(tensor.dtype != torch.float32 for tensor in (u, *parameters)) or not _fit(u, parameters):
        shapes = ", ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in (u, *parameters))
        raise ValueError(f"u and the parameters must be float32 and fit one another, got {shapes}")
    neurons = u.shape[-1]
    return u.numel() // max(neurons, 1), neurons, next(tensor.shape[1] for tensor in parameters if tensor.dim() > 1)


@functools.cache
def _native_function(name: str, pointers: int) -> Callable[..., int]:
    function = getattr(load_library(), f"mncompress_{name}")
    function.argtypes, function.restype = [ctypes.c_size_t] * 4 + [ctypes.c_void_p] * pointers, ctypes.c_int
    return function  # type: ignore[no-any-return]


def _call_native(name: str, u: Tensor, parameters: tuple[Tensor, ...], *others: Tensor) -> None:
    """Run a function of the library for contiguous tensors; `others` follow the parameters in its arguments."""
    pointers = [tensor.data_ptr() for tensor in (u, *parameters, *others)]
    if _native_function(name, len(pointers))(*_sizes(u, parameters), torch.get_num_threads(), *pointers):
        raise MemoryError(f"there is not enough memory to compute {name} of a batch of shape {tuple(u.shape)}")


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
    def backward(ctx: Any, y_grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():     # somebody will differentiate the gradient
            wanted = [tensor for tensor in ctx.saved_tensors if tensor.requires_grad]
            y = getattr(_plain, ctx.name)(*ctx.saved_tensors)
            found = iter(torch.autograd.grad(y, wanted, y_grad, create_graph=True))
            return None, *(next(found) if tensor.requires_grad else None for tensor in ctx.saved_tensors)
        run = _triton_backward if y_grad.is_cuda else _native_backward
        return None, *run(ctx.name, y_grad, *ctx.saved_tensors)


def _apply(name: str, *tensors: Tensor) -> Tensor:
    watched = torch.compiler.is_compiling() or type(tensors[0]) is not Tensor or torch._C._len_torch_dispatch_stack() > 0
    y: Tensor = OPERATORS[name](*tensors) if watched else _Eager.apply(name, *tensors)
    return y


def cubic_spline(u: Tensor, start: Tensor, inverse_step: Tensor, coefficients: Tensor) -> Tensor:
    """Cubic splines at u (..., n), where `can_run` says so."""
    return _apply("cubic_spline", u, start, inverse_step, coefficients)


def piecewise_linear(u: Tensor, knots: Tensor, slope_changes: Tensor, slope: Tensor, intercept: Tensor) -> Tensor:
    """Piecewise-linear functions at u (..., n), where `can_run` says so."""
    return _apply("piecewise_linear", u, knots, slope_changes, slope, intercept)
