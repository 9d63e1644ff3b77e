"""The report: curves, pictures and the HTML page, on made-up networks."""

import dataclasses
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mncompress.errors import CheckpointError, OutputError
from mncompress.report import (
    Curves,
    draw_activations,
    inspect_curves,
    load_curves,
    make_grid,
    render_html,
    save_curves,
    write_html,
)
from mncompress.report import _format as fmt
from mncompress.report._drawing import HEIGHT, WIDTH, make_drawing, make_ticks
from mncompress.report._html import MEANINGS, MOST_DRAWN, MOST_LISTED
from mncompress.report._latency import group_latency
from mncompress.report._panels import make_panel
from mncompress.report._verdict import describe_drop, describe_quality, describe_speed
from mncompress.types import KINDS, Budget, LatencyRow, ModelSummary, NeuronRow, Report, Speedup

REASONS = {
    "constant": "its output varies by 3.1e-07 on the domain; the value goes into the next bias",
    "affine": "the best straight line is within tolerance",
    "native": "equals 1.31·tanh(0.72·u − 0.1) + 0.2 by construction",
    "piecewise_linear": "the inner activation is relu, so it has 4 knots and no error",
    "polynomial": "degree 5 is within tolerance",
    "cubic_spline": "24 intervals are within tolerance",
    "kept": "nothing cheaper is within tolerance",
}

SPEEDUPS = (Speedup("cpu", 1, 1, 1.53, 1.5, 1.56), Speedup("cpu", 1, 32, 2.12, 2.0, 2.3), Speedup("cpu", 1, 1024, 2.03, 1.9, 2.1))


