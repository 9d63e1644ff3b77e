"""Accuracy and latency of any ONNX files.

**How a time is measured.** Under one condition (provider, threads, batch) the sessions of all models live side by side
and see the same inputs. Each is warmed up until its runs get no faster; then come rounds, and in every round each model
gives one sample, in an order drawn anew. A sample is one untimed run, which brings the caches back to this model, and
then so many timed runs that together they last at least `SAMPLE_US`; its value is their mean. Drift of the machine thus
meets all models alike, and the ratio of two models is taken within a round, where it cancels. Percentiles are over
samples.

**How sure a ratio is.** Where a session's buffers and weights happen to lie stays the same for all of its rounds, and
alone makes two sessions of one file differ by about a per cent, sometimes by several. So all models are opened anew
`SESSIONS` times, in an order drawn anew, and the interval is that of the sessions' medians, not of the rounds: see
`_statistics`. Where it spans 1, no model is called faster.

Input and output are bound to buffers made beforehand, on the device for CUDA, so copies are not measured and the cost
of the Python call is small and the same for every model; `io_binding=False` measures with them. A run on CUDA returns
when the device is done.

With more than one thread, the workers of a session spin for up to a tenth of a second after its run and take the cores
from the next model's. So there each sample begins with a pause of `SPIN_SECONDS`, and lasts longer (`POOL_SAMPLE_US`);
switching the spinning off instead would measure something that users do not run.
"""

from mncompress.benchmark._inputs import load_inputs as load_inputs
from mncompress.benchmark._measure import Measurement as Measurement
from mncompress.benchmark._measure import measure as measure
from mncompress.benchmark._measure import ratio as ratio
from mncompress.benchmark._measure import summarize as summarize
from mncompress.benchmark._plot import save_plot as save_plot
from mncompress.benchmark._rows import BreakEven as BreakEven
from mncompress.benchmark._rows import Row as Row
from mncompress.benchmark._run import Benchmark as Benchmark
from mncompress.benchmark._run import ModelFile as ModelFile
from mncompress.benchmark._run import benchmark as benchmark
from mncompress.benchmark._run import to_document as to_document
from mncompress.benchmark._sampling import Clock as Clock
from mncompress.benchmark._sampling import Rounds as Rounds
from mncompress.benchmark._sampling import sample_rounds as sample_rounds
from mncompress.benchmark._score import Evaluation as Evaluation
from mncompress.benchmark._score import evaluate as evaluate
from mncompress.benchmark._score import score as score
from mncompress.benchmark._sessions import Agreement as Agreement
from mncompress.benchmark._sessions import bind as bind
from mncompress.benchmark._settings import Settings as Settings
from mncompress.benchmark._startup import Startup as Startup
from mncompress.benchmark._statistics import Ratio as Ratio
