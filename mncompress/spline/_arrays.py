"""Checks and roundings that every form shares."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def as_finite(name: str, value: npt.ArrayLike, shape: tuple[int | None, ...]) -> Array:
    """Return `value` as a float64 array after checking it; None in `shape` stands for any length.

    Raises:
        ValueError: the shape differs, or an element is not finite.
    """
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{name}: {array.shape = }, expected {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {np.count_nonzero(~np.isfinite(array))} of {array.size} elements are not finite")
    return array


def round_float32(values: Array) -> Array:
    """The nearest float32 of each element, as float64; what is beyond float32's range becomes its largest value."""
    return np.clip(values, -LARGEST_FLOAT32, LARGEST_FLOAT32).astype(np.float32).astype(np.float64)
