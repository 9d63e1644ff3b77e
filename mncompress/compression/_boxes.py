"""How far apart two networks of few features can be in exact arithmetic: branch and bound over boxes of features.

Each box is enclosed by affine forms (`_affine_forms`), cut with what is known; boxes outside of the domain are dropped. Those whose
bound is not good enough are halved, along the feature that moves the pre-activations most.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis import magnitude
from mncompress.compression._affine_forms import ROUNDING, TwinLayer, enclose_distance, make_layers
from mncompress.compression._evaluate import Exact
from mncompress.compression._gaps import Domain, Gaps
from mncompress.compression._rewrite import FEATURES
from mncompress.nn import Network

MOST_FEATURES = 8
WORK = 1e8
"""Values that are computed in all: a second or two."""
BATCH = 2**21
"""Of them at a time."""
SMALLEST = 2.0**-24
"""Half-width of a box that is not halved again, relative to the range of the feature."""
TINY = 1e-300
"""In place of nothing, to divide by."""
SLACK = 1.1
"""A bound within this of the largest distance found is good enough."""

Floats = NDArray[np.float64]


def bound_outputs(network: Network, original: Exact, compressed: Exact, domain: Domain, gaps: Gaps, found: Floats, enough: Floats,
                  limit: Floats | float = np.inf) -> Floats:
    """Bounds of the outputs' distance over a domain, (m,), no larger than those of `gaps`.

    Args:
        network: the original.
        original: its maps and activations.
        compressed: what became of them.
        domain: of the original.
        gaps: what is known, finite.
        found: distances that occur, (m,).
        enough: bounds that need not be smaller, (m,).
        limit: of the distance, (m,); where it is exceeded, bounds need not be better.
    """
    known, (low, high) = gaps.behind[len(network.layers) - 1], domain.ranges[FEATURES]
    d = len(low)
    if d > MOST_FEATURES or (known <= np.maximum(enough, np.minimum(SLACK * found, limit))).all():
        return known
    layers = make_layers(network, original, compressed, domain, gaps)
    size = (1 + d) * sum(len(layer.bias) for layer in layers) + 32 * sum(layer.n for layer in layers)
    batch, left = max(64, BATCH // size), WORK / size
    boxes, largest = _tighten(layers, _cut(low, high, max(1, int(batch ** (1 / d))), known), tabulate=True)
    found = np.maximum(found, largest)
    settled = np.zeros_like(known)
    while left > 0 and (found <= limit).all():
        goal = np.maximum(np.maximum(enough, np.minimum(SLACK * found, limit)), settled)
        order = np.argsort(-(boxes.upper / np.maximum(goal, TINY)).max(1), kind="stable")
        worst, rest = boxes.take(order[:batch // 2]), boxes.take(order[batch // 2:])
        is_open = (worst.upper > goal).any(1) & (worst.half > SMALLEST * (high - low)).any(1)
        settled = np.maximum(settled, worst.take(np.flatnonzero(~is_open)).upper.max(0, initial=0.0))
        if not is_open.any():
            break
        halves, largest = _tighten(layers, worst.take(np.flatnonzero(is_open)).split())
        boxes, found = rest.append(halves), np.maximum(found, largest)
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
    half = np.array([(each[1] - each[0]) / 2 for each in edges]) + ROUNDING * np.maximum(np.abs(low), np.abs(high))
    half = np.broadcast_to(half, center.shape)
    return _Boxes(center, half, np.broadcast_to(known, (len(center), len(known))), np.ones_like(center))


def _tighten(layers: Sequence[TwinLayer], boxes: _Boxes, *, tabulate: bool = False) -> tuple[_Boxes, Floats]:
    """The boxes that reach into the domain, with better bounds; and the largest distances at the middles of those inside of it."""
    enclosure = enclose_distance(layers, boxes.center, boxes.half, tabulate=tabulate)
    upper = np.fmin(boxes.upper, magnitude(enclosure.distance.ends))
    at_middle = np.abs(enclosure.distance.core[0]) - enclosure.distance.radius
    return (_Boxes(boxes.center, boxes.half, upper, enclosure.pull).take(np.flatnonzero(enclosure.reaches)),
            at_middle[enclosure.is_inside].max(0, initial=0.0))
