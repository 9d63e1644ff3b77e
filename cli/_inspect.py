"""`mncompress inspect`: pictures of a run or of a compressed network, and a table of its learned activations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mncompress.figures import FORMATS
from mncompress.files import new_folder
from mncompress.types import to_json

from ._options import DataDir, Json, Out, Overwrite, Quiet, check_choice, data_option, split_list
from ._output import Output, TextTable, open_output

if TYPE_CHECKING:
    from mncompress.report import Inspection

SKETCHES_WIDTH = 100
"""Columns of the pictures where stdout is no terminal."""
MOST_LISTED = 48
"""Neurons in the table on a terminal; a pipe and `--json` get all of them."""


def inspect(
    folder: Annotated[Path, typer.Argument(
        metavar="RUN_DIR|COMPRESSED_DIR", help="A folder written by train or by compress.", show_default=False)],
    out: Out = None,
    formats: Annotated[str, typer.Option(metavar="png,svg", help="What the pictures are written as.")] = "png,svg",
    most: Annotated[int, typer.Option(metavar="N", min=0, help="Draw only so many neurons, the most sensitive; 0: all.")] = 240,
    data: Annotated[str | None, data_option("  For a run folder.  [default: the run's]")] = None,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw learned activations, training, or what compression cost. List what the activations are."""
    names = tuple(check_choice(name, FORMATS, "--formats") for name in split_list(formats, "--formats"))
    pictures = out or new_folder(folder, "inspect")

    from mncompress.pipeline import inspect as inspect_folder

    with open_output(as_json, quiet) as output:
        found = inspect_folder(folder, pictures, overwrite=overwrite, formats=names, most=most, data=data,
                               data_dir=data_dir)
        document = {name: value for name, value in to_json(found).items() if name != "sketches"}
        blocks: list[str | TextTable] = [make_table(found, MOST_LISTED if output.stdout.isatty() else None)]
        blocks += make_sketches(found, output)
        notes = [f"note: {note}" for note in found.notes]
        output.show({**document, "folder": str(pictures)}, *blocks, *notes, f"pictures: {pictures}", essential=str(pictures))


def make_table(inspection: "Inspection", most: int | None = None) -> TextTable:
    """One line for each neuron, or for the first `most` and the number of the others."""
    neurons = inspection.neurons[:most]
    rows = [(f"{row.layer}", f"{row.index}", "left the network" if row.left else (row.kind or "learned").replace("_", " "),
             f"{row.domain[0]:.4g}", f"{row.domain[1]:.4g}",
             "-" if row.max_abs_error is None else f"{row.max_abs_error:.2e}",
             "-" if row.sensitivity is None else f"{row.sensitivity:.3g}") for row in neurons]
    if len(neurons) < len(inspection.neurons):
        rows.append(("...", "", f"{len(inspection.neurons) - len(neurons)} more: --json", "", "", "", ""))
    columns = ("layer", "neuron", "kind", "domain from", "to", "largest error", "sensitivity")
    return TextTable(columns, rows, text_columns=frozenset({"kind"}))


def make_sketches(inspection: "Inspection", output: Output) -> list[str]:
    """The pictures in characters, each row of them after an empty line, where stdout can show them."""
    from mncompress.report import arrange_sketches

    sketches = ["\n" + row for row in arrange_sketches(inspection.sketches, output.width or SKETCHES_WIDTH)]
    try:
        "".join(sketches).encode(output.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return []
    return sketches
