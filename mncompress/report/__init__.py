"""Pictures, tables and one self-contained HTML page of what was replaced, by what, why, and what it cost."""

from mncompress.report._curves import Curves as Curves
from mncompress.report._curves import load_curves as load_curves
from mncompress.report._curves import make_grid as make_grid
from mncompress.report._curves import save_curves as save_curves
from mncompress.report._format import at_most as at_most
from mncompress.report._format import share_at_least as share_at_least
from mncompress.report._html import render_html as render_html
from mncompress.report._html import write_html as write_html
from mncompress.report._inspect import Inspection as Inspection
from mncompress.report._inspect import check_inspection as check_inspection
from mncompress.report._inspect import inspect_curves as inspect_curves
from mncompress.report._load import load_report as load_report
from mncompress.report._make import NO_KERNELS as NO_KERNELS
from mncompress.report._make import Export as Export
from mncompress.report._make import make_report as make_report
from mncompress.report._plots import draw_activations as draw_activations
from mncompress.report._sample import make_curves as make_curves
from mncompress.report._terminal import arrange_sketches as arrange_sketches
from mncompress.report._training import make_training_curves as make_training_curves
