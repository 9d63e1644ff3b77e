"""Which kind of optimizer steps a population takes."""

import warnings
from collections.abc import Sequence

import torch

from mncompress.training._fused_steps import FusedStepper, can_fuse
from mncompress.training._launched_steps import LaunchedStepper
from mncompress.training._native_steps import NativeStepper, can_train_natively
from mncompress.training._optimizer import Adam
from mncompress.training._population import Population
from mncompress.training._resident_steps import ResidentStepper, can_stay
from mncompress.training._steps import DeviceSplit, Stepper
from mncompress.types import Task, TrainConfig

THREAD_WEIGHTS = 2**20
"""Weights of a network from which on torch's threads, which share its products, are faster than one thread of the library: for each
thread that would have nothing to do. Between 0.8 and 1.9 million with two threads."""

AnyStepper = Stepper | FusedStepper | NativeStepper


def make_stepper(population: Population, optimizer: Adam, split: DeviceSplit, configs: Sequence[TrainConfig],
                 task: Task) -> AnyStepper:
    """What is usually the fastest for a population here."""
    if can_train_natively(population, configs[0]) and not _is_large(population):
        return NativeStepper(population, optimizer, split, configs, task)
    kinds: list[type[FusedStepper]] = []
    if can_fuse(population, configs[0]):
        kinds = [ResidentStepper, LaunchedStepper] if can_stay(population, configs[0], split) else [LaunchedStepper]
    for kind in kinds:
        stepper = kind(population, optimizer, split, configs, task)
        try:
            stepper.compile()
        except Exception as error:   # whatever it is, other steps still work
            reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            warnings.warn(f"training takes slower steps, since a kernel failed with {reason}", stacklevel=2)
        else:
            return stepper
    return Stepper(population, optimizer, split, configs[0], task)


def _is_large(population: Population) -> bool:
    """Whether the networks are too few and too large to have a thread each."""
    weights = sum(layer.linear.weight.numel() for layer in population.template.layers)
    idle = torch.get_num_threads() / population.replicates - 1
    return weights * idle >= THREAD_WEIGHTS
