"""Accuracy and latency of ONNX files.

**How a time is measured.** Under one condition (provider, threads, batch) the sessions of all models live side by side
and see the same rows. Each is warmed up; then come rounds, and in every round each model gives one sample, in an order
drawn anew. A sample is one untimed run, which brings the caches back to this model, and then so many timed runs that
together they last at least `SAMPLE_US`; its value is their mean. Drift of the machine thus meets all models alike, and
the ratio of two models is taken within a round, where it cancels: a reported ratio is the median of the rounds' ratios,
not the ratio of two medians. The 95th percentile is over samples.

Input and output are bound to buffers made beforehand, on the device for CUDA, so copies are not measured and the cost
of the Python call is small and the same for every model. A run on CUDA returns when the device is done.

With more than one thread, the workers of a session spin for up to a tenth of a second after its run and take the cores
from the next model's. So there each sample begins with a pause of `SPIN_SECONDS`, and lasts longer (`POOL_SAMPLE_US`);
switching the spinning off instead would measure something that users do not run.
"""

import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy.special import bdtr, log_softmax

from mncompress.errors import ConfigError, DataError, RuntimeProviderError
from mncompress.runtime import ModelInfo, check_providers, make_session, model_info, run
from mncompress.types import LatencyRow, PathLike

RELU_TWIN = "relu_twin"
"""The model that `ratio_to_relu_twin` is held against, by its name in `paths`."""
MIN_ROUNDS = 6
"""The fewest rounds for which order statistics give a 95 % interval of the median: 2 · 2⁻⁶ < 0.05 < 2 · 2⁻⁵."""
SAMPLE_US, POOL_SAMPLE_US = 50.0, 2000.0
"""Shortest sample with one thread (the clock's own cost is then below 1 %) and with more (worth its pause)."""
SPIN_SECONDS = 0.12
WARM_UP_RUNS, WARM_UP_SECONDS = 3, 0.05
"""A model is warm after both: the first runs allocate and choose kernels, and clock frequencies take a while."""

Clock = Callable[[], int]
"""Nanoseconds from an arbitrary start, as `time.perf_counter_ns`."""
Progress = Callable[[str], object]
RunOnce = Callable[[], object]
"""One inference on bound buffers."""


@dataclass(frozen=True)
class Measurement:
    """The times of several models under one condition."""

    provider: str
    threads: int
    batch: int
    models: tuple[str, ...]
    samples_us: NDArray[np.float64]
    """Microseconds per run, shape (models, rounds); a column's samples were taken one right after another."""


@dataclass(frozen=True)
class Ratio:
    """How many times as long one model takes as another, with the 95 % interval of the median over rounds.

    The interval covers the noise between rounds only. Where a session's buffers happen to lie stays the same for all of
    them, and may alone make two sessions of one file differ by a few per cent.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """How well a model does on a data set."""

    samples: int
    accuracy: float | None
    """Fraction of samples whose largest output is the label's; None for regression."""
    loss: float
    """Mean cross-entropy in nats, or the mean squared error over samples and targets."""
    rmse: float | None
    """Root of the mean squared error; None for classification."""


def evaluate(model: PathLike | onnxruntime.InferenceSession, x: NDArray[Any], y: NDArray[Any]) -> Evaluation:
    """Run a model on raw features `x` (n, d) and score it against `y`: see `score`.

    Raises:
        RuntimeProviderError: the file cannot be opened, or is no model of rows.
        DataError: as `run` and `score`, or the labels are of another task than the model.
    """
    session = model if isinstance(model, onnxruntime.InferenceSession) else make_session(model)
    info = model_info(session)
    if info.output in ("logits", "output") and info.is_regression == (y.dtype.kind in "iu"):
        task, found = ("regression", "integer labels") if info.is_regression else ("classification", "float targets")
        raise DataError(f"the model is for {task}, the data has {found}; use the data set the model was trained on")
    return score(run(session, x), y)


def score(outputs: NDArray[Any], y: NDArray[Any]) -> Evaluation:
    """Score outputs (n, classes) against integer labels (n,), or outputs (n, targets) against floats of that shape.

    Computed in float64. A single target may be given as (n,).

    Raises:
        DataError: shapes do not match, a label is not one of the model's classes, or an output is not finite.
    """
    outputs = outputs.astype(np.float64)
    samples, width = outputs.shape
    is_regression = y.dtype.kind == "f"
    if is_regression and y.ndim == 1:
        y = y[:, np.newaxis]
    expected = outputs.shape if is_regression else (samples,)
    if y.dtype.kind not in "iuf" or y.shape != expected:
        raise DataError(f"labels must be integers ({samples},) or float targets ({samples}, {width}) for this model "
                        f"and data, got {y.shape = }, {y.dtype = }")
    if not samples:
        raise DataError("the data set is empty; nothing can be evaluated")
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.all():
        raise DataError(f"the model returns NaN or infinity for {np.sum(~finite)} of {samples} samples, first for "
                        f"sample {np.argmin(finite)}; check that sample's features")
    if is_regression:
        loss = float(np.mean((outputs - y) ** 2))
        return Evaluation(samples, None, loss, math.sqrt(loss))
    if y.min() < 0 or y.max() >= width:
        raise DataError(f"labels run from {y.min()} to {y.max()}, the model has the classes 0 to {width - 1}; "
                        "use the data set the model was trained on")
    loss = -float(np.mean(log_softmax(outputs, axis=1)[np.arange(samples), y]))
    return Evaluation(samples, float(np.mean(outputs.argmax(axis=1) == y)), loss, None)


