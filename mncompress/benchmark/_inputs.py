"""What models are given: the interface of a file, whether several files can be given the same, and the values.

A dimension of an input is a number or a *symbol*; a dimension that the file leaves without a name has the symbol
`INPUT:AXIS`. A symbol that stands on the first axis of an input means the batch, wherever it stands, unless its size is
given; every other symbol needs a size, by `dims` or by the arrays that are the inputs. A model without any batch symbol
has a fixed batch: the first axis of its first input that has axes, or 1.

Values that are not given are drawn: floats from the standard normal distribution, integers 0 or 1, which are valid
indices nearly everywhere, booleans by a fair coin; or uniformly from a given range, for integers both ends included.
"""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mncompress.errors import ConfigError, DataError, RuntimeProviderError
from mncompress.types import PathLike

Array = NDArray[Any]
Shape = tuple[int, ...]
Range = tuple[float, float]

DTYPES: Mapping[str, str] = {
    "tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64", "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}}
"""NumPy's name of each type that a tensor may have here."""


@dataclass(frozen=True)
class TensorSpec:
    """One input of a model."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))}{',' * (len(self.shape) == 1)})"


Specs = tuple[TensorSpec, ...]


def read_specs(session: onnxruntime.InferenceSession, *, name: str) -> Specs:
    """The inputs of a session; `name` is what an error calls the model.

    Raises:
        RuntimeProviderError: an input is no tensor of numbers or booleans.
    """
    for end in session.get_inputs():
        if end.type not in DTYPES:
            raise RuntimeProviderError(f"input {end.name!r} of {name} is a {end.type}; only tensors of floats, integers "
                                       "and booleans can be benchmarked")
    return tuple(TensorSpec(end.name, DTYPES[end.type],
                            tuple(_symbol(end.name, axis, size) for axis, size in enumerate(end.shape)))
                 for end in session.get_inputs())


def _symbol(name: str, axis: int, size: int | str | None) -> int | str:
    return f"{name}:{axis}" if size is None or size == "" else size


def batch_symbols(specs: Specs, dims: Mapping[str, int]) -> set[str]:
    """The symbols that mean the batch."""
    return {spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], str)} - dims.keys()


def fixed_batch(specs: Specs, dims: Mapping[str, int]) -> int | None:
    """The only batch size that a model runs at, or None."""
    if batch_symbols(specs, dims):
        return None
    firsts = (spec.shape[0] for spec in specs if spec.shape)
    first = next(firsts, 1)
    return dims[first] if isinstance(first, str) else first


def complete_dims(specs: Specs, dims: Mapping[str, int], arrays: Mapping[str, Array] | None) -> dict[str, int]:
    """`dims`, and the sizes of further symbols as the arrays have them."""
    completed = dict(dims)
    batch = batch_symbols(specs, dims)
    for spec in specs:
        array = (arrays or {}).get(spec.name)
        if array is not None and array.ndim == len(spec.shape):
            for size, found in zip(spec.shape, array.shape, strict=True):
                if isinstance(size, str) and size not in batch:
                    completed.setdefault(size, found)
    return completed


def resolve(specs: Specs, batch: int, dims: Mapping[str, int], *, name: str) -> dict[str, Shape]:
    """The shape of every input at a batch size; `name` is what an error calls the model.

    Raises:
        ConfigError: a symbol has no size.
    """
    sizes = {**dict.fromkeys(batch_symbols(specs, dims), batch), **dims}
    for spec in specs:
        for size in spec.shape:
            if isinstance(size, str) and size not in sizes:
                raise ConfigError(f"input {spec.name!r} of {name} is {spec}, and the size of {size!r} is not known; "
                                  f"give it with --dim {size}=N")
    return {spec.name: tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape) for spec in specs}


def check_dims(models: Mapping[str, Specs], dims: Mapping[str, int]) -> None:
    """Refuse sizes below 1, and symbols that no model has.

    Raises:
        ConfigError: as said.
    """
    symbols = sorted({size for specs in models.values() for spec in specs for size in spec.shape if isinstance(size, str)})
    for symbol, size in dims.items():
        if size < 1:
            raise ConfigError(f"dimension {symbol!r} must be at least 1, got {size}")
        if symbol not in symbols:
            raise ConfigError(f"no model has a dimension {symbol!r}; there {'is' if len(symbols) == 1 else 'are'} "
                              f"{', '.join(symbols) or 'no symbolic ones'}")


def check_same_inputs(models: Mapping[str, Specs], shapes: Mapping[str, Mapping[str, Shape]]) -> None:
    """Refuse models that cannot be given the same values.

    Args:
        models: the inputs of each model.
        shapes: the shape of each input of each model, at one batch size.

    Raises:
        DataError: names, types or shapes differ.
    """
    first, *others = models
    ours = {spec.name: spec for spec in models[first]}
    for other in others:
        theirs = {spec.name: spec for spec in models[other]}
        if theirs.keys() != ours.keys():
            raise DataError(f"models cannot be compared: {first} has the inputs {', '.join(sorted(ours)) or 'none'}, {other} has "
                            f"{', '.join(sorted(theirs)) or 'none'}; benchmark models with the same inputs")
        for name, spec in ours.items():
            if spec.dtype != theirs[name].dtype or shapes[first][name] != shapes[other][name]:
                raise DataError(f"models cannot be compared: input {name!r} is {spec} in {first} and {theirs[name]} in {other}; "
                                "benchmark models with the same inputs")


def load_inputs(path: PathLike) -> dict[str, Array]:
    """The arrays of an npz file, without unpickling anything.

    Raises:
        DataError: the file cannot be read, or is no npz file of plain arrays.
    """
    try:
        with zipfile.ZipFile(path):     # np.load would take a single array or a pickle too
            pass
        with np.load(Path(path), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, NotImplementedError, SyntaxError, zipfile.BadZipFile,
            zlib.error) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot read {path} as an npz file of plain arrays: {detail}; save it with numpy.savez") from error
    if foreign := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise DataError(f"cannot read {path} as an npz file of plain arrays: {foreign[0]!r} is no array; save it with numpy.savez")
    return arrays


def make_inputs(specs: Specs, shapes: Mapping[str, Shape], dims: Mapping[str, int], arrays: Mapping[str, Array] | None,
                ranges: Mapping[str, Range], rng: np.random.Generator) -> dict[str, Array]:
    """The value of every input, given or drawn; drawn values do not depend on the order of the inputs.

    Raises:
        DataError: an array is missing or does not fit.
        ConfigError: a range is empty, not finite, outside the input's type, or names no input.
    """
    if unknown := sorted(ranges.keys() - shapes.keys()):
        raise ConfigError(f"no input is called {unknown[0]!r}; the models have {', '.join(shapes)}")
    if arrays is not None:
        batch = batch_symbols(specs, dims)
        return {spec.name: _fit(spec, shapes[spec.name], arrays, batch) for spec in specs}
    return {spec.name: _draw(spec, shapes[spec.name], ranges.get(spec.name), rng)
            for spec in sorted(specs, key=lambda spec: spec.name)}


def _fit(spec: TensorSpec, shape: Shape, arrays: Mapping[str, Array], batch: set[str]) -> Array:
    """The given array in the input's type, its rows repeated cyclically along the batch."""
    if spec.name not in arrays:
        raise DataError(f"the inputs have no array {spec.name!r}; they have {', '.join(arrays) or 'none'}")
    array = arrays[spec.name]
    dtype = np.dtype(spec.dtype)
    wanted = f"input {spec.name!r} is {spec}, the given array is {array.dtype} {array.shape}"
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise DataError(f"{wanted}; convert it to {dtype}")
    is_batch = [size in batch for size in spec.shape]
    if array.ndim != len(shape) or any(not found if free else found != size
                                       for found, size, free in zip(array.shape, shape, is_batch, strict=True)):
        raise DataError(f"{wanted}; give it that shape")
    for axis, free in enumerate(is_batch):
        if free:
            array = np.take(array, np.arange(shape[axis]) % array.shape[axis], axis)
    with np.errstate(over="ignore"):
        fitted = array.astype(dtype)
    if not (np.array_equal(fitted, array) if dtype.kind in "iu" else np.array_equal(np.isfinite(fitted), np.isfinite(array))):
        raise DataError(f"{wanted}; some values are too large for {dtype}")
    return np.ascontiguousarray(fitted).reshape(shape)


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The smallest and the largest number of a type; of integers exactly, which a float64 may not be."""
    if dtype.kind == "f":
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) if dtype.kind in "iu" else (0, 1)


def _draw(spec: TensorSpec, shape: Shape, limits: Range | None, rng: np.random.Generator) -> Array:
    """Values of one input: see the module."""
    dtype = np.dtype(spec.dtype)
    if limits is None:
        return rng.standard_normal(shape).astype(dtype) if dtype.kind == "f" else rng.integers(0, 2, shape).astype(dtype)
    low, high = limits
    smallest, largest = _limits(dtype)
    if not smallest <= low <= high <= largest:
        raise ConfigError(f"the range of input {spec.name!r} must rise and lie within {dtype}, got {low:g}:{high:g}")
    if dtype.kind == "f":
        middle, half = low / 2 + high / 2, high / 2 - low / 2       # the whole width may be no number
        return (middle + half * rng.uniform(-1, 1, shape)).astype(dtype)
    first, last = int(np.ceil(low)), int(np.floor(high))
    if first > last:
        raise ConfigError(f"the range of input {spec.name!r} holds no whole number, got {low:g}:{high:g}")
    return rng.integers(first, last, shape, np.int64 if dtype.kind == "b" else dtype, endpoint=True).astype(dtype)
