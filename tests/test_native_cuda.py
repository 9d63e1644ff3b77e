"""The CUDA kernels of the native library, mostly without a GPU.

The last three tests need one with ONNX Runtime's CUDA provider. The others show what a processor can: that the kernels' source
computes what the CPU's does, bit for bit, in every grid that `cuda.cpp` asks for; that it gives the driver the right arguments in
the right order (`native/cuda_session.cpp` with `native/fake_cuda.cpp` for the driver); and that the PTX is what that source
compiles to and assembles for the GPUs in use.
"""

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import mncompress.native
from mncompress import runtime
from mncompress.export._functions import make_functions
from mncompress.export._graph import DOMAIN, DOMAIN_VERSION

NATIVE = Path(mncompress.native.__file__).parent
HELPERS = Path(__file__).parent / "native"
ELEMENTWISE_ONLY = "ai.mncompress.elementwise_only"
IN, NEURONS = 5, 40
PARAMETERS = {"CubicSpline": ["start", "inverse_step", "coefficients"],
              "PiecewiseLinear": ["knots", "slope_changes", "slope", "intercept"]}

needs_gpu = pytest.mark.skipif("cuda" not in runtime.available_providers(), reason="no CUDA device with ONNX Runtime's provider")


def library() -> str:
    """The compiled library, or a skipped test."""
    path = mncompress.native.library_path()
    if path is None:
        pytest.skip("the native library was not built")
    return str(path)


def tool(name: str) -> str:
    """A tool of this machine, or a skipped test."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name}")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled test program and the stand-in for the driver."""
    if os.name != "posix":
        pytest.skip("the stand-in for the driver is a POSIX shared library")
    path = tmp_path_factory.mktemp("cuda")
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fsanitize=address,undefined",
             "-fno-sanitize-recover", f"-I{NATIVE}"]
    for source, options in {"fake_cuda.cpp": ["-fPIC", "-shared", "-fvisibility=hidden", "-o", "libcuda.so.1"],
                            "cuda_session.cpp": ["-o", "cuda_session", "-pthread", "-ldl"]}.items():
        subprocess.run([tool("g++"), *flags, str(HELPERS / source), *options], cwd=path, check=True)
    return path


def run_sessions(folder: Path, *arguments: str, driver: bool) -> subprocess.CompletedProcess[str]:
    """The test program on the library."""
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    environment["LD_LIBRARY_PATH"] = str(folder) if driver else ""
    return subprocess.run([folder / "cuda_session", library(), *arguments], env=environment, capture_output=True, text=True,
                          check=False)


def test_sessions_with_a_stand_in_for_the_driver(folder: Path) -> None:
    """Registration, results, loading, memory and failures: no GPU takes part."""
    done = run_sessions(folder, driver=True)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


def test_without_a_driver_the_error_says_so(folder: Path) -> None:
    """The kernel is refused in one line, and the library itself loads all the same."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        done = run_sessions(folder, "absent", driver=False)
        assert done.returncode == 0, done.stderr
    else:
        pytest.skip("this machine has a driver")


def test_ptx_is_what_the_source_compiles_to(tmp_path: Path) -> None:
    """Generated again by the command in kernels.cu, with the nvcc release that the file names: other releases write other code."""
    tool("nvcc")
    for name in ("kernels.cu", "element.h"):
        shutil.copy(NATIVE / name, tmp_path)
    stored = (NATIVE / "kernels_ptx.h").read_text(encoding="utf-8")
    source = (NATIVE / "kernels.cu").read_text(encoding="utf-8")
    command = "\n".join(re.findall(r"^//     (.*)$", source, re.MULTILINE))
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    made = (tmp_path / "kernels_ptx.h").read_text(encoding="utf-8")
    if made.splitlines()[0] != stored.splitlines()[0]:
        pytest.skip("another release of nvcc")
    assert made == stored


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"])
def test_ptx_assembles(tmp_path: Path, architecture: str) -> None:
    """For each generation of GPUs, all kernels, without local memory."""
    ptx = (NATIVE / "kernels_ptx.h").read_text(encoding="utf-8").split('R"ptx(')[1].split(')ptx"')[0]
    assert ptx.startswith("\n.version 6.0\n.target sm_60\n")
    (tmp_path / "kernels.ptx").write_text(ptx, encoding="utf-8")
    done = subprocess.run([tool("ptxas"), "-v", f"-arch={architecture}", "kernels.ptx", "-o", "kernels.cubin"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(re.findall("0 bytes stack frame, 0 bytes spill stores", done.stderr)) == 3, done.stderr


def make_model(*, fused: bool) -> onnx.ModelProto:
    """Two layers of 40 neurons, CubicSpline and PiecewiseLinear, each behind its Gemm or fused with it."""
    rng = np.random.default_rng(0)
    arrays = {"w0": rng.normal(size=(NEURONS, IN)), "w1": rng.normal(size=(NEURONS, NEURONS)) / NEURONS**0.5,
              "b0": rng.normal(size=NEURONS), "b1": rng.normal(size=NEURONS), "start": rng.normal(size=NEURONS),
              "inverse_step": 1 + rng.random(NEURONS), "coefficients": rng.normal(size=(NEURONS, 6, 4)) / 4,
              "knots": rng.normal(size=(NEURONS, 3)), "slope_changes": rng.normal(size=(NEURONS, 3)),
              "slope": rng.normal(size=NEURONS), "intercept": rng.normal(size=NEURONS)}
    nodes, value = [], "features"
    for i, (op_type, names) in enumerate(PARAMETERS.items()):
        weights = [f"w{i}", f"b{i}"]
        if fused:
            nodes.append(helper.make_node(f"Gemm{op_type}", [value, *weights, *names], [f"y{i}"], domain=DOMAIN))
        else:
            nodes.append(helper.make_node("Gemm", [value, *weights], [f"z{i}"], transB=1))
            nodes.append(helper.make_node(op_type, [f"z{i}", *names], [f"y{i}"], domain=DOMAIN))
        value = f"y{i}"
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", IN])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", NEURONS])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()])
    functions = make_functions(18, dict.fromkeys(PARAMETERS, NEURONS), set(PARAMETERS) if fused else ())
    model = helper.make_model(graph, functions=functions, ir_version=9,
                              opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)])
    onnx.checker.check_model(model)
    return model


def make_options() -> onnxruntime.SessionOptions:
    """A session with the elementwise operators alone, as one on CUDA is made."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry(ELEMENTWISE_ONLY, "1")
    options.register_custom_ops_library(library())
    return options


