"""How much memory a training needs at least, so that one that cannot fit is refused before anything is allocated."""

import torch

from mncompress.errors import TrainingError
from mncompress.memory import free_bytes
from mncompress.types import NetworkSpec, TrainConfig

COPIES = 8
"""Of the parameters: values, gradients, two moments, and those of construction and of a checkpoint in the making."""
OBJECT_BYTES = 2000
"""Of a tensor object, which each inner layer has several of."""
GIGA = 1e9


def check_memory(config: TrainConfig, spec: NetworkSpec, networks: int, rows: int, device: torch.device) -> None:
    """Refuse what cannot fit into the memory that is free.

    Args:
        config: of one network of the stack.
        spec: the network's shape.
        networks: in the stack.
        rows: of the training split.
        device: where it is to be trained.

    Raises:
        TrainingError: it needs more than is free.
    """
    needed, free = estimate_bytes(config, spec, networks, rows), _free_bytes(device)
    if free is not None and needed > free:
        which = "a network" if networks == 1 else f"{networks} networks"
        raise TrainingError(f"to train {which} of {spec.parameters} parameters takes about {needed / GIGA:.3g} GB of memory, "
                            f"{free / GIGA:.3g} GB are free; choose fewer replicates, neurons or inner layers")


def estimate_bytes(config: TrainConfig, spec: NetworkSpec, networks: int, rows: int) -> int:
    """Bytes of the parameters with what training keeps of each, and of what a step keeps for its backward pass."""
    inner = sum((1 + activation.width * activation.depth) * n
                for activation, n in zip(spec.activations, spec.sizes[1:], strict=False))
    step = min(config.batch_size, rows) * (sum(spec.sizes) + inner)
    objects = sum(activation.depth for activation in spec.activations) + len(spec.hidden)
    return 4 * networks * (COPIES * spec.parameters + step) + OBJECT_BYTES * objects


def _free_bytes(device: torch.device) -> int | None:
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free_bytes()
