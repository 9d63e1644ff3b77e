"""Memory and time over neurons and over rows: both must grow in proportion, up to 100 000 neurons and a million calibration rows.

Each size runs in a process of its own, on one thread. Reported are the slopes between the two largest sizes in double logarithm
(1 is proportional) of the seconds of each step and of the peak memory beyond what the process uses before it. Seconds are
those of the processor, page faults and all, which are the same however busy the machine is with other programs. The
rows come from a file mapped into memory, so that what is measured is what the steps themselves keep; `MemAvailable` counts such
pages as free, the resident set does not, so memory is that of the heap (`VmHWM` without mapped files is `RssAnon`).
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scenarios.result import Result
from scenarios.server import ROOT, Server

NEURONS, ROWS = (1_000, 10_000, 100_000), (10_000, 100_000, 1_000_000)
FEATURES, SAMPLES = 8, 2_000
STEEPEST = 1.15
"""Slope that still counts as proportional: caches and pages make small sizes a little cheaper."""
LEAST_SECONDS, LEAST_MIB = 0.2, 20.0
"""Below, a slope says nothing; nor does one of memory in a step that is shorter, since peaks are sampled every few milliseconds."""
TIMEOUT = 1500


def run(server: Server, scratch: Path, count: int, seed: int) -> Iterator[Result]:
    """Measure over neurons and over rows; the server is not needed. A count below 1000 is the share of the full sizes."""
    for what, sizes in (("neurons", NEURONS), ("rows", ROWS)):
        found: dict[int, dict[str, float]] = {}
        failures = []
        for size in sizes:
            done = measure(what, size, seed)
            if isinstance(done, str):
                failures.append(f"{size} {what}: {done}")
                break
            found[size] = done
        yield from summarize(what, found, failures)


def measure(what: str, size: int, seed: int) -> dict[str, float] | str:
    """Seconds and MiB of each step at one size, or why there are none."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-c", f"from scenarios.growth import work; work({what!r}, {size}, {seed})"]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return f"more than {TIMEOUT} s"
    if done.returncode:
        return f"exit code {done.returncode}, {' '.join(done.stderr[-400:].split())}"
    return dict(json.loads(done.stdout.splitlines()[-1]))


def summarize(what: str, found: dict[int, dict[str, float]], failures: list[str]) -> Iterator[Result]:
    """One result for each step: its seconds and memory at each size, and their slopes."""
    sizes = sorted(found)
    steps = [name.removesuffix(" s") for name in found[sizes[0]] if name.endswith(" s")] if sizes else []
    for step in steps:
        parts, steep = [], list(failures) if step == steps[-1] else []
        for unit, least in (("s", LEAST_SECONDS), ("MiB", LEAST_MIB)):
            values = [found[size][f"{step} {unit}"] for size in sizes]
            sampled = unit == "s" or all(found[size][f"{step} s"] >= LEAST_SECONDS for size in sizes[-2:])
            slope = slope_of(sizes, values, least) if sampled else None
            told = "" if slope is None else f", slope {slope:.2f}"
            parts.append(" / ".join(f"{value:.3g}" for value in values) + f" {unit}{told}")
            if slope is not None and slope > STEEPEST:
                steep.append(f"{step}: {unit} grow with slope {slope:.2f}")
        counts = " / ".join(f"{size:,}" for size in sizes)
        yield Result("growth", f"{step}, {counts} {what}", len(sizes), tuple(steep), "; ".join(parts))


def slope_of(sizes: list[int], values: list[float], least: float) -> float | None:
    """The slope between the two largest sizes in double logarithm; None where a value is too small to tell."""
    if len(values) < 2 or values[-1] < least:
        return None
    return math.log(values[-1] / max(values[-2], least / 10)) / math.log(sizes[-1] / sizes[-2])


def work(what: str, size: int, seed: int) -> None:
    """The process of one size, which keeps freed memory as the command line does: prints what each step took."""
    from mncompress.memory import keep_freed_memory

    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps((work_on_neurons if what == "neurons" else work_on_rows)(size, seed, Path(folder))))


def tell(line: str) -> None:
    """Progress, for whoever looks."""
    print(line, file=sys.stderr, flush=True)


