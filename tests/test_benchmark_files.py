"""Any ONNX files: their inputs, their outputs, their first run, and the command that puts all of it together."""

import json
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from typer.testing import CliRunner

from mncompress import benchmark
from mncompress.benchmark import Settings, _measure, _run, _startup
from mncompress.benchmark._inputs import TensorSpec
from mncompress.errors import ConfigError, DataError, RuntimeProviderError
from mncompress.figures import save_figure

FAST = {"sessions": 6, "rounds": 6, "startup": 0}
MIXED = """<ir_version: 8, opset_import: ["" : 17]>
g (float16[n, 3, s] x, int64[n] ids, bool[n, 3] mask, double[1] scale) => (double[n, 3] y, int64[n] k)
<float[10, 3] table = {TABLE}, int64[1] last = {2}> {
  xf = Cast <to = 1> (x)
  NODES
  s = ReduceSum <keepdims = 0> (t, last)
  m = Cast <to = 1> (mask)
  masked = Mul (s, m)
  row = Gather (table, ids)
  a = Add (masked, row)
  ad = Cast <to = 11> (a)
  y = Mul (ad, scale)
  k = ArgMax <axis = 1, keepdims = 0> (a)
}""".replace("TABLE", ", ".join(map(str, range(30))))
ROWS = """<ir_version: 8, opset_import: ["" : 17]> g (float[%s, 4] x) => (float[%s, 4] y) { y = %s (x) }"""


def save(path: Path, text: str) -> Path:
    """A file of ONNX's own text form."""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def rows(path: Path, batch: object = "n", op: str = "Tanh") -> Path:
    """A file that applies an operator to rows of 4."""
    return save(path, ROWS % (batch, batch, op))


@pytest.fixture
def mixed(tmp_path: Path) -> dict[str, Path]:
    """Two files with four inputs of four types and two outputs, the second a copy of the first up to a node without effect."""
    return {"first": save(tmp_path / "first.onnx", MIXED.replace("NODES", "t = Tanh (xf)")),
            "second": save(tmp_path / "second.onnx", MIXED.replace("NODES", "u = Identity (xf) t = Tanh (u)"))}


def settings(**options) -> Settings:
    return Settings(**{**FAST, **options})


def test_files_from_elsewhere_are_measured_with_inputs_of_all_types(mixed):
    result = benchmark.benchmark(mixed, settings(batch_sizes=(1, 5), dims={"s": 7}, ranges={"ids": (0, 9)}))
    assert [(row.model, row.batch) for row in result.latency] == [("first", 1), ("second", 1), ("first", 5), ("second", 5)]
    assert all(0 < row.min_us <= row.p5_us <= row.median_us <= row.p95_us <= row.p99_us for row in result.latency)
    assert all(row.verdict == "baseline" or (row.verdict != "faster" or row.baseline_high < 1) for row in result.latency)
    assert [(each.batch, each.max_abs_difference) for each in result.agreement] == [(1, 0.0), (5, 0.0)]
    assert result.notes == ()
    first = result.models[0]
    assert first.nodes == 10
    assert first.file_bytes == mixed["first"].stat().st_size
    assert first.inputs == (TensorSpec("x", "float16", ("n", 3, "s")), TensorSpec("ids", "int64", ("n",)),
                            TensorSpec("mask", "bool", ("n", 3)), TensorSpec("scale", "float64", (1,)))


