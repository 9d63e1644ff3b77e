"""Which form of an activation is fastest in ONNX Runtime: the measurements behind the bodies and `choose_form`.

    python benchmarks/forms.py [--section cubic|lines|kinks|inner|polynomial|act_and_line] [--features 64] [--neurons 7,64]
                               [--provider cpu|cuda]

Prints markdown tables of whole networks `features`-N-10 with one thread: median microseconds per run, all columns of a row
interleaved in one process, inputs and outputs bound, after a warm-up. On the CPU provider it is processor time, so that other
processes count little; on CUDA, where batches are larger, it is elapsed time. Forms that lost and so exist nowhere else are
written out here.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort
from onnx import parser

from mncompress import benchmark, runtime
from mncompress.analysis._inner import LINEAR, InnerNetworks
from mncompress.export import _activations, _functions
from mncompress.export._activations import (
    CubicSplineParameters,
    Linear,
    PiecewiseLinearParameters,
    PolynomialParameters,
    emit_act,
    emit_linear,
    emit_linear_table,
    emit_op,
    emit_polynomial,
    fast_layout,
)
from mncompress.export._functions import make_functions
from mncompress.export._graph import DOMAIN, INPUT, GraphBuilder, Layout, Value
from mncompress.export._inline import inline_functions
from mncompress.export._inner import Form, choose_form, emit_vaf, form_layout
from mncompress.export._merge import merge_linears

BATCHES = {"cpu": (1, 32, 1024), "cuda": (1, 1024, 16384)}
ROUNDS = 15
SECONDS_A_CELL = 0.1
OPSET = 18
Emit = Callable[[GraphBuilder, Value], Value]
CLOCKS = {"cpu": time.process_time, "cuda": time.perf_counter}


@dataclass(frozen=True)
class Setup:
    """Where and on which networks to measure.

    Attributes:
        provider: short name.
        features: of the networks.
        neurons: of the hidden layer, those of a section where empty.
    """

    provider: str
    features: int
    neurons: tuple[int, ...]

    def choose(self, *neurons: int) -> tuple[int, ...]:
        """The numbers of neurons that a section measures, where nothing else was asked for."""
        return self.neurons or neurons


_ROW_GATHER = _functions._TABLES + """
    rows_shape = Constant <value = int64[2] {-1, 4}> ()
    table = Reshape (pieces, rows_shape)
    zero_i64 = Constant <value = int64 {0}> ()
    one_i64 = Constant <value = int64 {1}> ()
    neuron_count = Squeeze (neurons)
    intervals_shape = Shape <start = 1, end = 2> (pieces)
    row_count = Squeeze (intervals_shape)
    neuron = Range (zero_i64, neuron_count, one_i64)
    offset_i64 = Mul (neuron, row_count)
    offset = Cast <to = 6> (offset_i64)
    x = Reshape (X, matrix_shape)
    shifted = Sub (x, start)
    s = Mul (shifted, inverse_step)
    clipped = Clip (s, zero, above_f32)
    piece = Floor (clipped)
    t = Sub (s, piece)
    any_index = Cast <to = 6> (piece)
    index = Max (any_index, zero_i32)
    row = Add (index, offset)
    coefficient_rows = Gather <axis = 0> (table, row)
    r0, r1, r2, r3 = Split <axis = 2, num_outputs = 4> (coefficient_rows)
    c0 = Squeeze (r0, axis_2)
    c1 = Squeeze (r1, axis_2)
    c2 = Squeeze (r2, axis_2)
    c3 = Squeeze (r3, axis_2)
    y3 = Mul (c3, t)
    y2 = Add (y3, c2)
    y2t = Mul (y2, t)
    y1 = Add (y2t, c1)
    y1t = Mul (y1, t)
    y0 = Add (y1t, c0)
    shape = Shape (X)
    Y = Reshape (y0, shape)
