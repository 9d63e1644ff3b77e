"""A torch module as an ONNX file: traced by torch.fx, emitted node by node, checked under ONNX Runtime before it appears.

The file has one input `input` (batch, ...) and one output, `logits` or `output`, and the operators of `ai.mncompress` with their
function bodies. It is compared with the module in float64, on the example and on single samples of it; `export.allowed_error`
says how far they may be apart.
"""

import copy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, fx, nn

from mncompress import runtime
from mncompress.errors import DataError, ExportError
from mncompress.export import GraphBuilder, allowed_error, check_model, inline_functions, make_functions
from mncompress.files import atomic_path
from mncompress.modules._compress import ModuleResult, Rows
from mncompress.modules._emit import Emission, emit_node, no_form, put_tensors_first_
from mncompress.modules._emit_forms import FORMS
from mncompress.modules._observe import copy_module, run_module, to_cpu
from mncompress.modules._topology import trace
from mncompress.types import PathLike


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what every node gave."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]


def export_module(source: ModuleResult | nn.Module, example: Rows, path: PathLike, *, opset_version: int = 18,
                  inline: bool = False) -> Path:
    """Write a module as an ONNX file.

    Args:
        source: a module, or the result of compressing one.
        example: inputs that the file is checked on, (rows, ...), floats; the number of rows stays open in the file.
        path: of the file.
        opset_version: 18 or newer.
        inline: standard operators only, without the operators of `ai.mncompress`.

    Raises:
        ConfigError: the module cannot be copied, or its outputs depend on the batch.
        DataError: the example is no batch of finite floats, or the module fails on it.
        ExportError: the module has hooks, cannot be traced, has a part without an ONNX form here, or the file computes something
            else.
        OutputError: the file cannot be written.
    """
    module, output = (source.network, "logits" if source.task == "classification" else "output") if isinstance(
        source, ModuleResult) else (source, "output")
    network = copy_module(module)
    x = to_cpu("the example", example)
    if not x.is_floating_point() or x.dim() < 2 or len(x) == 0:
        raise DataError(f"the example has the shape {tuple(x.shape)} and type {x.dtype}; give at least one row of floats: networks "
                        "of other inputs cannot be written here")
    if not x.isfinite().all():
        raise DataError("the example has values that are not finite, so that nothing can be checked on it; leave such rows out")
    for name, each in network.named_modules():
        if any(not type(hook).__module__.startswith("torch.nn.utils")     # those compute weights, and are traced
               for hook in (*each._forward_hooks.values(), *each._forward_pre_hooks.values())):
            raise ExportError(f"{name or 'the module'} has a forward hook, which is not written; put what it does into a module")
    x = x.float()
    model = make_module_model(network, x, opset_version=opset_version, output=output)
    model = inline_functions(model) if inline else model
    check_model(model, Path(path).name)
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(model.SerializeToString())
        _check(temporary, Path(path).name, network, x)
    return Path(path)


def make_module_model(network: nn.Module, x: Tensor, *, opset_version: int, output: str) -> onnx.ModelProto:
    """The ONNX model of a network in eval mode for inputs like x."""
    outputs = run_module(network, x)
    graph, problems = trace(network, {id(module) for module in network.modules() if isinstance(module, FORMS)})
    if graph is None or problems:
        name, reason = next(iter(problems.items()))
        raise ExportError(f"{name} cannot be written as ONNX: {reason.partition('since ')[2]}; write its forward without branches "
                          "on values, or export it with torch.onnx")
    put_tensors_first_(graph, network)
    recorder = _Recorder(fx.GraphModule(network, graph))
    with torch.no_grad():
        recorder.run(x)
    builder = GraphBuilder(opset_version)
    emission = Emission(builder, recorder.values, network)
    result = ""
    for node in recorder.module.graph.nodes:  # type: ignore[union-attr]
        if node.op == "output":
            result = emission.names[node.args[0]]
        elif node.op == "placeholder" and isinstance(recorder.values[node], Tensor):
            emission.names[node] = "input"
        elif isinstance(recorder.values[node], Tensor):
            emission.names[node] = emit_node(emission, node)
        elif isinstance(recorder.values[node], tuple | list) and any(isinstance(each, Tensor) for each in recorder.values[node]):
            raise no_form(node, network.get_submodule(str(node.target)) if node.op == "call_module" else None)
    model = builder.build(builder.node("Identity", [result]) if result == "input" else result, in_features=1, out_features=1,
                          output_name=output, functions=make_functions(opset_version, builder.functions, builder.fused),
                          metadata={"producer": "mncompress", "version": version("mncompress")})
    ends = (model.graph.input[0], ["batch", *x.shape[1:]]), (model.graph.output[0], ["batch", outputs.shape[1]])
    for end, shape in ends:
        end.CopyFrom(helper.make_tensor_value_info(end.name, TensorProto.FLOAT, shape))
    return model


def _check(path: Path, name: str, network: nn.Module, x: Tensor) -> None:
    """Compare a file with the network in float64, on several sizes of batch."""
    exact, sessions = copy.deepcopy(network).double(), [runtime.make_session(path, optimize=optimize) for optimize in (True, False)]
    for rows in (x if len(x) > 1 else torch.cat([x, x]), x[:1]):
        expected, rounded = run_module(exact, rows.double()), run_module(network, rows)
        tolerance = allowed_error(expected, float(np.abs(rounded - expected).max()))
        for session in sessions:
            found = session.run(None, {"input": rows.numpy()})[0]
            error = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
            if not error <= tolerance:
                raise ExportError(f"{name} does not compute what the network computes: for {len(rows)} rows the outputs differ by "
                                  f"{error:.3g}, {tolerance:.3g} is allowed; a shape or value may depend on the example, or "
                                  "a value be changed in place")
