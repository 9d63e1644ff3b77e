"""The learned activations of a layer as plain float64 arrays: what is analyzed and exported.

With a the inner activation `act`, u the pre-activation and H the inner width, neuron n computes

    h_1 = a(w_1 e(u) + b_1);  h_l = a(W_l h_(l-1) + b_l) + h_(l-1);  y = e'(v . h_L + c)

with w_1 = `first_weight[n]`, b_l = `biases[l - 1][n]`, W_l = `weights[l - 2][n]`, v = `out_weight[n]`, c = `out_bias[n]`,
and the ends e(z) = scale a(z) + skip z: linear in a `vaf`, activated in a `meta` as published, anything in between or beyond
in the others. Hidden units are activated ends too, as far as arithmetic goes.
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
Interval = tuple[Array, Array]


@dataclass(frozen=True)
class End:
    """What the input or the output neuron of N inner networks applies: e(z) = scale a(z) + skip z.

    Everything that depends on a and on z in this way, values, slopes and their ranges, is mixed likewise.
    """

    scale: Array
    """(N,), or (1,) for all"""
    skip: Array
    """likewise"""

    def __post_init__(self) -> None:
        assert self.scale.shape == self.skip.shape

    @property
    def is_linear(self) -> bool:
        """Whether e(z) = z."""
        return not self.scale.any() and bool((self.skip == 1).all())

    @property
    def is_activated(self) -> bool:
        """Whether e(z) = a(z)."""
        return not self.skip.any() and bool((self.scale == 1).all())

    def mix(self, of_act: Array, of_line: Array) -> Array:
        """Scale times what a gives plus skip times what the identity gives, (N, H, ...) or what broadcasts to it."""
        if self.is_activated:
            return of_act
        return self.scale[:, None, None] * of_act + self.skip[:, None, None] * of_line

    def mix_ranges(self, of_act: Interval, of_line: Interval) -> Interval:
        """The same for intervals."""
        if self.is_activated:
            return of_act
        low, high = (self.mix(*ends) for ends in zip(of_act, of_line, strict=True))
        if (self.scale >= 0).all() and (self.skip >= 0).all():
            return low, high
        center, spread = (low + high) / 2, self.size(of_act[1] - of_act[0], of_line[1] - of_line[0]) / 2
        return center - spread, center + spread

    def size(self, of_act: Array, of_line: Array) -> Array:
        """|scale| times what is given of a plus |skip| times what is given of the identity."""
        return End(np.abs(self.scale), np.abs(self.skip)).mix(of_act, of_line)

    def select(self, indices: Indices) -> "End":
        """The ends of the neurons `indices` (M,)."""
        return self if len(self.scale) == 1 else End(self.scale[indices], self.skip[indices])


LINEAR = End(np.zeros(1), np.ones(1))
ACTIVATED = End(np.ones(1), np.zeros(1))


@dataclass(frozen=True)
class InnerNetworks:
    """The inner networks of N neurons, all of one shape."""

    act: Act
    ends: tuple[End, End]
    """Of the input and of the output."""
    first_weight: Array
    """(N, H)"""
    biases: tuple[Array, ...]
    """(N, H) for each hidden layer"""
    weights: tuple[Array, ...]
    """(N, H, H), entry `to, from`, for each hidden layer after the first"""
    out_weight: Array
    """(N, H)"""
    out_bias: Array
    """(N,)"""

    def __post_init__(self) -> None:
        neurons, width = self.first_weight.shape
        assert len(self.biases) == len(self.weights) + 1
        assert all(end.scale.shape in ((1,), (neurons,)) for end in self.ends)
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
        act = ACT_VALUES[self.act]

        def apply_end(end: End, z: Array) -> Array:
            return z if end.is_linear else end.mix(act(z), z)

        a = apply_end(self.ends[0], np.asarray(u, np.float64).T[:, None, :])
        h = act(self.first_weight[:, :, None] * a + self.biases[0][:, :, None])
        for weight, bias in zip(self.weights, self.biases[1:], strict=True):
            h = act(weight @ h + bias[:, :, None]) + h
        return apply_end(self.ends[1], self.out_weight[:, None, :] @ h + self.out_bias[:, None, None])[:, 0].T

    __call__ = evaluate

    def derivative(self, u: Array) -> Array:
        """The derivatives by u at u (G, N), from the left or the right at a kink: (G, N)."""
        value, slope = ACT_VALUES[self.act], ACT_DERIVATIVES[self.act]

        def apply_end(end: End, z: Array, dz: Array) -> tuple[Array, Array]:
            if end.is_linear:
                return z, dz
            return end.mix(value(z), z), end.mix(slope(z), np.ones(1)) * dz

        a = np.asarray(u, np.float64).T[:, None, :]
        a, da = apply_end(self.ends[0], a, np.ones_like(a))
        w = self.first_weight[:, :, None]
        z = w * a + self.biases[0][:, :, None]
        h, dh = value(z), slope(z) * (w * da)
        for weight, bias in zip(self.weights, self.biases[1:], strict=True):
            z = weight @ h + bias[:, :, None]
            h, dh = value(z) + h, slope(z) * (weight @ dh) + dh
        v = self.out_weight[:, None, :]
        return apply_end(self.ends[1], v @ h + self.out_bias[:, None, None], v @ dh)[1][:, 0].T

    def select(self, indices: Indices) -> "InnerNetworks":
        """The inner networks of the neurons `indices` (M,)."""
        return InnerNetworks(self.act, (self.ends[0].select(indices), self.ends[1].select(indices)), self.first_weight[indices],
                             tuple(bias[indices] for bias in self.biases),
                             tuple(weight[indices] for weight in self.weights),
                             self.out_weight[indices], self.out_bias[indices])


def from_native(native: Native) -> InnerNetworks:
    """The same functions alpha act(beta u + delta) + eta as inner networks of width 1."""
    return InnerNetworks(native.act, (LINEAR, LINEAR), native.beta[:, None], (native.delta[:, None],), (),
                         native.alpha[:, None], native.eta)
