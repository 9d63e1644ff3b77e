"""Choosing the device."""

import torch

from mncompress.errors import RuntimeProviderError
from mncompress.types import Device


def choose_device(device: Device) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU.

    Raises:
        RuntimeProviderError: the device asked for is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[device]:
        there = ", ".join(name for name, yes in available.items() if yes)
        raise RuntimeProviderError(f"device {device!r} is not available here; choose from auto, {there}")
    return torch.device(device)
