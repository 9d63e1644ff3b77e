from pathlib import Path

import numpy as np
import onnx
import pytest
import sklearn.metrics

from mncompress import benchmark, runtime
from mncompress.errors import DataError, RuntimeProviderError


def save_model(path: Path, *, output: str = "logits") -> Path:
    """A file that multiplies its 4 features by a random matrix (4, 3)."""
    matrix = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    ends = [[onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])]
            for name, size in (("input", 4), (output, 3))]
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["input", "matrix"], [output])], "g", *ends,
                                   [onnx.numpy_helper.from_array(matrix, "matrix")])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    return {"original": save_model(tmp_path / "original.onnx")}


def test_classification_scores_agree_with_sklearn():
    rng = np.random.default_rng(0)
    outputs, y = rng.normal(scale=3, size=(200, 5)).astype(np.float32), rng.integers(0, 5, 200)
    result = benchmark.score(outputs, y)
    exponentials = np.exp(outputs.astype(np.float64))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    # Both in float64; 1e-12 leaves room for the order of 200 summands.
    assert result.loss == pytest.approx(sklearn.metrics.log_loss(y, probabilities), rel=1e-12, abs=0)
    assert result.accuracy == sklearn.metrics.accuracy_score(y, outputs.argmax(axis=1))
    assert (result.samples, result.rmse) == (200, None)


def test_probabilities_are_taken_as_such():
    outputs = np.array([[0.7, 0.3], [0.9, 0.1], [1.0, 0.0]], np.float32)
    result = benchmark.score(outputs, np.array([0, 1, 0]))
    assert result.loss == pytest.approx(-np.log(outputs[[0, 1, 2], [0, 1, 0]].astype(float)).mean(), rel=1e-12)
    # One row that is no distribution makes all of them logits.
    outputs[2] = [2.0, 0.0]
    log_sums = np.log(np.exp(outputs.astype(float)).sum(1))
    assert benchmark.score(outputs, np.array([0, 1, 0])).loss == pytest.approx(
        (log_sums - outputs[[0, 1, 2], [0, 1, 0]]).mean(), rel=1e-12)


def test_cross_entropy_of_huge_logits_is_finite():
    assert benchmark.score(np.array([[1e30, 0.0], [0.0, 5000.0]], np.float32), np.array([0, 0])).loss == 2500.0


def test_regression_scores_agree_with_sklearn():
    rng = np.random.default_rng(0)
    outputs, y = rng.normal(size=(50, 2)).astype(np.float32), rng.normal(size=(50, 2))
    result = benchmark.score(outputs, y)
    expected = sklearn.metrics.mean_squared_error(y, outputs.astype(np.float64))
    assert result.loss == pytest.approx(expected, rel=1e-12, abs=0)  # float64, order of 100 summands
    assert result.rmse == pytest.approx(expected**0.5, rel=1e-12, abs=0)
    assert result.accuracy is None
    single = benchmark.score(np.array([[1.0], [2.0]]), np.array([1.0, 4.0]))
    assert single == benchmark.Evaluation(2, None, 2.0, 2.0**0.5)


@pytest.mark.parametrize(("outputs", "y", "message"), [
    (np.zeros((3, 2)), np.array([0, 1, 2]), "labels run from 0 to 2, the model has the classes 0 to 1"),
    (np.zeros((3, 2)), np.array([0, -1, 1]), "labels run from -1 to 1"),
    (np.zeros((3, 2)), np.array([0, 1]), r"labels must be integers \(3,\) or float targets \(3, 2\)"),
    (np.zeros((3, 2)), np.zeros(3), r"y.shape = \(3, 1\)"),
    (np.zeros((3, 2)), np.array(["a", "b", "c"]), "y.dtype"),
    (np.zeros((0, 2)), np.zeros(0, int), "the data set is empty"),
    (np.array([[0, 0], [0, np.nan], [np.inf, 0]]), np.zeros(3, int), "for 2 of 3 samples, first for sample 1"),
])
def test_unfit_labels_are_refused(outputs, y, message):
    with pytest.raises(DataError, match=message):
        benchmark.score(outputs, y)


def test_evaluate_runs_a_file_or_a_session(paths):
    x, y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 3
    session = runtime.make_session(paths["original"])
    result = benchmark.evaluate(paths["original"], x, y)
    assert result == benchmark.evaluate(session, x, y) == benchmark.score(runtime.run(session, x), y)
    with pytest.raises(DataError, match="the data has 5 features, the model takes 4"):
        benchmark.evaluate(session, np.zeros((20, 5)), y)


def test_evaluate_names_the_file_that_is_no_model_of_rows(tmp_path):
    file = tmp_path / "strange.onnx"
    onnx.save(onnx.parser.parse_model('''<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 4] input) => (float[2, 4] logits) { logits = Tanh (input) }'''), file)
    with pytest.raises(RuntimeProviderError, match=r"strange\.onnx needs one float32 input"):
        benchmark.evaluate(file, np.zeros((2, 4)), np.zeros(2, int))


def test_evaluate_refuses_labels_of_another_task(paths, tmp_path):
    with pytest.raises(DataError, match="the model is for classification, the data has float targets"):
        benchmark.evaluate(paths["original"], np.zeros((2, 4)), np.zeros((2, 3)))
    regression = save_model(tmp_path / "regression.onnx", output="output")
    with pytest.raises(DataError, match="the model is for regression, the data has integer labels"):
        benchmark.evaluate(regression, np.zeros((2, 4)), np.zeros(2, int))
    assert benchmark.evaluate(regression, np.zeros((2, 4)), np.ones((2, 3))).rmse == 1.0
    elsewhere = save_model(tmp_path / "elsewhere.onnx", output="scores")
    assert benchmark.evaluate(elsewhere, np.zeros((2, 4)), np.zeros(2, int)).accuracy == 1.0
