"""The scikit-learn estimators: scikit-learn's own checks, and what is ours: parameters, splits, pickles, compression."""

import dataclasses
import inspect
import io
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mncompress import Budget, MetaNeuronClassifier, MetaNeuronRegressor, TrainConfig, export_onnx, runtime, train
from mncompress.data import Arrays, Split, split_arrays
from mncompress.errors import ConfigError, DataError
from mncompress.report._reproduce import make_commands

SMALL = {"hidden": (4,), "inner_width": 4, "epochs": 5, "random_state": 0}


@pytest.fixture(scope="module")
def flowers():
    """Iris with string labels: training rows, test rows."""
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    x_train, x_test, y_train, y_test = train_test_split(x, names, random_state=0, stratify=y)
    return (x_train, y_train), (x_test, y_test)


@pytest.fixture(scope="module")
def classifier(flowers):
    return MetaNeuronClassifier(random_state=0, replicates=2, device="cpu").fit(*flowers[0])


@parametrize_with_checks([MetaNeuronClassifier(), MetaNeuronRegressor()])
def test_scikit_learn_agrees(estimator, check):
    check(estimator)


@pytest.mark.parametrize("cls", [MetaNeuronClassifier, MetaNeuronRegressor])
def test_parameters_are_the_fields_of_the_configuration(cls):
    fields = {field.name for field in dataclasses.fields(TrainConfig)} - {"data", "data_dir", "seed"}
    parameters = inspect.signature(cls).parameters
    assert set(parameters) == fields | {"random_state"}
    own = {"inner", "hidden", "epochs", "batch_size", "random_state"}
    assert {name for name in fields if parameters[name].default != getattr(TrainConfig, name)} == own - {"random_state"}


def test_every_parameter_reaches_the_configuration(flowers):
    given = {"activation": "meta", "inner": "silu", "inner_width": 3, "inner_layers": 2, "ends": "leaky", "shared": True,
             "hidden": np.array([4, 4]), "output_activation": True, "residual": True, "init": "uniform", "epochs": 3,
             "batch_size": 16, "lr": np.float64(1e-3), "activation_lr": 0.5, "schedule": "cosine", "warmup": 1, "weight_decay": 0.1,
             "batch_norm": True, "select": "best", "patience": 2, "replicates": np.int64(3), "order": "own", "keep": 2,
             "device": "cpu", "random_state": np.int64(7)}
    config = MetaNeuronClassifier(**given).fit(*flowers[0]).run_.config
    expected = given | {"hidden": (4, 4), "data": "arrays", "data_dir": None, "seed": 7}
    del expected["random_state"]
    assert dataclasses.asdict(config) == expected


def test_one_hidden_layer_may_be_a_number():
    one, other = (MetaNeuronRegressor(hidden=hidden, random_state=0)._make_config() for hidden in (8, (8,)))
    assert one == other


def test_training_is_that_of_the_library(flowers, classifier):
    """The same splits, order and weights as `train` on the same rows."""
    (x, y), _ = flowers
    rows = Split(x.astype(np.float32), np.unique(y, return_inverse=True)[1].astype(np.int64))
    config = TrainConfig(data="arrays", inner="tanh", hidden=(8, 8), epochs=50, batch_size=32, replicates=2, device="cpu")
    run = train(config, dataset=split_arrays("arrays", Arrays(rows, Split(rows.x[:0], rows.y[:0])), 0))
    assert run.record == classifier.run_.record
    assert all(torch.equal(run.replicates[name], value) for name, value in classifier.run_.replicates.items())


def test_a_tenth_calibrates_and_15_percent_validate(classifier):
    assert classifier.run_.record.samples == {"train": 112 - 11 - 16, "calibration": 11, "validation": 16, "test": 0}


def test_classes_probabilities_and_score(flowers, classifier):
    _, (x, y) = flowers
    assert list(classifier.classes_) == ["setosa", "versicolor", "virginica"]
    logits, probabilities = classifier.decision_function(x), classifier.predict_proba(x)
    exponentials = np.exp(logits)   # float64; both are exact up to a few roundings
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(1, keepdims=True), rtol=1e-12, atol=1e-15)
    assert np.array_equal(classifier.predict(x), classifier.classes_[probabilities.argmax(1)])
    assert classifier.score(x, y) > 0.9     # chance is 1/3


