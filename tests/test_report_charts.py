"""Charts, sketches, commands and `inspect`, on made-up reports and populations."""

import dataclasses
import importlib.metadata
import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import TRIALS, as_run_folder, make_curves, make_latency, make_report

from mncompress.errors import CheckpointError, ConfigError
from mncompress.files import write_json
from mncompress.report import inspect_curves, load_report, make_training_curves
from mncompress.report._frontier import describe_frontier, draw_frontier, find_frontier
from mncompress.report._latency import group_latency
from mncompress.report._latency_plot import describe_latency, draw_latency
from mncompress.report._reproduce import make_commands
from mncompress.report._style import PALETTE
from mncompress.report._svg import inline_svg
from mncompress.report._terminal import GAP, HEIGHT, WIDTH, arrange_sketches, plot_lines, sketch_neuron, sketch_training
from mncompress.report._training import describe_training, draw_training
from mncompress.types import Budget, EpochMetrics, TrainConfig, to_json

CURVES = make_curves((20, 6), title="784-20-6-10 meta tanh")
REPORT = make_report(CURVES)


# --- the frontier


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(-10, 10)), min_size=1))
def test_the_frontier_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    found = find_frontier(points)
    assert set(found) <= set(points)
    for cost, loss in points:
        assert any(c <= cost and a <= loss for c, a in found)
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in itertools.pairwise(found))


