"""Pictures and a table of the learned activations of any network, trained or compressed."""

from dataclasses import dataclass
from pathlib import Path

from mncompress.report._curves import Curves
from mncompress.report._plots import draw_activations, save_figure
from mncompress.types import Kind


@dataclass(frozen=True)
class InspectedNeuron:
    """One line of the table; `kind` and `max_abs_error` are None where nothing was replaced yet."""

    layer: int
    index: int
    kind: Kind | None
    domain: tuple[float, float]
    max_abs_error: float | None


@dataclass(frozen=True)
class Inspection:
    """What `inspect_curves` found and wrote."""

    pictures: tuple[Path, ...]
    neurons: tuple[InspectedNeuron, ...]


def inspect_curves(curves: Curves, out: Path) -> Inspection:
    """Write `activations-1.png`, `activations-1.svg`, `activations-2.png`, ... into `out`, 24 neurons each.

    Raises:
        OutputError: `out` cannot be written.
    """
    pictures = []
    for page, figure in enumerate(draw_activations(curves), start=1):
        for suffix in ("png", "svg"):
            path = out / f"activations-{page}.{suffix}"
            save_figure(path, figure)
            pictures.append(path)
    return Inspection(tuple(pictures), tuple(_make_row(curves, row) for row in range(len(curves))))


def _make_row(curves: Curves, row: int) -> InspectedNeuron:
    lo, hi = curves.domain[row]
    return InspectedNeuron(
        layer=int(curves.layer[row]),
        index=int(curves.index[row]),
        kind=None if curves.kinds is None else curves.kinds[row],
        domain=(float(lo), float(hi)),
        max_abs_error=None if curves.max_abs_error is None else float(curves.max_abs_error[row]),
    )
