"""Memory that is kept: a large block that is made again costs no page faults, and only the commands that gain ask for it."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mncompress import memory

MIB = 2**20
ON_GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
SMALL_PAGES = """
import ctypes, resource, sys
import numpy as np
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)     # PR_SET_THP_DISABLE: with huge pages there are few faults, or many, as it happens
"""
COUNT = SMALL_PAGES + """
from mncompress.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
np.ones(64 * 2**20, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(64 * 2**20, np.uint8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize())
"""


RESIDENT = SMALL_PAGES + """
from pathlib import Path
from mncompress.memory import free_bytes, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

keep_freed_memory()
before, array = resident(), np.ones(256 * 2**20, np.uint8)
del array
kept = resident() - before
free_bytes()
print(kept, resident() - before)
"""


def run(source: str, *args: str) -> list[int]:
    """The numbers that a new process prints."""
    done = subprocess.run([sys.executable, "-c", source, *args], capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


@ON_GLIBC
def test_freed_memory_is_used_again() -> None:
    assert run(COUNT, "ordinary") >= [5 * 64 * MIB]      # of five arrays of 64 MiB, made and freed one after another
    assert run(COUNT, "keep") < [8 * MIB]


@ON_GLIBC
def test_kept_memory_counts_as_free() -> None:
    kept, after = run(RESIDENT)
    assert kept >= 256 * MIB
    assert after < 16 * MIB


GROUPS = {
    "version 2, of the outer group": ("0::/a/b\n", {
        "a": {"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 1\ninactive_file 50\n"},
        "a/b": {"memory.max": "max", "memory.current": "600", "memory.stat": "anon 1\ninactive_file 40\n"}}, [350]),
    "version 2, seen from inside": ("0::/\n", {
        ".": {"memory.max": "1000", "memory.current": "700", "memory.stat": "inactive_file 50\n"}}, [350]),
    "version 1, where the folder of the host is not seen": ("3:cpu:/x\n4:memory:/docker/x\n0::/x\n", {
        "memory": {"memory.limit_in_bytes": "900", "memory.usage_in_bytes": "700",
                   "memory.stat": "inactive_file 7\ntotal_inactive_file 50\n"}}, [250]),
    "no limit": ("0::/\n", {".": {"memory.max": "max", "memory.current": "700", "memory.stat": "inactive_file 50\n"}}, []),
    "no groups": ("", {}, []),
}


@pytest.mark.parametrize(("membership", "groups", "free"), GROUPS.values(), ids=GROUPS)
def test_limits_of_control_groups(tmp_path: Path, membership: str, groups: dict[str, dict[str, str]], free: list[int]) -> None:
    (tmp_path / "cgroup").write_text(membership)
    for folder, files in groups.items():
        (tmp_path / "root" / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (tmp_path / "root" / folder / name).write_text(text)
    assert memory._group_limits(tmp_path / "cgroup", tmp_path / "root") == free


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("loaded"))
    assert memory.keep_freed_memory() is False


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert memory.keep_freed_memory() is False


@pytest.mark.parametrize(("command", "kept"), [
    ("quickstart", True), ("train", True), ("compress", True), ("reproduce", True),
    ("evaluate", False), ("benchmark", False), ("inspect", False)])
def test_who_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch, command: str, kept: bool) -> None:
    from mncompress.cli import _app

    calls: list[None] = []
    monkeypatch.setattr(_app, "keep_freed_memory", lambda: calls.append(None))
    result = CliRunner().invoke(_app.app, [command, "--no-such-option"])
    assert result.exit_code == 2
    assert bool(calls) == kept
