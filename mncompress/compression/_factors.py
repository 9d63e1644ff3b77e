"""Layers of low rank: a linear layer W h + b carried out as A (Q h) + b, with fewer values in between than it reads or gives.

What matters is not W but the pre-activations u that it gives on data, and of these what the outputs feel: with R of the layer's
metric (`mncompress.calibration.measure_metrics`), |R e|^2 is what an error e of the pre-activations does to the outputs. The
projection P of rank r that minimizes the mean of |R (u - P u)|^2 has R P = U U^T R, with U the first r eigenvectors of R C R^T and
C the covariance of u (reduced-rank regression: Izenman 1975, doi:10.1016/0047-259X(75)90042-1), and what is lost is the sum of the
eigenvalues behind the r-th. W becomes P W; no pass over the data is needed, and no neuron changes its place.

A layer of n neurons that reads d values then takes r (d + n) multiply-adds instead of d n.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mncompress.compression._departures import Departure
from mncompress.compression._rewrite import Factors, LinearMap

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

RANKS, STAGES = 24, 8
"""How many low ranks and how many of all are considered, and with how many stages of a layer that is being emptied."""


def find_factors(u: Tensor, metric: Floats, variance: float, inputs: int, departures: Sequence[Departure], varies: Indices
                 ) -> list[Departure]:
    """A layer's departures with the layer at lower ranks.

    Args:
        u: its pre-activations, (rows, n).
        metric: R, (k, n), of full rank.
        variance: of the outputs, summed over them.
        inputs: how many values it reads.
        departures: of its neurons; those without a bypass are combined with ranks.
        varies: the neurons that are no constants, which need no weights.
    """
    covariance = _covariance(u.double().numpy())
    plain = [each for each in departures if not each.rank]
    some = [plain[index] for index in sorted({int(index) for index in np.linspace(0, len(plain) - 1, STAGES)})]
    found: list[Departure] = []
    for departure in some:
        stays = np.setdiff1d(varies, departure.left)
        found += (Departure(departure.left, 0, departure.error + lost / variance, rank)
                  for rank, lost in _lose(covariance[np.ix_(stays, stays)], metric[:, stays], inputs))
    return found


def _lose(covariance: Floats, metric: Floats, inputs: int) -> Iterator[tuple[int, float]]:
    """Ranks that are cheaper than none, and what each loses."""
    n = len(covariance)
    highest = (inputs * n - 1) // (inputs + n) if n else 0
    if highest < 1:
        return
    values = np.maximum(np.linalg.eigvalsh(metric @ covariance @ metric.T), 0.0)[::-1]
    lost = np.concatenate([np.cumsum(values[::-1])[::-1], [0.0]])
    for rank in sorted({round(rank) for grid in (np.geomspace, np.linspace) for rank in grid(1, highest, RANKS)}):
        yield rank, float(lost[min(rank, len(values))])


def factor(linear: LinearMap, values: Floats, metric: Floats, stays: Indices, rank: int) -> LinearMap:
    """A linear map at a rank, the best one for the neurons that stay; the others' rows become zero.

    Args:
        linear: without linear units.
        values: what it reads on some rows, its sources side by side, (rows, d).
        metric: R, (k, n), of full rank.
        stays: the neurons that matter, in order.
        rank: of the result.
    """
    weight = np.concatenate(list(linear.weights.values()), 1)[stays]
    u = values @ weight.T
    felt = metric[:, stays]
    directions = np.linalg.eigh(felt @ _covariance(u) @ felt.T)[1][:, ::-1][:, :min(rank, len(stays))]
    outer = np.zeros((len(linear.bias), directions.shape[1]))
    outer[stays] = np.linalg.solve(felt.T @ felt, felt.T @ directions)
    inner = directions.T @ felt @ weight
    bias = linear.bias.copy()
    bias[stays] += u.mean(0) - outer[stays] @ (inner @ values.mean(0))
    ends = np.cumsum([block.shape[1] for block in linear.weights.values()])[:-1]
    parts = dict(zip(linear.weights, np.split(inner, ends, 1), strict=True))
    return LinearMap({source: outer @ part for source, part in parts.items()}, bias, factors=Factors(outer, parts))


def _covariance(u: Floats) -> Floats:
    centered = u - u.mean(0)
    return np.asarray(centered.T @ centered / len(u), np.float64)
