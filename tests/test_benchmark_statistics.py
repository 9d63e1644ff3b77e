"""What is concluded from times: exact expectations, and how often the intervals are right."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mncompress import benchmark
from mncompress.benchmark import Agreement, Measurement, Ratio, _rows, _sessions, _statistics
from mncompress.errors import ConfigError

STARTS = tuple(range(0, 240, 30))
"""8 sessions of 30 rounds."""


def test_distribution_is_that_of_the_samples():
    found = _statistics.describe(np.random.default_rng(0).permutation(np.arange(1.0, 102.0)))
    assert found == _statistics.Distribution(1.0, 6.0, 51.0, 96.0, 100.0, 51.0)


@pytest.mark.parametrize(("count", "cut"), [(5, 0), (6, 1), (7, 3), (8, 4), (9, 6), (10, 9), (12, 14), (20, 53)])
def test_cuts_are_the_tabulated_ones(count, cut):
    """Hollander, Wolfe, Chicken, table A.4; P(W < k) of every k counted out for the small ones."""
    assert _statistics.signed_rank_cut(count) == cut
    if count <= 12:
        sums = [sum(rank for rank, sign in zip(range(1, count + 1), signs, strict=True) if sign)
                for signs in itertools.product((0, 1), repeat=count)]
        below = [np.mean(np.array(sums) < k) for k in (cut, cut + 1)]
        assert below[0] <= 0.025 < below[1]


@given(arrays(np.float64, st.integers(6, 30), elements=st.floats(-10, 10, width=32)))
def test_interval_holds_what_the_signed_rank_test_does_not_reject(values):
    middle, low, high = _statistics.signed_rank_interval(values)
    assert values.min() <= low <= middle <= high <= values.max()
    if len(set(np.abs(values))) == len(values) and len(values) <= 12 and not np.any(values == 0):
        rejects = scipy.stats.wilcoxon(values, method="exact").pvalue <= 0.05
        assert rejects == (low > 0 or high < 0)


def test_interval_is_made_of_pairwise_averages():
    # Of 1, 2, 4, 8, 16, 32 the averages run from 1 (1 with 1) to 32; 6 values leave the first and the last.
    assert _statistics.signed_rank_interval(2.0 ** np.arange(6)) == (8.5, 1.0, 32.0)
    # 8 values: the fourth smallest and largest of 1 1.5 2 2.5 ... 6.5 7 7 7.5 8
    middle, low, high = _statistics.signed_rank_interval(np.arange(1.0, 9.0))
    assert (middle, low, high) == (4.5, 2.0, 7.0)


def test_ratio_counts_every_session_once():
    # In 8 sessions the model takes 1 to 8 times as long; within a session two thirds of the rounds agree.
    ratios = np.repeat(np.arange(1.0, 9.0), 3)
    ratios[::3] = 1000.0
    reference = np.random.default_rng(0).uniform(1, 2, 24)
    found = _statistics.make_ratio(ratios * reference, reference, tuple(range(0, 24, 3)))
    logs = np.sort([np.log(a * b) / 2 for a, b in itertools.combinations_with_replacement(range(1, 9), 2)])
    expected = np.exp([np.median(logs), logs[3], logs[-4]])
    np.testing.assert_allclose((found.median, found.low, found.high), expected, rtol=1e-12, atol=0)   # float64, a few roundings


def test_sessions_may_differ_in_rounds():
    reference, model = np.ones(9), np.array([2.0, 2.0, 2.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    one = _statistics.make_ratio(model, reference, (0, 4, 5, 6, 7, 8))
    assert (one.low, one.high) == (pytest.approx(2, rel=1e-12), pytest.approx(64, rel=1e-12))
    assert one.median == pytest.approx(2**3.5, rel=1e-12)


def test_ratio_and_its_inverse_agree():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 2, (2, 240))
    there, back = _statistics.make_ratio(a, b, STARTS), _statistics.make_ratio(b, a, STARTS)
    np.testing.assert_allclose([there.median, there.low, there.high], [1 / back.median, 1 / back.high, 1 / back.low],
                               rtol=1e-12, atol=0)     # the same numbers, up to rounding


def simulate(count: int, *, ratio: float, between: float, persistence: float) -> list[Ratio]:
    """What is found of times of 8 sessions of 30 rounds, as machines make them, `count` times.

    Each session has its own offset for each model (`between` is the standard deviation of its logarithm), the noise of a
    round is that of the round before in part (`persistence`) and common to both models in part, and a tenth of all runs
    is interrupted by something that takes long.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(count, 3, 240))
    for at in range(1, 240):
        noise[..., at] = persistence * noise[..., at - 1] + np.sqrt(1 - persistence**2) * noise[..., at]
    places = np.repeat(rng.normal(size=(count, 2, 8)) * between, 30, axis=2)
    interrupted = (rng.random((count, 2, 240)) < 0.1) * rng.exponential(0.7, (count, 2, 240))
    times = 50 * np.exp(places + 0.03 * noise[:, :2] + 0.1 * noise[:, 2:] + interrupted)
    return [_statistics.make_ratio(ratio * model, reference, STARTS) for model, reference in times]


