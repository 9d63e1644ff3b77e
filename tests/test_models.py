"""The model zoo: every folder loads, computes what it says, and keeps its stated accuracy on the stored predictions."""

import json
import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from mncompress import benchmark, runtime
from mncompress.checkpoint import load_record, load_tensors, make_network
from mncompress.data import load_dataset
from mncompress.types import TrainConfig, to_json

MODELS = Path(__file__).parent.parent / "models"
FOLDERS = sorted(path.parent for path in MODELS.glob("*/config.json"))
FILES = {"README.md", "recipe.toml", "config.json", "model.safetensors", "original.onnx", "compressed.onnx", "portable.onnx",
         "report.json", "predictions.npz"}
if not MODELS.is_dir():
    pytest.skip("the model zoo is in the repository, not in what is installed or distributed", allow_module_level=True)
every_model = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def read_report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def run_onnx(path: Path, x: np.ndarray) -> np.ndarray:
    return runtime.make_session(path, providers=("cpu",)).run(None, {"input": x.astype(np.float32)})[0]


def test_the_zoo_is_there_and_small() -> None:
    assert len(FOLDERS) >= 6
    assert sum(path.stat().st_size for folder in FOLDERS for path in folder.iterdir()) < 20e6
    assert all({path.name for path in folder.iterdir()} == FILES for folder in FOLDERS)


@every_model
def test_recipe_is_that_of_the_run(folder: Path) -> None:
    recipe = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    saved = to_json(load_record(folder).config)
    assert {key: saved[key] for key in recipe} == recipe
    rest = {key: value for key, value in saved.items() if key not in recipe and key != "device"}
    assert rest == {key: value for key, value in to_json(TrainConfig()).items() if key in rest}


@every_model
def test_files_compute_the_stored_outputs(folder: Path) -> None:
    stored = np.load(folder / "predictions.npz", allow_pickle=False)
    x, expected = stored["inputs"], stored["outputs"]
    scale = np.abs(expected).max()
    # the machine that wrote them may have summed in another order
    for name in ("compressed.onnx", "portable.onnx"):
        np.testing.assert_allclose(run_onnx(folder / name, x), expected, rtol=1e-4, atol=1e-5 * scale)
    tensors, _ = load_tensors(folder / "model.safetensors")
    network = make_network(load_record(folder).network, tensors).double()
    outputs = network(torch.as_tensor(x)).numpy()
    np.testing.assert_allclose(run_onnx(folder / "original.onnx", x), outputs, rtol=1e-4, atol=1e-5 * scale)
    report = read_report(folder)
    # few rows are of the test split, whose largest change the report has
    assert np.abs(outputs - expected).max() <= report["max_abs_logit_error"] + 1e-5 * scale


@every_model
def test_stated_accuracy_is_that_of_the_predictions(folder: Path) -> None:
    stored, report = np.load(folder / "predictions.npz", allow_pickle=False), read_report(folder)
    predictions, targets, stated = stored["predictions"], stored["targets"], report["compressed"]
    assert len(predictions) == len(targets) == report["samples"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    if stated["accuracy"] is not None:
        assert np.mean(predictions == targets) == pytest.approx(stated["accuracy"], abs=1e-12, rel=0)
        assert f"| {stated['accuracy']:.4f} |" in card
    else:
        # summed in float64 there, of float32 differences here
        assert np.mean((predictions - targets) ** 2) == pytest.approx(stated["loss"], rel=1e-4, abs=0)
        assert f"| {stated['loss'] ** 0.5:.4g} |" in card


@every_model
def test_stated_accuracy_on_the_test_split(folder: Path) -> None:
    config, report = load_record(folder).config, read_report(folder)
    data_dir = os.environ.get("MNCOMPRESS_DATA_DIR")
    if config.data == "mnist" and data_dir is None:
        pytest.skip("MNIST is not there: set MNCOMPRESS_DATA_DIR to the folder that holds MNIST/raw")
    test = load_dataset(config.data, data_dir=data_dir, seed=config.seed).test
    found = benchmark.evaluate(folder / "compressed.onnx", test.x, test.y)
    if found.accuracy is None:
        assert found.loss == pytest.approx(report["compressed"]["loss"], rel=1e-4, abs=0)
    else:
        assert found.accuracy == pytest.approx(report["compressed"]["accuracy"], abs=2 / len(test), rel=0)     # ties may turn
