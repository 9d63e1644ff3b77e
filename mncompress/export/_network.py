"""A torch network as an ONNX model: one Gemm per linear layer, with the standardization folded into the first and last.

Folding multiplies and adds in float64 and rounds once. Where a raw feature's offset is far larger than its spread, folding
would cancel digits in float32; then the offset is subtracted explicitly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor, nn

from mncompress.analysis import make_inner_networks
from mncompress.export._activations import (
    CubicSplineParameters,
    Linear,
    Parameters,
    PiecewiseLinearParameters,
    PolynomialParameters,
    emit_act,
    emit_affine,
    emit_feed_forward,
    emit_linear,
    emit_linear_on_parts,
    emit_linear_table,
    emit_op,
    emit_polynomial,
    fast_layout,
    to_layout,
)
from mncompress.export._check import check_model
from mncompress.export._functions import make_functions
from mncompress.export._graph import GraphBuilder, Layout, Value
from mncompress.export._inline import inline_functions
from mncompress.export._inner import Form, choose_form, emit_meta, emit_vaf, form_layout
from mncompress.export._merge import merge_linears
from mncompress.files import atomic_path
from mncompress.nn import (
    CubicSpline,
    Grouped,
    LearnedActivation,
    LinearTable,
    Meta,
    Network,
    PiecewiseLinear,
    Polynomial,
    Scale,
    Vaf,
    may_be_one_node,
)

OUTPUT_NAMES = {"classification": "logits", "regression": "output"}

Floats = NDArray[np.float64]


def write_onnx(network: Network, path: Path, *, opset_version: int, inline: bool, metadata: Mapping[str, str],
               large_batch: bool = False) -> None:
    """Write a network as an ONNX file, checked in full by onnx's own checker before it appears.

    Args:
        network: original or compressed.
        path: of the file.
        opset_version: 18 or newer.
        inline: standard operators only, without model-local functions.
        metadata: written to the file's `metadata_props`.
        large_batch: learned activations in the form that is fastest for large batches, instead of the best one for all.

    Raises:
        ExportError: the opset cannot be written, or the checker refuses the model.
        OutputError: the file cannot be written.
    """
    model = make_model(network, opset_version=opset_version, metadata=metadata, large_batch=large_batch)
    if inline:
        model = inline_functions(model)
    check_model(model, path.name)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def make_model(network: Network, *, opset_version: int, metadata: Mapping[str, str], large_batch: bool = False
               ) -> onnx.ModelProto:
    """The ONNX model of a network; see `write_onnx`."""
    builder = GraphBuilder(opset_version, large_batch=large_batch)
    value = Value("input")
    linears, subtracted = _fold_standardization(network)
    if subtracted is not None:
        value = Value(builder.node("Sub", [value.name, builder.initializer("features/offset", subtracted)], "features/centered"))
    value = _emit_in_one_node(builder, value, network, linears) or _emit_layers(builder, value, network, linears)
    if network.targets is not None and network.layers[-1].activation is not None:
        value = emit_affine(builder, value, _numpy(network.targets.scale), _numpy(network.targets.shift), "targets")
    value = to_layout(builder, value, "batch_first")
    functions = make_functions(opset_version, builder.functions, builder.fused, builder.chain, builder.residual)
    model = builder.build(value.name, in_features=network.spec.in_features, out_features=network.spec.out_features,
                          output_name=OUTPUT_NAMES[network.spec.task], functions=functions, metadata=metadata)
    return merge_linears(model)


def _emit_layers(builder: GraphBuilder, value: Value, network: Network, linears: Sequence[Linear]) -> Value:
    parts, widths = [value], [network.spec.in_features]
    for position, (layer, linear) in enumerate(zip(network.layers, linears, strict=True)):
        name = f"layer{position}"
        if isinstance(layer.activation, CubicSpline | PiecewiseLinear):
            y = emit_op(builder, _join(builder, parts, name), _parameters(layer.activation), name, linear)
        else:
            layout = _layout(builder, layer.activation)
            u = (emit_linear(builder, parts[0], linear, f"{name}/linear", layout) if len(parts) == 1 else
                 to_layout(builder, emit_linear_on_parts(builder, parts, linear, widths, f"{name}/linear"), layout))
            y = u if layer.activation is None else emit_activation(builder, u, layer.activation, f"{name}/activation")
        if layer.residual:
            skip = to_layout(builder, parts[0], y.layout)
            y = replace(y, name=builder.node("Add", [y.name, skip.name], f"{name}/residual"))
        parts, widths = ([y, *parts], [len(linear.bias), *widths]) if layer.passes else ([y], [len(linear.bias)])
    return parts[0]


def _join(builder: GraphBuilder, parts: Sequence[Value], name: str) -> Value:
    """The parts of what a layer reads side by side, (batch, n)."""
    if len(parts) == 1:
        return parts[0]
    return Value(builder.node("Concat", [to_layout(builder, part, "batch_first").name for part in parts], f"{name}/input", axis=1))


def _emit_in_one_node(builder: GraphBuilder, value: Value, network: Network, linears: Sequence[Linear]) -> Value | None:
    """A network of few neurons a layer, with splines and piecewise-linear forms alone, as one node; None for any other."""
    forms = [layer.activation for layer in network.layers]
    known = all(isinstance(form, CubicSpline | PiecewiseLinear | None) for form in forms)
    if not known or forms == [None] or not may_be_one_node(network):
        return None
    parameters = [_parameters(form) if isinstance(form, CubicSpline | PiecewiseLinear) else None for form in forms]
    residual = [position for position, layer in enumerate(network.layers) if layer.residual]
    return emit_feed_forward(builder, value, list(zip(linears, parameters, strict=True)), residual, "layer")


def _numpy(value: Tensor) -> Floats:
    return value.detach().cpu().double().numpy()


def _fold_standardization(network: Network) -> tuple[list[Linear], Floats | None]:
    """The linear layers with standardization folded in, and the offset to subtract first where folding it would hurt."""
    linears = [Linear(_numpy(layer.linear.weight), _numpy(layer.linear.bias)) for layer in network.layers]
    shift, scale = _numpy(network.features.shift), _numpy(network.features.scale)
    explicit = network.features.is_far
    for position, layer in enumerate(network.layers):       # all layers that read the features: the last of what they read
        linear = linears[position]
        others, weight = np.split(linear.weight, [linear.weight.shape[1] - len(shift)], 1)
        weight = weight / scale
        linears[position] = Linear(np.concatenate([others, weight], 1), linear.bias if explicit else linear.bias - weight @ shift)
        if not layer.passes:
            break
    if network.targets is not None and network.layers[-1].activation is None:
        last, factor = linears[-1], _numpy(network.targets.scale)
        linears[-1] = Linear(last.weight * factor[:, None], last.bias * factor + _numpy(network.targets.shift))
    return linears, shift if explicit else None


def has_large_batch_form(network: Network) -> bool:
    """Whether `large_batch` makes a difference to how a network is written."""
    builder = GraphBuilder(large_batch=True)
    return any(_form_of(builder, layer.activation) != _form_of(GraphBuilder(), layer.activation)
               for layer in network.layers if isinstance(layer.activation, Meta | Vaf))


def _layout(builder: GraphBuilder, activation: nn.Module | None) -> Layout:
    """The layout in which the layer's Gemm should leave its result."""
    if isinstance(activation, Meta | Vaf):
        return form_layout(_form_of(builder, activation))
    if isinstance(activation, Polynomial | LinearTable):
        return fast_layout(len(next(activation.parameters())))
    return "batch_first"


