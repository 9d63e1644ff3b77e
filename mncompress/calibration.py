"""Calibration: what each learned activation is actually given, and how much its output matters.

Runs a network over the calibration split in batches. The *domain* of a neuron is the observed range of its pre-activation,
widened on either side, since a finite sample never shows the extremes: by `MARGIN` of its width, or more where the tail is heavy,
which shows in the gaps between the last values seen. For the same reason the ranges are taken over the training rows too: outside
its domain a replacement is a line, whatever the tolerance. The validation rows stay out of it, since they are to show what leaving
the domain costs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mncompress.errors import DataError
from mncompress.nn import Network

MARGIN = 0.05
TAIL, GAPS, LARGEST_MARGIN = 3, 2.5, 0.25
"""A domain goes beyond the last value by `GAPS` times its distance from the `TAIL`-th last, up to that share of the width. Of what
lies beyond the last of 500 values with an exponential tail, a third leaves the domain too; with `MARGIN` alone, three quarters."""
BINS = 64
BATCH_ROWS = 4096
BATCH_VALUES = 2**24
"""Rows of a batch times neurons of the widest layer: memory stays bounded for any width."""
SENSITIVITY_ROWS = 2048
PROBES = 16

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerCalibration:
    """One activated layer of n neurons.

    Attributes:
        domain: (n, 2), the calibrated range [lo, hi].
        histogram: (n, bins) counts of pre-activations, in equal bins over `observed`.
        observed: (n, 2), smallest and largest pre-activation seen.
        sensitivity: (n,), root mean square over samples of the norm of the outputs' gradient by the neuron's output.
    """

    domain: Floats
    histogram: NDArray[np.int64]
    observed: Floats
    sensitivity: Floats


@dataclass(frozen=True)
class Extremes:
    """The last values of n neurons on either side.

    Attributes:
        smallest: of the values seen, or of each sample's smallest, ascending; (`TAIL`, n), or fewer rows where no more were seen.
        largest: likewise.
    """

    smallest: Floats
    largest: Floats

    @classmethod
    def none(cls, n: int) -> Self:
        """Before any value was seen."""
        return cls(np.zeros((0, n)), np.zeros((0, n)))

    def add(self, low: Floats, high: Floats) -> Self:
        """With further values, those for either side, (rows, n)."""
        smallest, largest = np.concatenate([self.smallest, low]), np.concatenate([self.largest, high])
        kept = min(TAIL, len(smallest))
        ends = np.partition(smallest, kept - 1, axis=0)[:kept], np.partition(largest, len(largest) - kept, axis=0)[-kept:]
        return type(self)(*(np.sort(end, axis=0) for end in ends))

    @property
    def observed(self) -> Floats:
        """Smallest and largest value, (n, 2)."""
        return np.stack([self.smallest[0], self.largest[-1]], 1)


def calibrate(network: Network, x: NDArray[np.generic], *more: NDArray[np.generic]) -> tuple[LayerCalibration, ...]:
    """Observe every activated layer.

    Args:
        network: what to observe.
        x: raw features of the calibration split, (rows, d): for ranges, histograms and sensitivity.
        more: further rows, for the ranges alone.

    Raises:
        DataError: x is empty, or so large that a pre-activation overflows.
    """
    if len(x) == 0:
        raise DataError("the calibration split is empty: nothing is known about what the activations are given; use more data")
    extremes = find_extremes(network, x, *more)
    observed = [ends.observed for ends in extremes]
    if not all(np.isfinite(limits).all() for limits in observed):
        raise DataError("a pre-activation is not finite on this data; look for enormous values in the data")
    histograms = [np.zeros((len(limits), BINS), np.int64) for limits in observed]
    for layers in _preactivations(network, x):
        for histogram, limits, u in zip(histograms, observed, layers, strict=True):
            _count_(histogram, limits, u)
    sensitivity = measure_sensitivity(network, x)
    return tuple(LayerCalibration(widen(ends), histogram, limits, values)
                 for ends, limits, histogram, values in zip(extremes, observed, histograms, sensitivity, strict=True))


def find_extremes(network: Network, *parts: NDArray[np.generic]) -> list[Extremes]:
    """The extreme pre-activations of each neuron over raw features (rows, d), per activated layer."""
    found = [Extremes.none(layer.linear.out_features) for layer in network.activated_layers]
    for layers in (layers for x in parts for layers in _preactivations(network, x)):
        found = [extremes.add(u, u) for extremes, u in zip(found, layers, strict=True)]
    return found


def count_outside(network: Network, x: NDArray[np.generic], domains: list[Floats]) -> list[NDArray[np.int64]]:
    """Rows of x whose pre-activation lies outside the domain: per activated layer (n,)."""
    counts = [np.zeros(len(domain), np.int64) for domain in domains]
    for layers in _preactivations(network, x):
        for count, domain, u in zip(counts, domains, layers, strict=True):
            count += ((u < domain[:, 0]) | (u > domain[:, 1])).sum(0)
    return counts


def measure_sensitivity(network: Network, x: NDArray[np.generic]) -> list[Floats]:
    """Root mean square of |d outputs / d activation output| over the first rows of x: per activated layer (n,).

    Exact where there are at most `PROBES` outputs, whose gradients are then taken one by one. For more, squared norms are
    estimated without bias by random signs (Hutchinson 1990): E (v.J)^2 = |J|^2. Outputs are logits or standardized targets.
    """
    rows = torch.as_tensor(x[:SENSITIVITY_ROWS])
    totals = [torch.zeros(layer.linear.out_features, dtype=torch.float64) for layer in network.activated_layers]
    probes, size = make_probes(len(rows), network.spec.out_features), batch_rows(network)
    for start in range(0, len(rows), size) if totals else ():
        outputs, _, made = _record(network, rows[start:start + size])
        # by a residual layer's output as by its activation's
        activated = [y for layer, y in zip(network.layers, made, strict=True) if layer.activation is not None]
        for probe in probes:
            gradients = torch.autograd.grad((outputs * probe[start:start + size]).sum(), activated, retain_graph=True)
            for total, gradient in zip(totals, gradients, strict=True):
                total += gradient.double().square().sum(0)
    return [(total / len(rows)).sqrt().numpy() for total in totals]


def _record(network: Network, x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The outputs, logits or standardized targets, and per layer its pre-activations and its output, with what gradients need."""
    h, found, made = network.features(x).requires_grad_(), [], []
    for layer in network.layers:
        found.append(layer.linear(h))
        h = layer.activate(found[-1], h)
        made.append(h)
    return h, found, made


