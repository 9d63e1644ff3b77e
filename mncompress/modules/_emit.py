"""Modules and function calls as ONNX nodes: one function a kind, found in the tables `MODULES` and `CALLS`.

Each takes the `Emission` under way, the fx node and the module that it calls, adds nodes and returns the name of the result.
Functions of torch that have a module (`torch.relu`, `F.max_pool2d`) are emitted as that. Shapes are those of the example, with the
first axis left open; that they do not depend on it is checked on the written file.
"""

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from mncompress.errors import ExportError
from mncompress.export import GraphBuilder
from mncompress.modules._emit_forms import (
    CHANNELWISE,
    ELEMENTWISE,
    FORMS,
    emit_channelwise,
    emit_elementwise,
    emit_form,
    emit_fused,
    weights_of,
)
from mncompress.modules._registry import AlongAxis
from mncompress.modules._topology import PASSING
from mncompress.nn import CubicSpline, PiecewiseLinear


@dataclass
class Emission:
    """A graph that is being written.

    Attributes:
        builder: collects the nodes.
        values: what every fx node gave for the example: tensors, shapes, numbers.
        network: whose modules the nodes call.
        names: of the ONNX values of fx nodes; of a linear layer that is emitted with the form behind it, that of its input.
    """

    builder: GraphBuilder
    values: Mapping[fx.Node, Any]
    network: nn.Module
    names: dict[fx.Node, str] = field(default_factory=dict)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of a node's tensor for the example."""
        return tuple(self.values[node].shape)

    def name(self, argument: Any) -> str:
        """The ONNX value of an argument: a node's, or a constant."""
        if isinstance(argument, fx.Node) and argument in self.names:
            return self.names[argument]
        return self.builder.constant(self.plain(argument))

    def plain(self, argument: Any) -> Any:
        """The number or the like that an argument was for the example."""
        return self.values[argument] if isinstance(argument, fx.Node) else argument

    def fused(self, node: Any) -> nn.Linear | None:
        """The linear layer that a node calls, if the only reader is a form with which it makes one node."""
        if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.users) != 1 or len(self.shape(node)) != 2:
            return None
        linear, reader = self.network.get_submodule(str(node.target)), next(iter(node.users))
        form = self.network.get_submodule(str(reader.target)) if reader.op == "call_module" else None
        return linear if type(linear) is nn.Linear and isinstance(form, CubicSpline | PiecewiseLinear) else None

    def reshape(self, value: str, shape: tuple[int, ...], label: str) -> str:
        """`value` in another shape, the first axis open."""
        return self.builder.node("Reshape", [value, self.builder.constant([-1, *shape[1:]], np.int64)], label)


Emit = Callable[[Emission, fx.Node, Any, str], str]
TENSORS = ("input", "tensors", "tensor")
"""How functions of torch name their first argument."""


def put_tensors_first_(graph: fx.Graph, network: nn.Module) -> None:
    """Let the calls of a graph have by position what they have by keyword: of modules all arguments, of functions the first."""
    for node in graph.nodes:
        if node.op == "call_module" and node.kwargs:
            forward = inspect.signature(network.get_submodule(str(node.target)).forward)
            bound = forward.bind(*node.args, **node.kwargs)
            node.args, node.kwargs = bound.args, bound.kwargs
        elif node.op == "call_function" and not node.args:
            first = [name for name in TENSORS if name in node.kwargs][:1]
            node.args = tuple(node.kwargs[name] for name in first)
            node.kwargs = {name: value for name, value in node.kwargs.items() if name not in first}


def emit_node(emission: Emission, node: fx.Node) -> str:
    """Add what one fx node computes.

    Raises:
        ExportError: there is no ONNX form for it here.
    """
    if node.op == "get_attr":
        value = emission.values[node]
        return emission.builder.initializer(str(node.target), value.detach().numpy())
    module = emission.network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if module is None and node.target in CALLS:
        return CALLS[node.target](emission, node, None, node.name)
    if module is None and node.target in AS_MODULES:
        module = _as_module(emission, node)
    emit = next((MODULES[base] for base in type(module).__mro__ if base in MODULES), None)
    if module is None or emit is None:
        raise no_form(node, module)
    return emit(emission, node, module, str(node.target) if node.op == "call_module" else node.name)


def no_form(node: fx.Node, module: nn.Module | None) -> ExportError:
    """The error that a node has no ONNX form here; `module` is what it calls, if it does."""
    what = type(module).__name__ if module is not None else getattr(node.target, "__name__", node.target)
    owner = next(reversed(node.meta.get("nn_module_stack", {})), "")
    place = f"{node.name} in {owner}" if owner and module is None else node.name
    return ExportError(f"{place} cannot be written as ONNX: there is no form of {what} here; export the network with torch.onnx "
                       "instead, or leave it out of the network")