@pytest.mark.parametrize("io_binding", [True, False])
def test_every_run_computes_the_model_on_its_inputs(mixed, io_binding, monkeypatch):
    made, name = [], "bind" if io_binding else "feed"
    make = getattr(_measure, name)
    monkeypatch.setattr(_measure, name, lambda session, feeds, *args, **options: (
        made.append((session, feeds, make(session, feeds, *args, **options))), made[-1][2])[1])
    benchmark.benchmark(mixed, settings(batch_sizes=(3,), dims={"s": 7}, ranges={"ids": (0, 9)}, io_binding=io_binding))
    assert len(made) == 12
    session, feeds, run_once = made[0]
    assert {name: (array.dtype.name, array.shape) for name, array in feeds.items()} == {
        "x": ("float16", (3, 3, 7)), "ids": ("int64", (3,)), "mask": ("bool", (3, 3)), "scale": ("float64", (1,))}
    found = run_once()
    outputs = run_once.args[0].copy_outputs_to_cpu() if io_binding else found
    for ours, theirs in zip(outputs, session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_open_dimensions_are_asked_for_and_unknown_ones_refused(mixed):
    with pytest.raises(ConfigError, match=r"input 'x' of first is float16 \(n, 3, s\), and the size of 's' is not known; "
                                          "give it with --dim s=N"):
        benchmark.benchmark(mixed, settings())
    with pytest.raises(ConfigError, match="no model has a dimension 'z'; there are n, s"):
        benchmark.benchmark(mixed, settings(dims={"z": 3}))
    with pytest.raises(ConfigError, match="dimension 's' must be at least 1, got 0"):
        benchmark.benchmark(mixed, settings(dims={"s": 0}))


def test_a_model_with_a_fixed_batch_runs_at_that_one_only(tmp_path):
    paths = {"free": rows(tmp_path / "free.onnx"), "four": rows(tmp_path / "four.onnx", 4)}
    result = benchmark.benchmark(paths, settings(batch_sizes=(1, 4)))
    assert [(row.model, row.batch, row.verdict == "not compared") for row in result.latency] == [
        ("free", 1, True), ("free", 4, False), ("four", 4, False)]
    assert result.notes == ("four has a fixed batch and is not measured at batch 1.",)
    assert {row.batch for row in benchmark.benchmark(paths, settings()).latency} == {4}
    with pytest.raises(ConfigError, match="no model runs at batch 1, 2: four runs at batch 4 only; pass one of these"):
        benchmark.benchmark({"four": paths["four"]}, settings(batch_sizes=(1, 2)))


def test_unnamed_dimensions_are_called_by_input_and_axis(tmp_path):
    path = save(tmp_path / "m.onnx", ROWS % ("?, ?", "?, ?", "Tanh"))
    specs = _measure.read_models({"m": path}, settings())["m"]
    assert specs == (TensorSpec("x", "float32", ("x:0", "x:1", 4)),)
    result = benchmark.benchmark({"m": path}, settings(batch_sizes=(2,), dims={"x:1": 3}))
    assert result.latency[0].batch == 2


@pytest.mark.parametrize(("other", "message"), [
    (("float[%s, 4] x", "float[%s, 4] z", "(x)", "(z)"), "first has the inputs x, other has z"),
    (("float[", "double["), r"input 'x' is float32 \(n, 4\) in first and float64 \(n, 4\) in other"),
    (("4]", "5]"), r"input 'x' is float32 \(n, 4\) in first and float32 \(n, 5\) in other"),
])
def test_models_of_other_inputs_are_refused(tmp_path, other, message):
    text = ROWS
    for old, new in zip(other[::2], other[1::2], strict=True):
        text = text.replace(old, new)
    paths = {"first": rows(tmp_path / "first.onnx"), "other": save(tmp_path / "other.onnx", text % ("n", "n", "Tanh"))}
    with pytest.raises(DataError, match=f"models cannot be compared: {message}; benchmark models with the same inputs"):
        benchmark.benchmark(paths, settings())


def test_models_that_compute_something_else_are_told(tmp_path):
    paths = {"tanh": rows(tmp_path / "tanh.onnx"), "cos": rows(tmp_path / "cos.onnx", op="Cos")}
    result = benchmark.benchmark(paths, settings(batch_sizes=(64,), baseline="cos"))
    assert len(result.notes) == 1
    assert "tanh does not compute exactly what cos does: outputs differ by up to" in result.notes[0]
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)       # the seed's own input
    expected = np.abs(np.cos(x) - np.tanh(x)).max()
    assert result.agreement[0].max_abs_difference == pytest.approx(expected, rel=1e-5, abs=0)       # float32
    with pytest.raises(ConfigError, match="the baseline 'sin' is none of the models tanh, cos"):
        benchmark.benchmark(paths, settings(baseline="sin"))


