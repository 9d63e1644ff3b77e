"""What compression may cost, and what it decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, get_args

from mncompress.errors import ConfigError
from mncompress.types._json import STRICT, settle_fields_

Preset = Literal["exact", "default", "aggressive"]
Target = Literal["auto", "native", "portable"]
Kind = Literal["constant", "affine", "native", "piecewise_linear", "polynomial", "cubic_spline", "kept"]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""In order of price."""


@dataclass(frozen=True)
class Budget:
    """What the user allows compression to cost, on the validation split. Every given limit must hold."""

    __pydantic_config__ = STRICT

    max_drop: float | None = None
    """Percentage points of accuracy; for regression per cent of relative increase of the RMSE."""
    max_logit_error: float | None = None
    """Largest absolute change of any output; for regression in the target's units."""
    max_error_bound: float | None = None
    """The same, proven for all inputs that keep features and pre-activations in the ranges of the training and validation rows,
    float32 rounding included."""
    preset: Preset = "default"
    target: Target = "auto"
    """What the network is to be fast in: ONNX Runtime with the kernel library (`native`), or standard operators alone
    (`portable`). `auto` is native where the library was built."""
    target_macs: int | str | None = None
    """Multiply-adds to come down to with the best accuracy found, as a number or as a share of the original's like `55%`."""
    target_latency: float | None = None
    """Microseconds to come down to for a batch of one, with the best accuracy found, on the CPU under one thread."""
    include: tuple[str, ...] = ()
    """Patterns for the activated layers that may change, by number or by name: `0`, `body.0.activation`, `body.*`."""
    exclude: tuple[str, ...] = ()
    """Patterns for those that may not."""

    def __post_init__(self) -> None:
        settle_fields_(self)
        for name in ("max_drop", "max_logit_error", "max_error_bound", "target_latency"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"{name} must be finite and not negative, got {value}")
        self.macs_limit(1)
        if self.has_target and self.preset == "exact":
            raise ConfigError("the preset exact has no target to come down to: it replaces only what stays exact; drop one of them")

    @property
    def has_target(self) -> bool:
        """Whether a cost is given to come down to."""
        return self.target_macs is not None or self.target_latency is not None

    @property
    def is_limited(self) -> bool:
        """Whether it is said how far the outputs or the accuracy may be from the original's."""
        return self.max_drop is not None or self.limits_largest

    @property
    def limits_largest(self) -> bool:
        """Whether the largest change of an output is limited, not only a mean: then forms are fitted in the maximum norm."""
        return self.max_logit_error is not None or self.max_error_bound is not None

    def macs_limit(self, original: int) -> float | None:
        """`target_macs` as a number, for an original with so many multiply-adds.

        Raises:
            ConfigError: it is neither a positive number nor a share of 0 to 100 %.
        """
        if self.target_macs is None:
            return None
        text = str(self.target_macs)
        number = text.removesuffix("%")
        is_share = number != text
        if not number.replace(".", "", 1).isdecimal() or float(number) <= 0 or (is_share and float(number) > 100):
            raise ConfigError(f"target_macs must be a positive number, or a share of the original's such as 55%, got {text!r}")
        return original * float(number) / 100 if is_share else float(number)

    def may_change(self, number: int, name: str) -> bool:
        """Whether the activated layer of this number and name may change."""
        def matches(patterns: tuple[str, ...]) -> bool:
            return any(pattern == str(number) or fnmatchcase(name, pattern) for pattern in patterns)

        return (not self.include or matches(self.include)) and not matches(self.exclude)


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
    """Root mean square, over the calibration samples, of the norm of the gradient of the outputs, logits or standardized
    targets, by this neuron's output."""
    reason: str
    refused: Mapping[str, str] = field(default_factory=dict)
    """Cheaper kinds that were not taken, each with why."""
    settings: Mapping[str, int | float | str] = field(default_factory=dict)
    """What the fit chose: `intervals`, `degree`, `act`, `knots`; `form` is `linear` for a table of lines, `reduced` for pieces."""
    left: bool = False
    """The neuron is gone; what it passed on is in a bypass or in the weights of the others."""


@dataclass(frozen=True)
class LayerPlan:
    """What was done behind a layer as a whole."""

    __pydantic_config__ = STRICT

    layer: int
    rank: int = 0
    """Of the bypass around the neurons that left; 0 without one."""
    ridge: float | None = None
    """With which the next layer's weights were refitted, relative to the features' second moments; None where they were not. So
    large a one as 1e300 stands for a refit that the validation rows did not speak for: the weights stayed as they were folded."""
    factored: int = 0
    """The rank at which the layer's own weights are carried out, as two linear layers; 0 where they are not."""


@dataclass(frozen=True)
class Trial:
    """A network that the planner tried, and what the validation split said of it."""

    tolerance: float
    """As in the plan."""
    left: int
    """Neurons that had left the network."""
    macs: int
    """Multiply-adds of one sample, activations included."""
    drop: float | None
    """Percentage points of accuracy, or per cent of the RMSE; None where an output was not finite."""
    drop_upper_bound: float | None
    """Upper 95 % confidence limit of the drop."""
    max_abs_logit_error: float | None
    """Largest change of an output."""
    ok: bool
    """Whether it keeps the budget."""
    reason: str
    taken: bool = False


@dataclass(frozen=True)
class Plan:
    """The decisions for a whole network, and the evidence on the validation split that they keep the budget.

    A plan that is given back is carried out as it is: its decisions' `kind`, `settings` and `left`, `layers`, and the epochs of
    distillation. The rest informs.
    """

    __pydantic_config__ = STRICT

    budget: Budget
    decisions: tuple[Decision, ...]
    tolerance: float
    """Allowed root-mean-square contribution of a single neuron to the outputs, logits or standardized targets; each neuron's
    own tolerance is this divided by its sensitivity."""
    validation: Mapping[str, float | int | str | None]
    """Samples, flips, drop with its upper confidence bound, and largest output change on the validation split. For regression
    the drop counts errors in units of each target's scale; `rmse` and `rmse_compressed` are over all targets in their own."""
    layers: tuple[LayerPlan, ...] = ()
    finetuned: int = 0
    """Epochs of distillation that followed: those after which the network was best."""
    finetune_epochs: int = 0
    """How many were asked for; as many are trained where the plan is given back."""
    schema: Literal["mncompress.plan/1"] = "mncompress.plan/1"
