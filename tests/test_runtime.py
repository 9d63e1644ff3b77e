import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from mncompress import native, runtime
from mncompress.errors import ConfigError, DataError, RuntimeProviderError

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
HAS_CUDA = "cuda" in runtime.available_providers()


def make_model(text: str, *, metadata: dict[str, str] | None = None) -> onnx.ModelProto:
    """A model from ONNX text; `{w}` stands for an initializer of the weights."""
    w = f"float[4, 3] w = {{{', '.join(map(str, WEIGHTS.ravel()))}}}"
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 18]> ' + text.replace("{w}", w))
    onnx.helper.set_model_props(model, metadata or {})
    return model


LINEAR = "g (float[batch, 4] input) => (float[batch, 3] logits) <{w}> { logits = MatMul(input, w) }"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(make_model(LINEAR, metadata={"recipe_hash": "abc"}), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("batch_size", [1, 3, 4096])
@pytest.mark.parametrize("optimize", [True, False])
def test_run_computes_the_model_in_batches(path, dtype, batch_size, optimize):
    x = np.random.default_rng(1).uniform(0, 255, (10, 4)).astype(dtype)
    outputs = runtime.run(runtime.make_session(path, optimize=optimize), x, batch_size)
    # Five float32 roundings (the cast, four terms) of numbers up to 255 * |w|, each at most 6e-8 relative.
    scale = np.abs(x.astype(np.float64)) @ np.abs(WEIGHTS.astype(np.float64))
    assert np.all(np.abs(outputs - x.astype(np.float64) @ WEIGHTS.astype(np.float64)) <= 5 * 6e-8 * scale)
    assert outputs.dtype == np.float32
    assert outputs.shape == (10, 3)


def test_run_takes_no_rows_and_rows_that_are_not_contiguous(path):
    session = runtime.make_session(path.read_bytes())
    x = np.asfortranarray(np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32))
    assert runtime.run(session, x[:0]).shape == (0, 3)
    np.testing.assert_array_equal(runtime.run(session, x[::2]), runtime.run(session, np.ascontiguousarray(x))[::2])


@pytest.mark.parametrize(("x", "message"), [
    (np.zeros((2, 5)), "the data has 5 features, the model takes 4"),
    (np.zeros(4), r"x.shape = \(4,\)"),
    (np.full((2, 4), "a"), "x.dtype = dtype"),
])
def test_run_refuses_other_features(path, x, message):
    with pytest.raises(DataError, match=message):
        runtime.run(runtime.make_session(path), x)


def test_session_has_the_threads_and_the_optimization_asked_for(path):
    options = runtime.make_session(path, threads=3, optimize=False).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    default = runtime.make_session(path).get_session_options()
    assert default.intra_op_num_threads == 1
    assert default.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    with pytest.raises(ConfigError, match="threads must be at least 1, got 0"):
        runtime.make_session(path, threads=0)


def write_bad_file(kind: str, path: Path) -> None:
    data = make_model(LINEAR).SerializeToString()
    if kind == "truncated":
        path.write_bytes(data[:-20])
    elif kind == "garbage":
        path.write_bytes(b"not an onnx file " * 9)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "unknown operator":
        path.write_bytes(make_model(LINEAR.replace("MatMul", "Nonsense")).SerializeToString())
    elif kind == "newer IR":
        model = make_model(LINEAR)
        model.ir_version = 99
        path.write_bytes(model.SerializeToString())
    elif kind == "external weights missing":
        model = make_model(LINEAR)
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(WEIGHTS, "w"))  # raw bytes can be external
        onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        path.with_name("weights.bin").unlink()
    else:
        assert kind == "missing"


@pytest.mark.parametrize(("kind", "reason"), [
    ("missing", "there is no file"), ("folder", "there is no file"), ("truncated", "parsing failed"),
    ("garbage", "parsing failed"), ("empty", "(?i)graph"), ("unknown operator", "Nonsense"),
    ("newer IR", "version: 99"), ("external weights missing", r"weights\.bin"),
])
def test_bad_file_is_one_line(tmp_path, capfd, kind, reason):
    path = tmp_path / "bad.onnx"
    write_bad_file(kind, path)
    with pytest.raises(RuntimeProviderError, match=reason) as caught:
        runtime.make_session(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_bad_bytes_are_named_as_such():
    with pytest.raises(RuntimeProviderError, match="cannot open the given bytes"):
        runtime.make_session(b"nothing")


@pytest.mark.parametrize(("providers", "message"), [
    (("tpu",), "unknown provider 'tpu'; available here: cpu"), ((), "no provider given; available here: cpu"),
])
def test_unknown_provider_is_refused(path, providers, message):
    with pytest.raises(RuntimeProviderError, match=message):
        runtime.make_session(path, providers=providers)


@pytest.mark.parametrize(("built", "reason"), [(True, "the NVIDIA driver reports no device"), (False, "without it")])
def test_cuda_without_a_device_is_refused(path, monkeypatch, built, reason):
    names = [*runtime.PROVIDERS.values()] if built else ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(runtime, "cuda_device_name", lambda: None)
    assert runtime.available_providers() == ("cpu",)
    with pytest.raises(RuntimeProviderError, match=f"'cuda' is not available here: .*{reason}; use cpu, or"):
        runtime.make_session(path, providers=("cuda", "cpu"))


def test_cpu_session_does_not_ask_the_cuda_driver(path, monkeypatch):
    monkeypatch.setattr(runtime, "cuda_device_name", lambda: pytest.fail("the driver was asked"))
    assert runtime.make_session(path).get_providers() == ["CPUExecutionProvider"]


@pytest.mark.skipif(HAS_CUDA or "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
                    reason="needs an onnxruntime built with CUDA on a machine without a device")
def test_silent_fallback_to_the_cpu_is_an_error(path, monkeypatch, capfd):
    monkeypatch.setattr(runtime, "cuda_device_name", lambda: "a device that onnxruntime cannot use")
    with pytest.raises(RuntimeProviderError, match="could not start it; use cpu, or install the CUDA"):
        runtime.make_session(path, providers=("cuda",))
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not HAS_CUDA, reason="no CUDA device here")
def test_cuda_session_agrees_with_the_cpu(path):
    x = np.random.default_rng(1).normal(size=(100, 4)).astype(np.float32)
    session = runtime.make_session(path, providers=("cuda",))
    assert session.get_providers()[0] == "CUDAExecutionProvider"
    # TF32 keeps 11 bits: four terms of size about 3, each off by 5e-4.
    np.testing.assert_allclose(runtime.run(session, x), x @ WEIGHTS, rtol=0, atol=2e-2)


