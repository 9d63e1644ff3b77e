"""Affine forms: enclosures of the values of two networks over boxes of features, in which what both do alike cancels.

Within a box with middle c every value q(x) of either network is enclosed by q_0 + J (x - c) + [-r, r]. Linear maps go through
exactly. With the slopes of an activation f within s +- rho over a range (looked up, `mncompress.analysis._tables`),

    f(u) = f(m) + s (u - m) + [-rho, rho] |u - m|,

and the distances v - u of the two networks have forms of their own. Behind an activation f that became g they are, whichever is
narrower,

    g(v) - f(u) = s (v - u) + [-rho, rho] |v - u| + (g - f)(v)     with the slopes of f over the range of both, or
    g(v) - f(u) = g(m') + t (v - m') + [-tau, tau] |v - m'| - f(u)     with those of g over the range of v,

the first in large boxes and the second in small ones, where it becomes exact. Where neurons left or weights were refitted, a
distance is an affine function of the original's values, whose remainders shrink with the square of the box. This is affine
arithmetic (de Figueiredo and Stolfi 2004, doi:10.1023/B:NUMA.0000049462.70970.b6) without symbols for the remainders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis import (
    FLOAT64,
    InnerNetworks,
    RangeTable,
    bound_arithmetic,
    count_cells,
    find_jumps,
    magnitude,
    tabulate_errors,
    tabulate_slopes,
)
from mncompress.compression._evaluate import Exact, activate
from mncompress.compression._gaps import Domain, Gaps, for_bounds
from mncompress.compression._rewrite import FEATURES, Group
from mncompress.nn import Network
from mncompress.spline import Affine

ROUNDING = 1e-13
"""Relative to the terms of a sum; float64 rounds less."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Forms:
    """Affine forms of n values over P boxes.

    Attributes:
        core: q_0 and J, (1 + d, P, n), J in units of the boxes' half-widths.
        radius: (P, n).
    """

    core: Floats
    radius: Floats

    def __getitem__(self, columns: slice) -> "Forms":
        return Forms(self.core[..., columns], self.radius[:, columns])

    def __add__(self, other: "Forms") -> "Forms":
        return Forms(self.core + other.core, self.radius + other.radius)

    def map(self, weight: Floats) -> "Forms":
        """A matrix (m, n) times the values."""
        size = self.radius + ROUNDING * np.abs(self.core).sum(0)
        return Forms(self.core @ weight.T, size @ np.abs(weight).T)

    def shift(self, by: Floats) -> "Forms":
        core = self.core.copy()
        core[0] += by
        return Forms(core, self.radius + ROUNDING * np.abs(by))

    def scale(self, by: Floats, shift: Floats | float, radius: Floats | float) -> "Forms":
        """The values times `by` plus `shift`, give or take `radius`, all (P, n)."""
        core = self.core * by
        core[0] += shift
        return Forms(core, self.radius * np.abs(by) + radius + ROUNDING * (np.abs(core).sum(0) + np.abs(shift)))

    def join(self, *others: "Forms") -> "Forms":
        """All values side by side."""
        return Forms(*(np.concatenate([getattr(each, name) for each in (self, *others)], -1) for name in ("core", "radius")))

    def within(self, radius: Floats) -> "Forms":
        """Intervals [-radius, radius], (P, n) or (n,), in the shape of these."""
        return Forms(np.zeros_like(self.core), np.broadcast_to(radius, self.radius.shape))

    def where(self, condition: NDArray[np.bool_], other: "Forms") -> "Forms":
        """These where a condition (P, n) or (n,) holds, and others elsewhere."""
        return Forms(np.where(condition, self.core, other.core), np.where(condition, self.radius, other.radius))

    @property
    def reach(self) -> Floats:
        """How far the values may be from q_0, (P, n)."""
        return np.asarray(np.abs(self.core[1:]).sum(0) + self.radius)

    @property
    def ends(self) -> tuple[Floats, Floats]:
        """The range of each value, (P, n) twice."""
        middle, reach = self.core[0], self.reach
        reach = reach + ROUNDING * (reach + np.abs(middle))
        return middle - reach, middle + reach


