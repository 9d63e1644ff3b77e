"""`mncompress inspect`: pictures and a table of the learned activations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mncompress.files import new_folder
from mncompress.types import to_json

from ._options import Json, Out, Overwrite, Quiet
from ._output import TextTable, open_output

if TYPE_CHECKING:
    from mncompress.report import Inspection


def inspect(
    folder: Annotated[Path, typer.Argument(
        metavar="RUN_DIR|COMPRESSED_DIR", help="A folder written by train or by compress.", show_default=False)],
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw the learned activations, and list what they are."""
    pictures = out or new_folder(folder, "inspect")

    from mncompress.pipeline import inspect as inspect_folder

    with open_output(as_json, quiet) as output:
        inspection = inspect_folder(folder, pictures, overwrite=overwrite)
        output.show({**to_json(inspection), "folder": str(pictures)}, make_table(inspection), f"pictures: {pictures}",
                    essential=str(pictures))


def make_table(inspection: "Inspection") -> TextTable:
    """One line for each neuron."""
    rows = [(f"{row.layer}", f"{row.index}", row.kind or "learned", f"{row.domain[0]:.4g}", f"{row.domain[1]:.4g}",
             "-" if row.max_abs_error is None else f"{row.max_abs_error:.2e}") for row in inspection.neurons]
    columns = ("layer", "neuron", "kind", "domain from", "to", "largest error")
    return TextTable(columns, rows, text_columns=frozenset({"kind"}))
