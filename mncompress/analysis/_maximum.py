"""Branch and bound: guaranteed upper bounds of the maxima of N scalar functions over a domain each."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis._inner import Array, Indices

Score = Callable[[Indices, Array, Array], tuple[Array, Array]]

ROUNDS = 8
CELLS = 64
"""Of a neuron at the start, at least."""
MOST_CELLS = 256
"""Cells of a neuron that are split in one round."""
BLOCK = 2**18
"""Inner units times cells in hand at a time."""


def bound_maximum(edges: Array, width: int, score: Score, tolerate: Callable[[Array], Array]) -> Array:
    """Upper bounds (N,) of the maxima of N functions over the cells between edges (N, E).

    The largest value found is a lower bound of the maximum. Cells whose upper bound exceeds what is tolerated beyond
    that are split in four, up to `ROUNDS` times; what is still loose then is reported loose.

    Args:
        edges: ascending.
        width: inner units of each function, for the memory that a block of neurons takes.
        score: from neurons (A,), middles and radii (A, C) to a value found in each cell and an upper bound over it.
        tolerate: from the largest values found (N,) to the upper bounds that are good enough.
    """
    parts = -(-CELLS // (edges.shape[1] - 1))
    size = max(1, BLOCK // (width * max(parts * (edges.shape[1] - 1), MOST_CELLS)))
    best, bound = np.full((2, len(edges)), -np.inf)
    for first in range(0, len(edges), size):
        index = np.arange(first, min(first + size, len(edges)))
        low, high = _split(edges[index, :-1], edges[index, 1:], parts)
        for rounds_left in range(ROUNDS, -1, -1):
            middle = (low + high) / 2
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows has no bound
                lower, upper = score(index, middle, np.maximum(high - middle, middle - low))
            upper = np.where(np.isnan(upper), np.inf, upper)
            best[index] = np.maximum(best[index], lower.max(1))
            limit = np.maximum(tolerate(best), bound)[index]
            chosen = _choose(upper, limit, MOST_CELLS if rounds_left else 0)
            bound[index] = np.maximum(bound[index], np.where(chosen, -np.inf, upper).max(1))
            active = chosen.any(1)
            if not active.any():
                break
            chosen, low, high, index = chosen[active], low[active], high[active], index[active]
            order = np.argsort(~chosen, 1, kind="stable")[:, :chosen.sum(1).max()]
            chosen = np.take_along_axis(chosen, order, 1)
            low, high = np.take_along_axis(low, order, 1), np.take_along_axis(high, order, 1)
            low, high = _split(low, np.where(chosen, high, low), 4)  # empty cells pad the rows
    return bound


def _choose(upper: Array, limit: Array, most: int) -> NDArray[np.bool_]:
    """Of the cells (A, C) whose bound exceeds the limit (A,), the `most` loosest of each row."""
    excess = np.where(upper > limit[:, None], upper, -np.inf)
    chosen = np.isfinite(excess)
    if most < upper.shape[1]:
        rest = np.argsort(-excess, 1, kind="stable")[:, most:]
        np.put_along_axis(chosen, rest, False, 1)
    return chosen


def _split(low: Array, high: Array, parts: int) -> tuple[Array, Array]:
    """Each cell (A, C) in equal parts: (A, C * parts)."""
    edges = low[..., None] + (high - low)[..., None] * (np.arange(parts + 1) / parts)
    edges[..., -1] = high
    return edges[..., :-1].reshape(len(low), -1), edges[..., 1:].reshape(len(low), -1)
