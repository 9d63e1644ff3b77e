"""The ONNX building blocks against the conformance vectors, in ONNX Runtime and in onnx's reference evaluator."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from mncompress.analysis._inner import ACTIVATED, LINEAR, End, InnerNetworks
from mncompress.errors import ExportError
from mncompress.export._activations import (
    CubicSplineParameters,
    Linear,
    PiecewiseLinearParameters,
    PolynomialParameters,
    emit_act,
    emit_affine,
    emit_linear,
    emit_op,
    emit_polynomial,
    fast_layout,
    to_layout,
)
from mncompress.export._functions import FEW_NEURONS, make_functions
from mncompress.export._graph import DOMAIN, INPUT, GraphBuilder, Value
from mncompress.export._inline import inline_functions
from mncompress.export._inner import Form, choose_form, emit_meta, emit_vaf, form_layout
from mncompress.export._merge import merge_linears
from mncompress.types import ACTS, ENDS, Act

VECTORS = dict(np.load(Path(__file__).parent / "vectors" / "vectors.npz", allow_pickle=False))
CASES = sorted({key.split("/")[0] for key in VECTORS})
OP_INPUTS = {
    "CubicSpline": ("start", "inverse_step", "coefficients"),
    "PiecewiseLinear": ("knots", "slope_changes", "slope", "intercept"),
}
OP_CASES = [case for case in CASES if case.startswith(("cubic_spline", "piecewise_linear"))]
MANY = FEW_NEURONS + 1
EPS = float(np.finfo(np.float32).eps)
# The reference evaluator's GatherElements goes through numpy.choose, which takes at most 63 rows, and K + 1 are needed.
REFERENCE_INTERVALS = 62


def newest_opset() -> int:
    """The newest opset that the installed onnx writes and the installed ONNX Runtime reads."""
    for version in range(onnx.defs.onnx_opset_version(), 18, -1):
        builder = GraphBuilder(version)
        model = builder.build(builder.node("Relu", [INPUT]), in_features=1, out_features=1)
        try:
            run(model, np.zeros((1, 1), np.float32))
        except ort.capi.onnxruntime_pybind11_state.Fail:
            continue
        return version
    return 18


def run(model: onnx.ModelProto, x: np.ndarray, optimize: bool = True) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {INPUT: x})[0]


def run_plain(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return run(model, x, optimize=False)


def run_reference(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    # It warns where it casts NaN or overflows on the way to the right answer.
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model).run(None, {INPUT: x})[0]


RUNTIMES = [run, run_plain, run_reference]
OPSETS = [18, newest_opset()]
Runtime = Callable[[onnx.ModelProto, np.ndarray], np.ndarray]


def op_of(case: str) -> str:
    return "CubicSpline" if case.startswith("cubic_spline") else "PiecewiseLinear"


def op_parameters(case: str) -> dict[str, np.ndarray]:
    return {key: VECTORS[f"{case}/{key}"] for key in OP_INPUTS[op_of(case)]}


def op_model(
    op_type: str, parameters: dict[str, np.ndarray], *, rank: int = 2, body: int = 0, opset: int = 18
) -> onnx.ModelProto:
    """A model of one op; `body` is the number of neurons that the body is written for."""
    builder = GraphBuilder(opset)
    neurons = len(parameters[OP_INPUTS[op_type][0]])
    y = builder.function(op_type, [INPUT, *(builder.initializer(*item) for item in parameters.items())], neurons)
    functions = make_functions(opset, {op_type: body or neurons})
    model = builder.build(y, in_features=neurons, out_features=neurons, functions=functions)
    shape: list[Any] = [*(f"d{axis}" for axis in range(rank - 1)), neurons]
    for info in (model.graph.input[0], model.graph.output[0]):
        info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, onnx.TensorProto.FLOAT, shape))
    onnx.checker.check_model(model, full_check=True)
    return model


def value_model(builder: GraphBuilder, value: Value, in_features: int, out_features: int) -> onnx.ModelProto:
    name = to_layout(builder, value, "batch_first").name
    functions = make_functions(builder.opset_version, builder.functions)
    model = builder.build(name, in_features=in_features, out_features=out_features, functions=functions)
    onnx.checker.check_model(model, full_check=True)
    return model


def f32(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float32)


def runs_in_reference(case: str) -> bool:
    return op_of(case) == "PiecewiseLinear" or VECTORS[f"{case}/coefficients"].shape[1] <= REFERENCE_INTERVALS


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("body", [FEW_NEURONS, MANY])
@pytest.mark.parametrize(
    ("case", "runtime"),
    [(case, runtime) for case in OP_CASES for runtime in RUNTIMES if runtime is not run_reference or runs_in_reference(case)],
)
def test_op_conforms(case: str, body: int, opset: int, runtime: Runtime) -> None:
    x, expected, parameters = VECTORS[f"{case}/x"], VECTORS[f"{case}/y"], op_parameters(case)
    y = runtime(op_model(op_of(case), parameters, rank=x.ndim, body=body, opset=opset), x)
    assert y.dtype == np.float32
    assert y.shape == expected.shape
    # s = (x - start) * inverse_step is rounded at a magnitude of up to K, which the slope per interval (below 6) carries
    # into y; the terms of a sum of kinks are rounded at their own magnitude, up to 10 each. Far out, the relative error is
    # that of the boundary slope, a float32 sum of coefficients up to a hundred times as large.
    pieces = parameters["coefficients" if "coefficients" in parameters else "knots"].shape[1]
    np.testing.assert_allclose(y, expected, rtol=64 * EPS, atol=12 * EPS * (pieces + 4))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("body", [FEW_NEURONS, MANY])
@pytest.mark.parametrize("case", ["cubic_spline_n7_k5", "piecewise_linear_n7_k5"])
def test_op_takes_every_input(case: str, body: int, runtime: Runtime) -> None:
    parameters = op_parameters(case)
    if "slope_changes" in parameters:
        parameters["slope_changes"] = np.abs(parameters["slope_changes"]) + 1  # an infinity times 0 would be NaN
        parameters["slope"] = np.abs(parameters["slope"]) + 1
    model = op_model(op_of(case), parameters, body=body)
    x = np.repeat(f32([[np.nan], [np.inf], [-np.inf], [1e30], [-1e30], [0]]), 7, axis=1)
    y = runtime(model, x)
    assert np.isnan(y[0]).all()
    assert np.isinf(y[1:3]).all()
    assert np.array_equal(np.sign(y[1:3]), np.sign(y[3:5]))
    assert np.isfinite(y[3:]).all()
    alone = runtime(model, np.where(np.eye(7, dtype=bool), np.nan, x[5]).astype(np.float32))
    assert np.array_equal(np.isnan(alone), np.eye(7, dtype=bool))
    assert runtime(model, x[:0]).shape == (0, 7)


@pytest.mark.parametrize("body", [FEW_NEURONS, MANY])
def test_infinity_at_a_flat_end_is_nan(body: int) -> None:
    parameters = {"start": f32([0]), "inverse_step": f32([1]), "coefficients": f32([[[2, 0, 0, 0]]])}
    y = run(op_model("CubicSpline", parameters, body=body), f32([[np.inf], [-np.inf], [1e30], [-1e30]]))
    assert np.isnan(y[:2]).all()  # 2 + 0 * infinity
    assert np.array_equal(y[2:], f32([[2], [2]]))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**31), st.sampled_from(["CubicSpline", "PiecewiseLinear"]))
def test_both_bodies_agree_bit_for_bit(neurons: int, pieces: int, seed: int, op_type: str) -> None:
    rng = np.random.default_rng(seed)
    if op_type == "CubicSpline":
        shapes = [(neurons,), (neurons,), (neurons, pieces, 4)]
    else:
        shapes = [(neurons, pieces), (neurons, pieces), (neurons,), (neurons,)]
    parameters = {key: f32(rng.standard_normal(shape)) for key, shape in zip(OP_INPUTS[op_type], shapes, strict=True)}
    x = f32(rng.standard_normal((11, neurons)) * 5)
    few, many = (run(op_model(op_type, parameters, body=body), x) for body in (FEW_NEURONS, MANY))
    if op_type == "CubicSpline":
        assert np.array_equal(few, many)
    else:  # the bodies sum the kinks in different orders
        scale = np.abs(parameters["slope_changes"]).max() * (np.abs(x).max() + np.abs(parameters["knots"]).max())
        np.testing.assert_allclose(few, many, rtol=EPS, atol=4 * EPS * (pieces + 1) * scale)


def example_network(neurons: int, *, scaled: bool, opset: int = 18) -> onnx.ModelProto:
    """5 features -> spline -> linear -> kinks -> linear -> 3 outputs."""
    rng = np.random.default_rng(neurons)
    builder = GraphBuilder(opset)
    u = emit_linear(builder, Value(INPUT), Linear(rng.standard_normal((neurons, 5)), rng.standard_normal(neurons)), "layer0")
    start, inverse = (np.zeros(neurons), np.ones(neurons)) if scaled else rng.standard_normal((2, neurons))
    spline = CubicSplineParameters(start, inverse, rng.standard_normal((neurons, 6, 4)))
    y = emit_op(builder, u, spline, "layer0/activation")
    u = emit_linear(builder, y, Linear(rng.standard_normal((neurons, neurons)), rng.standard_normal(neurons)), "layer1")
    kinks = PiecewiseLinearParameters(*rng.standard_normal((2, neurons, 3)), *rng.standard_normal((2, neurons)))
    y = emit_op(builder, u, kinks, "layer1/activation")
    out = emit_linear(builder, y, Linear(rng.standard_normal((3, neurons)), rng.standard_normal(3)), "layer2")
    return value_model(builder, out, 5, 3)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("neurons", [1, 7, MANY])
def test_inlined_model_keeps_every_bit(neurons: int, scaled: bool, opset: int) -> None:
    model = example_network(neurons, scaled=scaled, opset=opset)
    portable = inline_functions(model)
    onnx.checker.check_model(portable, full_check=True)
    assert not portable.functions
    assert [entry.domain for entry in portable.opset_import] == [""]
    ops = [node.op_type for node in portable.graph.node]
    assert not {"CubicSpline", "PiecewiseLinear", "Flatten", "Reshape", "Shape", "Identity", "Constant"} & set(ops)
    assert ops.count("Sub") == (2 if scaled else 3)  # one each for t and the kinks, and x - start where it does something
    rng = np.random.default_rng(0)
    for batch in (1, 2, 33):
        x = f32(rng.standard_normal((batch, 5)))
        for runtime in (run, run_plain):
            assert np.array_equal(runtime(model, x), runtime(portable, x))


def test_models_are_stable_and_minimal() -> None:
    first, second = (example_network(7, scaled=False) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert first.ir_version <= 10
    assert [(entry.domain, entry.version) for entry in first.opset_import] == [("", 18), (DOMAIN, 1)]
    assert [function.name for function in first.functions] == ["CubicSpline", "PiecewiseLinear"]
    assert first.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    names = [name for node in first.graph.node for name in node.output]
    assert len(set(names)) == len(names)
    builder = GraphBuilder()
    model = builder.build(builder.node("Relu", [INPUT]), in_features=2, out_features=2, metadata={"version": "1"})
    assert [entry.domain for entry in model.opset_import] == [""]
    assert not model.functions
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("version", "1")]


def test_builder_shares_constants_and_makes_names_unique() -> None:
    builder = GraphBuilder()
    assert builder.constant(1) == builder.constant(1.0)
    assert builder.constant(1) != builder.constant([1])
    assert builder.constant(0) != builder.constant(0, np.int32)
    names = [builder.initializer("w", [0]), builder.initializer("w", [0]), builder.node("Relu", [INPUT], "w")]
    assert names == ["w", "w_1", "w_2"]


@pytest.mark.parametrize("opset", [17, 99])
def test_unknown_opset_is_refused(opset: int) -> None:
    with pytest.raises(ExportError, match=f"opset {opset} cannot be written; choose one of 18 to"):
        GraphBuilder(opset)


@pytest.mark.parametrize("source", ["batch_first", "feature_first"])
@pytest.mark.parametrize("target", ["batch_first", "feature_first"])
def test_linear_in_every_layout(source: Any, target: Any) -> None:
    rng = np.random.default_rng(3)
    weight, bias, x = rng.standard_normal((4, 6)), rng.standard_normal(4), f32(rng.standard_normal((5, 6)))
    builder = GraphBuilder()
    y = emit_linear(builder, to_layout(builder, Value(INPUT), source), Linear(weight, bias), "linear", target)
    assert y.layout == target
    expected = x.astype(np.float64) @ weight.T + bias
    np.testing.assert_allclose(run(value_model(builder, y, 6, 4), x), expected, rtol=8 * EPS, atol=16 * EPS)


def test_trivial_affine_costs_nothing() -> None:
    builder = GraphBuilder()
    value = Value(INPUT)
    assert emit_affine(builder, value, np.ones(1), np.zeros(3), "affine") == value
    shifted = emit_affine(builder, value, np.ones(3), f32([1, 2, 3]), "affine")
    assert [node.op_type for node in value_model(builder, shifted, 3, 3).graph.node] == ["Add"]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case", [*(f"warp_{act}" for act in ACTS), "agsig", "frelu"])
def test_parametric_families_conform(case: str, opset: int, runtime: Runtime) -> None:
    parameters = VECTORS[f"{case}/parameters"]
    alpha, beta, delta, eta, act = {"agsig": (*parameters, 0, 0, "sigmoid"), "frelu": (1, 1, *parameters, "relu")}.get(
        case, (*parameters, case.removeprefix("warp_"))
    )
    builder = GraphBuilder(opset)
    inner = emit_affine(builder, Value(INPUT), np.array([beta]), np.array([delta]), "inner")
    y = emit_affine(builder, emit_act(builder, inner, act), np.array([alpha]), np.array([eta]), "outer")
    x = f32(VECTORS[f"{case}/u"])[:, None]
    actual = runtime(value_model(builder, y, 1, 1), x)[:, 0]
    # tanh, erf and sigmoid are good to a few 1e-7 of their range in ONNX Runtime, scaled by alpha (below 3) here.
    np.testing.assert_allclose(actual, VECTORS[f"{case}/y"], rtol=16 * EPS, atol=3e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("opset", [18, 20, OPSETS[1]])
@pytest.mark.parametrize("act", ACTS)
def test_acts_far_out(act: Act, opset: int, runtime: Runtime) -> None:
    builder = GraphBuilder(opset)
    model = value_model(builder, emit_act(builder, Value(INPUT), act), 5, 5)
    y = runtime(model, f32([[100, 1000, -100, -1000, np.nan]]))[0]
    above = {"sigmoid": [1, 1], "tanh": [1, 1]}.get(act, [100, 1000])
    below = {"leaky_relu": [-1, -10], "tanh": [-1, -1], "elu": [-1, -1]}.get(act, [0, 0])
    np.testing.assert_allclose(y[:4], [*above, *below], rtol=2 * EPS, atol=1e-30)
    assert np.isnan(y[4])


def inner_case(case: str) -> InnerNetworks:
    """The inner network of a vector case, as two equal neurons."""
    family = case.split("_")[0]
    keys = {key.split("/")[1] for key in VECTORS if key.startswith(f"{case}/")}
    depth = sum(key.startswith("w") for key in keys) if family == "meta" else 1
    first, bias, out, shift = ("w0", "b0", "out_w", "out_b") if family == "meta" else ("a", "b", "w", "c")

    def stacked(key: str) -> np.ndarray:
        return np.repeat(f32(VECTORS[f"{case}/{key}"])[None], 2, 0)

    biases = tuple(stacked(bias if layer == 0 else f"b{layer}") for layer in range(depth))
    weights = tuple(stacked(f"w{layer}") for layer in range(1, depth))
    act = next(act for act in ACTS if case.split("_", 1)[1].startswith(act))
    ends = (ACTIVATED, ACTIVATED) if family == "meta" else (LINEAR, LINEAR)
    return InnerNetworks(act, ends, stacked(first), biases, weights, stacked(out), stacked(shift))


INNER_FORMS: list[Form] = ["elementwise", "block_gemm", "grouped_conv", "shared_conv"]


INNER_CASES = [case for case in CASES if case.startswith(("meta", "vaf"))]


@pytest.mark.parametrize(
    ("case", "form"),
    [(case, form) for case in INNER_CASES for form in INNER_FORMS if form != "elementwise" or not inner_case(case).weights],
)
def test_inner_networks_conform(case: str, form: Form) -> None:
    inner = inner_case(case)
    emit = emit_meta if case.startswith("meta") else emit_vaf
    builder = GraphBuilder()
    u = emit_linear(builder, Value(INPUT), Linear(np.array([[1], [-1]]), np.zeros(2)), "layer0", form_layout(form))
    y = emit(builder, u, inner, form, "activation")
    assert y.layout == form_layout(form)
    model = value_model(builder, y, 1, 2)
    x = f32(VECTORS[f"{case}/u"])[:, None]
    expected = VECTORS[f"{case}/y"]
    # Each inner layer multiplies rounding by the sums of its weights, up to some hundreds at depth 4 and u = ±40.
    for runtime in (run, run_plain) if inner.weights else RUNTIMES:
        np.testing.assert_allclose(runtime(model, x)[:, 0], expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(runtime(model, -x)[:, 1], expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("ends", [*ENDS, "linear"])
def test_all_forms_agree(depth: int, shared: bool, opset: int, ends: str) -> None:
    rng = np.random.default_rng(5)
    neurons, width, copies = 6, 4, 1 if shared else 6

    def draw(*shape: int) -> np.ndarray:
        return np.repeat(rng.standard_normal((copies, *shape)), neurons // copies, 0)

    inner = InnerNetworks("tanh", (LINEAR, LINEAR), draw(width), tuple(draw(width) for _ in range(depth)),
                          tuple(draw(width, width) for _ in range(depth - 1)), draw(width), draw())
    x = f32(rng.standard_normal((9, neurons)))
    learned = rng.standard_normal((2, copies))
    skips = learned if ends in ("gated", "skip") else np.full((2, 1), 0.1 if ends == "leaky" else 0.0)
    scales = 1 - skips if ends == "gated" else np.ones_like(skips)
    inner = replace(inner, ends=tuple(map(End, scales, skips)))
    emit, apply_end = emit_meta, lambda end, z: end.scale * np.tanh(z) + end.skip * z
    if ends == "linear":
        emit, apply_end = emit_vaf, lambda end, z: z
    expected = apply_end(inner.ends[1], vaf_reference(apply_end(inner.ends[0], x.astype(np.float64)), inner))
    for form in INNER_FORMS:
        if (form == "elementwise" and depth > 1) or (form == "shared_conv" and not shared):
            continue
        builder = GraphBuilder(opset)
        model = value_model(builder, emit(builder, Value(INPUT), inner, form, "act"), neurons, neurons)
        for batch, runtime in itertools.product((1, 9), (run, run_plain)):
            np.testing.assert_allclose(runtime(model, x[:batch]), expected[:batch], rtol=1e-5, atol=1e-5, err_msg=form)
        types = [node.op_type for node in model.graph.node]
        assert types.count("Tanh") == depth + (0 if ends == "linear" else 2)
        if form != "elementwise":
            assert types.count("Mul") == {"leaky": 2, "skip": 2, "gated": 4}.get(ends, 0)


def vaf_reference(u: np.ndarray, inner: InnerNetworks) -> np.ndarray:
    hidden = np.tanh(u[..., None] * inner.first_weight + inner.biases[0])
    for weight, bias in zip(inner.weights, inner.biases[1:], strict=True):
        hidden = np.tanh((weight @ hidden[..., None])[..., 0] + bias) + hidden
    return (hidden * inner.out_weight).sum(-1) + inner.out_bias


def test_form_rule() -> None:
    assert choose_form(64, 5, 1) == "block_gemm"
    assert choose_form(64, 16, 1) == "elementwise"
    assert choose_form(16, 5, 2) == "block_gemm"
    assert choose_form(7, 16, 2) == "grouped_conv"
    assert choose_form(7, 5, 1, shared=True) == "shared_conv"
    assert choose_form(64, 16, 1, large_batch=True) == "grouped_conv"
    assert [fast_layout(neurons) for neurons in (32, 33)] == ["feature_first", "batch_first"]


def test_shared_inner_network_survives_inlining() -> None:
    rng = np.random.default_rng(2)
    builder = GraphBuilder()
    first, bias, out = np.repeat(rng.standard_normal((3, 1, 3)), 5, 1)
    inner = InnerNetworks("tanh", (LINEAR, LINEAR), first, (bias,), (), out, np.ones(5))
    value = emit_vaf(builder, Value(INPUT), inner, "shared_conv", "act")
    kinks = PiecewiseLinearParameters(*rng.standard_normal((2, 5, 2)), *rng.standard_normal((2, 5)))
    model = value_model(builder, emit_op(builder, value, kinks, "kinks"), 5, 5)
    x = f32(rng.standard_normal((4, 5)))
    assert np.array_equal(run(inline_functions(model), x), run(model, x))


def test_merged_linears_compute_the_same() -> None:
    rng = np.random.default_rng(1)
    builder = GraphBuilder()
    value, features = Value(INPUT), 3
    for layer in range(2):
        first, bias, out = rng.standard_normal((3, 8, 5))
        inner = InnerNetworks("tanh", (LINEAR, LINEAR), first, (bias,), (), out, rng.standard_normal(8))
        u = emit_linear(builder, value, Linear(rng.standard_normal((8, features)), rng.standard_normal(8)), f"layer{layer}")
        value, features = emit_vaf(builder, u, inner, "block_gemm", f"layer{layer}/act"), 8
    out = emit_linear(builder, value, Linear(rng.standard_normal((2, 8)), rng.standard_normal(2)), "out")
    model = value_model(builder, out, 3, 2)
    merged = merge_linears(model)
    onnx.checker.check_model(merged, full_check=True)
    assert [node.op_type for node in merged.graph.node] == ["Gemm", "Tanh", "Gemm", "Gemm", "Tanh", "Gemm"]
    x = f32(rng.standard_normal((20, 3)))
    np.testing.assert_allclose(run(merged, x), run(model, x), rtol=1e-5, atol=3e-5)  # sums of 40 terms of a few units


def test_dearer_or_shared_linears_stay() -> None:
    rng = np.random.default_rng(1)
    builder = GraphBuilder()
    narrow = emit_linear(builder, Value(INPUT), Linear(rng.standard_normal((2, 9)), np.zeros(2)), "narrow")
    wide = emit_linear(builder, narrow, Linear(rng.standard_normal((9, 2)), np.zeros(9)), "wide")
    once = emit_linear(builder, wide, Linear(rng.standard_normal((9, 9)), np.zeros(9)), "read_twice")
    again = emit_linear(builder, once, Linear(rng.standard_normal((9, 9)), np.zeros(9)), "last")
    total = Value(builder.node("Add", [once.name, again.name]))
    model = value_model(builder, total, 9, 9)
    nodes = merge_linears(model).graph.node
    reads = {node.name: node.input[0] for node in nodes}
    assert reads == {"narrow": INPUT, "read_twice": "narrow", "last": "read_twice", "add": "read_twice"}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("layout", ["batch_first", "feature_first"])
@pytest.mark.parametrize("degree", [1, 2, 7])
def test_polynomial(degree: int, layout: Any, runtime: Runtime) -> None:
    rng = np.random.default_rng(degree)
    center, inverse = f32(rng.standard_normal(4)), f32(rng.random(4) + 0.5)
    coefficients = f32(rng.standard_normal((4, degree + 1)))
    parameters = PolynomialParameters(center, inverse, coefficients)
    u = f32(np.concatenate([rng.standard_normal((50, 4)) * 3, [center + 1 / inverse, center - 1 / inverse]]))
    expected = polynomial_reference(u.astype(np.float64), parameters)
    builder = GraphBuilder()
    y = emit_polynomial(builder, to_layout(builder, Value(INPUT), layout), parameters, "polynomial")
    model = value_model(builder, y, 4, 4)
    # Boundary slopes are sums of up to degree * |c| = 50, times |x| up to 15: rounded at that magnitude.
    np.testing.assert_allclose(runtime(model, u), expected, rtol=8 * EPS, atol=100 * EPS * degree)
    assert np.isnan(runtime(model, np.full((1, 4), np.nan, np.float32))).all()
    assert np.isfinite(runtime(model, np.full((1, 4), 1e30, np.float32))).all()
    scaled = GraphBuilder()
    y = emit_polynomial(scaled, Value(INPUT), parameters, "polynomial", already_scaled=True)
    x = f32((u - center) * inverse)
    np.testing.assert_allclose(runtime(value_model(scaled, y, 4, 4), x), expected, rtol=8 * EPS, atol=200 * EPS * degree)


def polynomial_reference(u: np.ndarray, parameters: PolynomialParameters) -> np.ndarray:
    x = (u - parameters.center) * parameters.inverse_half_width
    columns = []
    for column, coefficients in zip(x.T, np.asarray(parameters.coefficients, np.float64), strict=True):
        polynomial = np.polynomial.Polynomial(coefficients)
        inside = np.clip(column, -1, 1)
        columns.append(polynomial(inside) + (column - inside) * polynomial.deriv()(inside))
    return np.stack(columns, 1)
