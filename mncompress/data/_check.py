"""Arrays that came from a file become a data set, or one line that says what is wrong with them.

Features are numbers of shape (n, d), or (n, ...) such as images (n, h, w), which are flattened. uint8 stays uint8; all
other integer and floating types become float32. Integer labels of shape (n,) make a classification with
`max(y_train) + 1` classes; floating targets of shape (n,) or (n, t) a regression, as float32 of shape (n, t).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mncompress.data._dataset import Arrays, Split
from mncompress.errors import DataError

KEYS = ("x_train", "y_train", "x_test", "y_test")
MOST_CLASSES = 65_536
"""A larger label is taken for a mistake, such as an identifier."""
LOST, NOISE = 0.1, 1e-12
"""Of a column's standard deviation, what float32 may lose; and of its size, below which a variation is float64's own rounding."""


def check_arrays(where: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Check the four arrays of `KEYS` and convert them to the dtypes and shapes of `Split`.

    Args:
        where: The file or folder that they came from, for the message.
        arrays: Under each of `KEYS`, an array.

    Raises:
        DataError: one line naming `where`, the key, what was found and what is expected.
    """
    train = _check_split(where, "train", arrays["x_train"], arrays["y_train"])
    test = _check_split(where, "test", arrays["x_test"], arrays["y_test"])
    if train.x.shape[1] != test.x.shape[1]:
        raise DataError(f"{where}: x_test has {test.x.shape[1]} features but x_train has {train.x.shape[1]}; "
                        "both need the same columns")
    if train.x.dtype != test.x.dtype:
        raise DataError(f"{where}: x_test is {arrays['x_test'].dtype} but x_train is {arrays['x_train'].dtype}; "
                        "uint8 in one of them needs uint8 in both")
    if train.y.dtype != test.y.dtype:
        raise DataError(f"{where}: y_test is {arrays['y_test'].dtype} but y_train is {arrays['y_train'].dtype}; "
                        "both must be integer labels or both floating targets")
    if train.y.ndim == 2 and train.y.shape[1] != test.y.shape[1]:
        raise DataError(f"{where}: y_test has {test.y.shape[1]} targets but y_train has {train.y.shape[1]}; "
                        "both need the same columns")
    if train.y.ndim == 1:
        _check_classes(where, train.y, test.y)
    else:
        check_resolution(f"{where}: y_train", arrays["y_train"], train.y)
    check_resolution(f"{where}: x_train", arrays["x_train"], train.x)
    return Arrays(train, test)


def _check_split(where: str, part: str, x: NDArray[Any], y: NDArray[Any]) -> Split:
    features = _check_features(f"{where}: x_{part}", x)
    answers = _check_answers(f"{where}: y_{part}", y)
    if len(features) != len(answers):
        raise DataError(f"{where}: x_{part} has {len(features)} rows but y_{part} has {len(answers)}; "
                        "give one label or target row per feature row")
    return Split(features, answers)


def _check_features(what: str, x: NDArray[Any]) -> NDArray[Any]:
    if x.dtype.kind not in "uif":
        raise DataError(f"{what} has dtype {x.dtype}; expected uint8, another integer type or a floating type")
    if x.ndim < 2:
        raise DataError(f"{what} has shape {x.shape}; expected (n, d), or (n, h, w) for images")
    if x.size == 0:
        raise DataError(f"{what} is empty, its shape is {x.shape}; expected at least one row and one column")
    flat = x.reshape(len(x), -1)
    return flat if x.dtype == np.uint8 else _to_float32(what, flat)


def _check_answers(what: str, y: NDArray[Any]) -> NDArray[Any]:
    if y.dtype.kind not in "uif":
        raise DataError(f"{what} has dtype {y.dtype}; expected integer labels or floating targets")
    if y.size == 0:
        raise DataError(f"{what} is empty, its shape is {y.shape}; expected at least one row")
    if y.dtype.kind == "f":
        if y.ndim not in (1, 2):
            raise DataError(f"{what} has shape {y.shape}; expected targets (n,) or (n, t)")
        return _to_float32(what, y.reshape(len(y), -1))
    if y.ndim != 1:
        raise DataError(f"{what} holds integers of shape {y.shape}; expected labels (n,), or floating targets")
    low, high = int(y.argmin()), int(y.argmax())
    if y[low] < 0:
        raise DataError(f"{what} row {low} holds the label {y[low]}; labels count from 0")
    if y[high] >= MOST_CLASSES:
        raise DataError(f"{what} row {high} holds the label {y[high]}; number the classes from 0 on, "
                        f"up to {MOST_CLASSES - 1}")
    return y.astype(np.int64)


def _to_float32(what: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Convert (n, d) numbers to float32, refusing what is not finite before or after."""
    with np.errstate(over="ignore"):  # reported below, with the place
        converted = values.astype(np.float32)
    finite = np.isfinite(converted)
    if not finite.all():
        row, column = np.unravel_index(int(finite.argmin()), finite.shape)
        value = values[row, column]
        expected = "a magnitude that float32 can hold, up to 3.4e38" if np.isfinite(value) else "finite numbers only"
        raise DataError(f"{what} row {row} column {column} is {value}; expected {expected}")
    return converted


def check_resolution(what: str, values: NDArray[Any], converted: NDArray[Any]) -> None:
    """Refuse a column (n, d) of which float32 keeps the offset and loses what varies, such as seconds since 1970.

    Raises:
        DataError: with the column.
    """
    values = values.reshape(len(values), -1)
    if values.dtype in (np.uint8, np.float16, np.float32):
        return
    lost = np.sqrt(np.mean((values - converted.astype(np.float64)) ** 2, 0))
    spread, size = values.std(0), np.abs(values).max(0)
    unresolved = (lost > LOST * spread) & (spread > NOISE * size)
    if unresolved.any():
        column = int(unresolved.argmax())
        middle = values[:, column].mean()
        raise DataError(f"{what} column {column} varies by {spread[column]:.3g} around {middle:.10g}, which float32 does not "
                        "resolve; subtract an offset from it, or scale it")


def _check_classes(where: str, train: NDArray[Any], test: NDArray[Any]) -> None:
    classes = int(train.max()) + 1
    if classes < 2:
        raise DataError(f"{where}: y_train holds the label 0 only; a classification needs at least two classes")
    if test.max() >= classes:
        row = int(test.argmax())
        raise DataError(f"{where}: y_test row {row} holds the label {test[row]}, but y_train only goes to "
                        f"{classes - 1}; every test label must be a class of y_train")
