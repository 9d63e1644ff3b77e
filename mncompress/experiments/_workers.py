"""Independent computations in several processes at a time."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from mncompress.errors import TrainingError
from mncompress.memory import keep_freed_memory

Result = TypeVar("Result")


def run_in_workers(function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]],
                   workers: int) -> Iterator[tuple[int, Result]]:
    """Call a function with each of the arguments, in so many processes of their own.

    Args:
        function: of a module, as its processes import it.
        arguments: of each call.
        workers: processes at a time; they share the threads that torch uses here.

    Yields:
        The number of a call and its result, as they finish. If the consumer stops, a call raises, or this process ends, all
        workers end.

    Raises:
        TrainingError: a worker was ended from outside.
    """
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (max(1, torch.get_num_threads() // workers),))
    try:
        with _without_interruptions():      # which workers inherit: they are the parent's to handle
            numbers = {pool.submit(function, *given): number for number, given in enumerate(arguments)}
        for future in as_completed(numbers):
            yield numbers[future], future.result()
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            with contextlib.suppress(OSError):
                process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise TrainingError("a worker process was ended from outside, perhaps for want of memory; what was finished is kept: "
                                "continue with --resume, and fewer --workers") from None
        raise
    pool.shutdown()


@contextlib.contextmanager
def _without_interruptions() -> Iterator[None]:
    """Hold Ctrl-C back, in this process until the end and for good in those that it starts meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(threads: int) -> None:
    """Of a worker, whose process is ours."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, however that happened."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
