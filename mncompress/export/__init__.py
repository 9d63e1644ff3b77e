"""Writing networks as ONNX, in standard operators and those of the domain `ai.mncompress`."""

from mncompress.export._activations import CubicSplineParameters as CubicSplineParameters
from mncompress.export._activations import Linear as Linear
from mncompress.export._activations import PiecewiseLinearParameters as PiecewiseLinearParameters
from mncompress.export._activations import emit_act as emit_act
from mncompress.export._activations import emit_op as emit_op
from mncompress.export._activations import to_layout as to_layout
from mncompress.export._check import ExportCheck as ExportCheck
from mncompress.export._check import allowed_error as allowed_error
from mncompress.export._check import check_export as check_export
from mncompress.export._check import check_model as check_model
from mncompress.export._check import run_reference as run_reference
from mncompress.export._functions import make_functions as make_functions
from mncompress.export._graph import GraphBuilder as GraphBuilder
from mncompress.export._graph import Value as Value
from mncompress.export._graph import check_opset as check_opset
from mncompress.export._inline import inline_functions as inline_functions
from mncompress.export._network import emit_activation as emit_activation
from mncompress.export._network import has_large_batch_form as has_large_batch_form
from mncompress.export._network import make_model as make_model
from mncompress.export._network import write_onnx as write_onnx
