"""The whole way from a trained run to ONNX files with a report: one call for each command that does more than one step."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, singledispatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mncompress import benchmark
from mncompress.analysis import make_inner_networks
from mncompress.calibration import BINS, LayerCalibration, calibrate
from mncompress.checkpoint import Run, load_run
from mncompress.compression import Compressed, compress_network
from mncompress.data import Dataset, load_dataset
from mncompress.errors import CheckpointError, ConfigError, DataError, OutputError
from mncompress.export import check_export, check_opset_version, write_onnx
from mncompress.files import atomic_folder, check_output_folder, write_json
from mncompress.modules import compress_module
from mncompress.native import instruction_set
from mncompress.nn import LearnedActivation, Network, make_relu_twin
from mncompress.report import (
    NO_KERNELS,
    Curves,
    Export,
    Inspection,
    inspect_curves,
    load_curves,
    make_grid,
    make_report,
    save_curves,
    write_html,
)
from mncompress.training import TrainProgress, train
from mncompress.types import Budget, PathLike, Plan, Report, TrainConfig, from_json, to_json

COMPRESSED_FILES = ("original.onnx", "compressed.onnx", "portable.onnx", "relu_twin.onnx", "plan.json", "report.json",
                    "report.html", "activations.safetensors", "inspect")
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
             replicate: int | None = None, data: str | None = None, data_dir: str | None = None, opset_version: int = 18,
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
        data: calibrate, validate and test on this data set instead of the run's.
        data_dir: where torchvision data sets are; the run's where None.
        opset_version: of the ONNX files.
        plan: to carry out instead of looking for one, as `load_plan` reads it; the budget is then only held against it.
        finetune: epochs of distillation on the training rows, behind everything else; then there is no certificate.
        progress: called with a line of text at each step.

    Raises:
        ConfigError: the plan does not fit the network, or the budget's target cannot be reached.
        DataError: the data is not what the network was trained on, or does not fit it.
        ExportError: the opset cannot be written, or a file does not compute what the network computes.
        OutputError: `out` is not empty, or cannot be written.
    """
    tell = progress or (lambda line: None)
    check_opset_version(opset_version)
    if instruction_set() is None:
        tell(NO_KERNELS)
    if out is not None:
        _check_compressed_folder(Path(out), overwrite=overwrite)
    network = run.network(replicate)
    dataset = _load_data(run, data, data_dir)
    if finetune < 0:
        raise ConfigError(f"finetune is a number of epochs, got {finetune}")
    compressed = compress_network(network, dataset, budget or (Budget() if plan is None else plan.budget), tell, plan=plan,
                                  epochs=finetune, measure_latency=partial(_measure_latency, opset_version, dataset.test.x))
    with _folder(out, overwrite) as folder:
        exports = _write_models(folder, network, compressed.network, dataset, run, opset_version, tell)
        report = make_report(exports, network, compressed, dataset, run, opset_version, tell)
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
        ConfigError: it cannot be read, or is no plan.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a plan: {error}; give the plan.json that compress wrote") from error
    return from_json(Plan, document, where=str(path))


def quickstart(out: Path, progress: Tell | None = None) -> Result:
    """Train a small network on the embedded digits, compress it, and write everything into `out/run` and `out/compressed`.

    Raises:
        OutputError: `out` is not empty, or cannot be written.
    """
    tell = progress or (lambda line: None)
    check_output_folder(out, overwrite=False)

    def every_tenth(p: TrainProgress) -> None:
        if p.step == p.steps and p.epoch % 10 == 0:
            tell(f"training: epoch {p.epoch} of {p.epochs}, loss {p.loss:.3f}, validation {p.metric_name} {p.metric or 0:.4f}")

    run = train(QUICKSTART, out=out / "run", progress=every_tenth)
    return compress(run, Budget(), out=out / "compressed", progress=tell)


