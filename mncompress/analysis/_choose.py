"""Choosing among the options of a layer for given tolerances, by price.

ONNX Runtime pays per operator as well as per neuron, and a layer whose neurons have different forms pays for splitting
and joining them; so the layer as a whole is made cheapest, not each neuron alone. A layer whose learned activations are cheaper
than any replacement is kept as it is. Prices are those of `_prices`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from mncompress.analysis._inner import Array
from mncompress.analysis._options import REDUCED, LayerOptions, kind_of
from mncompress.analysis._prices import NODE_NS, PRICES, PRICES_IN_ONE_NODE, SPLIT_NODES, SPLIT_NS, Prices, price_of_keeping
from mncompress.types import KINDS, Kind


@dataclass(frozen=True)
class Choice:
    """What a layer's neurons become.

    Attributes:
        keys: per neuron, (n,); `kept` where no option is within the tolerance.
        refused: per neuron the cheaper kinds that were not taken, each with why.
    """

    keys: NDArray[np.str_]
    refused: tuple[Mapping[str, str], ...]


def choose(options: LayerOptions, tolerance: Array, *, can_leave: bool = True, in_one_node: bool = False) -> Choice:
    """The cheapest assignment of a layer, by the prices of the options' target.

    Args:
        options: of the layer.
        tolerance: per neuron, (n,).
        can_leave: whether a constant can move into the biases behind. One that cannot would be split off and joined again.
        in_one_node: whether kernels alone would make the network a single node.
    """
    prices = PRICES_IN_ONE_NODE if in_one_node and options.target == "native" else PRICES[options.target]
    names = [name for name in options.errors if can_leave or name != "constant"]
    if not names:
        return keep_all(options, tolerance)
    allowed = np.stack([options.exact[key] | (np.isfinite(options.limited[key]) & (options.limited[key] <= tolerance))
                        for key in names], 1)
    price = np.stack([_element_price(key, options, tolerance, prices) for key in names], 1)
    hopeless = np.asarray(~allowed.any(1))

    def cheapest(pools: Iterable[NDArray[np.bool_]]) -> tuple[float, NDArray[np.intp], NDArray[np.bool_]]:
        trials = [(*_assign(names, allowed, price, pool, hopeless, prices), pool) for pool in pools
                  if (allowed[:, pool].any(1) | hopeless).all()]
        return min(trials, key=lambda trial: trial[0])

    single, everything = np.eye(len(names), dtype=bool), np.ones(len(names), bool)
    best = cheapest([everything])
    while True:         # without one of the forms: its neurons go to any other form, or only to those already there
        used = np.isin(np.arange(len(names)), best[1][~hopeless])
        less = cheapest([best[2], *(pool & ~single[column] for column in np.flatnonzero(used) for pool in (best[2], used))])
        if less[0] >= best[0]:
            break
        best = less
    few = [a | b | (np.array(names) == "constant") for a, b in combinations_with_replacement(single, 2)]
    cost, chosen, _ = cheapest([best[2], *few])
    inner = options.inner.first_weight.shape[1], len(options.inner.biases), options.inner.act
    if price_of_keeping(options.n, *inner) < cost + price_of_keeping(int(hopeless.sum()), *inner):
        return keep_all(options, tolerance)
    keys = np.where(hopeless, "kept", np.array(names)[chosen])
    return Choice(keys, tuple(_explain(options, tolerance, row, str(keys[row])) for row in range(options.n)))


def keep_all(options: LayerOptions, tolerance: Array) -> Choice:
    """Replace nothing: without options, where inner networks are cheapest, or where rounding exceeds the tolerances (n,)."""
    return Choice(np.full(options.n, "kept"), tuple(_explain(options, tolerance, row, "kept") for row in range(options.n)))


def _element_price(key: str, options: LayerOptions, tolerance: Array, prices: Prices) -> Array:
    if key == REDUCED:
        return prices.knot * options.rungs(key, tolerance).astype(np.float64)
    if key == "piecewise_linear":
        return prices.knot * np.maximum(options.knots, 1).astype(np.float64)
    return np.full(options.n, prices.element[key])


def _assign(names: list[str], allowed: NDArray[np.bool_], price: Array, use: NDArray[np.bool_],
            hopeless: NDArray[np.bool_], prices: Prices) -> tuple[float, NDArray[np.intp]]:
    """Each neuron's cheapest option among those in use, and what the layer then costs."""
    chosen = np.where(allowed & use, price, np.inf).argmin(1)
    rows = np.flatnonzero(~hopeless)
    forms = {names[column] for column in chosen[rows]} - {"constant"}
    cost = 0.0
    for key in forms:
        mine = rows[chosen[rows] == names.index(key)]
        each = price[mine, names.index(key)]
        cost += prices.nodes.get(key, 1) * NODE_NS + (
            each.max() * len(each) if kind_of(key) == "piecewise_linear" else each.sum())
    if len(forms) + bool(hopeless.any()) > 1:
        cost += SPLIT_NODES * NODE_NS + SPLIT_NS * len(price)
    return cost, chosen


def _explain(options: LayerOptions, tolerance: Array, row: int, key: str) -> dict[str, str]:
    """Why each kind cheaper than the chosen one was not taken for this neuron."""
    cheaper = KINDS[:KINDS.index(kind_of(key))]
    return {kind: _refusal(options, float(tolerance[row]), row, kind, key) for kind in cheaper}


def _refusal(options: LayerOptions, tolerance: float, row: int, kind: Kind, key: str) -> str:
    names = [name for name in options.errors if kind_of(name) == kind]
    error = min((float(options.limited[name][row]) for name in names), default=np.inf)
    dearer = ("this layer is faster with its inner networks" if key == "kept"
              else "one more form in this layer would cost more than it saves")
    if any(options.exact[name][row] for name in names):
        return "it is exact, but even its float32 rounding exceeds the budget" if key == "kept" and tolerance < 0 else dearer
    if tolerance < 0:
        return "it is not exact for every input"
    if error == np.inf:
        return "the function is not of this form"
    if error > tolerance:
        return f"its error, {error:.2g}, is above the {tolerance:.2g} allowed"
    return dearer
