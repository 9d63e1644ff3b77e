"""Independent computations in several processes at a time."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def run_in_workers(function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]],
                   workers: int) -> Iterator[tuple[int, Result]]:
    """Call a function with each of the arguments, in so many processes of their own.

    Args:
        function: of a module, as its processes import it.
        arguments: of each call.
        workers: processes at a time; each gets its share of the machine's processors.

    Yields:
        The number of a call and its result, as they finish. If the consumer stops, or a call raises, all processes end.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (threads,))
    try:
        numbers = {pool.submit(function, *given): number for number, given in enumerate(arguments)}
        for future in as_completed(numbers):
            yield numbers[future], future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            with contextlib.suppress(OSError):
                process.terminate()
        raise
    pool.shutdown()


def _start(threads: int) -> None:
    """Of a worker: an interruption is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
