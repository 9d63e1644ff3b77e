"""What depends on the machine: CUDA's options, on a fake of it, pinning, and first runs in fresh processes."""

import contextlib
import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from mncompress import benchmark, runtime
from mncompress.benchmark import Clock, Settings, _affinity, _measure, _startup
from mncompress.errors import ConfigError, RuntimeProviderError

TANH = """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) { y = Tanh (x) }"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not ours."""
    onnx.save(onnx.parser.parse_model(TANH), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def settings(**options) -> Settings:
    return Settings(**{"sessions": 6, "rounds": 6, "startup": 0, **options})


class FakeSession:
    """Stands for a session on a machine that has CUDA; remembers what it was made with."""

    made: ClassVar[list[tuple[str, tuple[str, dict[str, str]]]]] = []

    def __init__(self, path, options, *, providers, enable_fallback):
        self.real = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        FakeSession.made.append((Path(path).stem, *providers))

    def __getattr__(self, name):
        return getattr(self.real, name)

    def get_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def cuda(monkeypatch):
    """A machine that seems to have CUDA. Buffers stay on the CPU; on which device they were asked for is remembered."""
    FakeSession.made, devices = [], []
    real = onnxruntime.OrtValue.ortvalue_from_shape_and_type

    class FakeRuntime:
        InferenceSession = FakeSession

        def __getattr__(self, name):
            return getattr(onnxruntime, name)

    monkeypatch.setattr(runtime, "onnxruntime", FakeRuntime())
    monkeypatch.setattr(runtime, "check_providers", lambda providers: None)
    monkeypatch.setattr(_measure, "check_providers", lambda providers: None)
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type",
                        lambda shape, dtype, device, number: (devices.append(device), real(shape, dtype, "cpu", 0))[1])
    return devices


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_cuda_options_reach_the_sessions_that_are_timed(path, cuda, cuda_graph):
    result = benchmark.benchmark({"m": path}, settings(providers=("cuda",), batch_sizes=(2,), cuda_graph=cuda_graph))
    assert result.latency[0].provider == "cuda"
    assert {name for _, (name, _) in FakeSession.made} == {"CUDAExecutionProvider"}
    graphs = [options.get("enable_cuda_graph") for _, (_, options) in FakeSession.made]
    assert graphs == [None, None] + (["1"] if cuda_graph else [None]) * 6       # inputs, outputs, and six sessions
    assert cuda == ["cuda"] * 2 * 6


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_asked_for_in_every_session_and_shown(path, cuda, tf32):
    result = benchmark.benchmark({"m": path}, settings(providers=("cuda",), batch_sizes=(2,), tf32=tf32))
    asked = [options["use_tf32"] for _, (_, options) in FakeSession.made]
    assert asked == ["0"] + ["1" if tf32 else "0"] * 7      # the interface is read without it
    assert [row.tf32 for row in result.latency] == [tf32]
    document = benchmark.to_document(result)
    assert document["settings"]["tf32"] is document["latency"][0]["tf32"] is tf32
    found = benchmark.measure({"m": path}, provider="cuda", batch=2, seconds=0.01, sessions=6, tf32=tf32)
    assert found.tf32 is tf32
    assert [options["use_tf32"] for _, (_, options) in FakeSession.made[9:]] == ["1" if tf32 else "0"] * 7


def test_command_says_tf32_beside_the_provider(path, cuda):
    app = next(iter(entry_points(group="console_scripts", name="mncompress"))).load()
    options = ["--providers", "cuda", "--batch-sizes", "2", "--sessions", "6", "--seconds", "0.01", "--startup", "0", "--tf32"]
    done = CliRunner().invoke(app, ["benchmark", str(path), *options])
    assert done.exit_code == 0, done.output
    assert "cuda TF32" in done.stdout
    assert "provider cuda in TF32, threads 1, batch 2" in done.stderr


def test_cuda_without_binding_uses_no_buffers(path, cuda):
    benchmark.benchmark({"m": path}, settings(providers=("cuda",), batch_sizes=(2,), io_binding=False))
    assert cuda == []


def test_tf32_is_refused_on_other_providers(path):
    with pytest.raises(ConfigError, match="TF32 exists on the provider cuda only, got cpu"):
        runtime.make_session(path, tf32=True)


def test_cuda_graph_is_refused_on_other_providers(path):
    with pytest.raises(ConfigError, match="CUDA graphs exist on the provider cuda only, got cpu"):
        runtime.make_session(path, cuda_graph=True)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such call here")
