"""The whole way from a trained run to ONNX files with a report: one call for each command that does more than one step."""

import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, singledispatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from mncompress import benchmark
from mncompress.calibration import calibrate
from mncompress.checkpoint import COMPRESSED_FILES, Run, load_run, read_metrics
from mncompress.compression import check_is_budget, compress_network
from mncompress.data import Dataset, load_dataset
from mncompress.errors import CheckpointError, ConfigError, DataError, ExportError, OutputError
from mncompress.export import check_export, check_opset, write_onnx
from mncompress.figures import FORMATS
from mncompress.files import atomic_folder, check_output_folder, hold_folder, is_leftover, write_json
from mncompress.modules import ModuleResult, compress_module
from mncompress.native import instruction_set
from mncompress.nn import Network, make_relu_twin
from mncompress.report import (
    NO_KERNELS,
    Export,
    Inspection,
    check_inspection,
    inspect_curves,
    load_curves,
    load_report,
    make_curves,
    make_report,
    make_training_curves,
    save_curves,
    write_html,
)
from mncompress.training import TrainProgress, train
from mncompress.types import Budget, PathLike, Plan, Report, TrainConfig, from_json, to_json

QUICKSTART = TrainConfig(data="digits", activation="meta", inner="tanh", inner_width=16, hidden=(32,), epochs=25, batch_size=32)

CANDIDATE_SECONDS = 0.3
"""Measuring time of a network that the search for a target of latency looks at."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """A compressed network and what is known about it.

    Attributes:
        network: the compressed torch module, on raw features.
        plan: what each activation became, and why.
        report: sizes, accuracies, errors, bounds and latencies.
        folder: where the files are, or None.
    """

    network: Network
    plan: Plan
    report: Report
    folder: Path | None


@singledispatch
def compress(run: Run, budget: Budget | None = None, *, out: Path | None = None, overwrite: bool = False,
             replicate: int | None = None, data: str | Dataset | None = None, data_dir: str | None = None, opset_version: int = 18,
             plan: Plan | None = None, finetune: int = 0, progress: Tell | None = None) -> Result:
    """Compress a trained network, export it, check the files, measure them and write the report.

    Given a torch module instead, this is `mncompress.modules.compress_module`.

    Args:
        run: from `train` or `load_run`.
        budget: what compression may cost on the validation split; the default preset where None.
        out: the folder for `original.onnx`, `compressed.onnx`, `portable.onnx`, `relu_twin.onnx`, `plan.json`,
            `report.json`, `report.html` and `activations.safetensors`; it appears when all are complete. None keeps nothing.
        overwrite: replace what is in `out`.
        replicate: which network of the run; None for the best on validation.
        data: calibrate, validate and test on this data set, loaded or not, instead of the run's.
        data_dir: where torchvision data sets are; the run's where None.
        opset_version: of the ONNX files.
        plan: to carry out instead of looking for one, as `load_plan` reads it; the budget is then the plan's.
        finetune: epochs of distillation on the training rows, behind everything else.
        progress: called with a line of text at each step.

    Raises:
        ConfigError: what is given is no run, or no budget; the plan does not fit the network or has another budget; or the target
            cannot be reached within the limits.
        DataError: the data is not what the network was trained on, or does not fit it.
        ExportError: the opset cannot be written, or a file does not compute what the network computes.
        OutputError: `out` is not empty, cannot be written, or is in use by another process.
    """
    tell = progress or (lambda line: None)
    if not isinstance(run, Run):
        raise ConfigError(f"compress takes a run, as train and load_run give it, or a torch module; got {run!r:.100}")
    check_is_budget(budget)
    if reason := check_opset(opset_version):
        raise ExportError(reason)
    if instruction_set() is None:
        tell(NO_KERNELS)
    with contextlib.nullcontext() if out is None else hold_folder(Path(out), whole=True):
        if out is not None:
            _check_compressed_folder(Path(out), overwrite=overwrite)
        return _compress(run, budget, out, overwrite, replicate, data, data_dir, opset_version, plan, finetune, tell)


def _compress(run: Run, budget: Budget | None, out: Path | None, overwrite: bool, replicate: int | None, data: str | Dataset | None,
              data_dir: str | None, opset_version: int, plan: Plan | None, finetune: int, tell: Tell) -> Result:
    """`compress`, with the folder in hand."""
    network = run.network(replicate)
    dataset = _load_data(run, data, data_dir)
    if finetune < 0:
        raise ConfigError(f"finetune is a number of epochs, got {finetune}")
    compressed = compress_network(network, dataset, budget, tell, plan=plan, epochs=finetune,
                                  measure_latency=partial(_measure_latency, opset_version, dataset.test.x))
    with _folder(out, overwrite) as folder:
        exports = _write_models(folder, network, compressed.network, dataset, run, opset_version, tell)
        options = {"replicate": run.best if replicate is None else replicate,
                   "data": data if isinstance(data, str) else None, "data_dir": data_dir,
                   "opset": opset_version, "finetune": finetune, "plan": plan is not None}
        report = make_report(exports, network, compressed, dataset, run, options, tell)
        write_json(folder / "plan.json", to_json(compressed.plan))
        write_json(folder / "report.json", to_json(report))
        curves = make_curves(network, compressed.calibration, compressed)
        save_curves(folder / "activations.safetensors", curves)
        write_html(folder / "report.html", report, curves)
    return Result(compressed.network, compressed.plan, report, None if out is None else Path(out))


compress.register(nn.Module, compress_module)  # type: ignore[arg-type]


def load_plan(path: PathLike) -> Plan:
    """Read a `plan.json`.

    Raises:
        ConfigError: it cannot be read, is no plan, or has a number that is not finite.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as a plan: {error}; give the plan.json that compress wrote") from error
    plan = from_json(Plan, document, where=str(path))
    try:
        json.dumps(to_json(plan), allow_nan=False)
    except ValueError as error:
        raise ConfigError(f"{path} has a number that is not finite; give the plan.json that compress wrote") from error
    return plan