def inspect(folder: PathLike, out: PathLike, *, overwrite: bool = False) -> Inspection:
    """Draw the learned activations of a run folder or a compressed folder as PNG and SVG into `out`.

    Raises:
        CheckpointError: the folder is neither, or damaged.
        OutputError: `out` is not empty and `overwrite` is false, or cannot be written.
    """
    folder, out = Path(folder), Path(out)
    check_output_folder(out, overwrite=overwrite)
    if (folder / "activations.safetensors").is_file():
        return inspect_curves(load_curves(folder / "activations.safetensors"), out)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is neither a run folder of train nor a folder written by compress")
    run = load_run(folder)
    network = run.network()
    dataset = _load_data(run, None, None)
    calibration = calibrate(network, dataset.calibration.x, dataset.train.x)
    return inspect_curves(make_curves(network, calibration), out)


def export_onnx(source: Result | Network, path: PathLike, *, opset_version: int = 18, inline: bool = False) -> Path:
    """Write a network, or a result's compressed network, as one ONNX file.

    Args:
        source: what to write.
        path: where to.
        opset_version: 18 or newer.
        inline: standard operators only, as in `portable.onnx`.

    Raises:
        ExportError: the opset cannot be written.
        OutputError: the file cannot be written.
    """
    network = source.network if isinstance(source, Result) else source
    write_onnx(network, Path(path), opset_version=opset_version, inline=inline, metadata=_metadata(None))
    return Path(path)


def make_curves(network: Network, calibration: tuple[LayerCalibration, ...], compressed: Compressed | None = None) -> Curves:
    """Sample every learned activation, and its replacement where there is one, for drawing."""
    spec = network.spec
    title = (f"{'-'.join(map(str, spec.sizes))} {', '.join(dict.fromkeys(a.name for a in spec.activations))}"
             f"{' ' + spec.activations[0].act if spec.activations else ''}")
    parts = [_layer_curves(number, layer.activation, found, compressed)
             for number, (layer, found) in enumerate(zip(network.activated_layers, calibration, strict=True))]
    parts = parts or [_no_curves(compressed)]
    arrays: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if compressed is None:
        return Curves(**arrays, title=title)
    decisions = compressed.plan.decisions
    return Curves(**arrays, title=title, kinds=tuple(d.kind for d in decisions),
                  max_abs_error=np.array([d.max_abs_error for d in decisions]))


def _no_curves(compressed: Compressed | None) -> dict[str, NDArray[Any]]:
    """The curves of a network without activations."""
    none = np.zeros((0, 2))
    u = make_grid(none)
    curves: dict[str, NDArray[Any]] = {
        "layer": np.zeros(0, np.int64), "index": np.zeros(0, np.int64), "domain": none, "u": u, "original": u,
        "histogram": np.zeros((0, BINS), np.int64), "histogram_range": none}
    return curves if compressed is None else {**curves, "replacement": u}


def _layer_curves(number: int, activation: object, found: LayerCalibration, compressed: Compressed | None
                  ) -> dict[str, NDArray[Any]]:
    assert isinstance(activation, LearnedActivation)
    inner = make_inner_networks(activation)
    u = make_grid(found.domain)
    curves: dict[str, NDArray[Any]] = {
        "layer": np.full(inner.n, number), "index": np.arange(inner.n), "domain": found.domain, "u": u,
        "original": inner.evaluate(u.T.astype(np.float64)).T.astype(np.float32),
        "histogram": found.histogram, "histogram_range": found.observed}
    if compressed is not None:
        replacement = curves["original"].copy()
        for group in compressed.groups[number]:
            if group.form is not None:
                replacement[group.indices] = group.form.evaluate(u[group.indices].T.astype(np.float64)).T
        curves["replacement"] = replacement
    return curves


def _load_data(run: Run, data: str | None, data_dir: str | None) -> Dataset:
    config = run.config
    dataset = load_dataset(data or config.data, data_dir=data_dir or config.data_dir, seed=config.seed)
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
    foreign = sorted({path.name for path in out.iterdir()} - set(COMPRESSED_FILES)) if out.is_dir() else []
    if any(not (name.startswith(".") and name.endswith(".tmp")) for name in foreign):
        raise OutputError(f"{out} holds {foreign[0]!r}, which compress did not write and would remove; choose another --out")


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