def measure_metrics(network: Network, x: NDArray[np.generic]) -> list[Floats]:
    """What errors of the pre-activations do to the outputs: per layer R (k, n), so that |R e|^2 is about |J e|^2 on average.

    R^T R is the mean of J^T J over the first rows of x, J the outputs' gradient by the layer's pre-activations; see
    `measure_sensitivity`.
    """
    outputs, found, _ = _record(network, torch.as_tensor(x[:SENSITIVITY_ROWS]))
    totals = [torch.zeros(u.shape[1], u.shape[1], dtype=torch.float64) for u in found]
    for probe in make_probes(*outputs.shape):
        gradients = torch.autograd.grad((outputs * probe).sum(), found, retain_graph=True)
        for total, gradient in zip(totals, gradients, strict=True):
            total += (gradient.mT @ gradient).double() / len(gradient)
    return [_root(total.numpy()) for total in totals]


def _root(moments: Floats) -> Floats:
    """R with R^T R = moments, which may be singular."""
    values, vectors = np.linalg.eigh(moments)
    floor = 1e-6 * max(float(values.mean()), 1e-12)     # gradients are float32
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0) + floor)).T


def batch_rows(network: Network) -> int:
    """Rows that go through a network at a time."""
    return max(1, min(BATCH_ROWS, BATCH_VALUES // max(network.spec.sizes)))


def make_probes(rows: int, outputs: int) -> list[Tensor]:
    """Vectors v (rows, outputs) whose (v.J)^2 sum up to |J|^2: unit vectors, or random ones for many outputs."""
    if outputs <= PROBES:
        return [vector.expand(rows, -1) for vector in torch.eye(outputs)]
    signs = torch.randint(0, 2, (PROBES, rows, outputs), generator=torch.Generator().manual_seed(0))
    return list((signs.float() * 2 - 1) / PROBES**0.5)


@torch.no_grad()
def run_network(network: Network, x: NDArray[np.generic]) -> Floats:
    """Outputs of the torch network on raw features: (rows, out_features) as float64."""
    parts = [network(part) for part in torch.as_tensor(x).split(batch_rows(network))]
    return torch.cat(parts).double().numpy()


@torch.no_grad()
def _preactivations(network: Network, x: NDArray[np.generic]) -> Iterator[list[Floats]]:
    part: Tensor
    for part in torch.as_tensor(x).split(batch_rows(network)):
        yield [u.double().numpy() for u in network.preactivations(part)]


def widen(extremes: Extremes) -> Floats:
    """Domains (n, 2): wider than what was seen, and never a single point."""
    low, high = extremes.observed.T
    width = high - low
    least = np.maximum(MARGIN * width, 1e-3 * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high))))
    below, above = (np.maximum(least, np.minimum(GAPS * (tail[-1] - tail[0]), LARGEST_MARGIN * width))
                    for tail in (extremes.smallest, extremes.largest))
    return np.stack([low - below, high + above], 1)


def _count_(histogram: NDArray[np.int64], limits: Floats, u: Floats) -> None:
    """Add a batch (rows, n) to the histograms (n, bins)."""
    bins = histogram.shape[1]
    width = np.maximum(limits[:, 1] - limits[:, 0], np.finfo(np.float64).tiny)
    index = np.clip(((u - limits[:, 0]) / width * bins).astype(np.int64), 0, bins - 1)
    flat = (index + np.arange(len(limits)) * bins).ravel()
    histogram += np.bincount(flat, minlength=histogram.size).reshape(histogram.shape)
