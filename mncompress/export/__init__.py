"""Writing networks as ONNX, in standard operators and those of the domain `ai.mncompress`."""

from mncompress.export._check import ExportCheck as ExportCheck
from mncompress.export._check import check_export as check_export
from mncompress.export._check import run_reference as run_reference
from mncompress.export._graph import OLDEST_OPSET as OLDEST_OPSET
from mncompress.export._graph import check_opset_version as check_opset_version
from mncompress.export._network import has_large_batch_form as has_large_batch_form
from mncompress.export._network import make_model as make_model
from mncompress.export._network import write_onnx as write_onnx