def _as_module(emission: Emission, node: fx.Node) -> nn.Module | None:
    """The module that a function is, or None where it has arguments that the module lacks."""
    options = {name: value for name, value in node.kwargs.items() if name != "_stacklevel" and value is not None}
    try:
        return AS_MODULES[node.target](*map(emission.plain, node.args[1:]), **options) if node.args else None
    except TypeError:
        return None


def _dropout(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    if node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True):
        raise ExportError(f"{label} cannot be written as ONNX: it drops values in eval mode too; give it training=self.training")
    return emission.name(node.args[0])


def _along_axis(emission: Emission, node: fx.Node, form: Any, label: str) -> str:
    """A form on an input of any rank, along the last axis or another."""
    builder, source = emission.builder, node.args[0]
    assert isinstance(source, fx.Node)
    shape, out_shape, x = emission.shape(source), emission.shape(node), emission.name(source)
    rank, linear = len(shape), emission.fused(source)
    if linear is not None:
        return emit_fused(builder, x, linear, form, label)
    axis = form.axis % rank if isinstance(form, AlongAxis) else rank - 1
    form = form.module if isinstance(form, AlongAxis) else form
    parts = list(form) if isinstance(form, nn.Sequential) else [form]
    if all(isinstance(part, CHANNELWISE) for part in parts):    # no need to move the axis
        for part in parts:
            x = emit_channelwise(builder, x, part, rank - 1 - axis, label)
        return x
    order = [*(i for i in range(rank) if i != axis), axis]
    if axis != rank - 1:
        x = builder.node("Transpose", [x], f"{label}/channels_last", perm=order)
    if rank != 2:
        x = emission.reshape(x, (0, shape[axis]), f"{label}/rows")
    y = emit_form(builder, x, form, label)
    if rank != 2:
        y = emission.reshape(y, tuple(out_shape[i] for i in order), f"{label}/positions")
    if axis != rank - 1:
        y = builder.node("Transpose", [y], f"{label}/channels_first", perm=np.argsort(order).tolist())
    return y


