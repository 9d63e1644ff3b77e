"""Emitting linear layers and activations: each function adds nodes to a `GraphBuilder` and returns the new value.

A value is (batch, n) or (n, batch), see `Value`; every function here takes either and keeps it, except `emit_linear` and
`to_layout`, which choose, and the two `ai.mncompress` ops, which want (batch, n). Parameters are arrays whose first axis
runs over the n neurons, or has length 1 where all neurons share one set.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx

from mncompress.export._graph import Array, GraphBuilder, Layout, Value
from mncompress.types import LEAK, Act

FEW_NEURONS = 32
"""Up to here a parameter per neuron is broadcast faster along (n, batch) than along (batch, n) (docs/forms.md)."""
_SINGLE_OPS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softplus": "Softplus", "elu": "Elu"}


@dataclass(frozen=True)
class Linear:
    """A linear layer: `weight` (out_features, in_features), `bias` (out_features,)."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class CubicSplineParameters:
    """`ai.mncompress::CubicSpline`: `start` (n,), `inverse_step` (n,), `coefficients` (n, K, 4)."""

    start: Array
    inverse_step: Array
    coefficients: Array


@dataclass(frozen=True)
class PiecewiseLinearParameters:
    """`ai.mncompress::PiecewiseLinear`: `knots` and `slope_changes` (n, K), `slope` and `intercept` (n,)."""

    knots: Array
    slope_changes: Array
    slope: Array
    intercept: Array


@dataclass(frozen=True)
class PolynomialParameters:
    """A polynomial in x = (u - center) * inverse_half_width on [-1, 1], continued linearly with the boundary slope.

    `coefficients` (n, D + 1) in ascending powers of x, D >= 1; `center` and `inverse_half_width` (n,).
    """

    center: Array
    inverse_half_width: Array
    coefficients: Array


def emit_linear(builder: GraphBuilder, value: Value, linear: Linear, name: str, out_layout: Layout = "batch_first") -> Value:
    """Weight · x + bias, as one Gemm from and to either layout.

    Args:
        builder: collects the node.
        value: x, of `in_features` neurons.
        linear: the layer.
        name: of the node, and before `/weight` and `/bias`.
        out_layout: of the result.
    """
    weight_name = builder.initializer(f"{name}/weight", linear.weight)
    transposed = int(value.layout == "batch_first")
    if out_layout == "feature_first":
        bias_name = builder.initializer(f"{name}/bias", np.asarray(linear.bias)[:, None])
        return Value(builder.node("Gemm", [weight_name, value.name, bias_name], name, transB=transposed), out_layout)
    bias_name = builder.initializer(f"{name}/bias", linear.bias)
    inputs = [value.name, weight_name, bias_name]
    return Value(builder.node("Gemm", inputs, name, transA=1 - transposed, transB=1), out_layout)


def emit_linear_on_parts(builder: GraphBuilder, parts: Sequence[Value], linear: Linear, widths: Sequence[int], name: str) -> Value:
    """Weight · (parts side by side) + bias, one Gemm for each part on top of the one before: nothing is copied together.

    Args:
        builder: collects the nodes.
        parts: what the layer reads, each (batch, width) or transposed.
        linear: the layer.
        widths: of the parts.
        name: of the nodes, and before their weights.
    """
    total = builder.initializer(f"{name}/bias", linear.bias)
    for value, weight in zip(parts, np.split(np.asarray(linear.weight), np.cumsum(widths)[:-1], 1), strict=True):
        inputs = [value.name, builder.initializer(f"{name}/weight", weight), total]
        total = builder.node("Gemm", inputs, name, transA=int(value.layout == "feature_first"), transB=1)
    return Value(total)


def to_layout(builder: GraphBuilder, value: Value, layout: Layout) -> Value:
    """The same value in `layout`: itself, or through a Transpose."""
    if value.layout == layout:
        return value
    return Value(builder.node("Transpose", [value.name], f"{value.name}/transposed", perm=[1, 0]), layout)


def emit_act(builder: GraphBuilder, value: Value, act: Act) -> Value:
    """A fixed activation, in the single op that the opset has, or else in the fewest."""
    return replace(value, name=_act(builder, value.name, act))


