"""Learned activations at the price of ReLU, with the loss proven.

The public names below are imported on first use, so that importing the package loads neither torch nor onnxruntime.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mncompress import benchmark as benchmark
    from mncompress import runtime as runtime
    from mncompress.checkpoint import Run as Run
    from mncompress.checkpoint import load_run as load_run
    from mncompress.data import load_dataset as load_dataset
    from mncompress.errors import MncompressError as MncompressError
    from mncompress.estimators import MetaNeuronClassifier as MetaNeuronClassifier
    from mncompress.estimators import MetaNeuronRegressor as MetaNeuronRegressor
    from mncompress.modules import register_activation as register_activation
    from mncompress.pipeline import Result as Result
    from mncompress.pipeline import compress as compress
    from mncompress.pipeline import export_onnx as export_onnx
    from mncompress.training import train as train
    from mncompress.training import train_stacks as train_stacks
    from mncompress.types import Budget as Budget
    from mncompress.types import Report as Report
    from mncompress.types import TrainConfig as TrainConfig

    __version__: str

_MODULES = ("benchmark", "runtime")
_HOMES = {
    "Budget": "types",
    "MetaNeuronClassifier": "estimators",
    "MetaNeuronRegressor": "estimators",
    "MncompressError": "errors",
    "Report": "types",
    "Result": "pipeline",
    "Run": "checkpoint",
    "TrainConfig": "types",
    "compress": "pipeline",
    "export_onnx": "pipeline",
    "load_dataset": "data",
    "load_run": "checkpoint",
    "register_activation": "modules",
    "train": "training",
    "train_stacks": "training",
}
"""The module in which each public function and class is."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562); afterwards it is an ordinary attribute."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version(__name__)
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *_MODULES, *_HOMES, "__version__"})