def _form_of(builder: GraphBuilder, activation: Meta | Vaf) -> Form:
    spec = activation.spec
    return choose_form(activation.n, spec.width, spec.depth, shared=spec.shared, large_batch=builder.large_batch)


def emit_activation(builder: GraphBuilder, value: Value, form: nn.Module, name: str) -> Value:
    """Add an activation module's nodes."""
    if isinstance(form, LearnedActivation):
        return _emit_family(builder, value, form, name)
    if isinstance(form, nn.Identity):
        return value
    if isinstance(form, Grouped):
        return _emit_grouped(builder, value, form, name)
    if isinstance(form, nn.Sequential):
        for position, part in enumerate(form):
            value = emit_activation(builder, value, part, f"{name}/{position}")
        return value
    if isinstance(form, Scale):
        return emit_affine(builder, value, _numpy(form.scale), _numpy(form.shift), name)
    if isinstance(form, CubicSpline | PiecewiseLinear):
        return emit_op(builder, value, _parameters(form), name)
    if isinstance(form, LinearTable):
        return emit_linear_table(builder, value, _numpy(form.intercept), _numpy(form.slope), name)
    assert isinstance(form, Polynomial), type(form)
    center, inverse = _numpy(form.center), _numpy(form.inverse_half_width)
    scaled = bool(np.all(center == 0) and np.all(inverse == 1))
    return emit_polynomial(builder, value, PolynomialParameters(center, inverse, _numpy(form.coefficients)), name,
                           already_scaled=scaled)


def _parameters(form: CubicSpline | PiecewiseLinear) -> Parameters:
    arrays = {key: _numpy(parameter) for key, parameter in form.named_parameters()}
    return CubicSplineParameters(**arrays) if isinstance(form, CubicSpline) else PiecewiseLinearParameters(**arrays)


def _emit_family(builder: GraphBuilder, value: Value, activation: LearnedActivation, name: str) -> Value:
    """A learned activation as it was trained."""
    if isinstance(activation, Meta | Vaf):
        emit = emit_meta if isinstance(activation, Meta) else emit_vaf
        return emit(builder, value, make_inner_networks(activation), _form_of(builder, activation), name)
    own = {key: _numpy(parameter) for key, parameter in activation.named_parameters()}
    one, zero = np.ones(1), np.zeros(1)
    z = emit_affine(builder, value, own.get("beta", one), own.get("delta", zero), f"{name}/inner")
    y = emit_act(builder, z, activation.spec.act)
    return emit_affine(builder, y, own.get("alpha", one), own.get("eta", zero), f"{name}/outer")


def _emit_grouped(builder: GraphBuilder, value: Value, grouped: Grouped, name: str) -> Value:
    """Split the neurons into their groups, emit each, and join them again in the order that is wanted."""
    value = to_layout(builder, value, "batch_first")
    parts = [value.name]
    if len(grouped.sizes) > 1:
        parts = builder.split(value.name, grouped.sizes, f"{name}/split")
    joined = []
    for position, (part, form) in enumerate(zip(parts, grouped.forms, strict=True)):
        y = emit_activation(builder, Value(part), form, f"{name}/group{position}")
        joined.append(to_layout(builder, y, "batch_first").name)
    result = joined[0] if len(joined) == 1 else builder.node("Concat", joined, f"{name}/joined", axis=1)
    if grouped.order is not None:
        result = builder.node("Gather", [result, builder.constant(np.array(grouped.order), np.int64)], f"{name}/ordered", axis=1)
    return Value(result)
