"""The page in a browser: headless Chromium, driven by Playwright; skipped where either is missing."""

import dataclasses
import re
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_samples import make_curves, make_report

from mncompress.report import write_html
from mncompress.report._pack import kind_of
from mncompress.report._panels import make_panel
from mncompress.report._style import PALETTE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the PATH to open the page in")

CURVES = make_curves((60, 12), title="784-60-12-10 meta tanh")
REPORT = make_report(CURVES)
WIDE, PHONE = (1280, 860), (390, 844)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a page with 72 neurons in two layers."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(path, REPORT, CURVES)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser_page() -> Iterator[tuple[Any, list[str]]]:
    """A browser's one page, with everything that its console says or that it asks for but the page itself."""
    said: list[str] = []
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not request.url.endswith("/report.html") else None)
        yield page, said
        chromium.close()


@pytest.fixture
def open_page(browser_page: tuple[Any, list[str]], address: str) -> Iterator[Any]:
    """Open the page at an address' hash, and fail at the end if the console said anything or anything else was loaded."""
    page, said = browser_page

    def open_at(hash: str = "", size: tuple[int, int] = WIDE, scheme: str = "light", url: str = address) -> Any:
        page.goto("about:blank")
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.emulate_media(color_scheme=scheme)
        page.goto(url + hash)
        return page

    said.clear()
    yield open_at
    assert [text for text in said if text != "about:blank"] == []


def test_the_console_is_listened_to(browser_page: tuple[Any, list[str]]) -> None:
    page, said = browser_page
    page.evaluate("console.error('heard')")
    assert said[-1:] == ["heard"]


def shown(page: Any) -> list[str]:
    """The names of the neurons on the page, in their order."""
    names: list[str] = page.eval_on_selector_all("[data-neuron]", "items => items.map((item) => item.dataset.neuron)")
    return names


def named(neurons: Any) -> list[str]:
    return [f"{neuron.layer}.{neuron.index}" for neuron in neurons]


BY_SENSITIVITY = sorted(REPORT.neurons, key=lambda neuron: -neuron.sensitivity)


def test_it_opens_with_the_most_sensitive_neurons(open_page: Any) -> None:
    page = open_page()
    assert shown(page) == named(BY_SENSITIVITY[:24])
    assert page.inner_text("#count") == "24 of 72 shown"
    page.click("#more")
    assert shown(page) == named(BY_SENSITIVITY)
    assert not page.is_visible("#more")
    assert page.evaluate("document.activeElement.textContent") == named(BY_SENSITIVITY)[24]


def test_filters_by_layer_and_kind(open_page: Any) -> None:
    page = open_page()
    page.select_option("#layer", "1")
    assert shown(page) == named(neuron for neuron in BY_SENSITIVITY if neuron.layer == 1)
    for kind in ("cubic_spline", "left"):
        page.check(f"input[name=kind][value={kind}]", force=True)
        expected = [neuron for neuron in BY_SENSITIVITY if neuron.layer == 1 and kind_of(neuron) == kind]
        assert shown(page) == named(expected)
        assert len(expected) < 12
    page.select_option("#layer", "")
    left = [neuron for neuron in BY_SENSITIVITY if neuron.left]
    assert shown(page) == named(left)
    assert page.inner_text("#count") == f"{len(left)} of {len(left)} shown"


@pytest.mark.parametrize(("order", "key"), [
    ("error", lambda neuron: -neuron.max_abs_error), ("number", lambda neuron: (neuron.layer, neuron.index)),
    ("outside", lambda neuron: -neuron.out_of_range)])
def test_sorting(open_page: Any, order: str, key: Any) -> None:
    page = open_page()
    page.select_option("#sort", order)
    assert shown(page) == named(sorted(BY_SENSITIVITY, key=key)[:24])


def test_the_table_says_the_same(open_page: Any) -> None:
    page = open_page()
    page.check("input[name=view][value=table]", force=True)
    assert not page.is_visible("#pictures")
    assert shown(page) == named(BY_SENSITIVITY[:24])
    rows = page.eval_on_selector_all("#rows tr", "rows => rows.map((row) => row.innerText)")
    assert all(neuron.reason in row for neuron, row in zip(BY_SENSITIVITY, rows, strict=False))


