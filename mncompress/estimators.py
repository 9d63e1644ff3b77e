"""Networks with learned activations as scikit-learn estimators.

`fit` holds rows of X out, drawn from `random_state` and stratified by class: 10 % tell how pre-activations are distributed
(calibration) and 15 %, or 10 % of more than 10 000 rows, choose the best network and epoch and later hold compression to its budget
(validation). Neither trains any weights. Features and targets are standardized by the network itself. X becomes float32, uint8
stays (pixels, which share one standardization).

`compress` needs the rows of `fit` again, since a fitted estimator keeps none, and rows that it has never seen for the figures of
the report. Pickled estimators hold NumPy arrays, strings and numbers, no torch objects; load only pickles that you trust.
"""

import dataclasses
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from mncompress.calibration import run_network
from mncompress.checkpoint import Run, RunRecord
from mncompress.data import FEWEST_ROWS, IN_MEMORY, Arrays, Dataset, Split, check_resolution, split_arrays
from mncompress.errors import DataError
from mncompress.nn import Network
from mncompress.pipeline import Result, compress
from mncompress.training import train
from mncompress.types import Act, Budget, Device, Ends, EpochMetrics, Init, Order, Schedule, Select, TrainConfig, from_json, to_json

FEATURE_TYPES = (np.float32, np.uint8)
Floats = NDArray[np.float64]


class _MetaNeuronEstimator(BaseEstimator):  # type: ignore[misc]
    """What the two estimators share: their parameters, training, compression, and what a pickle holds."""

    run_: Run
    classes_: NDArray[Any]
    _network: Network

    def __init__(self, *, activation: str = "meta", inner: Act = "tanh", inner_width: int = 5, inner_layers: int = 1,
                 ends: Ends = "activated", shared: bool = False, hidden: Sequence[int] | int = (8, 8),
                 output_activation: bool = False, residual: bool = False, init: Init = "matched", epochs: int = 50,
                 batch_size: int = 32, lr: float = 2e-3, activation_lr: float = 1.0, schedule: Schedule = "constant",
                 warmup: int = 0, weight_decay: float = 0.0, batch_norm: bool = False, select: Select = "last", patience: int = 0,
                 replicates: int = 1, order: Order = "shared", keep: int = 0, device: Device = "auto",
                 random_state: int | np.random.RandomState | None = None) -> None:
        self.activation = activation
        self.inner = inner
        self.inner_width = inner_width
        self.inner_layers = inner_layers
        self.ends = ends
        self.shared = shared
        self.hidden = hidden
        self.output_activation = output_activation
        self.residual = residual
        self.init = init
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.activation_lr = activation_lr
        self.schedule = schedule
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.batch_norm = batch_norm
        self.select = select
        self.patience = patience
        self.replicates = replicates
        self.order = order
        self.keep = keep
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on rows X (n, d), n at least 10, and y.

        Args:
            X: finite numbers.
            y: labels (n,) of any kind for the classifier; targets (n,) or (n, t) for the regressor.

        Raises:
            ValueError: the arrays cannot be used.
            DataError: a column of X or y varies by less than float32 resolves.
            ConfigError: a parameter cannot be used.
            TrainingError: every network diverged.
        """
        rows, targets = self._validate(X, y, ensure_min_samples=FEWEST_ROWS, **self._target_checks)
        check_resolution("X", np.asarray(X, np.float64), rows)
        self._learn_targets(targets)
        config = self._make_config()
        self.run_ = train(config, dataset=self._make_dataset(rows, targets, config.seed))
        self.loss_curve_ = [row.train_loss for row in self.run_.history if row.replicate == self.run_.best]
        self.n_iter_ = len(self.loss_curve_)
        self._network = self.run_.network().double()
        return self

    def compress(self, X: ArrayLike, y: ArrayLike, *, test: tuple[ArrayLike, ArrayLike], budget: Budget | None = None,
                 **options: Any) -> Result:
        """Replace each learned activation by the cheapest thing that computes the same; the estimator stays as it is.

        `mncompress.export_onnx` writes the result, and `run_.network()` as it was trained.

        Args:
            X: the rows of `fit`, in their order; of these the held-out ones calibrate and hold the network to its budget.
            y: as for `fit`.
            test: further X and y, for the figures of the report alone.
            budget: what compression may cost; the default preset where None.
            **options: of `mncompress.compress`, such as `out`, the folder for ONNX files and report.

        Raises:
            DataError: X and y are not what the estimator was fitted on.
            ConfigError, ExportError, OutputError: as for `mncompress.compress`.
        """
        check_is_fitted(self)
        (rows, targets), (test_rows, test_targets) = (
            self._validate(*pair, reset=False, **self._target_checks) for pair in ((X, y), test))
        dataset = self._make_dataset(rows, targets, self.run_.config.seed)
        if dataset.content_hash != self.run_.data_hash:
            raise DataError("X and y are not the rows that the estimator was fitted on; give them in the same order and types")
        dataset = dataclasses.replace(dataset, test=Split(test_rows, self._encode(test_targets)))
        return compress(self.run_, budget, data=dataset, **options)

    @property
    def _target_checks(self) -> dict[str, bool]:
        """What `validate_data` is to see to in y."""
        raise NotImplementedError

    def _learn_targets(self, y: NDArray[Any]) -> None:
        """Keep what `_encode` needs to know of y."""
        raise NotImplementedError

    def _encode(self, y: NDArray[Any]) -> NDArray[np.int64] | NDArray[np.float32]:
        """Y as a data set holds it."""
        raise NotImplementedError

    def _validate(self, *arrays: ArrayLike, **checks: Any) -> Any:
        """Scikit-learn's own checks; what float32 cannot hold becomes infinite, and is refused as such."""
        with np.errstate(over="ignore"):
            return validate_data(self, *arrays, dtype=FEATURE_TYPES, **checks)

    def _make_config(self) -> TrainConfig:
        values = self.get_params() | {"data": IN_MEMORY, "hidden": np.atleast_1d(self.hidden).tolist()}
        seed = values.pop("random_state")
        values["seed"] = seed if isinstance(seed, Integral) else check_random_state(seed).randint(2**31 - 1)
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        return from_json(TrainConfig, plain, where=type(self).__name__)

    def _make_dataset(self, X: NDArray[Any], y: NDArray[Any], seed: int) -> Dataset:
        rows = Split(X, self._encode(y))
        return split_arrays(IN_MEMORY, Arrays(rows, Split(rows.x[:0], rows.y[:0])), seed)

    def _outputs(self, X: ArrayLike) -> Floats:
        """Logits, or targets in their own units, (n, outputs), computed in float64."""
        check_is_fitted(self)
        return run_network(self._network, self._validate(X, reset=False))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_network", None)
        if "run_" in state:
            run = state["run_"]
            state["run_"] = {"record": to_json(run.record), "history": [dataclasses.asdict(row) for row in run.history],
                             "replicates": {name: value.numpy() for name, value in run.replicates.items()}}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "run_" in state:
            run = state["run_"]
            self.run_ = Run(from_json(RunRecord, run["record"], where=type(self).__name__),
                            {name: torch.tensor(value) for name, value in run["replicates"].items()},
                            history=tuple(EpochMetrics(**row) for row in run["history"]))
            self._network = self.run_.network().double()


