"""The compiled kernels in ONNX Runtime, on every instruction set of this machine, against float64 and the function bodies."""

import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from checkout import needs_sources, skip_without_sources
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper, parser

from mncompress.export._functions import make_functions
from mncompress.native import instruction_set, library_path

if library_path() is None:
    pytest.skip("the kernel library was not built: pip install . with a C++ compiler builds it", allow_module_level=True)

FOLDER = Path(__file__).parent
SOURCES = FOLDER.parent / "mncompress" / "native"
VECTORS = dict(np.load(FOLDER / "vectors" / "vectors.npz", allow_pickle=False))
OPS = {
    "CubicSpline": ("start", "inverse_step", "coefficients"),
    "PiecewiseLinear": ("knots", "slope_changes", "slope", "intercept"),
}
FUSED = {f"Gemm{op}": ("weight", "bias", *names) for op, names in OPS.items()}
NAMES = OPS | FUSED
CASES = sorted({key.split("/")[0] for key in VECTORS if key.startswith(("cubic_spline", "piecewise_linear"))})
SETS = ("neon", "scalar") if platform.machine() in ("aarch64", "arm64") else ("avx512", "avx2", "scalar")
Arrays = dict[str, np.ndarray]
Chain = Sequence[str | None]
"""What is behind each layer of FeedForward: an operator or nothing."""


