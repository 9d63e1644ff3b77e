"""Shell completion, asked for as the shells do: through environment variables, and in bash through the script itself."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mncompress import experiments, runtime
from mncompress.data import DATASET_NAMES, FUNCTION_NAMES
from mncompress.types import ACTS, ENDS, FAMILIES, Device, Init, Preset, Target, parse_activation

ENTRY, = importlib.metadata.entry_points(group="console_scripts", name="mncompress")
APP = ENTRY.load()
COMPLETION = sys.modules[APP.info.cls.__module__]
START = f"from importlib.metadata import entry_points\napp = entry_points(group='console_scripts')[{ENTRY.name!r}].load()\n"


def ask(shell, line):
    """What is printed for the words of `line`, of which the last is to be completed, in the shell's own protocol."""
    words = ["mncompress", *line.split(" ")]
    variables = {
        "bash": {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1), "_MNCOMPRESS_DONE": ""},
        "zsh": {"_TYPER_COMPLETE_ARGS": " ".join(words)},
        "fish": {"_TYPER_COMPLETE_ARGS": " ".join(words), "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    result = CliRunner().invoke(APP, [], prog_name="mncompress", env={"_MNCOMPRESS_COMPLETE": f"complete_{shell}", **variables})
    assert result.exit_code == 0, result.output
    return result.stdout


def offered(line):
    return ask("bash", line).split()


WARPED = [f"{family}:{act}" for family in ("warp", "fixed") for act in ACTS]


@pytest.mark.parametrize(("line", "expected"), [
    ("re", ["reproduce"]),
    ("train --inner-", ["--inner-width", "--inner-layers"]),
    ("train --data ", DATASET_NAMES),
    ("train --data mn", ["mnist", "mnist1d"]),
    ("evaluate model.onnx --data function", [f"function:{name}" for name in FUNCTION_NAMES]),
    ("compress run --data k", ["kmnist"]),
    ("reproduce fig4 --data k", ["kmnist"]),
    ("train --activation ", ["meta", "vaf", "agsig", "frelu", *WARPED]),
    ("train --activation meta,v", ["meta,vaf"]),
    ("train --inner ", ACTS),
    ("train --ends ", ENDS),
    ("train --init ", get_args(Init)),
    ("train --schedule c", ["constant", "cosine"]),
    ("train --select ", ["last", "best"]),
    ("train --order ", ["shared", "own"]),
    ("train --device ", get_args(Device)),
    ("reproduce all --device c", ["cpu", "cuda"]),
    ("compress run --preset ", get_args(Preset)),
    ("compress run --target ", get_args(Target)),
    ("benchmark a.onnx --providers cpu,", [f"cpu,{name}" for name in runtime.PROVIDERS]),
    ("reproduce ", [*experiments.EXPERIMENTS, "families", "all"]),
    ("train --epochs ", []),            # nothing is offered: bash then completes the names of files
    ("train recipe", []),
    ("train --data no-such-set", []),
])
def test_offers(line, expected):
    assert offered(line) == list(expected)


def test_every_offered_activation_is_one():
    names = offered("train --activation ")
    specs = [parse_activation(name, inner="relu", width=1, depth=1, shared=False) for name in names]
    assert {spec.family for spec in specs} == set(FAMILIES)
    assert [spec.name for spec in specs] == names


def test_zsh_is_told_the_values():
    assert ask("zsh", "train --schedule c") == "_arguments '*: :((\"constant\"\n\"cosine\"))'\n"
    assert ask("zsh", "train recipe") == "_files\n"
    assert '"function\\\\:airy"' in ask("zsh", "train --data function:ai")


def test_fish_is_told_the_values():
    assert ask("fish", "train --schedule c").split() == ["constant", "cosine"]
    assert ask("fish", "train --data function:ai").split() == ["function:airy"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(("words", "expected"), [
    (["train", "--data", "function", ":", "ai"], ["airy"]),
    (["train", "--data", "function", ":"], list(FUNCTION_NAMES)),
    (["train", "--data", "=", "dig"], ["digits"]),
    (["train", "--data", "=", "function", ":", "ai"], ["airy"]),
    (["train", "--activation", "meta,warp", ":", "s"], ["sigmoid", "silu", "softplus"]),
    (["train", "--out", "'a b'", "--inner", "ta"], ["tanh"]),
    (["train", "--seed", "1", "--data", ""], list(DATASET_NAMES)),
])
def test_bash_completes_the_words_that_it_broke(words, expected, tmp_path):
    program = tmp_path / "mncompress"
    program.write_text(f"#!{sys.executable} -P\n{START}app(prog_name='mncompress')\n")
    program.chmod(0o755)
    script = subprocess.run([program], env={**os.environ, "_MNCOMPRESS_COMPLETE": "source_bash"}, capture_output=True, text=True,
                            check=True).stdout
    lines = [script, 'COMP_WORDS=("$@")', "COMP_CWORD=$(($# - 1))", "_mncompress_completion mncompress",
             'printf "%s\\n" "${COMPREPLY[@]}"']
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "--norc", "-c", "\n".join(lines), "bash", "mncompress", *words], env=environment,
                          capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.split() == expected


@given(st.lists(st.text("ab-", min_size=1), min_size=1), st.text("abc"))
def test_unbroken_words_stay(words, last):
    words = ["mncompress", *words, last]
    asked = {"COMP_WORDS": "\n".join([*words, "behind"]), "COMP_CWORD": str(len(words) - 1)}
    expected = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": asked["COMP_CWORD"], "_MNCOMPRESS_DONE": ""}
    assert COMPLETION.join_words(asked) == expected


@pytest.mark.parametrize("line", ["train --data fun", "train --activation ", "benchmark --providers ", "reproduce "])
def test_answers_fast_without_torch_and_onnxruntime(line):
    words = ["mncompress", *line.split(" ")]
    code = (f"import sys, time\n{START}try: app(prog_name='mncompress')\n"
            "finally: print({'torch', 'onnxruntime', 'sklearn', 'pandas'} & set(sys.modules), time.process_time(),\n"
            "               file=sys.stderr)")
    environment = {**os.environ, "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1),
                   "_MNCOMPRESS_COMPLETE": "complete_bash"}
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip()
        loaded, used = done.stderr.split()
        assert loaded == "set()"
        seconds.append(float(used))
    assert min(seconds) < 2     # of a processor, about 0.5 where little else runs; importing torch alone takes longer


def test_help_names_the_options_that_install_it():
    result = CliRunner().invoke(APP, ["--help"], prog_name="mncompress")
    assert "--install-completion" in result.stdout
    assert "--show-completion" in result.stdout


def test_installs_for_bash_under_the_home_folder(tmp_path):
    code = f"{START}app(['--install-completion', 'bash'], prog_name='mncompress')"
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, check=True)
    (script,) = tmp_path.rglob("*.sh")
    assert "complete_bash" in script.read_text(encoding="utf-8")
    assert str(script) in (tmp_path / ".bashrc").read_text(encoding="utf-8")
