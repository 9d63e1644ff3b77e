"""`mncompress quickstart`: the whole pipeline on a small data set."""

from pathlib import Path

from mncompress.files import new_folder

from ._options import Json, Out, Quiet
from ._output import open_output
from ._summary import show_result


def quickstart(out: Out = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Train, compress, export and measure a small network. Its data comes with the installation."""
    folder = out or new_folder(Path("runs"), "quickstart")

    from mncompress.pipeline import quickstart as run_quickstart

    with open_output(as_json, quiet) as output:
        show_result(output, run_quickstart(folder, output.status))
