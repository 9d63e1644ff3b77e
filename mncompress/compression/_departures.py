"""Which neurons leave first: structured pruning in closed form, with a bypass for what was linear in them.

Let a layer's neurons h and what the layer reads, x, both feed the pre-activations z of the next layer. Removing a feature i
from the least-squares prediction z = W (h, x) and refitting all others raises the mean squared error by
w_i^2 / P_ii, P the inverse of the features' second moments (the surgeon's formula: Hassibi, Stork 1992; here it is exact,
since the layer behind is linear). So the cost of every neuron is known at once, without a pass over the data; the cheapest leave,
W and P are downdated, and so on until none is left. Errors of z are measured by what they do to the network's outputs,
e^T M e with M the second moments of the outputs' gradient.

The weights V that then read x are the bypass. In full it costs in x out multiply-adds; cut to rank r, r (in + out), and an error
that the eigenvalues of V's contribution give, the rest of the weights refitted as well (reduced-rank regression: Izenman 1975).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mncompress.compression._roots import find_root

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

RIDGE = 1e-4
"""Of the mean second moment of a kind of feature."""
STAGES, WIDE_STAGES, WIDE = 128, 40, 1200
"""In how many steps a layer empties, or one with more features than `WIDE`."""
RANK_STAGES, MOST_RANK = 5, 128
"""For how many of these bypasses of low rank are considered, and up to which."""
ELEMENT_MACS = 4
"""What an activation is taken to cost while its form is open."""
NODE_MACS = 1300
"""Multiply-adds that take as long as one more node of a graph, at a batch of 32 (see `mncompress.analysis._prices`)."""


@dataclass(frozen=True)
class Departure:
    """Neurons of a layer that leave together.

    Attributes:
        left: which.
        rank: of the bypass; 0 for none, the full rank for one that is not factored.
        error: mean squared change of the outputs, relative to their variance.
        factored: the rank at which the layer's own weights are carried out in two factors; 0 where they are not.
    """

    left: Indices
    rank: int
    error: float
    factored: int = 0


NOTHING = Departure(np.zeros(0, np.intp), 0, 0.0)


def find_departures(h: Tensor, x: Tensor, weight: Floats, metric: Floats, variance: float, removable: Indices) -> list[Departure]:
    """Every stage of emptying a layer.

    Args:
        h: its neurons' outputs, (rows, n).
        x: what it reads, (rows, d).
        weight: by which the next layer reads h, (m, n).
        metric: R with M = R^T R, (k, m).
        variance: of the outputs, summed over them.
        removable: the neurons that may leave.
    """
    stages = [NOTHING]
    for bypassed in (False, True):
        moments = _second_moments([h, x] if bypassed else [h])
        read = metric @ np.concatenate([weight, np.zeros((len(weight), len(moments) - len(weight[0])))], 1)
        full = min(x.shape[1], len(weight))
        stages += [replace(each, error=each.error / variance)
                   for each in _empty(moments, read, h.shape[1], removable, full if bypassed else 0)]
    return stages


def _second_moments(parts: Sequence[Tensor]) -> Floats:
    """Of centered features, with a ridge for each kind."""
    values = torch.cat([part - part.mean(0) for part in parts], 1)
    moments: Floats = (values.T @ values / len(values)).double().numpy()
    ends = np.cumsum([0, *(part.shape[1] for part in parts)])
    for first, end in itertools.pairwise(ends):
        diagonal = np.arange(first, end)
        moments[diagonal, diagonal] += RIDGE * moments[diagonal, diagonal].mean() + np.finfo(np.float64).tiny
    return moments


def _empty(moments: Floats, read: Floats, n: int, removable: Indices, full_rank: int) -> Iterator[Departure]:
    """Let neurons leave, the cheapest first.

    Args:
        moments: of the n neurons and whatever else stays, (p, p).
        read: the weights in the metric, (k, p).
        n: neurons.
        removable: which of them may leave.
        full_rank: of the bypass, 0 where there is none.
    """
    precision = np.asarray(np.linalg.inv(moments), np.float64)
    alive, left, error = removable.copy(), np.zeros(0, np.intp), 0.0
    step = max(1, -(-len(removable) // (STAGES if len(moments) <= WIDE else WIDE_STAGES)))
    stages = -(-len(removable) // step)
    for stage in range(stages):
        cost = np.square(read[:, alive]).sum(0) / precision[alive, alive]
        going = alive[np.argsort(cost, kind="stable")[:step]]
        among = precision[np.ix_(going, going)]
        gain = np.linalg.solve(among, precision[going])
        error += float((read[:, going].T * np.linalg.solve(among, read[:, going].T)).sum())
        read = read - read[:, going] @ gain
        precision -= precision[:, going] @ gain
        read[:, going] = precision[going] = precision[:, going] = 0.0
        precision[going, going] = 1.0
        alive, left = np.setdiff1d(alive, going), np.concatenate([left, going])
        yield Departure(left, full_rank, error)
        if full_rank > 1 and stage % max(1, stages // RANK_STAGES) == 0:
            yield from (Departure(left, rank, error + tail) for rank, tail in _tails(read[:, n:], precision[n:, n:], full_rank))


def _tails(bypass: Floats, precision: Floats, full_rank: int) -> Iterator[tuple[int, float]]:
    """Rank, and the error that cutting the bypass to it adds."""
    from sklearn.utils.extmath import randomized_svd  # where it is needed: importing it takes half a second

    _, inverse = find_root(precision)
    contribution = inverse @ bypass.T
    most = min(full_rank, MOST_RANK)
    _, values, _ = randomized_svd(contribution, most, random_state=0)
    total = float(np.square(contribution).sum())
    for power in range(int(np.log2(most)) + 1):
        rank = 2**power
        if rank < full_rank:
            yield rank, max(0.0, total - float(np.square(values[:rank]).sum()))


@dataclass(frozen=True)
class Shape:
    """What decides the cost of a network.

    Attributes:
        sizes: features in, neurons of each layer.
        is_small: it runs as one node as long as it has no bypass; layers in two factors are part of it.
    """

    sizes: tuple[int, ...]
    is_small: bool

    def cost(self, departures: Sequence[Departure]) -> float:
        """Multiply-adds, with activations by `ELEMENT_MACS` and further nodes by `NODE_MACS`; for each layer one departure."""
        total, inputs, nodes, factors = 0, self.sizes[0], 0, 0
        kept = [size - len(departure.left) for size, departure in zip(self.sizes[1:], departures, strict=True)]
        for position, departure in enumerate(departures):
            following = kept[position + 1] if position + 1 < len(kept) else 0
            dense = departure.rank > 0 and is_dense(departure.rank, inputs, following)
            units = 0 if dense else departure.rank
            outputs = kept[position] + units
            total += departure.factored * (inputs + outputs) if departure.factored else outputs * inputs
            total += ELEMENT_MACS * kept[position] * (following > 0)
            nodes += bool(departure.rank and outputs) + 2 * bool(units)     # else the layer is gone
            factors += bool(departure.factored)
            inputs = kept[position] + units + (inputs if dense else 0)
        if self.is_small and nodes:
            nodes += 2 * len(kept)
        return total + NODE_MACS * (nodes + factors * (not self.is_small or nodes > 0))


def is_dense(rank: int, inputs: int, outputs: int) -> bool:
    """Whether a bypass of this rank costs no less in factors than as a whole."""
    return rank * (inputs + outputs) >= inputs * outputs


def distribute(stages: Sequence[Sequence[Departure]], shape: Shape, price: float) -> list[Departure]:
    """For each layer the departure that is best together: error plus `price` times multiply-adds is smallest.

    Found by going from layer to layer until none changes, since what a layer saves depends on its neighbors.
    """
    chosen = [each[0] for each in stages]
    whole = shape.cost(chosen)
    for _ in range(8):
        before = list(chosen)
        for position, options in enumerate(stages):
            if len(options) > 1:
                chosen[position] = min(options, key=lambda option, place=position: (  # type: ignore[misc]
                    option.error + price * shape.cost([*chosen[:place], option, *chosen[place + 1:]]) / whole))
        if all(a is b for a, b in zip(before, chosen, strict=True)):
            break
    return chosen
