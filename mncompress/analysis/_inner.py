"""The learned activations of a layer as plain float64 arrays: what the analysis reads.

With a the inner activation `act`, u the pre-activation and H the inner width, neuron n computes

    activated_ends (`meta`):   h_1 = a(w_1 a(u) + b_1);  h_l = a(W_l h_(l-1) + b_l) + h_(l-1);  y = a(v . h_L + c)
    otherwise (`vaf`):         y = v . a(w_1 u + b_1) + c

with w_1 = `first_weight[n]`, b_l = `biases[l - 1][n]`, W_l = `weights[l - 2][n]`, v = `out_weight[n]` and
c = `out_bias[n]`.
A `vaf` of width 1 is the native form alpha act(beta u + delta) + eta: see `from_native`. `InnerNetworks` are
`mncompress.spline.ScalarFunctions`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mncompress.spline import ACT_DERIVATIVES, ACT_VALUES, Native
from mncompress.types import Act

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class InnerNetworks:
    """The inner networks of N neurons, all of one shape."""

    act: Act
    activated_ends: bool
    """Whether the input and the output neuron apply `act` too; always one hidden layer where they do not."""
    first_weight: Array
    """(N, H)"""
    biases: tuple[Array, ...]
    """(N, H) for each hidden layer"""
    weights: tuple[Array, ...]
    """(N, H, H) as [to][from] for each hidden layer after the first"""
    out_weight: Array
    """(N, H)"""
    out_bias: Array
    """(N,)"""

    def __post_init__(self) -> None:
        neurons, width = self.first_weight.shape
        assert len(self.biases) == len(self.weights) + 1
        assert self.activated_ends or not self.weights, "only activated ends have more than one hidden layer"
        assert all(bias.shape == (neurons, width) for bias in self.biases)
        assert all(weight.shape == (neurons, width, width) for weight in self.weights)
        assert self.out_weight.shape == (neurons, width)
        assert self.out_bias.shape == (neurons,)

    @property
    def n(self) -> int:
        """Number N of neurons."""
        return len(self.out_bias)

    def evaluate(self, u: Array) -> Array:
        """The values at pre-activations u (G, N): (G, N)."""
        return self._propagate(u)[0]

    __call__ = evaluate

    def derivative(self, u: Array) -> Array:
        """The derivatives by u at u (G, N), from the left or the right at a kink: (G, N)."""
        return self._propagate(u)[1]

    def select(self, indices: Indices) -> "InnerNetworks":
        """The inner networks of the neurons `indices` (M,)."""
        return InnerNetworks(self.act, self.activated_ends, self.first_weight[indices],
                             tuple(bias[indices] for bias in self.biases),
                             tuple(weight[indices] for weight in self.weights),
                             self.out_weight[indices], self.out_bias[indices])

    def _propagate(self, u: Array) -> tuple[Array, Array]:
        value, slope = ACT_VALUES[self.act], ACT_DERIVATIVES[self.act]
        a = np.asarray(u, np.float64).T[:, None, :]
        da = np.ones_like(a)
        if self.activated_ends:
            a, da = value(a), slope(a)
        w = self.first_weight[:, :, None]
        z = w * a + self.biases[0][:, :, None]
        h, dh = value(z), slope(z) * (w * da)
        for weight, bias in zip(self.weights, self.biases[1:], strict=True):
            z = weight @ h + bias[:, :, None]
            h, dh = value(z) + h, slope(z) * (weight @ dh) + dh
        v = self.out_weight[:, None, :]
        y, dy = (v @ h)[:, 0] + self.out_bias[:, None], (v @ dh)[:, 0]
        if self.activated_ends:
            y, dy = value(y), slope(y) * dy
        return y.T, dy.T


def from_native(native: Native) -> InnerNetworks:
    """The same functions alpha act(beta u + delta) + eta as inner networks of width 1."""
    return InnerNetworks(native.act, False, native.beta[:, None], (native.delta[:, None],), (),
                         native.alpha[:, None], native.eta)
