"""Shift and scale of features and targets, in float64, one pass over small pieces at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mncompress.data._dataset import Split

PIECE = 2**18
"""Values converted to float64 at a time: 2 MiB."""


@dataclass(frozen=True, eq=False)
class Standardization:
    """The affine map (x - shift) / scale, column by column.

    Attributes:
        shift: Shape (d,), float64.
        scale: Shape (d,), float64, positive.
    """

    shift: NDArray[np.float64]
    scale: NDArray[np.float64]


def standardization_of(split: Split) -> tuple[Standardization, Standardization | None]:
    """The maps to mean 0 and standard deviation 1 over `split`, which should be the training split.

    Columns of float features and of regression targets are treated one by one. uint8 features are pixels: they share
    one shift and one scale, repeated (d,) times. A constant column has scale 1.

    Returns:
        The features' map, and the targets' map or None for a classification.
    """
    features = _fit_standardization(split.x, shared=split.x.dtype == np.uint8)
    return features, None if split.y.ndim == 1 else _fit_standardization(split.y, shared=False)


def _fit_standardization(values: NDArray[Any], *, shared: bool) -> Standardization:
    # The sum of up to 2**29 equal float32 values is exact in float64, so a constant column's variance is exactly 0.
    shift = sum(piece.sum(axis=0) for piece in _pieces(values)) / len(values)
    if shared:
        shift = np.full_like(shift, shift.mean())
    variance = sum(((piece - shift) ** 2).sum(axis=0) for piece in _pieces(values)) / len(values)
    if shared:
        variance = np.full_like(variance, variance.mean())
    scale = np.sqrt(variance)
    return Standardization(shift, np.where(scale < np.finfo(np.float32).tiny, 1.0, scale))


def _pieces(values: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    rows = max(1, PIECE // values.shape[1])
    for start in range(0, len(values), rows):
        yield values[start:start + rows].astype(np.float64)
