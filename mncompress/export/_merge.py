"""Two linear layers in a row become one where that takes no more multiply-adds.

It happens around learned activations in their `block_gemm` form, which begins and ends with a linear layer: in a small
network of `vaf` activations it saves up to two Gemms per layer.
"""

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

from mncompress.export._graph import Array


def merge_linears(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in which a Gemm that only another Gemm reads is merged into that, where it is no dearer.

    Only Gemms from and to (batch, n) values are considered. Each product is computed in float64 and rounded to float32.
    """
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    graph = merged.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    linears: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        if not _is_linear(node, arrays):
            continue
        first = linears.get(node.input[0])
        if first is not None and readers[first.output[0]] == 1:
            _merge_(node, first, arrays)
        linears[node.output[0]] = node
    used = {name for node in graph.node for name in node.input} | {graph.output[0].name}
    nodes = [node for node in graph.node if used.intersection(node.output)]
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    return merged


def _is_linear(node: onnx.NodeProto, arrays: dict[str, Array]) -> bool:
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    plain = node.op_type == "Gemm" and flags.get("transA", 0) == 0 and flags.get("transB") == 1
    return plain and all(name in arrays for name in node.input[1:])


def _merge_(node: onnx.NodeProto, first: onnx.NodeProto, arrays: dict[str, Array]) -> None:
    """Let `node` read what `first` reads, under weights of its own, unless that takes more multiply-adds."""
    outer, inner = (arrays[gemm.input[1]].astype(np.float64) for gemm in (node, first))
    if outer.shape[0] * inner.shape[1] > outer.size + inner.size:
        return
    bias = outer @ arrays[first.input[2]] + arrays[node.input[2]]
    arrays[node.input[1]] = (outer @ inner).astype(np.float32)
    arrays[node.input[2]] = bias.astype(np.float32)
    node.input[0] = first.input[0]
