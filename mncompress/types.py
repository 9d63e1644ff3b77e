"""The values that cross module borders: frozen, free of tensors, written to JSON and read back.

Conventions used everywhere: arrays of pre-activations have neurons on the last axis; `u` is a pre-activation; layers are
counted from 0 over the *activated* layers of a network; accuracies are fractions; `accuracy_drop` is in percentage points.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mncompress.errors import ConfigError

Task = Literal["classification", "regression"]
Family = Literal["fixed", "meta", "vaf", "agsig", "frelu", "warp"]
Act = Literal["relu", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "softplus", "elu"]
Ends = Literal["activated", "leaky", "gated", "skip"]
Init = Literal["matched", "uniform", "glorot"]
Preset = Literal["exact", "default", "aggressive"]
Target = Literal["auto", "native", "portable"]
Kind = Literal["constant", "affine", "native", "piecewise_linear", "polynomial", "cubic_spline", "kept"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Schedule = Literal["constant", "cosine", "linear"]
Select = Literal["last", "best"]
Order = Literal["shared", "own"]

FAMILIES: tuple[Family, ...] = get_args(Family)
ACTS: tuple[Act, ...] = get_args(Act)
ENDS: tuple[Ends, ...] = get_args(Ends)
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In order of price."""
RELU_LIKE: frozenset[Act] = frozenset({"relu", "leaky_relu"})
"""Inner activations that make every learned activation exactly piecewise linear."""

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid")
"""For values that people write by hand: an unknown field is an error."""


