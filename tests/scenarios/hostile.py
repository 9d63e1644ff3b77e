"""ONNX files that want more than arithmetic of bounded size: each must be refused in one line, at once."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scenarios.data import CLASSES, FEATURES, write_data
from scenarios.result import Result
from scenarios.server import Server

SECONDS, MEMORY = 10.0, 2**31
INPUT = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", FEATURES])
OUTPUT = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
PRODUCT = [helper.make_node("MatMul", ["input", "w"], ["logits"])]
WEIGHT = numpy_helper.from_array(np.zeros((FEATURES, CLASSES), np.float32), "w")
BEYOND = 10**11
"""Elements that no machine of today holds."""


def run(server: Server, scratch: Path, count: int, seed: int) -> Iterator[Result]:
    """Give every file to every command that reads ONNX, `count` times."""
    folder = scratch / "models"
    folder.mkdir()
    (scratch / "secret.bin").write_bytes(bytes(4 * FEATURES * CLASSES))
    (folder / "weights.bin").write_bytes(bytes(4 * FEATURES * CLASSES))
    os.symlink(scratch / "secret.bin", folder / "link.bin")
    write_data(scratch / "data.npz")
    failures, cases, slowest = [], 0, 0.0
    for name, model in make_models(scratch).items():
        path = folder / f"{name.replace(' ', '-')}.onnx"
        path.write_bytes(model.SerializeToString())
        commands = (("evaluate", path, "--data", scratch / "data.npz"), ("benchmark", path, "--batch-sizes", "1", "--quiet"))
        for args in commands * count:
            outcome = server.run(args, scratch, timeout=60, memory=MEMORY, writable=[str(scratch), "/tmp"])
            cases, slowest = cases + 1, max(slowest, outcome.seconds)
            if not outcome.error or outcome.seconds > SECONDS:
                failures.append(f"{args[0]} of {name}: exit code {outcome.code} after {outcome.seconds:.1f} s, "
                                f"{outcome.stderr[-300:]}")
    yield Result("hostile", "files refused", cases, tuple(failures), f"slowest {slowest:.2f} s")
    path = folder / "fine.onnx"
    path.write_bytes(_model(PRODUCT, [_external("weights.bin")]).SerializeToString())
    outcome = server.run(("evaluate", path, "--data", scratch / "data.npz"), scratch)
    reasons = () if outcome.code == 0 else (outcome.stderr,)
    yield Result("hostile", "weights in a file beside the model, accepted", 1, reasons)


def make_models(scratch: Path) -> dict[str, onnx.ModelProto]:
    """The files by what is wrong with them."""
    places = {"a folder above": "../secret.bin", "an absolute path": str(scratch / "secret.bin"), "a link": "link.bin",
              "a device": "/dev/zero", "a detour": "x/../../secret.bin", "no place": "", "a missing file": "missing.bin",
              "a backslash": "..\\secret.bin"}
    models = {f"weights in {name}": _model(PRODUCT, [_external(place)]) for name, place in places.items()}
    attribute = helper.make_node("Constant", [], ["w"], value=_external("../secret.bin"))
    models |= {
        "weights in a folder above as attribute": _model([attribute, *PRODUCT]),
        "weights before the file": _model(PRODUCT, [_external("weights.bin", offset=-4)]),
        "weights behind the file": _model(PRODUCT, [_external("weights.bin", offset=4)]),
        "weights longer than the file": _model(PRODUCT, [_external("weights.bin", length=10**15)]),
        "weights of gigantic shape elsewhere": _model(PRODUCT, [_external("weights.bin", dims=(FEATURES, BEYOND))]),
        "weights of gigantic shape": _model(PRODUCT, [_tensor((FEATURES, BEYOND))]),
        "weights without values": _model(PRODUCT, [_tensor((FEATURES, CLASSES))]),
        "weights of negative shape": _model(PRODUCT, [_tensor((-FEATURES, CLASSES))]),
        "missing weights": _model(PRODUCT),
        "an unknown operator": _model([helper.make_node("Nonsense", ["input"], ["logits"])]),
        "a cycle": _model([helper.make_node("Add", ["input", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
                           helper.make_node("MatMul", ["b", "w"], ["logits"])], [WEIGHT]),
        "a gigantic constant": _model([helper.make_node("ConstantOfShape", ["shape"], ["w"]), *PRODUCT],
                                      [numpy_helper.from_array(np.array([FEATURES, BEYOND]), "shape")]),
        "a gigantic value": _model([helper.make_node("Expand", ["input", "shape"], ["e"]),
                                    helper.make_node("ReduceSum", ["e"], ["s"], keepdims=0),
                                    helper.make_node("Add", ["s", "input"], ["a"]),
                                    helper.make_node("MatMul", ["a", "w"], ["logits"])],
                                   [numpy_helper.from_array(np.array([BEYOND, 1, 1]), "shape"), WEIGHT]),
        "a function that calls itself": _with_functions([("A", ["A"])]),
        "functions that call one another": _with_functions([("A", ["B"]), ("B", ["A"])]),
        "functions that double forty times": _with_functions(
            [*((f"L{i}", [f"L{i - 1}"] * 2) for i in range(40, 0, -1)), ("L0", [])]),
        "an endless loop": _with_loop("input", ""),
        "an endless loop over constants": _with_loop("w", ""),
        "a loop of a billion turns": _with_loop("input", "many"),
    }
    return models


def _model(nodes: Sequence[onnx.NodeProto], initializers: Sequence[onnx.TensorProto] = (),
           functions: Sequence[onnx.FunctionProto] = ()) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid("f", 1)] if functions else [])]
    graph = helper.make_graph(nodes, "graph", [INPUT], [OUTPUT], initializers)
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)


def _tensor(dims: Sequence[int]) -> onnx.TensorProto:
    return onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)


def _external(location: str, dims: Sequence[int] = (FEATURES, CLASSES), **entries: int) -> onnx.TensorProto:
    tensor = _tensor(dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _with_functions(functions: Sequence[tuple[str, Sequence[str]]]) -> onnx.ModelProto:
    """Functions by name, each a chain of calls; the first is called."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    bodies = []
    for name, calls in functions:
        names = ["a", *(f"v{i}" for i in range(len(calls) - 1)), "b"]
        nodes = [helper.make_node(call, [x], [y], domain="f") for call, x, y in zip(calls, names, names[1:], strict=False)]
        bodies.append(helper.make_function("f", name, ["a"], ["b"], nodes or [helper.make_node("Relu", ["a"], ["b"])], opsets))
    return _model([helper.make_node(functions[0][0], ["input"], ["q"], domain="f"),
                   helper.make_node("MatMul", ["q", "w"], ["logits"])], [WEIGHT], bodies)


def _with_loop(value: str, turns: str) -> onnx.ModelProto:
    names = {"i": (TensorProto.INT64, []), "go": (TensorProto.BOOL, []), "v": (TensorProto.FLOAT, None),
             "go_on": (TensorProto.BOOL, []), "out": (TensorProto.FLOAT, None)}
    ends = [helper.make_tensor_value_info(name, *kind) for name, kind in names.items()]
    body = helper.make_graph([helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Relu", ["v"], ["out"])], "body",
                             ends[:3], ends[3:])
    after = ["q", "w"] if value == "input" else ["input", "q"]
    nodes = [helper.make_node("Loop", [turns, "true", value], ["q"], body=body), helper.make_node("MatMul", after, ["logits"])]
    return _model(nodes,
                  [WEIGHT, numpy_helper.from_array(np.array(True), "true"), numpy_helper.from_array(np.array(10**9), "many")])