"""
"""One row of four coefficients per look-up; without the care for infinities, which would only make it slower."""

_NOT_BELOW = "index = Max (any_index, zero_i32)"
_CLIPPED = "above_i32 = Cast <to = 6> (intervals)\n    index = Clip (any_index, zero_i32, above_i32)"


_KNOTS_LAST = """
    before_last = Constant <value = int64[1] {-1}> ()
    zero = Constant <value = float {0.0}> ()
    x = Unsqueeze (X, before_last)
    distances = Sub (x, knots)
    positive = Relu (distances)
    terms = Mul (positive, slope_changes)
    total = ReduceSum <keepdims = 0> (terms, before_last)
    line = Mul (X, slope)
    sum = Add (total, line)
    Y = Add (sum, intercept)
"""
"""The formula as it is written."""


def time_us(runs: Sequence[Callable[[], object]], clock: Callable[[], float]) -> list[float]:
    """Median microseconds of each, in interleaved rounds of equal duration."""
    repeats = []
    for run in runs:
        run()
        started = clock()
        for _ in range(5):
            run()
        repeats.append(max(1, int(SECONDS_A_CELL / ROUNDS / (clock() - started) * 5)))
    samples: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, count, sample in zip(runs, repeats, samples, strict=True):
            started = clock()
            for _ in range(count):
                run()
            sample.append((clock() - started) / count)
    return [float(np.median(sample)) * 1e6 for sample in samples]


def make_network(
    features: int, neurons: int, emit: Emit, layout: Layout = "batch_first", body: str = "", few: bool | None = None
) -> onnx.ModelProto:
    """A network features -> Gemm -> activation -> Gemm -> 10, with the op's body replaced by `body`, or chosen by `few`."""
    rng = np.random.default_rng(1)
    builder = GraphBuilder(OPSET)
    weight = rng.standard_normal((neurons, features)) / np.sqrt(features)
    u = emit_linear(builder, Value(INPUT), Linear(weight, np.zeros(neurons)), "hidden", layout)
    out = emit_linear(builder, emit(builder, u), Linear(rng.standard_normal((10, neurons)), np.zeros(10)), "out")
    sizes = builder.functions if few is None else dict.fromkeys(builder.functions, 1 if few else _functions.FEW_NEURONS + 1)
    functions = make_functions(OPSET, sizes)
    if body:
        names = {"CubicSpline": "start, inverse_step, coefficients", "PiecewiseLinear": "knots, slope_changes, slope, intercept"}
        op_type = next(iter(builder.functions))
        header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]> {op_type} (X, {names[op_type]}) => (Y) '
        functions = [parser.parse_function(f"{header}{{{body}}}")]
    return builder.build(out.name, in_features=features, out_features=10, functions=functions)


