"""How well a model does on a data set: accuracy and loss, in float64."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy.special import log_softmax

from mncompress.errors import DataError
from mncompress.runtime import make_session, model_info, run
from mncompress.types import PathLike

SUM_ERROR = 1e-3
"""Of probabilities in half precision."""


@dataclass(frozen=True)
class Evaluation:
    """How well a model does on a data set."""

    samples: int
    accuracy: float | None
    """Fraction of samples whose largest output is the label's; None for regression."""
    loss: float
    """Mean cross-entropy in nats, or the mean squared error over samples and targets."""
    rmse: float | None
    """Root of the mean squared error; None for classification."""


def evaluate(model: PathLike | onnxruntime.InferenceSession, x: NDArray[Any], y: NDArray[Any]) -> Evaluation:
    """Run a model on raw features `x` (n, d) and score it against `y`: see `score`.

    Raises:
        RuntimeProviderError: the file cannot be opened, or is no model of rows.
        DataError: as `run` and `score`, or the labels are of another task than the model.
    """
    session, name = (model, "the model") if isinstance(model, onnxruntime.InferenceSession) else (make_session(model), str(model))
    info = model_info(session, name=name)
    if info.output in ("logits", "output") and info.is_regression == (y.dtype.kind in "iu"):
        task, found = ("regression", "integer labels") if info.is_regression else ("classification", "float targets")
        raise DataError(f"the model is for {task}, the data has {found}; use the data set the model was trained on")
    return score(run(session, x), y)


def score(outputs: NDArray[Any], y: NDArray[Any]) -> Evaluation:
    """Score outputs (n, classes) against integer labels (n,), or outputs (n, targets) against floats of that shape.

    Computed in float64. A single target may be given as (n,). Outputs of classes are logits, or probabilities where all rows are
    such: not negative, with a sum of 1.

    Raises:
        DataError: shapes do not match, a label is not one of the model's classes, or an output is not finite.
    """
    outputs = outputs.astype(np.float64)
    samples, width = outputs.shape
    is_regression = y.dtype.kind == "f"
    if is_regression and y.ndim == 1:
        y = y[:, np.newaxis]
    expected = outputs.shape if is_regression else (samples,)
    if y.dtype.kind not in "iuf" or y.shape != expected:
        raise DataError(f"labels must be integers ({samples},) or float targets ({samples}, {width}) for this model "
                        f"and data, got {y.shape = }, {y.dtype = }")
    if not samples:
        raise DataError("the data set is empty; nothing can be evaluated")
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.all():
        raise DataError(f"the model returns NaN or infinity for {np.sum(~finite)} of {samples} samples, first for "
                        f"sample {np.argmin(finite)}; check that sample's features")
    if is_regression:
        loss = float(np.mean((outputs - y) ** 2))
        return Evaluation(samples, None, loss, math.sqrt(loss))
    if y.min() < 0 or y.max() >= width:
        raise DataError(f"labels run from {y.min()} to {y.max()}, the model has the classes 0 to {width - 1}; "
                        "use the data set the model was trained on")
    are_probabilities = outputs.min() >= 0 and np.abs(outputs.sum(axis=1) - 1).max() <= SUM_ERROR
    logarithms = np.log(np.maximum(outputs, np.finfo(np.float64).tiny)) if are_probabilities else log_softmax(outputs, axis=1)
    loss = -float(np.mean(logarithms[np.arange(samples), y]))
    return Evaluation(samples, float(np.mean(outputs.argmax(axis=1) == y)), loss, None)
