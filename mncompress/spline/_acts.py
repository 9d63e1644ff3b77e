"""The eight activations and their derivatives, in float64: no overflow, no warning, NaN to NaN, limits at infinity.

`relu` max(z, 0); `leaky_relu` with slope `LEAK` below 0; `sigmoid` 1/(1 + exp(-z)); `tanh`; `silu` z·sigmoid(z); `gelu`
z·Φ(z) with the normal distribution Φ (the erf form); `softplus` log(1 + exp(z)); `elu` z above 0, exp(z) - 1 below.
At a kink the derivative is that from the left.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import expit, ndtr

from mncompress.spline._arrays import Array
from mncompress.types import LEAK, Act


def _bounded(z: Array) -> Array:
    """Cut off where every act below is at its limit, so that no product is 0·∞."""
    return np.clip(z, -800.0, 800.0)


def _gelu_derivative(z: Array) -> Array:
    z = np.clip(z, -40.0, 40.0)
    return ndtr(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)  # type: ignore[no-any-return]


ACT_VALUES: Mapping[Act, Callable[[Array], Array]] = {
    "relu": lambda z: np.maximum(z, 0.0),
    "leaky_relu": lambda z: np.maximum(z, LEAK * z),
    "sigmoid": expit,
    "tanh": np.tanh,
    "silu": lambda z: np.maximum(z, -800.0) * expit(z),
    "gelu": lambda z: np.maximum(z, -40.0) * ndtr(z),
    "softplus": lambda z: np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z))),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0.0))),
}
ACT_DERIVATIVES: Mapping[Act, Callable[[Array], Array]] = {
    "relu": lambda z: np.heaviside(z, 0.0),
    "leaky_relu": lambda z: LEAK + (1 - LEAK) * np.heaviside(z, 0.0),
    "sigmoid": lambda z: expit(z) * expit(-z),
    "tanh": lambda z: 4 * expit(2 * _bounded(z)) * expit(-2 * _bounded(z)),
    "silu": lambda z: expit(z) * (1 + _bounded(z) * expit(-z)),
    "gelu": _gelu_derivative,
    "softplus": expit,
    "elu": lambda z: np.exp(np.minimum(z, 0.0)),
}
