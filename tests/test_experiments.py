"""The paper's experiments: statistics against scipy, keys and files of cells, verdicts, the plan, and what is written."""

import dataclasses
import importlib.metadata
import json
import math
import multiprocessing
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from mncompress.calibration import calibrate
from mncompress.data import load_dataset
from mncompress.errors import CheckpointError, ConfigError, DataError, TrainingError
from mncompress.experiments import EXPERIMENTS, CellResult, Experiment, load_cell, reproduce, run_cell, save_cell
from mncompress.experiments import _statistics as statistics
from mncompress.experiments._cells import GRID, SampledActivation, line_fit, make_key, probe_speed
from mncompress.experiments._claims import (
    Claim,
    Difference,
    Level,
    Trend,
    constant_share,
    early,
    final,
    judge,
    linear_share,
    wobble,
)
from mncompress.experiments._figures import Curve, Panel, fixed, meta
from mncompress.experiments._statistics import Estimate
from mncompress.experiments._tables import show
from mncompress.experiments._workers import run_in_workers
from mncompress.training import train
from mncompress.types import TrainConfig

SMALL = TrainConfig(data="digits", replicates=2, epochs=2, device="cpu")
TINY = Experiment(
    "A small experiment",
    (Panel("both", (Curve("trainable", meta(3)), Curve("fixed", fixed(3)))), Panel("one", (Curve("trainable", meta(4)),))),
    (Claim("Trainable activations end higher", final, (Difference("3", meta(3), fixed(3)),), above=0),),
    axis="activation", ordered=False)
DRAWN = Experiment("Activations", (Panel("matched initialization", (Curve("trainable", meta(3)),)),),
                   (Claim("Some are linear", linear_share, (Level("3", meta(3)),), above=0),), draws_activations=True)
# Everything below is float64 arithmetic of a few terms against scipy's.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture
def small_experiments(monkeypatch):
    """Two small experiments in place of the paper's; they share a cell."""
    monkeypatch.setattr("mncompress.experiments._reproduce.EXPERIMENTS", {"tiny": TINY, "drawn": DRAWN})


