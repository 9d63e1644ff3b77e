"""The report: curves, pictures and the HTML page, on made-up networks."""

import base64
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import SPEEDUPS, Page, as_run_folder, make_curves, make_latency, make_report, value_of, with_neuron
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
from mncompress.report._html import MEANINGS, MOST_EMBEDDED
from mncompress.report._latency import group_latency
from mncompress.report._pack import LEFT, kind_of, pack_gallery
from mncompress.report._panels import make_panel
from mncompress.report._style import PALETTE
from mncompress.report._verdict import describe_drop, describe_quality, describe_speed
from mncompress.types import KINDS, ModelSummary, Speedup


@pytest.fixture(scope="module")
def curves() -> Curves:
    return make_curves((7, 3), title="784-7-3-10 meta tanh")


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
    names = "layer", "index", "domain", "u", "histogram", "histogram_range", "sensitivity"
    arrays = {name: getattr(curves, name) for name in names}
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


# --- the gallery's data -----------------------------------------------------------------------------------------------------


def unpack(packed: dict[str, Any], number: int) -> dict[str, np.ndarray]:
    """The curves of a neuron as `_pack` says they are written."""
    points, neuron = packed["points"], packed["neurons"][number]
    content = base64.b64decode(neuron["curves"])
    assert len(content) == 5 * points + packed["bins"]
    bottom, top = neuron["y"]
    codes = np.frombuffer(content[:4 * points], "<u2").astype(np.float64)
    values = np.where(codes == 65535, np.nan, 2 * bottom - top + 3 * (top - bottom) * codes / 65534)
    difference = np.frombuffer(content[4 * points:5 * points], np.int8).astype(np.float64)
    return {"original": values[:points], "replacement": values[points:],
            "difference": np.where(difference == -128, np.nan, neuron["peak"] * difference / 100),
            "heights": np.frombuffer(content[5 * points:], np.uint8) / 255}


def test_packed_curves_hold_the_functions_values(curves: Curves) -> None:
    packed = pack_gallery(make_report(curves).neurons, curves)
    for number in range(len(curves)):
        panel, found, neuron = make_panel(curves, number), unpack(packed, number), packed["neurons"][number]
        bottom, top = panel.y_limits
        tolerance = 3 * (top - bottom) / 65534      # one step of the code
        assert panel.replacement is not None
        for name, values in (("original", panel.original), ("replacement", panel.replacement)):
            np.testing.assert_allclose(found[name], np.clip(values, 2 * bottom - top, 2 * top - bottom), rtol=0, atol=tolerance)
        inside = (panel.u >= panel.domain[0]) & (panel.u <= panel.domain[1])
        difference = panel.replacement - panel.original
        largest = 1.27 * neuron["peak"]
        np.testing.assert_allclose(found["difference"], np.clip(difference, -largest, largest), rtol=0,
                                   atol=0.51 * neuron["peak"] / 100)
        assert neuron["peak"] == np.abs(difference[inside]).max()
        np.testing.assert_allclose(found["heights"], panel.heights, rtol=0, atol=0.51 / 255)
        # a grid is even but for float32 rounding
        np.testing.assert_allclose(np.linspace(*neuron["x"], packed["points"]), panel.u, rtol=0, atol=1e-6 * np.ptp(panel.u))


def test_values_that_are_not_finite_are_packed_as_gaps() -> None:
    def function(u: np.ndarray) -> np.ndarray:
        values = np.sin(u)
        values[0, 50:60], values[0, 100] = np.nan, np.inf
        return values

    curves = with_neuron(make_curves((1,)), (-1.0, 1.0), function)
    found = unpack(pack_gallery(make_report(curves).neurons, curves), 0)
    gaps = [*range(50, 60), 100]
    for name in ("original", "replacement", "difference"):
        assert np.flatnonzero(np.isnan(found[name])).tolist() == gaps


def test_a_neuron_without_curves_is_listed_without(curves: Curves) -> None:
    packed = pack_gallery(make_report(curves).neurons, curves.select(np.arange(3)))
    assert ["curves" in neuron for neuron in packed["neurons"]] == [True] * 3 + [False] * 7


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
    for row, axes in enumerate(figure.axes):        # in the order of the curves
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
    for role in ("learned", "ink", "histogram"):
        color = [int(PALETTE[role][start:start + 2], 16) for start in (1, 3, 5)]
        assert (np.abs(pixels - color).max(-1) <= 3).sum() > 100, role


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
    json.dumps(pack_gallery(make_report(curves).neurons, curves), allow_nan=False)
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
    (fmt.fixed(0.303), "0.30300"), (fmt.fixed(12345.0), "12345"), (fmt.fixed(-682970.0), "−6.8297·10⁵"),
    (fmt.number(-0.5), "−0.5"), (fmt.number(5000), "5000"),
    (fmt.microseconds(9.314), "9.31"), (fmt.microseconds(88.24), "88.2"), (fmt.microseconds(2410.4), "2410"),
    (fmt.file_size(31_540), "31.5 kB"), (fmt.file_size(999_949), "999.9 kB"), (fmt.file_size(999_950), "1.00 MB"),
    (fmt.ratio(1.534), "1.53×"), (fmt.words("piecewise_linear"), "piecewise linear"),
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

