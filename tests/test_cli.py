"""The command line as users and scripts see it: the installed entry point, exit codes, stdout and stderr."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

COMMANDS = ("quickstart", "train", "compress", "evaluate", "benchmark", "inspect", "reproduce")
SMALL = ("train", "--data", "digits", "--epochs", "1", "--hidden", "4", "--activation", "vaf", "--device", "cpu")
START = ("from importlib.metadata import entry_points\n"
         "(entry,) = entry_points(group='console_scripts', name='mncompress')\napp = entry.load()\n")


@pytest.fixture(scope="module")
def run():
    """Call the app as the entry point does; returns Typer's result with `exit_code`, `stdout` and `stderr`."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="mncompress")
    app = entry.load()
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args], prog_name="mncompress")


@pytest.fixture(scope="module")
def run_dir(run, tmp_path_factory):
    """A run folder of one epoch on digits."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert run(*SMALL, "--out", folder).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def compressed(run, run_dir):
    """The folder that compress chose, and the JSON document that it printed."""
    result = run("compress", run_dir, "--max-drop", 1, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    return Path(document["folder"]), document


def error_line(result, code=1):
    """The one line on stderr of a failed command, without its prefix."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    prefix = "mncompress: "
    assert line.startswith(prefix)
    return line.removeprefix(prefix).removeprefix("error: ")


@pytest.mark.parametrize("args", [[], *([command] for command in COMMANDS)], ids=lambda args: " ".join(args) or "app")
def test_help_is_fast_and_loads_neither_torch_nor_onnxruntime(args):
    code = (f"import sys, time\n{START}sys.argv = ['mncompress', *{args!r}, '--help']\n"
            "try: app()\nfinally: print({'torch', 'onnxruntime'} & set(sys.modules), time.process_time(), file=sys.stderr)")
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
        loaded, used = done.stderr.split()
        seconds.append(float(used))
    assert done.stdout.startswith("Usage: mncompress")
    assert loaded == "set()"
    assert min(seconds) < 1.5  # of a processor, about 0.3 where little else runs; importing torch alone takes longer than this


def test_what_does_not_fit_into_memory_is_told_in_a_line(run, monkeypatch, tmp_path):
    def allocate(*args, **options):
        raise MemoryError("Unable to allocate 29.1 TiB")

    monkeypatch.setattr("mncompress.benchmark.benchmark", allocate)
    path = tmp_path / "a.onnx"
    path.touch()
    assert error_line(run("benchmark", path)) == "not enough memory: Unable to allocate 29.1 TiB"


def test_inspect_refuses_a_file(run, tmp_path):
    path = tmp_path / "report.html"
    path.touch()
    assert error_line(run("inspect", path, "--out", tmp_path / "out")) == (
        f"{path} is a file; pass the folder that train or compress wrote")


def test_help_lists_every_command(run):
    result = run("--help")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.partition("Commands:\n")[2].split("\n\n")[0].splitlines()
            if line.startswith("  ") and line[2] != " "] == list(COMMANDS)


def test_version(run):
    assert run("--version").stdout == f"mncompress {importlib.metadata.version('mncompress')}\n"


