"""What could replace each learned activation of a layer, and with which error: computed once, whatever the tolerance.

An option is named by its key: a kind, `native:ACT`, `cubic_spline:linear` for a table of lines, which standard operators
look up in half the time, or `piecewise_linear:reduced` for lines between few of the knots in the domain. Errors are differences
on the calibrated domain, the largest and the root mean square over what the neurons are given; zero for options that are exact
for every input. Given a histogram, fits minimise the mean square, and it is what a tolerance limits.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mncompress import spline
from mncompress.analysis._inner import Array, Indices, InnerNetworks
from mncompress.analysis._kinks import as_native, count_knots, extract_piecewise_linear
from mncompress.spline import Affine
from mncompress.types import ACTS, RELU_LIKE, Act, Family, Kind, Preset

DEGREES = tuple(range(2, 8))
REDUCED = "piecewise_linear:reduced"
TABLES: Mapping[str, int] = {"cubic_spline:linear": 1, "cubic_spline": 3}
"""Degrees of the splines."""
RUNGS: Mapping[str, tuple[int, ...]] = {
    "polynomial": DEGREES, "cubic_spline:linear": spline.INTERVALS, "cubic_spline": spline.INTERVALS, REDUCED: spline.KNOTS}
"""What a ladder of options goes through: degrees, numbers of intervals, or numbers of knots."""
PIECES_POINTS = 257
"""Besides the knots, where functions are piecewise linear and their errors peak at knots."""
POINT_STEP, KNOT_STEP = 2, 16
"""Where they are smooth, every other point is enough, and every 16th may become a knot."""
MOST_OF_FEWER_POINTS = 63
"""Intervals of a table for which `FEWER_POINTS` are enough, from end to end of the domain and again where nearly all is given."""
MOST_KNOTS_OF_SMOOTH = 4
"""More are dearer than a table of lines."""


Replacement: TypeAlias = Affine | spline.Native | spline.PiecewiseLinear | spline.Polynomial | spline.CubicSpline


def kind_of(key: str) -> Kind:
    """The kind that an option's key belongs to."""
    return key.partition(":")[0]  # type: ignore[return-value]


FEW = 15
"""Intervals of a table that fills one AVX-512 register: fewer save nothing there."""
LARGEST_ROUNDING = 6e-6
"""Of half a function's range: runtimes would differ by what they round in the tail of a sigmoid times a thousand, say."""


