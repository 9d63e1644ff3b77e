"""How far apart two networks of few features can be in exact arithmetic: branch and bound over boxes of features.

Within a box with middle c every value q(x) of either network is enclosed by an affine form, q_0 + J (x - c) + [-r, r]. Linear maps
go through exactly. With the slopes of an activation f within s +- rho over a range (looked up, `mncompress.analysis._tables`),

    f(u) = f(m) + s (u - m) + [-rho, rho] |u - m|,     f(v) - f(u) = s (v - u) + [-rho, rho] |v - u|,

so the distances v - u of the two networks have forms of their own, in which what both do alike cancels, and an activation adds
the range of g - f where v is. Where neurons left or weights were refitted, a distance is an affine function of the original's
values; their forms have remainders that shrink with the square of the box. Ranges are cut with those of `_gaps`, and boxes in which
the original leaves its ranges are dropped. This is affine arithmetic (de Figueiredo and Stolfi 2004,
doi:10.1023/B:NUMA.0000049462.70970.b6) without symbols for the remainders. Boxes whose bound is not good enough are halved, along
the feature that moves the pre-activations most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis import FLOAT64, InnerNetworks, RangeTable, bound_rounding, tabulate_errors, tabulate_slopes
from mncompress.compression._evaluate import Exact
from mncompress.compression._gaps import Gaps, Ranges, for_bounds
from mncompress.compression._rewrite import FEATURES, Group
from mncompress.nn import Network
from mncompress.spline import Affine

MOST_FEATURES = 8
WORK = 1e8
"""Values that are computed in all: a few seconds."""
BATCH = 2**21
"""Of them at a time."""
SMALLEST = 2.0**-12
"""Half-width of a box that is not halved again, relative to the range of the feature."""
SLACK = 1.1
"""A bound within this of the largest distance found is good enough."""
ROUNDING = 1e-13
"""Relative to the terms of a sum; float64 rounds less."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Forms:
    """Affine forms of n values over P boxes.

    Attributes:
        core: q_0 and J, (P, n, 1 + d), J in units of the boxes' half-widths.
        radius: (P, n).
    """

    core: Floats
    radius: Floats

    def __getitem__(self, columns: slice) -> "_Forms":
        return _Forms(self.core[:, columns], self.radius[:, columns])

    def __add__(self, other: "_Forms") -> "_Forms":
        return _Forms(self.core + other.core, self.radius + other.radius)

    def map(self, weight: Floats) -> "_Forms":
        """A matrix (m, n) times the values."""
        size = self.radius + ROUNDING * np.abs(self.core).sum(2)
        return _Forms(weight @ self.core, size @ np.abs(weight).T)

    def shift(self, by: Floats) -> "_Forms":
        core = self.core.copy()
        core[:, :, 0] += by
        return _Forms(core, self.radius + ROUNDING * np.abs(by))

    def scale(self, by: Floats, shift: Floats, radius: Floats) -> "_Forms":
        """The values times `by` plus `shift`, give or take `radius`, all (P, n)."""
        core = self.core * by[:, :, None]
        core[:, :, 0] += shift
        return _Forms(core, self.radius * np.abs(by) + radius + ROUNDING * (np.abs(core).sum(2) + np.abs(shift)))

    @property
    def ends(self) -> tuple[Floats, Floats]:
        """The range of each value, (P, n) twice."""
        middle, reach = self.core[:, :, 0], np.abs(self.core[:, :, 1:]).sum(2) + self.radius
        reach = reach + ROUNDING * (reach + np.abs(middle))
        return middle - reach, middle + reach


def _join(*forms: _Forms) -> _Forms:
    return _Forms(np.concatenate([each.core for each in forms], 1), np.concatenate([each.radius for each in forms], 1))


