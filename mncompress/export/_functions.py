"""The bodies of the `ai.mncompress` ops, version 1, in standard operators.

`CubicSpline(X, start, inverse_step, coefficients) -> Y`, X (..., N), start (N), inverse_step (N), coefficients (N, K, 4):

    s = (X - start) * inverse_step,  t = s - floor(s)
    Y = c0 + t * (c1 + t * (c2 + t * c3))                        for 0 <= s < K, in interval floor(s)
    Y = c0[first] + c1[first] * s                                for s < 0
    Y = (c0 + c1 + c2 + c3)[last] + (c1 + 2 * c2 + 3 * c3)[last] * (s - K)   for s >= K

`PiecewiseLinear(X, knots, slope_changes, slope, intercept) -> Y`, X (..., N), knots and slope_changes (N, K), slope and
intercept (N):

    Y = intercept + slope * X + sum over k of slope_changes[k] * max(X - knots[k], 0)

    GemmCubicSpline(X, weight, bias, start, inverse_step, coefficients)                = CubicSpline(X weightᵀ + bias, ...)
    GemmPiecewiseLinear(X, weight, bias, knots, slope_changes, slope, intercept)       = PiecewiseLinear(X weightᵀ + bias, ...)

    FeedForward<residual>(X, weight, bias, ..., weight, bias, ...)                     = layers like these, one after another

X (batch, M), weight (N, M), bias (N): a linear layer with its activation, which the kernel library computes in one pass, and a
network of up to 128 neurons a layer in one node. A layer of `FeedForward` may also be weight and bias alone; those whose positions
are in `residual` (from 1 on; no attribute where there are none) add what they read to what they make.

The first two take X of any rank from 1 on, an empty batch too. NaN gives NaN; an infinity gives what the formula above gives in
float32 arithmetic, so NaN where it meets a slope of exactly 0. No input makes a session fail.

The bodies are the fastest forms found for ONNX Runtime's CPU provider (docs/forms.md). What depends on parameters alone
comes first in a body: where the parameters are constants, a runtime folds it once, and `inline_functions` does so in the
file. It uses no sums whose order is open, so that every runtime folds it to the same bits.
"""

from collections.abc import Collection, Mapping, Sequence

import onnx
from onnx import parser

from mncompress.export._graph import DOMAIN, DOMAIN_VERSION

FEW_NEURONS = 16
"""Up to here a body works on the transposed net: with few neurons ONNX Runtime walks X's rows in short runs, which costs
more than the two transpositions."""

# Per neuron, the table holds the K pieces and the continuation above. Below, the first piece serves: `inside` is t clipped
# to [0, 1], so all but the linear term vanish there; above, it keeps the zeros of the continuation from meeting an infinity,
# since 0 * infinity would be NaN. After the cast, Max takes care of NaN, which casts to 0 or to the lowest integer; ONNX Runtime
# has no kernel of Clip for integers of 32 bits on CUDA. The boundary
# slope is summed in double, because it can be small beside its terms. Of all nodes in a file only those that bring X into
# two dimensions and back reshape with `allowzero`: `inline_functions` knows them by it.
_TABLES = """
    zero = Constant <value = float {0.0}> ()
    one = Constant <value = float {1.0}> ()
    two = Constant <value = double {2.0}> ()
    three = Constant <value = double {3.0}> ()
    zero_i32 = Constant <value = int32 {0}> ()
    axis_0 = Constant <value = int64[1] {0}> ()
    axis_1 = Constant <value = int64[1] {1}> ()
    axis_2 = Constant <value = int64[1] {2}> ()
    any_rows = Constant <value = int64[1] {-1}> ()
    interval_shape = Shape <start = 1, end = 2> (coefficients)
    intervals = Squeeze (interval_shape)
    above_f32 = Cast <to = 1> (intervals)
    last_interval = Sub (interval_shape, axis_1)
    last = Slice (coefficients, last_interval, interval_shape, axis_1)
    last_f64 = Cast <to = 11> (last)
    e0, e1, e2, e3 = Split <axis = 2, num_outputs = 4> (last_f64)
    e01 = Add (e0, e1)
    e23 = Add (e2, e3)
    end_value_f64 = Add (e01, e23)
    twice_e2 = Mul (e2, two)
    thrice_e3 = Mul (e3, three)
    e12 = Add (e1, twice_e2)
    end_slope_f64 = Add (e12, thrice_e3)
    end_value = Cast <to = 1> (end_value_f64)
    end_slope = Cast <to = 1> (end_slope_f64)
    column = Shape (end_value)
    zeros = Expand (zero, column)
    above = Concat <axis = 2> (end_value, end_slope, zeros, zeros)
    pieces = Concat <axis = 1> (coefficients, above)
    neurons = Shape (start)
    matrix_shape = Concat <axis = 0> (any_rows, neurons)
"""

