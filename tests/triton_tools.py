"""What tests of kernels share: to run once more in another process, as Triton's interpreter has to be chosen before triton is
imported; and what compiled code uses."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_again(file: str, selection: str, **environment: str) -> None:
    """That tests of a file pass in a process with another environment."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", selection]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def run_interpreted(file: str, selection: str) -> None:
    """That tests of a file pass in Triton's interpreter."""
    run_again(file, selection, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


def resources(cubin: bytes, file: Path) -> tuple[int, int, int]:
    """Registers, bytes of stack and of local memory of a thread, of a compiled kernel that is written to `file`."""
    import triton

    file.write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    usage = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage)
    assert found is not None, usage
    registers, stack, local = map(int, found.groups())
    return registers, stack, local
