"""Activations as ONNX nodes: standard ones on values of any rank, mncompress's forms on (rows, n)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mncompress.errors import ExportError
from mncompress.export import (
    CubicSplineParameters,
    GraphBuilder,
    Linear,
    PiecewiseLinearParameters,
    Value,
    emit_act,
    emit_activation,
    emit_op,
    to_layout,
)
from mncompress.modules._registry import STANDARD, AlongAxis
from mncompress.modules._rewrite import Select
from mncompress.nn import CubicSpline, Grouped, LearnedActivation, LinearTable, PiecewiseLinear, Polynomial, Scale

FORMS = (AlongAxis, CubicSpline, Grouped, LearnedActivation, LinearTable, PiecewiseLinear, Polynomial, Scale, Select)
"""Modules of mncompress that are written as they are."""

SIMPLE: Mapping[type[nn.Module], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    nn.ReLU: ("Relu", lambda m: {}), nn.Tanh: ("Tanh", lambda m: {}), nn.Sigmoid: ("Sigmoid", lambda m: {}),
    nn.Mish: ("Mish", lambda m: {}), nn.Hardswish: ("HardSwish", lambda m: {}), nn.Softsign: ("Softsign", lambda m: {}),
    nn.LeakyReLU: ("LeakyRelu", lambda m: {"alpha": m.negative_slope}), nn.ELU: ("Elu", lambda m: {"alpha": m.alpha}),
    nn.CELU: ("Celu", lambda m: {"alpha": float(m.alpha)}), nn.RReLU: ("LeakyRelu", lambda m: {"alpha": (m.lower + m.upper) / 2}),
    nn.Hardshrink: ("Shrink", lambda m: {"lambd": float(m.lambd)}),
    nn.Softshrink: ("Shrink", lambda m: {"lambd": float(m.lambd), "bias": float(m.lambd)}),
    nn.Hardsigmoid: ("HardSigmoid", lambda m: {"alpha": 1 / 6, "beta": 0.5}), nn.SELU: ("Selu", lambda m: {}),
    nn.Softmax: ("Softmax", lambda m: {"axis": m.dim}), nn.LogSoftmax: ("LogSoftmax", lambda m: {"axis": m.dim})}
"""Modules that are a single ONNX operator, and its attributes, in eval mode."""
ELEMENTWISE: tuple[type[nn.Module], ...] = tuple(kind for kind in STANDARD if kind is not nn.PReLU)
"""Modules that are the same function of every element."""
CHANNELWISE: tuple[type[nn.Module], ...] = (Scale, *ELEMENTWISE)
"""Modules for which the channels may lie along any axis: see `emit_channelwise`."""


def emit_channelwise(builder: GraphBuilder, x: str, part: nn.Module, behind: int, label: str) -> str:
    """One of `CHANNELWISE` on a value with `behind` axes behind that of the channels."""
    if not isinstance(part, Scale):
        return emit_elementwise(builder, x, part, label)
    for op_type, value, neutral in (("Mul", part.scale, 1), ("Add", part.shift, 0)):
        if bool((value != neutral).any()):
            array = value.detach().numpy().reshape(-1, *[1] * behind)
            x = builder.node(op_type, [x, builder.initializer(f"{label}/by", array)], f"{label}/{op_type.lower()}")
    return x


def emit_fused(builder: GraphBuilder, x: str, linear: nn.Linear, form: CubicSpline | PiecewiseLinear, label: str) -> str:
    """A linear layer and the form behind it as one node on (rows, n)."""
    arrays = {key: parameter.detach().numpy() for key, parameter in form.named_parameters()}
    parameters = (CubicSplineParameters if isinstance(form, CubicSpline) else PiecewiseLinearParameters)(**arrays)
    return emit_op(builder, Value(x), parameters, label, Linear(*weights_of(linear))).name


def weights_of(linear: nn.Linear) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight and bias of a linear layer, zeros where it has none."""
    weight = linear.weight.detach().numpy()
    return weight, np.zeros(len(weight), np.float32) if linear.bias is None else linear.bias.detach().numpy()


def emit_form(builder: GraphBuilder, x: str, form: nn.Module, label: str) -> str:
    """A form of mncompress, or a sequence of them and of standard activations, on (rows, n)."""
    if isinstance(form, nn.Sequential):
        for number, part in enumerate(form):
            x = emit_form(builder, x, part, f"{label}/{number}")
        return x
    if isinstance(form, Select):
        return builder.node("Gather", [x, builder.constant(form.order.numpy(), np.int64)], f"{label}/ordered", axis=1)
    if isinstance(form, Grouped):
        parts = builder.split(x, form.sizes, f"{label}/split")
        joined = [emit_form(builder, part, each, f"{label}/group{number}")
                  for number, (part, each) in enumerate(zip(parts, form.forms, strict=True))]
        y = builder.node("Concat", joined, f"{label}/joined", axis=1)
        return y if form.order is None else emit_form(builder, y, Select(np.array(form.order)), label)
    if isinstance(form, FORMS):
        return to_layout(builder, emit_activation(builder, Value(x), form, label), "batch_first").name
    return x if isinstance(form, nn.Identity) else emit_elementwise(builder, x, form, label)


def emit_elementwise(builder: GraphBuilder, x: str, module: Any, label: str) -> str:
    """A standard activation."""
    if type(module) in SIMPLE:
        op_type, attributes = SIMPLE[type(module)]
        return builder.node(op_type, [x], label, **attributes(module))
    if isinstance(module, nn.SiLU):
        return emit_act(builder, Value(x), "silu").name
    if isinstance(module, nn.GELU) and module.approximate == "none":
        return emit_act(builder, Value(x), "gelu").name

    def op(op_type: str, *inputs: str | float) -> str:
        names = [value if isinstance(value, str) else builder.constant(value) for value in inputs]
        return builder.node(op_type, names, f"{label}/{op_type.lower()}")

    if isinstance(module, nn.GELU):     # half of x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
        cubed = op("Mul", op("Mul", op("Mul", x, x), x), 0.044715)
        bent = op("Tanh", op("Mul", op("Add", x, cubed), float(np.sqrt(2 / np.pi))))
        return op("Mul", op("Mul", x, op("Add", bent, 1.0)), 0.5)
    if isinstance(module, nn.ReLU6 | nn.Hardtanh):
        return op("Clip", x, module.min_val, module.max_val)
    if isinstance(module, nn.Softplus):
        return op("Softplus", x) if module.beta == 1 else op("Div", op("Softplus", op("Mul", x, module.beta)), module.beta)
    if isinstance(module, nn.LogSigmoid):
        return op("Neg", op("Softplus", op("Neg", x)))
    if isinstance(module, nn.Tanhshrink):
        return op("Sub", x, op("Tanh", x))
    if isinstance(module, nn.Threshold):
        return op("Where", op("Greater", x, module.threshold), x, module.value)
    raise ExportError(f"{label} cannot be written as ONNX: there is no form of {module} here; export the network with torch.onnx "
                      "instead")