class TwinActivation:
    """What an activated layer of n neurons does to affine forms.

    Args:
        inner: the learned activations.
        groups: what they became.
        ends: ranges of the original's pre-activations.
        gap: bounds of |v - u|, (n,).
    """

    def __init__(self, inner: InnerNetworks, groups: Sequence[Group], ends: tuple[Floats, Floats], gap: Floats) -> None:
        self.inner, self.groups, self.ends, self.gap = inner, groups, ends, gap
        self.left, self.is_line, self.line_slope = np.zeros(inner.n, bool), np.zeros(inner.n, bool), np.zeros(inner.n)
        for group in groups:
            self.left[group.indices] = group.left
            if isinstance(group.form, Affine):
                self.is_line[group.indices], self.line_slope[group.indices] = True, group.form.slope

    def tabulate_(self, reach: Floats) -> None:
        """Make the tables, given bounds (n,) of |v - u| that may be smaller than what was known."""
        self.gap = np.where(self.left, 0.0, np.minimum(self.gap, reach))
        low, high = self.ends[0] - self.gap, self.ends[1] + self.gap
        cells = count_cells(self.inner)
        self.slopes = tabulate_slopes(self.inner, low, high, cells)
        self.own = 4 * bound_arithmetic(self.inner, low, high, FLOAT64)
        self.form_slopes, self.form_own = replace(self.slopes, levels=self.slopes.levels.copy()), self.own.copy()
        self.errors = RangeTable(self.slopes.low, self.slopes.step, np.zeros_like(self.slopes.levels))
        for group in self.groups:
            mine = group.indices
            if group.form is not None:
                form, ends = for_bounds(group.form), (low[mine], high[mine])
                self.form_slopes.levels[:, :, mine] = tabulate_slopes(form, *ends, cells).levels
                self.form_own[mine] = 4 * bound_arithmetic(form, *ends, FLOAT64) + find_jumps(form).sum(1)
                errors = tabulate_errors(self.inner.select(mine), form, *ends, cells)
                self.errors.levels[:, :, mine] = np.where(group.exact[:, None], 0.0, errors.levels)

    def __call__(self, u: Forms, distance: Forms) -> tuple[Forms, Forms]:
        """The forms behind."""
        low, high = u.ends
        low, high = np.clip(low, *self.ends), np.clip(high, *self.ends)
        closer, farther = (np.clip(end, -self.gap, self.gap) for end in distance.ends)
        v = u + distance
        v_low = np.maximum(v.ends[0], low + closer)
        v_high = np.maximum(np.minimum(v.ends[1], high + farther), v_low)
        m, v_m = np.clip(u.core[0], low, high), np.clip(v.core[0], v_low, v_high)
        f_m, g_m = self.inner.evaluate(m), activate(self.inner, self.groups, v_m)

        s, rho = _center(*self.slopes.over(low, high))
        remainder = rho * np.maximum(high - m, m - low) + self.own
        behind = u.scale(s, f_m - s * m, remainder)

        t, tau = _center(*self.form_slopes.over(v_low, v_high))
        v_remainder = tau * np.maximum(v_high - v_m, v_m - v_low) + self.form_own
        apart = u.scale(t - s, g_m - t * v_m - (f_m - s * m), remainder + v_remainder) + distance.scale(t, 0.0, 0.0)

        s, rho = _center(*self.slopes.over(np.minimum(low, v_low), np.maximum(high, v_high)))
        s, rho = np.where(self.is_line, self.line_slope, s), np.where(self.is_line, 0.0, rho)
        error, either = _center(*self.errors.over(np.where(self.is_line, low, v_low), np.where(self.is_line, high, v_high)))
        together = distance.scale(s, error, rho * magnitude((closer, farther)) + either)
        closest = together.where(together.reach <= apart.reach, apart)
        return behind, closest.where(~self.left, closest.within(np.zeros(self.inner.n)))


