"""How far apart two networks of few features can be in exact arithmetic: branch and bound over boxes of features.

Each box is enclosed by affine forms (`_affine_forms`), cut with the ranges that are known; boxes in which the original leaves its
ranges are dropped. Those whose bound is not good enough are halved, along the feature that moves the pre-activations most.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis import magnitude
from mncompress.compression._affine_forms import ROUNDING, TwinLayer, enclose, make_layers
from mncompress.compression._evaluate import Exact
from mncompress.compression._gaps import Gaps, Ranges
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


def bound_outputs(network: Network, original: Exact, compressed: Exact, ranges: Ranges, gaps: Gaps, enough: Floats,
                  limit: Floats | float = np.inf) -> Floats:
    """Bounds of the outputs' distance, (m,), no larger than those of `gaps`.

    Args:
        network: the original.
        original: its values.
        compressed: what became of it.
        ranges: of the original's features and pre-activations.
        gaps: what is known, finite.
        enough: bounds that need not be smaller, (m,).
        limit: of the distance, (m,); once it is exceeded somewhere, bounds need not be better.
    """
    last = len(network.layers) - 1
    known, (low, high) = gaps.behind[last], ranges[FEATURES]
    d = len(low)
    if d > MOST_FEATURES or (known <= enough).all():
        return known
    layers = make_layers(network, original, compressed, ranges, gaps)
    size = (1 + d) * sum(len(layer.bias) for layer in layers) + 32 * sum(layer.n for layer in layers)
    batch, left = max(64, BATCH // size), WORK / size
    boxes, found = _evaluate(layers, _cut(low, high, max(1, int(batch ** (1 / d))), known), tabulate=True)
    settled = np.zeros_like(known)
    while left > 0 and (found <= limit).all():
        goal = np.maximum(np.maximum(enough, np.minimum(SLACK * found, limit)), settled)
        order = np.argsort(-(boxes.upper / np.maximum(goal, TINY)).max(1), kind="stable")
        worst, rest = boxes.take(order[:batch // 2]), boxes.take(order[batch // 2:])
        is_open = (worst.upper > goal).any(1) & (worst.half > SMALLEST * (high - low)).any(1)
        settled = np.maximum(settled, worst.take(np.flatnonzero(~is_open)).upper.max(0, initial=0.0))
        if not is_open.any():
            break
        halves, largest = _evaluate(layers, worst.take(np.flatnonzero(is_open)).split())
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
    half = np.array([(each[1] - each[0]) / 2 for each in edges]) + ROUNDING * np.abs(center)
    return _Boxes(center, half, np.broadcast_to(known, (len(center), len(known))), np.ones_like(center))


def _evaluate(layers: Sequence[TwinLayer], boxes: _Boxes, *, tabulate: bool = False) -> tuple[_Boxes, Floats]:
    """The boxes in which the original can be within its ranges, with better bounds; and the largest distances at their middles."""
    found = enclose(layers, boxes.center, boxes.half, tabulate=tabulate)
    upper = np.minimum(boxes.upper, magnitude(found.distance.ends))
    at_center = np.abs(found.distance.core[0]) - found.distance.radius
    inside = np.flatnonzero(found.inside)
    return _Boxes(boxes.center, boxes.half, upper, found.pull).take(inside), at_center[inside].max(0, initial=0.0)
