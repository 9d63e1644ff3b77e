import itertools
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mncompress import benchmark, runtime
from mncompress.benchmark import Measurement
from mncompress.errors import ConfigError, DataError, RuntimeProviderError

HAS_CUDA = "cuda" in runtime.available_providers()


def save_model(path: Path, *, features: int = 4, width: int = 3, output: str = "logits", products: int = 1) -> Path:
    """A file that multiplies its rows by random weights, `products` - 1 times by a square matrix first."""
    rng = np.random.default_rng(features)
    square, last = (rng.normal(size=(features, n)).astype(np.float32) / features for n in (features, width))
    names = ["input", *(f"z{i}" for i in range(products - 1)), output]
    weights = ["square"] * (products - 1) + ["last"]
    nodes = [onnx.helper.make_node("MatMul", [a, w], [b])
             for a, w, b in zip(names[:-1], weights, names[1:], strict=True)]
    ends = [[onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])]
            for name, size in (("input", features), (output, width))]
    graph = onnx.helper.make_graph(nodes, "g", *ends, [onnx.numpy_helper.from_array(square, "square"),
                                                       onnx.numpy_helper.from_array(last, "last")])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    return {name: save_model(tmp_path / f"{name}.onnx") for name in ("original", "relu_twin")}


class FakeMachine:
    """A clock that only runs of models advance, by durations known beforehand."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.log: list[int] = []
        self.stretch = 0

    def clock(self) -> int:
        return self.now_ns

    def make_run(self, index: int, duration_us):
        """A run that takes `duration_us(runs of this model just before, time in ns)` microseconds."""
        def run_once() -> None:
            self.stretch = self.stretch + 1 if self.log and self.log[-1] == index else 0
            self.log.append(index)
            self.now_ns += round(1000 * duration_us(self.stretch, self.now_ns))
        return run_once

    def sample(self, *durations, rounds=None, seconds=1.0, **options):
        runs = [self.make_run(i, d) for i, d in enumerate(durations)]
        return benchmark.sample_rounds(runs, rounds=rounds, seconds=seconds, clock=self.clock,
                                       rng=np.random.default_rng(0), **options)


def test_samples_are_the_known_durations():
    samples = FakeMachine().sample(lambda *_: 7.0, lambda *_: 500.0, rounds=9)
    np.testing.assert_array_equal(samples, [[7.0] * 9, [500.0] * 9])


def test_first_run_after_another_model_is_not_timed():
    samples = FakeMachine().sample(lambda stretch, _: 10 if stretch else 90, lambda *_: 20, rounds=8)
    # Where the order puts a model behind itself there is no cold run at all; nowhere does one reach a sample.
    np.testing.assert_array_equal(samples, [[10.0] * 8, [20.0] * 8])


def test_every_round_has_each_model_once_in_changing_order():
    machine = FakeMachine()
    machine.sample(*[lambda *_: 100.0] * 3, rounds=50)  # one timed run a sample, since 100 > SAMPLE_US
    calls = machine.log[-50 * 3 * 2:]
    assert calls[::2] == calls[1::2]
    orders = [tuple(calls[start:start + 6:2]) for start in range(0, 300, 6)]
    assert set(orders) == set(itertools.permutations(range(3)))


def test_rounds_fill_the_time():
    # A round takes 2 models × 2 runs × 250 µs = 1 ms.
    assert FakeMachine().sample(lambda *_: 250, lambda *_: 250, seconds=0.02).shape == (2, 20)
    assert FakeMachine().sample(lambda *_: 250, lambda *_: 250, seconds=1e-9).shape == (2, benchmark.MIN_ROUNDS)
    assert FakeMachine().sample(lambda *_: 250, lambda *_: 250, seconds=1e-9, rounds=31).shape == (2, 31)


def test_a_model_is_warm_before_it_is_sampled():
    machine = FakeMachine()
    warm_at = benchmark.WARM_UP_SECONDS * 1e9
    samples = machine.sample(lambda _, now: 1000 if now < warm_at else 60, rounds=6)
    np.testing.assert_array_equal(samples, [[60.0] * 6])
    machine = FakeMachine()
    machine.sample(lambda *_: 1e9, rounds=6)
    assert len(machine.log) == benchmark.WARM_UP_RUNS + 6 * 2


def test_pause_precedes_every_sample(monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    FakeMachine().sample(lambda *_: 9.0, lambda *_: 9.0, rounds=7, pause_seconds=0.25)
    assert pauses == [0.25] * 14
    FakeMachine().sample(lambda *_: 9.0, rounds=7)
    assert len(pauses) == 14


def test_drift_cancels_in_the_ratio():
    # The machine slows down fivefold over the run; the second model always takes 1.5 times the first.
    def drift(now: int) -> float:
        return 100 * (1 + 4 * now / 5e8)

    samples = FakeMachine().sample(lambda _, now: drift(now), lambda _, now: 1.5 * drift(now), rounds=400)
    assert samples[0].max() > 3 * samples[0].min()
    measurement = Measurement("cpu", 1, 1, ("a", "b"), samples)
    # Within a round of about 500 µs the drift is 4 · 5e5/5e8 = 0.4 % at most.
    assert benchmark.ratio(measurement, "b", "a").median == pytest.approx(1.5, rel=4e-3, abs=0)


@given(st.floats(0.01, 1e6), st.floats(1.0, 1e4))
def test_repeats_are_the_fewest_that_fill_a_sample(run_us, sample_us):
    repeats = benchmark.repeats_for(run_us, sample_us)
    assert repeats >= 1
    counted = max(run_us, 0.1)  # nothing is faster than 0.1 µs; a clock that stands still must not give infinity
    assert repeats * counted >= sample_us * (1 - 1e-12)
    assert repeats == 1 or (repeats - 1) * counted < sample_us


@given(arrays(np.float64, st.integers(benchmark.MIN_ROUNDS, 300), elements=st.floats(0.1, 10)))
def test_interval_holds_the_median_and_is_made_of_values(values):
    low, high = benchmark.median_interval(values)
    assert low <= np.median(values) <= high
    assert {low, high} <= set(values)


@pytest.mark.parametrize("count", [6, 7, 8, 9, 20, 100, 1001])
def test_interval_covers_the_median_with_95_percent_and_not_with_less_than_needed(count):
    low, high = benchmark.median_interval(np.random.default_rng(0).permutation(np.arange(1.0, count + 1)))
    rank = round(low)
    assert high == count + 1 - rank
    coverage = [1 - 2 * scipy.stats.binom(count, 0.5).cdf(k - 1) for k in (rank, rank + 1)]
    assert coverage[0] >= 0.95 > coverage[1]


def test_interval_of_a_hundred_values_is_the_tabulated_one():
    assert benchmark.median_interval(np.arange(1.0, 101.0)) == (40.0, 61.0)


def test_ratio_pairs_the_rounds():
    samples = np.array([[2.0, 20.0, 3.0, 30.0, 4.0, 40.0, 5.0], [1.0, 10.0, 1.0, 10.0, 1.0, 10.0, 1.0]])
    measurement = Measurement("cpu", 1, 1, ("original", "compressed"), samples)
    # Ratios 2 2 3 3 4 4 5: median 3, while the ratio of the medians is 5/1.
    assert benchmark.ratio(measurement, "original", "compressed") == benchmark.Ratio(3.0, 2.0, 5.0)
    assert benchmark.ratio(measurement, "compressed", "original").median == pytest.approx(1 / 3, rel=1e-15, abs=0)
    with pytest.raises(ConfigError, match="model 'portable' was not measured; choose from original, compressed"):
        benchmark.ratio(measurement, "portable", "original")


def test_summary_has_median_percentile_and_ratio():
    samples = np.stack([np.arange(1.0, 102.0), np.full(101, 2.0)])
    rows = benchmark.summarize(Measurement("cuda", 3, 32, ("original", "relu_twin"), samples[:, ::-1]))
    assert [(row.model, row.provider, row.threads, row.batch, row.runs) for row in rows] == [
        ("original", "cuda", 3, 32, 101), ("relu_twin", "cuda", 3, 32, 101)]
    assert [(row.median_us, row.p95_us, row.ratio_to_relu_twin) for row in rows] == [
        (51.0, 96.0, 25.5), (2.0, 2.0, 1.0)]
    alone = benchmark.summarize(Measurement("cpu", 1, 1, ("original",), samples[:1]))
    assert alone[0].ratio_to_relu_twin is None


def test_benchmark_gives_a_row_per_model_and_condition(paths, monkeypatch):
    pauses, lines = [], []
    monkeypatch.setattr(time, "sleep", pauses.append)
    rows = benchmark.benchmark(paths, batch_sizes=(1, 5), threads=(1, 2), rounds=6,
                               progress=lambda line: lines.append((line, len(pauses))))
    assert [(row.threads, row.batch, row.model) for row in rows] == [
        *itertools.product((1, 2), (1, 5), ("original", "relu_twin"))]
    assert all(row.runs == 6 and 0 < row.median_us <= row.p95_us for row in rows)
    assert [row.ratio_to_relu_twin for row in rows if row.model == "relu_twin"] == [1.0] * 4
    conditions = [f"benchmark: provider cpu, threads {t}, batch {b}" for t in (1, 2) for b in (1, 5)]
    # Only with two threads, a pause for each of 2 models in 6 rounds.
    assert lines == [*zip(conditions, (0, 0, 0, 12), strict=True)]
    assert pauses == [benchmark.SPIN_SECONDS] * 24


def test_a_model_with_more_work_is_measured_slower(tmp_path):
    paths = {name: save_model(tmp_path / name, features=64, products=products)
             for name, products in (("relu_twin", 1), ("original", 40))}
    slower = benchmark.ratio(benchmark.measure(paths, batch=64, seconds=0.2), "original", "relu_twin")
    assert 3 < slower.low <= slower.median <= slower.high  # 39 products of 64 × 64 against one of 64 × 3


def test_bound_run_computes_the_given_rows(paths):
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    session = runtime.make_session(paths["original"])
    x = benchmark._make_rows(4, 7, rows, np.random.default_rng(0))
    np.testing.assert_array_equal(x, rows[[0, 1, 2, 0, 1, 2, 0]].astype(np.float32))
    bound = benchmark._bind(session, x, "cpu")
    bound()
    np.testing.assert_array_equal(bound.args[0].copy_outputs_to_cpu()[0], runtime.run(session, x))


@pytest.mark.skipif(not HAS_CUDA, reason="no CUDA device here")
def test_cuda_is_measured_with_buffers_on_the_device(paths):
    row = benchmark.benchmark(paths, providers=("cuda",), batch_sizes=(32,), rounds=6)[0]
    assert row.provider == "cuda"
    assert row.median_us > 0
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    session = runtime.make_session(paths["original"], providers=("cuda",))
    bound = benchmark._bind(session, x, "cuda")
    bound()
    np.testing.assert_array_equal(bound.args[0].copy_outputs_to_cpu()[0], runtime.run(session, x))


@pytest.mark.parametrize(("options", "message"), [
    ({"batch": 0}, "batch size must be at least 1, got 0"), ({"rounds": 5}, "rounds must be at least 6 .* got 5"),
    ({"seconds": 0.0}, "seconds must be positive and finite, got 0.0"), ({"threads": 0}, "threads must be at least 1"),
])
def test_options_out_of_range_are_refused(paths, options, message):
    with pytest.raises(ConfigError, match=message):
        benchmark.measure(paths, **options)


def test_models_and_inputs_that_do_not_fit_are_refused(paths, tmp_path):
    with pytest.raises(ConfigError, match="no model to benchmark"):
        benchmark.measure({})
    wide = save_model(tmp_path / "wide.onnx", features=5)
    with pytest.raises(DataError, match="original has 4 in_features, wide has 5; benchmark models of the same"):
        benchmark.measure({**paths, "wide": wide})
    classes = save_model(tmp_path / "classes.onnx", width=9)
    with pytest.raises(DataError, match="original has 3 out_features, classes has 9"):
        benchmark.measure({**paths, "classes": classes})
    for inputs in (np.zeros((2, 5)), np.zeros((0, 4)), np.zeros(4)):
        with pytest.raises(DataError, match=r"inputs must be rows of the models' 4 features, got inputs.shape"):
            benchmark.measure(paths, inputs=inputs)


def test_unusable_provider_is_refused_before_anything_is_measured(paths):
    lines = []
    with pytest.raises(RuntimeProviderError, match="unknown provider 'tpu'"):
        benchmark.benchmark(paths, providers=("cpu", "tpu"), rounds=6, progress=lines.append)
    assert lines == []


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


def test_evaluate_refuses_labels_of_another_task(paths, tmp_path):
    with pytest.raises(DataError, match="the model is for classification, the data has float targets"):
        benchmark.evaluate(paths["original"], np.zeros((2, 4)), np.zeros((2, 3)))
    regression = save_model(tmp_path / "regression.onnx", output="output")
    with pytest.raises(DataError, match="the model is for regression, the data has integer labels"):
        benchmark.evaluate(regression, np.zeros((2, 4)), np.zeros(2, int))
    assert benchmark.evaluate(regression, np.zeros((2, 4)), np.ones((2, 3))).rmse == 1.0
    elsewhere = save_model(tmp_path / "elsewhere.onnx", output="scores")
    assert benchmark.evaluate(elsewhere, np.zeros((2, 4)), np.zeros(2, int)).accuracy == 1.0