def quickstart(out: Path, progress: Tell | None = None) -> Result:
    """Train a small network on the embedded digits, compress it, and write everything into `out/run` and `out/compressed`.

    One that was interrupted before `out/compressed` was complete is continued.

    Raises:
        OutputError: `out` is not empty, or cannot be written.
    """
    tell = progress or (lambda line: None)

    def every_tenth(p: TrainProgress) -> None:
        if p.step == p.steps and p.epoch % 10 == 0:
            tell(f"training: epoch {p.epoch} of {p.epochs}, loss {p.loss:.3f}, validation {p.metric_name} {p.metric or 0:.4f}")

    with hold_folder(out):
        unfinished = out.is_dir() and {path.name for path in out.iterdir() if not path.name.startswith(".")} == {"run"}
        try:
            check_output_folder(out, overwrite=unfinished)
        except OutputError as error:
            raise OutputError(str(error).removesuffix(", or pass --overwrite")) from None
        run = train(QUICKSTART, out=out / "run", resume=unfinished, progress=every_tenth)
        return compress(run, Budget(), out=out / "compressed", progress=tell)


def inspect(folder: PathLike, out: PathLike, *, overwrite: bool = False, formats: Sequence[str] = FORMATS, most: int = 0,
            data: str | None = None, data_dir: str | None = None) -> Inspection:
    """Draw a run folder or a compressed folder into `out`.

    Both have pictures of their learned activations; a run folder has one of how its networks were trained, and a compressed
    folder those of `report.html`: what the planner tried, and the latencies.

    Args:
        folder: written by `train` or by `compress`.
        out: the folder for the pictures.
        overwrite: write there even if it is not empty.
        formats: `png`, `svg` or both.
        most: draws only so many neurons, the most sensitive ones; 0 draws all.
        data: the data set whose ranges are drawn, for a run folder; the run's where None.
        data_dir: where torchvision data sets are; the run's where None.

    Raises:
        CheckpointError: the folder is neither, or damaged.
        ConfigError: a format is unknown, `most` is negative, or `data` is given for a compressed folder.
        DataError: the data of a run folder is not what it was trained on.
        OutputError: `out` is not empty and `overwrite` is false, or cannot be written.
    """
    folder, out = Path(folder), Path(out)
    check_inspection(formats, most)
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; pass the folder that train or compress wrote")
    with hold_folder(out):
        check_output_folder(out, overwrite=overwrite)
        return _inspect(folder, out, formats, most, data, data_dir)


def _inspect(folder: Path, out: Path, formats: Sequence[str], most: int, data: str | None, data_dir: str | None) -> Inspection:
    if (folder / "activations.safetensors").is_file():
        if data is not None:
            raise ConfigError(f"{folder} was written by compress and holds its curves; data can be named for a run folder only")
        curves, report = load_curves(folder / "activations.safetensors"), load_report(folder / "report.json")
        return inspect_curves(curves, out, report=report, formats=formats, most=most)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is neither a run folder of train nor a folder written by compress")
    run = load_run(folder)
    training = make_training_curves(read_metrics(folder / "metrics.csv"), run.record.metric, run.validation_metric, run.best)
    network = run.network()
    dataset = _load_data(run, data, data_dir)
    calibration = calibrate(network, dataset.calibration.x, dataset.train.x)
    return inspect_curves(make_curves(network, calibration), out, training=training, formats=formats, most=most)