@pytest.mark.parametrize(("args", "message"), [
    (["trane"], "No such command 'trane'"),
    (["train", "--epoch-count", "3"], "No such option"),
    (["train", "--epochs", "many"], "--epochs"),
    (["train", "--hidden", "7,x"], "'7,x' is not a comma-separated list of positive integers"),
    (["train", "--hidden", "7,,7"], "'7,,7' is not a comma-separated list"),
    (["train", "--hidden", "0"], "'0' is not a comma-separated list of positive integers"),
    (["train", "--resume"], "--resume needs the folder of the run in --out"),
    (["train", "--resume", "--overwrite", "--out", "x"], "--resume and --overwrite exclude each other"),
    (["compress", "x", "--replicate", "first"], "'first' is neither a number nor best"),
    (["compress"], "Missing argument"),
    (["evaluate", "x.onnx"], "Missing option '--data'"),
    (["benchmark", "x.onnx", "--batch-sizes", "1;2"], "'1;2' is not a comma-separated list of positive integers"),
    (["benchmark", "x.onnx", "--out", "y.onnx"], "y.onnx does not end in .json"),
    (["benchmark", "x.onnx", "--providers", "cpu,"], "'cpu,' is not a comma-separated list"),
    (["train", "--activation", "maeta"], "unknown activation 'maeta'"),
    (["train", "--activation", "warp:sinus"], "'warp:sinus' needs one of relu"),
    (["train", "--inner", "sinus"], "inner: Input should be 'relu'"),
    (["train", "--epochs", "0"], "epochs must be at least 1, got 0"),
    (["train", "--lr", "nan"], "lr must be positive and finite, got nan"),
    (["compress", "nowhere", "--max-drop", "-1"], "max_drop must be finite and not negative, got -1.0"),
    (["compress", "nowhere", "--preset", "brave"], "preset: Input should be 'exact', 'default' or 'aggressive'"),
    (["compress", "nowhere", "--target", "brave"], "target: Input should be 'auto', 'native' or 'portable'"),
    (["compress", "nowhere", "--target-macs", "few"], "target_macs must be a positive number"),
    (["compress", "nowhere", "--opset", "17"], "opset 17 cannot be written and run here; choose one of 18 to"),
    (["compress", "nowhere", "--opset", "99"], "opset 99 cannot be written and run here; choose one of 18 to"),
    (["inspect", "nowhere", "--formats", "png,gif"], "'gif' is not one of png, svg"),
    (["inspect", "nowhere", "--most", "-1"], "--most"),
    (["benchmark", "nowhere.onnx", "--providers", "cpu,tpu"], "'tpu' is not one of cpu, cuda"),
    (["benchmark", "nowhere.onnx", "--seconds", "0"], "seconds must be positive and finite, got 0.0"),
    (["benchmark", "nowhere.onnx", "--threads", "100000"], "threads must be at most 1024, got 100000"),
    (["benchmark", "nowhere.onnx", "--sessions", "1030"], "sessions must be at most 1000, got 1030"),
    (["benchmark", "nowhere.onnx", "--batch-sizes", "999999999999999999"], "batch sizes must be at most 2147483648"),
    (["reproduce", "fig3"], "'fig3' is not one of fig4, "),
])
def test_wrong_usage_exits_with_2(run, args, message):
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "╭" not in result.stderr


@pytest.mark.parametrize(("args", "message"), [
    (["train", "--resume", "--out", "nowhere"], "nowhere does not exist, so there is no run to continue"),
    (["train", "--data", "digit"], "unknown data set 'digit'"),
    (["train", "nowhere.toml"], "recipe nowhere.toml: no such file"),
    (["compress", "nowhere"], "nowhere"),
    (["evaluate", "nowhere.onnx", "--data", "digits"], "nowhere.onnx"),
    (["benchmark", "nowhere.onnx", "--quiet"], "nowhere.onnx"),
    (["inspect", "nowhere"], "nowhere"),
])
def test_user_error_is_one_line_and_exits_with_1(run, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    assert message in error_line(run(*args))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "message"), [
    ("epochs = 1\nepoch = 2", "unknown key 'epoch'; did you mean epochs?"),
    ("inner-width = 3", "unknown key 'inner-width'; did you mean inner_width?"),
    ("zzz = 1", "unknown key 'zzz'; choose from data, data_dir, activation"),
    ("epochs = 'many'", "epochs: Input should be a valid integer"),
    ("activation = 'maeta'", "unknown activation 'maeta'"),
    ("hidden = '7;7'", "hidden: '7;7' is not a comma-separated list"),
    ("epochs = ", "is not TOML"),
])
def test_recipe_error_names_the_file_and_the_key(run, tmp_path, text, message):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    line = error_line(run("train", recipe))
    assert message in line
    assert "recipe.toml" in line


