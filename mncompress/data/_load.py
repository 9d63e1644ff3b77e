"""From a name to a data set that is split.

Where a data set has no test part, 20 % of its rows become one. Of the rest, calibration gets 10 % and validation 10 %,
or 15 % of fewer than `SMALL` rows; neither more than 5000. So MNIST becomes 50 000 / 5000 / 5000 / 10 000. Splits of
classifications are stratified; every split follows from the seed alone and comes shuffled, except a test part of the
source, which keeps its order.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mncompress.data._dataset import Arrays, Dataset, Split
from mncompress.data._functions import TARGETS, make_function_arrays
from mncompress.data._npz import read_npz
from mncompress.data._sources import load_digits, load_torchvision, make_mnist1d
from mncompress.errors import ConfigError, DataError
from mncompress.types import PathLike

TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
NAMES = ("digits", *TORCHVISION, "mnist1d", "function:NAME", "FILE.npz")
DATASET_NAMES = ("digits", *TORCHVISION, "mnist1d", *(f"function:{name}" for name in TARGETS))
"""Every name that `load_dataset` takes, but paths."""

IN_MEMORY = "arrays"
"""The name of a data set that was given as arrays, which nothing can load again."""

FEWEST_ROWS = 10
"""Development rows from which calibration and validation get at least one each."""
SMALL = 10_000
MOST_HELD_OUT = 5000


def load_dataset(name: str, *, data_dir: PathLike | None = None, seed: int = 0) -> Dataset:
    """Load or generate a data set and split it.

    Args:
        name: `digits`, `mnist`, `fashion-mnist`, `kmnist`, `mnist1d`, `function:NAME` or the path of an npz file with
            `x_train`, `y_train`, `x_test`, `y_test`.
        data_dir: Where torchvision's data sets are, or are downloaded to; `./data` by default.
        seed: Determines the splits, and the content of generated data sets.

    Raises:
        DataError: the name is unknown, or the data is missing, damaged, malformed or too little to be split.
        ConfigError: the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed}")
    return split_arrays(name, _load_arrays(name, Path("data" if data_dir is None else data_dir).expanduser(), seed), seed)


def split_arrays(name: str, arrays: Arrays, seed: int) -> Dataset:
    """Split what lies in memory as `load_dataset` splits what it loads.

    Args:
        name: what the data set is called, in messages and in a run's configuration.
        arrays: the rows (n, ...), in the order that the splits are drawn from; a test part, even an empty one, stays as it is.
        seed: not negative; determines the splits.

    Raises:
        DataError: there are too few rows.
    """
    if len(arrays.development) < FEWEST_ROWS:
        raise DataError(f"{name}: x_train has {len(arrays.development)} rows, too few to split off calibration and "
                        f"validation; expected at least {FEWEST_ROWS}")
    return _split(name, arrays, np.random.default_rng([seed, 1]))


def _load_arrays(name: str, data_dir: Path, seed: int) -> Arrays:
    if name == "digits":
        return load_digits()
    if name in TORCHVISION:
        return load_torchvision(name, TORCHVISION[name], data_dir)
    if name == "mnist1d":
        return make_mnist1d(seed)
    if name.startswith("function:"):
        return make_function_arrays(name.removeprefix("function:"), seed)
    if name.lower().endswith(".npz"):
        return read_npz(Path(name))
    raise DataError(f"unknown data set {name!r}; choose from {', '.join(NAMES)}, where NAME is one of "
                    f"{', '.join(TARGETS)}")


def _split(name: str, arrays: Arrays, rng: np.random.Generator) -> Dataset:
    x, y = arrays.development.x, arrays.development.y
    rest = np.arange(len(x))
    test = arrays.test
    if test is None:
        rows, rest = draw(rest, y, len(rest) // 5, rng)
        test = Split(x[rows], y[rows])
    count = len(rest)
    calibration, rest = draw(rest, y, min(count // 10, MOST_HELD_OUT), rng)
    validation, rest = draw(rest, y, min(count * (15 if count < SMALL else 10) // 100, MOST_HELD_OUT), rng)
    train = rng.permutation(rest)
    return Dataset(name=name, task=arrays.task, train=Split(x[train], y[train]),
                   calibration=Split(x[calibration], y[calibration]), validation=Split(x[validation], y[validation]),
                   test=test, out_features=arrays.out_features, content_hash=arrays.content_hash)


def draw(rows: NDArray[np.intp], y: NDArray[np.int64] | NDArray[np.float32], count: int,
         rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw `count` of `rows` at random; returns those, shuffled, and the others.

    Labels are stratified by systematic sampling: rows are shuffled, then sorted by class, then taken at equal distances
    from a random start. So a class with n of N rows gets n·count/N of the draw, rounded up or down, however rare it is.
    """
    order = rng.permutation(rows)
    if y.dtype.kind == "i":
        order = order[np.argsort(y[order], kind="stable")]
    positions = (np.arange(count) * len(order) + rng.integers(len(order))) // count  # all different, as count <= len
    return rng.permutation(order[positions]), np.delete(order, positions)