def emit_end(builder: GraphBuilder, value: Value, act: Act, scale: Array, skip: Array, name: str) -> Value:
    """Scale · act(x) + skip · x, what an end of a `meta` applies; a scale of 1 and a skip of 0 cost nothing.

    Args:
        builder: collects the nodes.
        value: x.
        act: the inner activation.
        scale: (n,) or (1,).
        skip: (n,) or (1,).
        name: before the names of the nodes.
    """
    y = emit_affine(builder, emit_act(builder, value, act), scale, np.zeros(1), name)
    if np.all(np.asarray(skip) == 0):
        return y
    line = _broadcast(builder, "Mul", value, skip, f"{name}/skip")
    return replace(y, name=builder.node("Add", [y.name, line.name], name))


def _act(builder: GraphBuilder, x: str, act: Act) -> str:
    if act in _SINGLE_OPS:
        return builder.node(_SINGLE_OPS[act], [x], f"{x}/{act}")
    if act == "leaky_relu":
        return builder.node("LeakyRelu", [x], f"{x}/{act}", alpha=LEAK)
    if act == "silu":
        return _silu(builder, x)
    assert act == "gelu", act
    return _gelu(builder, x)


def _silu(builder: GraphBuilder, x: str) -> str:
    """X · sigmoid(x) in two ops: the single op Swish of opset 24 has no kernel in ONNX Runtime, which refuses it at 26."""
    gate = builder.node("Sigmoid", [x], f"{x}/silu/gate")
    return builder.node("Mul", [x, gate], f"{x}/silu")


def _gelu(builder: GraphBuilder, x: str) -> str:
    """X / 2 · (1 + erf(x / √2)); below opset 20 in the order of operations that ONNX Runtime fuses."""
    if builder.opset_version >= 20:
        return builder.node("Gelu", [x], f"{x}/gelu")
    scaled = builder.node("Div", [x, builder.constant(np.sqrt(2))], f"{x}/gelu/scaled")
    erf = builder.node("Erf", [scaled], f"{x}/gelu/erf")
    shifted = builder.node("Add", [erf, builder.constant(1)], f"{x}/gelu/shifted")
    product = builder.node("Mul", [x, shifted], f"{x}/gelu/product")
    return builder.node("Mul", [product, builder.constant(0.5)], f"{x}/gelu")


def emit_affine(builder: GraphBuilder, value: Value, scale: Array, shift: Array, name: str) -> Value:
    """Scale · x + shift; a factor of 1 and a shift of 0 cost nothing.

    Args:
        builder: collects the nodes.
        value: x.
        scale: (n,) or (1,).
        shift: (n,) or (1,).
        name: before `/scale` and `/shift`.
    """
    if np.any(np.asarray(scale) != 1):
        value = _broadcast(builder, "Mul", value, scale, f"{name}/scale")
    if np.any(np.asarray(shift) != 0):
        value = _broadcast(builder, "Add", value, shift, f"{name}/shift")
    return value


def _broadcast(builder: GraphBuilder, op_type: str, value: Value, parameter: Array, name: str) -> Value:
    """An elementwise op of a value and one number per neuron, (n,) or (1,)."""
    column = np.asarray(parameter)[:, None] if value.layout == "feature_first" else parameter
    return replace(value, name=builder.node(op_type, [value.name, builder.initializer(f"{name}/by", column)], name))


Parameters: TypeAlias = CubicSplineParameters | PiecewiseLinearParameters
_OPS = {CubicSplineParameters: "CubicSpline", PiecewiseLinearParameters: "PiecewiseLinear"}


def emit_op(builder: GraphBuilder, value: Value, parameters: Parameters, name: str, linear: Linear | None = None) -> Value:
    """`CubicSpline` or `PiecewiseLinear` on a (batch, n) value, in one node with the layer before it where `linear` is given.

    Where the layer before a spline carries x -> (x - start) * inverse_step, pass zeros and ones: the native kernel does not
    notice them, and `inline_functions` leaves the two operations out.
    """
    value = to_layout(builder, value, "batch_first")
    names = _store(builder, parameters, linear, name)
    neurons = len(next(iter(vars(parameters).values())))
    return Value(builder.function(_OPS[type(parameters)], [value.name, *names], neurons, name, fused=linear is not None))


def emit_feed_forward(builder: GraphBuilder, value: Value, layers: Sequence[tuple[Linear, Parameters | None]],
                      residual: Sequence[int], name: str) -> Value:
    """Linear layers, each with one of the ops behind it or nothing, in one node on a (batch, n) value.

    Those at the positions in `residual` add what they read.
    """
    stored = [(None if parameters is None else _OPS[type(parameters)],
               _store(builder, parameters, linear, f"{name}{position}"), len(linear.bias))
              for position, (linear, parameters) in enumerate(layers)]
    return Value(builder.feed_forward(value.name, stored, residual, name))


