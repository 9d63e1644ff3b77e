"""The pipeline on tiny networks: what it writes, what it claims, and what is left behind when it fails."""

import dataclasses
import errno
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import mncompress as mn
from mncompress import benchmark, pipeline, report, runtime
from mncompress.calibration import run_network
from mncompress.checkpoint import Run, load_run
from mncompress.data import load_dataset
from mncompress.errors import CheckpointError, ConfigError, DataError, ExportError, OutputError, RuntimeProviderError
from mncompress.nn import count_macs, count_parameters
from mncompress.pipeline import Result, compress, export_onnx, inspect, quickstart
from mncompress.training import train
from mncompress.types import KINDS, Budget, Plan, Report, TrainConfig, from_json

MODELS = ("original", "compressed", "portable", "relu_twin")
FILES = {*(f"{name}.onnx" for name in MODELS), "plan.json", "report.json", "report.html", "activations.safetensors"}
SUMMARY = {"path": str, "parameters": int, "macs": int, "file_bytes": int, "nodes": int, "accuracy": (float, NoneType),
           "loss": float}
SCHEMA: Mapping[str, Any] = {
    "schema": str, **{name: dict for name in MODELS}, "accuracy_drop": (float, NoneType), "argmax_flips": (int, NoneType),
    "samples": int, "max_abs_logit_error": float, "logit_error_bound": (float, NoneType), "certified_unchanged": (float, NoneType),
    "replacement_error_bound": (float, NoneType), "logit_error_bound_reason": str, "rmse_increase_percent": (float, NoneType),
    "kinds": dict, "left": int, "neurons": list, "latency": list, "environment": dict, "validation": dict, "budget": dict,
    "config": dict, "notes": list, "speedups": list, "layers": list, "trials": list, "options": dict,
}
NEURON = {"layer": int, "index": int, "kind": str, "left": bool, "domain": list, "max_abs_error": float, "sensitivity": float,
          "out_of_range": int, "reason": str, "refused": dict, "settings": dict}
LATENCY = {"model": str, "provider": str, "threads": int, "batch": int, "median_us": float, "p95_us": float, "runs": int,
           "ratio_to_relu_twin": float, **dict.fromkeys(("median_low", "median_high", "ratio_low", "ratio_high"), float)}


@pytest.fixture(autouse=True, scope="module")
def short_measurements() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mncompress.report._make.LATENCY_SECONDS", 0.01)
        patch.setattr("mncompress.benchmark._sampling.WARM_UP_SECONDS", 0.0)
        yield


def train_tiny(**settings: Any) -> Run:
    return train(TrainConfig(**{"data": "digits", "hidden": (5,), "epochs": 2, "device": "cpu", **settings}))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two replicates on digits, with smooth activations; saved."""
    config = TrainConfig(data="digits", activation="meta", inner="tanh", hidden=(5,), epochs=3, replicates=2, device="cpu")
    return train(config, out=tmp_path_factory.mktemp("digits") / "run")


@pytest.fixture(scope="module")
def result(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return compress(run, Budget(max_drop=1.0), out=tmp_path_factory.mktemp("digits") / "compressed")


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Three hidden layers with residual connections."""
    run = train_tiny(data="function:gaussian", activation="vaf", inner="relu", hidden=(4, 4, 4), residual=True)
    return compress(run, Budget(max_drop=1.0), out=tmp_path_factory.mktemp("regression") / "compressed")


@pytest.fixture(scope="module", params=["result", "regression"])
def either(request: pytest.FixtureRequest) -> Result:
    return request.getfixturevalue(request.param)


def read_strictly(path: Path) -> Any:
    """A JSON document without NaN and infinities."""
    def refuse(name: str) -> None:
        raise AssertionError(f"{path.name} holds {name}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def onnx_outputs(result: Result, name: str, x: Any) -> Any:
    """By onnxruntime alone, with the kernel library where there is one."""
    assert result.folder is not None
    options = onnxruntime.SessionOptions()
    if library := runtime.library_path():
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(result.folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x.astype(np.float32)})[0].astype(np.float64)


