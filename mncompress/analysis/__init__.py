"""From learned activations to decisions: what each could become, with which error, and what is cheapest."""

from mncompress.analysis._bounds import bound_error as bound_error
from mncompress.analysis._bounds import bound_lipschitz as bound_lipschitz
from mncompress.analysis._choose import Choice as Choice
from mncompress.analysis._choose import choose as choose
from mncompress.analysis._choose import keep_all as keep_all
from mncompress.analysis._convert import make_inner_networks as make_inner_networks
from mncompress.analysis._inner import InnerNetworks as InnerNetworks
from mncompress.analysis._jets import magnitude as magnitude
from mncompress.analysis._options import DEGREES as DEGREES
from mncompress.analysis._options import LayerOptions as LayerOptions
from mncompress.analysis._options import Replacement as Replacement
from mncompress.analysis._options import find_options as find_options
from mncompress.analysis._options import kind_of as kind_of
from mncompress.analysis._rounding import FLOAT32 as FLOAT32
from mncompress.analysis._rounding import FLOAT64 as FLOAT64
from mncompress.analysis._rounding import AnyForm as AnyForm
from mncompress.analysis._rounding import bound_arithmetic as bound_arithmetic
from mncompress.analysis._rounding import find_jumps as find_jumps
from mncompress.analysis._tables import RangeTable as RangeTable
from mncompress.analysis._tables import bound_range as bound_range
from mncompress.analysis._tables import count_cells as count_cells
from mncompress.analysis._tables import tabulate_errors as tabulate_errors
from mncompress.analysis._tables import tabulate_slopes as tabulate_slopes
