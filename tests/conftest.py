"""What several test files share."""

import signal
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch
from triton_tools import INTERPRETED_TEST, interpreter


def pytest_runtestloop(session: pytest.Session) -> None:
    """Let the tests of Triton's interpreter, which take long, run beside the others."""
    for item in session.items:
        is_waiting = item.name == INTERPRETED_TEST and hasattr(getattr(item, "module", None), "interpreter")
        if is_waiting and find_spec("triton") and not session.config.option.collectonly:
            interpreter.start(str(item.path))


def pytest_sessionfinish() -> None:
    """Wait for none of them."""
    interpreter.stop()


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
