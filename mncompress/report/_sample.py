"""Sampling what a network's learned activations are, and what they became, for drawing."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis import make_inner_networks
from mncompress.calibration import BINS, LayerCalibration
from mncompress.compression import Compressed
from mncompress.nn import LearnedActivation, Network
from mncompress.report._curves import Curves, make_grid


def make_curves(network: Network, calibration: tuple[LayerCalibration, ...], compressed: Compressed | None = None) -> Curves:
    """Sample every learned activation, and its replacement where there is one.

    Args:
        network: the original.
        calibration: per activated layer what its neurons are given.
        compressed: what became of the network; None where nothing did yet.
    """
    spec = network.spec
    title = (f"{'-'.join(map(str, spec.sizes))} {', '.join(dict.fromkeys(a.name for a in spec.activations))}"
             f"{' ' + spec.activations[0].act if spec.activations else ''}")
    parts = [_layer_curves(number, layer.activation, found, compressed)
             for number, (layer, found) in enumerate(zip(network.activated_layers, calibration, strict=True))]
    parts = parts or [_no_curves(compressed)]
    arrays: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if compressed is None:
        return Curves(**arrays, title=title)
    decisions = compressed.plan.decisions
    return Curves(**arrays, title=title, kinds=tuple(d.kind for d in decisions), left=np.array([d.left for d in decisions], bool),
                  max_abs_error=np.array([d.max_abs_error for d in decisions]))


def _no_curves(compressed: Compressed | None) -> dict[str, NDArray[Any]]:
    """The curves of a network without activations."""
    none = np.zeros((0, 2))
    u = make_grid(none)
    curves: dict[str, NDArray[Any]] = {
        "layer": np.zeros(0, np.int64), "index": np.zeros(0, np.int64), "domain": none, "u": u, "original": u,
        "histogram": np.zeros((0, BINS), np.int64), "histogram_range": none, "sensitivity": np.zeros(0)}
    return curves if compressed is None else {**curves, "replacement": u}


def _layer_curves(number: int, activation: object, found: LayerCalibration, compressed: Compressed | None
                  ) -> dict[str, NDArray[Any]]:
    assert isinstance(activation, LearnedActivation)
    inner = make_inner_networks(activation)
    u = make_grid(found.domain)
    curves: dict[str, NDArray[Any]] = {
        "layer": np.full(inner.n, number), "index": np.arange(inner.n), "domain": found.domain, "u": u,
        "original": inner.evaluate(u.T.astype(np.float64)).T.astype(np.float32),
        "histogram": found.histogram, "histogram_range": found.observed, "sensitivity": found.sensitivity}
    if compressed is not None:
        replacement = curves["original"].copy()
        for group in compressed.groups[number]:
            if group.form is not None:
                replacement[group.indices] = group.form.evaluate(u[group.indices].T.astype(np.float64)).T
        curves["replacement"] = replacement
    return curves
