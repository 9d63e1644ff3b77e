"""The times of several models under one condition."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mncompress.benchmark import _inputs
from mncompress.benchmark._affinity import pinned
from mncompress.benchmark._inputs import Array, Specs
from mncompress.benchmark._sampling import (
    POOL_SAMPLE_US,
    REAL_CLOCK,
    SAMPLE_US,
    Clock,
    Rounds,
    RunOnce,
    sample_rounds,
)
from mncompress.benchmark._sessions import bind, feed, run_once
from mncompress.benchmark._settings import SESSIONS, Settings
from mncompress.benchmark._statistics import Ratio, make_ratio, signed_rank_interval, split_groups
from mncompress.errors import ConfigError, DataError, RuntimeProviderError
from mncompress.runtime import check_providers, describe_error, make_session
from mncompress.types import LatencyRow, PathLike

RELU_TWIN = "relu_twin"
"""The model that `ratio_to_relu_twin` is held against, by its name in `paths`."""
FIRST_WARM_SECONDS = 0.05
"""The least warm-up of the first sessions: clock frequencies take a while."""


@dataclass(frozen=True)
class Measurement:
    """The times of several models under one condition."""

    provider: str
    threads: int
    batch: int
    models: tuple[str, ...]
    samples_us: NDArray[np.float64]
    """Microseconds per run, shape (models, rounds); a column's samples were taken one right after another."""
    starts: tuple[int, ...]
    """The rounds at which all sessions were opened anew; the first is 0."""
    runs_per_sample: tuple[int, ...]
    """For each model, the most runs that a sample is the mean of."""
    unstable: tuple[str, ...] = ()
    """Models that were still getting faster when their warm-up was given up."""
    tf32: bool = False
    """Whether matrices were multiplied in TF32."""


@dataclass(frozen=True)
class Condition:
    """A provider, a number of threads, a batch size, and whether CUDA multiplies matrices in TF32."""

    provider: str
    threads: int
    batch: int
    tf32: bool = False

    def __str__(self) -> str:
        return f"provider {self.provider}{' in TF32' if self.tf32 else ''}, threads {self.threads}, batch {self.batch}"


def measure(paths: Mapping[str, PathLike], *, provider: str = "cpu", threads: int = 1, batch: int = 1,
            rounds: int | None = None, seconds: float = 2.0, sessions: int = SESSIONS,
            inputs: NDArray[Any] | Mapping[str, Array] | None = None, seed: int = 0, tf32: bool = False,
            clock: Clock = REAL_CLOCK) -> Measurement:
    """Time all models under one condition; see the package for how.

    Args:
        paths: a file per model name.
        provider: short name.
        threads: size of each session's pool.
        batch: rows per run.
        rounds: samples per model, rounded up to a multiple of `sessions`; as many as fit into `seconds` where None.
        seconds: time for the rounds of all models together, warm-up aside; at least one round of each session is made.
        sessions: how often all models are opened anew, at least 6.
        inputs: values (rows, ...) by input name, or those of the only input, repeated cyclically to the batch; drawn where None.
        seed: determines drawn inputs and all orders.
        tf32: whether CUDA multiplies matrices in TF32.
        clock: passes time.

    Raises:
        ConfigError: an option is out of its range or not for this provider, there is no model, or a dimension besides the batch is
            symbolic.
        DataError: the models' inputs differ, or the given ones do not fit.
        RuntimeProviderError: the provider is not available, or a file cannot be opened or run.
    """
    settings = Settings((provider,), (batch,), (threads,), seconds, rounds, sessions, seed, tf32=tf32)
    specs = read_models(paths, settings)
    condition = Condition(provider, threads, batch, tf32)
    feeds = make_feeds(specs, condition, settings, name_arrays(inputs, specs))
    return measure_condition(paths, condition, settings, feeds, run_models(paths, condition, feeds), clock)