class _Activation:
    """What an activated layer of n neurons does to affine forms, with tables of slopes and errors."""

    def __init__(self, inner: InnerNetworks, groups: Sequence[Group], ends: tuple[Floats, Floats], gap: Floats) -> None:
        left = np.zeros(inner.n, bool)
        for group in groups:
            left[group.indices] = group.left
        self.inner, self.low, self.high, self.left, self.gap = inner, *ends, left, np.where(left, 0.0, gap)
        wide = self.low - self.gap, self.high + self.gap
        self.slopes = tabulate_slopes(inner, *wide)
        self.errors = RangeTable(self.slopes.low, self.slopes.step, np.zeros_like(self.slopes.levels))
        self.own = 4 * bound_rounding(inner, *wide, FLOAT64)
        self.is_line, self.line_slope = np.zeros(inner.n, bool), np.zeros(inner.n)
        for group in groups:
            mine = group.indices
            if isinstance(group.form, Affine):
                self.is_line[mine], self.line_slope[mine] = True, group.form.slope
            if group.form is not None:
                errors = tabulate_errors(inner.select(mine), for_bounds(group.form), wide[0][mine], wide[1][mine])
                self.errors.levels[:, :, mine] = np.where(group.exact[:, None], 0.0, errors.levels)

    def __call__(self, u: _Forms, distance: _Forms) -> tuple[_Forms, _Forms, NDArray[np.bool_]]:
        """The forms behind; and in which boxes u can be within its ranges, (P,)."""
        low, high = u.ends
        inside: NDArray[np.bool_] = np.asarray(((low <= self.high) & (high >= self.low)).all(1))
        low, high = np.clip(low, self.low, self.high), np.clip(high, self.low, self.high)
        middle = np.clip(u.core[:, :, 0], low, high)
        slope, spread = _center(*self.slopes.over(low, high))
        behind = u.scale(slope, self.inner.evaluate(middle) - slope * middle,
                         spread * np.maximum(high - middle, middle - low) + self.own)
        closer, farther = (np.clip(end, -self.gap, self.gap) for end in distance.ends)
        v = (u + distance).ends
        v_low, v_high = np.maximum(v[0], low + closer), np.minimum(v[1], high + farther)
        slope, spread = _center(*self.slopes.over(np.minimum(low, v_low), np.maximum(high, v_high)))
        slope, spread = np.where(self.is_line, self.line_slope, slope), np.where(self.is_line, 0.0, spread)
        error, either = _center(*self.errors.over(np.where(self.is_line, low, v_low), np.where(self.is_line, high, v_high)))
        far = np.maximum(np.abs(closer), np.abs(farther))
        return behind, _clear(distance.scale(slope, error, spread * far + either), self.left, 0.0), inside


