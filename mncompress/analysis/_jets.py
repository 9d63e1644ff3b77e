"""Enclosures of functions and their first two derivatives over cells [m - r, m + r], from interval arithmetic.

For every cell a `Jet` holds the value and slope at the middle m and intervals that contain the slope and the curvature
(second derivative) everywhere in the cell. Through a linear layer points and intervals go by linearity (interval matrix
products in center-radius form); through an activation or end g by the chain rule, with Z an interval around the argument z:

    (g(z))' in g'(Z) z',   (g(z))'' in g''(Z) z'^2 + g'(Z) z'',   z in z(m) +- min(r |z'|, r |z'(m)| + r^2 |z''| / 2),

each slope interval cut with slope(m) +- r |curvature| (mean-value form). The ranges of g' and g'' over an interval
follow from its ends and the extrema inside. Moore, Kearfott and Cloud, Introduction to Interval Analysis, 2009,
doi:10.1137/1.9780898717716. Rounding to nearest is not directed outwards: whoever uses the result adds an allowance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr

from mncompress.analysis._inner import ACTIVATED, Array, End, InnerNetworks, Interval
from mncompress.spline import ACT_VALUES
from mncompress.types import RELU_LIKE, Act


@dataclass(frozen=True)
class Jet:
    """Functions over cells; all arrays are of one shape, neurons first and cells last."""

    value: Array
    """At the middle of the cell."""
    slope: Array
    """At the middle of the cell."""
    slopes: Interval
    """Encloses the first derivative in the cell."""
    curvatures: Interval
    """Encloses the second derivative in the cell, from both sides where it jumps."""

    def __sub__(self, other: "Jet") -> "Jet":
        return Jet(self.value - other.value, self.slope - other.slope,
                   (self.slopes[0] - other.slopes[1], self.slopes[1] - other.slopes[0]),
                   (self.curvatures[0] - other.curvatures[1], self.curvatures[1] - other.curvatures[0]))

    def deviation(self, radius: Array) -> Array:
        """Upper bound of the distance between the value in a cell of this radius and that at its middle."""
        second = np.abs(self.slope) * radius + magnitude(self.curvatures) * (radius * radius / 2)
        return np.minimum(magnitude(self.slopes) * radius, second)


def _sigmoid(z: Array) -> Interval:
    s = expit(z)
    first = s * (1 - s)
    return first, first * (1 - 2 * s)


def _tanh(z: Array) -> Interval:
    t = np.tanh(z)
    first = 1 - t * t
    return first, -2 * t * first


def _silu(z: Array) -> Interval:
    s = expit(z)
    p = s * (1 - s)
    return s + z * p, p * (2 + z * (1 - 2 * s))


def _gelu(z: Array) -> Interval:
    z = np.clip(z, -40.0, 40.0)
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    return ndtr(z) + z * density, density * (2 - z * z)


def _softplus(z: Array) -> Interval:
    s = expit(z)
    return s, s * (1 - s)


def _elu(z: Array) -> Interval:
    first = np.exp(np.minimum(z, 0.0))
    return first, np.where(z > 0, 0.0, first)


ACT_JETS: Mapping[Act, Callable[[Array], Interval]] = {
    "sigmoid": _sigmoid, "tanh": _tanh, "silu": _silu, "gelu": _gelu, "softplus": _softplus, "elu": _elu,
}
"""First and second derivative of the smooth activations; that of elu at 0 is the left one, the larger."""

EXTREMA: Mapping[Act, tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]] = {
    "relu": ((), (), ()),
    "leaky_relu": ((), (), ()),
    "sigmoid": ((), (0.0,), (-1.3169578969248166, 1.3169578969248166)),  # ln(2 + sqrt 3)
    "tanh": ((), (0.0,), (-0.6584789484624083, 0.6584789484624083)),  # half of it
    "silu": (
        (-1.2784645427610738,), (-2.3993572805154673, 2.3993572805154673), (-3.4358409935311, 0.0, 3.4358409935311),
    ),
    "gelu": ((-0.7517915246935645,), (-1.4142135623730951, 1.4142135623730951), (-2.0, 0.0, 2.0)),
    "softplus": ((), (), (0.0,)),
    "elu": ((), (), (0.0,)),
}
"""Where the value, the first and the second derivative of each activation have their extrema (or jump: elu'' at 0)."""


def magnitude(interval: Interval) -> Array:
    """The largest absolute value in each of some intervals, in the shape of their ends, (N, C) say."""
    return np.maximum(np.abs(interval[0]), np.abs(interval[1]))


def range_from(low_end: Array, high_end: Array, z: Interval, extrema: Mapping[float, float]) -> Interval:
    """The range over z of a function with the given values at both ends and at its extrema (place: value)."""
    low, high = np.minimum(low_end, high_end), np.maximum(low_end, high_end)
    for place, value in extrema.items():
        inside = (z[0] <= place) & (place <= z[1])
        low = np.where(inside, np.minimum(low, value), low)
        high = np.where(inside, np.maximum(high, value), high)
    return low, high


def propagate(inner: InnerNetworks, middle: Array, radius: Array) -> Jet:
    """The jets (N, C) of inner networks with a smooth activation over cells middle +- radius, both (N, C)."""
    assert inner.act not in RELU_LIKE, f"{inner.act} has no second derivative"
    r = radius[:, None, :]
    one, zero = np.ones_like(r), np.zeros_like(r)
    a = Jet(middle[:, None, :], one, (one, one), (zero, zero))
    a = _activate(inner.act, a, r, inner.ends[0])
    h = _activate(inner.act, _combine(inner.first_weight[:, :, None], a, inner.biases[0], r), r)
    for weight, bias in zip(inner.weights, inner.biases[1:], strict=True):
        h = _add(_activate(inner.act, _combine(weight, h, bias, r), r), h)
    y = _combine(inner.out_weight[:, None, :], h, inner.out_bias[:, None], r)
    y = _activate(inner.act, y, r, inner.ends[1])
    return Jet(y.value[:, 0], y.slope[:, 0], (y.slopes[0][:, 0], y.slopes[1][:, 0]),
               (y.curvatures[0][:, 0], y.curvatures[1][:, 0]))


def _activate(act: Act, z: Jet, r: Array, end: End = ACTIVATED) -> Jet:
    if end.is_linear:
        return z
    deviation = z.deviation(r)
    domain = z.value - deviation, z.value + deviation
    lows, highs = ACT_JETS[act](domain[0]), ACT_JETS[act](domain[1])
    first, second = (
        range_from(lows[p], highs[p], domain, {c: float(ACT_JETS[act](np.array(c))[p]) for c in EXTREMA[act][p + 1]})
        for p in (0, 1)
    )
    one, zero = np.ones(1), np.zeros(1)
    first, second = end.mix_ranges(first, (one, one)), end.mix_ranges(second, (zero, zero))
    squares = _square(z.slopes)
    bends, carried = _multiply(second, squares), _multiply(first, z.curvatures)
    curvatures = bends[0] + carried[0], bends[1] + carried[1]
    slope = end.mix(ACT_JETS[act](z.value)[0], one) * z.slope
    slopes = _cut(_multiply(first, z.slopes), slope, curvatures, r)
    return Jet(end.mix(ACT_VALUES[act](z.value), z.value), slope, slopes, curvatures)


def _combine(weight: Array, h: Jet, bias: Array, r: Array) -> Jet:
    size = np.abs(weight)

    def combine(interval: Interval) -> Interval:
        center, spread = weight @ ((interval[0] + interval[1]) / 2), size @ ((interval[1] - interval[0]) / 2)
        return center - spread, center + spread

    slope, curvatures = weight @ h.slope, combine(h.curvatures)
    return Jet(weight @ h.value + bias[:, :, None], slope, _cut(combine(h.slopes), slope, curvatures, r), curvatures)


def _add(a: Jet, b: Jet) -> Jet:
    return Jet(a.value + b.value, a.slope + b.slope, (a.slopes[0] + b.slopes[0], a.slopes[1] + b.slopes[1]),
               (a.curvatures[0] + b.curvatures[0], a.curvatures[1] + b.curvatures[1]))


def _cut(slopes: Interval, slope: Array, curvatures: Interval, r: Array) -> Interval:
    """The slopes that both the chain rule and the mean-value theorem allow."""
    change = magnitude(curvatures) * r
    return np.maximum(slopes[0], slope - change), np.minimum(slopes[1], slope + change)


def _multiply(a: Interval, b: Interval) -> Interval:
    products = a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1]
    return (np.minimum(np.minimum(products[0], products[1]), np.minimum(products[2], products[3])),
            np.maximum(np.maximum(products[0], products[1]), np.maximum(products[2], products[3])))


def _square(a: Interval) -> Interval:
    low = np.maximum(0.0, np.maximum(a[0], -a[1]))
    return low * low, np.square(magnitude(a))
