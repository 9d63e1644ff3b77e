"""Building an ONNX model from NumPy arrays, one node at a time.

A `GraphBuilder` collects nodes, initializers and the model-local functions in use, and gives every value a name that
depends on the order of the calls alone: the same network always gives the same file. The model it builds has

- one input `input` (batch, features) and one output (batch, classes or targets), float32, with a dynamic batch;
- IR version 8, the oldest that knows model-local functions, so that old readers take the file;
- the domain `ai.mncompress`, version 1, and its functions only where a node uses them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from mncompress.errors import ExportError, RuntimeProviderError
from mncompress.runtime import make_session

DOMAIN = "ai.mncompress"
DOMAIN_VERSION = 1
IR_VERSION = 8
OLDEST_OPSET = 18
"""The first with `Split(num_outputs)`, `Shape(start, end)` and reductions that take their axes as an input."""
OPSETS = range(OLDEST_OPSET, onnx.defs.onnx_opset_version() + 1)
"""Those that can be written: the installed onnx knows them."""
INPUT = "input"

Layout = Literal["batch_first", "feature_first"]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Value:
    """A two-dimensional float32 value of the graph.

    `batch_first` is (batch, n). `feature_first` is (n, batch): parameters of shape (n, 1) then broadcast along
    contiguous memory, and a Gemm reads or writes it at no extra cost.
    """

    name: str
    layout: Layout = "batch_first"


def check_opset(opset_version: int) -> str | None:
    """The reason why files of an opset cannot be written or not be run and measured here, with what to do, or None."""
    def runs(opset: int) -> bool:
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [x], [y])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
        try:
            make_session(model.SerializeToString(), kernels=False)
        except RuntimeProviderError:
            return False
        return True

    if opset_version in OPSETS and runs(opset_version):
        return None
    newest = next(filter(runs, reversed(OPSETS)), OLDEST_OPSET)
    return f"opset {opset_version} cannot be written and run here; choose one of {OLDEST_OPSET} to {newest}"


class GraphBuilder:
    """Collects the parts of one model.

    Args:
        opset_version: the version of the standard operators, 18 or newer.
        large_batch: prefer forms that are fastest for large batches, however slow they are for single samples.

    Raises:
        ExportError: the opset cannot be written.
    """

    def __init__(self, opset_version: int = OLDEST_OPSET, *, large_batch: bool = False) -> None:
        if opset_version not in OPSETS:
            raise ExportError(f"opset {opset_version} cannot be written; choose one of {OLDEST_OPSET} to {OPSETS[-1]}")
        self.opset_version = opset_version
        self.large_batch = large_batch
        self.functions: dict[str, int] = {}
        """The `ai.mncompress` ops in use, each with the largest number of neurons of its nodes."""
        self.fused: set[str] = set()
        """Those of them in use with a Gemm in front."""
        self.chain: tuple[str | None, ...] = ()
        """The op behind each layer of a `FeedForward` node; a file has at most one."""
        self.residual: tuple[int, ...] = ()
        """That node's attribute: the layers that add what they read."""
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._names: set[str] = {INPUT}

    def initializer(self, name: str, array: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add a weight of any shape; returns its name, which is `name` with a number where that is taken."""
        name = self._unique(name)
        self._initializers[name] = numpy_helper.from_array(np.array(array, dtype, order="C"), name)
        return name

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add a small constant (a scalar, axes, a shape); equal constants share one initializer."""
        array = np.asarray(value, dtype)
        key = (array.dtype.name, array.tobytes(), array.shape)
        if key not in self._constants:
            self._constants[key] = self.initializer("constant", array, array.dtype)
        return self._constants[key]

    def node(self, op_type: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        """Add a node of a standard operator with one output; returns the output's name, which is also the node's."""
        return self._add(op_type, inputs, name or op_type.lower(), "", attributes)

    def split(self, value: str, sizes: Sequence[int], name: str) -> list[str]:
        """Split a (batch, n) value into consecutive groups of columns; returns their names."""
        outputs = [self._unique(f"{name}/{position}") for position in range(len(sizes))]
        inputs = [value, self.constant(list(sizes), np.int64)]
        self._nodes.append(helper.make_node("Split", inputs, outputs, name=self._unique(name), axis=1))
        return outputs

    def function(self, op_type: str, inputs: Sequence[str], neurons: int, name: str = "", *, fused: bool = False) -> str:
        """Add a node of the domain `ai.mncompress` that works on `neurons` neurons; returns its output's name.

        With `fused` the node is `Gemm` + `op_type`, and its inputs are those of both.
        """
        self.functions[op_type] = max(neurons, self.functions.get(op_type, 0))
        if fused:
            self.fused.add(op_type)
        return self._add(f"Gemm{op_type}" if fused else op_type, inputs, name or op_type.lower(), DOMAIN, {})

    def feed_forward(self, value: str, layers: Sequence[tuple[str | None, Sequence[str], int]], residual: Sequence[int], name: str
                     ) -> str:
        """Add a `FeedForward` node; returns its output's name.

        Args:
            value: its input.
            layers: for each the op behind it, the names of all its parameters, and its neurons.
            residual: the positions of those that add what they read to what they make.
            name: of the node.
        """
        assert not self.chain, "a file has one FeedForward node"
        self.chain, self.residual = tuple(op_type for op_type, _, _ in layers), tuple(residual)
        for op_type, _, neurons in layers:
            if op_type:
                self.functions[op_type] = max(neurons, self.functions.get(op_type, 0))
                self.fused.add(op_type)
        inputs = [value, *(each for _, names, _ in layers for each in names)]
        return self._add("FeedForward", inputs, name, DOMAIN, {"residual": list(residual)} if residual else {})

    def build(
        self,
        output: str,
        *,
        in_features: int,
        out_features: int,
        output_name: str = "output",
        functions: Sequence[onnx.FunctionProto] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> onnx.ModelProto:
        """The finished model.

        Args:
            output: the value that leaves the graph; it must come from a node, and is renamed to `output_name`.
            in_features: width of `input`.
            out_features: width of the output.
            output_name: `logits` or `output`.
            functions: bodies of the ops in `self.functions`, as `make_functions` gives them.
            metadata: written to `metadata_props`.
        """
        assert output_name not in self._names, f"{output_name!r} is already a value of the graph"
        graph = helper.make_graph(
            self._renamed(output, output_name),
            "mncompress",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", in_features])],
            [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["batch", out_features])],
            list(self._initializers.values()),
        )
        opsets = [helper.make_opsetid("", self.opset_version)]
        if self.functions:
            opsets.append(helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
        model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=IR_VERSION)
        helper.set_model_props(model, dict(metadata or {}))
        return model

    def _add(self, op_type: str, inputs: Sequence[str], name: str, domain: str, attributes: Mapping[str, Any]) -> str:
        name = self._unique(name)
        self._nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def _unique(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self._names:
            candidate, count = f"{name}_{count}", count + 1
        self._names.add(candidate)
        return candidate

    def _renamed(self, old: str, new: str) -> list[onnx.NodeProto]:
        """Copies of the nodes in which the value `old` is called `new`."""
        assert any(old in node.output for node in self._nodes), f"{old!r} is not the output of a node"
        nodes = []
        for node in self._nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [new if name == old else name for name in node.input]
            copy.output[:] = [new if name == old else name for name in node.output]
            nodes.append(copy)
        return nodes
