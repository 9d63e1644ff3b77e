"""What an ONNX file from elsewhere may make us do: nothing but arithmetic of bounded size.

A file is refused before ONNX Runtime sees it if it

- names weights outside its own folder, or beyond the end of the file that holds them;
- declares tensors of more elements than the file holds, or values of more than `LARGEST_ELEMENTS` for one sample;
- has functions that call one another in a circle, or that unfold to more than `MOST_NODES` nodes;
- has a loop without a fixed number of turns, or of more than `MOST_TURNS`, nested ones multiplied.

Everything else that can be wrong with a model is ONNX Runtime's to find. Newer ones check the first two themselves.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
from onnx import numpy_helper

from mncompress.types import PathLike

LARGEST_ELEMENTS = 2**31
MOST_NODES = 1_000_000
MOST_TURNS = 1_000_000
DEEPEST = 100
"""Graphs inside one another."""

Functions = Mapping[tuple[str, str, str], onnx.FunctionProto]


def check_onnx(source: PathLike | bytes) -> str | None:
    """The reason why a file, or a serialized model, must not be run, or None.

    Raises:
        OSError: the file cannot be read.
    """
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    folder = None if isinstance(source, bytes) else Path(source).absolute().parent
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's own, of a class that depends on its implementation
        return f"it is not ONNX, parsing failed: {error}"
    if not model.HasField("graph"):
        return "it is not ONNX, it has no graph"
    functions = {(function.domain, function.name, function.overload): function for function in model.functions}
    try:
        return (_check_functions(functions, model.graph) or _check_loops(model.graph, functions)
                or next(filter(None, (_check_tensor(tensor, folder) for tensor in _tensors(model))), None) or _check_values(model))
    except RecursionError:
        return f"its graphs lie more than {DEEPEST} deep in one another"


def _subgraphs(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _all_nodes(nodes: Sequence[onnx.NodeProto], depth: int = 0) -> Iterator[onnx.NodeProto]:
    """Nodes with those of the graphs inside."""
    if depth > DEEPEST:
        raise RecursionError
    yield from nodes
    for graph in _subgraphs(nodes):
        yield from _all_nodes(graph.node, depth + 1)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in _all_nodes(graph.node):
        yield from _subgraphs([node])


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor."""
    for graph in _graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for node in (node for body in bodies for node in _all_nodes(body)):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (*attribute.sparse_tensors, *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])):
                yield from (sparse.values, sparse.indices)


def _check_tensor(tensor: onnx.TensorProto, folder: Path | None) -> str | None:
    name = f"the tensor {tensor.name!r}"
    if any(length < 0 for length in tensor.dims):
        return f"{name} has a negative length, {list(tensor.dims)}"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _check_external(tensor, name, folder)
    held = max(8 * len(tensor.raw_data), len(tensor.float_data), 2 * len(tensor.double_data), 8 * len(tensor.int32_data),
               len(tensor.int64_data), len(tensor.uint64_data), len(tensor.string_data))     # types of less than a byte are packed
    if math.prod(tensor.dims) > held:
        return f"{name} is declared as {list(tensor.dims)}, more than the file holds"
    return None


def _check_external(tensor: onnx.TensorProto, name: str, folder: Path | None) -> str | None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        return f"{name} lies in another file"
    path = folder / location
    if not location or os.path.isabs(location) or ".." in Path(location.replace("\\", "/")).parts:
        return f"{name} lies in {location!r}, outside the model's folder"
    if not path.is_file():
        return f"{name} lies in {location!r}, which is missing"
    if folder.resolve() not in path.resolve().parents:
        return f"{name} lies in {location!r}, a link out of the model's folder"
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
    except ValueError:
        return f"{name} lies at a place in {location!r} that is no number"
    if offset < 0 or length < 0 or offset + max(length, math.prod(tensor.dims) // 2) > path.stat().st_size:
        return f"{name} reaches beyond the end of {location!r}"
    return None


def _check_functions(functions: Functions, graph: onnx.GraphProto) -> str | None:
    """Whether the functions unfold to a graph of reasonable size."""
    sizes: dict[tuple[str, str, str], int] = {}
    pending: set[tuple[str, str, str]] = set()

    def size(nodes: Sequence[onnx.NodeProto]) -> int:
        total = 0
        for node in _all_nodes(nodes):
            key = (node.domain, node.op_type, node.overload)
            total += 1
            if key not in functions:
                continue
            if key in pending or len(pending) > DEEPEST:
                raise _CircleError(node.op_type)
            if key not in sizes:
                pending.add(key)
                sizes[key] = size(functions[key].node)
                pending.discard(key)
            total += sizes[key]
        return total

    try:
        unfolded = size(graph.node)
    except _CircleError as error:
        return f"its function {str(error)!r} calls itself, or functions call one another more than {DEEPEST} deep"
    return f"its functions unfold to {unfolded:.2g} nodes" if unfolded > MOST_NODES else None


class _CircleError(Exception):
    """A function that contains itself."""


def _check_loops(graph: onnx.GraphProto, functions: Functions) -> str | None:
    bodies = [(graph.node, graph), *((function.node, None) for function in functions.values())]
    return next(filter(None, (_check_turns(nodes, inside, 1) for nodes, inside in bodies)), None)


def _check_turns(nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto | None, turns: int) -> str | None:
    """Whether loops among the nodes, which run `turns` times themselves, come to an end."""
    known = {tensor.name: tensor for tensor in (graph.initializer if graph else ())}
    known |= {node.output[0]: attribute.t for node in nodes if node.op_type == "Constant" and node.output
              for attribute in node.attribute if attribute.name == "value"}
    for node in nodes:
        inner = turns
        if node.op_type == "Loop" and node.domain in ("", "ai.onnx"):
            limit = known.get(node.input[0]) if node.input else None
            if limit is None or limit.data_location == onnx.TensorProto.EXTERNAL:
                return f"its loop {node.name!r} has no fixed number of turns"
            try:
                inner = turns * max(int(numpy_helper.to_array(limit).item()), 1)
            except (ValueError, TypeError) as error:
                return f"its loop {node.name!r} has no number of turns ({error})"
            if inner > MOST_TURNS:
                return f"its loop {node.name!r} runs for more than {MOST_TURNS} turns"
        for inside in _subgraphs([node]):
            if reason := _check_turns(inside.node, inside, inner):
                return reason
    return None


def _check_values(model: onnx.ModelProto) -> str | None:
    """Whether a value between the nodes is gigantic, as far as shapes can be told beforehand."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # what is wrong here, ONNX Runtime says better
        return None
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        lengths = [dim.dim_value if dim.HasField("dim_value") else 1 for dim in value.type.tensor_type.shape.dim]
        if math.prod(lengths) > LARGEST_ELEMENTS:
            return f"its value {value.name!r} has {math.prod(lengths):.2g} elements, {lengths}"
    return None