def read_models(paths: Mapping[str, PathLike], settings: Settings) -> dict[str, Specs]:
    """The inputs of every model, read through the first of the providers.

    Raises:
        ConfigError: there is no model.
        RuntimeProviderError: a provider is not available, a file cannot be opened, or an input is no plain tensor.
    """
    if not paths:
        raise ConfigError("no model to benchmark; give at least one ONNX file")
    if reason := check_providers(settings.providers):
        raise RuntimeProviderError(reason)
    return {name: _inputs.read_specs(make_session(path, providers=settings.providers[:1]), name=str(path))
            for name, path in paths.items()}


def name_arrays(inputs: NDArray[Any] | Mapping[str, Array] | None, specs: Mapping[str, Specs]) -> Mapping[str, Array] | None:
    """Given inputs by name; an array without one is that of the models' only input.

    Raises:
        DataError: a single array is given, and the models have several inputs.
    """
    if not isinstance(inputs, np.ndarray):
        return inputs
    first = next(iter(specs.values()))
    if len(first) != 1:
        raise DataError(f"the models have the inputs {', '.join(spec.name for spec in first)}; give an array for each")
    return {first[0].name: inputs}


def make_feeds(specs: Mapping[str, Specs], condition: Condition, settings: Settings,
               arrays: Mapping[str, Array] | None) -> dict[str, Array]:
    """What every model is given under a condition, after checking that all take the same.

    Raises:
        ConfigError: as `resolve` and `make_inputs` of `_inputs`.
        DataError: the models' inputs differ, or the given ones do not fit.
    """
    dims = {name: _inputs.complete_dims(each, settings.dims, arrays) for name, each in specs.items()}
    shapes = {name: _inputs.resolve(each, condition.batch, dims[name], name=name) for name, each in specs.items()}
    _inputs.check_same_inputs(specs, shapes)
    free = max(specs, key=lambda name: len(_inputs.batch_symbols(specs[name], dims[name])))    # its rows can be repeated
    return _inputs.make_inputs(specs[free], shapes[free], dims[free], arrays, settings.ranges, np.random.default_rng(settings.seed))


def run_models(paths: Mapping[str, PathLike], condition: Condition, feeds: Mapping[str, Array]) -> dict[str, list[object]]:
    """What every model answers, each opened for this run only.

    Raises:
        RuntimeProviderError: a file cannot be opened, or fails on these inputs.
    """
    return {name: run_once(make_session(path, providers=(condition.provider,), threads=condition.threads, tf32=condition.tf32),
                           feeds, name=str(path))
            for name, path in paths.items()}


