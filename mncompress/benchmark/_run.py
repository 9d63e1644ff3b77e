"""The whole: every condition, what may be said of it, and all of it as one document."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from mncompress.benchmark import _inputs
from mncompress.benchmark._affinity import pinned
from mncompress.benchmark._inputs import Array, Specs, TensorSpec
from mncompress.benchmark._measure import (
    Condition,
    Measurement,
    make_feeds,
    measure_condition,
    name_arrays,
    read_models,
    run_models,
)
from mncompress.benchmark._rows import BreakEven, Row, find_break_evens, make_notes, make_rows
from mncompress.benchmark._sampling import REAL_CLOCK, Clock
from mncompress.benchmark._sessions import Agreement, compare_outputs
from mncompress.benchmark._settings import BATCH_SIZES, Settings
from mncompress.benchmark._startup import Startup, measure_startup
from mncompress.errors import ConfigError
from mncompress.runtime import describe_environment
from mncompress.types import PathLike, to_json

Progress = Callable[[str], object]
"""Told in a line what is being done."""


@dataclass(frozen=True)
class ModelFile:
    """A benchmarked file."""

    model: str
    path: str
    file_bytes: int
    """With the files that its weights lie in, if they lie beside it."""
    nodes: int
    """Of the graph as it is in the file."""
    inputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Benchmark:
    """Everything that was measured."""

    baseline: str
    settings: Settings
    models: tuple[ModelFile, ...]
    latency: tuple[Row, ...]
    break_even: tuple[BreakEven, ...]
    startup: tuple[Startup, ...]
    agreement: tuple[Agreement, ...]
    notes: tuple[str, ...]
    environment: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    schema: Literal["mncompress.benchmark/1"] = "mncompress.benchmark/1"


def benchmark(paths: Mapping[str, PathLike], settings: Settings | None = None, *,
              inputs: NDArray[Any] | Mapping[str, Array] | None = None, clock: Clock = REAL_CLOCK,
              progress: Progress | None = None) -> Benchmark:
    """Measure models under every combination of provider, number of threads and batch size: see the package.

    Args:
        paths: a file per model name; the first is the baseline unless the settings name another.
        settings: the conditions, and how to measure.
        inputs: values (rows, ...) by input name, or those of the only input, repeated cyclically to the batch; drawn where None.
        clock: passes time.
        progress: called with a line of text before each condition and each first run.

    Raises:
        ConfigError: a setting is out of its range or fits none of the models, or there is no model.
        DataError: the models' inputs differ, or the given ones do not fit.
        RuntimeProviderError: a provider is not available, or a file cannot be opened or run.
    """
    settings, tell = settings or Settings(), progress or (lambda line: None)
    for threads in settings.threads if settings.pin else ():
        with pinned(threads):       # an error comes before the work
            pass
    specs = read_models(paths, settings)
    baseline = settings.baseline or next(iter(paths))
    if baseline not in paths:
        raise ConfigError(f"the baseline {baseline!r} is none of the models {', '.join(paths)}")
    _inputs.check_dims(specs, settings.dims)
    arrays = name_arrays(inputs, specs)
    cells = plan_cells(specs, settings, arrays)
    feeds = {batch: make_feeds({name: specs[name] for name in names}, Condition("", 1, batch), settings, arrays)
             for batch, names in cells.items()}

    measurements: list[Measurement] = []
    agreement: list[Agreement] = []
    for condition in conditions(settings, cells):
        chosen = {name: paths[name] for name in cells[condition.batch]}
        given = feeds[condition.batch]
        tell(f"benchmark: {condition}")
        outputs = run_models(chosen, condition, given)
        if baseline in chosen and condition.threads == settings.threads[0]:
            agreement += compare_outputs(outputs, baseline, provider=condition.provider, batch=condition.batch)
        measurements.append(measure_condition(chosen, condition, settings, given, outputs, clock))
    startup = tuple(_startups(paths, cells, feeds, settings, tell)) if settings.startup else ()
    rows = tuple(row for each in measurements for row in make_rows(each, baseline))
    return Benchmark(baseline, settings, tuple(read_file(name, path, specs[name]) for name, path in paths.items()), rows,
                     find_break_evens(rows), startup, tuple(agreement), make_notes(specs, cells, measurements, agreement, baseline),
                     {**describe_environment(settings.providers), "load_average": _load_average()}, tuple(measurements))


def plan_cells(specs: Mapping[str, Specs], settings: Settings, arrays: Mapping[str, Array] | None) -> dict[int, tuple[str, ...]]:
    """Which models are measured at which batch size; a model with a fixed batch only at that one.

    Raises:
        ConfigError: none of the models runs at any of the batch sizes that were asked for.
    """
    fixed = {name: _inputs.fixed_batch(each, _inputs.complete_dims(each, settings.dims, arrays)) for name, each in specs.items()}
    sizes = settings.batch_sizes or tuple(sorted({size for size in fixed.values() if size is not None})) or BATCH_SIZES
    cells = {batch: tuple(name for name, size in fixed.items() if size in (None, batch)) for batch in dict.fromkeys(sizes)}
    cells = {batch: names for batch, names in cells.items() if names}
    if not cells:
        found = ", ".join(f"{name} runs at batch {size} only" for name, size in fixed.items())
        raise ConfigError(f"no model runs at batch {', '.join(map(str, sizes))}: {found}; pass one of these as --batch-sizes")
    return cells


def conditions(settings: Settings, cells: Mapping[int, Sequence[str]]) -> Iterator[Condition]:
    """Every combination, in the order in which it is measured."""
    return itertools.starmap(Condition, itertools.product(settings.providers, settings.threads, cells, [settings.tf32]))


def to_document(result: Benchmark, *, samples: bool = False) -> dict[str, Any]:
    """The JSON form; with `samples`, every sample in microseconds too."""
    names = ("schema", *(field.name for field in dataclasses.fields(result) if field.name not in ("schema", "measurements")))
    document: dict[str, Any] = to_json({name: getattr(result, name) for name in names})
    if samples:
        document["samples"] = [
            {"provider": each.provider, "threads": each.threads, "batch": each.batch, "starts": list(each.starts),
             "samples_us": {name: values.tolist() for name, values in zip(each.models, each.samples_us, strict=True)}}
            for each in result.measurements]
    return document


def read_file(name: str, path: PathLike, specs: Specs) -> ModelFile:
    """What is known of a file that onnxruntime could open."""
    graph = onnx.load(path, load_external_data=False).graph
    beside = {entry.value for weight in graph.initializer for entry in weight.external_data if entry.key == "location"}
    files = [Path(path), *(place for each in beside if (place := Path(path).parent / each).is_file())]
    return ModelFile(name, str(path), sum(file.stat().st_size for file in files), len(graph.node), specs)


def _startups(paths: Mapping[str, PathLike], cells: Mapping[int, Sequence[str]], feeds: Mapping[int, Mapping[str, Array]],
              settings: Settings, tell: Progress) -> Iterator[Startup]:
    """The first run of every model, at the smallest batch size that it is measured at."""
    smallest = {name: min(batch for batch, names in cells.items() if name in names)
                for name in paths if any(name in names for names in cells.values())}
    for provider, threads in itertools.product(settings.providers, settings.threads):
        for name, batch in smallest.items():
            tell(f"benchmark: first run of {name}, provider {provider}, threads {threads}, batch {batch}")
            with pinned(threads) if settings.pin else contextlib.nullcontext():
                yield measure_startup(name, paths[name], feeds[batch], provider=provider, threads=threads, batch=batch,
                                      processes=settings.startup, tf32=settings.tf32)


def _load_average() -> list[float] | None:
    return [float(np.round(load, 2)) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None