@pytest.mark.parametrize(("between", "persistence"), [(0.01, 0.0), (0.0, 0.0), (0.03, 0.8), (0.0, 0.8)])
def test_interval_covers_the_ratio_in_95_percent_of_simulations(between, persistence):
    found = simulate(1500, ratio=1.2, between=between, persistence=persistence)
    covered = np.mean([each.low <= 1.2 <= each.high for each in found])
    assert 0.94 <= covered <= 0.98     # 8 sessions have 96.1 %; the standard error of 1500 is 0.5 %
    assert np.median([each.median for each in found]) == pytest.approx(1.2, rel=0.002)
    assert all(each.low <= each.median <= each.high for each in found)


def test_equal_models_are_called_winners_in_at_most_5_percent_and_different_ones_usually():
    equal = [_statistics.decide(each) for each in simulate(3000, ratio=1.0, between=0.01, persistence=0.5)]
    # 3.9 % are expected, half for each side; the standard error of 3000 is 0.35 %.
    assert 0.03 <= np.mean([verdict != "no difference shown" for verdict in equal]) <= 0.05
    assert {"faster", "slower"} <= set(equal)
    apart = [_statistics.decide(each) for each in simulate(200, ratio=0.95, between=0.01, persistence=0.5)]
    assert np.mean([verdict == "faster" for verdict in apart]) > 0.95


