"""Ctrl-C while the command line is still loading ends it at once; behind that it is an exception, and noted.

Nothing was begun that would have to be tidied up, and what is being imported cannot be trusted to let an exception through: some
libraries catch it and go on with half a module. Later some make another exception of it, such as pybind11's conversions.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_noted = threading.Event()


def _end(number: int, frame: object) -> None:
    os.write(2, b"mncompress: interrupted\n")
    os._exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _noted.set()
    signal.default_int_handler(number, frame)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process at Ctrl-C, until `begin_work`; a program that has its own way with Ctrl-C keeps it."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def begin_work() -> None:
    """From here on Ctrl-C is an exception again, which tidies up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, _interrupt)


def was_interrupted() -> bool:
    """Whether there was a Ctrl-C since `begin_work`."""
    return _noted.is_set()
