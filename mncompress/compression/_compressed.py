"""What compression gives: the network, and all that led to it."""

from dataclasses import dataclass

from mncompress.analysis import LayerOptions
from mncompress.calibration import LayerCalibration
from mncompress.compression._rewrite import Group, LinearMap
from mncompress.nn import Network
from mncompress.types import Plan, Trial


@dataclass(frozen=True)
class Compressed:
    """A compressed network with everything that led to it.

    Attributes:
        network: the torch module.
        plan: decision per neuron.
        groups: per activated layer which neurons became what.
        maps: per layer what it reads, in the original's order of neurons.
        options: per activated layer what the neurons could have become.
        calibration: per activated layer what they are given.
        trials: every network that was tried.
        holds: whether the budget does on the validation split.
    """

    network: Network
    plan: Plan
    groups: tuple[tuple[Group, ...], ...]
    maps: tuple[LinearMap, ...]
    options: tuple[LayerOptions, ...]
    calibration: tuple[LayerCalibration, ...]
    trials: tuple[Trial, ...] = ()
    holds: bool = True