def test_model_info_reads_names_widths_and_metadata(path, tmp_path):
    session = runtime.make_session(path)
    assert runtime.model_info(session) == runtime.ModelInfo(4, 3, "logits", {"recipe_hash": "abc"})
    assert not runtime.model_info(session).is_regression
    regression = make_model(LINEAR.replace("logits", "output")).SerializeToString()
    assert runtime.model_info(runtime.make_session(regression)).is_regression


@pytest.mark.parametrize("text", [
    LINEAR.replace("float[batch, 4] input", "float[batch, 4] input, float[batch, 4] other"),
    LINEAR.replace("batch", "2"),
    LINEAR.replace("batch, 4", "batch, width"),
    LINEAR.replace("batch, ", "batch, 2, "),
    LINEAR.replace("float", "double").replace("{w}", "double[4, 3] w = {0,0,0,0,0,0,0,0,0,0,0,0}"),
    LINEAR.replace("logits)", "logits, float[batch, 3] twice)").replace("w) }", "w) twice = Add(logits, logits) }"),
], ids=["two inputs", "fixed batch", "dynamic width", "rank 3", "double", "two outputs"])
def test_other_interfaces_are_refused(text):
    session = runtime.make_session(make_model(text).SerializeToString())
    with pytest.raises(RuntimeProviderError, match=r"strange\.onnx needs one float32 input .*, found input tensor"):
        runtime.model_info(session, name="strange.onnx")


def test_library_is_looked_for_beside_the_module(path, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(sys, "platform", "linux")
    native.load_library.cache_clear()
    assert runtime.library_path() is None
    assert native.instruction_set() is None
    library = tmp_path / "libmncompress_ops.so"
    library.write_bytes(b"no library, but " + native.INTERFACE)
    assert runtime.library_path() == library
    native.load_library.cache_clear()
    assert native.load_library() is None
    runtime._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"libmncompress_ops\.so cannot be loaded") as caught:  # so it was registered
        session = runtime.make_session(path)
    assert "\n" not in str(caught[0].message)
    assert runtime.run(session, np.zeros((2, 4))).shape == (2, 3)
    runtime.make_session(path)      # says it once
    native.load_library.cache_clear()


@pytest.mark.skipif(native.library_path() is None, reason="the library was not built")
def test_a_library_of_other_sources_is_refused(path, monkeypatch):
    """Its functions would read what they are given as something else."""
    monkeypatch.setattr(native, "INTERFACE", b"mncompress native interface of tomorrow")
    for each in (native.check_library, native.load_library, runtime._warn_once):
        each.cache_clear()
    try:
        assert native.load_library() is None
        assert native.instruction_set() is None
        with pytest.warns(RuntimeWarning, match=r"built from other sources; install mncompress again"):
            session = runtime.make_session(path)
        assert runtime.run(session, np.zeros((2, 4))).shape == (2, 3)
    finally:
        for each in (native.check_library, native.load_library):
            each.cache_clear()


def test_environment_can_be_written_to_json():
    environment = json.loads(json.dumps(runtime.describe_environment()))
    assert environment["onnxruntime"] == onnxruntime.__version__
    assert environment["numpy"] == np.__version__
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment["gpu"] is None
    assert environment["cores"] >= 1
    assert environment["cpu"]
    assert environment["torch"]


def test_torch_is_not_imported():
    code = """if True:
        import sys, mncompress.benchmark, mncompress.runtime
        mncompress.runtime.describe_environment()
        print("torch" in sys.modules)"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("False\n", "")


def test_metadata_that_are_no_text_are_refused_in_one_line(tmp_path):
    file = tmp_path / "a.onnx"
    file.write_bytes(make_model(LINEAR, metadata={"seed": "marker"}).SerializeToString().replace(b"marker", b"mar\xffer"))
    with pytest.raises(RuntimeProviderError, match="metadata that are not UTF-8"):
        runtime.model_info(runtime.make_session(file))