@dataclass(frozen=True)
class LayerOptions:
    """The options of a layer of n neurons.

    Attributes:
        inner: the learned activations.
        domain: (n, 2).
        errors: per key the largest absolute error on the domain, (n,); infinite where the option does not exist.
        exact: per key, where the option equals the learned activation at every input, (n,).
        ladder: errors by polynomial degree, number of intervals or number of knots, (n, rungs), each the largest from that
            rung on, so that a rung that is within one neuron's tolerance can be raised for another's: the first within all wins.
        found: replacements that need no tolerance to be built, by key, for all n neurons.
        knots: knots of the exact piecewise-linear form, (n,), or zeros.
        target: what the prices are of.
        rms: as `errors`, the root mean square over the histogram, 5 % of it spread evenly over the domain.
        rms_ladder: as `ladder`, of these.
        histogram: what the neurons are given; None where nothing but the domain is known.
        polylines: what is reduced to few knots.
        table_knots: where those of tables are, by key and number of intervals: those of the ladder.
    """

    inner: InnerNetworks
    domain: Array
    errors: Mapping[str, Array]
    exact: Mapping[str, NDArray[np.bool_]]
    ladder: Mapping[str, Array]
    found: Mapping[str, Replacement]
    knots: NDArray[np.intp]
    target: Literal["native", "portable"] = "portable"
    rms: Mapping[str, Array] = field(default_factory=dict)
    rms_ladder: Mapping[str, Array] = field(default_factory=dict)
    histogram: spline.Histogram | None = None
    polylines: spline.Polylines | None = None
    table_knots: Mapping[tuple[str, int], spline.Knots] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Neurons of the layer."""
        return self.inner.n

    @property
    def criterion(self) -> Literal["max", "rms"]:
        """Which of the errors a tolerance limits."""
        return "max" if self.histogram is None else "rms"

    @property
    def limited(self) -> Mapping[str, Array]:
        """The errors that a tolerance limits."""
        return self.errors if self.criterion == "max" else self.rms

    @property
    def limited_ladder(self) -> Mapping[str, Array]:
        """The ladders of these."""
        return self.ladder if self.criterion == "max" else self.rms_ladder

    def rung(self, key: str, tolerance: Array, indices: Indices) -> int:
        """The lowest degree or fewest intervals or knots with which all of `indices` (k,) stay within `tolerance` (n,)."""
        within = np.asarray((self.limited_ladder[key][indices] <= tolerance[indices, None]).all(0))
        assert within[-1], f"{key} does not reach the tolerance"
        return RUNGS[key][int(within.argmax())]

    def rungs(self, key: str, tolerance: Array) -> NDArray[np.intp]:
        """The same for each neuron by itself, (n,); the last one where none is within the tolerance."""
        within = self.limited_ladder[key] <= tolerance[:, None]
        within[:, -1] = True
        return np.asarray(np.asarray(RUNGS[key], np.intp)[within.argmax(1)])

    def coarser(self, key: str, rung: int, share: float) -> int:
        """The lowest rung with at least this share of the intervals, knots or degree of `rung`; few cost as much as fewer."""
        return min(step for step in RUNGS[key] if step >= max(rung * share, min(rung, FEW)))

    def build(self, key: str, tolerance: Array, indices: Indices) -> Replacement:
        """The replacement of the neurons `indices` (k,), in that order, on the lowest rung within the tolerances (n,)."""
        return self.build_rung(key, self.rung(key, tolerance, indices) if key in self.ladder else None, indices)

    def build_rung(self, key: str, rung: int | None, indices: Indices) -> Replacement:
        """The replacement of the neurons `indices` (k,) with that degree or number of intervals or knots; None without a ladder."""
        if key == "piecewise_linear":
            return _select_pieces(self.found[key], indices, int(self.knots[indices].max(initial=1)))
        if key in self.found:
            return self.found[key].select(indices)
        assert rung is not None, f"{key} needs a rung"
        if key == REDUCED:
            assert self.polylines is not None
            return spline.fit_polylines(self.polylines.select(indices), rung)
        histogram = None if self.histogram is None else self.histogram.select(indices)
        function, domain = self.inner.select(indices), self.domain[indices]
        lo, hi = domain.T
        if key in TABLES:
            target, known = _make_table_target(function, domain, histogram, rung), self.table_knots.get((key, rung))
            fewer = [intervals for intervals in RUNGS[key] if intervals < rung]
            if known is None:
                return spline.place_splines(target, [*fewer, rung], TABLES[key])[-1]
            return spline.fit_spline(target, known.select(indices), TABLES[key])
        return spline.fit_polynomial(spline.make_target(function, lo, hi, histogram, spline.FEWER_POINTS), rung)


@dataclass(frozen=True)
class _Options:
    """Options while they are being collected, by key."""

    errors: dict[str, Array] = field(default_factory=dict)
    rms: dict[str, Array] = field(default_factory=dict)
    exact: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    found: dict[str, Replacement] = field(default_factory=dict)
    ladder: dict[str, Array] = field(default_factory=dict)
    rms_ladder: dict[str, Array] = field(default_factory=dict)
    table_knots: dict[tuple[str, int], spline.Knots] = field(default_factory=dict)

    def add_exact_(self, key: str, form: Replacement, where: NDArray[np.bool_]) -> None:
        """Add what is exact for some neurons, and does not exist for the others."""
        self.errors[key] = self.rms[key] = np.where(where, 0.0, np.inf)
        self.exact[key], self.found[key] = where, form

    def add_fit_(self, key: str, form: Affine | spline.Native, largest: Array, rms: Array) -> None:
        """Add a fit, keeping the exact form of the neurons that have one."""
        keep = self.exact.get(key, np.zeros(form.n, bool))
        if key in self.found:
            known = self.found[key]
            fields = ("slope", "intercept") if isinstance(form, Affine) else ("alpha", "beta", "delta", "eta")
            merged = {name: np.where(keep, getattr(known, name), getattr(form, name)) for name in fields}
            form = Affine(**merged) if isinstance(form, Affine) else spline.Native(form.act, **merged)
        self.errors[key], self.rms[key] = np.where(keep, 0.0, largest), np.where(keep, 0.0, rms)
        self.exact[key], self.found[key] = keep, form

    def add_ladder_(self, key: str, measured: list[tuple[Array, Array]]) -> None:
        """Add what is built for a tolerance, with its errors by rung."""
        self.ladder[key], self.rms_ladder[key] = (
            np.maximum.accumulate(np.stack(values, 1)[:, ::-1], 1)[:, ::-1] for values in zip(*measured, strict=True))
        self.errors[key], self.rms[key] = self.ladder[key][:, -1], self.rms_ladder[key][:, -1]
        self.exact[key] = np.zeros(len(self.errors[key]), bool)


def find_options(inner: InnerNetworks, family: Family, domain: Array, preset: Preset,
                 target: Literal["native", "portable"] = "portable", histogram: spline.Histogram | None = None) -> LayerOptions:
    """Work out every option of a layer.

    Args:
        inner: its learned activations.
        family: parametric families are one native activation by definition.
        domain: (n, 2).
        preset: `exact` leaves out whatever is not exact for every input.
        target: `native` leaves out what only standard operators are faster with.
        histogram: what the neurons are given; without one, tolerances limit the largest error.
    """
    options = _Options()
    learned, pieces = family in ("meta", "vaf"), inner.act in RELU_LIKE
    exact = extract_piecewise_linear(inner) if pieces else None
    knots = np.zeros(inner.n, np.intp)
    if not learned:
        options.add_exact_(f"native:{inner.act}", _as_native_form(inner), np.ones(inner.n, bool))
    elif exact is not None:
        knots = _add_piecewise_linear_(options, exact)
    polylines = None
    if preset != "exact":
        lo, hi = domain.T
        samples = (spline.make_target(inner, lo, hi, histogram, spline.FEWER_POINTS) if exact is None else
                   spline.make_target(inner, lo, hi, histogram, PIECES_POINTS, exact.knots.T))
        _add_lines_(options, samples)
        if learned:
            _add_natives_(options, samples, sorted(RELU_LIKE) if pieces else ACTS)
            if not pieces:
                options.add_ladder_("polynomial", [samples.measure(spline.fit_polynomial(samples, degree))
                                                   for degree in DEGREES])
                targets = [_make_table_target(inner, domain, histogram, intervals)
                           for intervals in (MOST_OF_FEWER_POINTS, spline.INTERVALS[-1])]
                for key in TABLES if target == "portable" else ["cubic_spline"]:
                    _add_tables_(options, targets, key)
            if pieces or target == "portable":
                polylines = _add_reduced_(options, samples, exact)
    return LayerOptions(inner, domain, options.errors, options.exact, options.ladder, options.found, knots, target, options.rms,
                        options.rms_ladder, histogram, polylines, options.table_knots)


def _select_pieces(form: Replacement, indices: Indices, knots: int) -> spline.PiecewiseLinear:
    """The functions at `indices` in as many columns as they need: every column costs all of them."""
    assert isinstance(form, spline.PiecewiseLinear)
    part = form.select(indices)
    return spline.PiecewiseLinear(part.knots[:, :knots], part.slope_changes[:, :knots], part.slope, part.intercept)


def _as_native_form(inner: InnerNetworks) -> spline.Native:
    return spline.Native(inner.act, inner.out_weight[:, 0], inner.first_weight[:, 0], inner.biases[0][:, 0], inner.out_bias)


def _add_piecewise_linear_(options: _Options, form: spline.PiecewiseLinear) -> NDArray[np.intp]:
    """The exact piecewise-linear form, and the neurons for which a constant, a line or one native activation equals it."""
    simple = as_native(form)
    options.add_exact_("piecewise_linear", form, np.ones(form.n, bool))
    options.add_exact_("constant", Affine(np.zeros(form.n), simple.eta), simple.kind == "constant")
    options.add_exact_("affine", Affine(simple.alpha, simple.eta), simple.kind == "affine")
    for act in ("relu", "leaky_relu"):
        where = simple.act == act
        native = spline.Native(act, simple.alpha, np.where(where, simple.beta, 1.0), simple.delta, simple.eta)
        options.add_exact_(f"native:{act}", native, where)
    return count_knots(form)


def _add_lines_(options: _Options, samples: spline.Target) -> None:
    for key, form in (("constant", spline.fit_constant(samples)), ("affine", spline.fit_line(samples))):
        options.add_fit_(key, form, *samples.measure(form))


def _add_natives_(options: _Options, samples: spline.Target, acts: Iterable[Act]) -> None:
    for act in acts:
        form, rounding = spline.fit_native(samples, act)
        largest, rms = samples.measure(form)
        if act in RELU_LIKE:
            largest = np.maximum(largest, _error_at_kink(samples, form))
        rounding = np.where(rounding > LARGEST_ROUNDING * options.errors["constant"], np.inf, rounding)
        options.add_fit_(f"native:{act}", form, largest + rounding, rms + rounding)


def _error_at_kink(samples: spline.Target, form: spline.Native) -> Array:
    """The error at the kink of a relu, (n,): between the points of a grid it peaks there."""
    u = np.clip(-(form.delta / form.beta)[None], samples.lo, samples.hi)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(form.evaluate(u) - samples.function(u))[0]
    return np.where(np.isnan(error), np.inf, error)


def _make_table_target(inner: InnerNetworks, domain: Array, histogram: spline.Histogram | None, intervals: int) -> spline.Target:
    """What tables of so many intervals are fitted to."""
    lo, hi = domain.T
    points = spline.FEWER_POINTS if intervals <= MOST_OF_FEWER_POINTS else spline.ERROR_POINTS
    return spline.make_target(inner, lo, hi, histogram, points, None if histogram is None else histogram.core(points))


def _add_tables_(options: _Options, targets: Sequence[spline.Target], key: str) -> None:
    """Tables of more and more intervals, each with knots that are looked for near those of the one before."""
    measured, last = [], None
    coarse = sum(rung <= MOST_OF_FEWER_POINTS for rung in RUNGS[key])
    for target, rungs in zip(targets, (RUNGS[key][:coarse], RUNGS[key][coarse:]), strict=True):
        for form in spline.place_splines(target, rungs, TABLES[key], last):
            options.table_knots[key, form.intervals] = last = form.knots
            measured.append(target.measure(form))
    options.add_ladder_(key, measured)


def _add_reduced_(options: _Options, samples: spline.Target, exact: spline.PiecewiseLinear | None) -> spline.Polylines:
    """Few knots: of the exact ones, or evenly placed ones where the function is smooth."""
    if exact is None:
        is_knot = np.broadcast_to((np.arange(len(samples.u)) % KNOT_STEP == 0)[:, None], samples.u.shape)
        lines, rungs = spline.make_polylines(samples, is_knot, POINT_STEP), RUNGS[REDUCED][:MOST_KNOTS_OF_SMOOTH]
    else:
        is_knot = (samples.u[:, :, None] == exact.knots).any(2)
        lines, rungs = spline.make_polylines(samples, is_knot), RUNGS[REDUCED]
    measured: list[tuple[Array, Array]] = []
    for place, rung in enumerate(rungs):
        if place and rungs[place - 1] >= lines.most:
            measured.append(measured[-1])
        else:
            measured.append(samples.measure(spline.fit_polylines(lines, rung)))
    options.add_ladder_(REDUCED, measured)
    return lines
