"""Commands of mncompress in forked processes: the server imports everything once, so that a case costs what it does itself.

    with Server() as server:
        outcome = server.run(["train", ...], cwd=folder, kill_after=0.3)

Each command runs in a process of its own, with limits of memory, time and file size, and under an audit hook that counts
operations on files, kills the process before the one asked for, and ends it where code of an input would be run or a file
outside `writable` would be written. Requests and answers are lines of JSON.
"""

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
BUG, ESCAPED, EXECUTED = 70, 71, 72
"""Exit codes of a process that ended with a traceback, wrote elsewhere, or was about to run code of an input."""
WRITING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "shutil.rmtree"}
RUNNING = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
SETUP = """
import torch, onnxruntime, filelock, sklearn.datasets, matplotlib.figure, rich.console, scipy.stats, torch._dynamo
import mncompress.pipeline, mncompress.experiments, mncompress.cli, mncompress.modules
torch.set_num_threads(1)
mncompress.report._make.LATENCY_SECONDS = mncompress.pipeline.CANDIDATE_SECONDS = 0.02     # what is measured does not matter here
mncompress.experiments._reproduce.PROBE_SECONDS = mncompress.benchmark._sampling.WARM_UP_SECONDS = 0.02
"""


@dataclass(frozen=True)
class Request:
    """A command and what is done to it."""

    args: list[str]
    cwd: str
    kill_after: float | None = None
    """Seconds until it is sent `signal`."""
    kill_at: int | None = None
    """Number of the operation on files below `watch` before which it kills itself."""
    signal: int = signal.SIGKILL
    timeout: float = 120.0
    memory: int | None = None
    """Bytes of address space beyond those of the server."""
    file_size: int | None = None
    """Bytes after which no file can grow."""
    obeys_modes: bool = False
    writable: list[str] | None = None
    """Folders that may be written; elsewhere is an escape. None for no watch."""
    watch: str | None = None
    tmp: str | None = None
    """The folder for temporary files, instead of the system's."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    """Its exit code, or minus the number of the signal that ended it."""
    stdout: str
    stderr: str
    seconds: float
    peak_mib: float
    """Largest resident memory, that of the server included."""
    operations: int
    """On files below `watch`."""
    timed_out: bool

    @property
    def error(self) -> str:
        """The message of a command that refused its input in one line of its own; empty for anything else."""
        found = re.fullmatch(r"(?s)(?:.*\n)?mncompress: (?:error: )?([^\n]+)\n", self.stderr)
        return found[1] if self.code in (1, 130) and found and "Traceback" not in self.stderr else ""


class Server:
    """The process that forks; a context manager."""

    def __enter__(self) -> Self:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
                       "PYTHONPATH": str(ROOT / "tests"), "PYTHONWARNINGS": "default", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen([sys.executable, "-c", "from scenarios.server import serve; serve()"], cwd=ROOT, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def run(self, args: Sequence[object], cwd: Path, **options: Any) -> Outcome:
        """Run a command to its end, or until it is killed: see `Request`."""
        self.start(args, cwd, **options)
        return self.wait()

    def start(self, args: Sequence[object], cwd: Path, **options: Any) -> None:
        """Begin a command; `wait` must follow."""
        assert self.process.stdin is not None
        request = Request([str(arg) for arg in args], str(cwd), **options)
        self.process.stdin.write(json.dumps(asdict(request)) + "\n")
        self.process.stdin.flush()

    def wait(self) -> Outcome:
        """The outcome of the command that was started."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server itself ended"
        return Outcome(**json.loads(line))


def serve() -> None:
    """Answer requests on standard input until it is closed."""
    exec(SETUP, {})
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            answers.write(json.dumps(asdict(_fork(Request(**json.loads(line))))) + "\n")
            answers.flush()
    os._exit(0)     # to take down all that was imported would take seconds, more than anyone waits on a busy machine


