"""The fixed activations as torch functions; `leaky_relu` has slope 0.01, `gelu` is the exact erf form."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mncompress.types import Act

ACT_FUNCTIONS: dict[Act, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "softplus": F.softplus,
    "elu": F.elu,
}