_LOOK_UP = """
    shifted = Sub (x, origin)
    s = Mul (shifted, scale)
    clipped = Clip (s, zero, above_f32)
    piece = Floor (clipped)
    t = Sub (s, piece)
    inside = Clip (t, zero, one)
    any_index = Cast <to = 6> (piece)
    index = Max (any_index, zero_i32)
    c3 = GatherElements <axis = AXIS> (table3, index)
    c3_t = Mul (c3, inside)
    c2 = GatherElements <axis = AXIS> (table2, index)
    c23 = Add (c3_t, c2)
    c23_t = Mul (c23, inside)
    c1 = GatherElements <axis = AXIS> (table1, index)
    c123 = Add (c23_t, c1)
    c123_t = Mul (c123, t)
    c0 = GatherElements <axis = AXIS> (table0, index)
    y = Add (c123_t, c0)
"""

_CUBIC_SPLINE = f"""
CubicSpline (X, start, inverse_step, coefficients) => (Y)
{{{_TABLES}
    by_power = Transpose <perm = [2, 1, 0]> (pieces)
    t0, t1, t2, t3 = Split <axis = 0, num_outputs = 4> (by_power)
    table0 = Squeeze (t0, axis_0)
    table1 = Squeeze (t1, axis_0)
    table2 = Squeeze (t2, axis_0)
    table3 = Squeeze (t3, axis_0)
    origin = Identity (start)
    scale = Identity (inverse_step)
    x = Reshape <allowzero = 1> (X, matrix_shape)
{_LOOK_UP.replace("AXIS", "0")}
    shape = Shape (X)
    Y = Reshape <allowzero = 1> (y, shape)
}}
"""

_CUBIC_SPLINE_FEW_NEURONS = f"""
CubicSpline (X, start, inverse_step, coefficients) => (Y)
{{{_TABLES}
    t0, t1, t2, t3 = Split <axis = 2, num_outputs = 4> (pieces)
    table0 = Squeeze (t0, axis_2)
    table1 = Squeeze (t1, axis_2)
    table2 = Squeeze (t2, axis_2)
    table3 = Squeeze (t3, axis_2)
    origin = Unsqueeze (start, axis_1)
    scale = Unsqueeze (inverse_step, axis_1)
    matrix = Reshape <allowzero = 1> (X, matrix_shape)
    x = Transpose <perm = [1, 0]> (matrix)
{_LOOK_UP.replace("AXIS", "1")}
    y_by_row = Transpose <perm = [1, 0]> (y)
    shape = Shape (X)
    Y = Reshape <allowzero = 1> (y_by_row, shape)
}}
"""

# Row 0 carries slope * X: its knot is 0 and its floor -infinity. The other rows are the kinks, whose floor is 0.
_ROWS = """
    zero = Constant <value = float {0.0}> ()
    lowest = Constant <value = float {-inf}> ()
    axis_0 = Constant <value = int64[1] {0}> ()
    any_rows = Constant <value = int64[1] {-1}> ()
    neurons = Shape (slope)
    matrix_shape = Concat <axis = 0> (any_rows, neurons)
    slope_row = Unsqueeze (slope, axis_0)
    slope_shape = Shape (slope_row)
    zero_row = Expand (zero, slope_shape)
    lowest_row = Expand (lowest, slope_shape)
    knot_rows = Transpose <perm = [1, 0]> (knots)
    change_rows = Transpose <perm = [1, 0]> (slope_changes)
    kink_shape = Shape (knot_rows)
    zero_rows = Expand (zero, kink_shape)
    offsets = Concat <axis = 0> (zero_row, knot_rows)
    floors = Concat <axis = 0> (lowest_row, zero_rows)
    scales = Concat <axis = 0> (slope_row, change_rows)
"""

