"""One inference as a function without arguments, and what models answer to the same inputs."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from mncompress.benchmark._inputs import Array
from mncompress.benchmark._sampling import RunOnce
from mncompress.errors import ConfigError, RuntimeProviderError
from mncompress.runtime import describe_error

AGREEMENT = 1e-3
"""Models whose outputs differ by more than this share of the baseline's largest output are said to compute different things."""


@dataclass(frozen=True)
class Agreement:
    """How far a model's outputs are from the baseline's on the same inputs."""

    model: str
    provider: str
    batch: int
    max_abs_difference: float | None
    """Over all outputs, in the order in which the files list them; None where they cannot be compared."""
    max_abs_output: float | None
    """The largest finite output of the baseline."""
    problem: str | None = None
    """Why the outputs cannot be compared."""

    @property
    def is_close(self) -> bool:
        """Whether the models can be taken to compute the same."""
        if self.max_abs_difference is None or self.max_abs_output is None:
            return False
        return self.max_abs_difference <= AGREEMENT * self.max_abs_output


def run_once(session: onnxruntime.InferenceSession, feeds: Mapping[str, Array], *, name: str) -> list[object]:
    """The outputs of a model; `name` is what an error calls it.

    Raises:
        RuntimeProviderError: the model fails on these inputs.
    """
    try:
        return list(session.run(None, dict(feeds)))
    except Exception as error:      # onnxruntime's exceptions have no base of their own
        raise RuntimeProviderError(f"{name} fails on these inputs: {describe_error(error)}; "
                                   "give others with --inputs, or their range with --range") from error


def bind(session: onnxruntime.InferenceSession, feeds: Mapping[str, Array], device: str = "cpu", *,
         like: Sequence[object] | None = None, name: str = "the model") -> RunOnce:
    """One inference between buffers on the device, made beforehand: they belong to the binding, which the result keeps.

    Args:
        session: the model.
        feeds: the value of every input.
        device: `cpu` or `cuda`.
        like: outputs that were computed from the same inputs, for their shapes and types; computed here where None.
        name: what an error calls the model.

    Raises:
        ConfigError: an output is no tensor of numbers or booleans.
        RuntimeProviderError: the model fails on these inputs.
    """
    binding = session.io_binding()
    for key, value in feeds.items():
        source = _buffer(value, device)
        source.update_inplace(value)
        binding.bind_ortvalue_input(key, source)
    outputs = run_once(session, feeds, name=name) if like is None else like
    for end, output in zip(session.get_outputs(), outputs, strict=True):
        if not isinstance(output, np.ndarray) or output.dtype.kind not in "fiub":
            raise ConfigError(f"output {end.name!r} of {name} is a {end.type} and cannot be bound to a buffer; "
                              "pass --no-io-binding")
        binding.bind_ortvalue_output(end.name, _buffer(output, device))
    return functools.partial(session.run_with_iobinding, binding)


def feed(session: onnxruntime.InferenceSession, feeds: Mapping[str, Array]) -> RunOnce:
    """One inference from NumPy arrays to NumPy arrays, as most programs do it: copies and allocations included."""
    return functools.partial(session.run, None, dict(feeds))


def compare_outputs(outputs: Mapping[str, Sequence[object]], baseline: str, *, provider: str, batch: int) -> tuple[Agreement, ...]:
    """How far every other model's outputs are from those of `baseline`."""
    ours = outputs[baseline]
    return tuple(Agreement(model, provider, batch, *_difference(ours, theirs))
                 for model, theirs in outputs.items() if model != baseline)


def _difference(ours: Sequence[object], theirs: Sequence[object]) -> tuple[float | None, float | None, str | None]:
    """The largest difference, the largest of our values, or the problem."""
    if len(ours) != len(theirs):
        return None, None, f"it has {len(theirs)} outputs instead of {len(ours)}"
    difference = largest = 0.0
    for position, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if not (_is_numeric(a) and _is_numeric(b)):
            return None, None, f"output {position} is no tensor of numbers"
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if x.shape != y.shape:
            return None, None, f"output {position} has the shape {y.shape} instead of {x.shape}"
        finite = np.isfinite(x)
        if not np.array_equal(x[~finite], y[~finite], equal_nan=True) or not np.isfinite(y[finite]).all():
            return None, None, f"output {position} has NaN or infinities in other places"
        with np.errstate(over="ignore"):
            difference = max(difference, float(np.max(np.abs(x[finite] - y[finite]), initial=0.0)))
        largest = max(largest, float(np.max(np.abs(x[finite]), initial=0.0)))
    return (difference, largest, None) if math.isfinite(difference) else (None, largest, "its outputs differ beyond all numbers")


def _is_numeric(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def _buffer(value: Array, device: str) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape, value.dtype, device, 0)