@pytest.fixture(scope="module")
def cell():
    return run_cell(dataclasses.replace(SMALL, activation="meta", hidden=(3,)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with both small experiments in it."""
    folder = tmp_path_factory.mktemp("reproduce") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mncompress.experiments._reproduce.EXPERIMENTS", {"tiny": TINY, "drawn": DRAWN})
        return reproduce("all", SMALL, folder, data_sets=())


def make_result(config, test, curves=None, activations=()):
    """A synthetic cell with the given test accuracies (M,)."""
    curves = [[value] for value in test] if curves is None else curves
    config = dataclasses.replace(config, replicates=len(test), epochs=len(curves[0]))
    return CellResult("0", config, "sha256:0", "accuracy", tuple(map(tuple, curves)), tuple(test), 1, 1.0, tuple(activations),
                      {"device": "cpu"})


# --- statistics


def test_mean_has_students_interval():
    sample = np.random.default_rng(0).normal(3, 2, 11)
    found = statistics.mean(sample)
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    np.testing.assert_allclose([found.value, found.low, found.high], [sample.mean(), *expected], **CLOSE)


@given(st.integers(2, 9), st.integers(2, 9), st.floats(0.1, 10), st.integers(0, 2**31))
def test_difference_has_welchs_interval(m, n, scale, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 1, m), rng.normal(1, scale, n)
    found = statistics.difference(a, b)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    # Nearly equal observations cancel in the variances.
    np.testing.assert_allclose([found.value, found.low, found.high], [a.mean() - b.mean(), *expected], rtol=1e-7, atol=1e-9)


def test_trend_is_the_least_squares_line_and_covers_it():
    rng, x = np.random.default_rng(1), [1, 2, 3, 5]
    groups = [rng.normal(2 * k, k, 8) for k in x]
    slope = np.polyfit(np.repeat(x, 8), np.concatenate(groups), 1)[0]
    np.testing.assert_allclose(statistics.trend(x, groups).value, 4 * slope, **CLOSE)
    two = statistics.trend([2, 5], groups[:2])
    np.testing.assert_allclose([two.low, two.high], dataclasses.astuple(statistics.difference(groups[1], groups[0]))[1:], **CLOSE)
    covered = [found.low <= 8 <= found.high for _ in range(1000)
               for found in [statistics.trend(x, [rng.normal(2 * k, k, 8) for k in x])]]
    assert 0.93 <= np.mean(covered) <= 0.97  # the standard error of 1000 trials is 0.007


def test_neither_one_replicate_nor_equal_ones_have_an_interval():
    assert statistics.mean([2.0]) == Estimate(2.0, None, None)
    assert statistics.difference([2.0, 3.0], [1.0]) == Estimate(1.5, None, None)
    assert statistics.difference([2.0, 2.0], [1.5, 1.5]) == Estimate(0.5, None, None)


@pytest.mark.parametrize("count", [1, 5, 6, 9, 32])
def test_median_has_the_interval_of_order_statistics(count):
    sample = np.random.default_rng(count).normal(size=count)
    found, expected = statistics.median(sample), stats.quantile_test(sample, p=0.5).confidence_interval(0.95)
    assert found.value == np.median(sample)
    limits = tuple(None if math.isnan(limit) else limit for limit in (expected.low, expected.high))
    assert (found.low, found.high) == limits
    assert (found.low is None) == (count < 6)


def test_epochs_to_an_accuracy_that_some_never_reach():
    curves = np.array([[0.1, 0.8, 0.7], [0.8, 0.1, 0.1], [0.2, 0.3, 0.79]])
    np.testing.assert_array_equal(statistics.epochs_to(curves, 0.8), [2, 1, np.inf])
    assert statistics.median([2, np.inf, np.inf]).value == np.inf


# --- measures and verdicts


def test_measures():
    curves = [[0.0] * 10 + [0.5] * 5 + [0.5, 0.6, 0.5, 0.6, 0.5], [0.2, 0.4] + [0.9] * 18]
    result = make_result(meta(3), [0.5, 0.9], curves)
    np.testing.assert_allclose(final(result), [50, 90], **CLOSE)
    np.testing.assert_allclose(early(result), [0, 30], **CLOSE)
    np.testing.assert_allclose(wobble(result), [(50 + 4 * 10) / 10, 0], rtol=1e-10, atol=1e-12)
    fits = [(0, 1.0), (0, 0.9), (0, None), (0, 0.9992), (1, 0.5), (1, None)]
    learned = [SampledActivation(k, 0, index, (0.0, 1.0), fit, ()) for index, (k, fit) in enumerate(fits)]
    result = make_result(meta(3), [0.5, 0.9], activations=learned)
    np.testing.assert_allclose(linear_share(result), [50, 0], **CLOSE)
    np.testing.assert_allclose(constant_share(result), [25, 50], **CLOSE)


@pytest.mark.parametrize(("better", "outcome"), [
    ([0.90, 0.91, 0.92], "replicated"), ([0.70, 0.71, 0.72], "not replicated"), ([0.80, 0.79, 0.83], "undecided"),
    ([0.9], "undecided")])
def test_verdict_of_a_difference(better, outcome):
    results = {meta(3): make_result(meta(3), better), fixed(3): make_result(fixed(3), [0.80, 0.81, 0.82])}
    verdict = judge("fig", Claim("higher", final, (Difference("3", meta(3), fixed(3)),), above=0), results)
    assert verdict.outcome == outcome
    np.testing.assert_allclose(verdict.weakest.effect.value, 100 * (np.mean(better) - 0.81), **CLOSE)


def test_verdict_of_no_effect_needs_the_whole_interval_within_the_limits():
    x, cells = (1, 2, 3), tuple(meta(n) for n in (1, 2, 3))
    claim = Claim("none", final, (Trend("1 to 3", x, cells),), above=-0.5, below=0.5)

    def outcome(rise, spread):
        noise = spread * np.array([-1, 0, 1])
        results = {cell: make_result(cell, 0.8 + rise * n / 200 + noise) for n, cell in zip(x, cells, strict=True)}
        return judge("fig", claim, results).outcome

    assert outcome(0.0, 0.0001) == "replicated"
    assert outcome(0.0, 0.01) == "undecided"
    assert outcome(2.0, 0.0001) == "not replicated"
    assert outcome(-2.0, 0.0001) == "not replicated"
    assert claim.standard == "95 % interval above -0.5 and below 0.5"


def test_a_claim_of_several_comparisons_needs_all_of_them():
    levels = {meta(1): [0.9, 0.91], meta(2): [0.5, 0.51], meta(3): [0.7, 0.71], meta(4): [0.2, 0.99]}
    results = {cell: make_result(cell, test) for cell, test in levels.items()}
    over = {n: Difference(str(n), meta(n), meta(3)) for n in (1, 2, 4)}

    def verdict(*numbers):
        return judge("fig", Claim("higher", final, tuple(over[n] for n in numbers), above=0), results)

    assert [verdict(1).outcome, verdict(1, 4).outcome, verdict(1, 2, 4).outcome] == ["replicated", "undecided", "not replicated"]
    worst = verdict(1, 2)
    assert (worst.weakest.label, worst.count("replicated"), worst.count("not replicated")) == ("2", 1, 1)
    assert worst.standard == "every 95 % interval above 0"


def test_level_is_cut_to_per_cent():
    learned = [SampledActivation(k, 0, 0, (0.0, 1.0), 1.0 if k else 0.1, ()) for k in range(3)]
    results = {meta(1): make_result(meta(1), [0.5] * 3, activations=learned)}
    effect = Level("1", meta(1)).estimate(results, linear_share)
    assert (effect.low, effect.high) == (0, 100)
    assert show(effect) == "+66.67 (+0.00 to +100.00)"
    assert show(Estimate(-1.0)) == "-1.00 (no interval)"


# --- cells


def test_cell_equals_what_training_gives(cell):
    run = train(cell.config)
    assert cell.curves.shape == (2, 2)
    np.testing.assert_allclose(cell.curves[:, -1], run.validation_metric, rtol=0, atol=1e-6)  # rounded to six digits
    test = load_dataset("digits", seed=0).test
    right = [(run.network(k)(torch.as_tensor(test.x)).argmax(1).numpy() == test.y).mean() for k in range(2)]
    np.testing.assert_allclose(cell.test, right, rtol=0, atol=1e-6)
    assert cell.parameters == 64 * 3 + 3 + 3 * 16 + 3 * 10 + 10


def test_cell_samples_the_learned_activations(cell):
    run = train(cell.config)
    assert [(found.replicate, found.index) for found in cell.activations] == [(k, n) for k in range(2) for n in range(3)]
    calibrated = calibrate(run.network(1), load_dataset("digits", seed=0).calibration.x)[0]
    found = cell.activations[4]
    np.testing.assert_allclose(found.domain, calibrated.domain[1], rtol=1e-5, atol=1e-6)  # six digits are kept
    u = np.repeat(np.linspace(*calibrated.domain[1], GRID)[:, None], 3, 1).astype(np.float32)
    expected = run.network(1).layers[0].activation(torch.as_tensor(u))[:, 1].numpy()
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)  # five digits are kept


@given(st.lists(st.floats(-5, 5), min_size=5, max_size=5))
def test_line_fit_is_the_squared_correlation(values):
    y = np.array(values)
    if np.ptp(y) < 1e-3:
        y += np.arange(5)
    np.testing.assert_allclose(line_fit(y), np.corrcoef(np.arange(5), y)[0, 1] ** 2, rtol=0, atol=1e-6)
    assert line_fit(np.arange(7) * 3.0 - 1) == 1
    assert line_fit(np.full(7, 3.0)) is None


def test_key_changes_with_every_field_but_device_and_place():
    base = TrainConfig(activation="meta")
    other = {
        "data": "mnist", "activation": "vaf", "inner": "tanh", "inner_width": 6, "inner_layers": 2, "ends": "gated", "shared": True,
        "hidden": (8,), "output_activation": True, "residual": True, "init": "glorot", "epochs": 21, "batch_size": 64, "lr": 1e-3,
        "activation_lr": 0.5, "schedule": "cosine", "warmup": 1, "weight_decay": 0.1, "batch_norm": True, "select": "best",
        "patience": 3, "seed": 1, "replicates": 2, "order": "own", "keep": 1}
    assert set(other) | {"device", "data_dir"} == {field.name for field in dataclasses.fields(TrainConfig)}
    keys = {make_key(dataclasses.replace(base, **{name: value}), "a") for name, value in other.items()}
    assert len(keys | {make_key(base, "a"), make_key(base, "b")}) == len(other) + 2
    assert make_key(dataclasses.replace(base, device="cpu", data_dir="there"), "a") == make_key(base, "a")


def test_cell_file_round_trip_without_places(cell, tmp_path):
    here = dataclasses.replace(cell, config=dataclasses.replace(cell.config, data_dir="/secret/place"))
    save_cell(tmp_path, here)
    assert "secret" not in (tmp_path / f"{cell.key}.json").read_text()
    found = load_cell(tmp_path, cell.config, cell.data_hash)
    assert dataclasses.replace(found, config=cell.config) == cell
    assert load_cell(tmp_path, dataclasses.replace(cell.config, seed=1), cell.data_hash) is None


@pytest.mark.parametrize(("damage", "message"), [
    (lambda text: text[:200], "is truncated or no JSON"),
    (lambda text: text.replace('"accuracy"', "7"), "metric: Input should be a valid string"),
    (lambda text: text.replace('"seed": 0', '"seed": 1'), "holds another result than its name says"),
    (lambda text: text.replace("cell/1", "cell/0"), "holds another result than its name says"),
    (lambda text: json.dumps({**json.loads(text), "test_metric": [0.5]}), "test_metric does not have 2 values"),
    (lambda text: json.dumps({**json.loads(text), "validation_metric": [[0.5]]}), "validation_metric is not 2 rows of 2 epochs"),
])
def test_damaged_cell_file_is_told(cell, tmp_path, damage, message):
    save_cell(tmp_path, cell)
    path = tmp_path / f"{cell.key}.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(CheckpointError, match=message):
        load_cell(tmp_path, cell.config, cell.data_hash)


def test_probe_measures_an_epoch():
    seconds = probe_speed(dataclasses.replace(SMALL, epochs=50), 0.2)
    assert 1e-4 < seconds < 2


# --- the table of figures


def test_figures_have_the_cells_they_were_designed_with():
    assert {name: len(experiment.cells) for name, experiment in EXPERIMENTS.items()} == {
        "fig4": 42,  # 5 shapes, 3 acts, trainable and fixed; both again with Glorot for one hidden layer
        "fig5": 10, "fig6": 5, "fig7": 15,
        "fig8": 9,   # a single layer has no residual connection
        "fig9": 16, "fig10": 2}
    assert len({cell for experiment in EXPERIMENTS.values() for cell in experiment.cells}) == 85
    assert sum(meta(7) in experiment.cells for experiment in EXPERIMENTS.values()) == 6  # all but figure 10


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_claims_compare_cells_of_their_figure(name):
    experiment = EXPERIMENTS[name]
    rng = np.random.default_rng(0)
    learned = [SampledActivation(k, 0, 0, (0.0, 1.0), 1.0, ()) for k in range(3)]
    results = {cell: make_result(cell, rng.uniform(0.8, 0.9, 3), rng.uniform(0.8, 0.9, (3, 10)), learned)
               for cell in experiment.cells}
    verdicts = [judge(name, claim, results) for claim in experiment.claims]
    assert len({(verdict.statement, verdict.measure) for verdict in verdicts}) == len(verdicts) > 0
    for cell in experiment.cells:
        assert cell.activation in ("meta", f"fixed:{cell.activation[6:]}")
        assert cell.output_activation == (not cell.hidden)


def test_replicates_that_agree_decide_nothing():
    """Two networks of one value leave no interval, however far from the standard they are."""
    assert statistics.difference([1.0, 1.0], [3.0, 3.0]) == Estimate(-2.0)
    config = meta(3)
    verdict = judge("f", Claim("c", final, (Level("l", config),), above=0), {config: make_result(config, [0.5, 0.5])})
    assert verdict.outcome == "undecided"


@pytest.mark.parametrize("change", [
    {"test_metric": (math.nan, 0.5)}, {"environment": {}}, {"validation_metric": ((math.inf,) * 2,) * 2}])
def test_cell_checks_its_numbers(cell, change):
    with pytest.raises(ConfigError):
        dataclasses.replace(cell, **change)


# --- reproduce


def test_reproduce_writes_figures_tables_and_verdicts(finished):
    folder = finished.folder
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in finished.files} | {"cells"} == {
        "tiny.png", "tiny.svg", "tiny.csv", "tiny-cells.csv", "drawn.png", "drawn.svg", "drawn.csv", "drawn-cells.csv",
        "drawn-activations.csv", "verdicts.json", "verdicts.md", "README.md", "cells"}
    assert all(path.stat().st_size > 100 for path in finished.files)
    assert (folder / "tiny.png").read_bytes()[:4] == b"\x89PNG"
    assert len(list((folder / "cells").iterdir())) == 3
    plan = finished.plan
    assert dict(plan.experiments) == {"tiny": 3, "drawn": 1, "families": 0}
    assert (plan.cells, plan.finished, plan.networks, plan.epochs) == (3, 0, 6, 2)
    assert 0 < plan.seconds < 60
    rows = (folder / "tiny.csv").read_text().splitlines()
    assert rows[0] == "panel,curve,epoch,mean,low,high"
    assert len(rows) == 1 + 3 * 2
    rows = (folder / "tiny-cells.csv").read_text().splitlines()
    assert len(rows) == 1 + 3
    assert rows[0].startswith("panel,curve,key,replicates,test_mean,test_low,test_high,test_sd,test_min,test_max,epochs_to_0.80")
    assert [verdict["figure"] for verdict in json.loads((folder / "verdicts.json").read_text())["verdicts"]] == ["tiny", "drawn"]
    summary = (folder / "README.md").read_text()
    assert "mncompress reproduce all --data digits --replicates 2 --epochs 2" in summary
    assert "3 cells of 2 networks, 2 epochs each, on digits" in summary


def test_resume_trains_nothing_and_writes_the_same(small_experiments, finished, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("trained again")

    before = {path: path.read_bytes() for path in finished.files}
    monkeypatch.setattr("mncompress.experiments._cells.train", fail)
    again = reproduce("all", SMALL, finished.folder, resume=True, data_sets=())
    assert (again.plan.finished, again.plan.networks, again.plan.seconds) == (3, 0, 0)
    assert {path: path.read_bytes() for path in again.files} == before
    with pytest.raises(AssertionError, match="trained again"):
        reproduce("all", dataclasses.replace(SMALL, epochs=3), finished.folder, resume=True, data_sets=())


def test_resume_finds_the_cells_of_another_seed(small_experiments, tmp_path):
    """Also on data that depend on it, as the split of digits does."""
    settings = dataclasses.replace(SMALL, seed=3)
    first = reproduce("tiny", settings, tmp_path, data_sets=())
    again = reproduce("tiny", settings, tmp_path, resume=True, data_sets=())
    assert (first.plan.finished, again.plan.finished, again.plan.cells) == (0, 3, 3)
    cell = json.loads(next((tmp_path / "cells").iterdir()).read_text())
    assert cell["config"]["seed"] == 3


def test_a_further_figure_in_the_same_folder_keeps_the_first(small_experiments, tmp_path):
    reproduce("drawn", SMALL, tmp_path, data_sets=())
    both = reproduce("tiny", SMALL, tmp_path, resume=True, data_sets=())
    assert {verdict.figure for verdict in both.verdicts} == {"tiny"}
    written = json.loads((tmp_path / "verdicts.json").read_text())
    commands = [f"mncompress reproduce {figure} --data digits --replicates 2 --epochs 2" for figure in ("tiny", "drawn")]
    assert [verdict["figure"] for verdict in written["verdicts"]] == ["tiny", "drawn"]
    assert written["command"] == " && ".join(commands)
    assert "\n".join(f"$ {command}" for command in commands) in (tmp_path / "README.md").read_text()
    reproduce("drawn", dataclasses.replace(SMALL, epochs=1), tmp_path, resume=True, data_sets=())
    assert [verdict["figure"] for verdict in json.loads((tmp_path / "verdicts.json").read_text())["verdicts"]] == ["drawn"]


def test_damaged_cell_is_told_and_computed_again(small_experiments, finished):
    path = next((finished.folder / "cells").iterdir())
    before = json.loads(path.read_text())
    path.write_text("{")
    lines = []
    again = reproduce("all", SMALL, finished.folder, resume=True, data_sets=(), tell=lines.append)
    assert lines[0] == f"cells/{path.name} is truncated or no JSON; computing it again"
    assert lines[1].startswith("cell 1 of 1: ")
    assert again.plan.finished == 2
    after = json.loads(path.read_text())
    assert after["test_metric"] == before["test_metric"]


def test_interruption_keeps_finished_cells(small_experiments, tmp_path, monkeypatch):
    def interrupt(config, progress=None):
        if config.activation != "meta":
            raise KeyboardInterrupt
        return run_cell(config, progress)

    monkeypatch.setattr("mncompress.experiments._reproduce.run_cell", interrupt)
    with pytest.raises(KeyboardInterrupt):
        reproduce("tiny", SMALL, tmp_path / "out")
    assert len(list((tmp_path / "out" / "cells").glob("*.json"))) == 1
    monkeypatch.undo()
    monkeypatch.setattr("mncompress.experiments._reproduce.EXPERIMENTS", {"tiny": TINY})
    assert reproduce("tiny", SMALL, tmp_path / "out", resume=True).plan.finished == 1


def test_workers_compute_what_one_process_does(small_experiments, finished, tmp_path):
    lines = []
    done = reproduce("all", SMALL, tmp_path / "out", data_sets=(), workers=2, tell=lines.append)
    paths = list((finished.folder / "cells").glob("*.json"))
    assert len(lines) == len(paths)
    for path in paths:
        one, other = (json.loads((folder / "cells" / path.name).read_text()) for folder in (tmp_path / "out", finished.folder))
        for name in ("test_metric", "validation_metric", "config", "key"):
            assert one[name] == other[name]
    assert [verdict.outcome for verdict in done.verdicts] == [verdict.outcome for verdict in finished.verdicts]


def test_workers_give_results_errors_and_end():
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        list(run_in_workers(math.sqrt, [(-1.0,)], 1))
    calls = run_in_workers(time.sleep, [(0.0,), (600.0,)], 2)
    assert next(calls) == (0, None)
    calls.close()                                       # what an interruption does
    for process in multiprocessing.active_children():
        process.join(30)
        assert not process.is_alive()


def test_a_worker_that_is_ended_is_told_and_other_processes_stay():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    try:
        with pytest.raises(TrainingError, match=r"a worker process was ended from outside.*--resume, and fewer --workers"):
            list(run_in_workers(os._exit, [(3,)], 1))
        assert other.is_alive()
    finally:
        other.terminate()
        other.join()


def test_workers_end_with_a_parent_that_is_killed():
    program = ("import time; from mncompress.experiments._workers import run_in_workers\n"
               "for _ in run_in_workers(time.sleep, [(0.0,), (600.0,)], 2): print('one is done', flush=True)")
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "one is done\n"
    process.kill()
    process.communicate(timeout=60)         # until the last that writes there has ended


def test_figures_of_a_single_epoch_have_verdicts(small_experiments, tmp_path, monkeypatch):
    """Where no measure of change from epoch to epoch has a value."""
    claim = Claim("They differ in stability", wobble, (Difference("3", meta(3), fixed(3)),), below=0)
    experiments = {"tiny": dataclasses.replace(TINY, claims=(*TINY.claims, claim))}
    monkeypatch.setattr("mncompress.experiments._reproduce.EXPERIMENTS", experiments)
    done = reproduce("tiny", dataclasses.replace(SMALL, epochs=1), tmp_path / "out")
    assert done.verdicts[-1].outcome == "undecided"
    written = json.loads((tmp_path / "out" / "verdicts.json").read_text())
    assert written["verdicts"][-1]["weakest"]["effect"]["value"] is None


def test_one_replicate_has_no_intervals_and_no_verdict(small_experiments, tmp_path):
    done = reproduce("all", dataclasses.replace(SMALL, replicates=1, epochs=1), tmp_path / "out", data_sets=())
    assert {verdict.outcome for verdict in done.verdicts} == {"undecided"}
    assert (tmp_path / "out" / "tiny.csv").read_text().splitlines()[1].endswith(",,")


def test_what_cannot_be_reproduced_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown experiment 'fig3'; choose from fig4, fig5, .*, all"):
        reproduce("fig3", SMALL, tmp_path / "out")
    with pytest.raises(DataError, match="function:product is a regression; the figures compare accuracies"):
        reproduce("fig5", dataclasses.replace(SMALL, data="function:product"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- the command


@pytest.fixture
def run(small_experiments, monkeypatch):
    from mncompress.cli import _reproduce

    monkeypatch.setattr(_reproduce, "EXPERIMENTS", (*_reproduce.EXPERIMENTS, "tiny", "drawn"))
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="mncompress")
    app = entry.load()
    options = ("--data", "digits", "--device", "cpu", "--epochs", "2")
    return lambda *args: CliRunner().invoke(app, ["reproduce", *map(str, args), *options], prog_name="mncompress")


def test_command_tells_the_plan_then_the_cells(run, tmp_path):
    result = run("tiny", "--replicates", 2, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    plan, *cells = result.stderr.splitlines()
    assert plan.startswith("3 cells (tiny 3; shared ones count once), 0 finished; to train: 6 networks for 2 epochs, about ")
    assert [line.split(": ")[1] for line in cells] == ["3 meta relu 5x1", "3 fixed:relu", "4 meta relu 5x1"]
    assert all("networks x epochs per second" in line for line in cells)
    assert result.stdout.splitlines()[-1] == f"files: {tmp_path / 'out'}"
    refused = run("tiny", "--replicates", 2, "--out", tmp_path / "out")
    assert refused.exit_code == 1
    assert refused.stderr == (f"mncompress: error: {tmp_path / 'out'} is not empty; choose another --out, "
                              "or continue in it with --resume\n")
    again = run("tiny", "--replicates", 2, "--out", tmp_path / "out", "--resume", "--json", "--quiet")
    assert again.stderr == ""
    document = json.loads(again.stdout)
    assert document["plan"]["finished"] == 3
    assert [verdict["figure"] for verdict in document["verdicts"]] == ["tiny"]


def test_command_says_what_one_replicate_cannot_show(run, tmp_path):
    result = run("drawn", "--replicates", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "a single replicate gives no intervals" in result.stderr.splitlines()[1]


@pytest.mark.parametrize(("args", "code", "message"), [
    (("drawn", "--resume"), 2, "--resume needs the folder to continue in --out"),
    (("fig11",), 2, "'fig11' is not one of fig4, "),
    (("drawn", "--replicates", "0"), 2, "replicates must be at least 1, got 0"),
])
def test_command_errors(run, tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_interrupted_command_tells_how_to_go_on(run, tmp_path, monkeypatch):
    def interrupt(config, progress=None):
        if done:
            raise KeyboardInterrupt
        done.append(config)
        return run_cell(config, progress)

    done, out = [], tmp_path / "out"
    monkeypatch.setattr("mncompress.experiments._reproduce.run_cell", interrupt)
    result = run("tiny", "--replicates", 2, "--out", out)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == (
        f"mncompress: interrupted; finished cells are kept; continue with the same options and --resume --out {out}")
    result = run("tiny", "--replicates", 2, "--out", tmp_path / "other")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "mncompress: interrupted; nothing was finished yet")
