"""Torch modules: the activation families, the networks, and the forms that compression replaces activations by."""

from mncompress.nn._cost import count_macs as count_macs
from mncompress.nn._cost import count_parameters as count_parameters
from mncompress.nn._families import AGSig as AGSig
from mncompress.nn._families import End as End
from mncompress.nn._families import Fixed as Fixed
from mncompress.nn._families import FReLU as FReLU
from mncompress.nn._families import LearnedActivation as LearnedActivation
from mncompress.nn._families import Meta as Meta
from mncompress.nn._families import Vaf as Vaf
from mncompress.nn._families import Warp as Warp
from mncompress.nn._families import make_activation as make_activation
from mncompress.nn._forms import CubicSpline as CubicSpline
from mncompress.nn._forms import Grouped as Grouped
from mncompress.nn._forms import PiecewiseLinear as PiecewiseLinear
from mncompress.nn._forms import Polynomial as Polynomial
from mncompress.nn._forms import Scale as Scale
from mncompress.nn._fused import fused_activation as fused_activation
from mncompress.nn._fused import fused_available as fused_available
from mncompress.nn._init import initialize_ as initialize_
from mncompress.nn._init import initialize_activation_ as initialize_activation_
from mncompress.nn._init import mismatch as mismatch
from mncompress.nn._network import Layer as Layer
from mncompress.nn._network import Network as Network
from mncompress.nn._network import Standardize as Standardize
from mncompress.nn._network import make_body as make_body
from mncompress.nn._network import make_relu_twin as make_relu_twin
