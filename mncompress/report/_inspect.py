"""Pictures, a table and sketches of any network, trained or compressed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mncompress.errors import ConfigError
from mncompress.figures import FORMATS, save_figure
from mncompress.report._curves import Curves
from mncompress.report._format import count
from mncompress.report._frontier import draw_frontier
from mncompress.report._latency import group_latency
from mncompress.report._latency_plot import draw_latency
from mncompress.report._plots import draw_activations
from mncompress.report._terminal import sketch_neuron, sketch_training
from mncompress.report._training import TrainingCurves, describe_training, draw_training
from mncompress.types import Kind, Report

MOST_SKETCHED = 6
"""Neurons that are also drawn in characters."""


@dataclass(frozen=True)
class InspectedNeuron:
    """One line of the table; `kind` and `max_abs_error` are None where nothing was replaced yet."""

    layer: int
    index: int
    kind: Kind | None
    domain: tuple[float, float]
    max_abs_error: float | None
    sensitivity: float | None = None
    left: bool = False


@dataclass(frozen=True)
class Inspection:
    """What `inspect_curves` found and wrote.

    Attributes:
        pictures: the files.
        neurons: all of them, in the network's order.
        sketches: some of the pictures in characters, for a terminal; see `arrange_sketches`.
        notes: what a reader should know, such as how many neurons were not drawn.
    """

    pictures: tuple[Path, ...]
    neurons: tuple[InspectedNeuron, ...]
    sketches: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_inspection(formats: Sequence[str], most: int) -> None:
    """Refuse what `inspect_curves` cannot do.

    Raises:
        ConfigError: a format is not known or none is given, or `most` is negative.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ConfigError(f"pictures can be {' and '.join(FORMATS)}, got {', '.join(map(repr, unknown)) or 'none'}")
    if most < 0:
        raise ConfigError(f"the number of neurons to draw must not be negative, got {most}; 0 draws all")


def inspect_curves(curves: Curves, out: Path, *, report: Report | None = None, training: TrainingCurves | None = None,
                   formats: Sequence[str] = FORMATS, most: int = 0) -> Inspection:
    """Write the pictures into `out`: `activations-1.png`, ... of 24 neurons each, and others where there is something to draw.

    Args:
        curves: of the network. The most sensitive neurons are drawn first.
        out: the folder.
        report: adds `frontier` and `latency`.
        training: adds `training`.
        formats: suffixes of the files, of `FORMATS`.
        most: draws only so many neurons; 0 draws all.

    Raises:
        ConfigError: see `check_inspection`.
        OutputError: `out` cannot be written.
    """
    check_inspection(formats, most)
    order = curves.by_sensitivity()
    drawn = order[:most or len(order)]
    pictures = []
    for name, figure in _draw(curves.select(drawn), report, training):
        for suffix in formats:
            pictures.append(out / f"{name}.{suffix}")
            save_figure(pictures[-1], figure)
    notes = [] if training is None else [describe_training(training)]
    if len(drawn) < len(order):
        notes.append(f"{count(len(drawn))} of {count(len(order))} neurons are drawn, the most sensitive; --most 0 draws all")
    sketches = [] if training is None else [sketch_training(training)]
    sketches += [sketch_neuron(curves, int(row)) for row in order[:MOST_SKETCHED]]
    return Inspection(tuple(pictures), tuple(_make_row(curves, row) for row in range(len(curves))),
                      tuple(filter(None, sketches)), tuple(notes))


def _draw(curves: Curves, report: Report | None, training: TrainingCurves | None) -> Iterator[tuple[str, Any]]:
    """The figures with their names, one at a time."""
    if training is not None and training.train_loss.size:
        yield "training", draw_training(training, curves.title)
    if report is not None and report.trials:
        yield "frontier", draw_frontier(report)
    if report is not None and report.latency:
        yield "latency", draw_latency(group_latency(report.latency, report.speedups))
    for page, figure in enumerate(draw_activations(curves), start=1):
        yield f"activations-{page}", figure


def _make_row(curves: Curves, row: int) -> InspectedNeuron:
    lo, hi = curves.domain[row]

    def value(of: Any) -> float | None:
        return None if of is None or not np.isfinite(of[row]) else float(of[row])

    return InspectedNeuron(
        layer=int(curves.layer[row]),
        index=int(curves.index[row]),
        kind=None if curves.kinds is None else curves.kinds[row],
        domain=(float(lo), float(hi)),
        max_abs_error=value(curves.max_abs_error),
        sensitivity=value(curves.sensitivity),
        left=curves.left is not None and bool(curves.left[row]),
    )
