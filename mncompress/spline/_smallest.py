"""The cheapest spline or polynomial that a tolerance allows, per neuron."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mncompress.spline._arrays import Array, Indices
from mncompress.spline._cubic import interpolate_cubic_spline
from mncompress.spline._functions import (
    ERROR_POINTS,
    Form,
    ScalarFunctions,
    as_domain,
    largest_difference,
    make_grid,
    neuron_blocks,
    sample,
)
from mncompress.spline._polynomial import interpolate_polynomial

INTERVALS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Candidates: from 2 on each is at most half as large again as the one before."""

Interpolate = Callable[[ScalarFunctions, Array, Array, int], Form]


def _smallest(
    interpolate: Interpolate,
    candidates: Sequence[int],
    function: ScalarFunctions,
    domain: tuple[Array, Array],
    tolerance: Array,
) -> tuple[Indices, Array]:
    """The first candidate whose error is within the tolerance, or 0; and its error, or the least one found."""
    chosen, error = np.zeros(function.n, dtype=np.intp), np.full(function.n, np.inf)
    for block in neuron_blocks(function.n, ERROR_POINTS):
        lo, hi = (end[block] for end in domain)
        u = make_grid(lo, hi, ERROR_POINTS)
        part = function.select(block)
        y = sample(part, u)
        left = np.flatnonzero(np.isfinite(y).all(axis=0))  # the neurons of this block without an answer so far
        for candidate in candidates:
            if not left.size:
                break
            form = interpolate(part.select(left), lo[left], hi[left], candidate)
            found = largest_difference(form.evaluate(u[:, left]), y[:, left])
            good = found <= tolerance[block[left]]
            chosen[block[left[good]]] = candidate
            error[block[left]] = np.where(good, found, np.minimum(found, error[block[left]]))
            left = left[~good]
    return chosen, error


def smallest_intervals(
    function: ScalarFunctions,
    lo: npt.ArrayLike,
    hi: npt.ArrayLike,
    tolerance: npt.ArrayLike,
    max_intervals: int = INTERVALS[-1],
) -> tuple[Indices, Array]:
    """The fewest intervals (of `INTERVALS`) with which `fit_cubic_spline` stays within the tolerance, per neuron.

    Args:
        function: N functions.
        lo: lower ends of the domains, (N,).
        hi: upper ends, (N,).
        tolerance: largest absolute error allowed, (N,) or a scalar.
        max_intervals: candidates above this are not tried.

    Returns:
        The intervals, (N,), 0 where no candidate will do; and the error with as many, or the least one found, (N,).

    Raises:
        ValueError: `lo` and `hi` are not a domain.
    """
    candidates = [k for k in INTERVALS if k <= max_intervals]
    allowed = np.broadcast_to(np.asarray(tolerance, dtype=np.float64), (function.n,))
    return _smallest(interpolate_cubic_spline, candidates, function, as_domain(function.n, lo, hi), allowed)


def smallest_degree(
    function: ScalarFunctions, lo: npt.ArrayLike, hi: npt.ArrayLike, tolerance: npt.ArrayLike, max_degree: int = 7
) -> tuple[Indices, Array]:
    """The lowest degree from 2 on with which `fit_polynomial` stays within the tolerance, per neuron.

    Args:
        function: N functions.
        lo: lower ends of the domains, (N,).
        hi: upper ends, (N,).
        tolerance: largest absolute error allowed, (N,) or a scalar.
        max_degree: the highest degree tried.

    Returns:
        The degrees, (N,), 0 where none will do; and the error with that degree, or the least one found, (N,).

    Raises:
        ValueError: `lo` and `hi` are not a domain.
    """
    candidates = range(2, max_degree + 1)
    allowed = np.broadcast_to(np.asarray(tolerance, dtype=np.float64), (function.n,))
    return _smallest(interpolate_polynomial, candidates, function, as_domain(function.n, lo, hi), allowed)
