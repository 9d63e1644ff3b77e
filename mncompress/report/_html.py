"""One self-contained HTML page of a compression: nothing is loaded from elsewhere, and it opens from a disk.

Every text is escaped by the template engine or set as text by the script; the only script that the page's policy lets run is the
one written here. The gallery's pictures are drawn in the browser when they are asked for, from data that takes about two kilobytes
for a neuron (`_pack`); charts are drawn here (`_svg`), once for wide and once for narrow screens.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mncompress.files import write_text
from mncompress.report import _verdict
from mncompress.report._curves import Curves
from mncompress.report._format import FILTERS
from mncompress.report._frontier import describe_frontier, draw_frontier
from mncompress.report._latency import MODELS, Condition, group_latency
from mncompress.report._latency_plot import describe_latency, draw_latency
from mncompress.report._pack import LEFT, kind_of, name_kind, pack_gallery
from mncompress.report._reproduce import make_commands
from mncompress.report._svg import inline_svg
from mncompress.types import KINDS, LayerPlan, Report

MOST_EMBEDDED = 1024
"""Neurons on the page, the most sensitive ones: with them it stays below 3 MB."""
WIDE, NARROW = 9.2, 3.7
"""Widths of the charts in inches, for screens above and below 56 rem."""
MEANINGS = {
    "constant": "removed; its value goes into the next bias",
    "affine": "a straight line, folded into the neighbouring weights",
    "native": "one native ONNX activation, stretched and shifted",
    "piecewise_linear": "its kinks are known; one operator computes it exactly",
    "polynomial": "a polynomial of low degree",
    "cubic_spline": "a cubic spline with uniform knots",
    "kept": "the learned sub-network itself",
    LEFT: "the neuron is gone; what it passed on is in a bypass or in the weights of the others",
}
"""What each kind has become, in words."""


@dataclass(frozen=True)
class LayerRow:
    """An activated layer.

    Attributes:
        number: from 0.
        neurons: how many it had.
        kinds: what they became, as (kind, number), without zeros.
        left: how many are gone.
        plan: what was done behind the layer as a whole; None for nothing.
        outside: test samples that leave some neuron's domain, the most of any neuron.
        largest_error: of any of its neurons.
    """

    number: int
    neurons: int
    kinds: tuple[tuple[str, int], ...]
    left: int
    plan: LayerPlan | None
    outside: int
    largest_error: float


def write_html(path: Path, report: Report, curves: Curves) -> None:
    """Write the page, atomically.

    Args:
        path: where to.
        report: what the page says.
        curves: of the same network; neurons without curves are listed but not drawn.

    Raises:
        OutputError: `path` cannot be written.
    """
    write_text(path, render_html(report, curves))


def render_html(report: Report, curves: Curves) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= FILTERS | {"pretty": _pretty, "kind_name": name_kind}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    template = environment.from_string(_read("report.html.jinja"))
    neurons = sorted(report.neurons, key=lambda neuron: -neuron.sensitivity)
    conditions = group_latency(report.latency, report.speedups)
    kinds, script = _count_kinds(report), _read("report.js")
    return template.render(
        report=report,
        title=_make_title(report, curves),
        is_classification=report.argmax_flips is not None,
        models={MODELS[name]: getattr(report, name) for name in MODELS},
        model_names=MODELS,
        kinds=kinds,
        present=[(kind, n) for kind, n, _ in kinds if n],
        layers=_make_layers(report),
        conditions=conditions,
        gallery=pack_gallery(neurons[:MOST_EMBEDDED], curves),
        charts=_draw_charts(report, conditions),
        commands=make_commands(report),
        verdict=_verdict,
        style=Markup(_read("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _read(name: str) -> str:
    return files("mncompress.report").joinpath(name).read_text(encoding="utf-8")


def _make_title(report: Report, curves: Curves) -> str:
    network = curves.title or "a network with learned activations"
    data = report.config.get("data")
    return f"{network} on {Path(str(data)).name}" if data else network


def _count_kinds(report: Report) -> list[tuple[str, int, str]]:
    """Each kind with its number of neurons and its meaning; those that left are a kind of their own."""
    found = Counter(map(kind_of, report.neurons))
    return [(kind, found[kind], MEANINGS[kind]) for kind in (*KINDS, LEFT)]


def _make_layers(report: Report) -> list[LayerRow]:
    plans = {plan.layer: plan for plan in report.layers}
    layers = []
    for number in sorted({neuron.layer for neuron in report.neurons}):
        neurons = [neuron for neuron in report.neurons if neuron.layer == number]
        found = Counter(map(kind_of, neurons))
        layers.append(LayerRow(
            number, len(neurons), tuple((kind, found[kind]) for kind in (*KINDS, LEFT) if found[kind]), found[LEFT],
            plans.get(number), max(neuron.out_of_range for neuron in neurons), max(neuron.max_abs_error for neuron in neurons)))
    return layers


def _draw_charts(report: Report, conditions: Sequence[Condition]) -> dict[str, list[Markup]]:
    """The charts by name, each for wide and for narrow screens; those that there is nothing for are left out."""
    charts = {}
    if report.trials:
        text = describe_frontier(report)
        charts["frontier"] = [inline_svg(draw_frontier(report, width), f"frontier-{name}", text)
                              for name, width in (("wide", WIDE), ("narrow", NARROW))]
    if conditions:
        text = describe_latency(conditions)
        charts["latency"] = [inline_svg(draw_latency(conditions, width), f"latency-{name}", text)
                             for name, width in (("wide", WIDE), ("narrow", NARROW))]
    return charts


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