@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_page_is_well_formed_accessible_and_self_contained(curves: Curves, task: str) -> None:
    html = render_html(make_report(curves, task), curves)
    page = Page(html)
    ids = [values["id"] for _, values in page.elements if "id" in values]
    assert len(ids) == len(set(ids))
    for tag, values in page.elements:
        assert tag not in ("link", "iframe", "object", "img"), tag
        assert not {"src", "srcset", "action", "onclick", "onload"} & set(values)
        if "href" in values:
            assert values["href"][0] == "#"
            assert values["href"][1:] in ids
        if tag == "th":
            assert values["scope"] in ("col", "row", "rowgroup")
        if tag == "svg":
            assert values.get("aria-hidden") == "true" or (values["role"] == "img" and len(values["aria-label"]) > 60)
    assert [values for tag, values in page.elements if tag == "script"] == [{"type": "application/json", "id": "gallery-data"}, {}]
    assert not re.search(r"https?:|url\((?!#)|@import", html.lower())
    assert ("html", {"lang": "en"}) in page.elements
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert "prefers-color-scheme: dark" in html
    assert not re.search(r"\b(nan|inf|infinity|none|undefined)\b", page.text.lower().replace("none of", ""))


def test_only_the_pages_own_script_may_run(curves: Curves) -> None:
    page = Page(render_html(make_report(curves), curves))
    (policy,) = (values["content"] for _, values in page.elements if values.get("http-equiv") == "Content-Security-Policy")
    expected = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert f"script-src 'sha256-{expected}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert "innerHTML" not in page.script


def test_the_gallery_holds_the_numbers_of_the_report(curves: Curves) -> None:
    report = make_report(curves)
    page = Page(render_html(report, curves))
    expected = sorted(report.neurons, key=lambda neuron: -neuron.sensitivity)
    packed = page.gallery["neurons"]
    assert [(row["layer"], row["index"], row["kind"]) for row in packed] == [(n.layer, n.index, kind_of(n)) for n in expected]
    for row, neuron in zip(packed, expected, strict=True):
        assert (row["error"], row["sensitivity"], row["outside"]) == (neuron.max_abs_error, neuron.sensitivity, neuron.out_of_range)
        lo, hi = row["shown"]["domain"].split(" to ")
        # three digits are written, two of an error: half of the last digit, relative to the smallest leading digit
        np.testing.assert_allclose([value_of(lo), value_of(hi), value_of(row["shown"]["sensitivity"])],
                                   [*neuron.domain, neuron.sensitivity], rtol=5.1e-3, atol=0)
        np.testing.assert_allclose(value_of(row["shown"]["error"]), neuron.max_abs_error, rtol=5.1e-2, atol=0)
        assert value_of(row["shown"]["outside"]) == neuron.out_of_range
        assert (row["reason"], row["refused"]) == (neuron.reason, dict(neuron.refused))
    values = [values["value"] for tag, values in page.elements if tag == "input" and values["name"] == "kind"]
    assert values == ["", *(kind for kind in (*KINDS, LEFT) if any(kind_of(neuron) == kind for neuron in report.neurons))]


def test_the_tables_hold_the_numbers_of_the_report(curves: Curves) -> None:
    report = make_report(curves)
    page = Page(render_html(report, curves))
    gone = sum(neuron.left for neuron in report.neurons)
    assert gone == 1
    assert {row[0]: int(row[1]) for row in page.rows("Kinds")[1:]} == {
        **{kind.replace("_", " "): n - gone * (kind == "affine") for kind, n in report.kinds.items()}, "left the network": gone}
    assert set(MEANINGS) == {*KINDS, LEFT}
    layers = [[neuron for neuron in report.neurons if neuron.layer == layer] for layer in (0, 1)]
    for row, neurons, behind in zip(page.rows("Layers")[1:], layers, (["2", "5", "0.001"], ["—", "—", "—"]), strict=True):
        assert row[1:6] == [str(len(neurons)), str(sum(neuron.left for neuron in neurons)), *behind]
        assert value_of(row[6]) == pytest.approx(max(neuron.max_abs_error for neuron in neurons), rel=5.1e-2, abs=0)
        assert int(row[7]) == max(neuron.out_of_range for neuron in neurons)
    for row, trial in zip(page.rows("Trials")[1:], report.trials, strict=True):
        assert [value_of(row[0]), value_of(row[1])] == [trial.macs, trial.left]
        assert row[2] == "—" if trial.drop is None else value_of(row[2]) == trial.drop
        assert row[5] == ("taken: " if trial.taken else "") + trial.reason
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