def benchmark(paths: Mapping[str, PathLike], *, providers: Sequence[str] = ("cpu",),
              batch_sizes: Sequence[int] = (1, 32, 1024), threads: Sequence[int] = (1,), rounds: int | None = None,
              seconds: float = 2.0, inputs: NDArray[Any] | None = None, seed: int = 0,
              clock: Clock = time.perf_counter_ns, progress: Progress | None = None) -> tuple[LatencyRow, ...]:
    """Measure under every combination of provider, number of threads and batch size: see `measure`, `summarize`.

    Args:
        paths: a file per model name.
        providers: short names, each measured by itself.
        batch_sizes: rows per run.
        threads: sizes of the session's pool.
        rounds: see `measure`.
        seconds: for each combination: see `measure`.
        inputs: see `measure`.
        seed: see `measure`.
        clock: see `measure`.
        progress: called with a line of text before each combination.

    Raises:
        ConfigError: as `measure`.
        DataError: as `measure`.
        RuntimeProviderError: as `measure`; for a provider that is not available, before anything is measured.
    """
    if reason := check_providers(providers):
        raise RuntimeProviderError(reason)
    rows: list[LatencyRow] = []
    for provider, count, batch in itertools.product(providers, threads, batch_sizes):
        if progress:
            progress(f"benchmark: provider {provider}, threads {count}, batch {batch}")
        rows += summarize(measure(paths, provider=provider, threads=count, batch=batch, rounds=rounds, seconds=seconds,
                                  inputs=inputs, seed=seed, clock=clock))
    return tuple(rows)


def measure(paths: Mapping[str, PathLike], *, provider: str = "cpu", threads: int = 1, batch: int = 1,
            rounds: int | None = None, seconds: float = 2.0, inputs: NDArray[Any] | None = None, seed: int = 0,
            clock: Clock = time.perf_counter_ns) -> Measurement:
    """Time all models under one condition; see the module for how.

    Args:
        paths: a file per model name.
        provider: short name.
        threads: size of each session's pool.
        batch: rows per run.
        rounds: samples per model, at least `MIN_ROUNDS`; as many as fit into `seconds` where None.
        seconds: time for the rounds of all models together, warm-up aside; `MIN_ROUNDS` are made even if over it.
        inputs: raw rows (n, d), repeated cyclically to the batch; standard normal numbers where None.
        seed: determines the inputs and the order within rounds.
        clock: nanoseconds.

    Raises:
        ConfigError: an option is out of its range, or there is no model.
        DataError: the models, or the models and the inputs, differ in width.
        RuntimeProviderError: the provider is not available, or a file cannot be opened.
    """
    _check_options(paths, batch, rounds, seconds)
    sessions = {name: make_session(path, providers=(provider,), threads=threads) for name, path in paths.items()}
    infos = {name: model_info(session, name=str(paths[name])) for name, session in sessions.items()}
    if reason := check_same_interface(infos):
        raise DataError(reason)
    rng = np.random.default_rng(seed)
    x = _make_rows(next(iter(infos.values())).in_features, batch, inputs, rng)
    runs = [_bind(session, x, provider) for session in sessions.values()]
    samples_us = sample_rounds(runs, rounds=rounds, seconds=seconds, clock=clock, rng=rng,
                               sample_us=SAMPLE_US if threads == 1 else POOL_SAMPLE_US,
                               pause_seconds=0 if threads == 1 else SPIN_SECONDS)
    return Measurement(provider, threads, batch, tuple(paths), samples_us)


def check_same_interface(infos: Mapping[str, ModelInfo]) -> str | None:
    """The reason why the models cannot be compared on the same rows, or None."""
    first, *others = infos
    for name in others:
        for field in ("in_features", "out_features"):
            ours, theirs = getattr(infos[first], field), getattr(infos[name], field)
            if ours != theirs:
                return (f"models cannot be compared: {first} has {ours} {field}, {name} has {theirs}; "
                        "benchmark models of the same data set")
    return None


def sample_rounds(runs: Sequence[RunOnce], *, rounds: int | None, seconds: float, clock: Clock,
                  rng: np.random.Generator, sample_us: float = SAMPLE_US,
                  pause_seconds: float = 0) -> NDArray[np.float64]:
    """Warm up, then sample every run once a round, in an order drawn anew; returns microseconds (runs, rounds).

    Makes `rounds` rounds, or where None as many as begin before `seconds` are over, but at least `MIN_ROUNDS`. Before
    each sample it sleeps for `pause_seconds`.
    """
    repeats = [repeats_for(_warm_up(run_once, clock), sample_us) for run_once in runs]
    columns: list[NDArray[np.float64]] = []
    end = clock() + seconds * 1e9
    while len(columns) < (rounds or MIN_ROUNDS) or (rounds is None and clock() < end):
        column = np.empty(len(runs))
        for index in rng.permutation(len(runs)):
            if pause_seconds:
                time.sleep(pause_seconds)
            column[index] = _time_sample(runs[index], repeats[index], clock)
        columns.append(column)
    return np.stack(columns, axis=1)


