"""What is measured, and `report.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mncompress.types._compression import Budget, Kind, LayerPlan, Trial


@dataclass(frozen=True)
class LatencyRow:
    """The measured time of one model under one condition."""

    model: str
    provider: str
    threads: int
    batch: int
    median_us: float
    p95_us: float
    runs: int
    median_low: float
    median_high: float
    """95 % interval of the median, in microseconds, from sessions opened anew."""
    ratio_to_relu_twin: float | None = None
    """How many times as long as the ReLU twin, by its runs of the same rounds; None where no twin was measured."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    """95 % interval of the ratio to the ReLU twin."""


@dataclass(frozen=True)
class Speedup:
    """How many times as long the original takes as the compressed network, in one interleaved run.

    The original is `original.onnx` or, where that is faster, the same network in the form for large batches.
    """

    provider: str
    threads: int
    batch: int
    ratio: float
    """Of original / compressed, over sessions opened anew; above 1 the compressed network is faster."""
    low: float
    high: float
    """95 % interval of the ratio."""


@dataclass(frozen=True)
class ModelSummary:
    """One ONNX file: its size, its cost and how well it does on the test split under the CPU provider."""

    path: str
    parameters: int
    macs: int
    """Multiply-adds of one sample, activations included."""
    file_bytes: int
    nodes: int
    accuracy: float | None
    loss: float
    """Mean cross-entropy, or the mean squared error for regression."""


@dataclass(frozen=True)
class NeuronRow:
    """One neuron's line in the report."""

    layer: int
    index: int
    kind: Kind
    left: bool
    domain: tuple[float, float]
    max_abs_error: float
    sensitivity: float
    out_of_range: int
    """Test samples whose pre-activation fell outside the domain."""
    reason: str
    refused: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """`report.json`: what was replaced, by what, why, and what it cost."""

    original: ModelSummary
    compressed: ModelSummary
    portable: ModelSummary
    relu_twin: ModelSummary
    accuracy_drop: float | None
    argmax_flips: int | None
    samples: int
    max_abs_logit_error: float
    logit_error_bound: float | None
    """Guaranteed bound of the change of every output for all inputs that keep features and
    pre-activations in the ranges of the training data and the test samples, float32 rounding included."""
    replacement_error_bound: float | None
    """The part of the bound that the replacements have in exact arithmetic."""
    logit_error_bound_reason: str
    """How the bound was obtained, or why there is none."""
    certified_unchanged: float | None
    """Share of the test samples that provably keep their class."""
    rmse_increase_percent: float | None
    kinds: Mapping[str, int]
    left: int
    neurons: tuple[NeuronRow, ...]
    latency: tuple[LatencyRow, ...]
    validation: Mapping[str, float | int | str | None]
    budget: Budget
    config: Mapping[str, Any]
    notes: tuple[str, ...]
    """What a reader should know first, such as a compressed network that is slower than its original."""
    environment: Mapping[str, Any]
    speedups: tuple[Speedup, ...] = ()
    layers: tuple[LayerPlan, ...] = ()
    """What was done behind whole layers, of those that neurons left or that were refitted."""
    trials: tuple[Trial, ...] = ()
    """The networks that the planner tried, in its order."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """With what else the compression was called: the replicate, the data, the opset, epochs of fine-tuning, a given plan."""
    schema: Literal["mncompress.report/1"] = "mncompress.report/1"
