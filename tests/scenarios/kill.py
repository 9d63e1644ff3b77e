"""Every command killed at random moments: the next run resumes or starts clean, and ends with what an undisturbed one writes.

Half of the moments are a random time, half are the moment before a random operation on files in the output folder. After
the kill every file under its final name must be whole, and a run folder must either load, as the run before or the new one, or be
refused in one line. After the next run nothing hidden may be left.
"""

import contextlib
import csv
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from safetensors import safe_open

from scenarios.data import TRAIN, make_inputs
from scenarios.result import Result
from scenarios.server import Outcome, Server

TIMING = {"report.json", "report.html", "bench.json", "verdicts.json", "README.md"}
"""Files that hold measured times: whole, but not the same twice."""


@dataclass(frozen=True)
class Command:
    """A command, what is there before, and how one goes on after a kill."""

    name: str
    args: tuple[str, ...]
    copies: tuple[tuple[str, str], ...] = ()
    """Inputs copied into the case's folder beforehand, and their names there."""
    again: tuple[str, ...] = ()
    """What the next run is given in addition, where the killed one left a folder."""
    resumes: bool = False
    """Whether it is `--resume` that goes on, where there is something to resume."""


COMPRESS = ("compress", "../run", "--max-drop", "50", "--quiet", "--out", "out")
COMMANDS = (
    Command("train", (*TRAIN, "--out", "out"), resumes=True),
    Command("train longer", (*TRAIN, "--epochs", "6", "--resume", "--out", "out"), copies=(("run", "out"),), resumes=True),
    Command("train --overwrite", (*TRAIN, "--seed", "1", "--overwrite", "--out", "out"), copies=(("run", "out"),), resumes=True),
    Command("compress", COMPRESS),
    Command("compress --overwrite", (*COMPRESS, "--overwrite"), copies=(("compressed", "out"),)),
    Command("evaluate", ("evaluate", "../compressed/compressed.onnx", "--data", "../data.npz", "--quiet")),
    Command("benchmark", ("benchmark", "../compressed/compressed.onnx", "../compressed/original.onnx", "--batch-sizes", "1",
                          "--quiet", "--out", "bench.json")),
    Command("inspect", ("inspect", "../run", "--quiet", "--out", "out"), again=("--overwrite",)),
    Command("quickstart", ("quickstart", "--quiet", "--out", "out")),
    Command("reproduce", ("reproduce", "fig4", "--data", "../data.npz", "--replicates", "2", "--epochs", "1", "--device", "cpu",
                          "--quiet", "--out", "out"), again=("--resume",)),
)


def run(server: Server, scratch: Path, count: int, seed: int, commands: tuple[Command, ...] = COMMANDS) -> Iterator[Result]:
    """Kill each command `count` times; one result for each command."""
    inputs = make_inputs(server, scratch / "inputs")
    for command in commands:
        rng = random.Random(f"{seed} {command.name}")
        case = _prepare(inputs, command)
        whole = server.run(command.args, case, watch=str(case))
        assert whole.code == 0, whole
        expected, failures, kills = digest(case), [], 0
        for number in range(count):
            by_operation = number % 2 == 0 and whole.operations > 0
            moment = rng.randrange(whole.operations) if by_operation else rng.uniform(0, 0.95 * whole.seconds)
            case = _prepare(inputs, command)
            options = {"kill_at": moment} if by_operation else {"kill_after": moment}
            killed = server.run(command.args, case, watch=str(case), **options)
            kills += killed.code == -9
            if reason := _check(server, case, command, killed, expected, whole.stdout):
                failures.append(f"{command.name} killed {'before operation' if by_operation else 'after'} {moment}: {reason}")
        yield Result("kill", command.name, count, tuple(failures), f"{kills} hit it, of {whole.operations} file operations")


def _prepare(inputs: Path, command: Command) -> Path:
    case = inputs / "case"
    shutil.rmtree(case)
    case.mkdir()
    for source, target in command.copies:
        shutil.copytree(inputs / source, case / target)
    return case


def _check(server: Server, case: Path, command: Command, killed: Outcome, expected: dict[str, str], stdout: str) -> str | None:
    """What is wrong after a kill, or None."""
    if killed.code not in (0, -9):
        return f"it ended with {killed.code}: {killed.stderr[-300:]}"
    if broken := find_broken(case):
        return f"{broken[0]} is not whole"
    if killed.code == 0:
        return None
    if expected and not command.copies and digest(case) == expected:    # it was done but for its lock
        return None
    again = server.run(_next_args(case, command), case)
    if again.code != 0:
        return f"the next run ended with {again.code}: {again.stderr[-300:]}"
    found = digest(case)
    if found != expected:
        different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        return f"the next run left other content in {', '.join(different)}"
    if not expected and again.stdout != stdout:
        return "the next run printed something else"
    hidden = [path.name for path in case.rglob(".*")]
    return f"{hidden[0]} is still there" if hidden else None


def _next_args(case: Path, command: Command) -> list[str]:
    args = list(command.args)
    there = (case / "out").is_dir() and any(not path.name.startswith(".") for path in (case / "out").iterdir())
    if command.resumes and there:
        record = json.loads((case / "out/config.json").read_text())
        if record["best"] is None or command.name == "train":
            return [arg for arg in args if arg not in ("--overwrite", "--resume")] + ["--resume"]
    return args + (list(command.again) if there else [])


def digest(folder: Path) -> dict[str, str]:
    """The content of every file whose content is determined, by name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.name in TIMING or path.suffix in (".png", ".svg", ".html"):     # pictures carry a date
            found[name] = "there"
        elif path.suffix == ".safetensors":         # the order of its entries is left to chance
            with safe_open(path, framework="numpy") as file:
                found[name] = hashlib.sha256(b"".join(f"{key} {file.get_tensor(key).dtype} {file.get_tensor(key).shape}".encode()
                                                      + file.get_tensor(key).tobytes() for key in sorted(file.keys()))).hexdigest()
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                found[name] = str([[value for key, value in row.items() if key != "seconds"] for row in csv.DictReader(file)])
        elif path.suffix == ".json":
            found[name] = json.dumps(_without_times(json.loads(path.read_text())), sort_keys=True)
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _without_times(document: object) -> object:
    if isinstance(document, dict):
        return {key: _without_times(value) for key, value in document.items() if key not in ("seconds", "environment")}
    return [_without_times(value) for value in document] if isinstance(document, list) else document


def find_broken(folder: Path) -> list[Path]:
    """Files under their final names that are not whole."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_whole(path)
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _is_whole(path: Path) -> bool:
    ends = {".html": b"</html>", ".svg": b"</svg>", ".png": b"IEND\xaeB`\x82", ".csv": b"\n", ".md": b"\n"}
    with contextlib.suppress(Exception):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118 (no mapping)
                    file.get_tensor(name)
        elif path.suffix == ".onnx":
            onnx.checker.check_model(onnx.load(path), full_check=True)
        elif path.suffix in ends:
            return path.read_bytes().rstrip(b"\n" if path.suffix not in (".csv", ".md") else b"").endswith(ends[path.suffix])
        return True
    return False