def print_table(title: str, setup: Setup, rows: Mapping[str, Mapping[str, onnx.ModelProto]]) -> None:
    columns = list(next(iter(rows.values())))
    print(f"\n{title}\n\n| size | batch | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
    for size, models in rows.items():
        sessions = {column: runtime.make_session(model.SerializeToString(), providers=(setup.provider,), kernels=column == "kernel")
                    for column, model in models.items()}
        for batch in BATCHES[setup.provider]:
            x = np.random.default_rng(0).standard_normal((batch, setup.features)).astype(np.float32)
            runs = [benchmark.bind(session, {INPUT: x}, setup.provider) for session in sessions.values()]
            times = dict(zip(sessions, time_us(runs, CLOCKS[setup.provider]), strict=True))
            cells = (f"{times[column]:.1f}" if column in times else "" for column in columns)
            print(f"| {size} | {batch} | {' | '.join(cells)} |", flush=True)


def relu(builder: GraphBuilder, value: Value) -> Value:
    return emit_act(builder, value, "relu")


def int64_index(body: str) -> str:
    return body.replace("to = 6", "to = 7").replace("int32 {", "int64 {")


def cubic(setup: Setup) -> None:
    rows, features = {}, setup.features
    for neurons in setup.choose(7, 16, 32, 64, 128, 1024):
        for intervals in (8, 128) if neurons == 64 else (32,):
            rng = np.random.default_rng(0)
            start, inverse = -2 - rng.random(neurons), np.full(neurons, intervals / 4)
            coefficients = rng.standard_normal((neurons, intervals, 4))
            parameters = CubicSplineParameters(start, inverse, coefficients)
            folded = CubicSplineParameters(0 * start, 0 * inverse + 1, coefficients)

            def emit(builder: GraphBuilder, value: Value, p: CubicSplineParameters = parameters) -> Value:
                return emit_op(builder, value, p, "activation")

            def emit_folded(builder: GraphBuilder, value: Value, p: CubicSplineParameters = folded) -> Value:
                return emit_op(builder, value, p, "activation")

            text = _functions._CUBIC_SPLINE
            text = text[text.index("{") + 1 : text.rindex("}")]
            rows[f"{features}-{neurons}-10, K = {intervals}"] = {
                "ReLU": make_network(features, neurons, relu),
                "kernel": make_network(features, neurons, emit),
                "few neurons": make_network(features, neurons, emit, few=True),
                "many neurons": make_network(features, neurons, emit, few=False),
                "many, int64 index": make_network(features, neurons, emit, body=int64_index(text)),
                "row Gather": make_network(features, neurons, emit, body=_ROW_GATHER),
                "few, portable": inline_functions(make_network(features, neurons, emit, few=True)),
                "many, portable": inline_functions(make_network(features, neurons, emit, few=False)),
                "many, int64, portable": inline_functions(make_network(features, neurons, emit, body=int64_index(text))),
                "many, clipped, portable": inline_functions(
                    make_network(features, neurons, emit, body=text.replace(_NOT_BELOW, _CLIPPED))),
                "row Gather, int64, portable": inline_functions(
                    make_network(features, neurons, emit, body=int64_index(_ROW_GATHER))),
                "chosen, start 0, step 1": make_network(features, neurons, emit_folded),
                "the same, portable": inline_functions(make_network(features, neurons, emit_folded)),
            }
    print_table("CubicSpline; clipped: the index in int32, in place of Max", setup, rows)


def clip_floats(builder: GraphBuilder, s: str, last: int, name: str) -> str:
    return builder.node("Clip", [s, builder.constant(0), builder.constant(last)], f"{name}/clipped")


def clip_int32(builder: GraphBuilder, s: str, last: int, name: str) -> str:
    index = no_clip(builder, s, last, name)
    return builder.node("Clip", [index, builder.constant(0, np.int32), builder.constant(last, np.int32)], f"{name}/index")


def clip_int64(builder: GraphBuilder, s: str, last: int, name: str) -> str:
    index = builder.node("Cast", [clip_floats(builder, s, last, name)], f"{name}/any_index", to=onnx.TensorProto.INT64)
    return builder.node("Clip", [index, builder.constant(0, np.int64), builder.constant(last, np.int64)], f"{name}/index")


def no_clip(builder: GraphBuilder, s: str, last: int, name: str) -> str:
    """Not to be used: NaN casts to anything."""
    return builder.node("Cast", [clip_floats(builder, s, last, name)], f"{name}/any_index", to=onnx.TensorProto.INT32)


INDICES = {"Max": _activations._table_index, "Clip int32": clip_int32, "Clip int64": clip_int64, "nothing": no_clip}


def one_table(builder: GraphBuilder, value: Value, table: np.ndarray) -> Value:
    """What a codebook would be: all neurons look the same lines up, their affine maps being part of the Gemms around."""
    index = _activations._table_index(builder, value.name, table.shape[1] - 1, "activation")
    intercept, slope = (builder.node("Gather", [builder.initializer(f"activation/{label}", row), index], f"activation/{label}_here")
                        for label, row in zip(("intercept", "slope"), table, strict=True))
    rise = builder.node("Mul", [value.name, slope], "activation/rise")
    return Value(builder.node("Add", [rise, intercept], "activation"))


def lines(setup: Setup) -> None:
    rows, features = {}, setup.features
    for neurons in setup.choose(7, 16, 64, 128, 1024):
        tables = np.random.default_rng(0).standard_normal((2, neurons, 64))

        def emit(builder: GraphBuilder, value: Value, tables: np.ndarray = tables) -> Value:
            return emit_linear_table(builder, value, *tables, "activation")

        models = {"ReLU": make_network(features, neurons, relu),
                  "one table": make_network(features, neurons, partial(one_table, table=tables[:, 0]))}
        for label, index in INDICES.items():
            with mock.patch.object(_activations, "_table_index", index):
                models[f"batch first, {label}"] = make_network(features, neurons, emit)
                models[f"feature first, {label}"] = make_network(features, neurons, emit, "feature_first")
        rows[f"{features}-{neurons}-10, K = 64"] = models
    title = "Tables of lines; behind the index Max with 0, Clip in int32 or int64, or nothing"
    print_table(title, setup, rows)


def kinks(setup: Setup) -> None:
    rows, features = {}, setup.features
    for neurons in setup.choose(7, 16, 32, 64, 1024):
        for count in (2, 5, 12):
            rng = np.random.default_rng(0)
            knots = np.sort(rng.standard_normal((neurons, count)), 1)
            changes, line = rng.standard_normal((neurons, count)), rng.standard_normal((2, neurons))
            parameters = PiecewiseLinearParameters(knots, changes, *line)

            def emit(builder: GraphBuilder, value: Value, p: PiecewiseLinearParameters = parameters) -> Value:
                return emit_op(builder, value, p, "activation")

            rows[f"{features}-{neurons}-10, K = {count}"] = {
                "ReLU": make_network(features, neurons, relu),
                "kernel": make_network(features, neurons, emit),
                "few neurons": make_network(features, neurons, emit, few=True),
                "many neurons": make_network(features, neurons, emit, few=False),
                "knots on the last axis": make_network(features, neurons, emit, body=_KNOTS_LAST),
                "few, portable": inline_functions(make_network(features, neurons, emit, few=True)),
                "many, portable": inline_functions(make_network(features, neurons, emit, few=False)),
            }
    print_table("PiecewiseLinear", setup, rows)


def natural(builder: GraphBuilder, value: Value, inner: InnerNetworks) -> Value:
    """The inner width on the last axis, as one writes it first; one inner layer."""
    last = builder.constant([-1], np.int64)
    names = [builder.initializer("inner", array) for array in (inner.first_weight, inner.biases[0], inner.out_weight)]
    column = builder.node("Unsqueeze", [value.name, last])
    hidden = builder.node("Tanh", [builder.node("Add", [builder.node("Mul", [column, names[0]]), names[1]])])
    total = builder.node("ReduceSum", [builder.node("Mul", [hidden, names[2]]), last], keepdims=0)
    return Value(builder.node("Add", [total, builder.initializer("c", inner.out_bias)]))


def draw_inner(neurons: int, width: int, depth: int, *, shared: bool = False) -> InnerNetworks:
    """Inner networks of a `vaf`, or of a `meta` without its ends."""
    rng, copies = np.random.default_rng(0), 1 if shared else neurons

    def draw(*shape: int) -> np.ndarray:
        return np.repeat(rng.standard_normal((copies, *shape)), neurons // copies, 0)

    return InnerNetworks("tanh", (LINEAR, LINEAR), draw(width), tuple(draw(width) for _ in range(depth)),
                         tuple(draw(width, width) for _ in range(depth - 1)), draw(width), draw())


def inner_networks(setup: Setup) -> None:
    features = setup.features
    forms: tuple[Form, ...] = ("elementwise", "block_gemm", "grouped_conv", "shared_conv")
    for shared in (False, True):
        rows = {}
        for depth, width, neurons in [(d, w, n) for d in (1, 2) for w in (5, 16) for n in setup.choose(7, 16, 32, 64, 128)]:

            inner = draw_inner(neurons, width, depth, shared=shared)
            models = {"ReLU": make_network(features, neurons, relu)}
            if depth == 1:
                models["natural"] = make_network(features, neurons, lambda b, v, p=inner: natural(b, v, p))
            for form in forms:
                skipped = neurons**2 * width**depth > 1e6 and form == "block_gemm"
                if skipped or (form == "elementwise" and depth > 1) or (form == "shared_conv" and not shared):
                    continue
                models[form] = make_network(
                    features, neurons, lambda b, v, p=inner, f=form: emit_vaf(b, v, p, f, "act"),
                    form_layout(form),
                )
            if "block_gemm" in models:
                models["block_gemm, merged"] = merge_linears(models["block_gemm"])
            chosen = choose_form(neurons, width, depth, shared=shared)
            rows[f"L = {depth}, H = {width}, N = {neurons}: {chosen}"] = models
        print_table(f"vaf, meta without its ends; tanh{', shared' if shared else ''}; {features}-N-10", setup, rows)


def polynomial(setup: Setup) -> None:
    rows, features = {}, setup.features
    for neurons in setup.choose(7, 16, 32, 64):
        for degree in (3, 7):
            rng = np.random.default_rng(0)
            coefficients = rng.standard_normal((neurons, degree + 1))
            parameters = PolynomialParameters(np.zeros(neurons), np.ones(neurons), coefficients)

            def emit(builder: GraphBuilder, value: Value, p: PolynomialParameters = parameters) -> Value:
                return emit_polynomial(builder, value, p, "activation", already_scaled=True)

            def emit_scaled(builder: GraphBuilder, value: Value, p: PolynomialParameters = parameters) -> Value:
                return emit_polynomial(builder, value, p, "activation")

            rows[f"{features}-{neurons}-10, degree {degree}"] = {
                "ReLU": make_network(features, neurons, relu),
                "batch first": make_network(features, neurons, emit),
                "feature first": make_network(features, neurons, emit, "feature_first"),
                "batch first, scaling in the graph": make_network(features, neurons, emit_scaled),
            }
    print_table("Polynomial", setup, rows)


def act_and_line(setup: Setup) -> None:
    """A sigmoid plus a line of the pre-activation, which no folding takes away, beside what is there for it."""
    rows, features = {}, setup.features
    for neurons in setup.choose(8, 16, 64, 256):
        rng = np.random.default_rng(0)
        inner, form, slope = draw_inner(neurons, 5, 1), choose_form(neurons, 5, 1, shared=False), rng.standard_normal(neurons)
        table = rng.standard_normal((2, neurons, 64))

        def emit(builder: GraphBuilder, value: Value, slope: np.ndarray = slope) -> Value:
            line = builder.node("Mul", [value.name, builder.initializer("slope", slope)])
            return Value(builder.node("Add", [emit_act(builder, value, "sigmoid").name, line]))

        def emit_table(builder: GraphBuilder, value: Value, table: np.ndarray = table) -> Value:
            return emit_linear_table(builder, value, *table, "act")

        original = make_network(features, neurons, lambda b, v, p=inner, f=form: emit_vaf(b, v, p, f, "act"),
                                form_layout(form))
        rows[f"{features}-{neurons}-10"] = {
            "ReLU": make_network(features, neurons, relu),
            "original, H = 5": merge_linears(original),
            "sigmoid": make_network(features, neurons, lambda b, v: emit_act(b, v, "sigmoid")),
            "sigmoid and line": make_network(features, neurons, emit),
            "table of 64 lines": make_network(features, neurons, emit_table, fast_layout(neurons)),
        }
    print_table("An activation with a line", setup, rows)


SECTIONS = {"cubic": cubic, "lines": lines, "kinks": kinks, "inner": inner_networks, "polynomial": polynomial,
            "act_and_line": act_and_line}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--section", choices=SECTIONS, default=None)
    options.add_argument("--features", type=int, default=64)
    options.add_argument("--neurons", default="", help="of the hidden layer, separated by commas; a section's own by default")
    options.add_argument("--provider", choices=BATCHES, default="cpu")
    arguments = options.parse_args()
    setup = Setup(arguments.provider, arguments.features, tuple(map(int, filter(None, arguments.neurons.split(",")))))
    what = {"cpu": "processor", "cuda": "elapsed"}[setup.provider]
    print(f"onnxruntime {ort.__version__}, {setup.provider}, one thread, {ROUNDS} interleaved rounds; median µs of {what} time")
    for name, section in SECTIONS.items():
        if arguments.section in (None, name):
            section(setup)


if __name__ == "__main__":
    main()
