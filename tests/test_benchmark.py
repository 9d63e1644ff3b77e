"""How a time is taken, with a clock that only runs and pauses advance; and the measurement of real files."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mncompress import benchmark, runtime
from mncompress.benchmark import Clock, Rounds, _measure, _sampling, _settings, _statistics
from mncompress.benchmark._sampling import WarmUp
from mncompress.errors import ConfigError, DataError, RuntimeProviderError

HAS_CUDA = "cuda" in runtime.available_providers()
FAST = {"sessions": 6, "rounds": 6}


def save_model(path: Path, *, features: int = 4, width: int = 3, products: int = 1) -> Path:
    """A file that multiplies its rows by random weights, `products` - 1 times by a square matrix first."""
    rng = np.random.default_rng(features)
    square, last = (rng.normal(size=(features, n)).astype(np.float32) / features for n in (features, width))
    names = ["input", *(f"z{i}" for i in range(products - 1)), "logits"]
    weights = ["square"] * (products - 1) + ["last"]
    nodes = [onnx.helper.make_node("MatMul", [a, w], [b]) for a, w, b in zip(names[:-1], weights, names[1:], strict=True)]
    ends = [[onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])]
            for name, size in (("input", features), ("logits", width))]
    graph = onnx.helper.make_graph(nodes, "g", *ends, [onnx.numpy_helper.from_array(square, "square"),
                                                       onnx.numpy_helper.from_array(last, "last")])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    return {name: save_model(tmp_path / f"{name}.onnx") for name in ("original", "relu_twin")}


class FakeMachine:
    """A clock that only runs of models and pauses advance, by durations known beforehand."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.log: list[object] = []
        """The numbers of the models that ran, and the pauses in seconds as strings."""
        self.stretch = 0
        self.clock = Clock(lambda: self.now_ns, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.log.append(f"{seconds:g}")
        self.now_ns += round(seconds * 1e9)

    def make_run(self, index: int, duration_us):
        """A run that takes `duration_us(runs of this model just before, time in ns)` microseconds."""
        def run_once() -> None:
            self.stretch = self.stretch + 1 if self.log and self.log[-1] == index else 0
            self.log.append(index)
            self.now_ns += round(1000 * duration_us(self.stretch, self.now_ns))
        return run_once

    def sample(self, *durations, **options):
        runs = [self.make_run(i, d) for i, d in enumerate(durations)]
        return benchmark.sample_rounds(runs, clock=self.clock, rng=np.random.default_rng(0), **options)


def test_samples_are_the_known_durations():
    found = FakeMachine().sample(lambda *_: 7.0, lambda *_: 500.0, rounds=9)
    np.testing.assert_array_equal(found.samples_us, [[7.0] * 9, [500.0] * 9])
    assert found.repeats == (8, 1)      # 8 x 7 us is the first multiple above SAMPLE_US = 50
    assert [warm.fastest_us for warm in found.warm_ups] == [7.0, 500.0]


def test_first_run_after_another_model_is_not_timed():
    found = FakeMachine().sample(lambda stretch, _: 10 if stretch else 90, lambda *_: 20, rounds=8)
    # Where the order puts a model behind itself there is no cold run at all; nowhere does one reach a sample.
    np.testing.assert_array_equal(found.samples_us, [[10.0] * 8, [20.0] * 8])


def test_every_round_has_each_model_once_in_changing_order():
    machine = FakeMachine()
    machine.sample(*[lambda *_: 100.0] * 3, rounds=50)  # one timed run a sample, since 100 > SAMPLE_US
    calls = machine.log[-50 * 3 * 2:]
    assert calls[::2] == calls[1::2]
    orders = [tuple(calls[start:start + 6:2]) for start in range(0, 300, 6)]
    assert set(orders) == set(itertools.permutations(range(3)))


def test_models_are_warmed_up_in_changing_order():
    firsts = set()
    for seed in range(8):
        machine = FakeMachine()
        benchmark.sample_rounds([machine.make_run(i, lambda *_: 100.0) for i in range(2)], rounds=1, clock=machine.clock,
                                rng=np.random.default_rng(seed))
        firsts.add(machine.log[0])
    assert firsts == {0, 1}


def test_rounds_fill_the_time():
    # A round takes 2 models x 2 runs x 250 us = 1 ms.
    assert FakeMachine().sample(lambda *_: 250, lambda *_: 250, seconds=0.02).samples_us.shape == (2, 20)
    assert FakeMachine().sample(lambda *_: 250, lambda *_: 250, seconds=1e-9).samples_us.shape == (2, 1)
    assert FakeMachine().sample(lambda *_: 250, lambda *_: 250, seconds=1e-9, rounds=31).samples_us.shape == (2, 31)


def test_drift_cancels_in_the_ratio():
    # The machine slows down fivefold over the run; the second model always takes 1.5 times the first.
    def drift(now: int) -> float:
        return 100 * (1 + 4 * now / 5e8)

    found = FakeMachine().sample(lambda _, now: drift(now), lambda _, now: 1.5 * drift(now), rounds=400).samples_us
    assert found[0].max() > 3 * found[0].min()
    # Within a round of about 500 us the drift is 4 * 5e5/5e8 = 0.4 % at most.
    assert _statistics.make_ratio(found[1], found[0], (0, 100, 200, 250, 300, 350)).median == pytest.approx(1.5, rel=4e-3, abs=0)


def test_warm_up_ends_once_runs_get_no_faster():
    def settle(faster_at_ns: float) -> WarmUp:
        machine = FakeMachine()
        return _sampling.warm_up(machine.make_run(0, lambda _, now: 100 if now < faster_at_ns else 50), machine.clock)

    # Windows of 2 ms hold 20 runs of 100 us, or 40 of 50 us. The first sets the mark, and three more confirm it.
    assert settle(8e6) == WarmUp(100.0, 4 * 20, True)
    # Here the third window holds 10 runs of 100 us and 20 of 50 us; three confirm that.
    assert settle(5e6) == WarmUp(50.0, 20 + 20 + 30 + 3 * 40, True)


def test_warm_up_lasts_as_long_as_it_is_told():
    machine = FakeMachine()
    warm = _sampling.warm_up(machine.make_run(0, lambda *_: 100.0), machine.clock, at_least_seconds=0.05)
    assert warm == WarmUp(100.0, 500, True)


def test_small_gains_count_as_warm_and_large_ones_do_not(monkeypatch):
    monkeypatch.setattr(_sampling, "WARM_UP_SECONDS", 0.1)

    def settle(gain: float) -> WarmUp:
        """Runs that get faster all the time, by `gain` of their duration in each window of 2 ms."""
        machine = FakeMachine()
        return _sampling.warm_up(machine.make_run(0, lambda _, now: 100 * (1 - gain) ** (now / 2e6)), machine.clock)

    assert settle(0.01).is_stable
    assert settle(0.01).runs < 100
    restless = settle(0.03)
    assert not restless.is_stable
    assert restless.fastest_us == pytest.approx(100 * 0.97 ** 50, rel=0.03, abs=0)      # 50 windows, each up to a run longer


def test_slow_models_run_three_times_before_warming_up_is_given_up():
    machine = FakeMachine()
    assert _sampling.warm_up(machine.make_run(0, lambda *_: 1e7), machine.clock) == WarmUp(1e7, 3, True)
    machine = FakeMachine()
    warm = _sampling.warm_up(machine.make_run(0, lambda _, now: 1e7 / (1 + now / 1e10)), machine.clock)
    assert (warm.runs, warm.is_stable) == (3, False)


def test_pause_precedes_every_warm_up_and_sample():
    machine = FakeMachine()
    machine.sample(lambda *_: 100.0, lambda *_: 100.0, rounds=7, idle_seconds=0.25)
    samples = machine.log[-7 * 2 * 3:]
    assert samples[::3] == ["0.25"] * 14
    assert machine.log.count("0.25") == 16
    quiet = FakeMachine()
    quiet.sample(lambda *_: 100.0, rounds=7)
    assert set(quiet.log) == {0}


@given(st.floats(0.01, 1e6), st.floats(1.0, 1e4))
def test_repeats_are_the_fewest_that_fill_a_sample(run_us, sample_us):
    repeats = _sampling.repeats_for(run_us, sample_us)
    assert repeats >= 1
    counted = max(run_us, 0.1)  # nothing is faster than 0.1 us; a clock that stands still must not give infinity
    assert repeats * counted >= sample_us * (1 - 1e-12)
    assert repeats == 1 or (repeats - 1) * counted < sample_us


def test_models_are_opened_in_balanced_random_orders():
    orders = list(_measure.opening_orders(("a", "b", "c"), 40, np.random.default_rng(0)))
    assert all(first == second[::-1] for first, second in zip(orders[::2], orders[1::2], strict=True))
    assert set(orders) == set(itertools.permutations("abc"))
    for one, other in itertools.combinations("abc", 2):
        assert sum(order.index(one) < order.index(other) for order in orders) == 20


def test_models_are_opened_anew_for_every_session(paths, monkeypatch):
    opened, make_session = [], runtime.make_session
    monkeypatch.setattr(_measure, "make_session", lambda path, **options: (opened.append(Path(path).stem),
                                                                           make_session(path, **options))[1])
    found = benchmark.measure(paths, sessions=7, rounds=9)
    assert found.starts == (0, 2, 4, 6, 8, 10, 12)      # 9 rounds over 7 sessions are 2 each
    assert found.samples_us.shape == (2, 14)
    inspected = 4       # for their inputs, and for their outputs
    assert len(opened) == inspected + 2 * 7
    pairs = [tuple(opened[at:at + 2]) for at in range(inspected, len(opened), 2)]
    assert all(sorted(pair) == ["original", "relu_twin"] for pair in pairs)
    assert pairs[0] == pairs[1][::-1]


def test_sessions_are_joined_one_after_another():
    parts = [Rounds(np.full((2, rounds), float(rounds)), repeats, (WarmUp(1.0, 3, True), WarmUp(1.0, 3, stable)))
             for rounds, repeats, stable in ((2, (5, 1), True), (1, (4, 2), False), (3, (6, 1), True))]
    found = _measure._join(("a", "b"), _measure.Condition("cpu", 1, 8), parts)
    np.testing.assert_array_equal(found.samples_us, [[2.0, 2.0, 1.0, 3.0, 3.0, 3.0]] * 2)
    assert (found.starts, found.runs_per_sample, found.unstable) == ((0, 2, 3), (6, 2), ("b",))


def test_unfinished_warm_up_is_told(paths, monkeypatch):
    monkeypatch.setattr(_sampling, "WARM_TOLERANCE", -1e9)      # every window counts as faster than all before
    monkeypatch.setattr(_sampling, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(_measure, "FIRST_WARM_SECONDS", 0.0)
    result = benchmark.benchmark(paths, benchmark.Settings(batch_sizes=(1,), startup=0, **FAST))
    assert result.notes == tuple(f"{name} was still getting faster when its warm-up was given up "
                                 "(provider cpu, threads 1, batch 1)." for name in paths)


def test_pauses_come_with_threads_or_as_told(paths):
    pauses = []
    clock = Clock(sleep=pauses.append)
    for options, expected in (({"threads": (1,)}, []), ({"threads": (2,)}, [_settings.SPIN_SECONDS] * 24),
                              ({"threads": (1,), "idle_seconds": 0.5}, [0.5] * 24), ({"threads": (2,), "idle_seconds": 0.0}, [])):
        pauses.clear()
        benchmark.benchmark(paths, benchmark.Settings(batch_sizes=(1,), startup=0, **FAST, **options), clock=clock)
        assert pauses == expected       # for 2 models in 6 sessions, a warm-up and a sample each


def test_a_model_with_more_work_is_measured_slower(tmp_path):
    paths = {name: save_model(tmp_path / name, features=64, products=products)
             for name, products in (("relu_twin", 1), ("original", 40))}
    slower = benchmark.ratio(benchmark.measure(paths, batch=64, seconds=0.3), "original", "relu_twin")
    assert 3 < slower.low <= slower.median <= slower.high  # 39 products of 64 x 64 against one of 64 x 3


def test_inputs_of_an_array_are_repeated_to_the_batch(paths, monkeypatch):
    seen, bind = [], _measure.bind
    monkeypatch.setattr(_measure, "bind", lambda session, feeds, *args, **options: (
        seen.append(feeds), bind(session, feeds, *args, **options))[1])
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    benchmark.measure(paths, batch=7, inputs=rows, **FAST)
    assert len(seen) == 12
    assert seen[0]["input"].dtype == np.float32
    np.testing.assert_array_equal(seen[0]["input"], rows[[0, 1, 2, 0, 1, 2, 0]])


@pytest.mark.skipif(not HAS_CUDA, reason="no CUDA device here")
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_cuda_is_measured_with_buffers_on_the_device(paths, cuda_graph):
    settings = benchmark.Settings(providers=("cuda",), batch_sizes=(32,), startup=1, cuda_graph=cuda_graph, **FAST)
    result = benchmark.benchmark(paths, settings)
    assert all(row.provider == "cuda" and row.median_us > 0 for row in result.latency)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    session = runtime.make_session(paths["original"], providers=("cuda",))
    bound = benchmark.bind(session, {"input": x}, "cuda")
    bound()
    np.testing.assert_array_equal(bound.args[0].copy_outputs_to_cpu()[0], runtime.run(session, x))


@pytest.mark.parametrize(("options", "message"), [
    ({"batch": 0}, "a batch size must be at least 1, got 0"), ({"rounds": 0}, "rounds must be at least 1, got 0"),
    ({"seconds": 0.0}, "seconds must be positive and finite, got 0.0"), ({"threads": 0}, "threads must be at least 1"),
    ({"sessions": 5}, "sessions must be at least 6 for a 95 % interval, got 5"),
    ({"seed": -1}, "startup and seed must not be negative, got 3 and -1"),
])
def test_options_out_of_range_are_refused(paths, options, message):
    with pytest.raises(ConfigError, match=message):
        benchmark.measure(paths, **options)


@pytest.mark.parametrize(("options", "message"), [
    ({"providers": ()}, "providers must not be empty"), ({"idle_seconds": -0.1}, "the idle gap must be finite and not negative"),
    ({"tf32": True}, "TF32 exists on the provider cuda only, got cpu; pass --providers cuda or leave out --tf32"),
    ({"tf32": True, "providers": ("cpu", "cuda")}, "TF32 exists on the provider cuda only, got cpu, cuda"),
    ({"cuda_graph": True}, "CUDA graphs exist on the provider cuda only, got cpu; pass --providers cuda"),
    ({"cuda_graph": True, "providers": ("cpu", "cuda")}, "CUDA graphs exist on the provider cuda only, got cpu, cuda"),
    ({"cuda_graph": True, "providers": ("cuda",), "io_binding": False}, "a CUDA graph needs fixed buffers"),
])
def test_settings_that_contradict_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        benchmark.Settings(**options)


def test_models_and_inputs_that_do_not_fit_are_refused(paths, tmp_path):
    with pytest.raises(ConfigError, match="no model to benchmark"):
        benchmark.measure({})
    wide = save_model(tmp_path / "wide.onnx", features=5)
    with pytest.raises(DataError, match=r"input 'input' is float32 \(batch, 4\) in original and float32 \(batch, 5\) in wide"):
        benchmark.measure({**paths, "wide": wide})
    for inputs in (np.zeros((2, 5)), np.zeros((0, 4)), np.zeros(4)):
        with pytest.raises(DataError, match=r"input 'input' is float32 \(batch, 4\), the given array is float64 \("):
            benchmark.measure(paths, inputs=inputs)


def test_unusable_provider_is_refused_before_anything_is_measured(paths):
    lines = []
    with pytest.raises(RuntimeProviderError, match="unknown provider 'tpu'"):
        benchmark.benchmark(paths, benchmark.Settings(providers=("cpu", "tpu")), progress=lines.append)
    assert lines == []
