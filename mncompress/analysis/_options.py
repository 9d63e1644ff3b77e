"""What could replace each learned activation of a layer, and with which error: computed once, whatever the tolerance.

An option is named by its key: a kind, `native:ACT`, or `cubic_spline:linear` for a table of lines, which standard operators
look up in half the time. Its error is the largest absolute difference on the calibrated
domain; zero for options that are exact for every input.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mncompress import spline
from mncompress.analysis._inner import Array, Indices, InnerNetworks
from mncompress.analysis._kinks import as_native, count_knots, extract_piecewise_linear
from mncompress.types import ACTS, RELU_LIKE, Family, Kind, Preset

DEGREES = tuple(range(2, 8))
FITS: Mapping[str, Callable[[InnerNetworks, Array, Array, int], tuple[spline.Polynomial | spline.CubicSpline, Array]]] = {
    "polynomial": spline.fit_polynomial, "cubic_spline:linear": spline.fit_linear_spline, "cubic_spline": spline.fit_cubic_spline}


@dataclass(frozen=True)
class Affine:
    """slope u + intercept, arrays (n,); a constant where the slope is zero."""

    slope: Array
    intercept: Array

    @property
    def n(self) -> int:
        """Number of functions."""
        return len(self.slope)

    def evaluate(self, u: Array) -> Array:
        """The values at u (..., n)."""
        return self.slope * u + self.intercept

    def derivative(self, u: Array) -> Array:
        """The derivatives at u (..., n)."""
        return np.broadcast_to(self.slope, np.shape(u)).copy()

    def select(self, indices: Indices) -> "Affine":
        """The functions at `indices`."""
        return Affine(self.slope[indices], self.intercept[indices])


Replacement: TypeAlias = Affine | spline.Native | spline.PiecewiseLinear | spline.Polynomial | spline.CubicSpline


def kind_of(key: str) -> Kind:
    """The kind that an option's key belongs to."""
    return key.partition(":")[0]  # type: ignore[return-value]


@dataclass(frozen=True)
class LayerOptions:
    """The options of a layer of n neurons.

    Attributes:
        inner: the learned activations.
        domain: (n, 2).
        errors: per key the largest absolute error on the domain, (n,); infinite where the option does not exist.
        exact: per key, where the option equals the learned activation at every input, (n,).
        ladder: errors by polynomial degree and by number of intervals, (n, rungs), each the largest from that rung on, so
            that a rung that is within one neuron's tolerance can be raised for another's: the first within all wins.
        found: replacements that need no tolerance to be built, by key, for all n neurons.
        knots: knots of the exact piecewise-linear form, (n,), or zeros.
        target: what the prices are of.
    """

    inner: InnerNetworks
    domain: Array
    errors: Mapping[str, Array]
    exact: Mapping[str, NDArray[np.bool_]]
    ladder: Mapping[str, Array]
    found: Mapping[str, Replacement]
    knots: NDArray[np.intp]
    target: Literal["native", "portable"] = "portable"

    @property
    def n(self) -> int:
        """Neurons of the layer."""
        return self.inner.n

    def rung(self, key: str, tolerance: Array, indices: Indices) -> int:
        """The lowest degree or fewest intervals with which all of `indices` stay within their tolerance."""
        within = np.asarray((self.ladder[key][indices] <= tolerance[indices, None]).all(0))
        assert within[-1], f"{key} does not reach the tolerance"
        return _rungs(key)[int(within.argmax())]

    def build(self, key: str, tolerance: Array, indices: Indices) -> Replacement:
        """The replacement of the neurons `indices`, in that order."""
        if key == "piecewise_linear":
            return _select_pieces(self.found[key], indices, int(self.knots[indices].max(initial=1)))
        if key in self.found:
            return self.found[key].select(indices)
        inner, (lo, hi) = self.inner.select(indices), self.domain[indices].T
        return FITS[key](inner, lo, hi, self.rung(key, tolerance, indices))[0]


def find_options(inner: InnerNetworks, family: Family, domain: Array, preset: Preset,
                 target: Literal["native", "portable"] = "portable") -> LayerOptions:
    """Work out every option of a layer.

    Args:
        inner: its learned activations.
        family: parametric families are one native activation by definition.
        domain: (n, 2).
        preset: `exact` leaves out whatever is not exact for every input.
        target: `native` leaves out what only standard operators are faster with.
    """
    lo, hi = domain.T
    errors: dict[str, Array] = {}
    exact: dict[str, NDArray[np.bool_]] = {}
    found: dict[str, Replacement] = {}
    ladder: dict[str, Array] = {}
    knots = np.zeros(inner.n, np.intp)
    if family not in ("meta", "vaf"):
        _add_exact_(errors, exact, found, f"native:{inner.act}", _as_native_form(inner), np.ones(inner.n, bool))
    elif inner.act in RELU_LIKE:
        knots = _add_piecewise_linear_(errors, exact, found, inner)
    if preset != "exact":
        _add_lines_(errors, exact, found, inner, lo, hi)
        if family in ("meta", "vaf"):
            _add_natives_(errors, exact, found, inner, lo, hi)
            if inner.act not in RELU_LIKE:
                for key in FITS if target == "portable" else ("polynomial", "cubic_spline"):
                    steps = _rungs(key)
                    ladder[key] = np.stack([FITS[key](inner, lo, hi, step)[1] for step in steps], 1)
    for key, values in ladder.items():
        ladder[key] = np.maximum.accumulate(values[:, ::-1], 1)[:, ::-1]
        errors[key], exact[key] = ladder[key][:, -1], np.zeros(inner.n, bool)
    return LayerOptions(inner, domain, errors, exact, ladder, found, knots, target)


