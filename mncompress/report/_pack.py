"""The gallery's data: every neuron as a small JSON object, its curves as one string that is decoded when they are drawn.

The string is base64 of: the learned function and its replacement, G little-endian 16-bit codes each; their difference, G signed
bytes; the histogram, one byte for each bin. Codes 0 to 65534 run over three heights of the plot, the middle one being what it
shows (`_panels` decides that), and 65535 is a value that is not finite. Differences are in hundredths of `peak`, the largest one
inside the domain; outside they end at 127, beyond the edge of the picture, and -128 is where there is none. Pre-activations need
no room: they run evenly from `x[0]` to `x[1]`.
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mncompress.report._curves import Curves
from mncompress.report._format import count, error, number, words
from mncompress.report._panels import Floats, Panel, make_panel
from mncompress.types import NeuronRow

LEFT = "left"
"""Stands for a kind where neurons are shown: of those that left the network nothing is there any more."""


def kind_of(neuron: NeuronRow) -> str:
    """A neuron's kind, or `LEFT`."""
    return LEFT if neuron.left else neuron.kind


def name_kind(kind: str) -> str:
    """A kind in plain words."""
    return "left the network" if kind == LEFT else words(kind)


def pack_gallery(neurons: Sequence[NeuronRow], curves: Curves) -> dict[str, Any]:
    """The document that the page's script reads, free of NaN and infinities.

    Args:
        neurons: in the order in which they are numbered there.
        curves: of the same network; a neuron without curves has none in the document.
    """
    rows = {(int(layer), int(index)): row for row, (layer, index) in enumerate(zip(curves.layer, curves.index, strict=True))}
    found = [rows.get((neuron.layer, neuron.index)) for neuron in neurons]
    return {
        "points": int(curves.u.shape[1]), "bins": int(curves.histogram.shape[1]),
        "neurons": [_pack_neuron(neuron) | ({} if row is None else _pack_panel(make_panel(curves, row)))
                    for neuron, row in zip(neurons, found, strict=True)],
    }


def _pack_neuron(neuron: NeuronRow) -> dict[str, Any]:
    lo, hi = neuron.domain
    settings = ", ".join(f"{name} {number(value) if isinstance(value, int | float) else value}"
                         for name, value in neuron.settings.items())
    return {
        "layer": neuron.layer, "index": neuron.index, "kind": kind_of(neuron),
        "error": neuron.max_abs_error, "sensitivity": neuron.sensitivity, "outside": neuron.out_of_range,
        "shown": {"error": error(neuron.max_abs_error), "sensitivity": number(neuron.sensitivity, 3),
                  "outside": count(neuron.out_of_range), "domain": f"{number(lo, 3)} to {number(hi, 3)}", "settings": settings},
        "reason": neuron.reason, "refused": dict(neuron.refused),
    }


def _pack_panel(panel: Panel) -> dict[str, Any]:
    difference = np.full(len(panel.u), np.nan) if panel.replacement is None else panel.replacement - panel.original
    inside = difference[(panel.u >= panel.domain[0]) & (panel.u <= panel.domain[1]) & np.isfinite(difference)]
    peak = float(np.abs(inside).max(initial=0.0))
    replacement = np.full(len(panel.u), np.nan) if panel.replacement is None else panel.replacement
    content = (_encode(panel.original, panel.y_limits).tobytes() + _encode(replacement, panel.y_limits).tobytes()
               + _encode_difference(difference, peak).tobytes() + (255 * panel.heights).round().astype(np.uint8).tobytes())
    return {"x": _round(panel.x_limits), "y": _round(panel.y_limits), "domain": _round(panel.domain),
            "bins": _round((panel.bin_edges[0], panel.bin_edges[-1])), "peak": peak, "curves": base64.b64encode(content).decode()}


def _encode(values: Floats, limits: tuple[float, float]) -> NDArray[np.uint16]:
    bottom, top = limits
    share = (values - (2 * bottom - top)) / (3 * (top - bottom))
    codes = np.where(np.isfinite(values), (65534 * np.clip(np.nan_to_num(share), 0, 1)).round(), 65535)
    return codes.astype("<u2")


def _encode_difference(values: Floats, peak: float) -> NDArray[np.int8]:
    scaled = np.clip(100 * np.nan_to_num(values) / (peak or 1.0), -127, 127).round()
    return np.where(np.isfinite(values), scaled, -128).astype(np.int8)


def _round(values: Sequence[float]) -> list[float]:
    """To 9 digits, more than the curves have."""
    return [float(f"{value:.9g}") for value in values]