def test_the_address_keeps_the_view(open_page: Any) -> None:
    page = open_page()
    page.select_option("#layer", "0")
    page.check("input[name=kind][value=native]", force=True)
    page.select_option("#sort", "number")
    kept, before = page.evaluate("location.hash"), shown(page)
    again = open_page(kept)
    assert shown(again) == before
    assert again.input_value("#layer") == "0"
    assert again.is_checked("input[name=kind][value=native]")


@pytest.mark.parametrize("hash", [
    "#layer=9&kind=%22%5D%3Cb%3E&sort=constructor&view=x&neuron=7.7", "#latency", "#%", "#neuron=%00"])
def test_an_address_of_nonsense_opens_all_the_same(open_page: Any, hash: str) -> None:
    page = open_page(hash)
    assert shown(page) == named(BY_SENSITIVITY[:24])
    assert not page.is_visible("dialog")


def test_details_by_keyboard_alone(open_page: Any) -> None:
    page = open_page()
    first, second, *_ = BY_SENSITIVITY
    page.focus("#pictures button")
    page.keyboard.press("Enter")
    assert page.inner_text("#detail-title").startswith(f"Neuron {first.layer}.{first.index} ")
    page.keyboard.press("ArrowRight")
    text = page.inner_text("dialog")
    assert f"Neuron {second.layer}.{second.index} " in text
    assert second.reason in text
    assert all(why in text for why in second.refused.values())
    assert page.evaluate("location.hash") == f"#neuron={second.layer}.{second.index}"
    page.keyboard.press("Escape")
    assert not page.is_visible("dialog")
    page.wait_for_function("() => location.hash === ''")        # the close event comes a little later
    assert page.evaluate("document.activeElement.textContent") == f"{second.layer}.{second.index}"


def test_a_picture_draws_its_own_neuron(open_page: Any) -> None:
    """The path of the learned function, read back through the plot's frame."""
    page = open_page("#layer=1&sort=number")
    for row, name in [(row, f"1.{index}") for row, index in enumerate(range(12), start=60)]:
        panel = make_panel(CURVES, row)
        figure = page.query_selector(f"[data-neuron='{name}']")
        drawn = {cls: figure.eval_on_selector(f"path.{cls}", "path => path.getAttribute('d')")
                 for cls in ("learned", "replacement")}
        box = [float(value) for value in figure.eval_on_selector("svg svg", "box => box.getAttribute('viewBox')").split()]
        for cls, values in (("learned", panel.original), ("replacement", panel.replacement)):
            points = np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", drawn[cls]), float)
            bottom, top = panel.y_limits
            found = top - (points[:, 1] - box[1]) / box[3] * (top - bottom)
            assert values is not None
            # coordinates are written to one decimal
            np.testing.assert_allclose(found, np.clip(values, 2 * bottom - top, 2 * top - bottom), rtol=0,
                                       atol=0.06 / box[3] * (top - bottom))
        label = figure.eval_on_selector("svg", "drawing => drawing.getAttribute('aria-label')")
        assert f"neuron {name}" in label
        assert "largest error" in label