def test_files_that_cannot_be_benchmarked_are_refused_in_a_line(tmp_path):
    text = ROWS.replace("float[", "string[") % ("n", "n", "Identity")
    with pytest.raises(RuntimeProviderError, match=r"input 'x' of .*text.onnx is a tensor\(string\); only tensors of"):
        benchmark.benchmark({"text": save(tmp_path / "text.onnx", text)}, settings())
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(RuntimeProviderError, match=r"cannot open .*bad.onnx"):
        benchmark.benchmark({"bad": tmp_path / "bad.onnx"}, settings())
    gather = """<ir_version: 8, opset_import: ["" : 17]> g (int64[n] ids) => (float[n] y)
    <float[3] table = {1, 2, 3}> { y = Gather (table, ids) }"""
    paths = {"gather": save(tmp_path / "gather.onnx", gather)}
    with pytest.raises(RuntimeProviderError, match=r"gather.onnx fails on these inputs: .*indices.*; give others with --inputs"):
        benchmark.benchmark(paths, settings(ranges={"ids": (5, 9)}))
    labels = """<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (seq(float[n]) y) { y = SequenceConstruct (x) }"""
    paths = {"labels": save(tmp_path / "labels.onnx", labels)}
    with pytest.raises(ConfigError, match=r"output 'y' of .*labels.onnx is a seq\(tensor\(float\)\) and cannot .*--no-io-binding"):
        benchmark.benchmark(paths, settings(batch_sizes=(2,)))
    assert benchmark.benchmark(paths, settings(batch_sizes=(2,), io_binding=False)).latency[0].median_us > 0


def test_weights_beside_a_file_count(tmp_path):
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[n, 256] x) => (float[n, 256] y)
    { w = Constant <value = float[1] {1}> () y = Mul (x, w) }""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(5000, np.float32), "unused"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin")
    size = _run.read_file("m", tmp_path / "m.onnx", ()).file_bytes
    assert size == (tmp_path / "m.onnx").stat().st_size + 20000


def test_startup_is_measured_in_a_fresh_process(mixed):
    result = benchmark.benchmark(mixed, settings(batch_sizes=(4, 2), dims={"s": 7}, startup=1, baseline="second"))
    assert [(each.model, each.batch, each.processes) for each in result.startup] == [("first", 2, 1), ("second", 2, 1)]
    for each in result.startup:
        assert each.session_ms > 0 < each.first_run_ms
        if _startup.resident_bytes() is not None:
            assert 0 <= each.session_bytes <= each.first_run_bytes < 2**30


@pytest.fixture(scope="module")
def command():
    app = next(iter(entry_points(group="console_scripts", name="mncompress"))).load()
    return lambda *args: CliRunner().invoke(app, ["benchmark", *map(str, args)])


