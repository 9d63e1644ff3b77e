"""What compression may cost, and what it decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from mncompress.errors import ConfigError
from mncompress.types._json import STRICT

Preset = Literal["exact", "default", "aggressive"]
Target = Literal["auto", "native", "portable"]
Kind = Literal["constant", "affine", "native", "piecewise_linear", "polynomial", "cubic_spline", "kept"]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""In order of price."""


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
