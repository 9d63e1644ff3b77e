"""The whole way from a trained run to ONNX files with a report: one call for each command that does more than one step."""

import contextlib
import dataclasses
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mncompress import benchmark, runtime
from mncompress.analysis import make_inner_networks
from mncompress.calibration import BINS, LayerCalibration, calibrate, count_outside
from mncompress.checkpoint import Run, load_run
from mncompress.compression import Certificate, Compressed, certify, compress_network
from mncompress.data import Dataset, load_dataset
from mncompress.errors import CheckpointError, DataError, OutputError, RuntimeProviderError
from mncompress.export import ExportCheck, check_export, check_opset_version, has_large_batch_form, write_onnx
from mncompress.files import atomic_folder, check_output_folder, write_json
from mncompress.native import instruction_set
from mncompress.nn import LearnedActivation, Network, count_macs, count_parameters, make_relu_twin
from mncompress.report import Curves, Inspection, inspect_curves, load_curves, make_grid, save_curves, write_html
from mncompress.training import TrainProgress, train
from mncompress.types import (
    KINDS,
    Budget,
    LatencyRow,
    ModelSummary,
    NeuronRow,
    PathLike,
    Plan,
    Report,
    Speedup,
    TrainConfig,
    to_json,
)

COMPRESSED_FILES = ("original.onnx", "compressed.onnx", "portable.onnx", "relu_twin.onnx", "plan.json", "report.json",
                    "report.html", "activations.safetensors", "inspect")
BATCH_SIZES = (1, 32, 1024)
LATENCY_SECONDS = 1.0
"""Measuring time of one batch size; all models share it."""
LARGE_BATCH = "original for large batches"
CHECK_ROWS = 512
NOTABLE_SHARE_OUTSIDE = 0.02
NO_KERNELS = ("The native kernels are not installed, so networks with splines run slower than they could: install a C++17 "
              "compiler, and mncompress again.")
NOISE_FLOOR = 0.97
"""Two sessions of one file have been seen to differ by 3 %; a smaller difference is none."""
QUICKSTART = TrainConfig(data="digits", activation="meta", inner="tanh", inner_width=16, hidden=(32,), epochs=25, batch_size=32)

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


@dataclass(frozen=True)
class _Latency:
    """What was measured; in words, where the original's form for large batches beats `original.onnx`, and what failed."""

    rows: tuple[LatencyRow, ...]
    speedups: tuple[Speedup, ...]
    gains: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Export:
    """One of the ONNX files, with its torch network and what checking it found."""

    path: Path
    network: Network
    check: ExportCheck