def test_pinning_lasts_as_long_as_a_measurement(path, monkeypatch):
    before, seen = os.sched_getaffinity(0), []
    sample = _measure.sample_rounds
    monkeypatch.setattr(_measure, "sample_rounds", lambda *args, **options: (
        seen.append(os.sched_getaffinity(0)), sample(*args, **options))[1])
    benchmark.benchmark({"m": path}, settings(batch_sizes=(1,), pin=True))
    assert [len(cores) for cores in seen] == [1] * 6
    assert os.sched_getaffinity(0) == before
    with contextlib.suppress(ZeroDivisionError), _affinity.pinned(1) as cores:
        seen.append(set(cores) == os.sched_getaffinity(0))
        raise ZeroDivisionError
    assert seen[-1] is True
    assert os.sched_getaffinity(0) == before
    with pytest.raises(ConfigError, match=r"cannot pin 999 threads to different cores: this process may use \d+; give fewer"):
        benchmark.benchmark({"m": Path("never read")}, settings(pin=True, threads=(1, 999)))


def test_pinning_where_there_is_no_such_call_is_refused(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(ConfigError, match="processes cannot be pinned to cores on this system; leave out"), _affinity.pinned(1):
        pass


@pytest.mark.parametrize(("allowed", "count", "cores"), [
    (range(8), 1, (7,)), (range(8), 4, (4, 5, 6, 7)), (range(8), 6, (2, 3, 4, 5, 6, 7)), ({0, 4}, 1, (4,)), ({0, 4}, 2, (0, 4)),
    ({0, 1, 4, 5}, 2, (4, 5)), ({0, 1, 2, 6}, 2, (1, 6)), ({0, 1, 2, 6}, 4, (0, 1, 2, 6)), ({0}, 1, (0,)),
])
def test_cores_are_taken_from_the_end_and_from_different_physical_ones(allowed, count, cores):
    """Cores 0 and 4, 1 and 5, 2 and 6, 3 and 7 share a physical one."""
    assert _affinity.choose_cores(allowed, count, physical=lambda core: core % 4) == cores


def test_first_run_is_timed_and_weighed_in_steps():
    now, held = iter([0, 30_000_000, 40_000_000, 42_000_000]), iter([1000, 5000, 9000])

    class Session:
        def run(self, names, feeds):
            assert feeds == {"x": 1}

    found = _startup.first_run(Session, {"x": 1}, clock=Clock(lambda: next(now)), memory=lambda: next(held))
    assert found == _startup.FirstRun(30.0, 2.0, 4000, 8000)
    unknown = _startup.first_run(Session, {"x": 1}, clock=Clock(lambda: 0), memory=lambda: None)
    assert (unknown.session_bytes, unknown.first_run_bytes) == (None, None)


def test_startup_is_the_median_of_processes():
    where = {"model": "m", "provider": "cpu", "threads": 1, "batch": 8}
    runs = [_startup.FirstRun(1.0, 9.0, 10, 100), _startup.FirstRun(5.0, 8.0, 30, 300), _startup.FirstRun(2.0, 1.0, 20, 100)]
    found = _startup.summarize_startup(runs, **where)
    assert found == benchmark.Startup(**where, processes=3, session_ms=2.0, first_run_ms=8.0, session_bytes=20, first_run_bytes=100)
    runs[1] = _startup.FirstRun(5.0, 8.0, None, None)
    assert _startup.summarize_startup(runs, **where).session_bytes is None


def test_memory_of_a_large_model_shows(tmp_path):
    """32 MiB of weights, read from the file and then held."""
    weights = onnx.numpy_helper.from_array(np.zeros((2048, 4096), np.float32), "w")
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 2048] x, float[2048, 4096] w) => (float[n, 4096] y) { y = MatMul (x, w) }""")
    del model.graph.input[1]
    model.graph.initializer.append(weights)
    onnx.save(model, tmp_path / "m.onnx")
    x = np.zeros((1, 2048), np.float32)
    found = _startup.measure_startup("m", tmp_path / "m.onnx", {"x": x}, provider="cpu", threads=1, batch=1, processes=1)
    assert found.session_bytes is None or 2**25 <= found.session_bytes < 2**28


def test_a_process_that_fails_is_told_in_a_line(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    message = r"cannot measure the first run of .*bad.onnx in a fresh process: .*cannot open .*pass --startup 0 to leave it out"
    with pytest.raises(RuntimeProviderError, match=message):
        _startup.measure_startup("bad", tmp_path / "bad.onnx", {}, provider="cpu", threads=1, batch=1, processes=1)
