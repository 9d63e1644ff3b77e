"""What tests of Triton kernels share: the interpreter in a process of its own, and what compiled code uses."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def check_interpreted(file: str) -> None:
    """Run the tests `test_kernels_*` of a file in Triton's interpreter, which has to be chosen before triton is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", "test_kernels_"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


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
