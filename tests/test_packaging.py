"""What is installed: the packages, the entry point, the lazy names, the wheel."""

import ast
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
import typer
from checkout import ROOT, needs_sources, skip_without_sources

import mncompress
from mncompress.native import instruction_set

LIBRARIES = tuple(f"mncompress/native/{name}" for name in ("libmncompress_ops.so", "libmncompress_ops.dylib", "mncompress_ops.dll"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def folders_with_init(folder: Path, package: str) -> set[str]:
    return {".".join((package, *path.parent.relative_to(folder).parts)) for path in folder.rglob("__init__.py")}


@needs_sources
def test_package_list_equals_the_folders():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    commands = folders_with_init(ROOT / "cli", "mncompress.cli")
    assert set(listed) == folders_with_init(ROOT / "mncompress", "mncompress") | commands


def test_entry_point_is_the_typer_app():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="mncompress")
    assert entry.value == "mncompress.cli:app"
    assert isinstance(entry.load(), typer.Typer)


def test_no_module_cli_on_the_top_level(tmp_path):
    command = [sys.executable, "-I", "-c", "import cli"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "No module named 'cli'" in done.stderr


def test_version_is_that_of_the_project():
    assert mncompress.__version__ == PROJECT["project"]["version"]


@needs_sources
def test_lazy_names_are_those_that_type_checkers_see():
    tree = ast.parse((ROOT / "mncompress" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names}
    lazy = {name: f"mncompress.{home}" for name, home in mncompress._HOMES.items()}
    assert seen == lazy | dict.fromkeys(mncompress._MODULES, "mncompress")


@pytest.mark.parametrize("name", [*mncompress._MODULES, *mncompress._HOMES])
def test_lazy_name_resolves_and_is_listed(name):
    value = getattr(mncompress, name)
    assert value.__name__.rpartition(".")[2] == name
    assert name in dir(mncompress)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mncompress' has no attribute 'trane'"):
        mncompress.trane  # noqa: B018


@dataclass(frozen=True)
class Wheel:
    """A wheel file, and the names in it."""

    path: Path
    files: frozenset[str]

    @classmethod
    def of(cls, path: Path) -> Self:
        with zipfile.ZipFile(path) as archive:
            return cls(path, frozenset(archive.namelist()))

    def read(self, name: str) -> str:
        """The text of a file in the folder of metadata."""
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(f"mncompress-{mncompress.__version__}.dist-info/{name}").decode()

    @property
    def tag(self) -> str:
        return self.path.stem.removeprefix(f"mncompress-{mncompress.__version__}-")


def build(kind: str, source: Path, out: Path, **variables: str) -> Path:
    """What `python -m build --no-isolation` makes of `source` as `kind`, `sdist` or `wheel`."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=source, capture_output=True, text=True, check=True,
                          env={**os.environ, **variables})
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The unpacked source distribution, made from a copy so that the checkout stays clean."""
    skip_without_sources()
    folder = tmp_path_factory.mktemp("sdist")
    copy = folder / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("mncompress", "cli", "tests", "benchmarks", "docs", "models"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    with tarfile.open(build("sdist", copy, folder)) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))   # Python 3.11.4 and newer
    return folder / f"mncompress-{mncompress.__version__}"


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Wheel:
    """Built from the source distribution."""
    return Wheel.of(build("wheel", source, tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def pure_wheel(source, tmp_path_factory) -> Wheel:
    """Built where no compiler works."""
    folder = tmp_path_factory.mktemp("pure")
    shutil.copytree(source, folder / "source", ignore=shutil.ignore_patterns("build"))
    return Wheel.of(build("wheel", folder / "source", folder, CC="no-such-compiler", CXX="no-such-compiler"))


def test_source_distribution_holds_sources_and_tests_but_nothing_compiled(source):
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file() and "build" not in path.parts}
    native = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mncompress" / "native").iterdir()
              if path.suffix in (".cpp", ".h", ".cu")}
    tests = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*.py")}
    assert native
    assert native | tests | {"setup.py", "pyproject.toml", "LICENSE", "README.md"} <= files
    assert {name for name in files if name.endswith((".so", ".dll", ".dylib", ".pyc"))} == set()
    assert {name for name in files if name.startswith(("models/", "docs/", "benchmarks/"))} == set()


def test_wheel_holds_the_package_and_nothing_else(wheel):
    metadata = f"mncompress-{mncompress.__version__}.dist-info"
    assert {name.partition("/")[0] for name in wheel.files} == {"mncompress", metadata}


def test_wheel_holds_every_file_but_the_sources_of_the_kernels(wheel):
    package = [path.relative_to(ROOT) for path in (ROOT / "mncompress").rglob("*") if path.is_file()]
    commands = [Path("mncompress") / path.relative_to(ROOT) for path in (ROOT / "cli").rglob("*.py")]
    expected = {path.as_posix() for path in package + commands
                if path.suffix not in (".cpp", ".h", ".cu", ".pyc", ".so", ".dll", ".dylib")}
    assert {"mncompress/py.typed", "mncompress/cli/_app.py", "mncompress/report/report.html.jinja"} <= expected
    assert {name for name in wheel.files if name.startswith("mncompress/")} - set(LIBRARIES) == expected


def test_wheel_names_the_command_and_the_license(wheel):
    assert wheel.read("entry_points.txt") == "[console_scripts]\nmncompress = mncompress.cli:app\n"
    assert "MIT" in wheel.read("licenses/LICENSE")
    assert "License-Expression: MIT" in wheel.read("METADATA")


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "cl"))), reason="no C++ compiler here")
def test_wheel_with_the_library_is_for_its_platform_and_any_python(wheel):
    assert len(wheel.files & set(LIBRARIES)) == 1
    assert wheel.tag == "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert f"Root-Is-Purelib: false\nTag: {wheel.tag}\n" in wheel.read("WHEEL")


def test_wheel_without_a_compiler_is_for_any_platform(wheel, pure_wheel):
    assert pure_wheel.tag == "py3-none-any"
    assert pure_wheel.files == wheel.files - set(LIBRARIES)
    assert "Tag: py3-none-any\n" in pure_wheel.read("WHEEL")


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="no pip here")
@pytest.mark.parametrize("name", ["wheel", "pure_wheel"])
def test_installed_wheel_runs(name, request, tmp_path):
    built = request.getfixturevalue(name)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", tmp_path, built.path],
                   check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    (script,) = (path for path in (tmp_path / "bin").iterdir() if path.stem == "mncompress")
    shown = subprocess.run([script, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "quickstart" in shown.stdout
    code = ("import mncompress.cli as cli, mncompress.native as native\n"
            "print(cli.__file__, native.__file__, native.library_path(), native.instruction_set(), sep='\\n')")
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          check=True)
    commands, native, library, kernels = done.stdout.splitlines()
    assert commands == str(tmp_path / "mncompress" / "cli" / "__init__.py")
    assert native == str(tmp_path / "mncompress" / "native" / "__init__.py")
    if built.files & set(LIBRARIES):
        assert str(tmp_path) in library
        assert kernels == instruction_set()
    else:
        assert (library, kernels) == ("None", "None")


@needs_sources
@pytest.mark.parametrize("line", ["pip install . && mncompress quickstart", "pip install -e '.[test]' && pytest"])
def test_readme_has_the_line_on_its_own(line):
    assert re.search(rf"^{re.escape(line)}$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