def _store(builder: GraphBuilder, parameters: Parameters | None, linear: Linear | None, name: str) -> list[str]:
    """Initializers for what a node needs beside its input."""
    arrays = {**(vars(linear) if linear else {}), **(vars(parameters) if parameters else {})}
    return [builder.initializer(f"{name}/{key}", array) for key, array in arrays.items()]


def fast_layout(neurons: int) -> Layout:
    """The layout in which polynomials, tables of lines and `emit_affine` run fastest; a Gemm has either for free."""
    return "feature_first" if neurons <= FEW_NEURONS else "batch_first"


def emit_linear_table(builder: GraphBuilder, value: Value, intercept: Array, slope: Array, name: str) -> Value:
    """Intercept[n, k] + slope[n, k] · s in interval k = floor(s), the first or last one outside; s is the given value.

    NaN casts to 0 or to the lowest integer, of which Max makes 0; it then comes back through s.

    Args:
        builder: collects the nodes.
        value: s, of n neurons, in either layout.
        intercept: (n, K).
        slope: (n, K).
        name: before the names of the nodes.
    """
    axis = int(value.layout == "feature_first")
    last = intercept.shape[1] - 1
    index = _table_index(builder, value.name, last, name)

    def look_up(table: Array, label: str) -> str:
        stored = builder.initializer(f"{name}/{label}", table if axis else table.T)
        return builder.node("GatherElements", [stored, index], f"{name}/{label}_here", axis=axis)

    rise = builder.node("Mul", [value.name, look_up(slope, "slope")], f"{name}/rise")
    return replace(value, name=builder.node("Add", [rise, look_up(intercept, "intercept")], name))


def _table_index(builder: GraphBuilder, s: str, last: int, name: str) -> str:
    """Floor(s), but 0 below and `last` above; one of these for NaN."""
    clipped = builder.node("Clip", [s, builder.constant(0), builder.constant(last)], f"{name}/clipped")
    any_index = builder.node("Cast", [clipped], f"{name}/any_index", to=onnx.TensorProto.INT32)
    return builder.node("Max", [any_index, builder.constant(0, np.int32)], f"{name}/index")  # Clip has no such kernel on CUDA


def emit_polynomial(
    builder: GraphBuilder, value: Value, parameters: PolynomialParameters, name: str, *, already_scaled: bool = False
) -> Value:
    """P(clip(x, -1, 1)) + (x - clip(x, -1, 1)) · (m + h · clip(x, -1, 1)), by Horner's rule.

    m = (P'(1) + P'(-1)) / 2 and h = (P'(1) - P'(-1)) / 2, so the last factor is the boundary slope outside [-1, 1] and
    the term vanishes inside. NaN gives NaN through x - clip(x).

    Args:
        builder: collects the nodes.
        value: u; or x, if `already_scaled`.
        parameters: see `PolynomialParameters`.
        name: before the names of the nodes.
        already_scaled: the layer before carries u -> x.
    """
    coefficients = np.asarray(parameters.coefficients, np.float64)
    degree = coefficients.shape[1] - 1
    assert degree >= 1, "a polynomial of degree 0 is a constant"
    if not already_scaled:
        value = _broadcast(builder, "Sub", value, parameters.center, f"{name}/centered")
        value = _broadcast(builder, "Mul", value, parameters.inverse_half_width, f"{name}/x")
    limits = [builder.constant(-1), builder.constant(1)]
    inside = replace(value, name=builder.node("Clip", [value.name, *limits], f"{name}/inside"))
    result = _broadcast(builder, "Mul", inside, coefficients[:, degree], f"{name}/c{degree}")
    for power in range(degree - 1, 0, -1):
        result = _broadcast(builder, "Add", result, coefficients[:, power], f"{name}/c{power}")
        result = replace(result, name=builder.node("Mul", [result.name, inside.name], f"{name}/t{power}"))
    result = _broadcast(builder, "Add", result, coefficients[:, 0], f"{name}/c0")
    powers = np.arange(1, degree + 1)
    above = coefficients[:, 1:] @ powers
    below = coefficients[:, 1:] @ (powers * (-1.0) ** (powers - 1))
    slope = _broadcast(builder, "Mul", inside, (above - below) / 2, f"{name}/bend")
    slope = _broadcast(builder, "Add", slope, (above + below) / 2, f"{name}/slope")
    outside = builder.node("Sub", [value.name, inside.name], f"{name}/outside")
    rise = builder.node("Mul", [outside, slope.name], f"{name}/rise")
    return replace(value, name=builder.node("Add", [result.name, rise], name))