@pytest.fixture(scope="module", params=SETS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library on one instruction set. It chooses when it is first used: a copy of the file is another library."""
    original = library_path()
    assert original is not None
    copy = shutil.copy(original, tmp_path_factory.mktemp(request.param))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNCOMPRESS_KERNELS", request.param)
        kernels = ctypes.CDLL(copy).mncompress_kernels
        kernels.restype = ctypes.c_char_p
        chosen = kernels().decode()
    if chosen != request.param:
        pytest.skip(f"this machine has no {request.param}")
    return str(copy)


def open_session(model: onnx.ModelProto, library: str | None, *, threads: int = 1, optimize: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if library:
        options.register_custom_ops_library(library)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def op_model(op: str, parameters: Arrays, *, rank: int = 2, constant: bool = True, body: bool = False) -> onnx.ModelProto:
    """A model of one operator, in the type of its parameters; with `body` the file has the function that serves without library."""
    element = helper.np_dtype_to_tensor_dtype(parameters[NAMES[op][-1]].dtype)
    inputs = [helper.make_tensor_value_info("X", element, [None] * rank)]
    if not constant:
        inputs += [helper.make_tensor_value_info(key, element, [None] * parameters[key].ndim) for key in NAMES[op]]
    graph = helper.make_graph(
        [helper.make_node(op, ["X", *NAMES[op]], ["Y"], domain="ai.mncompress")], op, inputs,
        [helper.make_tensor_value_info("Y", element, [None] * rank)],
        [numpy_helper.from_array(parameters[key], key) for key in NAMES[op]] if constant else [])
    return finish(graph, {op: len(parameters[NAMES[op][-1]])} if body else {})


def finish(graph: onnx.GraphProto, bodies: dict[str, int]) -> onnx.ModelProto:
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("ai.mncompress", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=8)
    neurons = {op.removeprefix("Gemm"): count for op, count in bodies.items()}
    model.functions.extend(make_functions(18, neurons, fused=[op.removeprefix("Gemm") for op in bodies if op in FUSED]))
    return model


def run(session: ort.InferenceSession, x: np.ndarray, **parameters: np.ndarray) -> np.ndarray:
    return session.run(None, {"X": x, **parameters})[0]


def draw_parameters(op: str, neurons: int, pieces: int, inputs: int, rng: np.random.Generator, *, scaled: bool = False) -> Arrays:
    """Parameters in float32. Splines are continuous with their slope, for rounding may move s across a knot."""
    values, slopes = rng.standard_normal((2, neurons, pieces + 1))
    rise, first, second = np.diff(values), slopes[:, :-1], slopes[:, 1:]
    coefficients = np.stack([values[:, :-1], first, 3 * rise - 2 * first - second, first + second - 2 * rise], -1)
    changes = rng.standard_normal((neurons, pieces)) * rng.integers(0, 2, (neurons, pieces))  # half of the knots unused
    arrays = {
        "start": np.zeros(neurons) if scaled else rng.standard_normal(neurons),
        "inverse_step": np.ones(neurons) if scaled else rng.uniform(0.5, 3, neurons),
        "coefficients": coefficients,
        "knots": np.sort(rng.standard_normal((neurons, pieces))) * 3,
        "slope_changes": changes,
        "slope": rng.standard_normal(neurons),
        "intercept": rng.standard_normal(neurons),
        "weight": rng.standard_normal((neurons, inputs)) / np.sqrt(inputs),
        "bias": rng.standard_normal(neurons),
    }
    return {key: arrays[key].astype(np.float32) for key in NAMES[op]}


@dataclass(frozen=True)
class Reference:
    """Values in float64, and what rounding moves them by, in units of the type's relative rounding."""

    y: np.ndarray
    error: np.ndarray

    def check(self, y: np.ndarray, eps: float, result_eps: float = 0) -> None:
        allowed = eps * self.error + result_eps * np.abs(self.y)
        assert y.shape == self.y.shape
        assert np.all(np.abs(y - self.y) <= allowed), np.max(np.abs(y - self.y) / allowed)


def reference(op: str, p: Arrays, x: np.ndarray, error: np.ndarray | float = 0.0) -> Reference:
    """The operators' definitions. Each operation errs by eps of its result, and an input's `error` is carried by the slope."""
    p, x = {key: value.astype(np.float64) for key, value in p.items()}, x.astype(np.float64)
    if op in FUSED:  # a sum of M + 1 terms, in any order
        error = (p["weight"].shape[1] + 1) * (np.abs(x) @ np.abs(p["weight"]).T + np.abs(p["bias"]))
        x = x @ p["weight"].T + p["bias"]
    if "coefficients" in p:
        c, (neurons, pieces) = p["coefficients"], p["coefficients"].shape[:2]
        s = (x - p["start"]) * p["inverse_step"]
        piece = np.clip(np.floor(s), 0, pieces - 1).astype(int)
        c0, c1, c2, c3 = np.moveaxis(c[np.arange(neurons), piece], -1, 0)
        t = s - piece
        u = np.clip(t, 0, 1)
        y = c0 + u * (c1 + u * (c2 + u * c3)) + (t - u) * (c1 + 2 * u * c2 + 3 * u**2 * c3)
        slope = (np.abs(c[..., 1]) + 2 * np.abs(c[..., 2]) + 3 * np.abs(c[..., 3])).max(-1)
        # s is rounded twice and t once; four multiply-adds follow, at the size of the neuron's largest coefficients.
        rounding = 3 * np.abs(s) * slope + 8 * (np.abs(c).sum(-1).max(-1) + np.abs(t) * slope)
        return Reference(y, rounding + error * p["inverse_step"] * slope)
    distance = x[..., None] - p["knots"]
    terms = p["slope_changes"] * np.maximum(distance, 0)
    y = p["intercept"] + p["slope"] * x + terms.sum(-1)
    reach = np.abs(x)[..., None] + np.abs(p["knots"])
    size = np.abs(p["intercept"]) + np.abs(p["slope"] * x) + (np.abs(p["slope_changes"]) * reach).sum(-1)
    slope = np.abs(p["slope"]) + np.abs(p["slope_changes"]).sum(-1)
    return Reference(y, (p["knots"].shape[1] + 3) * size + error * slope)


def draw_chain(chain: Chain, sizes: Sequence[int], pieces: int, rng: np.random.Generator) -> Arrays:
    """Parameters of FeedForward, in order: layers from each size to the next. Slopes are small, so that rounding does not grow."""
    parameters: Arrays = {}
    for position, (op, inputs, neurons) in enumerate(zip(chain, sizes, sizes[1:], strict=False)):
        layer = draw_parameters(f"Gemm{op or 'CubicSpline'}", neurons, pieces, inputs, rng)
        small = layer.keys() & {"coefficients", "slope_changes", "slope", "intercept"}
        layer |= {key: layer[key] * np.float32(0.1) for key in small}
        parameters |= {f"{key}_{position}": layer[key] for key in ("weight", "bias", *OPS.get(op or "", ()))}
    return parameters


def square_layers(chain: Chain, parameters: Arrays) -> list[int]:
    """The layers of a chain that can be residual."""
    return [position for position in range(1, len(chain)) if len(set(parameters[f"weight_{position}"].shape)) == 1]


def chain_model(chain: Chain, parameters: Arrays, *, constant: bool = True, body: bool = False, residual: Sequence[int] = ()
                ) -> onnx.ModelProto:
    """A model of FeedForward with these parameters; with `body` it has the functions that serve without library."""
    inputs = [] if constant else [helper.make_tensor_value_info(key, 1, [None] * value.ndim) for key, value in parameters.items()]
    x, y = (helper.make_tensor_value_info(name, 1, [None, None]) for name in "XY")
    attributes = {"residual": residual} if residual else {}
    node = helper.make_node("FeedForward", ["X", *parameters], ["Y"], domain="ai.mncompress", **attributes)
    graph = helper.make_graph(
        [node], "chain", [x, *inputs], [y],
        [numpy_helper.from_array(value, key) for key, value in parameters.items()] if constant else [])
    model = finish(graph, {})
    if body:
        ops = {op: 300 for op in chain if op}
        model.functions.extend(make_functions(18, ops, fused=list(ops), chain=chain, residual=residual))
    return model


def chain_reference(chain: Chain, parameters: Arrays, x: np.ndarray, residual: Sequence[int] = ()) -> Reference:
    """Layers in float64. Roundings of a sum are as good as independent, so their squares add up; the error is eight times that."""
    y, error = x.astype(np.float64), np.zeros(x.shape)
    for position, op in enumerate(chain):
        read = Reference(y, error)
        weight, bias = (parameters[f"{key}_{position}"].astype(np.float64) for key in ("weight", "bias"))
        squares = weight.T**2
        error = np.sqrt(error**2 @ squares + 64 * (len(squares) + 1) * (y**2 @ squares + bias**2))
        y = y @ weight.T + bias
        if op:
            result = reference(op, {key: parameters[f"{key}_{position}"] for key in OPS[op]}, y, error)
            y, error = result.y, result.error
        if position in residual:
            y = y + read.y
            error = error + read.error + np.abs(y)
    return Reference(y, error)


EPS = float(np.finfo(np.float32).eps)
SHAPES = {
    "neurons": st.one_of(st.integers(1, 70), st.sampled_from([200, 300])),
    "pieces": st.one_of(st.integers(1, 33), st.integers(1, 70)),
    "inputs": st.integers(1, 200),
    "rows": st.sampled_from([0, 1, 2, 5, 16, 33, 130, 300]),
    "seed": st.integers(0, 2**31),
}
FEW_EXAMPLES = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("case", CASES)
def test_conforms(library: str, case: str) -> None:
    op = "CubicSpline" if case.startswith("cubic_spline") else "PiecewiseLinear"
    x, expected = VECTORS[f"{case}/x"], VECTORS[f"{case}/y"]
    parameters = {key: VECTORS[f"{case}/{key}"] for key in OPS[op]}
    # As for the function bodies (test_export_ops.py): s is rounded at up to K, kinks at up to 10 each, boundary slopes are
    # sums of coefficients up to a hundred times as large.
    pieces = parameters[OPS[op][-1] if op == "CubicSpline" else "knots"].shape[1]
    tolerance = {"rtol": 64 * EPS, "atol": 12 * EPS * (pieces + 4)}
    y = run(open_session(op_model(op, parameters, rank=x.ndim), library), x)
    np.testing.assert_allclose(y, expected, **tolerance)
    if x.ndim == 2 and np.isfinite(x).all():
        layer = {"weight": np.eye(x.shape[1], dtype=np.float32), "bias": np.zeros(x.shape[1], np.float32)}
        y = run(open_session(op_model(f"Gemm{op}", layer | parameters), library), x)
        np.testing.assert_allclose(y, expected, **tolerance)


@pytest.mark.parametrize("op", NAMES)
@FEW_EXAMPLES
@given(scaled=st.booleans(), optimize=st.booleans(), **SHAPES)
def test_matches_float64_and_the_body(library: str, op: str, neurons: int, pieces: int, inputs: int, rows: int, seed: int,
                                      scaled: bool, optimize: bool) -> None:
    rng = np.random.default_rng(seed)
    parameters = draw_parameters(op, neurons, pieces, inputs, rng, scaled=scaled)
    x = (rng.standard_normal((rows, inputs if op in FUSED else neurons)) * pieces).astype(np.float32)
    expected = reference(op, parameters, x)
    y = run(open_session(op_model(op, parameters), library, optimize=optimize), x)
    assert y.dtype == np.float32
    expected.check(y, EPS)
    body = run(open_session(op_model(op, parameters, body=True), None, optimize=optimize), x)
    expected.check(body, EPS)
    # So the two agree, each being within rounding of the same values; and of each other:
    Reference(body.astype(np.float64), expected.error).check(y, EPS)


@pytest.mark.parametrize("op", ["CubicSpline", "GemmCubicSpline"])
@pytest.mark.parametrize("intervals", [1, 7, 8, 15, 16, 31, 32, 63, 64, 95, 96, 127, 128, 300])
def test_every_interval_of_every_kind_of_table(library: str, op: str, intervals: int) -> None:
    """A point in each interval of each neuron, and two on either side.

    Tables lie in 1, 2, 4, 6 or 8 registers of AVX-512, in one of AVX2, or in memory.
    """
    rng = np.random.default_rng(intervals)
    neurons = 19
    parameters = draw_parameters(op, neurons, intervals, neurons, rng, scaled=True)
    places = np.arange(-2, intervals + 2) + rng.uniform(0.1, 0.9, intervals + 4)
    x = np.stack([rng.permutation(places) for _ in range(neurons)], 1).astype(np.float32)
    if op in FUSED:
        parameters |= {"weight": np.eye(neurons, dtype=np.float32), "bias": np.zeros(neurons, np.float32)}
    y = run(open_session(op_model(op, parameters), library), x)
    reference(op, parameters, x).check(y, EPS)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("op", OPS)
@FEW_EXAMPLES
@given(**{key: value for key, value in SHAPES.items() if key != "inputs"})
def test_other_types(library: str, op: str, dtype: Any, neurons: int, pieces: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parameters = {key: value.astype(dtype) for key, value in draw_parameters(op, neurons, pieces, 1, rng).items()}
    x = (rng.standard_normal((rows, neurons)) * 3).astype(dtype)
    expected = reference(op, parameters, x)
    y = run(open_session(op_model(op, parameters), library), x)
    assert y.dtype == dtype
    if dtype == np.float64:
        expected.check(y, float(np.finfo(np.float64).eps))
        return
    # Computed in float32 and rounded once; coefficients rounded to float16 are continuous only to that.
    jump = 2**-10 * np.abs(parameters["coefficients"]).astype(float).sum(-1).max(-1) / EPS if op == "CubicSpline" else 0
    Reference(expected.y, expected.error + jump).check(y.astype(np.float64), EPS, result_eps=2**-11)


@pytest.mark.parametrize("op", NAMES)
@pytest.mark.parametrize(("neurons", "rows"), [(1, 1), (5, 3), (37, 40)])
def test_not_a_number_and_infinity_are_where_the_body_has_them(library: str, op: str, neurons: int, rows: int) -> None:
    rng = np.random.default_rng(neurons)
    strange = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 0, -0.0, 1e-45, 1e-39, 0.5], np.float32)
    for first in strange[:4]:
        parameters = draw_parameters(op, neurons, 5, 6, rng)
        parameters[NAMES[op][-1]][0] = 0  # splines and slopes that are flat
        if "slope" in parameters:
            parameters["slope"][0] = 0
        width = 6 if op in FUSED else neurons
        x = rng.standard_normal((rows, width)).astype(np.float32)
        places = rng.random(x.shape) < 0.4
        x[places] = rng.choice(strange, np.count_nonzero(places))
        x.flat[0] = first
        y, body = (run(open_session(op_model(op, parameters, body=not use), use), x) for use in (library, None))
        assert np.array_equal(np.isnan(y), np.isnan(body))
        assert np.array_equal(np.isposinf(y), np.isposinf(body))
        assert np.array_equal(np.isneginf(y), np.isneginf(body))
        finite = np.isfinite(body)
        # At 1e30 only the order of magnitude is of interest here, since terms cancel.
        np.testing.assert_allclose(y[finite], body[finite], rtol=1e-4, atol=1e-4 * np.abs(body[finite]).max(initial=1))
        assert np.isfinite(first) or not finite.all()


