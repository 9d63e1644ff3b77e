"""The layers of docs/architecture.md, checked on the imports of every file."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkout import ROOT, needs_sources

LAYERS = (
    {"errors"},
    {"types", "files", "memory", "native"},
    {"onnx_file", "spline", "figures"},
    {"runtime"},
    {"nn"},
    {"data"},
    {"checkpoint"},
    {"training", "calibration"},
    {"analysis"},
    {"compression", "export"},
    {"benchmark", "modules"},
    {"report"},
    {"pipeline"},
    {"experiments", "estimators"},
    {"cli"},
)
"""From low to high. A module imports only from lower layers, and a subpackage from itself."""
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
WITHOUT_TORCH = ("errors", "types", "files", "memory", "native", "figures", "onnx_file", "spline", "runtime", "benchmark")


@dataclass(frozen=True)
class Import:
    """One imported name: `mncompress.spline.CubicSpline` at a line, `level` dots before it if it is relative."""

    name: str
    line: int
    level: int = 0

    @property
    def parts(self) -> list[str]:
        return self.name.split(".")


def find_imports(source: str) -> Iterator[Import]:
    """Every import of a file, those inside functions and `if TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = f"{node.module}." if node.module else ""
            yield from (Import(prefix + alias.name, node.lineno, node.level) for alias in node.names)


def check_file(module: str, source: str) -> list[str]:
    """What is wrong with the imports of a file that belongs to the top-level module `module`."""
    return [f"line {found.line}: {reason}" for found in find_imports(source) if (reason := check_import(module, found))]


def check_import(module: str, found: Import) -> str | None:
    """The reason why `module` must not import this, or None."""
    if found.level:
        return None if module == "cli" and found.level == 1 else "only cli imports its siblings relatively"
    top, *rest = found.parts
    if top == "cli" or (module == "cli" and rest[:1] == ["cli"]):
        return "the command line is mncompress.cli, and imports its siblings relatively"
    if top in ("torch", "torchvision") and module in WITHOUT_TORCH:
        return f"{module} does without torch"
    if top != "mncompress":
        return None
    if not rest or rest[0] not in RANK:
        return "the package's facade is for users, import the module itself"
    if rest[0] == module:
        return None
    if RANK[rest[0]] >= RANK[module]:
        return f"{module} must not import {rest[0]}, which is no lower layer"
    if any(part.startswith("_") for part in rest):
        return f"{found.name} is private to {rest[0]}"
    return None


def source_files() -> list[tuple[str, Path]]:
    """Each file of the package but its facade, with the module of the layer table that it belongs to."""
    package = ROOT / "mncompress"
    files = [path for path in package.rglob("*.py") if path != package / "__init__.py"]
    listed = [(path.relative_to(package).parts[0].removesuffix(".py"), path) for path in files]
    return listed + [("cli", path) for path in (ROOT / "cli").rglob("*.py")]


@needs_sources
def test_every_module_has_a_layer():
    assert {module for module, _ in source_files()} == set(RANK)


@needs_sources
@pytest.mark.parametrize(("module", "path"), source_files(), ids=lambda item: str(item).removeprefix(f"{ROOT}/"))
def test_imports_follow_the_layers(module, path):
    assert check_file(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(("module", "source", "reason"), [
    ("spline", "import torch", "does without torch"),
    ("runtime", "def f():\n    from torch.nn import Linear", "does without torch"),
    ("spline", "from mncompress.nn import Network", "no lower layer"),
    ("spline", "from mncompress import nn", "no lower layer"),
    ("types", "import mncompress.files", "no lower layer"),
    ("nn", "import mncompress", "facade"),
    ("nn", "from mncompress import train", "facade"),
    ("cli", "from mncompress import train", "facade"),
    ("nn", "from mncompress.spline._cubic import CubicSpline", "private"),
    ("nn", "from mncompress.spline import _cubic", "private"),
    ("nn", "from ._acts import ACT_FUNCTIONS", "relatively"),
    ("cli", "from .. import types", "relatively"),
    ("cli", "from mncompress.cli import app", "relatively"),
    ("cli", "import cli", "relatively"),
    ("report", "from cli._output import Output", "relatively"),
])
def test_checker_refuses(module, source, reason):
    problems = check_file(module, source)
    assert len(problems) == 1
    assert reason in problems[0]


@pytest.mark.parametrize(("module", "source"), [
    ("nn", "import torch\nfrom mncompress import spline\nfrom mncompress.types import Act"),
    ("nn", "from mncompress.nn._acts import ACT_FUNCTIONS"),
    ("cli", "from ._options import Json\nfrom mncompress.types import Budget"),
])
def test_checker_accepts(module, source):
    assert check_file(module, source) == []


@pytest.mark.parametrize("module", ["mncompress", "mncompress.cli"])
def test_import_loads_neither_torch_nor_onnxruntime(module):
    assert loaded_by(module) & {"torch", "onnxruntime"} == set()


def test_runtime_side_loads_no_torch():
    assert "torch" not in loaded_by(*(f"mncompress.{module}" for module in WITHOUT_TORCH))


def loaded_by(*modules: str) -> set[str]:
    """Top-level modules in a new interpreter after it imported `modules`."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())