def test_outputs_are_those_of_the_torch_network(flowers, classifier):
    x = flowers[1][0].astype(np.float32)
    outputs = classifier.run_.network()(torch.tensor(x)).numpy()
    # float32 against float64, through three layers: some hundred roundings of 6e-8 of values up to 20
    np.testing.assert_allclose(classifier.decision_function(x), outputs, rtol=1e-4, atol=1e-4)


def test_loss_curve_is_that_of_the_best_network(classifier):
    run = classifier.run_
    assert classifier.loss_curve_ == [row.train_loss for row in run.history if row.replicate == run.best]
    assert classifier.n_iter_ == len(classifier.loss_curve_) == 50
    assert classifier.loss_curve_[-1] < 0.5 * classifier.loss_curve_[0]


def test_random_state(flowers):
    def weights(random_state):
        run = MetaNeuronClassifier(**SMALL | {"random_state": random_state}).fit(*flowers[0]).run_
        return run.config.seed, run.replicates["body.0.linear.weight"]

    def equal(first, second):
        return first[0] == second[0] and torch.equal(first[1], second[1])

    assert equal(weights(3), weights(3))
    assert equal(weights(np.random.RandomState(3)), weights(np.random.RandomState(3)))
    assert not equal(weights(None), weights(None))


@pytest.mark.parametrize(("dtype", "shared"), [(np.uint8, True), (np.int64, False)])
def test_bytes_are_pixels_with_one_standardization(dtype, shared):
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(0, 9, 40), rng.integers(0, 255, 40)], 1).astype(dtype)
    network = MetaNeuronClassifier(**SMALL).fit(x, x[:, 1] > 128).run_.network()
    assert bool(network.features.scale[0] == network.features.scale[1]) == shared


def test_regression_of_one_and_several_targets():
    x, y = load_diabetes(return_X_y=True)
    single = MetaNeuronRegressor(random_state=0).fit(x, y)
    assert single.predict(x).shape == y.shape
    assert single.score(x, y) > 0.3
    both = MetaNeuronRegressor(random_state=0).fit(x, np.stack([y, 1e6 * y], 1))
    assert both.predict(x).shape == (len(x), 2)
    assert both.score(x, np.stack([y, 1e6 * y], 1)) > 0.3


def test_pickle_holds_plain_values_and_restores_everything(flowers, classifier):
    class OnlyPlain(pickle.Unpickler):
        def find_class(self, module, name):
            assert module.split(".")[0] in {"numpy", "builtins"} or (module, name) == (
                "mncompress.estimators", "MetaNeuronClassifier"), f"{module}.{name}"
            return super().find_class(module, name)

    restored = OnlyPlain(io.BytesIO(pickle.dumps(classifier))).load()
    assert restored.run_.record == classifier.run_.record
    assert restored.run_.history == classifier.run_.history
    assert np.array_equal(restored.predict_proba(flowers[1][0]), classifier.predict_proba(flowers[1][0]))
    assert classifier.predict(flowers[1][0][:1]).shape == (1,)      # pickling left the original whole


def test_clone_is_unfitted_with_the_same_parameters(classifier):
    copy = clone(classifier)
    assert copy.get_params() == classifier.get_params()
    with pytest.raises(NotFittedError):
        copy.predict([[0.0] * 4])


def test_data_frames_give_feature_names(flowers):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(flowers[0][0], columns=["a", "b", "c", "d"])
    fitted = MetaNeuronClassifier(**SMALL).fit(frame, pandas.Series(flowers[0][1]))
    assert list(fitted.feature_names_in_) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame[["b", "a", "c", "d"]])


