"""Mutations of inputs: of any bytes, of JSON and TOML values, of safetensors, npz and ONNX files as what they are.

Each takes the random generator and the bytes of a good file, and returns those of a bad one.
"""

import copy
import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

PATHS = ("../../outside", "/outside/file", "..", "a/../../b", "\x00", "x" * 5000, "C:\\outside", "~/outside", "a\nb", "\ud800")
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e-320, 1e308, -1e308, float("nan"),
    float("inf"), "", "0", "none", "nan", "1e999", [], {}, [[]], [0] * 500, [None], {"": {}}, "digits", "meta", "fixed:relu",
    "function:bessel", *PATHS)


class Bomb:
    """An object whose unpickling writes a file."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, ("touch executed",)


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flip, cut, repeat, insert or blank."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if not data:
            break
        start = rng.randrange(len(data))
        stop = min(start + rng.choice((1, 4, 64, 1000)), len(data))
        kind = rng.randrange(6)
        if kind == 0:
            for _ in range(rng.choice((1, 2, 10, 50))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[start:]
        elif kind == 2:
            del data[start:stop]
        elif kind == 3:
            data[start:start] = data[start:stop]
        elif kind == 4:
            data[start:start] = rng.randbytes(rng.choice((1, 8, 100)))
        else:
            data[start:stop] = bytes([rng.choice((0, 255))]) * (stop - start)
    return bytes(data)


def weird_value(rng: random.Random) -> Any:
    """Something that is rarely expected."""
    if rng.random() < 0.05:
        value: Any = 0
        for _ in range(rng.choice((50, 500))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    return copy.deepcopy(rng.choice(VALUES))


def mutate_document(rng: random.Random, document: Any) -> Any:
    """A copy of nested lists and dictionaries with a few places changed, removed, added or renamed."""
    try:
        return _change_places(rng, copy.deepcopy(document))
    except RecursionError:      # a deep value was copied into itself until it was too deep to copy
        return weird_value(rng)


def _change_places(rng: random.Random, document: Any) -> Any:
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places: list[tuple[Any, Any]] = []
        _collect(document, places)
        if not places:
            return weird_value(rng)
        parent, key = rng.choice(places)
        kind = rng.randrange(10)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(("extra", "", "schema", "__class__", "x" * 300))] = weird_value(rng)
        elif kind == 2 and isinstance(parent, list):
            parent.extend(copy.deepcopy(parent) * rng.choice((1, 3)))
        elif kind == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] = parent[key] * rng.choice((-1, 2, 10, 1e6, 1e30, 0.5)) + rng.choice((0, 1, -1))
        elif kind == 4:
            parent[key] = copy.deepcopy(rng.choice(places)[0])
        else:
            parent[key] = weird_value(rng)
    return document


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        places.append((value, key))
        if len(places) < 3000:
            _collect(value[key], places)


def _dump(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


def mutate_json(rng: random.Random, content: bytes) -> bytes:
    """As a document, sometimes as bytes, rarely as deeply nested as no parser likes."""
    draw = rng.random()
    if draw < 0.15:
        return mutate_bytes(rng, content)
    if draw < 0.17:
        return b"[" * 100_000
    return _dump(mutate_document(rng, json.loads(content)))


def mutate_csv(rng: random.Random, content: bytes) -> bytes:
    """Cells exchanged for something else."""
    if rng.random() < 0.4:
        return mutate_bytes(rng, content)
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(rng.choice((1, 3))):
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = str(rng.choice(("", "nan", "inf", "-1", "1e999", "x", "9" * 5000, "0", "1.5")))
    return "\n".join(map(",".join, rows)).encode()


def mutate_safetensors(rng: random.Random, content: bytes) -> bytes:
    """The header's lies about types, shapes, offsets and metadata; values that are no numbers; or bytes."""
    draw = rng.random()
    if draw < 0.25:
        return mutate_bytes(rng, content)
    (size,) = struct.unpack_from("<Q", content)
    header, body = json.loads(content[8:8 + size]), bytearray(content[8 + size:])
    if draw < 0.5:
        for _ in range(rng.choice((1, 3, 10))):
            position = rng.randrange(0, max(len(body) - 4, 1), 4)
            body[position:position + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"), 3e38, -3e38, 1e-45, 0, 1e20)))
    elif draw < 0.7:
        names = [name for name in header if name != "__metadata__"]
        entry = header[rng.choice(names)]
        change = rng.randrange(5)
        if change == 0:
            entry["dtype"] = rng.choice(("F64", "I32", "BF16", "BOOL", "F8_E4M3", "U8", "X", 3))
        elif change == 1:
            entry["shape"] = rng.choice(([], [2**62], [0], [-1], entry["shape"][::-1], [*entry["shape"], 1], [2**32, 2**32]))
        elif change == 2:
            entry["data_offsets"] = rng.choice(([0, 0], [0, 2**62], [len(body), 0], [-4, 4], [1, 5]))
        elif change == 3:
            header[rng.choice(("other", "", "../x"))] = header.pop(rng.choice(names))
        else:
            header[rng.choice(names)] = header[rng.choice(names)]
    else:
        header = mutate_document(rng, header)
    text = _dump(header)
    length = len(text) if rng.random() < 0.9 else rng.choice((0, len(text) * 2, 2**40, 2**63, len(text) - 1))
    return struct.pack("<Q", length) + text + bytes(body)


def mutate_npz(rng: random.Random, content: bytes) -> bytes:
    """Other arrays, objects that would run when unpickled, headers that lie, archives that unpack to gigabytes; or bytes."""
    draw = rng.random()
    if draw < 0.2:
        return mutate_bytes(rng, content)
    with np.load(io.BytesIO(content)) as archive:
        members = {name: _npy(archive[name]) for name in archive.files}
        arrays = {name: archive[name] for name in archive.files}
    name = rng.choice(list(members))
    if draw < 0.3:
        members[name] = _npy(np.array([Bomb()] * 3, dtype=object)) if rng.random() < 0.7 else pickle.dumps(Bomb())
    elif draw < 0.45:
        shape = rng.choice(((10**9, 10**6), (2**40,), (-1,), (3, 2**33), (0, 3), (), (2,) * 60))
        members[name] = _npy_header(shape, rng.choice(("<f4", "<i8", "|O", "<U999999999", "|V4", "<c16", "<M8[s]")))
    elif draw < 0.48:
        members[name] = _npy_header((2**29, 1), "<f4") + bytes(2**31)
    elif draw < 0.55:
        members[rng.choice(("../outside.npy", "/outside.npy", "x_train", "x_train.npy/x.npy", ""))] = members.pop(name)
    elif draw < 0.6:
        members[name] = mutate_bytes(rng, members[name])
    else:
        members[name] = _npy(_weird_array(rng, arrays[name]))
    return _zip(members, zipfile.ZIP_DEFLATED if draw < 0.48 or rng.random() < 0.3 else zipfile.ZIP_STORED)


def _weird_array(rng: random.Random, array: np.ndarray) -> np.ndarray:
    kind = rng.randrange(9)
    if kind == 0:
        return array.astype(rng.choice(("f2", "f8", "i1", "u8", "?", "c8", "U10", "S3", "M8[s]", "longdouble")))
    if kind == 1:
        return np.zeros(rng.choice(((0,), (0, 3), (3, 0), (1, 1, 1, 1), (5,), ())), array.dtype)
    if kind == 2:
        return array[:rng.randrange(len(array))]
    if kind == 3:
        return np.full_like(array, rng.choice((0, 1, 100, 2**31 - 1)))
    changed = array.copy() if kind < 7 else array.astype(np.float64)
    flat = changed.reshape(-1)
    wild = (0, -1, 10**6, 2**62) if changed.dtype.kind == "i" else (float("nan"), float("inf"), 1e308, -1e38, 3e38, 1e-45)
    for _ in range(rng.choice((1, 5, 100))):
        with np.errstate(over="ignore"):
            flat[rng.randrange(len(flat))] = rng.choice(wild)
    return changed


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _zip(members: dict[str, bytes], method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name if name.endswith(".npy") or "/" in name else f"{name}.npy", content)
    return file.getvalue()


def mutate_toml(rng: random.Random, content: bytes) -> bytes:
    """Lines exchanged for other values, for other keys, or for what only looks like TOML."""
    draw = rng.random()
    if draw < 0.2:
        return mutate_bytes(rng, content)
    lines = content.decode().splitlines()
    for _ in range(rng.choice((1, 1, 2, 3))):
        position = rng.randrange(len(lines))
        key = lines[position].partition(" =")[0]
        value = weird_value(rng)
        text = "[" * 20_000 if rng.random() < 0.02 else json.dumps(value).replace("null", "nan").replace("Infinity", "inf")
        lines[position] = rng.choice((*[f"{key} = {text}"] * 3, f"[{key}]", f"{text} = 1", f"{key}.x = 1",
                                      lines[rng.randrange(len(lines))]))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutate_onnx(rng: random.Random, content: bytes) -> bytes:
    """Nodes, tensors, attributes, functions and types exchanged, removed, doubled or renamed; or bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, content)
    model = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        nodes = rng.choice([model.graph.node, *(function.node for function in model.functions)])
        rng.choice((_change_node, _change_node, _change_tensor, _change_tensor, _change_model, _change_values))(rng, model, nodes)
    return model.SerializeToString()


def _change_node(rng: random.Random, model: onnx.ModelProto, nodes: Any) -> None:
    if not nodes:
        return
    node = rng.choice(list(nodes))
    names = [name for other in nodes for name in (*other.input, *other.output)]
    kind = rng.randrange(8)
    if kind == 0:
        nodes.remove(node)
    elif kind == 1:
        nodes.add().CopyFrom(node)
    elif kind == 2 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, "", "missing"])
    elif kind == 3 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice([*names, "", "logits"])
    elif kind == 4:
        node.op_type = rng.choice(("Loop", "If", "Scan", "Reshape", "Expand", "Tile", "Range", "Gather", "Resize", "Softmax",
                                   "Einsum", "CubicSpline", "FeedForward", "ConstantOfShape", "Split", "Concat", "NonZero", "Pad",
                                   "TopK"))
    elif kind == 5:
        node.domain = rng.choice(("", "ai.mncompress", "com.microsoft", "unknown"))
    elif kind == 6 and node.attribute:
        attribute = rng.choice(list(node.attribute))
        attribute.i = rng.choice((0, -1, 1, 7, 2**31, 2**63 - 1, -(2**63)))
        attribute.type = rng.choice((1, 2, 3, 4, 6, 7))
    else:
        node.attribute.add(name=rng.choice(("axis", "to", "perm", "equation", "")), type=2, i=rng.choice((0, -100, 2**62)))


def _change_tensor(rng: random.Random, model: onnx.ModelProto, nodes: Any) -> None:
    attributes = [attribute for node in nodes for attribute in node.attribute]
    tensors = [*model.graph.initializer, *(attribute.t for attribute in attributes if attribute.HasField("t"))]
    if not tensors:
        return
    tensor = rng.choice(tensors)
    kind = rng.randrange(6)
    if kind == 0:
        del tensor.dims[:]
        tensor.dims.extend(rng.choice(([], [0], [2**40], [-1, 3], [2**31, 2**31], [1, 1, 1, 1])))
    elif kind == 1:
        tensor.data_type = rng.randrange(0, 25)
    elif kind == 2:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=rng.choice([path for path in PATHS if path.isprintable()]))
    elif kind == 3:
        tensor.raw_data = mutate_bytes(rng, tensor.raw_data)
    elif kind == 4 and tensor in list(model.graph.initializer):
        model.graph.initializer.remove(tensor)
    else:
        tensor.name = rng.choice(("", "input", "logits", tensor.name + "x"))


def _change_model(rng: random.Random, model: onnx.ModelProto, nodes: Any) -> None:
    kind = rng.randrange(7)
    if kind == 0:
        model.ir_version = rng.choice((0, 1, 3, 7, 99, 2**40))
    elif kind == 1 and model.opset_import:
        rng.choice(list(model.opset_import)).version = rng.choice((-1, 0, 1, 7, 13, 99, 2**40))
    elif kind == 2 and model.functions:
        model.functions.remove(rng.choice(list(model.functions)))
    elif kind == 3 and model.functions:
        model.functions.add().CopyFrom(rng.choice(list(model.functions)))
    elif kind == 4:
        entry = model.metadata_props.add()
        entry.key, entry.value = rng.choice(("seed", "x")), rng.choice(("9" * 30, "-1", "nan", "", "\u0662", "9" * 5000))
    elif kind == 5 and model.graph.output:
        model.graph.output[0].name = rng.choice(("", "input", "output", "missing"))
    elif model.functions:
        function = rng.choice(list(model.functions))
        names = function.input if rng.random() < 0.5 else function.output
        if names:
            names[rng.randrange(len(names))] = rng.choice(("", "x", "missing"))


def _change_values(rng: random.Random, model: onnx.ModelProto, nodes: Any) -> None:
    values = [*model.graph.input, *model.graph.output]
    if not values:
        return
    shape = rng.choice(values).type.tensor_type
    kind = rng.randrange(4)
    if kind == 0:
        shape.elem_type = rng.randrange(0, 25)
    elif kind == 1 and shape.shape.dim:
        rng.choice(list(shape.shape.dim)).dim_value = rng.choice((0, -1, 1, 2, 5, 10**6, 2**40, 2**62))
    elif kind == 2:
        shape.shape.dim.add().dim_value = 3
    else:
        rng.choice((model.graph.input, model.graph.output)).add().CopyFrom(rng.choice(values))