def export_onnx(source: Result | ModuleResult | Network, path: PathLike, *, opset_version: int = 18, inline: bool = False) -> Path:
    """Write a network, or a result's compressed network, as one ONNX file.

    Args:
        source: what to write; what came of compressing a `Network` as a module, too.
        path: where to.
        opset_version: 18 or newer.
        inline: standard operators only, as in `portable.onnx`.

    Raises:
        ExportError: it is no network of mncompress's own, or the opset cannot be written.
        OutputError: the file cannot be written.
    """
    network = source.network if isinstance(source, Result | ModuleResult) else source
    if not isinstance(network, Network):
        raise ExportError(f"export_onnx writes mncompress's own networks, got a {type(network).__name__}; write the result of "
                          "compressing a module, or a module, with mncompress.modules.export_module")
    write_onnx(network, Path(path), opset_version=opset_version, inline=inline, metadata=_metadata(None))
    return Path(path)


def _load_data(run: Run, data: str | Dataset | None, data_dir: str | None) -> Dataset:
    config = run.config
    dataset = data if isinstance(data, Dataset) else load_dataset(data or config.data, data_dir=data_dir or config.data_dir,
                                                                   seed=config.seed)
    spec = run.record.network
    if dataset.name == config.data and dataset.content_hash != run.data_hash:
        raise DataError(f"the content of {config.data!r} is not what the run was trained on ({dataset.content_hash}, then "
                        f"{run.data_hash}); restore the data, or name another set with --data")
    if (dataset.in_features, dataset.out_features, dataset.task) != (spec.in_features, spec.out_features, spec.task):
        raise DataError(f"{dataset.name!r} has {dataset.in_features} features and {dataset.out_features} outputs for "
                        f"{dataset.task}, the network takes {spec.in_features} and gives {spec.out_features} for {spec.task}; "
                        "name a data set like the one it was trained on")
    return dataset


def _check_compressed_folder(out: Path, *, overwrite: bool) -> None:
    """As `check_output_folder`; besides, overwriting replaces the folder whole, so it must hold nothing but our own files."""
    check_output_folder(out, overwrite=overwrite)
    foreign = [path.name for path in out.iterdir()
               if not (re.fullmatch(COMPRESSED_FILES, path.name) or is_leftover(path))] if out.is_dir() else []
    if foreign:
        raise OutputError(f"{out} holds {min(foreign)!r}, which compress did not write and would remove; choose another --out")


@contextlib.contextmanager
def _folder(out: Path | None, overwrite: bool) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
    else:
        with atomic_folder(Path(out), overwrite=overwrite) as folder:
            yield folder


def _measure_latency(opset_version: int, x: NDArray[Any], network: Network) -> float:
    """Microseconds that a network takes for a batch of one, on the CPU under one thread."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.onnx"
        write_onnx(network, path, opset_version=opset_version, inline=False, metadata={})
        measured = benchmark.measure({"candidate": path}, batch=1, seconds=CANDIDATE_SECONDS, inputs=x)
    return benchmark.summarize(measured)[0].median_us


def _metadata(run: Run | None) -> dict[str, str]:
    """What an ONNX file says of itself; the seed decides which rows of a data set are its test split."""
    metadata = {"producer": "mncompress", "version": version("mncompress")}
    if run is not None:
        recipe = json.dumps(to_json(run.config), sort_keys=True).encode()
        metadata |= {"recipe_hash": f"sha256:{hashlib.sha256(recipe).hexdigest()}", "seed": str(run.config.seed)}
    return metadata


def _write_models(folder: Path, network: Network, compressed: Network, dataset: Dataset, run: Run, opset_version: int,
                  tell: Tell) -> dict[str, Export]:
    """Write the four files and check each against its torch network on the test split."""
    metadata = _metadata(run)
    networks = {"original": network, "compressed": compressed, "portable": compressed, "relu_twin": make_relu_twin(network)}
    exports = {}
    for name, module in networks.items():
        tell(f"writing and checking {name}.onnx")
        path = folder / f"{name}.onnx"
        write_onnx(module, path, opset_version=opset_version, inline=name == "portable", metadata=metadata)
        exports[name] = Export(path, module, check_export(path, module, dataset.test.x))
    return exports
