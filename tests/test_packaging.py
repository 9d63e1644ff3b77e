"""What is installed: the packages, the entry point, the lazy names, the wheel."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import typer

import mncompress

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def folders_with_init(folder: Path, package: str) -> set[str]:
    return {".".join((package, *path.parent.relative_to(folder).parts)) for path in folder.rglob("__init__.py")}


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


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory) -> set[str]:
    """Names in a wheel built from a copy of the sources, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    for name in ("mncompress", "cli", "tests", "benchmarks", "docs", "models"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=source, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_the_package_and_nothing_else(wheel_files):
    metadata = f"mncompress-{mncompress.__version__}.dist-info"
    assert {name.partition("/")[0] for name in wheel_files} == {"mncompress", metadata}


def test_wheel_holds_every_source_file(wheel_files):
    package = [path.relative_to(ROOT) for path in (ROOT / "mncompress").rglob("*.py")]
    commands = [Path("mncompress") / path.relative_to(ROOT) for path in (ROOT / "cli").rglob("*.py")]
    missing = {path.as_posix() for path in package + commands} - wheel_files
    assert missing == set()


def test_wheel_holds_types_and_templates(wheel_files):
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mncompress").rglob("*.jinja")}
    assert templates
    assert templates | {"mncompress/py.typed"} <= wheel_files


@pytest.mark.parametrize("line", ["pip install . && mncompress quickstart", "pip install -e '.[test]' && pytest"])
def test_readme_has_the_line_on_its_own(line):
    assert re.search(rf"^{re.escape(line)}$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
