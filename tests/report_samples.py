"""Made-up curves, reports and a reader of pages, for the tests of the report."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np

from mncompress.report import Curves, make_grid
from mncompress.types import KINDS, Budget, LatencyRow, LayerPlan, ModelSummary, NeuronRow, Report, Speedup, Trial

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
TRIALS = (
    Trial(0.3, 0, 400, 21.0, 24.0, 9.1, False, "the drop may be 24, more than 0.1"),
    Trial(0.1, 0, 9000, 0.01, 0.08, 0.01, True, "the budget holds on the validation split"),
    Trial(0.1, 3, 5921, 0.03, 0.098, 0.02, True, "the budget holds on the validation split", taken=True),
    Trial(0.1, 5, 3000, None, None, None, False, "the compressed network's outputs are not finite"),
    Trial(0.1, 4, 4500, -0.02, 0.2, 0.05, False, "the drop may be 0.2, more than 0.1"),
)


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
        sensitivity=rng.gamma(2, 0.5, n),
        left=np.array([kind == "affine" and k % 2 == 1 for k, kind in enumerate(chosen)], bool),
        title=title,
    )


def make_latency(twin: bool = True) -> tuple[LatencyRow, ...]:
    times = {1: (9.31, 6.1, 7.94, 5.6), 32: (88.2, 41.7, 60.3, 39.9), 1024: (2410.0, 1190.0, 1702.0, 1151.0)}
    models = ("original", "compressed", "portable", "relu_twin")
    return tuple(
        LatencyRow(model, "cpu", 1, batch, us, us * 1.21, 400, us * 0.98, us * 1.03, us / row[3] if twin else None,
                   us / row[3] * 0.99 if twin else None, us / row[3] * 1.02 if twin else None)
        for batch, row in times.items() for model, us in zip(models, row, strict=True)
    )


def make_report(curves: Curves, task: str = "classification", **changes: Any) -> Report:
    rng = np.random.default_rng(1)
    classify = task == "classification"
    assert curves.kinds is not None
    assert curves.max_abs_error is not None
    assert curves.left is not None
    neurons = tuple(
        NeuronRow(int(layer), int(index), kind, bool(left), (float(lo), float(hi)), float(error),
                  float(sensitivity), int(rng.integers(0, 4)), REASONS[kind],
                  {name: f"error {rng.uniform(0.01, 0.3):.2e} is above the tolerance 4.10e-03"
                   for name in KINDS[:KINDS.index(kind)]},
                  {"intervals": 24} if kind == "cubic_spline" else {})
        for layer, index, kind, left, (lo, hi), error, sensitivity in zip(
            curves.layer, curves.index, curves.kinds, curves.left, curves.domain, curves.max_abs_error, curves.sensitivity,
            strict=True))

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
        layers=(LayerPlan(0, 2, 1e-3, 5),),
        trials=TRIALS,
        options={"replicate": 1, "data": None, "data_dir": None, "opset": 18, "finetune": 0, "plan": False},
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


def as_run_folder(curves: Curves) -> Curves:
    return dataclasses.replace(curves, replacement=None, max_abs_error=None, kinds=None, left=None)


def with_neuron(curves: Curves, domain: tuple[float, float], function: Any) -> Curves:
    """The first neuron of `curves` on another domain, with a function of `u` for its original and its replacement."""
    one = make_curves((1,))
    limits = np.array([domain])
    u = make_grid(limits)
    values = np.asarray(function(u.astype(np.float64)), np.float32)
    return dataclasses.replace(one, domain=limits, histogram_range=limits, u=u, original=values, replacement=values)


VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """A page read back: its text, its tables by label, its ids and links; fails where tags are not nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self.raw: list[tuple[str, str]] = []
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
        if self.open[-1:] in (["style"], ["script"]):
            self.raw.append((self.open[-1], data))
            return
        self.words.append(data)
        if self.region and self.open[-1] != "tr" and ("td" in self.open or "th" in self.open):
            self.tables[self.region][-1][-1] += data

    @property
    def gallery(self) -> Any:
        """The document that the page's script reads."""
        (text,) = (text for tag, text in self.raw if tag == "script" and text.startswith("{"))
        return json.loads(text)

    @property
    def script(self) -> str:
        """The script itself."""
        (text,) = (text for tag, text in self.raw if tag == "script" and not text.startswith("{"))
        return text

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