def assert_types(document: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    assert document.keys() == schema.keys()
    wrong = {key: document[key] for key, types in schema.items() if not isinstance(document[key], types)}
    assert wrong == {}


# What is written


def test_files(either: Result) -> None:
    assert either.folder is not None
    assert {path.name for path in either.folder.iterdir()} == FILES
    assert [path.name for path in either.folder.parent.iterdir()] == ["compressed"]


def test_portable_has_standard_operators_only(regression: Result) -> None:
    assert regression.folder is not None
    assert regression.report.kinds["piecewise_linear"] > 0
    compressed, portable = (onnx.load(regression.folder / f"{name}.onnx") for name in ("compressed", "portable"))
    assert {function.name for function in compressed.functions} == {"PiecewiseLinear", "GemmPiecewiseLinear"}
    assert (list(portable.functions), [opset.domain for opset in portable.opset_import]) == ([], [""])
    assert {node.domain for node in portable.graph.node} == {""}


def test_report_has_the_schema(either: Result) -> None:
    assert either.folder is not None
    report = read_strictly(either.folder / "report.json")
    assert_types(report, SCHEMA)
    assert report["schema"] == "mncompress.report/1"
    for name in MODELS:
        assert_types(report[name], SUMMARY)
        path = either.folder / report[name]["path"]
        assert report[name]["path"] == f"{name}.onnx"
        assert report[name]["file_bytes"] == path.stat().st_size
        assert report[name]["nodes"] == len(onnx.load(path).graph.node)
    for neuron in report["neurons"]:
        assert_types(neuron, NEURON)
        low, high = neuron["domain"]
        assert low < high
    for row in report["latency"]:
        assert_types(row, LATENCY)
        assert 0 < row["median_us"] <= row["p95_us"]
    assert from_json(Report, report, where="report.json") == either.report


def test_kinds_sum_to_the_neurons(either: Result) -> None:
    report = either.report
    spec = either.network.spec
    assert set(report.kinds) == set(KINDS)
    assert sum(report.kinds.values()) == sum(spec.hidden) == len(report.neurons)
    assert [(row.layer, row.index) for row in report.neurons] == [(k, i) for k, n in enumerate(spec.hidden) for i in range(n)]
    assert report.left == sum(row.left for row in report.neurons)


def test_a_plan_with_a_number_that_json_lacks_is_refused(either: Result, tmp_path: Path) -> None:
    document = json.loads((either.folder / "plan.json").read_text(encoding="utf-8")) | {"tolerance": "1e999"}
    (tmp_path / "plan.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ConfigError, match="a number that is not finite"):
        pipeline.load_plan(tmp_path / "plan.json")


def test_plan_can_be_read_back(either: Result) -> None:
    assert either.folder is not None
    plan = from_json(Plan, read_strictly(either.folder / "plan.json"), where="plan.json")
    assert plan == either.plan
    assert [(row.kind, row.max_abs_error, row.reason) for row in either.report.neurons] == [
        (decision.kind, decision.max_abs_error, decision.reason) for decision in plan.decisions]


def test_sizes_are_those_of_the_networks(run: Run, result: Result) -> None:
    original, report = run.network(), result.report
    assert (report.original.parameters, report.original.macs) == (count_parameters(original), count_macs(original))
    for summary in (report.compressed, report.portable):
        assert (summary.parameters, summary.macs) == (count_parameters(result.network), count_macs(result.network))
    assert (report.relu_twin.parameters, report.relu_twin.macs) == (64 * 5 + 5 + 5 * 10 + 10, 64 * 5 + 5 * 10)
    assert report.compressed.macs < report.original.macs


def test_claims_hold_for_the_written_files(result: Result) -> None:
    test = load_dataset("digits").test
    report, outputs = result.report, {name: onnx_outputs(result, name, test.x) for name in MODELS}
    classes = {name: values.argmax(1) for name, values in outputs.items()}
    for name in MODELS:
        shifted = outputs[name] - outputs[name].max(1, keepdims=True)
        loss = np.mean(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(test)), test.y])
        summary = getattr(report, name)
        assert summary.accuracy == np.mean(classes[name] == test.y)
        assert summary.loss == pytest.approx(loss, rel=1e-9)
    assert report.samples == len(test)
    assert report.accuracy_drop == pytest.approx(100 * (report.original.accuracy - report.compressed.accuracy), abs=1e-12)
    assert report.argmax_flips == np.sum(classes["original"] != classes["compressed"])
    assert report.max_abs_logit_error == np.abs(outputs["original"] - outputs["compressed"]).max()
    assert 0 < report.max_abs_logit_error <= report.logit_error_bound
    assert report.replacement_error_bound <= report.logit_error_bound
    assert report.certified_unchanged <= 1 - report.argmax_flips / report.samples
    assert report.rmse_increase_percent is None
    np.testing.assert_array_equal(classes["portable"], classes["compressed"])