@pytest.mark.parametrize("shape", [(7,), (0,), (2, 3), (0, 4), (3, 0), (1, 1), (2, 3, 5)])
@pytest.mark.parametrize("op", OPS)
def test_any_rank(library: str, op: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    parameters = draw_parameters(op, shape[-1], 4, 1, rng)
    x = rng.standard_normal(shape).astype(np.float32)
    for constant in (True, False):
        session = open_session(op_model(op, parameters, rank=len(shape), constant=constant), library)
        reference(op, parameters, x).check(run(session, x, **({} if constant else parameters)), EPS)


@pytest.mark.parametrize("op", NAMES)
def test_parameters_may_be_inputs(library: str, op: str) -> None:
    rng = np.random.default_rng(2)
    session = None
    for neurons, pieces in ((9, 4), (20, 17), (3, 40)):  # one session for all: nothing of a run is kept
        parameters = draw_parameters(op, neurons, pieces, 11, rng)
        session = session or open_session(op_model(op, parameters, constant=False), library)
        x = rng.standard_normal((21, 11 if op in FUSED else neurons)).astype(np.float32)
        expected = run(open_session(op_model(op, parameters), library), x)
        assert np.array_equal(run(session, x, **parameters), expected)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(("op", "name"), [(op, name) for op, names in NAMES.items() for name in ("X", *names)])
def test_wrong_shape_is_an_error_of_the_run(library: str, op: str, name: str, constant: bool) -> None:
    rng = np.random.default_rng(3)
    good = draw_parameters(op, 6, 4, 5, rng)
    x = rng.standard_normal((8, 5 if op in FUSED else 6)).astype(np.float32)
    wrong = x[:, :-1] if name == "X" else good[name][:-1]
    parameters = good if name == "X" else good | {name: wrong}
    session = open_session(op_model(op, parameters, constant=constant), library)  # is no error
    with pytest.raises(Exception, match=rf"{op}: \w+ has shape \(\d+(, \d+)*\), expected \(.*\)") as error:
        run(session, wrong if name == "X" else x, **({} if constant else parameters))
    assert "\n" not in str(error.value).strip()
    session = open_session(op_model(op, good, constant=constant), library)
    reference(op, good, x).check(run(session, x, **({} if constant else good)), EPS)


def test_a_spline_needs_an_interval(library: str) -> None:
    parameters = draw_parameters("CubicSpline", 3, 1, 1, np.random.default_rng(0))
    parameters["coefficients"] = parameters["coefficients"][:, :0]
    session = open_session(op_model("CubicSpline", parameters), library)
    with pytest.raises(Exception, match=r"coefficients have shape \(3, 0, 4\), at least one interval is needed"):
        run(session, np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("op", NAMES)
def test_threads_change_no_bit(library: str, op: str) -> None:
    rng = np.random.default_rng(4)
    for neurons, inputs, rows in ((37, 60, 1500), (300, 60, 300), (1100, 60, 40), (1100, 200, 40), (1100, 800, 1),
                                  (1030, 300, 17), (600, 500, 150)):     # more weights than are taken to be in a cache
        parameters = draw_parameters(op, neurons, 9, inputs, rng)
        x = rng.standard_normal((rows, inputs if op in FUSED else neurons)).astype(np.float32)
        one, two = (run(open_session(op_model(op, parameters), library, threads=threads), x) for threads in (1, 2))
        assert np.array_equal(one, two)
        reference(op, parameters, x).check(two, EPS)


def test_sessions_share_the_library(library: str) -> None:
    rng = np.random.default_rng(5)
    jobs = []
    for index in range(8):
        op = list(NAMES)[index % 4]
        parameters = draw_parameters(op, 10 + 7 * index, 3 + 4 * index, 12, rng)
        x = rng.standard_normal((70 + index, 12 if op in FUSED else 10 + 7 * index)).astype(np.float32)
        session = open_session(op_model(op, parameters), library, threads=1 + index % 2)
        jobs += [(session, x, run(session, x))] * 5  # the same session in several threads too
    with ThreadPoolExecutor(4) as pool:
        for (_, _, expected), y in zip(jobs, pool.map(lambda job: run(job[0], job[1]), jobs), strict=True):
            assert np.array_equal(y, expected)


@pytest.mark.parametrize("optimize", [True, False])
def test_network_with_bodies_runs_the_kernels(library: str, optimize: bool) -> None:
    """The shape of a fused node's result is not known to ONNX Runtime, and what follows must do without it."""
    nodes = """
        h = ai.mncompress.GemmCubicSpline (X, weight, bias, start, inverse_step, coefficients)
        u = Add (h, X)
        v = ai.mncompress.PiecewiseLinear (u, knots, slope_changes, slope, intercept)
        w = ai.mncompress.CubicSpline (v, start, inverse_step, coefficients)
        Y = Gemm <transB = 1> (w, weight, bias)
    """
    neurons, rng = 20, np.random.default_rng(6)
    spline = draw_parameters("GemmCubicSpline", neurons, 6, neurons, rng)
    kinks = draw_parameters("PiecewiseLinear", neurons, 3, 1, rng)
    graph = parser.parse_graph(f"network (float[batch, {neurons}] X) => (float[batch, {neurons}] Y) {{ {nodes} }}")
    graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in (spline | kinks).items())
    model = finish(graph, {"GemmCubicSpline": neurons, "PiecewiseLinear": neurons})
    onnx.checker.check_model(model, full_check=True)
    x = rng.standard_normal((50, neurons)).astype(np.float32)

    def compute(op: str, parameters: Arrays, x: np.ndarray) -> np.ndarray:
        return reference(op, parameters, x).y

    hidden = compute("PiecewiseLinear", kinks, compute("GemmCubicSpline", spline, x) + x)
    hidden = compute("CubicSpline", {key: spline[key] for key in OPS["CubicSpline"]}, hidden)
    expected = hidden @ spline["weight"].T.astype(np.float64) + spline["bias"]
    # Four layers, each with slopes up to some twenty.
    tolerance = {"rtol": 1e-3, "atol": 1e-3 * np.abs(expected).max()}
    np.testing.assert_allclose(run(open_session(model, None, optimize=optimize), x), expected, **tolerance)
    for function in model.functions:  # bodies that are wrong show whether it was the kernels that ran
        del function.node[:]
        function.node.append(helper.make_node("Neg", ["X"], ["Y"]))
    np.testing.assert_allclose(run(open_session(model, library, optimize=optimize), x), expected, **tolerance)


CHAINS: tuple[Chain, ...] = (
    ("CubicSpline",), (None, "PiecewiseLinear"), ("CubicSpline", None), ("PiecewiseLinear", "CubicSpline", "PiecewiseLinear"),
    ("CubicSpline", None, "CubicSpline", None))


@FEW_EXAMPLES
@given(chain=st.lists(st.sampled_from([None, *OPS]), min_size=1, max_size=4),
       sizes=st.lists(st.one_of(st.integers(1, 20), st.integers(1, 200)), min_size=5, max_size=5), pieces=st.integers(1, 33),
       rows=st.sampled_from([0, 1, 5, 8, 9, 16, 33, 130, 300]), seed=st.integers(0, 2**31), optimize=st.booleans(),
       equal=st.booleans(), data=st.data())
def test_chain_matches_float64_and_the_body(library: str, chain: list[str | None], sizes: list[int], pieces: int, rows: int,
                                            seed: int, optimize: bool, equal: bool, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    if equal:
        sizes[2:] = [sizes[1]] * len(sizes[2:])
    parameters = draw_chain(chain, sizes, pieces, rng)
    residual = [position for position in square_layers(chain, parameters) if data.draw(st.booleans())]
    x = (2 * rng.standard_normal((rows, sizes[0]))).astype(np.float32)
    expected = chain_reference(chain, parameters, x, residual)
    y = run(open_session(chain_model(chain, parameters, residual=residual), library, optimize=optimize), x)
    assert y.dtype == np.float32
    expected.check(y, EPS)
    body = chain_model(chain, parameters, body=True, residual=residual)
    expected.check(run(open_session(body, None, optimize=optimize), x), EPS)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize(("rows", "width"), [(1, 37), (5, 3), (9, 140), (40, 37)])  # wide layers do not pass through in panels
def test_chain_keeps_what_is_no_number_or_infinite(library: str, chain: Chain, rows: int, width: int) -> None:
    rng = np.random.default_rng(rows)
    parameters = draw_chain(chain, [width, *[width + 2] * (len(chain) - 1), 5], 4, rng)
    residual = square_layers(chain, parameters)
    strange = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-45], np.float32)
    for first in strange[:3]:
        x = rng.standard_normal((rows, width)).astype(np.float32)
        places = rng.random(x.shape) < 1 / width
        x[places] = rng.choice(strange, np.count_nonzero(places))
        x[0, 0] = first
        models = {use: chain_model(chain, parameters, body=not use, residual=residual) for use in (library, None)}
        y, body = (run(open_session(model, use), x) for use, model in models.items())
        assert not np.isfinite(body[0]).all()
        finite = np.isfinite(body)
        assert np.array_equal(y[~finite], body[~finite], equal_nan=True)
        # Up to four layers of sums of 142 terms, whose rounding some hundred eps of the largest covers.
        np.testing.assert_allclose(y[finite], body[finite], rtol=256 * EPS, atol=256 * EPS * np.abs(body[finite]).max(initial=1))


