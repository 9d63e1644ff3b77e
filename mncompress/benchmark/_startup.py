"""What a model costs before it is warm, measured in processes that have done nothing else.

A process imports onnxruntime, then opens the model and runs it once; both are timed, and the memory that the process
holds (resident set) is read before, between and after. The file has been read before, so the time is without the disk.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mncompress.benchmark._inputs import Array, load_inputs
from mncompress.benchmark._sampling import REAL_CLOCK, Clock
from mncompress.errors import RuntimeProviderError
from mncompress.runtime import make_session
from mncompress.types import PathLike

TIMEOUT_SECONDS = 600
COMMAND = ("-P", "-c", "from mncompress.benchmark._startup import main; main()")

Memory = Callable[[], int | None]
"""Bytes that this process holds in memory, or None where the system does not tell."""


@dataclass(frozen=True)
class FirstRun:
    """One process."""

    session_ms: float
    first_run_ms: float
    session_bytes: int | None
    first_run_bytes: int | None


@dataclass(frozen=True)
class Startup:
    """What a model costs before it is warm: medians over fresh processes."""

    model: str
    provider: str
    threads: int
    batch: int
    processes: int
    session_ms: float
    """Opening the file."""
    first_run_ms: float
    session_bytes: int | None
    """How much more memory the process holds once the file is open; None where the system does not tell."""
    first_run_bytes: int | None
    """The same after the first run, opening included."""


def measure_startup(model: str, path: PathLike, feeds: Mapping[str, Array], *, provider: str, threads: int, batch: int,
                    processes: int, tf32: bool = False) -> Startup:
    """Open and run a model for the first time in so many fresh processes, one after another.

    Raises:
        RuntimeProviderError: a process fails.
    """
    Path(path).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, *feeds.values())
        task = {"path": str(path), "inputs": str(inputs), "names": list(feeds), "provider": provider, "threads": threads,
                "tf32": tf32}
        found = [_run_process(task) for _ in range(processes)]
    return summarize_startup(found, model=model, provider=provider, threads=threads, batch=batch)


def summarize_startup(found: Sequence[FirstRun], **where: Any) -> Startup:
    """The medians of several processes; `where` has the names of the condition."""
    def middle(name: str) -> Any:
        values = [getattr(each, name) for each in found]
        return None if None in values else median(values)

    session, first = middle("session_bytes"), middle("first_run_bytes")
    return Startup(**where, processes=len(found), session_ms=middle("session_ms"), first_run_ms=middle("first_run_ms"),
                   session_bytes=None if session is None else int(session), first_run_bytes=None if first is None else int(first))


def first_run(open_session: Callable[[], Any], feeds: Mapping[str, Array], *, clock: Clock, memory: Memory) -> FirstRun:
    """Open a session and run it once, here."""
    memory_before, begin = memory(), clock.now_ns()
    session = open_session()
    opened = clock.now_ns()
    memory_open = memory()
    run_begin = clock.now_ns()
    session.run(None, dict(feeds))
    end = clock.now_ns()
    return FirstRun((opened - begin) / 1e6, (end - run_begin) / 1e6, _less(memory_open, memory_before),
                    _less(memory(), memory_before))


def main() -> None:
    """The fresh process: a task as JSON on stdin, its `FirstRun` as JSON on stdout."""
    task = json.load(sys.stdin)
    feeds = dict(zip(task["names"], load_inputs(task["inputs"]).values(), strict=True))
    options: dict[str, Any] = {"providers": (task["provider"],), "threads": task["threads"], "tf32": task["tf32"], "examine": False}
    found = first_run(lambda: make_session(task["path"], **options), feeds, clock=REAL_CLOCK, memory=resident_bytes)
    json.dump(asdict(found), sys.stdout)


def resident_bytes() -> int | None:
    """The resident set of this process, as Linux tells it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _run_process(task: Mapping[str, Any]) -> FirstRun:
    root = str(Path(__file__).parents[2])       # where this package was found, installed or not
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    try:
        done = subprocess.run([sys.executable, *COMMAND], input=json.dumps(task), capture_output=True, text=True,
                              env=environment, timeout=TIMEOUT_SECONDS, check=True)
        return FirstRun(**json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or [type(error).__name__]
        raise RuntimeProviderError(f"cannot measure the first run of {task['path']} in a fresh process: {said[-1]}; "
                                   "pass --startup 0 to leave it out") from error


def _less(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else max(0, after - before)