def expect_close(y: np.ndarray, model: onnx.ModelProto, x: np.ndarray) -> None:
    """Compares with the function bodies. Two layers of float32 with up to 40 terms: 64 rounding errors of the largest output."""
    expected = ReferenceEvaluator(model).run(None, {"features": x})[0]
    eps = float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(y, expected, rtol=64 * eps, atol=64 * eps * np.abs(expected).max())


def test_elementwise_only_inlines_fused_operators(tmp_path: Path) -> None:
    """On the CPU provider, whose own kernels for the fused ones that entry hides."""
    options = make_options()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    model = make_model(fused=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    assert [node.op_type for node in nodes] == ["Gemm", "CubicSpline", "Gemm", "PiecewiseLinear"]
    x = np.random.default_rng(1).normal(size=(33, IN)).astype(np.float32)
    expect_close(session.run(None, {"features": x})[0], model, x)


@needs_gpu
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("rows", [1, 33, 4096, 20000])
def test_on_a_gpu(rows: int, fused: bool) -> None:
    """Every node runs on the CUDA provider (the session fails otherwise) and computes what the function bodies do."""
    options = make_options()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    model = make_model(fused=fused)
    provider = ("CUDAExecutionProvider", {"use_tf32": "0"})
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider])
    x = np.random.default_rng(1).normal(size=(rows, IN)).astype(np.float32)
    expect_close(session.run(None, {"features": x})[0], model, x)


@needs_gpu
@pytest.mark.parametrize(("neurons", "intervals"), [(1, 5), (7, 31), (40, 95), (40, 96), (128, 31), (300, 95)])
def test_on_a_gpu_many_rows_give_the_bits_of_few(neurons: int, intervals: int) -> None:
    """With many rows (and up to 95 intervals) the tables are in shared memory, with few they are not."""
    rng, rows, few = np.random.default_rng(neurons), 3_000_000 // neurons if neurons < 30 else 100_000, 500
    arrays = {"start": rng.normal(size=neurons), "inverse_step": 1 + 8 * rng.random(neurons),
              "coefficients": rng.normal(size=(neurons, intervals, 4))}
    graph = helper.make_graph(
        [helper.make_node("CubicSpline", ["x", *arrays], ["y"], domain=DOMAIN)], "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", neurons])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", neurons])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(graph, functions=make_functions(18, {"CubicSpline": neurons}), ir_version=9, opset_imports=opsets)
    session = onnxruntime.InferenceSession(model.SerializeToString(), make_options(), providers=["CUDAExecutionProvider"])
    x = 4 * rng.standard_normal((rows, neurons), np.float32)
    x[rng.random(x.shape) < 0.01] = np.nan
    x[rng.random(x.shape) < 0.01] = np.inf
    y = session.run(None, {"x": x})[0]
    assert np.isfinite(y).any()
    for start in (0, rows // 2, rows - few):
        part = slice(start, start + few)
        np.testing.assert_array_equal(y[part], session.run(None, {"x": x[part]})[0])


@needs_gpu
def test_in_a_cuda_graph() -> None:
    """Captured once and replayed on other inputs in the same memory."""
    model, rng = make_model(fused=False), np.random.default_rng(1)
    provider = ("CUDAExecutionProvider", {"use_tf32": "0", "enable_cuda_graph": "1"})
    session = onnxruntime.InferenceSession(model.SerializeToString(), make_options(), providers=[provider])
    x = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((33, IN), np.float32), "cuda", 0)
    y = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((33, NEURONS), np.float32), "cuda", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("features", x)
    binding.bind_ortvalue_output("y1", y)
    for _ in range(4):
        values = rng.normal(size=(33, IN)).astype(np.float32)
        x.update_inplace(values)
        session.run_with_iobinding(binding)
        expect_close(y.numpy(), model, values)
