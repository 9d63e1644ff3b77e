"""Places that cannot be written, or not now: full disks, read-only folders, two processes on one folder, interrupts.

A command must end in one line of its own with exit code 1 (130 after Ctrl-C), leave what was there as it was, and leave nothing
half-written under a final name. Full disks are a small tmpfs where the process may mount one, and everywhere a limit on the size of
a file, which meets the same code.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scenarios.data import TRAIN, make_inputs
from scenarios.kill import digest, find_broken
from scenarios.result import Result
from scenarios.server import Outcome, Server

COMPRESS = ("compress", "../run", "--max-drop", "50", "--quiet", "--out", "out")
WRITERS: dict[str, tuple[str, ...]] = {
    "train": (*TRAIN, "--out", "out"),
    "compress": COMPRESS,
    "inspect": ("inspect", "../run", "--quiet", "--out", "out"),
    "benchmark": ("benchmark", "../compressed/compressed.onnx", "--batch-sizes", "1", "--quiet", "--out", "bench.json"),
    "quickstart": ("quickstart", "--quiet", "--out", "out"),
    "reproduce": ("reproduce", "fig4", "--data", "../data.npz", "--replicates", "2", "--epochs", "1", "--device", "cpu", "--quiet",
                  "--out", "out"),
}


def run(server: Server, scratch: Path, count: int, seed: int) -> Iterator[Result]:
    """Each kind of place, `count` times; one result for each."""
    inputs = make_inputs(server, scratch / "inputs")
    for scenario in (limited_files, full_disks, read_only_folders, locked_folders, interrupts):
        yield scenario(server, inputs, count, random.Random(f"{seed} {scenario.__name__}"))
    yield early_interrupts(scratch, max(count // 4, 2), random.Random(seed))


def _fresh(inputs: Path, *, old: bool = False) -> Path:
    case = inputs / "case"
    shutil.rmtree(case)
    case.mkdir()
    if old:
        shutil.copytree(inputs / "run", case / "out")
    return case


def _check_refusal(outcome: Outcome, case: Path, before: dict[str, str] | None, words: str = "") -> str | None:
    if outcome.code == 0:
        return None
    if not outcome.error or words not in outcome.error:
        return f"exit code {outcome.code}: {outcome.stderr[-300:]}"
    if broken := find_broken(case):
        return f"{broken[0]} is not whole"
    if before is not None and digest(case) != before:
        return "what was there is not what it was"
    hidden = [path for path in case.rglob(".*")]
    return f"{hidden[0]} is still there" if hidden else None


def limited_files(server: Server, inputs: Path, count: int, rng: random.Random) -> Result:
    """No file can grow beyond a random size; an old run in the folder must survive."""
    failures, refused = [], 0
    for number in range(count):
        name = rng.choice(list(WRITERS))
        size = int(10 ** rng.uniform(2.8, 4.5))     # so much that the message still fits
        case = _fresh(inputs, old=name == "train")
        before = digest(case) if name == "train" else None
        args = WRITERS[name] + (("--overwrite", "--seed", "3") if name == "train" else ())
        outcome = server.run(args, case, file_size=size)
        refused += outcome.code != 0
        if name == "train" and outcome.code and (case / "out/metrics.csv").read_text().count("\n") < 9:
            before = None       # the new run's first epoch fitted in; it can be resumed
        if reason := _check_refusal(outcome, case, before):
            failures.append(f"{number}: {name} with files of at most {size} bytes: {reason}")
    return Result("disk", "files that cannot grow", count, tuple(failures), f"{refused} refused in one line")


def full_disks(server: Server, inputs: Path, count: int, rng: random.Random) -> Result:
    """The output lies on a disk of a random size that fills up."""
    failures, refused = [], 0
    if not _mount(case := _fresh(inputs), 64):
        return Result("disk", "full disk", 0, (), "no right to mount one here")
    _unmount(case)
    for number in range(count):
        name, size = rng.choice(list(WRITERS)), int(10 ** rng.uniform(0.7, 2.5))
        case = _fresh(inputs)
        _mount(case, size)
        try:
            outcome = server.run(WRITERS[name], case)
            refused += outcome.code != 0
            reason = _check_refusal(outcome, case, None)
        finally:
            _unmount(case)
        if reason:
            failures.append(f"{number}: {name} on a disk of {size} KiB: {reason}")
    return Result("disk", "full disk", count, tuple(failures), f"{refused} refused in one line")


def _mount(folder: Path, kibibytes: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode == 0


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def read_only_folders(server: Server, inputs: Path, count: int, rng: random.Random) -> Result:
    """The place of the output may not be written to."""
    failures = []
    for number in range(count):
        name = rng.choice(list(WRITERS))
        case = _fresh(inputs)
        case.chmod(0o555)
        outcome = server.run(WRITERS[name], case, obeys_modes=True)
        case.chmod(0o755)
        reason = "it was written" if outcome.code == 0 else _check_refusal(outcome, case, {}, "Permission denied")
        if reason:
            failures.append(f"{number}: {name}: {reason}")
    return Result("disk", "folder that may not be written", count, tuple(failures), f"{count} refused in one line")


def locked_folders(server: Server, inputs: Path, count: int, rng: random.Random) -> Result:
    """A second process on the folder of a first, which is killed in the end; then a third comes through."""
    failures = []
    locking = ("train", "compress", "inspect", "quickstart", "reproduce")
    for number in range(count):
        first, name = rng.choice(("train", "quickstart", "reproduce")), rng.choice(locking)
        case = _fresh(inputs)
        if name == "compress":
            first = "compress"
        with Server() as other:
            other.start(WRITERS[first] if first != "train" else (*WRITERS["train"], "--epochs", "100000"), case, timeout=600,
                        kill_after=None)
            lock = case / ("out/.lock" if first != "compress" else ".out.lock")
            deadline = time.monotonic() + 60
            while not lock.exists() and time.monotonic() < deadline:
                time.sleep(0.002)
            outcome = server.run((*WRITERS[name], *(("--overwrite",) if name in ("train", "compress") else ())), case)
            children = Path(f"/proc/{other.process.pid}/task/{other.process.pid}/children").read_text().split()
            for child in children:
                os.kill(int(child), signal.SIGKILL)
            other.wait()
        if "is in use by another mncompress process" not in outcome.error:
            failures.append(f"{number}: {name} beside {first}: exit code {outcome.code}, {outcome.stderr[-200:]}")
            continue
        shutil.rmtree(case / "out", ignore_errors=True)
        again = server.run(WRITERS[name], case)
        if again.code != 0 or any(case.rglob(".*")):
            failures.append(f"{number}: {name} after {first} was killed: exit code {again.code}, {again.stderr[-200:]}")
    return Result("disk", "two processes on one folder", count, tuple(failures), f"{count} refused in one line")


def interrupts(server: Server, inputs: Path, count: int, rng: random.Random) -> Result:
    """Ctrl-C at a random time of a command."""
    failures, hit = [], 0
    for number in range(count):
        name = rng.choice(list(WRITERS))
        case = _fresh(inputs)
        moment = rng.uniform(0.03, 2.0 if name != "train" else 0.3)
        outcome = server.run(WRITERS[name], case, kill_after=moment, signal=signal.SIGINT)
        hit += outcome.code != 0
        hidden = list(case.rglob(".*"))
        told = outcome.code == 0 or (outcome.code == 130 and outcome.error.startswith("interrupted"))
        if not told or hidden or find_broken(case):
            failures.append(f"{number}: {name} after {moment:.3f} s: exit code {outcome.code}, {outcome.stderr[-300:]} {hidden}")
    return Result("disk", "Ctrl-C", count, tuple(failures), f"{hit} told in one line")


def early_interrupts(scratch: Path, count: int, rng: random.Random) -> Result:
    """Ctrl-C while a command of its own process is still importing what it needs."""
    failures, hit = [], 0
    code = ("import sys, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from importlib.metadata import entry_points\n"
            "(entry,) = entry_points(group='console_scripts', name='mncompress'); print('up', flush=True)\n"
            "sys.exit(entry.load()(['train', '--data', 'digits', '--epochs', '1', '--hidden', '3', '--out', 'early']))")
    for number in range(count):
        with subprocess.Popen([sys.executable, "-P", "-c", code], cwd=scratch, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            moment = rng.uniform(0.05, 4.0)
            time.sleep(moment)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate()
        shutil.rmtree(scratch / "early", ignore_errors=True)
        hit += process.returncode == 130
        if process.returncode not in (0, 130) or "Traceback" in stderr or (process.returncode and len(stderr.splitlines()) > 3):
            failures.append(f"{number}: after {moment:.3f} s: exit code {process.returncode}, {stderr[-600:]}")
    return Result("disk", "Ctrl-C while importing", count, tuple(failures), f"{hit} told in one line")