def test_regression_report(regression: Result) -> None:
    test = load_dataset("function:gaussian").test
    report, outputs = regression.report, {name: onnx_outputs(regression, name, test.x) for name in MODELS}
    mse = {name: np.mean((values - test.y) ** 2) for name, values in outputs.items()}
    for name in MODELS:
        assert getattr(report, name).loss == pytest.approx(mse[name], rel=1e-9)
        assert getattr(report, name).accuracy is None
    assert (report.accuracy_drop, report.argmax_flips, report.certified_unchanged) == (None, None, None)
    expected = 100 * (math.sqrt(mse["compressed"] / mse["original"]) - 1)
    assert report.rmse_increase_percent == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert report.max_abs_logit_error == np.abs(outputs["original"] - outputs["compressed"]).max()
    assert report.max_abs_logit_error <= report.logit_error_bound
    assert {"rmse", "rmse_compressed"} <= report.validation.keys()


def test_result_network_is_what_the_files_compute(either: Result) -> None:
    x = load_dataset(str(either.report.config["data"])).test.x[:50]
    torch_outputs = run_network(either.network, x)
    atol = 1e-5 * np.abs(torch_outputs).max()     # a few hundred float32 roundings
    for name in ("compressed", "portable"):
        np.testing.assert_allclose(onnx_outputs(either, name, x), torch_outputs, rtol=0, atol=atol)


def test_latency_is_complete(either: Result) -> None:
    expected = {(model, provider, 1, batch) for model in MODELS for provider in runtime.available_providers()
                for batch in (1, 32, 1024)}
    rows = either.report.latency
    assert sorted((row.model, row.provider, row.threads, row.batch) for row in rows) == sorted(expected)
    assert {row.ratio_to_relu_twin for row in rows if row.model == "relu_twin"} == {1.0}
    assert {(row.provider, row.threads, row.batch) for row in either.report.speedups} == {each[1:] for each in expected}


