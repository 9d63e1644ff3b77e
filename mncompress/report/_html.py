"""One self-contained HTML page of a compression: no script, nothing loaded from elsewhere.

Every text is escaped by the template engine. Pictures are inline SVG in the page's own colors. The page stays small for
large networks: only the most sensitive neurons are drawn and listed, and the page says how many are not.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from mncompress.files import write_text
from mncompress.report import _verdict
from mncompress.report._curves import Curves
from mncompress.report._drawing import HEIGHT, WIDTH, Drawing, make_drawing
from mncompress.report._format import FILTERS
from mncompress.report._latency import MODELS, group_latency
from mncompress.report._panels import make_panel
from mncompress.types import KINDS, NeuronRow, Report

MOST_DRAWN, MOST_LISTED = 60, 300
"""Neurons on the page."""
MEANINGS = {
    "constant": "removed; its value goes into the next bias",
    "affine": "a straight line, folded into the neighbouring weights",
    "native": "one native ONNX activation, stretched and shifted",
    "piecewise_linear": "its kinks are known; one operator computes it exactly",
    "polynomial": "a polynomial of low degree",
    "cubic_spline": "a cubic spline with uniform knots",
    "kept": "the learned sub-network itself",
}
"""What each kind has become, in words."""


@dataclass(frozen=True)
class Picture:
    """A neuron with its drawing."""

    neuron: NeuronRow
    drawing: Drawing


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
    environment.filters |= FILTERS | {"pretty": _pretty}
    template = environment.from_string(files("mncompress.report").joinpath("report.html.jinja").read_text(encoding="utf-8"))
    neurons = sorted(report.neurons, key=lambda neuron: -neuron.sensitivity)
    conditions = group_latency(report.latency, report.speedups)
    return template.render(
        report=report,
        title=_make_title(report, curves),
        is_classification=report.argmax_flips is not None,
        models={MODELS[name]: getattr(report, name) for name in MODELS},
        model_names=MODELS,
        kinds=[(kind, report.kinds.get(kind, 0), MEANINGS[kind]) for kind in KINDS],
        conditions=conditions,
        slowest=max((row.ratio_to_relu_twin or 0 for row in report.latency), default=0) or 1,
        pictures=_make_pictures(neurons[:MOST_DRAWN], curves),
        neurons=neurons[:MOST_LISTED],
        verdict=_verdict,
        plot=(WIDTH, HEIGHT),
    )


def _make_title(report: Report, curves: Curves) -> str:
    network = curves.title or "a network with learned activations"
    data = report.config.get("data")
    return f"{network} on {Path(str(data)).name}" if data else network


def _make_pictures(neurons: list[NeuronRow], curves: Curves) -> list[Picture]:
    rows = {(int(layer), int(index)): row for row, (layer, index) in enumerate(zip(curves.layer, curves.index, strict=True))}
    return [Picture(neuron, make_drawing(make_panel(curves, rows[neuron.layer, neuron.index])))
            for neuron in neurons if (neuron.layer, neuron.index) in rows]


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