@pytest.mark.parametrize("hash", ["", "#view=table", "#neuron=0.3"])
def test_nothing_is_wider_than_a_phone(open_page: Any, hash: str) -> None:
    page = open_page(hash, PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    if hash == "#neuron=0.3":
        assert page.eval_on_selector("dialog", "dialog => dialog.scrollWidth - dialog.clientWidth") <= 0
    sizes = page.evaluate("""() => [...document.querySelectorAll('p, dt, dd, th, td, button, select, li')].filter(
        (item) => item.offsetParent && item.textContent.trim()).map((item) => parseFloat(getComputedStyle(item).fontSize))""")
    assert min(sizes) >= 13


def test_light_and_dark_differ(open_page: Any) -> None:
    found = []
    for scheme in ("light", "dark"):
        page = open_page(scheme=scheme)
        found.append((page.screenshot(), page.evaluate("getComputedStyle(document.body).backgroundColor"),
                      page.eval_on_selector("#frontier .wide svg text", "text => getComputedStyle(text).fill")))
    light, dark = found
    assert light[0] != dark[0]
    assert (light[1], dark[1]) == ("rgb(255, 255, 255)", "rgb(17, 22, 27)")
    assert light[2] != dark[2]


def test_paper_is_white_whatever_the_theme(open_page: Any) -> None:
    page = open_page(scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.emulate_media(media="screen", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 22, 27)"


def test_what_leaves_the_difference_picture_does_not_run_along_its_edge(open_page: Any, tmp_path: Path) -> None:
    assert CURVES.replacement is not None
    outside = (CURVES.u < CURVES.domain[:, :1]) | (CURVES.u > CURVES.domain[:, 1:])
    curves = dataclasses.replace(CURVES, replacement=np.where(outside, CURVES.original + 1, CURVES.replacement).astype(np.float32))
    write_html(tmp_path / "report.html", REPORT, curves)
    page = open_page("#neuron=0.5", url=(tmp_path / "report.html").as_uri())
    drawn = page.eval_on_selector(".difference", "path => [path.getAttribute('d'), path.parentNode.viewBox.baseVal.y]")
    heights = np.array([float(point.split()[1]) for point in re.split("[ML]", drawn[0])[1:]])
    assert outside[5].sum() >= 10
    assert ((heights < drawn[1]) == outside[5]).all()


def test_the_first_screen_says_what_it_cost(open_page: Any) -> None:
    page = open_page()
    bottom = page.eval_on_selector(".became", "element => element.getBoundingClientRect().bottom")
    assert bottom < WIDE[1]
    assert page.locator(".tile").count() == 8


def test_every_picture_and_control_has_a_name(open_page: Any) -> None:
    page = open_page("#neuron=0.3")
    nameless = page.evaluate("""() => [...document.querySelectorAll('svg, [role=img], button, select, input')].filter((item) =>
        !item.closest('[aria-hidden=true]') && !item.parentElement.closest('svg') && !item.getAttribute('aria-label')
        && !(item.labels && item.labels.length) && !item.textContent.trim()).map((item) => item.outerHTML.slice(0, 80))""")
    assert nameless == []


def test_hostile_texts_stay_texts(open_page: Any, tmp_path: Path) -> None:
    hostile = '<img src=x onerror="document.title=1"></script><script>document.title=2</script>'
    curves = make_curves((3,))
    report = make_report(curves)
    neurons = tuple(dataclasses.replace(neuron, reason=hostile, refused={hostile: hostile}) for neuron in report.neurons)
    write_html(tmp_path / "report.html", dataclasses.replace(report, neurons=neurons, config={"data": hostile}), curves)
    page = open_page("#neuron=0.1", url=(tmp_path / "report.html").as_uri())
    assert hostile in page.inner_text("#detail-facts")
    assert page.locator("img").count() == 0
    assert page.title() not in ("1", "2")


# --- colors, for which no browser is needed


def read_theme(scheme: str) -> dict[str, str]:
    """The colors of the style sheet by name."""
    style = files("mncompress.report").joinpath("report.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    theme = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light))
    return theme if scheme == "light" else theme | dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", dark))


def contrast(a: str, b: str) -> float:
    """The ratio of WCAG 2.2, section 1.4.3."""
    def luminance(color: str) -> float:
        parts = [int(color[start:start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_what_the_guidelines_define() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_texts_and_graphics(scheme: str) -> None:
    theme = read_theme(scheme)
    for text in ("ink", "muted", "link"):
        for ground in ("paper", "card", "note"):
            assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
    graphics = ("learned", "accent", "twin", "focus", "constant", "affine", "native", "piecewise_linear", "polynomial",
                "cubic_spline", "kept", "left")
    for graphic in graphics:
        assert contrast(theme[graphic], theme["paper"]) >= 3, graphic
    assert contrast(theme["ink"], theme["learned"]) >= 3      # the replacement runs on the learned function
    assert len({theme[name] for name in graphics[4:]}) == 8


def test_charts_have_the_colors_of_the_light_theme() -> None:
    theme = read_theme("light")
    assert {name: theme[name] for name in PALETTE} == PALETTE
