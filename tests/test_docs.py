"""The documentation: every code block of every page runs, examples run, and the site builds without a broken link."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mncompress import runtime

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_RUN = {"console", "bibtex", "text", ""}
"""Languages of blocks that are shown: transcripts, and what depends on the reader's machine."""
INSTALLATION = re.compile(r"^(python3 -m venv|pip install|ruff|mypy)")
"""What continuous integration does itself, around these tests."""
PAGES = sorted(path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")) if path.is_file())
if not (ROOT / "docs").is_dir():
    pytest.skip("the documentation is in the repository, not in the source distribution", allow_module_level=True)


def script_of(page: Path) -> str:
    """A page's blocks as one Python program, in which commands are subprocesses."""
    lines = ["import subprocess"]
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "sh" and not INSTALLATION.match(text):
            lines.append(f"subprocess.run(['bash', '-ec', {text!r}], check=True)")
        elif language == "python":
            lines.append(text)
        else:
            assert language in NOT_RUN | {"sh"}, f"{page.name} has a block in {language!r}, which nothing runs"
    return "\n".join(lines)


def run(command: list[str], cwd: Path, **kwargs: object) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600, **kwargs)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if script_of(page) != "import subprocess"],
                         ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_run(page: Path, tmp_path: Path) -> None:
    if page.name == "kernels.md":
        if runtime.library_path() is None:
            pytest.skip("the kernel library is not built")
        shutil.copy(ROOT / "models/gaussian-8x2-vaf-tanh/compressed.onnx", tmp_path)
    (tmp_path / "page.py").write_text(script_of(page), encoding="utf-8")
    run([sys.executable, "page.py"], tmp_path)


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for block in ("```python\nraise SystemExit('no')\n```\n", "```sh\nfalse\n```\n"):
        page.write_text(block)
        (tmp_path / "page.py").write_text(script_of(page))
        with pytest.raises(AssertionError):
            run([sys.executable, "page.py"], tmp_path)


@pytest.mark.parametrize(("script", "options", "says"), [
    ("compare_families", ["--replicates", "3", "--epochs", "2", "--hidden", "4,4"], r"warp +\d"),
    ("compress_torch_model", ["--steps", "300"], r"accuracy 0\.9"),
    ("existing_network", ["--seconds", "0.1"], r"act2 \["),
])
def test_examples_run(script: str, options: list[str], says: str, tmp_path: Path) -> None:
    assert re.search(says, run([sys.executable, str(ROOT / f"examples/{script}.py"), *options], tmp_path))


def test_the_cpp_example_gives_what_python_gives(tmp_path: Path) -> None:
    """With `MNCOMPRESS_ORT_INCLUDE`, the folder of onnxruntime_cxx_api.h, which no wheel has."""
    include, compiler = os.environ.get("MNCOMPRESS_ORT_INCLUDE"), shutil.which("c++")
    libraries = [path for path in Path(importlib.util.find_spec("onnxruntime").origin).parent.glob("capi/libonnxruntime.so.*")]
    if not include or not compiler or not libraries:
        pytest.skip("needs a compiler, ONNX Runtime's shared library, and its headers in MNCOMPRESS_ORT_INCLUDE")
    (tmp_path / "libonnxruntime.so.1").symlink_to(libraries[0])
    source, library = str(ROOT / "examples/run_from_cpp/main.cpp"), str(libraries[0])
    link = [source, library, f"-Wl,-rpath,{tmp_path}", "-o", "main"]
    run([compiler, "-std=c++17", "-Wall", "-Werror", f"-I{include}", *link], tmp_path)
    model = ROOT / "models/gaussian-8x2-vaf-tanh/compressed.onnx"
    [expected] = runtime.make_session(model).run(None, {"input": [[0.25, 1.0], [-1.0, 0.5]]})
    for library in ([str(runtime.library_path())] if runtime.library_path() else [], []):
        printed = run(["./main", str(model), *library], tmp_path, input="0.25 1\n-1 0.5\n")
        assert [float(line) for line in printed.splitlines()] == pytest.approx(expected[:, 0].tolist(), rel=1e-5, abs=1e-6)


def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings_handlers", reason="pip install -e '.[docs]'")
    run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")], ROOT)
    api = (tmp_path / "site/api/index.html").read_text(encoding="utf-8")
    assert 'id="mncompress.train"' in api
    assert 'id="mncompress.compress"' in api