def _rungs(key: str) -> tuple[int, ...]:
    """What a ladder of options goes through: degrees, or numbers of intervals."""
    return DEGREES if key == "polynomial" else spline.INTERVALS


def _select_pieces(form: Replacement, indices: Indices, knots: int) -> spline.PiecewiseLinear:
    """The functions at `indices` in as many columns as they need: every column costs all of them."""
    assert isinstance(form, spline.PiecewiseLinear)
    part = form.select(indices)
    return spline.PiecewiseLinear(part.knots[:, :knots], part.slope_changes[:, :knots], part.slope, part.intercept)


def _as_native_form(inner: InnerNetworks) -> spline.Native:
    return spline.Native(inner.act, inner.out_weight[:, 0], inner.first_weight[:, 0], inner.biases[0][:, 0], inner.out_bias)


def _add_exact_(errors: dict[str, Array], exact: dict[str, NDArray[np.bool_]], found: dict[str, Replacement], key: str,
                form: Replacement, where: NDArray[np.bool_]) -> None:
    errors[key], exact[key], found[key] = np.where(where, 0.0, np.inf), where, form


def _add_piecewise_linear_(errors: dict[str, Array], exact: dict[str, NDArray[np.bool_]], found: dict[str, Replacement],
                           inner: InnerNetworks) -> NDArray[np.intp]:
    """The exact piecewise-linear form, and the neurons for which a constant, a line or one native activation equals it."""
    form = extract_piecewise_linear(inner)
    simple = as_native(form)
    _add_exact_(errors, exact, found, "piecewise_linear", form, np.ones(inner.n, bool))
    constant = simple.kind == "constant"
    _add_exact_(errors, exact, found, "constant", Affine(np.zeros(inner.n), simple.eta), constant)
    _add_exact_(errors, exact, found, "affine", Affine(simple.alpha, simple.eta), simple.kind == "affine")
    for act in ("relu", "leaky_relu"):
        where = simple.act == act
        native = spline.Native(act, simple.alpha, np.where(where, simple.beta, 1.0), simple.delta, simple.eta)
        _add_exact_(errors, exact, found, f"native:{act}", native, where)
    return count_knots(form)


def _add_lines_(errors: dict[str, Array], exact: dict[str, NDArray[np.bool_]], found: dict[str, Replacement],
                inner: InnerNetworks, lo: Array, hi: Array) -> None:
    value, error = spline.fit_constant(inner, lo, hi)
    constant = Affine(np.zeros(inner.n), value)
    _merge_(errors, exact, found, "constant", constant, np.maximum(error, _error_at_kinks(inner, constant, lo, hi)))
    slope, intercept, error = spline.fit_affine(inner, lo, hi)
    line = Affine(slope, intercept)
    _merge_(errors, exact, found, "affine", line, np.maximum(error, _error_at_kinks(inner, line, lo, hi)))


def _add_natives_(errors: dict[str, Array], exact: dict[str, NDArray[np.bool_]], found: dict[str, Replacement],
                  inner: InnerNetworks, lo: Array, hi: Array) -> None:
    acts = sorted(RELU_LIKE) if inner.act in RELU_LIKE else ACTS
    for act in acts:
        form, error = spline.fit_native(inner, lo, hi, act)
        _merge_(errors, exact, found, f"native:{act}", form, np.maximum(error, _error_at_kinks(inner, form, lo, hi)))


def _error_at_kinks(inner: InnerNetworks, form: Affine | spline.Native, lo: Array, hi: Array) -> Array:
    """The largest error at the kinks of either function, (n,): between the points of a grid it peaks there."""
    kinks = [np.stack([lo, hi])]
    if inner.act in RELU_LIKE:
        kinks.append(extract_piecewise_linear(inner).knots.T)
    if isinstance(form, spline.Native) and form.act in RELU_LIKE:
        kinks.append(-(form.delta / form.beta)[None])
    u = np.clip(np.concatenate(kinks), lo, hi)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(form.evaluate(u) - inner.evaluate(u)).max(0)
    return np.where(np.isnan(error), np.inf, error)


def _merge_(errors: dict[str, Array], exact: dict[str, NDArray[np.bool_]], found: dict[str, Replacement], key: str,
            form: Affine | spline.Native, error: Array) -> None:
    """Add a fit, keeping the exact form of the neurons that have one."""
    keep = exact.get(key, np.zeros(form.n, bool))
    if key in found:
        known = found[key]
        fields = ("slope", "intercept") if isinstance(form, Affine) else ("alpha", "beta", "delta", "eta")
        merged = {name: np.where(keep, getattr(known, name), getattr(form, name)) for name in fields}
        form = Affine(**merged) if isinstance(form, Affine) else spline.Native(form.act, **merged)
    errors[key], exact[key], found[key] = np.where(keep, 0.0, error), keep, form
