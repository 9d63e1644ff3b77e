"""What is written of an experiment besides its picture: CSV files, the verdicts as JSON and Markdown, a summary."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mncompress.experiments import _statistics as statistics
from mncompress.experiments._cells import GRID, CellResult
from mncompress.experiments._claims import Results, Verdict, is_line
from mncompress.experiments._figures import Curve, Experiment, Panel
from mncompress.experiments._plots import bands
from mncompress.experiments._statistics import Estimate

TARGETS = (0.80, 0.85, 0.90, 0.92)
"""Validation accuracies for which the epochs are counted."""

Row = dict[str, Any]


def write_csv(rows: Iterable[Row]) -> str:
    """Rows with the same columns as CSV; None and infinity are empty."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return value


def epoch_rows(experiment: Experiment, results: Results) -> Iterator[Row]:
    """Validation accuracy: one row for each curve and epoch."""
    for panel, curve in _curves(experiment):
        for epoch, (value, low, high) in enumerate(zip(*bands(results[curve.config]), strict=True), start=1):
            yield {"panel": panel.title, "curve": curve.name, "epoch": epoch, "mean": value, "low": low, "high": high}


def cell_rows(experiment: Experiment, results: Results) -> Iterator[Row]:
    """One row for each curve: accuracy at the end, epochs to given accuracies, size and time."""
    for panel, curve in _curves(experiment):
        result = results[curve.config]
        yield {"panel": panel.title, "curve": curve.name, "key": result.key[:16], "replicates": len(result.test),
               **_test_columns(result), **_target_columns(result), **_activation_columns(result),
               "parameters": result.parameters, "seconds": result.seconds, "device": result.environment["device"]}


def _curves(experiment: Experiment) -> Iterator[tuple[Panel, Curve]]:
    for panel in experiment.panels:
        for curve in panel.curves:
            yield panel, curve


def _test_columns(result: CellResult) -> Row:
    found, test = statistics.mean(result.test), result.test
    sd = float(test.std(ddof=1)) if len(test) > 1 else None
    return {"test_mean": found.value, "test_low": found.low, "test_high": found.high, "test_sd": sd,
            "test_min": float(test.min()), "test_max": float(test.max())}


def _target_columns(result: CellResult) -> Row:
    """Median number of epochs to each accuracy, empty if half of the networks never get there, and the share that do."""
    row: Row = {}
    for target in TARGETS:
        epochs = statistics.epochs_to(result.curves, target)
        found = statistics.median(epochs)
        name = f"epochs_to_{target:.2f}"
        row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high,
                f"reached_{target:.2f}": float(np.isfinite(epochs).mean())}
    return row


def _activation_columns(result: CellResult) -> Row:
    """Share of the learned activations that are lines, and constant."""
    if not result.activations:
        return {"linear_share": None, "constant_share": None}
    return {"linear_share": float(np.mean([is_line(found) for found in result.activations])),
            "constant_share": float(np.mean([found.r_squared is None for found in result.activations]))}


def activation_rows(experiment: Experiment, results: Results) -> Iterator[Row]:
    """The sampled activations: one row for each curve, network, neuron and point."""
    for panel, curve in _curves(experiment):
        for found in results[curve.config].activations:
            for u, y in zip(np.linspace(*found.domain, GRID), found.values, strict=False):
                yield {"panel": panel.title, "network": found.replicate, "neuron": found.index, "r_squared": found.r_squared,
                       "u": float(u), "y": y}


def render_verdicts(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as two Markdown tables: the claims, then every comparison."""
    claims = [(v.figure, v.statement, v.measure, _describe_effect(v), v.standard, f"**{v.outcome}**") for v in verdicts]
    comparisons = [(v.figure, v.statement, c.label, show(c.effect), c.outcome) for v in verdicts for c in v.comparisons]
    columns = "figure", "claim", "measured, in points", "effect with 95 % interval", "standard", "verdict"
    return "\n".join([
        "# Verdicts", "", *_table(columns, claims), "",
        "Of several comparisons, the effect shown is the one furthest from bearing the claim out. A claim is replicated if all of",
        "them are, and not replicated if one is not. Intervals are per comparison, not corrected for their number.", "",
        "## Every comparison", "",
        *_table(("figure", "claim", "comparison", "effect with 95 % interval", "outcome"), comparisons), ""])


def _describe_effect(verdict: Verdict) -> str:
    if len(verdict.comparisons) == 1:
        return f"{show(verdict.weakest.effect)} ({verdict.weakest.label})"
    return (f"{verdict.count('replicated')} of {len(verdict.comparisons)} replicated, {verdict.count('not replicated')} not; "
            f"weakest {show(verdict.weakest.effect)} ({verdict.weakest.label})")


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (columns, ("---",) * len(columns), *rows)]


def show(effect: Estimate) -> str:
    """A value with its interval: `+0.52 (+0.31 to +0.73)`."""
    if effect.low is None or effect.high is None:
        return f"{effect.value:+.2f} (no interval)"
    return f"{effect.value:+.2f} ({effect.low:+.2f} to {effect.high:+.2f})"


def render_readme(commands: Sequence[str], names: Sequence[str], results: Results, verdicts: Sequence[Verdict],
                  titles: Mapping[str, str]) -> str:
    """The summary of a folder: how it was made, on what, and what came out."""
    cells = list(results.values())
    config = cells[0].config
    machines = {tuple(sorted((name, str(value)) for name, value in cell.environment.items())) for cell in cells}
    lines = [", ".join(f"{name} {value}" for name, value in machine if value != "None") for machine in sorted(machines)]
    return "\n".join([
        "# The paper's figures, computed again", "",
        "```console", *(f"$ {command}" for command in commands), "```", "",
        f"{len(cells)} cells of {config.replicates} networks, {config.epochs} epochs each, on {config.data} "
        f"(content {cells[0].data_hash}), {sum(cell.seconds for cell in cells):.0f} s of training. "
        f"Adam at {config.lr:g}, batches of {config.batch_size}.", "",
        *(f"- {line}" for line in lines), "",
        "Networks of a cell differ in their initialization; they share splits and the order of batches. Curves are on the",
        "validation split, accuracies at the end on the test split, which nothing was chosen on. Bands and intervals are 95 %",
        "intervals of the mean over networks (Student's t; differences after Welch), per comparison, not corrected for their",
        "number. In `figN-cells.csv`, `epochs_to_A` is the median over networks of the first epoch with a validation accuracy of",
        "at least A, with its interval of order statistics; it is empty where half of the networks never get there, and",
        "`reached_A` is the share that do.", "",
        "| files | what |", "|---|---|",
        *(f"| `{name}.png`, `.svg`, `.csv`, `{name}-cells.csv` | {titles[name]} |" for name in names),
        "| `verdicts.md`, `verdicts.json` | every claim with what was measured |",
        "| `cells/` | one file for each cell, from which everything else here is made |", "",
        "| figure | claim | verdict |", "|---|---|---|",
        *(f"| {v.figure} | {v.statement} | {v.outcome} |" for v in verdicts), ""])
