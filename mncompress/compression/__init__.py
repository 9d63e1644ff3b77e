"""From decisions to a compressed network within a budget."""

from mncompress.compression._budget import Verdict as Verdict
from mncompress.compression._budget import check_budget as check_budget
from mncompress.compression._budget import check_is_budget as check_is_budget
from mncompress.compression._budget import complete_budget as complete_budget
from mncompress.compression._budget import go_while_ok as go_while_ok
from mncompress.compression._build import Assignment as Assignment
from mncompress.compression._build import Study as Study
from mncompress.compression._build import build as build
from mncompress.compression._build import make_groups as make_groups
from mncompress.compression._certificate import Certificate as Certificate
from mncompress.compression._certificate import certify as certify
from mncompress.compression._compressed import Compressed as Compressed
from mncompress.compression._plan import describe_fit as describe_fit
from mncompress.compression._plan import make_settings as make_settings
from mncompress.compression._planner import assign as assign
from mncompress.compression._planner import compress_network as compress_network
from mncompress.compression._rewrite import Group as Group
from mncompress.compression._rewrite import LinearMap as LinearMap
from mncompress.compression._rewrite import make_linear_maps as make_linear_maps
from mncompress.compression._rewrite import rewrite as rewrite
from mncompress.compression._tolerances import make_tolerances as make_tolerances
from mncompress.compression._tolerances import reach_all as reach_all
from mncompress.compression._tolerances import spread_tolerance as spread_tolerance
