"""Checking a written file: does it compute what the torch network computes?

The reference is the network itself in float64. An ONNX file runs in float32, so it may differ by rounding; how much rounding
matters for this network shows in the torch network's own float32 outputs. The tolerance is `FACTOR` times that difference
plus `RELATIVE` of the largest output, or of 1 where that is larger. Targets of a regression are compared as the network has
them, standardized: else a large offset, or another target in larger units, would hide any error.

The onnx reference evaluator is given the file with its function bodies inlined, and a `GatherElements` of our own: its own
goes through `numpy.choose`, which takes at most 63 rows, and the tables of fine splines have more.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import inliner
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from mncompress import runtime
from mncompress.calibration import run_network
from mncompress.errors import ExportError
from mncompress.nn import Network

RELATIVE = 1e-5
FACTOR = 8.0
REFERENCE_ROWS = 512


class GatherElements(OpRun):
    """The standard operator, for any number of rows."""

    op_domain = ""

    def _run(self, data: NDArray[np.generic], indices: NDArray[np.integer], axis: int = 0) -> tuple[NDArray[np.generic]]:
        return (np.take_along_axis(data, indices.astype(np.int64), axis or 0),)


@dataclass(frozen=True)
class ExportCheck:
    """What checking a file found.

    Attributes:
        samples: rows compared under ONNX Runtime.
        reference_samples: rows compared under the onnx reference evaluator.
        max_abs_error: largest difference to the torch network in float64, over both; for regression in units of the
            targets' standard deviation.
        tolerance: what was allowed.
        nodes: operators of the graph, as the file has them.
    """

    samples: int
    reference_samples: int
    max_abs_error: float
    tolerance: float
    nodes: int


def check_export(path: Path, network: Network, x: NDArray[np.generic]) -> ExportCheck:
    """Compare a file with the torch network on raw features x (rows, d).

    Raises:
        ExportError: the outputs differ by more than the tolerance, or the network's own are not finite; the file is removed.
    """
    expected = _standardized(network, run_network(copy.deepcopy(network).double(), x))
    tolerance = allowed_error(expected, _difference(network, run_network(network, x), expected))
    model = onnx.load(path)
    few = x[:REFERENCE_ROWS].astype(np.float32)
    try:
        if not np.isfinite(tolerance):
            raise ExportError(f"{path.name} cannot be checked: the network's outputs are not finite on the test split; "
                              "look for enormous values in the data")
        found = {"ONNX Runtime": runtime.run(runtime.make_session(path), x),
                 "ONNX Runtime without optimization": runtime.run(runtime.make_session(path, optimize=False), few),
                 "the onnx reference evaluator": run_reference(model, few)}
        errors = {where: _difference(network, values, expected[:len(values)]) for where, values in found.items()}
        worst = max(errors, key=lambda where: errors[where] if np.isfinite(errors[where]) else np.inf)
        if not errors[worst] <= tolerance:
            raise ExportError(f"{path.name} does not compute what the network computes: outputs differ by {errors[worst]:.3g} in "
                              f"{worst}, {tolerance:.3g} is allowed; please report this, with the run folder")
    except Exception:
        path.unlink(missing_ok=True)
        raise
    return ExportCheck(len(x), len(few), errors[worst], tolerance, len(model.graph.node))


def allowed_error(expected: NDArray[np.float64], rounding: float) -> float:
    """By how much outputs may differ from the expected ones (n, k), given how far off the network's own are in float32."""
    return FACTOR * rounding + RELATIVE * max(1.0, float(np.abs(expected).max()))


def check_model(model: onnx.ModelProto, name: str) -> None:
    """Let onnx's own checker look at a model that is going to be the file `name`.

    Raises:
        ExportError: it refuses the model.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{name} would not be valid ONNX: {str(error).splitlines()[0]}; try another opset") from error


def run_reference(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Outputs of a model on x (rows, d) in the onnx reference evaluator."""
    evaluator = ReferenceEvaluator(inliner.inline_local_functions(model), new_ops=[GatherElements])
    outputs = evaluator.run(None, {"input": x})
    assert isinstance(outputs, list)
    return np.asarray(outputs[0])


def _standardized(network: Network, outputs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Outputs (rows, out_features) in the units of the network's last layer."""
    if network.targets is None:
        return outputs.astype(np.float64)
    shift, scale = (value.double().numpy() for value in (network.targets.shift, network.targets.scale))
    return np.asarray((outputs - shift) / scale)


def _difference(network: Network, values: NDArray[np.floating], expected: NDArray[np.float64]) -> float:
    """Largest difference of outputs to the standardized `expected`."""
    if values.shape != expected.shape:
        return np.inf
    with np.errstate(invalid="ignore"):     # infinity less infinity
        return float(np.abs(_standardized(network, values) - expected).max())