def test_command_writes_everything(command, mixed, tmp_path):
    np.savez(tmp_path / "in.npz", x=np.zeros((2, 3, 5)), ids=np.array([9, 0]), mask=np.ones((2, 3), bool), scale=np.ones(1))
    result = command(*mixed.values(), "--inputs", tmp_path / "in.npz", "--batch-sizes", "1,3", "--seconds", "0.02",
                     "--startup", "1", "--samples", "--out", tmp_path / "out.json", "--plot", tmp_path / "out.png", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((tmp_path / "out.json").read_text())
    assert document["schema"] == "mncompress.benchmark/1"
    assert document["settings"]["sessions"] == 8
    assert len(document["latency"]) == 4
    keys = {"model", "provider", "threads", "batch", "median_us", "p95_us", "runs", "ratio_to_relu_twin"}
    assert keys <= document["latency"][0].keys()
    for row, cell in zip(document["latency"][::2], document["samples"], strict=True):
        assert len(cell["starts"]) == 8
        assert np.median(cell["samples_us"]["first"]) == pytest.approx(row["median_us"], rel=1e-12)
    assert len(document["startup"]) == 2
    assert document["environment"]["onnxruntime"] == onnxruntime.__version__
    picture = imread(tmp_path / "out.png")
    assert picture.shape[0] > 200 < picture.shape[1]
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 20


def test_command_prints_tables_for_people(command, tmp_path):
    paths = rows(tmp_path / "slow.onnx", op="Atan"), rows(tmp_path / "fast.onnx", op="Relu")
    options = "--seconds", "0.05", "--startup", "0", "--batch-sizes", "2048,8192"
    result = command(*paths, *options, "--plot", tmp_path / "out.svg")
    lines = result.stdout.splitlines()
    assert " ".join(lines[0].split()) == "model provider threads bytes nodes open ms first run ms memory MiB largest difference"
    assert any(line.startswith("fast ") and line.rstrip().endswith("faster") for line in lines)
    assert "break-even of fast (cpu, threads 1): shown faster than slow from batch 2048 on" in lines
    assert any(line.startswith("note: fast does not compute exactly what slow does") for line in lines)
    svg = (tmp_path / "out.svg").read_text()
    assert svg.startswith("<?xml")
    again = command(paths[0], paths[0], *options, "--quiet")
    assert [line.split()[:4] for line in again.stdout.splitlines()] == [
        [name, "cpu", "1", size] for size in ("2048", "8192") for name in ("slow", "slow#2")]


@pytest.mark.parametrize(("args", "code", "message"), [
    (["--dim", "s"], 2, "'s' is not NAME=N with a whole number N"), (["--dim", "=3"], 2, "is not NAME=N"),
    (["--range", "x=1"], 2, "'x=1' is not INPUT=LOW:HIGH with two numbers"), (["--range", "x=1:2:3"], 2, "is not INPUT=LOW:HIGH"),
    (["--plot", "x.jpg"], 2, "x.jpg does not end in .png or .svg"),
    (["--inputs", "none.npz"], 1, "cannot read none.npz as an npz file"), (["--sessions", "2"], 2, "sessions must be at least 6"),
    (["--tf32"], 2, "TF32 exists on the provider cuda only, got cpu; pass --providers cuda"),
    (["--cuda-graph"], 2, "CUDA graphs exist on the provider cuda only, got cpu"),
    (["--baseline", "z"], 1, "the baseline 'z' is none of the models m"), (["--range", "z=0:1"], 1, "no input is called 'z'"),
])
def test_command_refuses_in_one_line(command, tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    result = command(rows(tmp_path / "m.onnx"), *args)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_picture_needs_a_known_suffix(tmp_path):
    with pytest.raises(ConfigError, match=r"x.pdf ends neither in .png nor in .svg"):
        save_figure(Path("x.pdf"), Figure())


CHANGING = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,64] x) => (float[M] y) <float half = {0.5}, int64[1] flat = {-1}> {
  r = RandomUniformLike (x)
  less = Less (r, half)
  chosen = Reshape (less, flat)
  y = Compress (x, chosen)
}"""


def test_outputs_that_change_their_shape_are_refused_in_one_line(tmp_path: Path) -> None:
    """Random numbers decide how many rows there are, so the buffer of the first run does not fit the next."""
    onnx.save(onnx.parser.parse_model(CHANGING), tmp_path / "m.onnx")
    with pytest.raises(RuntimeProviderError, match=r"^a model that ran once fails .*pass --no-io-binding$"):
        benchmark.measure({"m": tmp_path / "m.onnx"}, rounds=8)