def from_json(cls: type[T], document: Any, *, where: str) -> T:
    """Build a value of the dataclass `cls` from parsed JSON (or TOML), checking every field's name and type.

    Raises:
        ConfigError: one line naming `where`, the field and what is wrong with it.
    """
    try:
        return TypeAdapter(cls).validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = ".".join(str(part) for part in first["loc"]) or "document"
        raise ConfigError(f"{where}: {location}: {first['msg'].removeprefix('Value error, ')}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def to_json(value: Any) -> Any:
    """The JSON form of a dataclass: tuples become lists, paths become strings."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


@dataclass(frozen=True)
class ActivationSpec:
    """Which activation a layer has.

    `width` and `depth` are those of the inner network and are 0 for families without one.
    """

    family: Family
    act: Act
    """The activation inside; `agsig` is a sigmoid and `frelu` a relu by definition."""
    width: int = 0
    depth: int = 0
    shared: bool = False
    """One set of parameters for the whole layer instead of one per neuron."""
    ends: Ends = "activated"
    """What the input and the output neuron of `meta` apply to z: act(z); `leaky` act(z) + 0.1 z; `gated`
    act(z) + p (z - act(z)) and `skip` act(z) + s z, with p and s learned per neuron and end."""

    def __post_init__(self) -> None:
        if self.ends != "activated" and self.family != "meta":
            raise ConfigError(f"activation {self.family!r} has no ends to choose, got {self.ends = }; only 'meta' has")
        if self.family in ("meta", "vaf") and (self.width < 1 or self.depth < 1):
            raise ConfigError(f"activation {self.family!r} needs an inner width and at least one inner layer, "
                              f"got {self.width = }, {self.depth = }")
        if self.family == "vaf" and self.depth != 1:
            raise ConfigError(f"activation 'vaf' has exactly one inner layer, got {self.depth = }; use 'meta' for more")

    @property
    def name(self) -> str:
        """The name as on the command line, such as `fixed:relu` or `vaf`."""
        return f"{self.family}:{self.act}" if self.family in ("fixed", "warp") else self.family


def parse_activation(text: str, *, inner: Act, width: int, depth: int, shared: bool, ends: Ends = "activated"
                     ) -> ActivationSpec:
    """Parse `meta`, `vaf`, `agsig`, `frelu`, `warp:ACT` or `fixed:ACT`; only `meta` takes the `ends`.

    Raises:
        ConfigError: the family or the activation is unknown.
    """
    family, _, act = text.partition(":")
    if family not in FAMILIES:
        raise ConfigError(f"unknown activation {text!r}; choose from meta, vaf, agsig, frelu, warp:ACT, fixed:ACT")
    if family in ("fixed", "warp"):
        if act not in ACTS:
            raise ConfigError(f"activation {text!r} needs one of {', '.join(ACTS)} after the colon, as in {family}:tanh")
        return ActivationSpec(family, act, shared=shared)
    if act:
        raise ConfigError(f"activation {text!r}: only fixed and warp take an activation after a colon; use --inner {act}")
    if family == "agsig":
        return ActivationSpec("agsig", "sigmoid", shared=shared)
    if family == "frelu":
        return ActivationSpec("frelu", "relu", shared=shared)
    return ActivationSpec(family, inner, width, depth, shared, ends if family == "meta" else "activated")


@dataclass(frozen=True)
class NetworkSpec:
    """The shape of a network: everything but its weights."""

    in_features: int
    hidden: tuple[int, ...]
    out_features: int
    activations: tuple[ActivationSpec, ...]
    """One per activated layer: the hidden layers, then the output layer where `output_activation`."""
    task: Task = "classification"
    output_activation: bool = False
    residual: bool = False
    """Add a hidden layer's input to its output wherever the two have the same width (from the second hidden layer on)."""

    def __post_init__(self) -> None:
        if min((self.in_features, self.out_features, *self.hidden)) < 1:
            raise ConfigError(f"every layer needs at least one neuron, got {self.sizes}")
        expected = len(self.hidden) + self.output_activation
        if len(self.activations) != expected:
            raise ConfigError(f"{len(self.activations)} activations given for {expected} activated layers")
        if self.residual and not any(a == b for a, b in zip(self.hidden, self.hidden[1:], strict=False)):
            raise ConfigError(f"residual connections need two adjacent hidden layers of equal width, got {self.hidden = }")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Features in, neurons of each hidden layer, features out."""
        return (self.in_features, *self.hidden, self.out_features)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training run; saved as `config.json` beside what it produced."""

    __pydantic_config__ = STRICT

    data: str = "digits"
    """`digits`, `mnist`, `fashion-mnist`, `kmnist`, `mnist1d`, `function:NAME` or the path of an npz file."""
    data_dir: str | None = None
    """Where torchvision data sets are, or are downloaded to."""
    activation: str = "meta"
    """`meta`, `vaf`, `agsig`, `frelu`, `warp:ACT` or `fixed:ACT`; or a comma-separated list, one per activated layer."""
    inner: Act = "relu"
    """The activation inside `meta` and `vaf`."""
    inner_width: int = 5
    inner_layers: int = 1
    ends: Ends = "activated"
    """What the input and the output neuron of `meta` apply: `activated`, `leaky`, `gated` or `skip`."""
    shared: bool = False
    """One learned activation per layer instead of one per neuron."""
    hidden: tuple[int, ...] = (7,)
    output_activation: bool = False
    residual: bool = False
    init: Init = "matched"
    epochs: int = 20
    batch_size: int = 128
    lr: float = 2e-3
    """Adam's learning rate."""
    activation_lr: float = 1.0
    """The learning rate of the activations' own parameters, as a multiple of `lr`."""
    schedule: Schedule = "constant"
    """How the learning rate goes over the epochs: `constant`, or down to zero as a half `cosine` or a `linear` ramp."""
    warmup: int = 0
    """Epochs in which the learning rate first rises linearly from zero."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW) of the linear layers' weights."""
    batch_norm: bool = False
    """Batch-normalize pre-activations while training; folded into the linear layers at the end."""
    select: Select = "last"
    """Keep the weights of the `last` epoch, or of each network's `best` epoch on the validation split."""
    patience: int = 0
    """Stop a network after this many epochs without improvement on the validation split, and keep its best; 0 never stops."""
    seed: int = 0
    """Determines splits, generated data, initialisation and shuffling."""
    replicates: int = 1
    """Networks trained side by side, each with its own initialisation."""
    order: Order = "shared"
    """Whether all networks see the same batches, or each shuffles its `own`."""
    keep: int = 0
    """Keep only this many networks, the best on the validation split; 0 keeps all."""
    device: Device = "auto"

    def __post_init__(self) -> None:
        for name in ("inner_width", "inner_layers", "epochs", "batch_size", "replicates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise ConfigError(f"lr must be positive and finite, got {self.lr}")
        for name in ("activation_lr", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be finite and not negative, got {getattr(self, name)}")
        for name in ("seed", "warmup", "patience", "keep"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.warmup and self.warmup >= self.epochs:
            raise ConfigError(f"warmup must be shorter than the training, got warmup {self.warmup} of {self.epochs} epochs")
        if self.keep > self.replicates:
            raise ConfigError(f"keep must not exceed the replicates, got keep {self.keep} of {self.replicates} replicates")
        if self.batch_norm and self.batch_size == 1:
            raise ConfigError("batch_norm needs batches of at least 2 samples, got batch_size 1")
        self.make_activations()

    @property
    def keeps_best_epoch(self) -> bool:
        """Whether each network ends with the weights of its best epoch."""
        return self.select == "best" or self.patience > 0

    def make_activations(self) -> tuple[ActivationSpec, ...]:
        """The activation of each activated layer.

        Raises:
            ConfigError: a name is unknown, or a list has another length than the activated layers.
        """
        count = len(self.hidden) + self.output_activation
        names = self.activation.split(",")
        if len(names) == 1:
            names = names * max(count, 1)
        elif len(names) != count:
            raise ConfigError(f"activation {self.activation!r} lists {len(names)} layers, the network has {count} activated ones")
        specs = [parse_activation(name.strip(), inner=self.inner, width=self.inner_width, depth=self.inner_layers,
                                  shared=self.shared, ends=self.ends) for name in names]
        return tuple(specs[:count])

    def make_spec(self, in_features: int, out_features: int, task: Task) -> NetworkSpec:
        """The network's shape on a data set of the given width, classes or targets, and task."""
        return NetworkSpec(in_features, self.hidden, out_features, self.make_activations(), task,
                           self.output_activation, self.residual)


@dataclass(frozen=True)
class EpochMetrics:
    """A replicate after an epoch: a row of `metrics.csv`."""

    epoch: int
    """From 1."""
    replicate: int
    train_loss: float
    validation_loss: float
    validation_metric: float
    """Accuracy, a fraction, or RMSE in the target's units."""
    seconds: float
    """Of the epoch, for all replicates together."""


@dataclass(frozen=True)
class Budget:
    """What the user allows compression to cost, on the validation split. Every given limit must hold."""

    max_drop: float | None = None
    """Percentage points of accuracy; for regression per cent of relative increase of the RMSE."""
    max_logit_error: float | None = None
    """Largest absolute change of any output; for regression in the target's units."""
    preset: Preset = "default"
    target: Target = "auto"
    """What the network is to be fast in: ONNX Runtime with the kernel library (`native`), or standard operators alone
    (`portable`). `auto` is native where the library was built."""

    def __post_init__(self) -> None:
        for name in ("max_drop", "max_logit_error"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"{name} must be finite and not negative, got {value}")


@dataclass(frozen=True)
class Decision:
    """What one learned activation becomes, and why."""

    __pydantic_config__ = STRICT

    layer: int
    index: int
    kind: Kind
    domain: tuple[float, float]
    """Calibrated range of the pre-activation."""
    max_abs_error: float
    """Largest difference from the learned activation on the domain, in the activation's own units."""
    tolerance: float
    """The error that the planner allowed here."""
    sensitivity: float
    """Root mean square, over the calibration samples, of the norm of the outputs' gradient by this neuron's output."""
    reason: str
    refused: Mapping[str, str] = field(default_factory=dict)
    """Cheaper kinds that were not taken, each with why."""
    settings: Mapping[str, int | float | str] = field(default_factory=dict)
    """What the fit chose: `intervals`, `degree`, `act`, `knots`."""
    left: bool = False


@dataclass(frozen=True)
class Plan:
    """The decisions for a whole network, and the evidence on the validation split that they keep the budget."""

    budget: Budget
    decisions: tuple[Decision, ...]
    tolerance: float
    """Allowed root-mean-square contribution of a single neuron to the outputs; each neuron's own tolerance is this
    divided by its sensitivity."""
    validation: Mapping[str, float | int | str | None]
    """Samples, flips, drop with its upper confidence bound, and largest output change on the validation split."""
    schema: Literal["mncompress.plan/1"] = "mncompress.plan/1"


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
    ratio_to_relu_twin: float | None = None
    """Median of the pairwise ratios to the ReLU twin's run of the same round; None where no twin was measured."""


@dataclass(frozen=True)
class Speedup:
    """How many times as long the original takes as the compressed network, in one interleaved run.

    The original is `original.onnx` or, where that is faster, the same network in the form for large batches.
    """

    provider: str
    threads: int
    batch: int
    ratio: float
    """Median over the rounds of original / compressed; above 1 the compressed network is faster."""
    low: float
    high: float
    """95 % interval of the median over rounds."""


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
    """Guaranteed bound of the change of every output on the range that the test samples visit, float32 rounding included."""
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
    schema: Literal["mncompress.report/1"] = "mncompress.report/1"


PathLike = str | Path