def _center(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Middle and half-width, which rounding does not make too small."""
    middle = (low + high) / 2
    return middle, np.maximum(high - middle, middle - low) * (1 + ROUNDING)


def _clear(forms: _Forms, where: NDArray[np.bool_], radius: Floats | float) -> _Forms:
    """Intervals [-radius, radius] in place of some forms."""
    where = np.broadcast_to(where, forms.radius.shape)
    return _Forms(np.where(where[:, :, None], 0.0, forms.core), np.where(where, radius, forms.radius))


@dataclass(frozen=True)
class _Step:
    """A layer of both networks. It reads, by source, the original's values, how far the other's are from them, and its units."""

    weights: Mapping[int, Floats]
    bias: Floats
    n: int
    activation: _Activation | None
    is_residual: bool
    gap: Floats
    """Behind the layer, (n,)."""


def bound_outputs(network: Network, original: Exact, compressed: Exact, ranges: Ranges, gaps: Gaps, enough: Floats) -> Floats:
    """Bounds of the outputs' distance, (m,), no larger than those of `gaps`.

    Args:
        network: the original.
        original: its values.
        compressed: what became of it.
        ranges: of the original's pre-activations.
        gaps: what is known, finite.
        enough: bounds that need not be smaller, (m,).
    """
    last = len(network.layers) - 1
    known, features = gaps.behind[last], original.outputs[FEATURES]
    d = features.shape[1]
    if d > MOST_FEATURES or (known <= enough).all():
        return known
    steps = _make_steps(network, original, compressed, ranges, gaps)
    size = (1 + d) * sum(len(step.bias) for step in steps) + 32 * sum(step.n for step in steps)
    batch, left = max(64, BATCH // size), WORK / size
    low, high = features.min(0), features.max(0)
    boxes, enough = _evaluate(steps, _cut(low, high, max(1, int(batch ** (1 / d))), known), enough)
    settled = np.zeros_like(known)
    while left > 0:
        order = np.argsort(-(boxes.upper / enough).max(1), kind="stable")
        worst, rest = boxes.take(order[:batch // 2]), boxes.take(order[batch // 2:])
        is_open = (worst.upper > enough).any(1) & (worst.half > SMALLEST * (high - low)).any(1)
        settled = np.maximum(settled, worst.take(np.flatnonzero(~is_open)).upper.max(0, initial=0.0))
        enough = np.maximum(enough, settled)
        if not is_open.any():
            break
        halves, enough = _evaluate(steps, worst.take(np.flatnonzero(is_open)).split(), enough)
        boxes = rest.append(halves)
        left -= len(halves.center)
    return np.asarray(np.minimum(np.maximum(settled, boxes.upper.max(0, initial=0.0)), known))


@dataclass(frozen=True)
class _Boxes:
    """Boxes of features.

    Attributes:
        center: (P, d).
        half: half-widths, (P, d).
        upper: bound of each output's distance, (P, m).
        pull: how much each feature moves the pre-activations, (P, d).
    """

    center: Floats
    half: Floats
    upper: Floats
    pull: Floats

    def take(self, which: NDArray[np.intp]) -> "_Boxes":
        return _Boxes(*(values[which] for values in vars(self).values()))

    def append(self, other: "_Boxes") -> "_Boxes":
        return _Boxes(*(np.concatenate([values, getattr(other, name)]) for name, values in vars(self).items()))

    def split(self) -> "_Boxes":
        """Each in two, along the feature that moves the pre-activations most."""
        rows, along = np.arange(len(self.center)), self.pull.argmax(1)
        half, step = self.half.copy(), np.zeros_like(self.half)
        half[rows, along] /= 2
        step[rows, along] = half[rows, along]
        half += ROUNDING * (half + np.abs(self.center))
        return _Boxes(self.center - step, half, self.upper, self.pull).append(
            _Boxes(self.center + step, half, self.upper, self.pull))


def _cut(low: Floats, high: Floats, parts: int, known: Floats) -> _Boxes:
    """Equal boxes, `parts` of each feature that varies."""
    edges = [np.linspace(a, b, (parts if b > a else 1) + 1) for a, b in zip(low, high, strict=True)]
    middles = np.meshgrid(*((each[1:] + each[:-1]) / 2 for each in edges), indexing="ij")
    center = np.stack([each.ravel() for each in middles], 1)
    half = np.array([(each[1] - each[0]) / 2 for each in edges]) + ROUNDING * np.abs(center)
    return _Boxes(center, half, np.broadcast_to(known, (len(center), len(known))), np.ones_like(center))


def _evaluate(steps: Sequence[_Step], boxes: _Boxes, enough: Floats) -> tuple[_Boxes, Floats]:
    """The boxes in which the original can be within its ranges, with better bounds; and what is enough of these."""
    d = boxes.center.shape[1]
    core = np.zeros((len(boxes.center), 2 * d, 1 + d))
    core[:, :d, 0] = boxes.center
    core[:, np.arange(d), 1 + np.arange(d)] = boxes.half
    values = {FEATURES: _Forms(core, np.zeros(core.shape[:2]))}
    inside, pull = np.ones(len(core), bool), np.zeros_like(boxes.half)
    for position, step in enumerate(steps):
        z = _sum(*(values[source].map(weight) for source, weight in step.weights.items())).shift(step.bias)
        u, distance = z[:step.n], z[step.n:2 * step.n]
        pull += np.abs(u.core[:, :, 1:]).sum(1)
        if step.activation is not None:
            u, distance, visited = step.activation(u, distance)
            inside &= visited
        if step.is_residual:
            u, distance = u + values[position - 1][:step.n], distance + values[position - 1][step.n:2 * step.n]
        distance = _clear(distance, np.maximum(*map(np.abs, distance.ends)) > step.gap, step.gap)
        values[position] = _join(u, distance, z[2 * step.n:])
    distance = values[len(steps) - 1][steps[-1].n:2 * steps[-1].n]
    upper = np.minimum(boxes.upper, np.maximum(*map(np.abs, distance.ends)))
    lower = np.abs(distance.core[:, :, 0]) - distance.radius
    kept = np.flatnonzero(inside)
    return (_Boxes(boxes.center, boxes.half, upper, pull).take(kept),
            np.maximum(enough, SLACK * lower[kept].max(0, initial=0.0)))


def _make_steps(network: Network, original: Exact, compressed: Exact, ranges: Ranges, gaps: Gaps) -> list[_Step]:
    steps: list[_Step] = []
    widths = {FEATURES: network.spec.in_features}
    for position, layer in enumerate(network.layers):
        own, linear = original.maps[position], compressed.maps[position]
        weight, units = own.weights[position - 1], linear.units
        n = widths[position] = len(weight)
        weights = {}
        for source in {position - 1, *linear.weights}:
            k = widths[source]
            block = linear.weights.get(source, np.zeros((n + units, k)))
            of_neurons, of_units = block[:, :k], block[:, k:]
            u = weight if source == position - 1 else np.zeros((n, k))
            change = of_neurons - np.concatenate([u, np.zeros((units, k))])
            rows = [np.concatenate([u, np.zeros((n, block.shape[1]))], 1), np.concatenate([change, of_neurons, of_units], 1)]
            weights[source] = np.concatenate(rows)
        bias = np.concatenate([own.bias, linear.bias[:n] - own.bias, linear.bias[n:]])
        activation = None
        if position in ranges:
            activation = _Activation(original.inner[position], compressed.groups[position], ranges[position], gaps.before[position])
        steps.append(_Step(weights, bias, n, activation, layer.residual, gaps.behind[position][:n]))
    return steps


def _sum(first: _Forms, *others: _Forms) -> _Forms:
    for each in others:
        first = first + each
    return first
