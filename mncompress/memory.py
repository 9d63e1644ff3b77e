"""Main memory: how much can still be had, so that what cannot fit is refused before anything is allocated, and keeping it.

Training, calibration and compression allocate and free arrays of many MiB in every operation. glibc maps blocks above a threshold,
at most 32 MiB, from the system each time, which then hands over every page anew, by a page fault and filled with zeros. That
can take more time than the arithmetic, and `keep_freed_memory` ends it.
"""

import contextlib
import ctypes
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of `mallopt`, from glibc's malloc.h: free bytes above which the heap shrinks, blocks that may be mapped."""
MOST_KEPT = 2**31 - 1
"""Bytes: what fits into the C int that `mallopt` takes."""
GROUP_FILES = {False: ("memory.max", "memory.current", "inactive_file"),
               True: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")}
"""Of a control group, by whether it is one of version 1: its limit, what it uses, and what of that are files nobody uses."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next allocations.

    It holds for everything in the process until its end, and the process then stays near its peak size, which is larger too: blocks
    of different sizes leave gaps. So it is left to whoever owns the process: the command line calls it where it trains or
    compresses, and `experiments` in workers of its own. Wide layers gain most: with 100 000 neurons most of an epoch's time was
    page faults.

    Returns:
        Whether the C library is glibc. Elsewhere nothing changes.
    """
    libc = _load_glibc()
    return libc is not None and all([libc.mallopt(M_MMAP_MAX, 0), libc.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)])


def give_back_freed_memory() -> None:
    """Return to the system what this process has freed and kept; where the C library is not glibc, nothing happens."""
    if libc := _load_glibc():
        libc.malloc_trim(0)


def _load_glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def free_bytes() -> int | None:
    """Main memory that this process can still have, with the limits of its container and its shell; None where nobody tells.

    What the process has freed and kept counts too: it is given back first.
    """
    give_back_freed_memory()
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
        return min([free, *_limits()])
    return None


def _limits() -> list[int]:
    """What a container or the shell allows, where they allow less than all."""
    found = _group_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            found.append(soft - used)
    return found


def _group_limits(membership: Path, root: Path) -> list[int]:
    """What each control group of this process, from its own up to the outermost, still allows: cgroups(7), versions 1 and 2.

    Pages of files that nobody has used lately count as free, as they do in the machine's own MemAvailable.
    """
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = root / "memory" if controllers else root
            limit, used, cache = GROUP_FILES[bool(controllers)]
            own = top / path.lstrip("/")
            for folder in (own, *own.parents):
                with contextlib.suppress(OSError, ValueError, StopIteration):       # such as "max", which is no number
                    lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                    unused = int(next(line for line in lines if line.startswith(cache + " ")).split()[1])
                    found.append(int((folder / limit).read_text()) - int((folder / used).read_text()) + unused)
                if folder == top:
                    break
    return found