@pytest.mark.parametrize("chain", CHAINS)
def test_parameters_of_a_chain_may_be_inputs(library: str, chain: Chain) -> None:
    rng = np.random.default_rng(7)
    session = None
    for size, pieces in ((9, 4), (20, 17), (3, 40)):
        parameters = draw_chain(chain, [11, *range(size, size + len(chain))], pieces, rng)
        session = session or open_session(chain_model(chain, parameters, constant=False), library)
        x = rng.standard_normal((21, 11)).astype(np.float32)
        y = run(session, x, **parameters)
        chain_reference(chain, parameters, x).check(y, EPS)
        assert np.array_equal(y, run(open_session(chain_model(chain, parameters), library), x))


@pytest.mark.parametrize("constant", [True, False])
def test_wrong_chain_is_an_error_of_the_run(library: str, constant: bool) -> None:
    chain, rng = ("CubicSpline", None, "PiecewiseLinear"), np.random.default_rng(8)
    good = draw_chain(chain, [5, 6, 7, 8], 4, rng)
    x = rng.standard_normal((9, 5)).astype(np.float32)

    def fail(parameters: Arrays, x: np.ndarray, message: str) -> None:
        session = open_session(chain_model(chain, parameters, constant=constant), library)  # is no error
        with pytest.raises(Exception, match=f"FeedForward: {message}") as error:
            run(session, x, **({} if constant else parameters))
        assert "\n" not in str(error.value).strip()

    fail(good, x[:, :-1], r"X has shape \(9, 4\), expected \(\.\.\., 5\)")
    for name, value in good.items():
        fail(good | {name: value[:-1]}, x, r"\w+ has shape \(\d+(, \d+)*\), expected \(.*\)")
    fail(good | {"weight_1": good["weight_1"][:, :-1]}, x, r"weight has shape \(7, 5\), expected \(-1, 6\)")
    fail(good | {"bias_0": good["bias_0"][None]}, x, r"parameter 1 and the next are no weight \(N, M\) and bias \(N\)")
    for kept in (3, 4, 6, 8, 10, 11, 12):  # 2, 5, 7 and 9 parameters end where a layer may
        few = "there are too few parameters for the last layer"
        message = few if kept in (3, 4, 11, 12) else rf"parameter {kept} and the next are no weight \(N, M\) and bias \(N\)"
        fail(dict(list(good.items())[:kept]), x, message)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(("residual", "message"), [
    ([0], "residual has layer 0, expected 1 to 2"),
    ([1, 3], "residual has layer 3, expected 1 to 2"),
    ([-1], "residual has layer -1, expected 1 to 2"),
    ([1, 2], "layer 2 is residual, but reads 6 values and makes 8"),
])
def test_layer_that_cannot_be_residual_is_an_error_of_the_run(library: str, constant: bool, residual: list[int], message: str
                                                              ) -> None:
    chain = ("CubicSpline", None, "PiecewiseLinear")
    parameters = draw_chain(chain, [6, 6, 6, 8], 4, np.random.default_rng(8))
    session = open_session(chain_model(chain, parameters, constant=constant, residual=residual), library)
    with pytest.raises(Exception, match=f"FeedForward: {message}"):
        run(session, np.zeros((9, 6), np.float32), **({} if constant else parameters))