def repeats_for(run_us: float, sample_us: float) -> int:
    """How many runs of about `run_us` make a sample of at least `sample_us`."""
    return max(1, math.ceil(sample_us / max(run_us, 0.1)))


def summarize(measurement: Measurement) -> tuple[LatencyRow, ...]:
    """One row per model: median, 95th percentile and, where a `relu_twin` was measured, the ratio to it."""
    has_twin = RELU_TWIN in measurement.models
    return tuple(
        LatencyRow(name, measurement.provider, measurement.threads, measurement.batch,
                   median_us=float(np.median(samples)), p95_us=float(np.percentile(samples, 95)), runs=len(samples),
                   ratio_to_relu_twin=ratio(measurement, name, RELU_TWIN).median if has_twin else None)
        for name, samples in zip(measurement.models, measurement.samples_us, strict=True))


def ratio(measurement: Measurement, model: str, reference: str) -> Ratio:
    """How many times as long `model` takes as `reference`: the median of the rounds' ratios, and its interval.

    `ratio(m, "original", "compressed")` is the speed-up of the compressed model.

    Raises:
        ConfigError: a name was not measured.
    """
    for name in (model, reference):
        if name not in measurement.models:
            raise ConfigError(f"model {name!r} was not measured; choose from {', '.join(measurement.models)}")
    rows = [measurement.samples_us[measurement.models.index(name)] for name in (model, reference)]
    ratios = rows[0] / rows[1]
    return Ratio(float(np.median(ratios)), *median_interval(ratios))


def median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """A 95 % confidence interval of the median, from order statistics.

    For n independent values the true median lies below the k-th smallest with probability P(Bin(n, ½) < k), whatever
    the distribution. The interval runs from the k-th smallest to the k-th largest, with the largest k for which this is
    at most 2.5 %. (David, Nagaraja: Order Statistics, 3rd ed., section 7.1, doi:10.1002/0471722162.)
    """
    count = len(values)
    below = int(np.sum(bdtr(np.arange(count), count, 0.5) <= 0.025))
    assert below > 0, f"{count} values have no 95 % interval; MIN_ROUNDS is {MIN_ROUNDS}"
    ordered = np.sort(values)
    return float(ordered[below - 1]), float(ordered[count - below])


def _check_options(paths: Mapping[str, PathLike], batch: int, rounds: int | None, seconds: float) -> None:
    if not paths:
        raise ConfigError("no model to benchmark; give at least one ONNX file")
    if batch < 1:
        raise ConfigError(f"a batch size must be at least 1, got {batch}")
    if rounds is not None and rounds < MIN_ROUNDS:
        raise ConfigError(f"rounds must be at least {MIN_ROUNDS} for an interval of the median, got {rounds}")
    if not 0 < seconds < math.inf:
        raise ConfigError(f"seconds must be positive and finite, got {seconds}")


def _make_rows(width: int, batch: int, inputs: NDArray[Any] | None, rng: np.random.Generator) -> NDArray[np.float32]:
    if inputs is None:
        return rng.standard_normal((batch, width), dtype=np.float32)
    if inputs.ndim != 2 or inputs.shape[1] != width or not len(inputs):
        raise DataError(f"inputs must be rows of the models' {width} features, got {inputs.shape = }")
    return np.resize(inputs, (batch, width)).astype(np.float32)


def _bind(session: onnxruntime.InferenceSession, x: NDArray[np.float32], device: str) -> RunOnce:
    """One inference on `x` with both buffers on the device: they belong to the binding, which the result keeps."""
    info = model_info(session)
    binding = session.io_binding()
    source = onnxruntime.OrtValue.ortvalue_from_shape_and_type(x.shape, np.float32, device, 0)
    source.update_inplace(x)
    result = onnxruntime.OrtValue.ortvalue_from_shape_and_type((len(x), info.out_features), np.float32, device, 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, source)
    binding.bind_ortvalue_output(info.output, result)
    return functools.partial(session.run_with_iobinding, binding)


def _warm_up(run_once: RunOnce, clock: Clock) -> float:
    """Run until warm; returns the microseconds of the fastest run."""
    fastest, end, count = math.inf, clock() + WARM_UP_SECONDS * 1e9, 0
    while count < WARM_UP_RUNS or clock() < end:
        fastest, count = min(fastest, _time(run_once, 1, clock)), count + 1
    return fastest


def _time_sample(run_once: RunOnce, repeats: int, clock: Clock) -> float:
    """Microseconds per run over `repeats` runs, after one untimed."""
    run_once()
    return _time(run_once, repeats, clock)


def _time(run_once: RunOnce, repeats: int, clock: Clock) -> float:
    begin = clock()
    for _ in range(repeats):
        run_once()
    return (clock() - begin) / repeats / 1e3
