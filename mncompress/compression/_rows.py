"""What a network computes on samples, layer by layer: what closed-form steps are fitted to and checked on. No label is read."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mncompress.calibration import BATCH_ROWS
from mncompress.data import Dataset
from mncompress.nn import Network

FIT_ROWS, CHECK_ROWS = 16384, 8192
WORK = 2.5e10
"""Rows times the square of how many features the widest layer has and reads: wide networks are fitted to fewer rows."""
FEWEST = 2048


@dataclass(frozen=True)
class Signals:
    """A network's values on some rows.

    Attributes:
        features: standardized, (rows, d).
        preactivations: per layer, (rows, n).
        outputs: per layer, (rows, n): what the next layer reads.
    """

    features: Tensor
    preactivations: list[Tensor]
    outputs: list[Tensor]


@dataclass(frozen=True)
class Rows:
    """The signals of the original network: on training and calibration rows to fit to, on validation rows to check on."""

    fit: Signals
    check: Signals


def observe(network: Network, dataset: Dataset) -> Rows:
    """Run the original network on at most `FIT_ROWS` and `CHECK_ROWS` rows."""
    features = max(layer.linear.in_features + layer.linear.out_features for layer in network.layers)
    rows = max(FEWEST, int(WORK / features**2))
    most = min(rows, FIT_ROWS)
    fit = np.concatenate([dataset.calibration.x[:most], dataset.train.x[:most]])[:most]
    return Rows(observe_signals(network, fit), observe_signals(network, dataset.validation.x[:min(rows // 2, CHECK_ROWS)]))


@torch.no_grad()
def observe_signals(network: Network, x: NDArray[np.generic]) -> Signals:
    """A network's values on raw features (rows, d)."""
    h = torch.cat([network.features(rows) for rows in torch.as_tensor(x).split(BATCH_ROWS)])
    signals = Signals(h, [], [])
    for layer in network.layers:
        u = layer.linear(h)
        h = torch.cat([layer.activate(*parts) for parts in zip(u.split(BATCH_ROWS), h.split(BATCH_ROWS), strict=True)])
        signals.preactivations.append(u)
        signals.outputs.append(h)
    return signals
