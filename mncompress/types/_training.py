"""How a network is trained."""

from dataclasses import dataclass
from typing import Literal

from mncompress.errors import ConfigError
from mncompress.types._json import STRICT, settle_fields_
from mncompress.types._network import Act, ActivationSpec, Ends, NetworkSpec, Task, parse_activation

Init = Literal["matched", "uniform", "glorot"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Schedule = Literal["constant", "cosine", "linear"]
Select = Literal["last", "best"]
Order = Literal["shared", "own"]


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
        settle_fields_(self)
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
        if self.ends != "activated" and "meta" not in (name.strip() for name in names):
            raise ConfigError(f"ends {self.ends!r} are for the activation meta, got activation {self.activation!r}")
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