def _activation(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    return emit_elementwise(emission.builder, emission.name(node.args[0]), module, label)


def _prelu(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    """The slopes of a PReLU run along axis 1."""
    slopes = module.weight.detach().numpy().reshape(-1, *[1] * (len(emission.shape(node)) - 2))
    inputs = [emission.name(node.args[0]), emission.builder.initializer(f"{label}/slope", slopes)]
    return emission.builder.node("PRelu", inputs, label)


def _same(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    return emission.name(node.args[0])


def _linear(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    builder, x = emission.builder, emission.name(node.args[0])
    if emission.fused(node) is not None:
        return x
    weight, bias = weights_of(module)
    if len(emission.shape(node)) == 2:
        inputs = [x, builder.initializer(f"{label}/weight", weight), builder.initializer(f"{label}/bias", bias)]
        return builder.node("Gemm", inputs, label, transB=1)
    product = builder.node("MatMul", [x, builder.initializer(f"{label}/weight", weight.T)], f"{label}/product")
    return builder.node("Add", [product, builder.initializer(f"{label}/bias", bias)], label)


def _functional_linear(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    x, weight, *rest = node.args
    bias = rest[0] if rest else node.kwargs.get("bias")
    inputs = [emission.name(each) for each in (x, weight, bias) if each is not None]
    if len(emission.shape(node)) == 2:
        return emission.builder.node("Gemm", inputs, label, transB=1)
    transposed = emission.builder.node("Transpose", [inputs[1]], f"{label}/transposed", perm=[1, 0])
    product = emission.builder.node("MatMul", [inputs[0], transposed], f"{label}/product")
    return product if bias is None else emission.builder.node("Add", [product, inputs[2]], label)


def _conv(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    if module.padding_mode != "zeros":
        raise ExportError(f"{label} cannot be written as ONNX: its padding mode is {module.padding_mode!r}, only 'zeros' has a "
                          "form here; export the network with torch.onnx instead")
    total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    pads = [*module.padding] * 2 if isinstance(module.padding, tuple) else [0] * 2 * len(total)
    if module.padding == "same":
        pads = [each // 2 for each in total] + [each - each // 2 for each in total]
    builder = emission.builder
    arrays = {"weight": module.weight} | ({} if module.bias is None else {"bias": module.bias})
    inputs = [builder.initializer(f"{label}/{key}", value.detach().numpy()) for key, value in arrays.items()]
    return builder.node("Conv", [emission.name(node.args[0]), *inputs], label, strides=list(module.stride), pads=pads,
                        dilations=list(module.dilation), group=module.groups)


def _batch_norm(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    ones = torch.ones(module.num_features)
    arrays = {"scale": module.weight if module.affine else ones, "bias": module.bias if module.affine else 0 * ones,
              "mean": module.running_mean, "var": module.running_var}
    inputs = [emission.builder.initializer(f"{label}/{key}", value.detach().numpy()) for key, value in arrays.items()]
    return emission.builder.node("BatchNormalization", [emission.name(node.args[0]), *inputs], label, epsilon=module.eps)


def _layer_norm(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    shape = module.normalized_shape
    weight = torch.ones(shape) if module.weight is None else module.weight
    bias = torch.zeros(shape) if module.bias is None else module.bias
    inputs = [emission.builder.initializer(f"{label}/{key}", value.detach().numpy())
              for key, value in (("scale", weight), ("bias", bias))]
    return emission.builder.node("LayerNormalization", [emission.name(node.args[0]), *inputs], label, axis=-len(shape),
                                 epsilon=module.eps)


def _pool(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    """MaxPool and AvgPool of any number of axes."""
    axes = len(emission.shape(node)) - 2
    def spread(value: Any) -> list[int]:
        return [value] * axes if isinstance(value, int) else list(value)

    own: dict[str, Any] = {"dilations": spread(module.dilation)} if hasattr(module, "dilation") else {
        "count_include_pad": int(module.count_include_pad)}
    if getattr(module, "return_indices", False) or getattr(module, "divisor_override", None):
        raise ExportError(f"{label} cannot be written as ONNX: {module} returns indices or has a divisor; leave that out")
    return emission.builder.node("MaxPool" if hasattr(module, "dilation") else "AveragePool", [emission.name(node.args[0])], label,
                                 kernel_shape=spread(module.kernel_size), strides=spread(module.stride or module.kernel_size),
                                 pads=spread(module.padding) * 2, ceil_mode=int(module.ceil_mode), **own)


def _adaptive_pool(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    """Equal windows, where the sizes divide."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    sizes, wanted = emission.shape(source)[2:], emission.shape(node)[2:]
    if any(size % out for size, out in zip(sizes, wanted, strict=True)):
        raise ExportError(f"{label} cannot be written as ONNX: {sizes} positions cannot be pooled to {wanted} by equal windows; "
                          "choose a size that divides")
    windows = [size // out for size, out in zip(sizes, wanted, strict=True)]
    return emission.builder.node("AveragePool", [emission.name(source)], label, kernel_shape=windows, strides=windows)


def _reshape(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    """Flatten, view, reshape, squeeze: the shape that the example had."""
    return emission.reshape(emission.name(node.args[0]), emission.shape(node), label)


def _binary(op_type: str) -> Emit:
    def emit(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
        if node.kwargs:
            raise ExportError(f"{label} cannot be written as ONNX: {node.target} has further arguments; write them out")
        return emission.builder.node(op_type, [emission.name(argument) for argument in node.args[:2]], label)

    return emit


def _cat(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    parts: Any = node.args[0]
    return emission.builder.node("Concat", [emission.name(part) for part in parts], label, axis=axis)


def _reduce(op_type: str) -> Emit:
    def emit(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
        axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        keep = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
        if axes is None:
            raise ExportError(f"{label} cannot be written as ONNX: what goes over all samples has no form here; give its axes")
        stored = emission.builder.constant(np.atleast_1d(np.array(axes)), np.int64)
        return emission.builder.node(op_type, [emission.name(node.args[0]), stored], label, keepdims=int(bool(keep)))

    return emit


def _unary(op_type: str) -> Emit:
    def emit(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
        return emission.builder.node(op_type, [emission.name(node.args[0])], label)

    return emit


def _clamp(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    limits = dict(zip(("min", "max"), node.args[1:], strict=False)) | node.kwargs
    given = [limits.get(name) for name in ("min", "max")]
    inputs = ["" if limit is None else emission.name(limit) for limit in given]
    return emission.builder.node("Clip", [emission.name(node.args[0]), *inputs], label)


def _item(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    """Slices and numbers of axes behind the first, which is the batch."""
    source: Any = node.args[0]
    index: Any = node.args[1]
    shape, parts = emission.shape(source), list(index) if isinstance(index, tuple) else [index]
    parts = [slice(*map(emission.plain, (each.start, each.stop, each.step))) if isinstance(each, slice) else emission.plain(each)
             for each in parts]
    if Ellipsis in parts:
        place = parts.index(Ellipsis)
        parts[place:place + 1] = [slice(None)] * (len(shape) + 1 - sum(each is not None for each in parts))
    axes = [each for each in parts if each is not None]     # None makes an axis
    if axes[:1] not in ([], [slice(None)]) or any(type(each) not in (int, slice) for each in axes):
        raise ExportError(f"{label} cannot be written as ONNX: only slices and numbers of axes behind the batch have a form here")
    chosen = [(axis, *(slice(each, each + 1 or None) if isinstance(each, int) else each).indices(size))
              for axis, (each, size) in enumerate(zip(axes, shape, strict=False)) if each != slice(None)]
    x = emission.name(source)
    if chosen:
        order = [[start, stop, axis, step] for axis, start, stop, step in chosen]
        inputs = [emission.builder.constant(list(column), np.int64) for column in zip(*order, strict=True)]
        x = emission.builder.node("Slice", [x, *inputs], f"{label}/slice")
    return emission.reshape(x, emission.shape(node), label)


def _permute(emission: Emission, node: fx.Node, module: Any, label: str) -> str:
    """Permute and transpose: as they act on the numbers of the axes."""
    rank = len(emission.shape(node))
    order = torch.empty(*range(1, rank + 1), device="meta")  # every axis tells by its length where it was
    moved = getattr(order, str(getattr(node.target, "__name__", node.target)))(*node.args[1:], **node.kwargs)
    return emission.builder.node("Transpose", [emission.name(node.args[0])], label, perm=[size - 1 for size in moved.shape])


MODULES: dict[type[nn.Module], Emit] = {
    nn.Linear: _linear, nn.Conv1d: _conv, nn.Conv2d: _conv, nn.Conv3d: _conv, nn.PReLU: _prelu, nn.LayerNorm: _layer_norm,
    nn.Flatten: _reshape, nn.Unflatten: _reshape,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive_pool),
    **dict.fromkeys(PASSING, _same), **dict.fromkeys(FORMS, _along_axis),
    **dict.fromkeys((*ELEMENTWISE, nn.Softmax, nn.LogSoftmax), _activation)}
AS_MODULES: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU, torch.relu: nn.ReLU, torch.relu_: nn.ReLU, "relu": nn.ReLU, "relu_": nn.ReLU, F.relu6: nn.ReLU6,
    torch.sigmoid: nn.Sigmoid, F.sigmoid: nn.Sigmoid, "sigmoid": nn.Sigmoid, torch.tanh: nn.Tanh, F.tanh: nn.Tanh, "tanh": nn.Tanh,
    F.gelu: nn.GELU, F.silu: nn.SiLU, F.mish: nn.Mish, F.hardswish: nn.Hardswish, F.hardsigmoid: nn.Hardsigmoid,
    F.leaky_relu: nn.LeakyReLU, F.elu: nn.ELU, F.celu: nn.CELU, F.selu: nn.SELU, F.softplus: nn.Softplus,
    F.logsigmoid: nn.LogSigmoid, F.softsign: nn.Softsign, F.hardtanh: nn.Hardtanh, F.hardshrink: nn.Hardshrink,
    F.softshrink: nn.Softshrink, F.tanhshrink: nn.Tanhshrink, F.threshold: nn.Threshold, torch.softmax: nn.Softmax,
    F.softmax: nn.Softmax, "softmax": nn.Softmax, torch.log_softmax: nn.LogSoftmax, F.log_softmax: nn.LogSoftmax,
    "log_softmax": nn.LogSoftmax, F.max_pool2d: nn.MaxPool2d, F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d}
"""Functions and methods that do what a module does, with the same arguments."""
CALLS: dict[Any, Emit] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _binary("Add")),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub"), _binary("Sub")),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), _binary("Mul")),
    **dict.fromkeys((operator.truediv, torch.div, "div"), _binary("Div")),
    **dict.fromkeys((torch.flatten, "flatten", "view", torch.reshape, "reshape", torch.unsqueeze, "unsqueeze", torch.squeeze,
                     "squeeze"), _reshape),
    **dict.fromkeys((torch.cat, torch.concat), _cat), **dict.fromkeys((torch.mean, "mean"), _reduce("ReduceMean")),
    **dict.fromkeys((torch.sum, "sum"), _reduce("ReduceSum")), **dict.fromkeys((torch.clamp, "clamp"), _clamp),
    **dict.fromkeys((operator.pow, torch.pow, "pow"), _binary("Pow")), operator.getitem: _item,
    **dict.fromkeys((operator.matmul, torch.matmul, "matmul"), _binary("MatMul")),
    **dict.fromkeys((operator.neg, torch.neg, "neg"), _unary("Neg")),
    **{target: _unary(name.capitalize()) for name in ("exp", "log", "sqrt", "abs", "sin", "cos") for target in (
        name, getattr(torch, name))},
    **dict.fromkeys((torch.permute, "permute", torch.transpose, "transpose"), _permute),
    **dict.fromkeys(("contiguous", "clone", "detach", "float"), _same), F.dropout: _dropout,
    F.linear: _functional_linear}