_PIECEWISE_LINEAR = f"""
PiecewiseLinear (X, knots, slope_changes, slope, intercept) => (Y)
{{{_ROWS}
    axis_1 = Constant <value = int64[1] {{1}}> ()
    matrix = Reshape <allowzero = 1> (X, matrix_shape)
    x = Unsqueeze (matrix, axis_1)
    distances = Sub (x, offsets)
    floored = Max (distances, floors)
    terms = Mul (floored, scales)
    total = ReduceSum <keepdims = 0> (terms, axis_1)
    y = Add (total, intercept)
    shape = Shape (X)
    Y = Reshape <allowzero = 1> (y, shape)
}}
"""

# The sum keeps its axis until it is squeezed, since OpenVINO (2024.6 to 2026.4) adds the first neuron's intercept to all behind a
# ReduceSum that drops it.
_PIECEWISE_LINEAR_FEW_NEURONS = f"""
PiecewiseLinear (X, knots, slope_changes, slope, intercept) => (Y)
{{{_ROWS}
    last = Constant <value = int64[1] {{-1}}> ()
    offset_columns = Unsqueeze (offsets, last)
    floor_columns = Unsqueeze (floors, last)
    scale_columns = Unsqueeze (scales, last)
    intercept_column = Unsqueeze (intercept, last)
    matrix = Reshape <allowzero = 1> (X, matrix_shape)
    x = Transpose <perm = [1, 0]> (matrix)
    distances = Sub (x, offset_columns)
    floored = Max (distances, floor_columns)
    terms = Mul (floored, scale_columns)
    total_row = ReduceSum <keepdims = 1> (terms, axis_0)
    total = Squeeze (total_row, axis_0)
    y_column = Add (total, intercept_column)
    y = Transpose <perm = [1, 0]> (y_column)
    shape = Shape (X)
    Y = Reshape <allowzero = 1> (y, shape)
}}
"""


_BODIES = {
    "CubicSpline": (_CUBIC_SPLINE, _CUBIC_SPLINE_FEW_NEURONS),
    "PiecewiseLinear": (_PIECEWISE_LINEAR, _PIECEWISE_LINEAR_FEW_NEURONS),
}

_PARAMETERS = {
    "CubicSpline": "start, inverse_step, coefficients",
    "PiecewiseLinear": "knots, slope_changes, slope, intercept",
}


def _fused_body(op_type: str) -> str:
    parameters = _PARAMETERS[op_type]
    return f"""
Gemm{op_type} (X, weight, bias, {parameters}) => (Y)
{{
    preactivation = Gemm <transB = 1> (X, weight, bias)
    Y = {DOMAIN}.{op_type} (preactivation, {parameters})
}}
"""


def _chain_body(layers: Sequence[str | None], residual: Collection[int]) -> str:
    inputs, nodes, value = ["X"], [], "X"
    for position, op_type in enumerate(layers):
        parameters = ["weight", "bias", *(_PARAMETERS[op_type].split(", ") if op_type else ())]
        names = [f"{name}_{position}" for name in parameters]
        result = made = "Y" if position + 1 == len(layers) else f"h_{position}"
        if position in residual:
            made = f"y_{position}"
        op = f"{DOMAIN}.Gemm{op_type}" if op_type else "Gemm <transB = 1>"
        nodes.append(f"    {made} = {op} ({', '.join([value, *names])})\n")
        if position in residual:
            nodes.append(f"    {result} = Add ({made}, {value})\n")
        inputs, value = inputs + names, result
    attributes = " <residual>" if residual else ""
    return f"FeedForward{attributes} ({', '.join(inputs)}) => (Y)\n{{\n{''.join(nodes)}}}"


def make_functions(opset_version: int, neurons: Mapping[str, int], fused: Collection[str] = (),
                   chain: Sequence[str | None] = (), residual: Collection[int] = ()) -> list[onnx.FunctionProto]:
    """The model-local functions of a file.

    Args:
        opset_version: of the standard operators, the file's own.
        neurons: the ops that the file uses, each with the largest number of neurons of its nodes
            (`GraphBuilder.functions`). It decides between bodies that compute the same at different speeds.
        fused: those of them that the file uses with a Gemm in front.
        chain: the op behind each layer of the file's `FeedForward`, where it has one.
        residual: the node's attribute.
    """
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {opset_version}, "{DOMAIN}" : {DOMAIN_VERSION}]>'
    functions = []
    for op_type, count in sorted(neurons.items()):
        functions.append(parser.parse_function(header + _BODIES[op_type][count <= FEW_NEURONS]))
        if op_type in fused:
            functions.append(parser.parse_function(header + _fused_body(op_type)))
    if chain:
        functions.append(parser.parse_function(header + _chain_body(chain, residual)))
    return functions