@pytest.mark.parametrize(("hidden", "sizes"), [("[3]", [3]), ("'3'", [3]), ("'none'", []), ("[]", [])])
def test_command_line_overrides_the_recipe(run, tmp_path, hidden, sizes):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"data = 'digits'\nepochs = 7\nhidden = {hidden}\nseed = 5\nshared = true\ndevice = 'cpu'\n")
    result = run("train", recipe, "--epochs", 1, "--no-shared", "--out", tmp_path / "run", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    config = json.loads(result.stdout)["config"]
    assert (config["epochs"], config["hidden"], config["seed"], config["shared"]) == (1, sizes, 5, False)
    assert config["lr"] == 2e-3


def test_train_prints_json_alone_on_stdout_and_progress_on_stderr(run, tmp_path):
    result = run(*SMALL, "--replicates", 2, "--out", tmp_path / "run", "--json")
    document = json.loads(result.stdout)
    assert document["folder"] == str(tmp_path / "run")
    assert document["best"] == max((0, 1), key=document["validation_metric"].__getitem__)
    data, epoch = result.stderr.splitlines()
    assert data == "64 features, 10 classes; rows: 1080 train, 143 calibration, 215 validation, 359 test"
    assert epoch.startswith("epoch 1/1  loss ")
    assert "networks x epochs/s" in result.stderr


@pytest.mark.parametrize(("targets", "told"), [
    (np.arange(40.0) % 3, "1 target (regression; all are whole numbers: as integers they would be classes)"),
    (np.arange(40.0)[:, None] * [0.5, 1], "2 targets (regression)"), (np.arange(40) % 3, "3 classes")])
def test_train_says_what_the_data_was_taken_for(run, tmp_path, targets, told):
    features = np.random.default_rng(0).normal(size=(40, 2))
    np.savez(tmp_path / "data.npz", x_train=features, y_train=targets, x_test=features, y_test=targets)
    result = run("train", "--data", tmp_path / "data.npz", "--epochs", 1, "--out", tmp_path / "run")
    assert f"2 features, {told}; rows: 30 train, 4 calibration, 6 validation, 40 test" in result.stderr


def test_train_quiet_prints_the_folder_alone(run, tmp_path):
    result = run(*SMALL, "--out", tmp_path / "run", "--quiet")
    assert (result.stdout, result.stderr) == (f"{tmp_path / 'run'}\n", "")


def test_default_folder_is_new_for_each_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [run(*SMALL, "--quiet").stdout.strip() for _ in range(2)]
    assert folders == ["runs/digits-vaf-4", "runs/digits-vaf-4-2"]


def test_folder_in_use_is_refused_and_can_be_overwritten_or_resumed(run, run_dir):
    assert f"{run_dir} is not empty" in error_line(run(*SMALL, "--out", run_dir))
    assert run(*SMALL, "--out", run_dir, "--overwrite", "--quiet").exit_code == 0
    resumed = run("train", "--resume", "--out", run_dir, "--json")
    assert json.loads(resumed.stdout)["config"]["hidden"] == [4]
    assert "another hidden" in error_line(run("train", "--resume", "--out", run_dir, "--hidden", "5"))


@pytest.mark.parametrize(("error", "code", "message"), [
    (KeyboardInterrupt(), 130, "interrupted"),
    (PermissionError(13, "Permission denied", "/readonly"), 1, "/readonly: Permission denied"),
    (OSError(28, "No space left on device"), 1, "No space left on device"),
])
def test_interrupts_and_full_disks_are_one_line(run, tmp_path, monkeypatch, error, code, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("mncompress.training.train", fail)
    assert error_line(run(*SMALL, "--out", tmp_path / "run"), code) == message


def test_interrupted_training_tells_how_to_go_on(run, run_dir, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("mncompress.training.train", interrupt)
    line = error_line(run(*SMALL, "--out", run_dir, "--overwrite"), 130)
    assert line == f"interrupted; continue with: mncompress train --resume --epochs 1 --out {run_dir}"


def test_a_bug_keeps_its_traceback(run, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("mncompress.training.train", fail)
    result = run(*SMALL, "--out", tmp_path / "run")
    assert isinstance(result.exception, ZeroDivisionError)
    code = (f"import sys, types\n{START}"
            "sys.modules['mncompress.training'] = types.SimpleNamespace(train=lambda *a, **k: 1 / 0)\n"
            f"app({[*SMALL]!r})")
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert "ZeroDivisionError" in done.stderr


def test_what_a_library_prints_does_not_reach_stdout(run, run_dir, monkeypatch):
    from mncompress.checkpoint import load_run

    def talk(*args, **kwargs):
        print("noise")
        return load_run(run_dir)

    monkeypatch.setattr("mncompress.training.train", talk)
    result = run(*SMALL, "--out", "anywhere", "--json")
    assert json.loads(result.stdout)["best"] == 0
    assert result.stderr == "noise\n"


def test_compress_writes_files_and_prints_its_report(compressed, run_dir):
    folder, document = compressed
    assert folder == run_dir / "compressed"
    models = {"original.onnx", "compressed.onnx", "portable.onnx", "relu_twin.onnx"}
    assert models | {"plan.json", "report.json", "report.html"} <= {path.name for path in folder.iterdir()}
    report = json.loads((folder / "report.json").read_text())
    assert report["schema"] == "mncompress.report/1"
    assert document == report | {"folder": str(folder)}


def test_compress_prints_tables(run, run_dir, compressed):
    result = run("compress", run_dir, "--preset", "exact", "--replicate", 0)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["original", "compressed", "portable", "relu", "twin"]
    assert lines[1].split()[0] == "parameters"
    assert lines[-1] == f"files: {run_dir / 'compressed-2'}"
    assert result.stderr


def test_a_plan_comes_with_its_budget(run, run_dir, compressed, tmp_path):
    """What it was made for need not be said again, and another cannot be."""
    plan = compressed[0] / "plan.json"
    assert run("compress", run_dir, "--plan", plan, "--out", tmp_path / "again").exit_code == 0
    assert (tmp_path / "again/compressed.onnx").read_bytes() == (compressed[0] / "compressed.onnx").read_bytes()
    line = error_line(run("compress", run_dir, "--plan", plan, "--max-drop", 2, "--out", tmp_path / "other"))
    assert line.startswith("a plan has a budget of its own")
    misspelt = tmp_path / "plan.json"
    misspelt.write_text(json.dumps({**json.loads(plan.read_text()), "layer": []}))
    assert "plan.json: layer: Unexpected" in error_line(run("compress", run_dir, "--plan", misspelt, "--out", tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_compress_refuses_a_replicate_that_is_not_there(run, run_dir):
    assert "replicate 3 does not exist" in error_line(run("compress", run_dir, "--replicate", 3, "--quiet"))


@pytest.mark.parametrize("seed", [[], ["--seed", 1]])
def test_evaluate_names_the_file_that_is_no_model_of_rows(run, tmp_path, seed):
    file = tmp_path / "strange.onnx"
    onnx.save(onnx.parser.parse_model('''<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 4] input) => (float[2, 4] logits) { logits = Tanh (input) }'''), file)
    assert error_line(run("evaluate", file, "--data", "digits", *seed)).startswith(f"{file} needs one float32 input")


def test_evaluate_agrees_with_the_report(run, compressed):
    folder, document = compressed
    result = run("evaluate", folder / "compressed.onnx", "--data", "digits", "--json")
    evaluation = json.loads(result.stdout)
    assert evaluation["samples"] == document["samples"]
    assert evaluation["accuracy"] == document["compressed"]["accuracy"]
    text = run("evaluate", folder / "compressed.onnx", "--data", "digits", "--quiet").stdout
    assert text == f"accuracy {evaluation['accuracy']:.4f}\n"


def test_benchmark_writes_its_rows(run, compressed, tmp_path):
    models = [compressed[0] / f"{name}.onnx" for name in ("compressed", "relu_twin")]
    result = run("benchmark", *models, "--batch-sizes", "1", "--seconds", "0.2", "--startup", "0", "--out", tmp_path / "rows.json",
                 "--json")
    document = json.loads(result.stdout)
    assert document == json.loads((tmp_path / "rows.json").read_text())
    assert [row["model"] for row in document["latency"]] == ["compressed", "relu_twin"]
    assert all(row["median_us"] > 0 for row in document["latency"])


@pytest.mark.parametrize("kind", ["learned", "compressed"])
def test_inspect_draws_and_lists_the_neurons(run, run_dir, compressed, tmp_path, kind):
    folder = run_dir if kind == "learned" else compressed[0]
    result = run("inspect", folder, "--out", tmp_path / "pictures", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [(row["layer"], row["index"]) for row in document["neurons"]] == [(0, index) for index in range(4)]
    assert all(Path(picture).is_file() for picture in document["pictures"])
    assert "sketches" not in document


def test_inspect_takes_other_data_of_a_run(run, run_dir, compressed, tmp_path):
    rows = 0.5 * np.random.default_rng(0).uniform(size=(40, 64))
    np.savez(tmp_path / "small.npz", x_train=rows, y_train=np.arange(40) % 10, x_test=rows, y_test=np.arange(40) % 10)
    widths = []
    for data in ("digits", tmp_path / "small.npz"):
        result = run("inspect", run_dir, "--data", data, "--out", tmp_path / Path(data).stem, "--formats", "svg", "--json")
        widths.append([row["domain"][1] - row["domain"][0] for row in json.loads(result.stdout)["neurons"]])
    assert all(small < digits / 2 for digits, small in zip(*widths, strict=True))
    assert error_line(run("inspect", compressed[0], "--data", "digits", "--out", tmp_path / "other")) == (
        f"{compressed[0]} was written by compress and holds its curves; data can be named for a run folder only")


def test_inspect_prints_a_table_and_sketches(run, compressed, tmp_path):
    result = run("inspect", compressed[0], "--out", tmp_path / "pictures", "--formats", "svg", "--most", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split() == ["layer", "neuron", "kind", "domain", "from", "to", "largest", "error",
                                                     "sensitivity"]
    assert "\u2800" in result.stdout
    assert "note: 2 of 4 neurons are drawn" in result.stdout
    assert {path.suffix for path in (tmp_path / "pictures").iterdir()} == {".svg"}


def test_inspect_without_braille_where_stdout_cannot_show_it(compressed, tmp_path):
    code = f"{START}app({['inspect', str(compressed[0]), '--out', str(tmp_path / 'pictures')]!r})"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    assert b"pictures: " in done.stdout