def test_latency_is_measured_on_the_test_split(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    measure = benchmark.measure
    monkeypatch.setattr(benchmark, "measure", lambda *args, **kw: (seen.append(kw["inputs"]), measure(*args, **kw))[1])
    compress(run, Budget(max_drop=1.0))
    test = load_dataset("digits").test
    assert seen
    for inputs in seen:
        np.testing.assert_array_equal(inputs, test.x)


def test_metadata_and_environment(run: Run, result: Result) -> None:
    assert result.folder is not None
    metadata = {name: runtime.model_info(runtime.make_session(result.folder / f"{name}.onnx")).metadata for name in MODELS}
    first = metadata["original"]
    assert all(each == first for each in metadata.values())
    assert (first["producer"], first["version"], first["seed"]) == ("mncompress", mn.__version__, "0")
    assert first["recipe_hash"].startswith("sha256:")
    assert len(first["recipe_hash"]) == len("sha256:") + 64
    environment = result.report.environment
    assert (environment["data"], environment["data_hash"]) == ("digits", run.data_hash)
    assert environment["checks"].keys() == set(MODELS)
    for check in environment["checks"].values():
        assert check["max_abs_error"] <= check["tolerance"] < 1e-2
        assert check["samples"] == result.report.samples


def test_progress_says_each_step(run: Run) -> None:
    lines: list[str] = []
    compress(run, Budget(max_drop=1.0), progress=lines.append)
    text = "\n".join(lines)
    for step in ("calibrating", "analyzing", "tolerance", "writing and checking portable.onnx", "certifying", "batch 1024"):
        assert step in text
    assert len(lines) == len(text.splitlines())


# Options


def test_exact_preset_keeps_smooth_activations_and_says_so(run: Run) -> None:
    report = compress(run, Budget(preset="exact")).report
    assert report.kinds["kept"] == 5
    assert "5 of 5 learned activations were kept: nothing cheaper is exact for every input." in report.notes
    assert report.max_abs_logit_error == 0


def test_exact_preset_replaces_piecewise_linear_ones_exactly() -> None:
    report = compress(train_tiny(activation="meta", inner="relu"), Budget(preset="exact")).report
    assert report.kinds["kept"] == report.kinds["cubic_spline"] == report.kinds["polynomial"] == 0
    assert all(row.max_abs_error == 0 for row in report.neurons)
    assert report.replacement_error_bound == 0
    assert 0 <= report.max_abs_logit_error <= report.logit_error_bound < 0.01
    assert not any("were kept" in note for note in report.notes)


def test_note_where_nothing_fits_the_budget(run: Run) -> None:
    report = compress(run, Budget(max_logit_error=0.0)).report
    assert (report.kinds["kept"], report.max_abs_logit_error) == (5, 0)
    assert any("were kept: nothing cheaper is within the tolerance." in note for note in report.notes)


@pytest.mark.parametrize(("factor", "is_noted"), [(2.0, True), (1.02, False), (0.5, False)])
def test_note_where_compressed_is_slower(run: Run, monkeypatch: pytest.MonkeyPatch, factor: float, is_noted: bool) -> None:
    def measure(paths: Mapping[str, Path], *, provider: str, batch: int, **kwargs: Any) -> benchmark.Measurement:
        samples = np.full((len(paths), 8), 10.0)
        samples[list(paths).index("compressed")] *= factor
        return benchmark.Measurement(provider, 1, batch, tuple(paths), samples, tuple(range(8)), (1,) * len(paths))

    monkeypatch.setattr(benchmark, "measure", measure)
    report = compress(run, Budget(max_drop=1.0)).report
    notes = [note for note in report.notes if "slower than its original" in note]
    assert len(notes) == is_noted
    if is_noted:
        assert "2.00 times as long at batch 1 (cpu), 2.00 times as long at batch 32 (cpu)" in notes[0]
    assert report.speedups[0].ratio == pytest.approx(1 / factor)


def test_note_where_test_data_are_unlike_the_training_data(run: Run, tmp_path: Path) -> None:
    x = load_dataset("digits").test.x.astype(np.float32)
    labels = np.arange(200) % 10
    far = save_npz(tmp_path / "far.npz", x_train=x[:200], y_train=labels, x_test=1000 * x[:200], y_test=labels)
    near = save_npz(tmp_path / "near.npz", x_train=x[:200], y_train=labels, x_test=x[:200], y_test=labels)
    noted = [any("leave the domain" in note for note in compress(run, Budget(max_drop=1.0), data=data).report.notes)
             for data in (far, near)]
    assert noted == [True, False]


def save_npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_note_where_the_validation_split_is_too_small(run: Run) -> None:
    notes = compress(run, Budget(max_drop=0.1)).report.notes
    assert any(note.startswith("The budget cannot be shown on so small a validation split:") for note in notes)


def test_bounds_hold_for_the_rows_of_every_split(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    certify = report._make.certify
    monkeypatch.setattr(report._make, "certify", lambda *args: given.append(args[2:]) or certify(*args))
    compress(run, Budget(max_drop=1.0))
    data = load_dataset("digits")
    rows = np.concatenate(given[0])
    assert len(rows) == sum(map(len, (data.test, data.calibration, data.train, data.validation)))
    for split in (data.test, data.calibration, data.train, data.validation):
        assert any(part is split.x or np.array_equal(part, split.x) for part in given[0])


def test_bounds_that_tell_nothing_are_noted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    certify = report._make.certify
    assert not any("tells nothing" in note for note in compress(run, Budget(max_drop=1.0)).report.notes)
    monkeypatch.setattr(report._make, "certify", lambda *args: dataclasses.replace(
        found := certify(*args), bounds=1e6 + found.bounds))
    [note] = [note for note in compress(run, Budget(max_drop=1.0)).report.notes if "tells nothing" in note]
    assert note.startswith("The proven bound, 1.1e+06, tells nothing here, since the outputs themselves vary by ")


def test_what_is_no_run_or_no_budget_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"^compress takes a run, as train and load_run give it, or a torch module; got 'runs/a'"):
        compress("runs/a")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^the budget must be a Budget, such as Budget\(max_drop=0.1\), got 0.5$"):
        compress(run, 0.5)  # type: ignore[arg-type]


def test_pictures_of_the_compressed_folder_go_with_it(run: Run, tmp_path: Path) -> None:
    compress(run, Budget(max_drop=1.0), out=tmp_path / "a")
    for name in ("inspect", "inspect-2"):
        inspect(tmp_path / "a", tmp_path / "a" / name, formats=["svg"])
    compress(run, Budget(max_drop=1.0), out=tmp_path / "a", overwrite=True)
    assert not list((tmp_path / "a").glob("inspect*"))


def test_replicate_is_the_one_asked_for(run: Run) -> None:
    other = 1 - run.best
    original = compress(run, Budget(preset="exact"), replicate=other).network
    x = load_dataset("digits").test.x[:20]
    np.testing.assert_array_equal(run_network(original, x), run_network(run.network(other), x))


@pytest.mark.parametrize("replicate", [2, -1])
def test_replicate_out_of_range(run: Run, tmp_path: Path, replicate: int) -> None:
    with pytest.raises(ConfigError, match=f"replicate {replicate} does not exist: the run has replicates 0 to 1"):
        compress(run, replicate=replicate, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_diverged_replicate(run: Run) -> None:
    metrics = (None, 0.5)
    record = dataclasses.replace(run.record, validation_metric=metrics, best=1)
    with pytest.raises(ConfigError, match="replicate 0 diverged in training; choose another one, such as the best, 1"):
        compress(dataclasses.replace(run, record=record), replicate=0)


def test_opset_version_is_passed_on(run: Run, tmp_path: Path) -> None:
    compress(run, Budget(max_drop=1.0), out=tmp_path / "out", opset_version=20)
    for name in MODELS:
        opsets = {opset.domain: opset.version for opset in onnx.load(tmp_path / "out" / f"{name}.onnx").opset_import}
        assert opsets[""] == 20


@pytest.mark.parametrize("opset", [17, 1000])
def test_impossible_opset_is_refused_before_any_work(run: Run, tmp_path: Path, opset: int) -> None:
    lines: list[str] = []
    with pytest.raises(ExportError, match=f"opset {opset} cannot be written and run here; choose one of 18 to"):
        compress(run, out=tmp_path / "out", opset_version=opset, progress=lines.append)
    assert lines == []
    assert list(tmp_path.iterdir()) == []


# Data


def save_digits(path: Path, **changes: Any) -> str:
    """Digits as an npz file of one's own."""
    dataset = load_dataset("digits")
    arrays = {"x_train": dataset.train.x, "y_train": dataset.train.y, "x_test": dataset.test.x, "y_test": dataset.test.y}
    np.savez(path, **{**arrays, **changes})
    return str(path)


def test_other_data_of_the_same_shape_is_taken_and_named(run: Run, tmp_path: Path) -> None:
    name = save_digits(tmp_path / "other.npz")
    report = compress(run, Budget(max_drop=1.0), data=name).report
    assert report.environment["data"] == name
    assert report.environment["data_hash"] == load_dataset(name).content_hash != run.data_hash
    assert report.config["data"] == "digits"


def test_changed_data_is_refused(tmp_path: Path) -> None:
    name = save_digits(tmp_path / "mine.npz")
    run = train_tiny(data=name)
    save_digits(tmp_path / "mine.npz", x_test=np.zeros((3, 64), np.uint8), y_test=np.arange(3))
    for data in (None, name):
        with pytest.raises(DataError, match=r"the content of '.*mine.npz' is not what the run was trained on \(sha256:.*--data$"):
            compress(run, data=data)


@pytest.mark.parametrize("data", ["function:gaussian", "{npz}"])
def test_data_of_another_shape_is_refused(run: Run, tmp_path: Path, data: str) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "wide.npz", x_train=rng.normal(size=(40, 65)), y_train=np.arange(40) % 10, x_test=rng.normal(size=(5, 65)),
             y_test=np.arange(5))
    with pytest.raises(DataError, match="the network takes 64 and gives 10 for classification; name a data set like"):
        compress(run, data=data.format(npz=tmp_path / "wide.npz"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_with_another_number_of_classes_is_refused(run: Run, tmp_path: Path) -> None:
    labels = load_dataset("digits").train.y % 5
    name = save_digits(tmp_path / "five.npz", y_train=labels, y_test=np.zeros(len(load_dataset("digits").test), np.int64))
    with pytest.raises(DataError, match="has 64 features and 5 outputs"):
        compress(run, data=name)


# Where files go


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_without_out_nothing_stays_on_disk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = compress(run, Budget(max_drop=1.0))
    assert result.folder is None
    assert list(tmp_path.iterdir()) == []
    assert result.report.compressed.file_bytes > 0


def test_folder_that_is_not_empty(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is not empty; choose another --out, or pass --overwrite"):
        compress(run, out=tmp_path / "out")
    assert tree(tmp_path) == {"out/precious.txt": b"mine"}
    (tmp_path / "out" / "precious.txt").rename(tmp_path / "out" / "report.json")
    compress(run, Budget(max_drop=1.0), out=tmp_path / "out", overwrite=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


FAILURES = [(RuntimeError("a bug"), RuntimeError, "a bug"), (ExportError("wrong"), ExportError, "^wrong$"),
            (OSError(errno.ENOSPC, "No space left"), OutputError, "cannot write .*out: No space left; free space or choose"),
            (KeyboardInterrupt("stopped"), KeyboardInterrupt, "stopped")]


@pytest.mark.parametrize("step", ["pipeline.write_onnx", "pipeline.check_export", "report._make.certify", "pipeline.write_html"])
@pytest.mark.parametrize(("failure", "expected", "message"), FAILURES, ids=["bug", "refused", "full-disk", "ctrl-c"])
def test_failure_in_the_middle_leaves_no_trace(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str,
                                               failure: BaseException, expected: type[BaseException], message: str) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise failure

    monkeypatch.setattr(f"mncompress.{step}", fail)
    with pytest.raises(expected, match=message):
        compress(run, Budget(max_drop=1.0), out=tmp_path / "new" / "out")
    assert tree(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("old", encoding="utf-8")
    with pytest.raises(expected, match=message):
        compress(run, Budget(max_drop=1.0), out=tmp_path / "out", overwrite=True)
    assert tree(tmp_path) == {"out/report.json": b"old"}
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


# Odd networks


@pytest.mark.parametrize("data", ["digits", "function:gaussian"])
def test_network_without_activations(tmp_path: Path, data: str) -> None:
    run = train(TrainConfig(data=data, hidden=(), epochs=1, device="cpu"), out=tmp_path / "run")
    result = compress(run, out=tmp_path / "out")
    assert sum(result.report.kinds.values()) == 0
    assert result.report.max_abs_logit_error == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    for folder in ("run", "out"):
        assert inspect(tmp_path / folder, tmp_path / "pictures" / folder).neurons == ()


def test_only_one_class_occurs(tmp_path: Path) -> None:
    dataset = load_dataset("digits")
    ones = {"y_train": np.ones(len(dataset.train), np.int64), "y_test": np.ones(len(dataset.test), np.int64)}
    report = compress(train_tiny(data=save_digits(tmp_path / "one.npz", **ones)), out=tmp_path / "out").report
    assert (report.original.accuracy, report.accuracy_drop, report.argmax_flips) == (1.0, 0.0, 0)
    read_strictly(tmp_path / "out" / "report.json")


def constant_target_run(path: Path) -> Run:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    np.savez(path, x_train=x, y_train=np.full(60, 2.5), x_test=x[:9], y_test=np.full(9, 2.5))
    return train_tiny(data=str(path), activation="vaf", inner="tanh", hidden=(3,), output_activation=True)


def test_constant_target(tmp_path: Path) -> None:
    report = compress(constant_target_run(tmp_path / "constant.npz"), out=tmp_path / "out").report
    assert abs(report.compressed.loss - report.original.loss) <= 0.01 * report.original.loss
    read_strictly(tmp_path / "out" / "report.json")


def test_network_without_any_error(tmp_path: Path) -> None:
    """An RMSE of zero before and after is no change."""
    run = constant_target_run(tmp_path / "constant.npz")
    silent = {name: torch.zeros_like(value) if name.startswith("body.") else value for name, value in run.replicates.items()}
    report = compress(dataclasses.replace(run, replicates=silent), out=tmp_path / "out").report
    assert report.original.loss == 0
    assert report.rmse_increase_percent == 0
    read_strictly(tmp_path / "out" / "report.json")


def test_features_far_from_zero_and_every_parametric_family(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2)).astype(np.float32) * np.float32([1, 5]) + np.float32([1e6, -3])
    y = np.sin(x[:, :1] - 1e6) + 0.1 * x[:, 1:]
    np.savez(tmp_path / "far.npz", x_train=x, y_train=y, x_test=x[:50], y_test=y[:50])
    run = train_tiny(data=str(tmp_path / "far.npz"), activation="agsig,frelu,warp:gelu,fixed:elu", hidden=(3, 3, 3),
                     output_activation=True, epochs=5)
    result = compress(run, Budget(max_drop=1.0), out=tmp_path / "out")
    assert result.report.kinds["native"] + result.report.kinds["affine"] + result.report.kinds["constant"] == 10
    assert result.report.max_abs_logit_error <= result.report.logit_error_bound
    assert "Sub" in {node.op_type for node in onnx.load(tmp_path / "out" / "compressed.onnx").graph.node}


# Other commands


def test_inspect(run: Run, result: Result, tmp_path: Path) -> None:
    assert run.folder is not None
    assert result.folder is not None
    before = tree(result.folder)
    trained, compressed = inspect(run.folder, tmp_path / "a"), inspect(result.folder, tmp_path / "b")
    assert [row.kind for row in trained.neurons] == [None] * 5
    assert [row.kind for row in compressed.neurons] == [decision.kind for decision in result.plan.decisions]
    np.testing.assert_allclose([row.domain for row in trained.neurons], [d.domain for d in result.plan.decisions], rtol=1e-12)
    assert {path.stem for path in (tmp_path / "a").iterdir()} == {"training", "activations-1"}
    assert {path.stem for path in (tmp_path / "b").iterdir()} == {"frontier", "latency", "activations-1"}
    assert [row.left for row in compressed.neurons] == [decision.left for decision in result.plan.decisions]
    np.testing.assert_allclose([row.sensitivity for row in trained.neurons], [d.sensitivity for d in result.plan.decisions],
                               rtol=1e-12)
    assert [path.name for path in inspect(result.folder, tmp_path / "c", formats=["svg"], most=1).pictures] == [
        "frontier.svg", "latency.svg", "activations-1.svg"]
    assert all(path.stat().st_size > 1000 for path in (*trained.pictures, *compressed.pictures))
    assert tree(result.folder) == before


def test_inspect_of_anything_else(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="is neither a run folder of train nor a folder written by compress"):
            inspect(folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_curves_show_the_replacements(run: Run, result: Result) -> None:
    assert result.folder is not None
    curves = pipeline.load_curves(result.folder / "activations.safetensors")
    assert curves.replacement is not None
    assert curves.title == "64-5-10 meta tanh"
    inside = (curves.u >= curves.domain[:, :1]) & (curves.u <= curves.domain[:, 1:])
    error = np.where(inside, np.abs(curves.replacement - curves.original), 0).max(1)
    allowed = np.array([decision.max_abs_error for decision in result.plan.decisions])
    assert (error <= allowed * 1.001 + 1e-6 * np.abs(curves.original).max()).all()      # drawn in float32
    u = torch.zeros(len(curves.u[0]), 5) + torch.as_tensor(curves.u.T)
    (layer,) = run.network().activated_layers
    with torch.no_grad():
        np.testing.assert_allclose(curves.original.T, layer.activation(u), rtol=1e-4, atol=1e-4)     # type: ignore[misc]


def test_the_report_records_what_was_tried(result: Result) -> None:
    (taken,) = (trial for trial in result.report.trials if trial.taken)
    assert taken.macs == result.report.compressed.macs
    assert taken.ok
    assert taken.left == result.report.left
    assert (taken.drop, taken.drop_upper_bound) == (result.plan.validation["drop"], result.plan.validation["drop_upper_bound"])
    assert any(not trial.ok for trial in result.report.trials) or len(result.report.trials) > 1
    assert result.report.layers == result.plan.layers
    assert result.report.options["replicate"] == 1


@pytest.mark.parametrize("inline", [False, True])
def test_export_onnx(result: Result, tmp_path: Path, inline: bool) -> None:
    x = load_dataset("digits").test.x[:10]
    paths = [export_onnx(source, tmp_path / f"{k}.onnx", inline=inline, opset_version=19)
             for k, source in enumerate((result, result.network))]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    outputs = runtime.run(runtime.make_session(paths[0]), x)
    np.testing.assert_array_equal(outputs, onnx_outputs(result, "portable" if inline else "compressed", x).astype(np.float32))
    model = onnx.load(paths[0])
    assert {entry.key for entry in model.metadata_props} == {"producer", "version"}
    assert not (inline and model.functions)


def test_provider_that_does_not_start_costs_a_note_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver is no proof that CUDA works."""
    measure = benchmark.measure

    def fail_on_cuda(*args: Any, provider: str, **options: Any) -> Any:
        if provider == "cuda":
            raise RuntimeProviderError("CUDA did not start")
        return measure(*args, provider=provider, **options)

    monkeypatch.setattr(runtime, "available_providers", lambda: ("cpu", "cuda"))
    monkeypatch.setattr(benchmark, "measure", fail_on_cuda)
    report = compress(run, Budget(max_drop=1.0)).report
    assert {row.provider for row in report.latency} == {"cpu"}
    assert "Latency under the provider cuda is not measured: CUDA did not start." in report.notes


@pytest.mark.parametrize("where", ["run", "other"])
def test_overwriting_never_removes_what_compress_did_not_write(run: Run, tmp_path: Path, where: str) -> None:
    assert run.folder is not None
    folder = run.folder if where == "run" else tmp_path
    (tmp_path / "thesis.tex").write_text("precious")
    before = tree(folder)
    with pytest.raises(OutputError, match="which compress did not write and would remove"):
        compress(run, out=folder, overwrite=True)
    assert tree(folder) == before


def test_inspect_writes_into_a_folder_with_files_only_if_told_to(result: Result, tmp_path: Path) -> None:
    assert result.folder is not None
    (tmp_path / "activations-1.png").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        inspect(result.folder, tmp_path)
    assert (tmp_path / "activations-1.png").read_text() == "mine"
    inspect(str(result.folder), str(tmp_path), overwrite=True)
    assert (tmp_path / "activations-1.png").read_bytes().startswith(b"\x89PNG")


def test_export_onnx_to_a_place_that_cannot_be(result: Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write"):
        export_onnx(result, tmp_path / "file" / "model.onnx")
    with pytest.raises(ExportError, match="opset 3 cannot be written"):
        export_onnx(result, tmp_path / "model.onnx", opset_version=3)
    assert tree(tmp_path) == {"file": b""}


def test_quickstart(tmp_path: Path) -> None:
    """As it is: in far less than 90 s, with everything that the summary shows."""
    lines: list[str] = []
    started = time.perf_counter()
    result = quickstart(tmp_path / "out", lines.append)
    assert time.perf_counter() - started < 90
    report = result.report
    assert report.original.accuracy > 0.95
    assert report.accuracy_drop <= 1
    assert report.compressed.macs < report.original.macs
    assert None not in (report.logit_error_bound, report.certified_unchanged, report.argmax_flips)
    assert (report.rmse_increase_percent, len({row.model for row in report.latency})) == (None, 4)
    assert result.folder == tmp_path / "out" / "compressed"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run", "compressed"}
    assert {path.name for path in result.folder.iterdir()} == FILES
    assert load_run(tmp_path / "out" / "run").config == pipeline.QUICKSTART
    assert sum(line.startswith("training: epoch ") for line in lines) == pipeline.QUICKSTART.epochs // 10
    with pytest.raises(OutputError, match="is not empty"):
        quickstart(tmp_path / "out")


def test_python_interface(tmp_path: Path) -> None:
    """As in the documentation."""
    run = mn.train(mn.TrainConfig(data="digits", activation="meta", hidden=(7,)))
    result = mn.compress(run, mn.Budget(max_drop=0.1))
    assert isinstance(result.network, torch.nn.Module)
    assert (len(result.plan.decisions), sum(result.report.kinds.values())) == (7, 7)
    mn.export_onnx(result, str(tmp_path / "compressed.onnx"))
    session = mn.runtime.make_session(str(tmp_path / "compressed.onnx"), providers=("cpu",))
    test = mn.load_dataset("digits").test
    assert mn.benchmark.evaluate(session, test.x, test.y).accuracy == result.report.compressed.accuracy