def test_pipeline_in_a_grid_search(flowers):
    pipeline = make_pipeline(StandardScaler(), MetaNeuronClassifier(**SMALL | {"epochs": 30}))
    search = GridSearchCV(pipeline, {"metaneuronclassifier__lr": [1e-5, 1e-2]}, cv=2)
    search.fit(*flowers[0])
    assert search.best_params_ == {"metaneuronclassifier__lr": 1e-2}
    assert search.score(*flowers[1]) > 0.8


def test_compress_and_export(flowers, classifier, tmp_path):
    result = classifier.compress(*flowers[0], test=flowers[1], budget=Budget(preset="exact"), out=tmp_path / "compressed")
    assert result.report.samples == len(flowers[1][0])
    assert result.report.original.accuracy == pytest.approx(classifier.score(*flowers[1]), abs=1e-12)
    assert (tmp_path / "compressed" / "compressed.onnx").is_file()
    assert [command[0] for command in make_commands(result.report)] == ["pip"]      # mncompress train could not load the arrays
    session = runtime.make_session(export_onnx(result, tmp_path / "model.onnx"))
    logits = runtime.run(session, flowers[1][0].astype(np.float32))
    changed = np.abs(logits - classifier.decision_function(flowers[1][0])).max()
    assert changed <= result.report.logit_error_bound
    predicted = classifier.classes_[logits.argmax(1)]
    assert np.mean(predicted == flowers[1][1]) == pytest.approx(result.report.compressed.accuracy, abs=1e-12)


def test_compress_refuses_other_rows(flowers, classifier):
    (x, y), test = flowers
    with pytest.raises(DataError, match="X and y are not the rows that the estimator was fitted on; give them in the same order"):
        classifier.compress(x[::-1], y[::-1], test=test)
    with pytest.raises(ValueError, match="y holds the label rose, which is no class of fit"):
        classifier.compress(x, y, test=(test[0], np.full(len(test[0]), "rose")))
    with pytest.raises(NotFittedError):
        clone(classifier).compress(x, y, test=test)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"epochs": 0}, "MetaNeuronRegressor: epochs must be at least 1, got 0"),
    ({"hidden": "8,8"}, "MetaNeuronRegressor: hidden.0: Input should be a valid integer"),
    ({"init": "zero"}, "MetaNeuronRegressor: init: Input should be 'matched', 'uniform' or 'glorot'"),
    ({"activation": "mish"}, "MetaNeuronRegressor: unknown activation 'mish'; choose from"),
    ({"random_state": -1}, "MetaNeuronRegressor: seed must not be negative, got -1"),
])
def test_parameters_are_refused_in_one_line(parameters, message):
    with pytest.raises(ConfigError, match=message):
        MetaNeuronRegressor(**parameters).fit(np.eye(12), np.arange(12.0))


@pytest.mark.parametrize(("x", "y", "message"), [
    (np.eye(9), np.arange(9) % 2, "minimum of 10 is required"),
    (np.eye(12), np.ones(12), "y holds one class only, 1.0; a classification needs at least two classes"),
    (np.eye(12) * 1e39, np.arange(12) % 2, "too large for dtype"),
    (np.eye(12), np.linspace(0, 1, 12), "Unknown label type"),
    (np.eye(12), np.eye(12, dtype=int), "y should be a 1d array"),
])
def test_arrays_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        MetaNeuronClassifier().fit(x, y)


@pytest.mark.parametrize("as_table", [np.asarray, np.ndarray.tolist])
def test_columns_that_float32_does_not_resolve_are_refused(as_table):
    """Seconds since 1970 would leave a few values."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=60), 1.7e9 + rng.uniform(0, 60, 60)])
    with pytest.raises(DataError, match=r"X column 1 varies by .* around 17000000.*, which float32 does not resolve"):
        MetaNeuronRegressor(epochs=1).fit(as_table(x), x[:, 0])
    with pytest.raises(DataError, match=r"y column 0 varies by .* around 17000000.*, which float32 does not resolve"):
        MetaNeuronRegressor(epochs=1).fit(as_table(x[:, :1]), x[:, 1])


def test_targets_that_float32_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="Input y contains infinity or a value too large for dtype"):
        MetaNeuronRegressor().fit(np.eye(12), np.full(12, 1e39))