@pytest.mark.parametrize(("op", "shapes"), [
    ("GemmPiecewiseLinear", [(3, 2), (3,), (4, 3), (4,), (2, 4), (2,)]),    # three linear layers
    ("GemmCubicSpline", [(3, 2), (3,), (4, 3), (4,), (2, 4)]),
    ("GemmCubicSpline", [(3, 2), (3,), (3, 5), (3, 5), (3,)]),              # knots where a spline begins
])
def test_parameters_of_another_fused_operator_are_refused(library: str, op: str, shapes: list[tuple[int, ...]]) -> None:
    parameters = {name: np.zeros(shape, np.float32) for name, shape in zip(NAMES[op], shapes, strict=True)}
    session = open_session(op_model(op, parameters), library)
    with pytest.raises(Exception, match=f"{op}: "):
        run(session, np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("chain", CHAINS)
def test_threads_and_batches_change_no_bit_of_a_chain(library: str, chain: Chain) -> None:
    rng = np.random.default_rng(9)
    for inputs, width, rows in ((12, 12, 3000), (60, 60, 700), (150, 150, 300), (900, 5, 70), (900, 40, 70), (900, 140, 6)):
        parameters = draw_chain(chain, [inputs, *[width] * 4], 9, rng)
        x = rng.standard_normal((rows, inputs)).astype(np.float32)
        residual = square_layers(chain, parameters)
        sessions = [open_session(chain_model(chain, parameters, residual=residual), library, threads=threads) for threads in (1, 2)]
        one, two = (run(session, x) for session in sessions)
        assert np.array_equal(one, two)
        assert np.array_equal(run(sessions[0], x[:3]), one[:3])
        chain_reference(chain, parameters, x, residual).check(two, EPS)


def test_tables_longer_than_the_kernels_take(library: str) -> None:
    """A spline of more intervals than 32-bit offsets reach, in a residual layer, behind more inputs than a panel takes."""
    intervals, inputs = 2**22 + 1, 130
    coefficients = np.zeros((1, intervals, 4), np.float32)
    coefficients[0, :, 0] = 2 * np.arange(intervals) + 1
    unit = {"start": np.zeros(1, np.float32), "inverse_step": np.ones(1, np.float32)}
    parameters = {"weight_0": np.ones((1, inputs), np.float32), "bias_0": np.zeros(1, np.float32)}
    layer = {"weight": np.ones((1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    parameters |= {f"{key}_1": value for key, value in (layer | unit | {"coefficients": coefficients}).items()}
    x = np.zeros((3, inputs), np.float32)
    x[:, 0], x[:, 1:] = [intervals - 200, 7, -5], 1
    total = np.array([[intervals - 71], [136], [124]])
    expected = 2 * total + 1 + total
    model = chain_model([None, "CubicSpline"], parameters, constant=False, residual=[1])
    assert np.array_equal(run(open_session(model, library), x, **parameters), expected)


def test_instruction_set_has_a_name() -> None:
    assert instruction_set() in SETS


COMPILE = ["g++", "-std=c++17", "-O1", "-w", f"-I{SOURCES}"]
SANITIZE = ["-fsanitize=address,float-cast-overflow", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of native/fuzz.cpp. Half of the time to compile it would go into all that sanitizers can check, and into checking
    the program itself: here it is the library alone, and its memory. The whole is what fuzz.cpp says at its head."""
    skip_without_sources()
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "empty.cpp").write_text("int main() {}\n")
    if subprocess.run([*COMPILE, *SANITIZE, folder / "empty.cpp", "-o", folder / "empty"], capture_output=True).returncode:
        pytest.skip("this g++ has no sanitizers")
    sources = [SOURCES / "library.cpp", SOURCES / "cuda.cpp", *sorted(SOURCES.glob("kernels*.cpp"))]
    commands = {source: [*COMPILE, *SANITIZE, "-c", source] for source in sources}
    commands[FOLDER / "native" / "fuzz.cpp"] = [*COMPILE, "-c", FOLDER / "native" / "fuzz.cpp"]
    # The program comes last: of an inline function that several files have, the linker takes the first, which is checked.
    objects = [folder / f"{source.stem}.o" for source in commands]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda command, target: subprocess.run([*command, "-o", target], check=True), commands.values(), objects))
    subprocess.run(["g++", *SANITIZE, *objects, "-o", folder / "fuzz", "-ldl"], check=True)
    return folder / "fuzz"


@pytest.mark.parametrize("kernels", SETS)
def test_fuzz(fuzzer: Path, kernels: str) -> None:
    """2000 calls: 1000 of kernels on every instruction set in turn, 1000 of the library on this one."""
    done = subprocess.run([fuzzer, "2000", "0"], env=os.environ | {"MNCOMPRESS_KERNELS": kernels}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]


@needs_sources
@pytest.mark.portability
def test_neon_under_emulation() -> None:
    for module in ("ziglang", "unicorn"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}, the cross compiler and the emulator: pip install ziglang unicorn")
    done = subprocess.run([sys.executable, FOLDER / "native" / "neon.py", "300"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
