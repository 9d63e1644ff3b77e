"""The values that cross module borders: frozen, free of tensors, written to JSON and read back.

Conventions used everywhere: arrays of pre-activations have neurons on the last axis; `u` is a pre-activation; layers are
counted from 0 over the *activated* layers of a network; accuracies are fractions; `accuracy_drop` is in percentage points.
"""

from mncompress.types._compression import KINDS as KINDS
from mncompress.types._compression import Budget as Budget
from mncompress.types._compression import Decision as Decision
from mncompress.types._compression import Kind as Kind
from mncompress.types._compression import LayerPlan as LayerPlan
from mncompress.types._compression import Plan as Plan
from mncompress.types._compression import Preset as Preset
from mncompress.types._compression import Target as Target
from mncompress.types._compression import Trial as Trial
from mncompress.types._json import STRICT as STRICT
from mncompress.types._json import PathLike as PathLike
from mncompress.types._json import from_json as from_json
from mncompress.types._json import null_not_finite as null_not_finite
from mncompress.types._json import to_json as to_json
from mncompress.types._network import ACTS as ACTS
from mncompress.types._network import ENDS as ENDS
from mncompress.types._network import FAMILIES as FAMILIES
from mncompress.types._network import LEAK as LEAK
from mncompress.types._network import RELU_LIKE as RELU_LIKE
from mncompress.types._network import Act as Act
from mncompress.types._network import ActivationSpec as ActivationSpec
from mncompress.types._network import Ends as Ends
from mncompress.types._network import Family as Family
from mncompress.types._network import NetworkSpec as NetworkSpec
from mncompress.types._network import Task as Task
from mncompress.types._network import parse_activation as parse_activation
from mncompress.types._report import LatencyRow as LatencyRow
from mncompress.types._report import ModelSummary as ModelSummary
from mncompress.types._report import NeuronRow as NeuronRow
from mncompress.types._report import Report as Report
from mncompress.types._report import Speedup as Speedup
from mncompress.types._training import Device as Device
from mncompress.types._training import EpochMetrics as EpochMetrics
from mncompress.types._training import Init as Init
from mncompress.types._training import Order as Order
from mncompress.types._training import Schedule as Schedule
from mncompress.types._training import Select as Select
from mncompress.types._training import TrainConfig as TrainConfig