def test_the_latency_table_holds_the_measurements(curves: Curves) -> None:
    report = make_report(curves)
    rows = Page(render_html(report, curves)).rows("Latency")[1:]
    heads = [row[0] for row in rows if len(row) == 1]
    assert len(heads) == 3
    for head, speedup in zip(heads, SPEEDUPS, strict=True):
        assert head.startswith(f"cpu, 1 thread, batch {speedup.batch} ")
        assert f"{speedup.ratio:.2f}× as fast as the original in the faster of its two forms" in head
        assert f"(95 % interval {speedup.low:.2f}× to {speedup.high:.2f}×)" in head
    for row, latency in zip([row for row in rows if len(row) > 1], report.latency, strict=True):
        assert row[0] == {"relu_twin": "ReLU twin"}.get(latency.model, latency.model)
        # at least three digits are written
        np.testing.assert_allclose(
            [value_of(row[1]), *map(value_of, row[2].split(" to ")), value_of(row[3])],
            [latency.median_us, latency.median_low, latency.median_high, latency.p95_us], rtol=5.1e-3, atol=0)
        assert value_of(row[4]) == latency.runs
        assert value_of(row[5]) == pytest.approx(latency.ratio_to_relu_twin, rel=0, abs=5.1e-3)
        np.testing.assert_allclose([float(cell.strip("×")) for cell in row[6].split(" to ")],
                                   [latency.ratio_low, latency.ratio_high], rtol=0, atol=5.1e-3)


def test_the_first_screen_of_a_classification(curves: Curves) -> None:
    report = make_report(curves)
    text = Page(render_html(report, curves)).text
    for words in ("Accuracy 97.41 % before and 97.38 % after compression: 5 of 10 000 test samples changed their class.",
                  "At batch 1 (cpu) it is 1.53× as fast as its original and takes 1.09× the time of the same network with ReLU.",
                  "0.03 points lower", "0.0012 measured; proven at most 0.035", "98.7 %", "31.5 kB → 27.9 kB", "5 of 10 000",
                  "23 → 9 nodes", "12 310 → 5 921 −52 %", "1.53× batch 1: 1.53×", "1.09× batch 1: 1.09×", *report.notes):
        assert words in text, words
    assert text.index(report.notes[0]) < text.index("The learned activations")


def test_the_first_screen_of_a_regression_without_a_bound(curves: Curves) -> None:
    report = make_report(curves, "regression", logit_error_bound=None, replacement_error_bound=None, speedups=(),
                         logit_error_bound_reason="the last layer was fine-tuned")
    page = Page(render_html(report, curves))
    assert "RMSE 0.30265 before and 0.30299 after compression, on 10 000 test samples." in page.text
    assert "+0.109 %, in units of the targets' spread, on 10 000 samples" in page.text
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
    report = dataclasses.replace(report, trials=(dataclasses.replace(report.trials[1], reason=hostile),), options={"data": hostile})
    page = Page(render_html(report, dataclasses.replace(curves, title=hostile)))
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert page.text.count('alert("x")') > 10
    assert {neuron["reason"] for neuron in page.gallery["neurons"]} == {hostile}
    attributes = {name for _, values in page.elements for name in values}
    assert attributes <= {"lang", "charset", "name", "content", "http-equiv", "class", "role", "aria-label", "aria-hidden", "id",
                          "style", "tabindex", "scope", "colspan", "href", "viewbox", "d", "x", "y", "width", "height", "type",
                          "value", "checked", "for", "hidden", "aria-labelledby", "transform", "clip-path"}


def test_a_thousand_neurons_stay_small(tmp_path: Path) -> None:
    curves = make_curves((512, 512), title="784-512-512-10 meta tanh", kinds=("kept",))
    report = make_report(curves)
    wordy = tuple(dataclasses.replace(neuron, reason="r" * 120, refused=dict.fromkeys(KINDS[:-1], "r" * 60), settings={"degree": 7})
                  for neuron in report.neurons)     # longer than any that the planner gives
    write_html(tmp_path / "report.html", dataclasses.replace(report, neurons=wordy), curves)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(page.gallery["neurons"]) == 1024 == MOST_EMBEDDED
    assert all("curves" in neuron for neuron in page.gallery["neurons"])


def test_the_page_says_what_is_left_out() -> None:
    curves = make_curves((MOST_EMBEDDED + 7,))
    page = Page(render_html(make_report(curves), curves))
    assert len(page.gallery["neurons"]) == MOST_EMBEDDED
    assert "The 1 024 most sensitive of 1 031 neurons" in page.text


def test_nothing_left_to_say_is_said(tmp_path: Path) -> None:
    curves = make_curves(())
    report = make_report(curves, latency=(), speedups=(), notes=(), validation={}, environment={}, config={},
                         certified_unchanged=None, trials=(), layers=(), options={})
    page = Page(render_html(report, curves))
    for words in ("a network with learned activations", "No latency was measured.", "no activation is drawn",
                  "0 learned activations", "no certificate, see below", "What the planner tried was not recorded."):
        assert words in page.text
    assert "script" not in [tag for tag, _ in page.elements]


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e300])
def test_files_of_curves_that_cannot_be_drawn_are_refused(curves: Curves, value: float, tmp_path: Path) -> None:
    path = tmp_path / "activations.safetensors"
    save_curves(path, dataclasses.replace(curves, domain=np.full((len(curves), 2), value)))
    with pytest.raises(CheckpointError, match="domain has values that are not finite"):
        load_curves(path)