def test_the_frontier_shows_every_network_that_was_tried() -> None:
    (axes,) = draw_frontier(REPORT).axes
    points = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])): line for line in axes.lines if len(line.get_xdata()) == 1}
    assert (REPORT.original.macs, 0.0) in points
    high = axes.get_ylim()[1]
    assert high < 1
    for trial in TRIALS:
        if trial.drop is None:
            assert all(x != trial.macs for x, _ in points)
        elif trial.drop > high:
            assert points[trial.macs, high].get_marker() == 6
        else:
            assert (trial.macs, trial.drop) in points
    limits = {(line.get_xdata()[0], *line.get_ydata()) for line in axes.lines
              if len(line.get_xdata()) == 2 and line.get_xdata()[0] == line.get_xdata()[1]}
    assert (5921, 0.03, 0.098) in limits
    assert (4500, -0.02, 0.2) in limits
    (staircase,) = (line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert staircase.get_xdata().tolist() == [4500]
    text = describe_frontier(REPORT)
    assert text.startswith("5 networks were tried")
    assert "2 of them keep it" in text
    assert describe_frontier(dataclasses.replace(REPORT, trials=REPORT.trials[:1])).startswith("1 network was tried")
    assert "The one taken has 5\N{NARROW NO-BREAK SPACE}921 multiply-adds and loses 0.03, at most 0.098" in text


def test_a_target_and_an_exact_preset_can_be_drawn() -> None:
    target = dataclasses.replace(REPORT, budget=Budget(target_macs="50%"))
    (axes,) = draw_frontier(target).axes
    assert [6155.0, 6155.0] in [list(line.get_xdata()) for line in axes.lines]
    exact = dataclasses.replace(REPORT, trials=(dataclasses.replace(TRIALS[1], drop=0.0, drop_upper_bound=0.0, taken=True),),
                                budget=Budget(preset="exact"))
    (axes,) = draw_frontier(exact).axes
    assert axes.get_ylim()[0] < 0 < axes.get_ylim()[1]


# --- latency


@pytest.mark.parametrize("width", [7.2, 3.6])
def test_the_latency_chart_shows_medians_and_intervals(width: float) -> None:
    conditions = group_latency(make_latency(), REPORT.speedups)
    times, ratios = draw_latency(conditions, width).axes
    lines = [line for line in times.lines if len(line.get_xdata()) == 3]
    for model, line in enumerate(lines):
        assert list(line.get_xdata()) == [1, 32, 1024]
        assert list(line.get_ydata()) == [condition.rows[model].median_us for condition in conditions]
    intervals = [(int(line.get_xdata()[0]), *line.get_ydata()) for line in times.lines if len(line.get_xdata()) == 2]
    assert intervals == [(condition.batch, condition.rows[model].median_low, condition.rows[model].median_high)
                         for model in range(4) for condition in conditions]
    drawn = [(int(line.get_xdata()[0]), *line.get_ydata()) for line in ratios.lines
             if len(line.get_xdata()) == 2 and line.get_ydata()[0] != line.get_ydata()[1]]
    assert drawn[:3] == [(speedup.batch, speedup.low, speedup.high) for speedup in REPORT.speedups]
    assert len(drawn) == 6


def test_every_provider_and_thread_count_has_a_row() -> None:
    rows = make_latency()
    more = [dataclasses.replace(row, provider=provider, threads=threads)
            for provider, threads in (("cpu", 1), ("cpu", 4), ("cuda", 1)) for row in rows]
    axes = draw_latency(group_latency(more)).axes
    assert len(axes) == 6
    assert [each.get_title(loc="left") for each in axes[::2]] == [
        f"microseconds per run ({where})" for where in ("cpu, 1 thread", "cpu, 4 threads", "cuda, 1 thread")]


def test_latency_without_twin_is_drawn_too() -> None:
    rows = [dataclasses.replace(row, ratio_low=None, ratio_high=None, ratio_to_relu_twin=None)
            for row in make_latency()[:4]]
    times, ratios = draw_latency(group_latency(rows)).axes
    assert [len(line.get_xdata()) for line in times.lines] == [1, 2] * 4      # a point and its interval
    assert [float(value) for line in ratios.lines for value in line.get_ydata()[:1]] == [1.0]
    assert describe_latency(group_latency(rows)).startswith("cpu, 1 thread, batch 1: original 9.31, compressed 6.1, ")


# --- inside the page


def test_a_chart_in_the_page_follows_its_theme() -> None:
    svg = str(inline_svg(draw_frontier(REPORT), "frontier", 'what <it> "shows"'))
    assert svg.startswith("<svg ")
    assert 'aria-label="what &lt;it&gt; &quot;shows&quot;"' in svg
    assert not re.search(r"#[0-9a-f]{6}|<style|<metadata|https?:|font-family|DejaVu", svg)
    assert set(re.findall(r"var\(--(\w+)\)", svg)) == {"ink", "muted", "line", "learned", "accent", "twin", "paper"} <= set(PALETTE)
    assert set(re.findall(r'href="#([\w-]+)"', svg)) <= set(re.findall(r' id="([\w-]+)"', svg))
    assert all(each.startswith("frontier-") for each in re.findall(r' id="([\w-]+)"', svg))
    assert "loss on the validation split" in svg


# --- populations


def make_rows(networks: int, epochs: int) -> list[EpochMetrics]:
    return [EpochMetrics(epoch, k, 1 / epoch + 0.01 * k, 1.1 / epoch + 0.01 * k, 1 - 0.5 / epoch - 0.001 * k, 0.1)
            for epoch in range(1, epochs + 1) for k in range(networks)]


def test_a_population_is_arranged_by_network_and_epoch() -> None:
    rows = [row for row in make_rows(4, 5) if not (row.replicate == 2 and row.epoch > 3)]
    rows.append(EpochMetrics(6, 9, 1.0, 1.0, 1.0, 0.1))         # of a network that is none
    found = make_training_curves(rows, "accuracy", [0.9, 0.899, None, 0.897], 0)
    assert found.train_loss.shape == (4, 6)
    assert found.validation_metric[1, 4] == 1 - 0.5 / 5 - 0.001
    assert np.isnan(found.validation_metric[2, 3:]).all()
    assert np.isnan(found.final[2])
    assert describe_training(found) == (
        "validation accuracy of 3 networks: median 0.8990, quartiles 0.8980 to 0.8995, from 0.8970 to 0.9000; 1 diverged")


def test_a_population_chart_shows_median_quartiles_and_each_network() -> None:
    found = make_training_curves(make_rows(5, 8), "accuracy", [0.9] * 5, 2)
    loss, metric, ends = draw_training(found, "a title").axes
    lines = [list(line.get_ydata()) for line in metric.lines]
    for network in found.validation_metric:
        assert list(network) in lines
    assert list(np.median(found.validation_metric, 0)) == lines[-1]
    assert lines[-2] == list(found.validation_metric[2])        # the best
    (band,) = metric.collections
    heights = np.unique(band.get_paths()[0].vertices[:, 1])
    assert heights.min() == np.quantile(found.validation_metric[:, 0], 0.25)
    assert heights.max() == np.quantile(found.validation_metric[:, -1], 0.75)
    assert list(loss.lines[-1].get_ydata()) == list(np.median(found.train_loss, 0))
    assert loss.get_yscale() == "log"
    assert len(ends.lines[1].get_ydata()) == 5


@pytest.mark.parametrize(("rows", "final"), [
    (make_rows(1, 3), [0.9]), (make_rows(3, 1), [0.9] * 3), ([], [None]),
    ([EpochMetrics(1, 0, np.inf, np.nan, np.nan, 0.1)], [None]), ([EpochMetrics(1, 0, 0.0, 0.0, 1.0, 0.1)], [1.0])])
def test_odd_populations_are_drawn_without_a_warning(rows: list[EpochMetrics], final: list[float | None], tmp_path: Path) -> None:
    training = make_training_curves(rows, "accuracy", final, 0)
    inspection = inspect_curves(as_run_folder(CURVES), tmp_path, training=training, formats=("png",), most=1)
    assert (tmp_path / "training.png").exists() == bool(rows)
    assert len(inspection.notes) == 2


# --- in characters


def test_a_line_in_characters() -> None:
    x = np.linspace(0, 1, 50)
    rising = plot_lines([(x, x)], (0, 1, 0, 1), 10, 5)
    assert len(rising) == 5
    assert {len(row) for row in rising} == {10}
    filled = [[character != "\N{BRAILLE PATTERN BLANK}" for character in row] for row in rising]
    assert [row.index(True) for row in filled] == sorted((row.index(True) for row in filled), reverse=True)
    assert filled[0][-1]
    assert filled[-1][0]
    assert "".join(plot_lines([(x, np.full(50, np.nan))], (0, 1, 0, 1), 10, 5)).strip("\N{BRAILLE PATTERN BLANK}") == ""


@given(st.floats(-50, 50), st.floats(0.1, 1e4))
def test_steep_lines_in_characters_have_no_gaps(shift: float, slope: float) -> None:
    x = np.linspace(-1, 1, 241)
    rows = plot_lines([(x, np.tanh(slope * (x - shift / 100)))], (-1, 1, -1.05, 1.05), 30, 6)
    columns = np.array([[character != "\N{BRAILLE PATTERN BLANK}" for character in row] for row in rows]).any(0)
    assert columns.all()
    if abs(shift) < 40 and slope > 10:
        assert np.array([[character != "\N{BRAILLE PATTERN BLANK}" for character in row] for row in rows]).any(1).all()


@pytest.mark.parametrize(("width", "beside"), [(WIDTH, 1), (2 * WIDTH + len(GAP) - 1, 1), (2 * WIDTH + len(GAP), 2), (80, 2),
                                               (96, 3), (131, 4), (500, 4)])
def test_sketches_of_neurons_stand_side_by_side(width: int, beside: int) -> None:
    rows = arrange_sketches([sketch_neuron(CURVES, row) for row in (0, 1, 2, 8)], width)
    assert len(rows) == -(-4 // beside)
    assert {len(row.splitlines()) for row in rows} == {HEIGHT + 2}
    assert max(len(line) for row in rows for line in row.splitlines()) <= width
    names = ("0.0 constant", "0.1 left the network", "0.2 native", "0.8 affine")
    assert [name in rows[k // beside].splitlines()[0] for k, name in enumerate(names)] == [True] * 4


def test_sketches_that_do_not_fit_are_left_out() -> None:
    wide, narrow = "w" * 40 + "\n" + "w" * 40, "n" * 20
    assert arrange_sketches([wide, narrow, narrow], 39) == [narrow, narrow]
    assert arrange_sketches([wide, narrow, narrow], 43) == [wide, narrow + GAP + narrow]
    assert arrange_sketches([wide, narrow], 19) == []


def test_a_sketch_of_a_population() -> None:
    text = sketch_training(make_training_curves(make_rows(3, 9), "accuracy", [0.9] * 3, 0)).splitlines()
    assert text[0] == "median validation accuracy by epoch"
    assert text[1].split()[0] == "0.9434"
    assert text[-1].split() == ["1", "9"]
    assert sketch_training(make_training_curves(make_rows(1, 9), "accuracy", [0.9], 0)).startswith("validation accuracy by epoch")
    assert sketch_training(make_training_curves([], "accuracy", [None], 0)) == ""
    assert sketch_training(make_training_curves(make_rows(3, 1), "accuracy", [0.9] * 3, 0)) == ""


def test_a_single_network_has_no_quartiles() -> None:
    single = make_training_curves(make_rows(1, 9), "accuracy", [0.9], 0)
    assert describe_training(single) == "validation accuracy of 1 network: 0.9000"
    assert [axes.get_title(loc="left") for axes in draw_training(single).axes][1:] == ["validation accuracy"]
    assert describe_training(make_training_curves([], "rmse", [None], 0)) == "the network diverged"


# --- doing it again


def test_the_commands_give_the_same_configuration_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read back through the command line itself."""
    from typer.testing import CliRunner

    config = TrainConfig(data="my data.npz", activation="vaf,fixed:relu", inner="tanh", hidden=(8, 4), batch_norm=True, lr=3e-4,
                         epochs=20, replicates=3, seed=7, weight_decay=0.0)
    budget = Budget(max_drop=0.1, target="native", target_macs="55%", include=("0", "body.1.*"))
    report = dataclasses.replace(REPORT, config=to_json(config), budget=budget, options={
        "replicate": 2, "data": None, "data_dir": None, "opset": 19, "finetune": 3, "plan": False})
    install, train, compress = (shlex.split(" ".join(words)) for words in make_commands(report))
    assert install == ["pip", "install", "mncompress==0.1.0", "onnxruntime==1.31.0"]
    seen: dict[str, Any] = {}

    def keep(config: Any, **options: Any) -> None:
        seen.update(config=config, **options)
        raise ConfigError("enough")

    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="mncompress")
    monkeypatch.setattr("mncompress.training.train", keep)
    CliRunner().invoke(entry.load(), train[1:], prog_name="mncompress")
    assert seen["config"] == config
    assert seen["out"] == Path("run")
    monkeypatch.setattr("mncompress.checkpoint.load_run", lambda folder: folder)
    monkeypatch.setattr("mncompress.pipeline.compress", lambda run, budget, **given: keep(None, run=run, budget=budget, **given))
    CliRunner().invoke(entry.load(), compress[1:], prog_name="mncompress")
    assert seen["budget"] == budget
    assert (seen["run"], seen["replicate"], seen["opset_version"], seen["finetune"]) == (Path("run"), 2, 19, 3)


def test_a_plan_that_was_given_is_given_again() -> None:
    report = dataclasses.replace(REPORT, options={**REPORT.options, "plan": True}, budget=Budget(target_macs="55%"), config={})
    _, command = make_commands(report)
    assert " ".join(command) == "mncompress compress run --plan plan.json --replicate 1 --out compressed"


# --- inspect


def test_inspection_of_a_compressed_network_has_the_charts_of_the_page(tmp_path: Path) -> None:
    inspection = inspect_curves(CURVES, tmp_path, report=REPORT, formats=("svg",), most=3)
    assert [path.name for path in inspection.pictures] == ["frontier.svg", "latency.svg", "activations-1.svg"]
    assert all(path.read_text().startswith("<?xml") for path in inspection.pictures)
    order = sorted(range(len(CURVES)), key=lambda row: -CURVES.sensitivity[row])
    drawn = inspection.pictures[-1].read_text()
    assert drawn.count('id="axes_') == 3
    first = f"{CURVES.layer[order[0]]}.{CURVES.index[order[0]]}"
    assert first in inspection.sketches[0]
    assert inspection.notes == ("3 of 26 neurons are drawn, the most sensitive; --most 0 draws all",)
    assert [row.left for row in inspection.neurons] == list(CURVES.left)             # type: ignore[arg-type]


@pytest.mark.parametrize(("formats", "most", "message"), [
    (("gif",), 0, "pictures can be png and svg, got 'gif'"), ((), 0, "got none"), (("png",), -1, "must not be negative, got -1")])
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, formats: tuple[str, ...], most: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        inspect_curves(CURVES, tmp_path, formats=formats, most=most)
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", to_json(REPORT))
    assert to_json(load_report(tmp_path / "report.json")) == to_json(REPORT)


def test_a_report_of_before_trials_were_kept_is_read_too(tmp_path: Path) -> None:
    document = to_json(REPORT)
    for name in ("trials", "layers", "options"):
        del document[name]
    write_json(tmp_path / "report.json", document)
    assert load_report(tmp_path / "report.json").trials == ()


@pytest.mark.parametrize(("content", "message"), [
    (None, "is missing"), (b"{", "is damaged"), (b"[]", "is damaged"), (b"\xff\xfe", "is damaged"),
    (json.dumps({**to_json(REPORT), "schema": "mncompress.report/9"}).encode(), "is damaged"), (b"[" * 100_000, "is damaged")])
def test_a_damaged_report_is_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_report(tmp_path / "report.json")
    assert "\n" not in str(caught.value)
    assert "run mncompress compress again" in str(caught.value)


@pytest.mark.parametrize(("field", "value", "message"), [
    ("drop_upper_bound", "1e308", "the number 1e+308 is out of range"), ("drop", '"nan"', "the number nan is out of range"),
    ("max_abs_logit_error", "-Infinity", "the number -inf is out of range"),
    ("macs", "9" * 30, "a whole number has more than 64 bits"),
])
def test_reports_with_numbers_that_cannot_be_drawn_are_refused(tmp_path: Path, field: str, value: str, message: str) -> None:
    document = to_json(REPORT)
    document["trials"][0][field] = "HERE"
    (tmp_path / "report.json").write_text(json.dumps(document).replace('"HERE"', value))
    with pytest.raises(CheckpointError, match=rf"report.json is damaged .*{re.escape(message)}"):
        load_report(tmp_path / "report.json")
