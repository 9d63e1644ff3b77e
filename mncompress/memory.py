"""How much memory can still be had, so that what cannot fit is refused before anything is allocated."""

import contextlib
import sys
from pathlib import Path


def free_bytes() -> int | None:
    """Main memory that this process can still have, with the limits of its container and its shell; None where nobody tells."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
        return min([free, *_limits()])
    return None


def _limits() -> list[int]:
    """What a container or the shell allows, where they allow less than all."""
    found = []
    with contextlib.suppress(OSError, ValueError):      # "max" is no number
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            found.append(soft - used)
    return found
