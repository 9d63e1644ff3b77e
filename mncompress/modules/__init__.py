"""Bring your own network: compress any torch module, and write it as ONNX."""

from mncompress.modules._compress import ModuleResult as ModuleResult
from mncompress.modules._compress import compress_module as compress_module
from mncompress.modules._export import export_module as export_module
from mncompress.modules._registry import AlongAxis as AlongAxis
from mncompress.modules._registry import register_activation as register_activation