def _fork(request: Request) -> Outcome:
    out, err, (read, write) = os.memfd_create("out"), os.memfd_create("err"), os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(request, out, err, write)
    os.close(write)
    timed_out, sent = False, False
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        now = time.monotonic() - started
        if request.kill_after is not None and now >= request.kill_after and not sent:
            os.kill(pid, request.signal)
            sent = True
        if now > request.timeout:
            os.kill(pid, signal.SIGKILL)
            timed_out = True
        time.sleep(0.001)
    counted = os.read(read, 100_000)
    texts = []
    for descriptor in (out, err):
        os.lseek(descriptor, 0, os.SEEK_SET)
        texts.append(os.read(descriptor, 1_000_000).decode(errors="replace"))
        os.close(descriptor)
    os.close(read)
    return Outcome(os.waitstatus_to_exitcode(status), *texts, time.monotonic() - started, usage.ru_maxrss / 1024, len(counted),
                   timed_out)


def _child(request: Request, out: int, err: int, write: int) -> None:
    code = BUG
    try:
        sys.stdin.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)    # a shell's background process ignores it
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False, errors="replace") for number in (1, 2))
        _limit(request)
        if request.tmp is not None:
            os.mkdir(request.tmp)
            tempfile.tempdir = os.environ["TMPDIR"] = request.tmp
        os.chdir(request.cwd)
        sys.addaudithook(_Watch(request, write))
        code = _call(request.args)
    except BaseException:       # whatever it is, the server's copy must not go on
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _drop_capabilities() -> None:
    """Let root be refused by the modes of files, as everybody else is (capset(2), version 3)."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def _limit(request: Request) -> None:
    if request.memory is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + request.memory,) * 2)
    if request.file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request.file_size,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if request.obeys_modes and os.getuid() == 0:
        _drop_capabilities()


def _call(args: list[str]) -> int:
    from mncompress.cli import app

    if args[0] == "--exec":         # how tests see the watch at work
        exec(Path(args[1]).read_text(), {})
        return 0
    try:
        app(args, prog_name="mncompress")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _folder_of(event: str, args: tuple[Any, ...]) -> str:
    """The folder of an operation's path, which may be relative to an open folder."""
    number = {"os.mkdir": 2, "os.rename": 2}.get(event, 1)
    relative = event != "open" and len(args) > number and isinstance(args[number], int) and args[number] >= 0
    return os.path.join(f"/proc/self/fd/{args[number]}" if relative else ".", os.path.dirname(os.fsdecode(args[0])))


def _belongs(path: str, place: str) -> bool:
    """Whether a path is in a folder, or a lock or temporary folder beside it."""
    hidden = os.path.join(os.path.dirname(place), f".{os.path.basename(place)}.")
    return path == place or path.startswith((place + "/", hidden))


def _harmless(args: tuple[Any, ...]) -> bool:
    """Whether mncompress starts this process itself: the system's name, or an interpreter that sees no folder of inputs."""
    return "uname" in str(args[:2]) or (args[0] == sys.executable and any(flag in args[1] for flag in ("-P", "-I")))


def _is_nameless(flags: int) -> bool:
    """Whether a file is opened that no folder ever shows, as filelock does to find out what a file system can do."""
    return flags & os.O_TMPFILE == os.O_TMPFILE and bool(flags & os.O_EXCL)


class _Watch:
    """The audit hook of a command."""

    def __init__(self, request: Request, write: int) -> None:
        self.write, self.kill_at, self.count = write, request.kill_at, 0
        self.watched = None if request.watch is None else os.path.realpath(request.watch)
        self.writable = None if request.writable is None else [os.path.realpath(path) for path in (*request.writable, "/dev")]

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.writable is not None and event in RUNNING and not (event == "subprocess.Popen" and _harmless(args)):
            self._end(EXECUTED, event, args)
        writing = event in WRITING or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
                                       and not _is_nameless(args[2]))
        if not writing or not args or not isinstance(args[0], str | bytes | os.PathLike):
            return
        if event == "os.rename":
            self("os.link", (args[1], args[3]))
        path = os.path.join(os.path.realpath(_folder_of(event, args)), os.path.basename(os.fsdecode(args[0])))
        if event == "os.mkdir" and os.path.isdir(path):     # nothing happens
            return
        if self.writable is not None and not any(_belongs(path, place) for place in self.writable):
            self._end(ESCAPED, event, args)
        if self.watched is not None and path.startswith(self.watched):
            if self.count == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1
            os.write(self.write, b".")

    def _end(self, code: int, event: str, args: tuple[Any, ...]) -> None:
        os.write(2, f"\nforbidden: {event} {args}\n".encode())
        os._exit(code)