def make_pair(kind: str, u: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A learned function at `u` and what a network of that kind would have made of it."""
    scale, shift = rng.uniform(0.5, 1.5), rng.uniform(-0.5, 0.5)
    if kind == "constant":
        return 0.7 + 1e-7 * np.sin(u), np.full_like(u, 0.7)
    if kind == "affine":
        return scale * u + shift + 0.02 * np.sin(3 * u), scale * u + shift
    if kind == "native":
        return (scale * np.tanh(0.8 * u - shift),) * 2
    if kind == "piecewise_linear":
        return (sum(rng.normal() * np.maximum(u - k, 0) for k in rng.uniform(-2, 2, 4)),) * 2
    if kind == "polynomial":
        original = np.exp(-((u - shift) ** 2) / 4)
        return original, np.polynomial.Polynomial.fit(u, original, 6)(u)
    original = np.sin(1.5 * scale * u + shift) + 0.3 * u
    return original, original + (0.0 if kind == "kept" else 0.01 * np.cos(9 * u))


def make_curves(layers: tuple[int, ...], seed: int = 0, kinds: tuple[str, ...] = KINDS, title: str = "") -> Curves:
    rng = np.random.default_rng(seed)
    n = sum(layers)
    chosen = [kinds[k % len(kinds)] for k in range(n)]
    samples = rng.normal(rng.normal(0, 0.7, (n, 1)), rng.uniform(0.6, 1.4, (n, 1)), (n, 800))
    domain = np.stack([samples.min(1), samples.max(1)], 1)
    u = make_grid(domain)
    pairs = [make_pair(kind, row.astype(np.float64), rng) for kind, row in zip(chosen, u, strict=True)]
    return Curves(
        layer=np.repeat(np.arange(len(layers)), layers),
        index=np.concatenate([np.arange(0)] + [np.arange(size) for size in layers]),
        domain=domain,
        u=u,
        original=np.array([a for a, _ in pairs], np.float32).reshape(u.shape),
        replacement=np.array([b for _, b in pairs], np.float32).reshape(u.shape),
        histogram=np.array([np.histogram(row, 48)[0] for row in samples], np.int64).reshape(n, 48),
        histogram_range=domain.copy(),
        max_abs_error=np.array([np.abs(a - b).max() for a, b in pairs], np.float64),
        kinds=tuple(chosen),
        title=title,
    )


def make_latency(twin: bool = True) -> tuple[LatencyRow, ...]:
    times = {1: (9.31, 6.1, 7.94, 5.6), 32: (88.2, 41.7, 60.3, 39.9), 1024: (2410.0, 1190.0, 1702.0, 1151.0)}
    models = ("original", "compressed", "portable", "relu_twin")
    return tuple(
        LatencyRow(model, "cpu", 1, batch, us, us * 1.21, 400, us / row[3] if twin else None)
        for batch, row in times.items() for model, us in zip(models, row, strict=True)
    )


def make_report(curves: Curves, task: str = "classification", **changes: Any) -> Report:
    rng = np.random.default_rng(1)
    classify = task == "classification"
    assert curves.kinds is not None
    assert curves.max_abs_error is not None
    neurons = tuple(
        NeuronRow(int(layer), int(index), kind, kind == "affine" and index % 2 == 1, (float(lo), float(hi)), float(error),
                  float(rng.gamma(2, 0.5)), int(rng.integers(0, 4)), REASONS[kind],
                  {name: f"error {rng.uniform(0.01, 0.3):.2e} is above the tolerance 4.10e-03"
                   for name in KINDS[:KINDS.index(kind)]},
                  {"intervals": 24} if kind == "cubic_spline" else {})
        for layer, index, kind, (lo, hi), error in zip(
            curves.layer, curves.index, curves.kinds, curves.domain, curves.max_abs_error, strict=True))

    def summary(path: str, macs: int, size: int, nodes: int, accuracy: float, loss: float) -> ModelSummary:
        return ModelSummary(path, macs - 40, macs, size, nodes, accuracy if classify else None, loss)

    report = Report(
        original=summary("original.onnx", 12310, 31_500, 23, 0.9741, 0.0916),
        compressed=summary("compressed.onnx", 5921, 27_940, 9, 0.9738, 0.0918),
        portable=summary("portable.onnx", 5921, 29_220, 31, 0.9738, 0.0918),
        relu_twin=summary("relu_twin.onnx", 5580, 22_710, 4, 0.1133, 4.1),
        accuracy_drop=0.03 if classify else None,
        argmax_flips=5 if classify else None,
        samples=10_000,
        max_abs_logit_error=0.00123,
        logit_error_bound=0.0341,
        replacement_error_bound=0.0338,
        logit_error_bound_reason="per-neuron errors carried through the weights, over the domain and the visited range",
        certified_unchanged=0.9872 if classify else None,
        rmse_increase_percent=None if classify else 0.109,
        kinds={kind: sum(neuron.kind == kind for neuron in neurons) for kind in KINDS},
        left=sum(neuron.left for neuron in neurons),
        neurons=neurons,
        latency=make_latency(),
        speedups=SPEEDUPS,
        validation={"samples": 5000, "flips_to_wrong": 3, "flips_to_right": 1, "drop": 0.04, "drop_upper_bound": 0.098,
                    "verdict": "the budget holds on the validation split", "flips_elsewhere": None},
        budget=Budget(max_drop=0.1),
        config={"data": "mnist" if classify else "function:bessel", "activation": "meta", "inner": "tanh",
                "inner_width": 5, "hidden": [7, 3], "epochs": 20, "seed": 0, "task": task},
        notes=("The portable file is slower than the original at batch 1 under the cpu provider.",),
        environment={"mncompress": "0.1.0", "onnxruntime": "1.31.0", "python": "3.11.9", "cpu": "a processor, 2 cores",
                     "started_at": "2025-01-02T03:04:05Z"},
    )
    return dataclasses.replace(report, **changes)


@pytest.fixture(scope="module")
def curves() -> Curves:
    return make_curves((7, 3), title="784-7-3-10 meta tanh")


def as_run_folder(curves: Curves) -> Curves:
    return dataclasses.replace(curves, replacement=None, max_abs_error=None, kinds=None)


def with_neuron(curves: Curves, domain: tuple[float, float], function: Any) -> Curves:
    """The first neuron of `curves` on another domain, with a function of `u` for its original and its replacement."""
    one = make_curves((1,))
    limits = np.array([domain])
    u = make_grid(limits)
    values = np.asarray(function(u.astype(np.float64)), np.float32)
    return dataclasses.replace(one, domain=limits, histogram_range=limits, u=u, original=values, replacement=values)


# --- curves ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [lambda curves: curves, as_run_folder, lambda curves: make_curves(())])
def test_curves_round_trip(curves: Curves, change: Any, tmp_path: Path) -> None:
    saved = change(curves)
    save_curves(tmp_path / "activations.safetensors", saved)
    loaded = load_curves(tmp_path / "activations.safetensors")
    for field in dataclasses.fields(Curves):
        before, after = getattr(saved, field.name), getattr(loaded, field.name)
        assert type(before) is type(after), field.name
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype, field.name
            np.testing.assert_array_equal(before, after, strict=True)
        else:
            assert before == after, field.name
    assert [path.name for path in tmp_path.iterdir()] == ["activations.safetensors"]


def test_curves_can_be_read_by_whoever_reads_other_files(curves: Curves, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    save_curves(tmp_path / "a.safetensors", curves)
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_curves_of_strided_arrays_keep_their_values(curves: Curves, tmp_path: Path) -> None:
    strided = dataclasses.replace(curves, original=np.asfortranarray(curves.original))
    save_curves(tmp_path / "a.safetensors", strided)
    np.testing.assert_array_equal(load_curves(tmp_path / "a.safetensors").original, curves.original)


def damage_missing(path: Path, curves: Curves) -> None:
    path.unlink()


def damage_truncated(path: Path, curves: Curves) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_header(path: Path, curves: Curves) -> None:
    path.write_bytes(b"not a safetensors file")


def damage_foreign(path: Path, curves: Curves) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, path)


def damage_lacking(path: Path, curves: Curves) -> None:
    save_file({"layer": curves.layer}, path, metadata={"mncompress": '{"schema": "mncompress.curves/1"}'})


def damage_shape(path: Path, curves: Curves) -> None:
    arrays = {name: getattr(curves, name) for name in ("layer", "index", "domain", "u", "histogram", "histogram_range")}
    save_file({**arrays, "original": np.ascontiguousarray(curves.original[:, :-1])}, path,
              metadata={"mncompress": '{"schema": "mncompress.curves/1"}'})


def damage_kinds(path: Path, curves: Curves) -> None:
    save_curves(path, curves)
    path.write_bytes(path.read_bytes().replace(b"cubic_spline", b"quintispline"))


@pytest.mark.parametrize(("damage", "message"), [
    (damage_missing, "is missing"),
    (damage_truncated, "truncated or not a safetensors file"),
    (damage_header, "truncated or not a safetensors file"),
    (damage_foreign, "does not hold mncompress.curves/1"),
    (damage_lacking, "lacks the tensor 'index'"),
    (damage_shape, "original is float32 of shape (10, 240), not float32 of shape (10, 241)"),
    (damage_kinds, "kinds must be 10 of constant, affine"),
])
def test_damaged_curves_are_refused_in_one_line(curves: Curves, damage: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "activations.safetensors"
    save_curves(path, curves)
    damage(path, curves)
    with pytest.raises(CheckpointError) as caught:
        load_curves(path)
    line = str(caught.value)
    assert message in line
    assert str(path) in line
    assert "run mncompress compress again" in line
    assert "\n" not in line


@pytest.mark.parametrize(("changes", "message"), [
    ({"domain": np.zeros((10, 3))}, "domain is float64 of shape (10, 3), not float64 of shape (10, 2)"),
    ({"u": np.zeros((10, 241))}, "u is float64"),
    ({"index": np.zeros((10, 1), np.int64)}, "index is int64 of shape (10, 1)"),
    ({"kinds": None}, "given together"),
    ({"kinds": ("kept",)}, "kinds must be 10"),
])
def test_arrays_that_do_not_fit_are_refused(curves: Curves, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(curves, **changes)


@given(st.floats(-1e6, 1e6), st.one_of(st.just(0.0), st.floats(1e-2, 1e6)))
def test_grid_covers_the_domain_and_its_margins(lo: float, width: float) -> None:
    domain = np.array([[lo, lo + width]])
    u = make_grid(domain)[0].astype(np.float64)
    slack = 1e-6 * (abs(lo) + width)  # float32 rounding
    assert u[0] <= lo - 0.15 * width + slack
    assert u[-1] >= lo + 1.15 * width - slack
    assert u[0] < lo <= lo + width < u[-1]
    assert (np.diff(u) >= 0).all()


# --- panels and drawings --------------------------------------------------------------------------------------------------


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4), st.floats(-1e4, 1e4), st.floats(-100, 100))
def test_a_panel_shows_the_whole_function_inside_its_domain(lo: float, width: float, offset: float, slope: float) -> None:
    panel = make_panel(with_neuron(make_curves((1,)), (lo, lo + width), lambda u: offset + slope * np.tanh(u)), 0)
    inside = panel.original[(panel.u >= lo) & (panel.u <= lo + width)]
    bottom, top = panel.y_limits
    assert bottom < top
    assert ((inside >= bottom) & (inside <= top)).all()
    assert 2 <= len(make_ticks(bottom, top)) <= 11


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_wild_continuation_does_not_flatten_the_domain(sign: int) -> None:
    def function(u: np.ndarray) -> np.ndarray:
        return u + sign * 1e6 * np.maximum(np.abs(u) - 1, 0)

    panel = make_panel(with_neuron(make_curves((1,)), (-1.0, 1.0), function), 0)
    bottom, top = panel.y_limits
    assert 2.0 < top - bottom < 4.5


def test_rounding_of_a_constant_is_not_drawn_as_a_function() -> None:
    panel = make_panel(with_neuron(make_curves((1,)), (-1.0, 1.0), lambda u: 5.0 + 1e-6 * np.sin(30 * u)), 0)
    assert np.ptp(panel.original) < 0.01 * (panel.y_limits[1] - panel.y_limits[0])


def test_a_drawing_holds_the_functions_values() -> None:
    panel = make_panel(make_curves((3,), kinds=("cubic_spline",)), 1)
    points = np.array(re.findall(r"[ML](\S+) (-?[\d.]+)", make_drawing(panel).replacement), float)
    u = panel.x_limits[0] + points[:, 0] / WIDTH * (panel.x_limits[1] - panel.x_limits[0])
    height = panel.y_limits[1] - panel.y_limits[0]
    assert panel.replacement is not None
    # coordinates are written to one decimal: half of the last digit, and float64 rounding
    np.testing.assert_allclose(u, panel.u, rtol=0, atol=0.0501 / WIDTH * np.ptp(panel.x_limits))
    np.testing.assert_allclose(panel.y_limits[1] - points[:, 1] / HEIGHT * height, panel.replacement,
                               rtol=0, atol=0.0501 / HEIGHT * height)


def test_values_that_are_not_finite_leave_a_gap() -> None:
    def function(u: np.ndarray) -> np.ndarray:
        values = np.sin(u)
        values[0, 50:60], values[0, 100] = np.nan, np.inf
        return values

    drawing = make_drawing(make_panel(with_neuron(make_curves((1,)), (-1.0, 1.0), function), 0))
    assert drawing.original.count("M") == 3
    assert drawing.original.count("M") + drawing.original.count("L") == 241 - 11
    assert "nan" not in drawing.original + drawing.replacement


@given(st.floats(-1e8, 1e8), st.floats(1e-3, 1e8))
def test_ticks_are_inside_and_few(bottom: float, height: float) -> None:
    ticks = make_ticks(bottom, bottom + height)
    slack = 1e-9 * (abs(bottom) + height)
    assert 2 <= len(ticks) <= 5
    assert all(bottom - slack <= tick <= bottom + height + slack for tick in ticks)


# --- pictures -------------------------------------------------------------------------------------------------------------


def test_inspection_writes_every_neuron_on_pages(tmp_path: Path) -> None:
    curves = make_curves((20, 6))
    inspection = inspect_curves(curves, tmp_path / "new")
    names = [path.name for path in inspection.pictures]
    assert names == ["activations-1.png", "activations-1.svg", "activations-2.png", "activations-2.svg"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(names)
    check_png(inspection.pictures[0])
    check_png(inspection.pictures[2])
    assert [count_axes(path) for path in inspection.pictures[1::2]] == [24, 2]
    assert [(row.layer, row.index) for row in inspection.neurons] == [(0, k) for k in range(20)] + [(1, k) for k in range(6)]
    assert [row.kind for row in inspection.neurons] == list(curves.kinds or ())
    assert [row.max_abs_error for row in inspection.neurons] == list(curves.max_abs_error)  # type: ignore[arg-type]
    assert [row.domain for row in inspection.neurons] == [tuple(domain) for domain in curves.domain.tolist()]


def test_a_panel_draws_both_functions_and_the_edges(curves: Curves) -> None:
    (figure,) = draw_activations(curves)
    assert len(figure.axes) == len(curves)
    for row, axes in enumerate(figure.axes):
        first_edge, last_edge, original, replacement = axes.lines
        assert [first_edge.get_xdata()[0], last_edge.get_xdata()[0]] == curves.domain[row].tolist()
        np.testing.assert_array_equal(original.get_xydata(), np.stack([curves.u[row], curves.original[row]], 1))
        assert curves.replacement is not None
        np.testing.assert_array_equal(replacement.get_xydata(), np.stack([curves.u[row], curves.replacement[row]], 1))
        assert axes.get_title(loc="left").startswith(f"{curves.layer[row]}.{curves.index[row]} ")


def check_png(path: Path) -> None:
    """A valid PNG with the colors of the learned function, its replacement and the histogram."""
    from matplotlib.image import imread

    pixels = (255 * imread(path)[..., :3]).round().astype(int)
    for color in ((0x7C, 0xC4, 0xEA), (0x16, 0x28, 0x3A), (0xE2, 0xE5, 0xEA)):
        assert (np.abs(pixels - color).max(-1) <= 3).sum() > 100, color


def count_axes(path: Path) -> int:
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return sum(element.get("id", "").startswith("axes_") for element in root.iter())


def test_a_run_folder_has_pictures_without_replacements(curves: Curves, tmp_path: Path) -> None:
    inspection = inspect_curves(as_run_folder(curves), tmp_path)
    assert len(inspection.pictures) == 2
    assert {(row.kind, row.max_abs_error) for row in inspection.neurons} == {(None, None)}


@pytest.mark.parametrize(("domain", "value"), [
    ((0.0, 0.0), 0.0), ((1e6, 1e6), 1e7), ((-1e-9, 1e-9), 1e-12), ((-1e7, 1e7), np.nan), ((0.0, 1.0), 1e7)])
def test_degenerate_functions_are_drawn_without_a_warning(domain: tuple[float, float], value: float, tmp_path: Path) -> None:
    curves = with_neuron(make_curves((1,)), domain, lambda u: np.full_like(u, value))
    curves = dataclasses.replace(curves, histogram=np.zeros((1, 48), np.int64))
    drawing = make_drawing(make_panel(curves, 0))
    assert "nan" not in drawing.original + drawing.histogram
    assert all(path.stat().st_size > 1000 for path in inspect_curves(curves, tmp_path).pictures)


def test_pictures_are_the_same_bytes_every_time(curves: Curves, tmp_path: Path) -> None:
    first, second = (inspect_curves(curves, tmp_path / name).pictures for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_pictures_need_no_global_state_and_no_early_import(curves: Curves, tmp_path: Path) -> None:
    save_curves(tmp_path / "curves.safetensors", curves)
    code = ("import pathlib, sys, mncompress.report as report; assert 'matplotlib' not in sys.modules; "
            f"folder = pathlib.Path({str(tmp_path)!r}); "
            "next(report.draw_activations(report.load_curves(folder / 'curves.safetensors'))); "
            "assert 'matplotlib.figure' in sys.modules; assert 'matplotlib.pyplot' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_place_that_cannot_be_written_is_one_line(curves: Curves, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        inspect_curves(curves, tmp_path / "file")


# --- numbers and words ----------------------------------------------------------------------------------------------------


def test_conditions_keep_their_order_and_their_own_ratios() -> None:
    conditions = group_latency(reversed(make_latency()), SPEEDUPS)
    assert [condition.batch for condition in conditions] == [1024, 32, 1]
    assert [row.model for row in conditions[0].rows] == ["original", "compressed", "portable", "relu_twin"]
    assert [condition.speedup for condition in conditions] == list(reversed(SPEEDUPS))
    assert [condition.compressed_to_twin for condition in conditions] == [1190.0 / 1151.0, 41.7 / 39.9, 6.1 / 5.6]
    assert group_latency(make_latency(twin=False))[0].compressed_to_twin is None
    assert group_latency(make_latency(), SPEEDUPS[1:])[0].speedup is None


@pytest.mark.parametrize(("written", "expected"), [
    (fmt.percent(0.9741), "97.41 %"), (fmt.percent(None), "—"), (fmt.count(1234567), "1 234 567"),
    (fmt.count(-1234), "−1 234"), (fmt.error(0.0), "0"), (fmt.error(0.00123), "1.2e-03"), (fmt.error(None), "—"),
    (fmt.at_most(0.0341), "3.5e-02"), (fmt.at_most(0.034), "3.4e-02"), (fmt.at_most(9.91), "1.0e+01"), (fmt.at_most(0.0), "0"),
    (fmt.share_at_least(0.99999), "99.9 %"), (fmt.share_at_least(1.0), "100.0 %"), (fmt.share_at_least(0.987), "98.7 %"),
    (fmt.fixed(0.303), "0.30300"), (fmt.fixed(12345.0), "12345"), (fmt.number(-0.5), "−0.5"), (fmt.number(5000), "5000"),
    (fmt.microseconds(9.314), "9.31"), (fmt.microseconds(88.24), "88.2"), (fmt.microseconds(2410.4), "2410"),
    (fmt.kilobytes(31_540), "31.5 kB"), (fmt.ratio(1.534), "1.53×"), (fmt.words("piecewise_linear"), "piecewise linear"),
])
def test_numbers_are_written(written: str, expected: str) -> None:
    assert written.replace("\N{NARROW NO-BREAK SPACE}", " ") == expected


@given(st.floats(1e-30, 1e30))
def test_a_written_bound_is_a_bound(bound: float) -> None:
    assert bound * (1 - 1e-11) <= float(fmt.at_most(bound)) <= bound * 1.11


@given(st.floats(0, 1))
def test_a_written_guarantee_is_never_more_than_was_guaranteed(share: float) -> None:
    written = float(fmt.share_at_least(share).split("\N{NARROW NO-BREAK SPACE}")[0]) / 100
    assert share - 0.001 - 1e-9 <= written <= share + 1e-9


@pytest.mark.parametrize(("speedup", "sentence"), [
    (Speedup("cpu", 1, 1, 1.53, 1.5, 1.56), "it is 1.53× as fast as its original and takes 1.09× the time"),
    (Speedup("cpu", 1, 1, 0.81, 0.79, 0.83), "it is slower than its original (0.81× its speed) and takes"),
    (Speedup("cpu", 1, 1, 1.02, 0.97, 1.05), "it is about as fast as its original (1.02×, no clear difference)"),
])
def test_the_verdict_on_speed(speedup: Speedup, sentence: str) -> None:
    assert sentence in describe_speed(group_latency(make_latency(), [speedup]))


def test_the_verdict_on_speed_names_the_first_and_the_last_batch() -> None:
    sentences = describe_speed(group_latency(make_latency(), SPEEDUPS))
    assert re.findall(r"At batch (\d+) \(cpu\) it is ([\d.]+)×", sentences) == [("1", "1.53"), ("1024", "2.03")]
    assert describe_speed(group_latency(make_latency()[:4], SPEEDUPS)).count("At batch") == 1


def test_the_verdict_without_measurements() -> None:
    assert describe_speed(()) == ""
    assert describe_speed(group_latency(make_latency(twin=False))) == ""


def test_the_verdict_on_quality(curves: Curves) -> None:
    same = make_report(curves, argmax_flips=0)
    assert "Not one of" in describe_quality(same)
    assert "stays at 97.41" in describe_quality(same)
    assert [describe_drop(drop) for drop in (0.0, 0.03, -0.03, 0.004)] == [
        "unchanged", "0.03 points lower", "0.03 points higher", "0.004 points lower"]


# --- the page -------------------------------------------------------------------------------------------------------------

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """A page read back: its text, its tables by label, its ids and links; fails where tags are not nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self.region = ""
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), (tag, names)
        values = {name: value or "" for name, value in attributes}
        self.elements.append((tag, values))
        if tag not in VOID:
            self.open.append(tag)
        if values.get("role") == "region":
            self.region = values["aria-label"]
            self.tables[self.region] = []
        if "table" in self.open and self.region:
            rows = self.tables[self.region]
            if tag == "tr":
                rows.append([])
            elif tag in ("td", "th"):
                rows[-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag
        if tag == "table":
            self.region = ""

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if self.region and self.open[-1] != "tr" and ("td" in self.open or "th" in self.open):
            self.tables[self.region][-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def rows(self, table: str) -> list[list[str]]:
        return [[re.sub(r"\s+", " ", cell).strip() for cell in row] for row in self.tables[table]]


def value_of(cell: str) -> float:
    """The number in a cell, as a fraction where it is per cent."""
    number = re.match(r"−?[\d ]*\.?\d+(e[+-]\d+)?", cell)
    assert number, cell
    value = float(number.group().replace(" ", "").replace("−", "-"))
    return value / 100 if cell.endswith("%") else value


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_page_is_well_formed_accessible_and_self_contained(curves: Curves, task: str) -> None:
    html = render_html(make_report(curves, task), curves)
    page = Page(html)
    ids = [values["id"] for _, values in page.elements if "id" in values]
    assert len(ids) == len(set(ids)) == len(curves)
    for tag, values in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "img"), tag
        assert not {"src", "srcset", "action", "onclick", "onload"} & set(values)
        if "href" in values:
            assert values["href"][1:] in ids
            assert values["href"][0] == "#"
        if tag == "th":
            assert values["scope"] in ("col", "row", "rowgroup")
        if tag == "svg" and values.get("viewbox", "").startswith("0 0 240"):
            assert values["role"] == "img"
            assert "largest difference is" in values["aria-label"]
    assert not re.search(r"https?:|url\(|@import|//", html.lower().replace("<!--", ""))
    assert ("html", {"lang": "en"}) in page.elements
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert "prefers-color-scheme: dark" in html
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", html.lower())


def test_the_tables_hold_the_numbers_of_the_report(curves: Curves) -> None:
    report = make_report(curves)
    page = Page(render_html(report, curves))
    neurons = page.rows("Neurons")[1:]
    expected = sorted(report.neurons, key=lambda neuron: -neuron.sensitivity)
    assert [row[0] for row in neurons] == [f"{neuron.layer}.{neuron.index}" for neuron in expected]
    for row, neuron in zip(neurons, expected, strict=True):
        assert row[1].removesuffix(" (left)") == neuron.kind.replace("_", " ")
        assert row[1].endswith("(left)") == neuron.left
        lo, hi = row[2].split(" to ")
        # three digits are written, two of an error: half of the last digit, relative to the smallest leading digit
        np.testing.assert_allclose([value_of(lo), value_of(hi), value_of(row[4])], [*neuron.domain, neuron.sensitivity],
                                   rtol=5.1e-3, atol=0)
        np.testing.assert_allclose(value_of(row[3]), neuron.max_abs_error, rtol=5.1e-2, atol=0)
        assert value_of(row[5]) == neuron.out_of_range
        assert neuron.reason in row[6]
        assert all(why in row[6] and kind.replace("_", " ") in row[6] for kind, why in neuron.refused.items())
    assert {row[0]: int(row[1]) for row in page.rows("Kinds")[1:]} == {
        kind.replace("_", " "): n for kind, n in report.kinds.items()}
    assert set(MEANINGS) == set(KINDS)
    for row, name in zip(page.rows("The files")[1:], ("original", "compressed", "portable", "relu_twin"), strict=True):
        model: ModelSummary = getattr(report, name)
        assert row[1] == model.path
        assert [value_of(cell) for cell in row[4:7]] == [model.macs, model.parameters, model.nodes]
        assert value_of(row[7]) == pytest.approx(model.file_bytes / 1000, rel=0, abs=0.051)
        if name == "relu_twin":  # not trained: its answers say nothing
            assert row[2:4] == ["—", "—"]
        else:
            assert value_of(row[2]) == pytest.approx(model.accuracy, rel=0, abs=5.1e-5)
            assert value_of(row[3]) == pytest.approx(model.loss, rel=5.1e-5, abs=0)


def test_every_figure_draws_its_own_neuron(curves: Curves) -> None:
    html = render_html(make_report(curves), curves)
    figures = dict(re.findall(r'<figure id="neuron-(\d+-\d+)">(.*?)</figure>', html, re.DOTALL))
    assert len(figures) == len(curves)
    for row in range(len(curves)):
        drawing, figure = make_drawing(make_panel(curves, row)), figures[f"{curves.layer[row]}-{curves.index[row]}"]
        for name, path in (("learned", drawing.original), ("replacement", drawing.replacement), ("histogram", drawing.histogram)):
            assert f'<path class="{name}" d="{path}"/>' in figure


def test_the_latency_table_holds_the_measurements(curves: Curves) -> None:
    report = make_report(curves)
    rows = Page(render_html(report, curves)).rows("Latency")[1:]
    heads = [row[0] for row in rows if len(row) == 1]
    assert len(heads) == 3
    for head, speedup in zip(heads, SPEEDUPS, strict=True):
        assert head.startswith(f"cpu, 1 thread, batch {speedup.batch} ")
        assert f"{speedup.ratio:.2f}× as fast as the original (95 % interval {speedup.low:.2f}× to {speedup.high:.2f}×)" in head
    for row, latency in zip([row for row in rows if len(row) > 1], report.latency, strict=True):
        assert row[0] == {"relu_twin": "ReLU twin"}.get(latency.model, latency.model)
        # at least three digits are written
        np.testing.assert_allclose([value_of(row[1]), value_of(row[2])], [latency.median_us, latency.p95_us], rtol=5.1e-3, atol=0)
        assert value_of(row[3]) == latency.runs
        assert value_of(row[4]) == pytest.approx(latency.ratio_to_relu_twin, rel=0, abs=5.1e-3)


def test_the_first_screen_of_a_classification(curves: Curves) -> None:
    report = make_report(curves)
    text = Page(render_html(report, curves)).text
    for words in ("Accuracy 97.41 % before and 97.38 % after compression: 5 of 10 000 test samples changed their class.",
                  "At batch 1 (cpu) it is 1.53× as fast as its original and takes 1.09× the time of the same network with ReLU.",
                  "0.03 points lower", "1.2e-03 measured; proven at most 3.5e-02", "98.7 %", "31.5 kB → 27.9 kB",
                  "23 → 9 nodes", *report.notes):
        assert words in text.replace(" → ", " → "), words
    assert text.index(report.notes[0]) < text.index("Accuracy on the test split")


def test_the_first_screen_of_a_regression_without_a_bound(curves: Curves) -> None:
    report = make_report(curves, "regression", logit_error_bound=None, replacement_error_bound=None, speedups=(),
                         logit_error_bound_reason="the last layer was fine-tuned")
    page = Page(render_html(report, curves))
    assert "RMSE 0.30265 before and 0.30299 after compression, on 10 000 test samples." in page.text
    assert "+0.109 % on 10 000 samples" in page.text
    assert "measured; no bound" in page.text
    assert "the last layer was fine-tuned" in page.text
    assert "accuracy" not in " ".join(page.rows("The files")[0])
    assert "changed their class" not in page.text


def test_hostile_strings_are_text(curves: Curves) -> None:
    hostile = '<script>alert("x")</script>\'"&</pre></style>'
    report = make_report(curves)
    neurons = tuple(dataclasses.replace(neuron, reason=hostile, refused={hostile: hostile}, settings={hostile: hostile})
                    for neuron in report.neurons)
    rows = tuple(dataclasses.replace(row, model=hostile, provider=hostile) for row in report.latency)
    report = dataclasses.replace(report, neurons=neurons, notes=(hostile,), config={"data": hostile, hostile: hostile},
                                 environment={hostile: {hostile: hostile}}, validation={hostile: hostile}, latency=rows,
                                 logit_error_bound_reason=hostile, original=dataclasses.replace(report.original, path=hostile))
    page = Page(render_html(report, dataclasses.replace(curves, title=hostile)))
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count('alert("x")') > 3 * len(neurons)
    attributes = {name for _, values in page.elements for name in values}
    assert attributes <= {"lang", "charset", "name", "content", "http-equiv", "class", "role", "aria-label", "aria-hidden", "id",
                          "style", "tabindex", "scope", "colspan", "href", "viewbox", "d", "x", "y", "width", "height",
                          "text-anchor"}


def test_a_thousand_neurons_stay_small_and_say_what_is_left_out(tmp_path: Path) -> None:
    curves = make_curves((512, 512), title="784-512-512-10 meta tanh")
    write_html(tmp_path / "report.html", make_report(curves), curves)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.elements].count("figure") == MOST_DRAWN
    assert len(page.rows("Neurons")) == 1 + MOST_LISTED
    assert f"The {MOST_DRAWN} most sensitive of 1 024 neurons, most sensitive first; {1024 - MOST_DRAWN} are not" in page.text
    assert f"The {MOST_LISTED} most sensitive of 1 024, most sensitive first; all are in report.json ." in page.text
    assert [tag for tag, _ in page.elements].count("a") == MOST_DRAWN


def test_nothing_left_to_say_is_said(tmp_path: Path) -> None:
    curves = make_curves(())
    report = make_report(curves, latency=(), speedups=(), notes=(), validation={}, environment={}, config={},
                         certified_unchanged=None)
    page = Page(render_html(report, curves))
    for words in ("a network with learned activations", "No latency was measured.", "No activation is drawn.",
                  "0 learned activations.", "no certificate, see below"):
        assert words in page.text