class MetaNeuronClassifier(ClassifierMixin, _MetaNeuronEstimator):  # type: ignore[misc]
    """A classifier with learned activations.

    Its parameters are the options of `mncompress train`, described at `mncompress.TrainConfig`, some with other defaults for small
    tables; `random_state` is the seed.

    Attributes:
        classes_: the labels, ascending, (k,).
        n_features_in_: features of a row.
        feature_names_in_: their names, where X had any.
        run_: what training left: `run_.network()` is the torch module, `run_.history` the metrics of every epoch.
        n_iter_: epochs trained.
        loss_curve_: mean cross-entropy on the training rows in each epoch, of the network that was chosen.
    """

    @property
    def _target_checks(self) -> dict[str, bool]:
        return {}

    def _learn_targets(self, y: NDArray[Any]) -> None:
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only, {self.classes_[0]}; a classification needs at least two classes")

    def _encode(self, y: NDArray[Any]) -> NDArray[np.int64]:
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y holds the label {unknown[0]}, which is no class of fit")
        return np.searchsorted(self.classes_, y).astype(np.int64)

    def decision_function(self, X: ArrayLike) -> Floats:
        """Logits (n, k); for two classes the second's minus the first's, (n,)."""
        logits = self._outputs(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Probabilities (n, k): softmax of the logits."""
        return np.asarray(softmax(self._outputs(X), axis=1))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class of each row, (n,)."""
        best = self._outputs(X).argmax(1)       # fails first where the estimator is not fitted
        return np.asarray(self.classes_[best])


class MetaNeuronRegressor(MultiOutputMixin, RegressorMixin, _MetaNeuronEstimator):  # type: ignore[misc]
    """A regressor with learned activations, for one target or several.

    Its parameters are the options of `mncompress train`, described at `mncompress.TrainConfig`, some with other defaults for small
    tables; `random_state` is the seed.

    Attributes:
        n_features_in_: features of a row.
        feature_names_in_: their names, where X had any.
        run_: what training left: `run_.network()` is the torch module, `run_.history` the metrics of every epoch.
        n_iter_: epochs trained.
        loss_curve_: mean squared error of the standardized targets on the training rows in each epoch, of the network chosen.
    """

    @property
    def _target_checks(self) -> dict[str, bool]:
        return {"multi_output": True, "y_numeric": True}

    def _learn_targets(self, y: NDArray[Any]) -> None:
        self._one_dimensional = y.ndim == 1
        check_resolution("y", np.asarray(y, np.float64), self._encode(y))

    def _encode(self, y: NDArray[Any]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):    # as in `_validate`
            targets = check_array(y, dtype=np.float32, ensure_2d=False, input_name="y")
        return np.asarray(targets.reshape(len(targets), -1), np.float32)

    def predict(self, X: ArrayLike) -> Floats:
        """Targets in their own units, (n,) or (n, t) as y was."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._one_dimensional else outputs
