"""What tests of Triton kernels share: the interpreter in a process of its own, and what compiled code uses."""

import os
import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent


INTERPRETED_TEST = "test_interpreted_kernels_pass"


class Interpreter:
    """Runs the tests `test_kernels_*` of files in Triton's interpreter, which has to be chosen before triton is imported: each file
    in a process of its own, one after another, while other tests run."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.runs: dict[str, Future[tuple[int, str]]] = {}
        self.process: subprocess.Popen[str] | None = None

    def start(self, file: str) -> None:
        """Have a file's turn come."""
        self.runs[file] = self.pool.submit(self._run, file)

    def check(self, file: str) -> None:
        """That a file's tests pass."""
        if file not in self.runs:
            self.start(file)
        status, output = self.runs[file].result()
        assert status == 0, output
        assert "passed" in output

    def stop(self) -> None:
        """End what nobody waits for any more."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        if self.process is not None:
            self.process.kill()

    def _run(self, file: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", "test_kernels_"]
        environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
        with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT) as process:
            self.process = process
            output, _ = process.communicate()
        self.process = None
        return process.returncode, output


interpreter = Interpreter()


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