def test_rounds_taken_for_independent_would_call_equal_models_winners():
    """Why sessions count, not rounds."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(100):
        times = np.exp(0.01 * rng.normal(size=(2, 1)) + 0.01 * rng.normal(size=(2, 240)))      # a single session
        wrong += _statistics.decide(_statistics.make_ratio(times[0], times[1], range(240))) != "no difference shown"
    assert wrong > 50


@pytest.mark.parametrize(("ratio", "verdict"), [
    (Ratio(0.9, 0.8, 0.99), "faster"), (Ratio(0.9, 0.8, 1.0), "no difference shown"), (Ratio(1.0, 1.0, 1.0), "no difference shown"),
    (Ratio(1.3, 1.0, 1.4), "no difference shown"), (Ratio(1.3, 1.01, 1.4), "slower"), (Ratio(1.0, 0.5, 2.0), "no difference shown"),
])
def test_no_winner_where_the_interval_holds_1(ratio, verdict):
    assert _statistics.decide(ratio) == verdict


F, S, N = "faster", "slower", "no difference shown"


@pytest.mark.parametrize(("verdicts", "batch"), [
    ({}, None), ({1: F}, 1), ({1: S}, None), ({1: S, 8: N, 64: F, 512: F}, 64), ({512: F, 1: S, 64: F, 8: N}, 64),
    ({1: F, 8: F, 64: F}, 1), ({1: F, 8: N, 64: F}, 64), ({1: F, 8: F, 64: N}, None),
])
def test_break_even_is_where_all_larger_ones_are_faster(verdicts, batch):
    assert _statistics.find_break_even(verdicts) == batch


def make_measurement(factors: dict[str, float], *, batch: int = 32, threads: int = 1) -> Measurement:
    """Times around 10 us times each factor, all sessions agreeing within 1 %."""
    rng = np.random.default_rng(batch)
    samples = 10 * np.array(list(factors.values()))[:, np.newaxis] * np.exp(rng.uniform(-0.01, 0.01, (len(factors), 240)))
    return Measurement("cpu", threads, batch, tuple(factors), samples, STARTS, tuple(range(1, len(factors) + 1)))


def test_rows_say_how_models_stand_against_the_baseline():
    measurement = make_measurement({"old": 1.0, "new": 0.5, "copy": 1.0})
    base, new, copy = _rows.make_rows(measurement, "old")
    assert [row.verdict for row in (base, new, copy)] == ["baseline", "faster", "no difference shown"]
    assert (base.ratio_to_baseline, base.baseline_low, base.baseline_high) == (1.0, 1.0, 1.0)
    expected = benchmark.ratio(measurement, "new", "old")
    assert (new.ratio_to_baseline, new.baseline_low, new.baseline_high) == (expected.median, expected.low, expected.high)
    assert (new.sessions, new.runs, new.runs_per_sample, new.batch) == (8, 240, 2, 32)
    samples = measurement.samples_us[1]
    assert (new.min_us, new.median_us, new.mean_us) == (samples.min(), np.median(samples), samples.mean())
    assert new.min_us < new.p5_us < new.median_us < new.p95_us < new.p99_us
    assert new.median_low <= new.median_us <= new.median_high
    assert _rows.make_rows(measurement, "new")[0].verdict == "slower"


def test_rows_without_a_baseline_are_not_compared():
    for measurement, baseline in ((make_measurement({"old": 1.0}), "old"), (make_measurement({"a": 1.0, "b": 2.0}), "old")):
        for row in _rows.make_rows(measurement, baseline):
            assert (row.verdict, row.ratio_to_baseline, row.baseline_low) == ("not compared", None, None)


def test_break_even_is_found_for_each_model_provider_and_number_of_threads():
    measurements = [make_measurement({"old": 1.0, "new": factor, "bad": 2.0}, batch=batch, threads=threads)
                    for batch, factor in ((1, 1.5), (8, 1.0), (64, 0.8)) for threads in (1, 2)]
    rows = [row for measurement in measurements for row in _rows.make_rows(measurement, "old")]
    assert _rows.find_break_evens(rows) == (
        benchmark.BreakEven("new", "cpu", 1, 64), benchmark.BreakEven("bad", "cpu", 1, None),
        benchmark.BreakEven("new", "cpu", 2, 64), benchmark.BreakEven("bad", "cpu", 2, None))
    assert _rows.find_break_evens(rows[:6]) == ()       # a single batch size


def test_summary_has_median_percentile_and_ratio():
    samples = np.stack([np.arange(1.0, 102.0), np.full(101, 2.0)])
    rows = benchmark.summarize(Measurement("cuda", 3, 32, ("original", "relu_twin"), samples[:, ::-1], tuple(range(101)), (1, 1)))
    assert [(row.model, row.provider, row.threads, row.batch, row.runs) for row in rows] == [
        ("original", "cuda", 3, 32, 101), ("relu_twin", "cuda", 3, 32, 101)]
    assert [(row.median_us, row.p95_us) for row in rows] == [(51.0, 96.0), (2.0, 2.0)]
    assert rows[1].ratio_to_relu_twin == 1.0
    # The logarithms of 1 to 101 lean to the left, and so does their center.
    assert 15 < rows[0].ratio_low < rows[0].ratio_to_relu_twin < 25.5 < rows[0].ratio_high
    assert rows[0].median_low <= 51.0 <= rows[0].median_high
    alone = benchmark.summarize(Measurement("cpu", 1, 1, ("original",), samples[:1], tuple(range(101)), (1,)))
    assert (alone[0].ratio_to_relu_twin, alone[0].ratio_low) == (None, None)


def test_ratio_of_a_model_that_was_not_measured_is_refused():
    with pytest.raises(ConfigError, match="model 'portable' was not measured; choose from old, new"):
        benchmark.ratio(make_measurement({"old": 1.0, "new": 0.5}), "portable", "old")


def test_notes_tell_of_models_that_differ_and_of_gaps():
    agreement = [Agreement("new", "cpu", 1, 1e-4, 1.0), Agreement("new", "cpu", 8, 0.02, 2.0),
                 Agreement("same", "cpu", 1, 1e-4, 1.0), Agreement("odd", "cpu", 1, None, None, "it has 2 outputs instead of 1")]
    notes = _rows.make_notes({"old": (), "new": ()}, {1: ("old", "new"), 8: ("old",)}, [], agreement, "old")
    assert notes == (
        "new has a fixed batch and is not measured at batch 8.",
        "new does not compute exactly what old does: outputs differ by up to 0.02, where the largest is 2.",
        "odd cannot be held against old: it has 2 outputs instead of 1.")


def test_outputs_are_compared_in_every_element():
    base = [np.array([[1.0, -8.0]], np.float32), np.array([3], np.int64)]
    others = {
        "old": base, "same": [array.copy() for array in base], "near": [base[0] + np.float32(0.5), np.array([5])],
        "short": base[:1], "shape": [base[0].T, base[1]], "nan": [np.array([[np.nan, -8.0]]), base[1]],
        "text": [base[0], np.array(["3"])], "map": [base[0], [{0: 1.0}]], "huge": [np.array([[1e308, -1e308]]), base[1]],
    }
    found = {each.model: each for each in _sessions.compare_outputs(others, "old", provider="cpu", batch=1)}
    assert found["same"] == Agreement("same", "cpu", 1, 0.0, 8.0)
    assert found["near"] == Agreement("near", "cpu", 1, 2.0, 8.0)       # of the second output
    assert [found[name].is_close for name in ("same", "near", "nan")] == [True, False, False]
    assert [Agreement("m", "cpu", 1, difference, 8.0).is_close for difference in (0.007, 0.009)] == [True, False]   # 0.1 % of 8
    assert {name: found[name].problem for name in ("short", "shape", "nan", "text", "map")} == {
        "short": "it has 1 outputs instead of 2", "shape": "output 0 has the shape (2, 1) instead of (1, 2)",
        "nan": "output 0 has NaN or infinities in other places", "text": "output 1 is no tensor of numbers",
        "map": "output 1 is no tensor of numbers"}
    assert found["huge"].max_abs_difference == 1e308
    twice = _sessions.compare_outputs({"a": [np.array([-1.5e308])], "b": [np.array([1.5e308])]}, "a", provider="cpu", batch=1)
    assert twice[0].problem == "its outputs differ beyond all numbers"
    filled = _sessions.compare_outputs({"a": [np.array([np.nan, 1.0])], "b": [np.ones(2)]}, "a", provider="cpu", batch=1)
    assert filled[0].problem == "output 0 has NaN or infinities in other places"
    both = [np.array([np.nan, np.inf, 1.0])]
    assert _sessions.compare_outputs({"a": both, "b": both}, "a", provider="cpu", batch=1)[0].max_abs_difference == 0.0
