"""What a data set is: four splits with their task, and a hash of the content that they were cut from."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mncompress.types import Task


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of a data set.

    Attributes:
        x: Raw features, shape (n, d), uint8 (pixels) or float32.
        y: Class labels, shape (n,), int64; or regression targets, shape (n, t), float32.
    """

    x: NDArray[np.uint8] | NDArray[np.float32]
    y: NDArray[np.int64] | NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, split into disjoint parts.

    `train` fits the weights, `calibration` tells how pre-activations are distributed, `validation` picks the best
    replicate and keeps the budget, `test` is for reported figures only.
    """

    name: str
    task: Task
    train: Split
    calibration: Split
    validation: Split
    test: Split
    out_features: int
    """Classes, or regression targets."""
    content_hash: str
    """`sha256:` and 64 hex digits over the arrays before they were split; equal content has an equal hash."""

    @property
    def in_features(self) -> int:
        """Features of one row."""
        return int(self.train.x.shape[1])


@dataclass(frozen=True, eq=False)
class Arrays:
    """A data set before it is split, in the shapes and dtypes of `Split`; without `test` one is cut off later."""

    development: Split
    test: Split | None = None

    @property
    def task(self) -> Task:
        """Integer labels make a classification, anything else is a regression."""
        return "classification" if self.development.y.dtype.kind == "i" else "regression"

    @property
    def out_features(self) -> int:
        """The largest label of the development part plus one, or the number of targets."""
        y = self.development.y
        return int(y.max()) + 1 if self.task == "classification" else int(y.shape[1])

    @property
    def content_hash(self) -> str:
        """SHA-256 over dtype, shape and little-endian bytes of each array in turn."""
        digest = hashlib.sha256()
        for split in (self.development, self.test):
            for array in (split.x, split.y) if split else ():
                little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
                digest.update(f"{array.dtype.name}{array.shape}".encode())
                digest.update(little_endian.data)
        return f"sha256:{digest.hexdigest()}"
