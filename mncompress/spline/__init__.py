"""Scalar functions, one per neuron, side by side in NumPy float64: evaluate, fit and bound the error. No torch.

Convention, the same in the ONNX ops and in every kernel. `u` has neurons on its last axis.

*Cubic spline*: K intervals with uniform knots per neuron, s = (u - start)·inverse_step, interval k = floor(s),
t = s - k in [0, 1), y = Σₚ coefficients[n, k, p]·t**p for p = 0..3, `coefficients` of shape (N, K, 4). Below s = 0 and
above s = K the value continues linearly with the boundary slope. NaN gives NaN; ±∞ gives what the arithmetic gives,
without warning.

*Piecewise linear*: y = intercept + slope·u + Σₖ slope_changesₖ·max(u - knotsₖ, 0).

*Polynomial*: P(x), x = (u - center)·inverse_half_width, continued linearly outside of [-1, 1].

*Native*: alpha·act(beta·u + delta) + eta.

A fit takes a `Target`: functions that are sampled, their domains, and perhaps a `Histogram` of what they are given. A
domain that is a single point is allowed. `Target.measure` says how far a form is off.
"""

from mncompress.spline._acts import ACT_DERIVATIVES as ACT_DERIVATIVES
from mncompress.spline._acts import ACT_VALUES as ACT_VALUES
from mncompress.spline._affine import Affine as Affine
from mncompress.spline._affine import fit_constant as fit_constant
from mncompress.spline._affine import fit_line as fit_line
from mncompress.spline._cubic import CubicSpline as CubicSpline
from mncompress.spline._cubic import fit_spline as fit_spline
from mncompress.spline._functions import ERROR_POINTS as ERROR_POINTS
from mncompress.spline._functions import FEWER_POINTS as FEWER_POINTS
from mncompress.spline._functions import Form as Form
from mncompress.spline._functions import ScalarFunctions as ScalarFunctions
from mncompress.spline._functions import Target as Target
from mncompress.spline._functions import make_target as make_target
from mncompress.spline._functions import max_abs_error as max_abs_error
from mncompress.spline._histogram import Histogram as Histogram
from mncompress.spline._knots import INTERVALS as INTERVALS
from mncompress.spline._knots import Knots as Knots
from mncompress.spline._knots import span_knots as span_knots
from mncompress.spline._native import Native as Native
from mncompress.spline._native import fit_native as fit_native
from mncompress.spline._piecewise import PiecewiseLinear as PiecewiseLinear
from mncompress.spline._placing import place_splines as place_splines
from mncompress.spline._polyline import KNOTS as KNOTS
from mncompress.spline._polyline import Polylines as Polylines
from mncompress.spline._polyline import fit_polylines as fit_polylines
from mncompress.spline._polyline import make_polylines as make_polylines
from mncompress.spline._polynomial import Polynomial as Polynomial
from mncompress.spline._polynomial import fit_polynomial as fit_polynomial
