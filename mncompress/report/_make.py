"""The report: sizes, accuracies, errors, bounds and latencies of the written files, and what a reader should know first."""

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mncompress import benchmark, runtime
from mncompress.calibration import count_outside
from mncompress.checkpoint import Run
from mncompress.compression import Certificate, Compressed, certify
from mncompress.data import Dataset
from mncompress.errors import RuntimeProviderError
from mncompress.export import ExportCheck, check_export, has_large_batch_form, write_onnx
from mncompress.native import instruction_set
from mncompress.nn import Network, count_macs, count_parameters
from mncompress.report._format import at_most
from mncompress.types import KINDS, LatencyRow, ModelSummary, NeuronRow, Report, Speedup, to_json

Floats = NDArray[np.float64]

BATCH_SIZES = (1, 32, 1024)
LATENCY_SECONDS = 1.0
"""Measuring time of one batch size; all models share it."""
LARGE_BATCH = "original for large batches"
CHECK_ROWS = 512
NOTABLE_SHARE_OUTSIDE = 0.02
EXACT = 1e-7
"""Errors, in units of a target's spread, below which a network counts as exact: those of float32."""
NO_KERNELS = ("The native kernels are not installed, so networks with splines run slower than they could: install a C++17 "
              "compiler, and mncompress again.")
NOISE_FLOOR = 0.97
"""Two sessions of one file have been seen to differ by 3 %; a smaller difference is none."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Latency:
    """What was measured; in words, where the original's form for large batches beats `original.onnx`, and what failed."""

    rows: tuple[LatencyRow, ...]
    speedups: tuple[Speedup, ...]
    gains: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Export:
    """One of the ONNX files, with its torch network and what checking it found."""

    path: Path
    network: Network
    check: ExportCheck


def make_report(exports: Mapping[str, Export], network: Network, compressed: Compressed, dataset: Dataset, run: Run,
                options: Mapping[str, Any], tell: Tell) -> Report:
    """Measure the written files on the test split.

    Args:
        exports: `original`, `compressed`, `portable` and `relu_twin`.
        network: the original.
        compressed: what became of it, and why.
        dataset: its test split gives every reported figure.
        run: what was trained.
        options: what the compression was called with, besides the budget; `opset` is that of the files.
        tell: called with a line for each step.
    """
    test = dataset.test
    outputs = {name: runtime.run(runtime.make_session(export.path), test.x).astype(np.float64) for name, export in exports.items()}
    scores = {name: benchmark.score(values, test.y) for name, values in outputs.items()}
    summaries = {name: _summarize(export, scores[name]) for name, export in exports.items()}
    tell("certifying the outputs' change")
    certificate = certify(network, compressed, test.x, dataset.calibration.x, dataset.train.x, dataset.validation.x)
    latency = _measure_latency(exports, test.x, options["opset"], tell)
    neurons = _neuron_rows(network, compressed, test.x)
    flips = int((outputs["original"].argmax(1) != outputs["compressed"].argmax(1)).sum())
    before, after = scores["original"], scores["compressed"]
    is_classification = before.accuracy is not None and after.accuracy is not None
    decisions = compressed.plan.decisions
    increase, on_targets = (None, []) if is_classification else _compare_errors(
        outputs["original"], outputs["compressed"], test.y.astype(np.float64), network.output_scale.double().numpy())
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
        rmse_increase_percent=increase,
        kinds={kind: sum(d.kind == kind for d in decisions) for kind in KINDS},
        left=sum(d.left for d in decisions),
        neurons=neurons,
        latency=latency.rows,
        validation=compressed.plan.validation,
        budget=compressed.plan.budget,
        config=to_json(run.config),
        notes=(*_notes(latency, compressed, certificate, neurons, len(test.x), np.ptp(outputs["original"], axis=0)),
               *on_targets),
        environment={"mncompress": version("mncompress"), **runtime.describe_environment(),
                     "data": dataset.name, "data_hash": dataset.content_hash,
                     "trained_on": {**run.record.environment}, "measured_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
                     "checks": {name: dataclasses.asdict(export.check) for name, export in exports.items()}},
        speedups=latency.speedups, layers=compressed.plan.layers, trials=compressed.trials, options=dict(options))


def _compare_errors(original: Floats, compressed: Floats, y: Floats, scale: Floats) -> tuple[float, list[str]]:
    """The RMSE's increase in per cent, errors being in units of each target's `scale`, and a note on what several targets hide."""
    squares = np.stack([((outputs - y) / scale) ** 2 for outputs in (original, compressed)])

    def increase(mean: Floats) -> Floats:
        before, after = np.sqrt(mean)
        return np.asarray(100 * (after - before) / np.maximum(before, EXACT))

    overall, each = float(increase(squares.mean((1, 2)))), increase(squares.mean(1))
    if len(each) == 1:
        return overall, []
    worst = int(each.argmax())
    before, after = np.sqrt(squares[:, :, worst].mean(1)) * scale[worst]
    lost = "No target lost" if each[worst] <= 0 else (
        f"Target {worst}, counted from 0, lost most: its RMSE goes from {before:.4g} to {after:.4g} ({each[worst]:+.2f} %)")
    return overall, [f"{lost}. Budget and RMSE increase count errors in units of each target's spread, as training does; losses "
                     "are over all targets in their own units."]


def _summarize(export: Export, score: benchmark.Evaluation) -> ModelSummary:
    return ModelSummary(export.path.name, count_parameters(export.network), count_macs(export.network),
                        export.path.stat().st_size, export.check.nodes, score.accuracy, score.loss)


def _neuron_rows(network: Network, compressed: Compressed, x: NDArray[Any]) -> tuple[NeuronRow, ...]:
    outside = count_outside(network, x, [options.domain for options in compressed.options])
    return tuple(NeuronRow(d.layer, d.index, d.kind, d.left, d.domain, d.max_abs_error, d.sensitivity,
                           int(outside[d.layer][d.index]), d.reason, d.refused, d.settings) for d in compressed.plan.decisions)


def _measure_latency(exports: Mapping[str, Export], x: NDArray[Any], opset_version: int, tell: Tell) -> Latency:
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
    return Latency(tuple(rows), tuple(speedups), tuple(gains), tuple(problems))


def _notes(latency: Latency, compressed: Compressed, certificate: Certificate, neurons: tuple[NeuronRow, ...],
           samples: int, spread: Floats) -> tuple[str, ...]:
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
    if not compressed.holds:
        notes.append(f"The budget does not hold on the validation split: {compressed.plan.validation['verdict']}.")
    elif "estimated_flips_percent" in compressed.plan.validation:
        notes.append(f"The budget cannot be shown on so small a validation split: {compressed.plan.validation['verdict']}.")
    outside = max((row.out_of_range for row in neurons if row.kind != "kept"), default=0)
    if outside > NOTABLE_SHARE_OUTSIDE * samples:
        notes.append(f"{outside} of {samples} test samples leave the domain of one neuron, where its replacement was not fitted: "
                     "the test data reach beyond the training data.")
    if compressed.plan.finetuned:
        notes.append("Distillation moved weights and activations together: the errors of single activations are those before it, "
                     "their pictures those after it.")
    if certificate.bounds is None:
        notes.append(f"There is no certificate: {certificate.reason}.")
    elif spread.any() and (certificate.bounds > spread).all():
        notes.append(f"The proven bound, {at_most(float(certificate.bounds.max()))}, tells nothing here, since the outputs "
                     f"themselves vary by {spread.max():.2g}: worst cases of many layers or features multiply, and a single "
                     "row far from all others widens the ranges that it holds for.")
    return (*notes, *latency.problems)
