"""Fits of functions on domains `lo`, `hi`, each with its largest absolute error there, (N,)."""

from mncompress import spline


def fit(make, function, lo, hi):
    """What `make` fits to a target."""
    target = spline.make_target(function, lo, hi)
    form = make(target)
    return form, target.measure(form)[0]


def fit_constant(function, lo, hi):
    return fit(spline.fit_constant, function, lo, hi)


def fit_line(function, lo, hi):
    return fit(spline.fit_line, function, lo, hi)


def fit_polynomial(function, lo, hi, degree):
    return fit(lambda target: spline.fit_polynomial(target, degree), function, lo, hi)


def fit_spline(function, lo, hi, intervals, degree=3):
    """On knots from end to end."""
    def make(target):
        return spline.fit_spline(target, spline.span_knots(target.lo, target.hi, intervals), degree)

    return fit(make, function, lo, hi)


def fit_native(function, lo, hi, act):
    """The error includes the rounding."""
    target = spline.make_target(function, lo, hi)
    form, rounding = spline.fit_native(target, act)
    return form, target.measure(form)[0] + rounding
