"""Public docstrings say what a reader needs: shapes of arrays, errors raised, the sources of the families."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import mncompress
from mncompress.nn import LearnedActivation

ARRAY = re.compile(r"\b(Tensor|NDArray|ndarray|ArrayLike|Array|Arrays|Indices)\b")
SHAPE = re.compile(r"\(((\.\.\.|\w+)(,| ?\+ ?\d+,?)[^)]*|n|k|s)\)|shape|[Ss]calar")
QUANTITY = re.compile(r"(^|_)(time|times|latency|latencies|memory|duration|elapsed|timeout|gap|second|cost)(_|$)")
UNIT = re.compile(r"seconds|minutes|_us$|_ms$|_mib$|bytes|macs")
"""Units stand in the names; a name of a time or a size that has none needs its unit in the text."""


def public() -> Iterator[tuple[str, Any]]:
    """Each public function and class of the package under the name of the module whose list has it."""
    modules = [f"mncompress.{found.name}" for found in pkgutil.iter_modules(mncompress.__path__) if not found.name.startswith("_")]
    for module in modules:
        for name, value in sorted(vars(importlib.import_module(module)).items()):
            if name.startswith("_") or not (inspect.isfunction(value) or inspect.isclass(value)):
                continue
            if f"{value.__module__}.".startswith(f"{module}."):
                yield f"{module}.{name}", value


def functions() -> Iterator[tuple[str, Any, str]]:
    """Each public function or method, with its docstring; a method that overrides one may leave it to that."""
    for name, value in public():
        if inspect.isfunction(value):
            yield name, value, value.__doc__ or ""
            continue
        for key, member in vars(value).items():
            function = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
            if not key.startswith("_") and inspect.isfunction(function):
                overridden = [getattr(base, key, None) for base in value.__mro__[1:]]
                texts = [function.__doc__, *(method.__doc__ for method in overridden if inspect.isfunction(method))]
                yield f"{name}.{key}", function, "\n".join(text for text in texts if text)


PUBLIC, FUNCTIONS = list(public()), list(functions())


def test_everything_public_is_looked_at() -> None:
    names = {name for name, _ in PUBLIC} | {name for name, _, _ in FUNCTIONS}
    assert {"mncompress.pipeline.compress", "mncompress.spline.CubicSpline", "mncompress.nn.Vaf.compute",
            "mncompress.files.write_json", "mncompress.estimators.MetaNeuronClassifier"} <= names


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_has_a_docstring_of_its_own(name: str, value: Any) -> None:
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    generated = f"{name.rpartition('.')[2]}("       # what dataclass writes where there is none
    assert not (own or generated).startswith(generated), f"{name} has no docstring"


@pytest.mark.parametrize(("name", "function", "text"), FUNCTIONS, ids=[name for name, _, _ in FUNCTIONS])
def test_tells_shapes_units_and_errors(name: str, function: Any, text: str) -> None:
    assert (function.__doc__ or "").strip(), f"{name} has no docstring"
    parameters = inspect.signature(function).parameters.values()
    arrays = [p.name for p in parameters if ARRAY.search(str(p.annotation))]
    assert not arrays or SHAPE.search(text), f"{name} tells no shape of {', '.join(arrays)}"
    bare = [p.name for p in parameters if lacks_unit(p.name, p.annotation)]
    assert not bare or UNIT.search(text), f"{name} tells no unit of {', '.join(bare)}"
    unsaid = raised(function) - set(re.findall(r"\w+", text.partition("Raises:")[2]))
    assert not unsaid, f"{name} raises {', '.join(sorted(unsaid))} and does not say so"


def lacks_unit(name: str, annotation: Any) -> bool:
    """Whether a number is a time or a size by its name, which has no unit."""
    return "float" in str(annotation) and bool(QUANTITY.search(name)) and not UNIT.search(name)


@pytest.mark.parametrize("cls", [value for _, value in PUBLIC if dataclasses.is_dataclass(value)], ids=lambda cls: cls.__name__)
def test_fields_have_units(cls: Any) -> None:
    texts = inspect.getsource(cls)
    for field in dataclasses.fields(cls):
        described = re.search(rf'^    {field.name}: [^\n]*\n    """(.*?)"""', texts, re.DOTALL | re.MULTILINE)
        text = (described[1] if described else "") + (cls.__doc__ or "")
        told = re.search("second|µs|MiB|byte", text)
        assert told or not lacks_unit(field.name, field.type), f"{cls.__name__}.{field.name} has no unit"


def raised(function: Any) -> set[str]:
    """The exceptions that a function raises by name, apart from those for methods that others have to write."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raises = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    return {exc.func.id for exc in raises if isinstance(exc, ast.Call) and isinstance(exc.func, ast.Name)}


@pytest.mark.parametrize("family", ["AGSig", "FReLU", "Vaf"])
def test_families_name_their_source(family: str) -> None:
    classes = {cls.__name__: cls for cls in LearnedActivation.__subclasses__()}
    assert re.search(r"Source: .*(19|20)\d\d", classes[family].__doc__ or "")
