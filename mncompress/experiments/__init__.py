"""The paper's experiments with replicates, intervals and verdicts."""

from mncompress.experiments._cells import CellResult as CellResult
from mncompress.experiments._cells import load_cell as load_cell
from mncompress.experiments._cells import run_cell as run_cell
from mncompress.experiments._cells import save_cell as save_cell
from mncompress.experiments._claims import Verdict as Verdict
from mncompress.experiments._figures import EXPERIMENTS as EXPERIMENTS
from mncompress.experiments._figures import Experiment as Experiment
from mncompress.experiments._reproduce import Plan as Plan
from mncompress.experiments._reproduce import Reproduction as Reproduction
from mncompress.experiments._reproduce import reproduce as reproduce