class Meter:
    """Seconds of the processor and peak heap of steps, by name."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def step(self, name: str, call: Callable[[], Any]) -> Any:
        """Run `call` and note what it took."""
        from mncompress.memory import give_back_freed_memory

        give_back_freed_memory()
        base, peak, stop = _heap_mib(), [_heap_mib()], threading.Event()

        def watch() -> None:
            while not stop.wait(0.005):
                peak[0] = max(peak[0], _heap_mib())

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.process_time()
        try:
            return call()
        finally:
            self.found[f"{name} s"] = time.process_time() - started
            stop.set()
            watcher.join()
            self.found[f"{name} MiB"] = max(peak[0], _heap_mib()) - base
            print(name, self.found[f"{name} s"], self.found[f"{name} MiB"], file=sys.stderr, flush=True)


def _heap_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


def make_splits(folder: Path, rows: int, seed: int) -> Any:
    """A regression whose calibration split has so many rows, mapped from a file; the others are small."""
    from mncompress.data import Dataset, Split

    rng = np.random.default_rng(seed)

    def target(x: np.ndarray) -> np.ndarray:
        return np.sin(x[:, :1]) + 0.1 * x[:, 1:2]

    mapped = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, FEATURES))
    for start in range(0, rows, 65_536):
        part = mapped[start:start + 65_536]
        part[:] = rng.normal(size=part.shape)
    x = [rng.normal(size=(SAMPLES, FEATURES)).astype(np.float32) for _ in range(3)]
    splits = [Split(values, target(values).astype(np.float32)) for values in (x[0], mapped, x[1], x[2])]
    return Dataset("grown", "regression", *splits, 1, "sha256:" + "0" * 64)


def work_on_neurons(size: int, seed: int, folder: Path) -> dict[str, float]:
    """One hidden layer of so many neurons: made and trained for an epoch, calibrated, compressed, exported."""
    import torch

    from mncompress.calibration import calibrate
    from mncompress.compression import compress_network
    from mncompress.export import write_onnx
    from mncompress.training._trainer import Trainer
    from mncompress.types import Budget, TrainConfig

    torch.set_num_threads(1)
    dataset, meter = make_splits(folder, SAMPLES, seed), Meter()
    config = TrainConfig(activation="vaf", inner="tanh", inner_width=3, hidden=(size,), batch_size=256, device="cpu", seed=seed)
    trainer = meter.step("initialize", lambda: Trainer((config,), dataset))
    meter.step("train an epoch", lambda: list(trainer.run_epoch()))
    network = _network_of(trainer)
    meter.step("calibrate", lambda: calibrate(network, dataset.calibration.x, dataset.train.x))
    compressed = meter.step("compress", lambda: compress_network(network, dataset, Budget(max_logit_error=1e-2), tell))
    meter.step("export", lambda: write_onnx(compressed.network, folder / "m.onnx", opset_version=18, inline=False, metadata={}))
    return meter.found


def measure_calibration(size: int, seed: int) -> dict[str, float]:
    """Calibration of so many neurons, in this process."""
    from mncompress.calibration import calibrate
    from mncompress.training._trainer import Trainer
    from mncompress.types import TrainConfig

    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_splits(Path(folder), SAMPLES, seed)
        config = TrainConfig(activation="vaf", inner="tanh", inner_width=3, hidden=(size,), init="uniform", device="cpu", seed=seed)
        network = _network_of(Trainer((config,), dataset))
        meter.step("calibrate", lambda: calibrate(network, dataset.calibration.x, dataset.train.x))
    return meter.found


def _network_of(trainer: Any) -> Any:
    from mncompress.checkpoint import make_network

    state = {name: value[0] if name.startswith("body.") else value
             for name, value in trainer.population.state(trainer.networks()).items()}
    return make_network(trainer.spec, state)


def work_on_rows(size: int, seed: int, folder: Path) -> dict[str, float]:
    """So many calibration rows through a network of 64 neurons: calibrated, compressed."""
    import torch

    from mncompress.calibration import calibrate
    from mncompress.compression import compress_network
    from mncompress.training._trainer import Trainer
    from mncompress.types import Budget, TrainConfig

    torch.set_num_threads(1)
    dataset, meter = make_splits(folder, size, seed), Meter()
    config = TrainConfig(activation="vaf", inner="tanh", inner_width=3, hidden=(64,), batch_size=256, device="cpu", seed=seed)
    network = _network_of(Trainer((config,), dataset))
    meter.step("calibrate", lambda: calibrate(network, dataset.calibration.x, dataset.train.x))
    meter.step("compress", lambda: compress_network(network, dataset, Budget(max_logit_error=1e-2), tell))
    return meter.found