def compress(run: Run, budget: Budget | None = None, *, out: Path | None = None, overwrite: bool = False,
             replicate: int | None = None, data: str | None = None, data_dir: str | None = None, opset_version: int = 18,
             progress: Tell | None = None) -> Result:
    """Compress a trained network, export it, check the files, measure them and write the report.

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
        progress: called with a line of text at each step.

    Raises:
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
    compressed = compress_network(network, dataset, budget or Budget(), tell)
    with _folder(out, overwrite) as folder:
        exports = _write_models(folder, network, compressed.network, dataset, run, opset_version, tell)
        report = _make_report(exports, network, compressed, dataset, run, opset_version, tell)
        write_json(folder / "plan.json", to_json(compressed.plan))
        write_json(folder / "report.json", to_json(report))
        curves = make_curves(network, compressed.calibration, compressed)
        save_curves(folder / "activations.safetensors", curves)
        write_html(folder / "report.html", report, curves)
    return Result(compressed.network, compressed.plan, report, None if out is None else Path(out))


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


def _metadata(run: Run | None) -> dict[str, str]:
    """What an ONNX file says of itself; the seed decides which rows of a data set are its test split."""
    metadata = {"producer": "mncompress", "version": version("mncompress")}
    if run is not None:
        recipe = json.dumps(to_json(run.config), sort_keys=True).encode()
        metadata |= {"recipe_hash": f"sha256:{hashlib.sha256(recipe).hexdigest()}", "seed": str(run.config.seed)}
    return metadata


def _write_models(folder: Path, network: Network, compressed: Network, dataset: Dataset, run: Run, opset_version: int,
                  tell: Tell) -> dict[str, _Export]:
    """Write the four files and check each against its torch network on the test split."""
    metadata = _metadata(run)
    networks = {"original": network, "compressed": compressed, "portable": compressed, "relu_twin": make_relu_twin(network)}
    exports = {}
    for name, module in networks.items():
        tell(f"writing and checking {name}.onnx")
        path = folder / f"{name}.onnx"
        write_onnx(module, path, opset_version=opset_version, inline=name == "portable", metadata=metadata)
        exports[name] = _Export(path, module, check_export(path, module, dataset.test.x))
    return exports


def _make_report(exports: Mapping[str, _Export], network: Network, compressed: Compressed, dataset: Dataset, run: Run,
                 opset_version: int, tell: Tell) -> Report:
    test = dataset.test
    outputs = {name: runtime.run(runtime.make_session(export.path), test.x).astype(np.float64) for name, export in exports.items()}
    scores = {name: benchmark.score(values, test.y) for name, values in outputs.items()}
    summaries = {name: _summarize(export, scores[name]) for name, export in exports.items()}
    tell("certifying the outputs' change")
    certificate = certify(network, compressed, test.x)
    latency = _measure_latency(exports, test.x, opset_version, tell)
    neurons = _neuron_rows(network, compressed, test.x)
    flips = int((outputs["original"].argmax(1) != outputs["compressed"].argmax(1)).sum())
    before, after = scores["original"], scores["compressed"]
    is_classification = before.accuracy is not None and after.accuracy is not None
    decisions = compressed.plan.decisions
    return Report(
        original=summaries["original"], compressed=summaries["compressed"], portable=summaries["portable"],
        relu_twin=summaries["relu_twin"],
        accuracy_drop=100 * (before.accuracy - after.accuracy) if is_classification else None,  # type: ignore[operator]
        argmax_flips=flips if is_classification else None,
        samples=len(test.x),
        max_abs_logit_error=float(np.abs(outputs["original"] - outputs["compressed"]).max()),
        logit_error_bound=None if certificate.bounds is None else float(certificate.bounds.max()),
        replacement_error_bound=certificate.replacement_bound,
        logit_error_bound_reason=certificate.reason,
        certified_unchanged=certificate.certified,
        rmse_increase_percent=_rmse_increase_percent(before.rmse, after.rmse),
        kinds={kind: sum(d.kind == kind for d in decisions) for kind in KINDS},
        left=sum(d.left for d in decisions),
        neurons=neurons,
        latency=latency.rows,
        validation=compressed.plan.validation,
        budget=compressed.plan.budget,
        config=to_json(run.config),
        notes=_notes(latency, compressed, certificate, neurons, len(test.x)),
        environment={**runtime.describe_environment(), "data": dataset.name, "data_hash": dataset.content_hash,
                     "checks": {name: dataclasses.asdict(export.check) for name, export in exports.items()}},
        speedups=latency.speedups)


def _rmse_increase_percent(before: float | None, after: float | None) -> float | None:
    if before is None or after is None:
        return None
    return 100 * (after - before) / max(before, float(np.finfo(np.float32).tiny))   # a network can be exact


def _summarize(export: _Export, score: benchmark.Evaluation) -> ModelSummary:
    return ModelSummary(export.path.name, count_parameters(export.network), count_macs(export.network),
                        export.path.stat().st_size, export.check.nodes, score.accuracy, score.loss)


def _neuron_rows(network: Network, compressed: Compressed, x: NDArray[Any]) -> tuple[NeuronRow, ...]:
    outside = count_outside(network, x, [options.domain for options in compressed.options])
    return tuple(NeuronRow(d.layer, d.index, d.kind, d.left, d.domain, d.max_abs_error, d.sensitivity,
                           int(outside[d.layer][d.index]), d.reason, d.refused, d.settings) for d in compressed.plan.decisions)


def _measure_latency(exports: Mapping[str, _Export], x: NDArray[Any], opset_version: int, tell: Tell) -> _Latency:
    """Time all files on rows of the test split: what activations are given decides how fast some of them are.

    One file has one form for every batch size, so an original for large batches is measured beside `original.onnx`, and
    speed-ups are over the faster of the two.
    """
    rows: list[LatencyRow] = []
    speedups, gains, problems = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: export.path for name, export in exports.items()}
        original = exports["original"].network
        if has_large_batch_form(original) and not has_large_batch_form(exports["compressed"].network):
            paths[LARGE_BATCH] = Path(folder) / "original.onnx"
            write_onnx(original, paths[LARGE_BATCH], opset_version=opset_version, inline=False, metadata={}, large_batch=True)
            check_export(paths[LARGE_BATCH], original, x[:CHECK_ROWS])
        for provider in runtime.available_providers():
            for batch in BATCH_SIZES:
                tell(f"measuring latency: provider {provider}, 1 thread, batch {batch}")
                try:
                    measured = benchmark.measure(paths, provider=provider, batch=batch, seconds=LATENCY_SECONDS, inputs=x)
                except RuntimeProviderError as error:       # a driver is no proof that CUDA works
                    if provider == "cpu":
                        raise
                    problems.append(f"Latency under the provider {provider} is not measured: {error}.")
                    break
                rows += [row for row in benchmark.summarize(measured) if row.model != LARGE_BATCH]
                ratios = {name: benchmark.ratio(measured, name, "compressed")
                          for name in ("original", LARGE_BATCH) if name in paths}
                name, ratio = min(ratios.items(), key=lambda item: item[1].median)
                speedups.append(Speedup(provider, 1, batch, ratio.median, ratio.low, ratio.high))
                if name == LARGE_BATCH and ratio.median < NOISE_FLOOR * ratios["original"].median:
                    gains.append(f"{ratios['original'].median / ratio.median:.2f} times as fast at batch {batch} ({provider})")
    return _Latency(tuple(rows), tuple(speedups), tuple(gains), tuple(problems))


def _notes(latency: _Latency, compressed: Compressed, certificate: Certificate, neurons: tuple[NeuronRow, ...],
           samples: int) -> tuple[str, ...]:
    """What a reader should know first."""
    notes = []
    if instruction_set() is None:
        notes.append(NO_KERNELS)
    slower = [s for s in latency.speedups if s.high < NOISE_FLOOR]
    if slower:
        where = ", ".join(f"{1 / s.ratio:.2f} times as long at batch {s.batch} ({s.provider})" for s in slower)
        notes.append(f"The compressed network is slower than its original here: {where}.")
    if latency.gains:
        notes.append("One file has one form for every batch size. Written for large batches the original would be "
                     f"{', '.join(latency.gains)}; speed-ups are over that where it is faster.")
    decisions = compressed.plan.decisions
    for reason, count in Counter(d.reason for d in decisions if d.kind == "kept").items():
        notes.append(f"{count} of {len(decisions)} learned activations were kept: {reason}.")
    if "estimated_flips_percent" in compressed.plan.validation:
        notes.append(f"The budget cannot be shown on so small a validation split: {compressed.plan.validation['verdict']}.")
    outside = max((row.out_of_range for row in neurons), default=0)
    if outside > NOTABLE_SHARE_OUTSIDE * samples:
        notes.append(f"{outside} of {samples} test samples leave the domain of at least one neuron, where its replacement was not "
                     "fitted: the test data are unlike the training data.")
    if certificate.bounds is None:
        notes.append(f"There is no certificate: {certificate.reason}.")
    return (*notes, *latency.problems)
