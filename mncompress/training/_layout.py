"""What compiled optimizer steps are told of a population: where its parameters lie, how they change, what each layer applies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mncompress.nn import FIXED_ENDS, INNER_PARAMETERS, LEARNED_ENDS, Layer, LearnedActivation
from mncompress.training._optimizer import BETAS, rate_and_decay, rate_factor
from mncompress.training._population import Population
from mncompress.types import TrainConfig


@dataclass(frozen=True)
class LayerEnd:
    """What the input or the output neurons of a layer apply."""

    kind: str = "linear"
    """`linear`; `fixed`, which passes a `share` beside the activation; `gated` or `skip`, which learn it."""
    share: float = 0.0
    offset: int = -1
    """Of the parameter, -1 where there is none."""


LINEAR = LayerEnd()


def parameter_offsets(population: Population) -> dict[str, int]:
    """Where each parameter would begin if there were one network."""
    offsets, start = {}, 0
    for name, value in population.parameters.items():
        offsets[name] = start
        start += value[0].numel()
    return offsets


def own_offsets(offsets: Mapping[str, int], layer: int) -> dict[str, int]:
    """Those of the parameters of a layer's activation, by their names in it."""
    prefix = f"{layer}.activation."
    return {name.removeprefix(prefix): offset for name, offset in offsets.items() if name.startswith(prefix)}


def inner_offsets(layer: Layer, own: Mapping[str, int]) -> tuple[int, int, int, int]:
    """Those of the first weights, first biases, last weights and last bias of a layer's inner networks, -1 where there are none."""
    assert isinstance(layer.activation, LearnedActivation)
    names = INNER_PARAMETERS[layer.activation.spec.family]
    weight, bias, out_weight, out_bias = (-1 if name is None else own[name] for name in names)
    return weight, bias, out_weight, out_bias


def make_ends(layer: Layer, own: Mapping[str, int]) -> tuple[LayerEnd, LayerEnd]:
    """What the input and the output neurons of an activated layer apply, given the offsets of its activation's parameters."""
    assert isinstance(layer.activation, LearnedActivation)
    spec = layer.activation.spec
    if spec.family != "meta":
        return LINEAR, LINEAR
    if spec.ends in FIXED_ENDS:
        end = LayerEnd("fixed", float(FIXED_ENDS[spec.ends].skip))
        return end, end
    name, _ = LEARNED_ENDS[spec.ends]
    return LayerEnd(spec.ends, offset=own[f"in_{name}"]), LayerEnd(spec.ends, offset=own[f"out_{name}"])


def make_rates(population: Population, configs: Sequence[TrainConfig]) -> tuple[Tensor, Tensor]:
    """Learning rate and weight decay of each parameter in each network, (parameters, M)."""
    numbers = [[rate_and_decay(name, config) for config in configs for _ in range(config.replicates)]
               for name in population.parameters]
    rates, decays = torch.tensor(numbers, dtype=torch.float32, device=population.flat.device).unbind(-1)
    return rates.contiguous(), decays.contiguous()


def make_schedule(config: TrainConfig, epoch: int, steps: int) -> Tensor:
    """Of an epoch's steps, (steps, 3): the factor of the rate, and Adam's corrections 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t)."""
    step = torch.arange(epoch * steps, (epoch + 1) * steps)
    factor = rate_factor(config.schedule, step, config.epochs * steps, config.warmup * steps)
    beta1, beta2 = BETAS
    corrections = 1 / (1 - beta1 ** (step + 1.0).double()), (1 - beta2 ** (step + 1.0).double()).rsqrt()
    return torch.stack([factor, *corrections], 1).float()
