"""`portable.onnx`: the same model in standard operators only.

The functions are inlined by onnx's own inliner. Then everything that depends on constants alone is computed once and
stored as an initializer, and what then does nothing is left out: a subtraction of zeros and a multiplication by ones
(a spline whose `start` and `inverse_step` are folded into the layer before), and the reshaping that the bodies need
for other ranks than two. Every remaining node computes what it computed before, so the outputs keep their bits.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import inliner, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[np.generic]


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` without model-local functions, constants folded.

    Args:
        model: as `GraphBuilder.build` gives it: all values that enter a function have two dimensions.
    """
    inlined = inliner.inline_local_functions(model)
    graph = inlined.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = _without_no_ops(_fold(graph.node, constants, inlined.opset_import), constants, graph.output[0].name)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    kept_names = {tensor.name for tensor in kept}
    kept += [numpy_helper.from_array(constants[name], name) for name in constants if name in used - kept_names]
    del graph.node[:], graph.initializer[:], graph.value_info[:], inlined.opset_import[1:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return inlined


def _fold(
    nodes: Iterable[onnx.NodeProto], constants: dict[str, Array], opsets: Iterable[onnx.OperatorSetIdProto]
) -> list[onnx.NodeProto]:
    """The nodes that depend on the model's input; the outputs of the others are added to `constants`."""
    versions = {opset.domain: opset.version for opset in opsets}
    remaining = []
    for node in nodes:
        if all(name in constants for name in node.input if name):
            feeds = {name: constants[name] for name in node.input if name}
            outputs = ReferenceEvaluator(node, opsets=versions).run(None, feeds)
            constants.update({name: np.asarray(value) for name, value in zip(node.output, outputs, strict=True)})
        else:
            remaining.append(node)
    return remaining


def _without_no_ops(nodes: list[onnx.NodeProto], constants: dict[str, Array], output: str) -> list[onnx.NodeProto]:
    """The nodes that do something and are used, with the others bypassed."""
    source: dict[str, str] = {}
    working = []
    for node in nodes:
        node.input[:] = [source.get(name, name) for name in node.input]
        if node.output[0] != output and _is_no_op(node, constants):
            source[node.output[0]] = node.input[0]
        else:
            working.append(node)
    used = {output}
    kept = []
    for node in reversed(working):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    return kept[::-1]


def _is_no_op(node: onnx.NodeProto, constants: dict[str, Array]) -> bool:
    """Whether the node's output equals its first input, where that has two dimensions."""
    if node.op_type in ("Sub", "Mul") and node.input[1] in constants:
        return bool(np.all(constants[node.input[1]] == (node.op_type == "Mul")))
    if node.op_type == "Reshape":  # see mncompress.export._functions: only the bodies reshape so
        return any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)
    return False