def measure_condition(paths: Mapping[str, PathLike], condition: Condition, settings: Settings, feeds: Mapping[str, Array],
                      outputs: Mapping[str, list[object]], clock: Clock) -> Measurement:
    """Time all models, opened anew `settings.sessions` times; `outputs` tell the sizes of the buffers.

    Raises:
        ConfigError: an output cannot be bound, or cores cannot be chosen.
        RuntimeProviderError: a session does not start, or fails when it runs again.
    """
    rng = np.random.default_rng([settings.seed, condition.threads, condition.batch])
    count = settings.sessions
    parts: list[Rounds] = []
    with pinned(condition.threads) if settings.pin else contextlib.nullcontext():
        for number, order in enumerate(opening_orders(tuple(paths), count, rng)):
            runs = _open(order, paths, condition, settings, feeds, outputs)
            try:
                parts.append(sample_rounds(
                    runs, rng=rng, clock=clock, seconds=settings.seconds / count,
                    rounds=None if settings.rounds is None else -(-settings.rounds // count),
                    idle_seconds=settings.idle_for(condition.threads),
                    sample_us=SAMPLE_US if condition.threads == 1 else POOL_SAMPLE_US,
                    warm_seconds=0.0 if number else FIRST_WARM_SECONDS))
            except Exception as error:      # onnxruntime's exceptions have no base of their own
                raise RuntimeProviderError(f"a model that ran once fails when it runs again ({condition}): "
                                           f"{describe_error(error)}; where outputs change their shapes from run to run, "
                                           "pass --no-io-binding") from error
    return _join(tuple(paths), condition, parts)


def opening_orders(models: tuple[str, ...], count: int, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """`count` orders of the models: a random one, its reverse, another random one, and so on.

    The order decides where things lie in memory. This way each of two models is opened before the other equally often.
    """
    order: tuple[str, ...] = ()
    for number in range(count):
        order = order[::-1] if number % 2 else tuple(models[index] for index in rng.permutation(len(models)))
        yield order


def _open(order: Sequence[str], paths: Mapping[str, PathLike], condition: Condition, settings: Settings,
          feeds: Mapping[str, Array], outputs: Mapping[str, list[object]]) -> list[RunOnce]:
    """One inference of each model in a new session; the list is in the order of `paths`."""
    runs: dict[str, RunOnce] = {}
    for name in order:
        session = make_session(paths[name], providers=(condition.provider,), threads=condition.threads,
                               cuda_graph=settings.cuda_graph, tf32=condition.tf32,
                               examine=False)    # as it was for its inputs
        runs[name] = (bind(session, feeds, condition.provider, like=outputs[name], name=str(paths[name]))
                      if settings.io_binding else feed(session, feeds))
    return [runs[name] for name in paths]


def _join(models: tuple[str, ...], condition: Condition, parts: list[Rounds]) -> Measurement:
    """The rounds of all sessions, one after another."""
    ends = np.cumsum([part.samples_us.shape[1] for part in parts])
    unstable = [models[index] for index in range(len(models)) if not all(part.warm_ups[index].is_stable for part in parts)]
    return Measurement(condition.provider, condition.threads, condition.batch, models,
                       np.concatenate([part.samples_us for part in parts], axis=1), (0, *map(int, ends[:-1])),
                       tuple(int(most) for most in np.max([part.repeats for part in parts], axis=0)), tuple(unstable),
                       condition.tf32)


def summarize(measurement: Measurement) -> tuple[LatencyRow, ...]:
    """One row per model: median with its interval, 95th percentile and, where a `relu_twin` was measured, the ratio to it."""
    rows = []
    for name, samples in zip(measurement.models, measurement.samples_us, strict=True):
        median = float(np.median(samples))
        low, high = median_interval(samples, measurement.starts)
        row = LatencyRow(name, measurement.provider, measurement.threads, measurement.batch, median,
                         float(np.percentile(samples, 95)), len(samples), low, high)
        if RELU_TWIN in measurement.models:
            found = ratio(measurement, name, RELU_TWIN)
            row = dataclasses.replace(row, ratio_to_relu_twin=found.median, ratio_low=found.low, ratio_high=found.high)
        rows.append(row)
    return tuple(rows)


def median_interval(samples_us: NDArray[Any], starts: tuple[int, ...]) -> tuple[float, float]:
    """The 95 % interval of the median of samples (s,), in µs, from the medians of sessions; widened to hold the median itself."""
    values = np.log([np.median(group) for group in split_groups(samples_us, starts)])
    _, low, high = np.exp(signed_rank_interval(values))
    median = float(np.median(samples_us))
    return min(float(low), median), max(float(high), median)


def ratio(measurement: Measurement, model: str, reference: str) -> Ratio:
    """How many times as long `model` takes as `reference`, with its interval.

    `ratio(m, "original", "compressed")` is the speed-up of the compressed model.

    Raises:
        ConfigError: a name was not measured.
    """
    for name in (model, reference):
        if name not in measurement.models:
            raise ConfigError(f"model {name!r} was not measured; choose from {', '.join(measurement.models)}")
    ours, theirs = (measurement.samples_us[measurement.models.index(name)] for name in (model, reference))
    return make_ratio(ours, theirs, measurement.starts)