def _center(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Middle and half-width, which rounding does not make too small."""
    middle = (low + high) / 2
    return middle, np.maximum(high - middle, middle - low) * (1 + ROUNDING)


@dataclass(frozen=True)
class TwinLayer:
    """A layer of n neurons in both networks.

    Attributes:
        weights: by source, for the original's values, how far the other's are from them, and the other's linear units.
        bias: (n + n + units,).
        n: neurons.
        activation: None where it has none.
        is_residual: whether it adds what it reads.
        gap: known bound of the distance behind it, (n,).
    """

    weights: Mapping[int, Floats]
    bias: Floats
    n: int
    activation: TwinActivation | None
    is_residual: bool
    gap: Floats


def make_layers(network: Network, original: Exact, compressed: Exact, domain: Domain, gaps: Gaps) -> list[TwinLayer]:
    """The layers of both networks.

    Args:
        network: the original.
        original: its maps and activations.
        compressed: what became of them.
        domain: of the original.
        gaps: what is known, finite.
    """
    layers = []
    widths, units = {FEATURES: network.spec.in_features}, {FEATURES: 0}
    for position, layer in enumerate(network.layers):
        own, linear = original.maps[position], compressed.maps[position]
        n, units[position] = len(own.bias), linear.units
        widths[position] = n
        weights = {}
        for source in {position - 1, *linear.weights}:
            width = widths[source]
            block = linear.weights.get(source, np.zeros((n + linear.units, width + units[source])))
            before = np.zeros((n + linear.units, width))
            before[:n] = own.weights.get(source, 0.0)
            weights[source] = np.block([[before[:n], np.zeros((n, block.shape[1]))], [block[:, :width] - before, block]])
        bias = np.concatenate([own.bias, linear.bias[:n] - own.bias, linear.bias[n:]])
        activation = None
        if position in domain.ranges:
            activation = TwinActivation(original.inner[position], compressed.groups[position], domain.ranges[position],
                                        gaps.before[position])
        layers.append(TwinLayer(weights, bias, n, activation, layer.residual, gaps.behind[position][:n]))
    return layers


@dataclass(frozen=True)
class Enclosure:
    """What is known over P boxes.

    Attributes:
        distance: of the outputs, m values.
        pull: how much each feature moves the pre-activations within the box, (P, d).
        reaches: which boxes may reach into the domain, (P,).
        is_inside: which are inside of it for certain, (P,).
    """

    distance: Forms
    pull: Floats
    reaches: NDArray[np.bool_]
    is_inside: NDArray[np.bool_]


def enclose_distance(layers: Sequence[TwinLayer], center: Floats, half: Floats, *, tabulate: bool = False
                     ) -> Enclosure:
    """Carry boxes with middles and half-widths (P, d) through the layers; the first time, over all there is, make the tables."""
    boxes, d = center.shape
    core = np.zeros((1 + d, boxes, 2 * d))
    core[0, :, :d] = center
    core[1 + np.arange(d), :, np.arange(d)] = half.T
    values = {FEATURES: Forms(core, np.zeros((boxes, 2 * d)))}
    (reaches, is_inside), pull = np.ones((2, boxes), bool), np.zeros((boxes, d))
    for position, layer in enumerate(layers):
        n = layer.n
        z = Forms(np.zeros((1 + d, boxes, len(layer.bias))), np.zeros((boxes, len(layer.bias)))).shift(layer.bias)
        for source, weight in layer.weights.items():
            z = z + values[source].map(weight)
        u, distance = z[:n], z[n:2 * n]
        pull += np.abs(u.core[1:]).sum(2).T
        if layer.activation is not None:
            (start, end), (low, high) = layer.activation.ends, u.ends
            reaches &= ~((low > end) | (high < start)).any(1)
            is_inside &= ((low >= start) & (high <= end)).all(1)
            if tabulate:
                layer.activation.tabulate_(magnitude(distance.ends)[reaches].max(0, initial=0.0))
            u, distance = layer.activation(u, distance)
        if layer.is_residual:
            u, distance = u + values[position - 1][:n], distance + values[position - 1][n:2 * n]
        distance = distance.where(distance.reach <= layer.gap, distance.within(layer.gap))
        values[position] = u.join(distance, z[2 * n:])
    return Enclosure(distance, pull, reaches, is_inside)
