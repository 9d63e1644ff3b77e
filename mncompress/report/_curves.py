"""What every learned activation of a network looks like: `activations.safetensors` in a compressed folder.

For each of n neurons: the function on a grid of G pre-activations, the function that replaced it, and the histogram of
the pre-activations it was calibrated on. The arrays are tensors of the file; everything else is one JSON document in the
file's metadata under `mncompress`. A run folder has nothing replaced yet: `replacement`, `max_abs_error`, `kinds` and `left`
are None together.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mncompress.errors import CheckpointError
from mncompress.files import atomic_path
from mncompress.types import KINDS, Kind

SCHEMA = "mncompress.curves/1"
MARGIN = 0.15
"""How far the grid reaches beyond the domain on either side, as a share of the domain's width."""

LARGEST = 1e30
"""Pre-activation that is read from a file: the margins of a picture, which is drawn in float32, have to be finite too."""

_ARRAYS = {
    "layer": (np.int64, ("n",)),
    "index": (np.int64, ("n",)),
    "domain": (np.float64, ("n", 2)),
    "u": (np.float32, ("n", "grid")),
    "original": (np.float32, ("n", "grid")),
    "histogram": (np.int64, ("n", "bins")),
    "histogram_range": (np.float64, ("n", 2)),
    "replacement": (np.float32, ("n", "grid")),
    "max_abs_error": (np.float64, ("n",)),
    "sensitivity": (np.float64, ("n",)),
    "left": (np.bool_, ("n",)),
}
_OF_A_COMPRESSED_NETWORK = ("replacement", "max_abs_error", "kinds", "left")


@dataclass(frozen=True, eq=False)
class Curves:
    """The learned activations of one network, neurons on the first axis.

    Raises:
        ValueError: an array has another shape or type than stated here.
    """

    layer: NDArray[np.int64]
    """(n,), counted from 0 over the activated layers."""
    index: NDArray[np.int64]
    """(n,), of the neuron inside its layer."""
    domain: NDArray[np.float64]
    """(n, 2), calibrated range of the pre-activation."""
    u: NDArray[np.float32]
    """(n, G), ascending pre-activations; `make_grid` makes them."""
    original: NDArray[np.float32]
    """(n, G), the learned activation at `u`."""
    histogram: NDArray[np.int64]
    """(n, bins), counts of calibration pre-activations in equal bins."""
    histogram_range: NDArray[np.float64]
    """(n, 2), outer edges of the bins."""
    sensitivity: NDArray[np.float64]
    """(n,), how strongly the outputs follow the neuron's output."""
    replacement: NDArray[np.float32] | None = None
    """(n, G), what the activation became, at `u`."""
    max_abs_error: NDArray[np.float64] | None = None
    """(n,), the decision's largest difference on the domain."""
    kinds: tuple[Kind, ...] | None = None
    """n kinds, one per neuron."""
    left: NDArray[np.bool_] | None = None
    """(n,), which neurons are gone from the compressed network."""
    title: str = ""
    """The network in a few words, for the head of a picture."""

    def __post_init__(self) -> None:
        reason = _check(self)
        if reason:
            raise ValueError(reason)

    def __len__(self) -> int:
        return len(self.layer)

    def select(self, rows: NDArray[np.intp]) -> "Curves":
        """The curves of some neurons, in the order of `rows` (k,)."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        chosen = {name: value[rows] for name, value in arrays.items() if value is not None}
        return replace(self, **chosen, kinds=None if self.kinds is None else tuple(self.kinds[row] for row in rows))

    def by_sensitivity(self) -> NDArray[np.intp]:
        """The rows (n,), those of the most sensitive neurons first."""
        return np.argsort(-self.sensitivity, kind="stable")


def make_grid(domain: NDArray[np.float64], points: int = 241) -> NDArray[np.float32]:
    """The pre-activations (n, points) at which to draw: each domain and `MARGIN` of its width on both sides.

    A domain of no width is widened, by an amount that float32 still resolves there.
    """
    lo, hi = domain[:, :1], domain[:, 1:]
    pad = np.maximum(MARGIN * (hi - lo), 1e-3 * np.maximum(1.0, np.maximum(np.abs(lo), np.abs(hi))))
    grid: NDArray[np.float64] = lo - pad + (hi - lo + 2 * pad) * np.linspace(0.0, 1.0, points)
    return grid.astype(np.float32)


def save_curves(path: Path, curves: Curves) -> None:
    """Write `curves` as safetensors, atomically.

    Raises:
        OutputError: `path` cannot be written.
    """
    arrays = {name: getattr(curves, name) for name in _ARRAYS}
    document = {"schema": SCHEMA, "title": curves.title, "kinds": curves.kinds}
    content = save({name: np.ascontiguousarray(value) for name, value in arrays.items() if value is not None},
                   metadata={"mncompress": json.dumps(document)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)  # not save_file: it makes files that only their owner can read


def load_curves(path: Path) -> Curves:
    """Read what `save_curves` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, of another version, or its tensors do not fit together.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; run mncompress compress again")
    try:
        with safe_open(path, framework="numpy") as file:
            document = json.loads((file.metadata() or {}).get("mncompress", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file; run mncompress compress again") from error
    return _build(path, document, arrays)


def _build(path: Path, document: Any, arrays: dict[str, Any]) -> Curves:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise CheckpointError(f"{path} does not hold {SCHEMA}; run mncompress compress again with this version")
    missing = [name for name in _ARRAYS if name not in arrays and name not in _OF_A_COMPRESSED_NETWORK]
    if missing:
        raise CheckpointError(f"{path} lacks the tensor {missing[0]!r}; run mncompress compress again")
    kinds = document.get("kinds")
    try:
        curves = Curves(**{name: arrays.get(name) for name in _ARRAYS},  # type: ignore[arg-type]
                        kinds=None if kinds is None else tuple(kinds), title=str(document.get("title", "")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}; run mncompress compress again") from error
    for name in ("domain", "u", "histogram_range"):
        if not np.all(np.abs(getattr(curves, name)) <= LARGEST):
            raise CheckpointError(f"{path}: {name} has values that are not finite or beyond {LARGEST:g}; "
                                  "run mncompress compress again")
    return curves


def _check(curves: Curves) -> str | None:
    """What is wrong with the arrays, or None."""
    sizes: dict[str, int] = {"n": len(curves.layer)}
    for name, (dtype, axes) in _ARRAYS.items():
        array = getattr(curves, name)
        if array is None and name in _OF_A_COMPRESSED_NETWORK:
            continue
        lengths = array.shape if array.ndim == len(axes) else ()
        expected = tuple(axis if isinstance(axis, int) else sizes.setdefault(axis, length)
                         for axis, length in zip(axes, lengths, strict=False))
        if lengths != expected or not lengths or array.dtype != dtype:
            wanted = ", ".join(str(sizes.get(axis, axis)) if isinstance(axis, str) else str(axis) for axis in axes)
            return f"{name} is {array.dtype} of shape {array.shape}, not {dtype.__name__} of shape ({wanted})"
    given = [getattr(curves, name) is not None for name in _OF_A_COMPRESSED_NETWORK]
    if any(given) and not all(given):
        return "replacement, max_abs_error, kinds and left must be given together"
    if curves.kinds is not None and (len(curves.kinds) != len(curves) or not set(curves.kinds) <= set(KINDS)):
        return f"kinds must be {len(curves)} of {', '.join(KINDS)}"
    return None
