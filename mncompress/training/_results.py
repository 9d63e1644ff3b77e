"""What was made from a run, and goes with it when another run takes its place."""

import re
import shutil
from pathlib import Path

from mncompress.checkpoint import COMPRESSED_FILES
from mncompress.files import remove_file

RESULTS = {r"compressed(-\d+)?": COMPRESSED_FILES, r"inspect(-\d+)?": r".+\.(png|svg)",
           "tensorboard": r"events\..+"}
"""Folders in a run folder that were made from the run, and what our own files in there are called."""


def remove_results(folder: Path) -> None:
    """Remove what was made from a run that is no longer in `folder`; files that are not ours stay.

    Raises:
        OutputError: something cannot be removed.
    """
    for place, files in RESULTS.items():
        for results in (path for path in folder.iterdir() if re.fullmatch(place, path.name) and path.is_dir()):
            ours = [path for path in results.iterdir() if re.fullmatch(files, path.name)]
            for path in ours:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    remove_file(path)
            if ours and not any(results.iterdir()):
                results.rmdir()
