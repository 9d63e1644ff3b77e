"""Keeping a measurement on certain cores, where the operating system lets a process choose them."""

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from mncompress.errors import ConfigError


@contextlib.contextmanager
def pinned(count: int) -> Iterator[tuple[int, ...]]:
    """Keep this thread, and the threads and processes it starts meanwhile, on `count` cores; yields which.

    What was allowed before is allowed again at the end.

    Raises:
        ConfigError: the system has no such call, or this process may not use so many cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError("processes cannot be pinned to cores on this system; leave out --pin")
    before = os.sched_getaffinity(0)
    cores = choose_cores(before, count)
    try:
        os.sched_setaffinity(0, cores)
        yield cores
    finally:
        os.sched_setaffinity(0, before)


def choose_cores(allowed: Collection[int], count: int, physical: Callable[[int], object] | None = None) -> tuple[int, ...]:
    """`count` of the allowed cores: different physical ones as far as there are, the highest numbers first.

    Core 0 comes last since interrupts tend to be served there.

    Args:
        allowed: numbers of cores.
        count: how many.
        physical: which physical core a number belongs to; asked of the system where None.

    Raises:
        ConfigError: fewer are allowed.
    """
    if count > len(allowed):
        raise ConfigError(f"cannot pin {count} threads to different cores: this process may use {len(allowed)}; "
                          "give fewer --threads or leave out --pin")
    firsts: dict[object, int] = {}
    ordered = sorted(allowed, reverse=True)
    for core in ordered:
        firsts.setdefault((physical or _physical_core)(core), core)
    preferred = [*firsts.values(), *(core for core in ordered if core not in firsts.values())]
    return tuple(sorted(preferred[:count]))


def _physical_core(core: int) -> object:
    """What the logical cores of one physical core have in common; the number itself where the system does not tell."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return core
