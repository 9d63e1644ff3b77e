"""What several test files share."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch

MOST_WORKERS = 4
"""Each has torch in memory."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run the whole suite on up to four cores; tests that are named, in this process."""
    is_whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, cores) if is_whole else 0


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread, so that sums come out the same every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and tests of Ctrl-C need a process that does not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
