"""Bring your own data: an npz file with `x_train`, `y_train`, `x_test` and `y_test`, never unpickled."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mncompress.data._check import KEYS, check_arrays
from mncompress.data._dataset import Arrays
from mncompress.errors import DataError
from mncompress.memory import free_bytes

COPIES = 3
"""Of the arrays, while they are converted, checked and split."""


def read_npz(path: Path) -> Arrays:
    """Read and check the data set in the npz file `path`; see `check_arrays` for shapes and dtypes.

    Raises:
        DataError: the file is missing or damaged, keys are missing or unknown, or an array cannot be used.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an npz file with the arrays {', '.join(KEYS)}")
    try:
        file = path.open("rb")  # by us, since numpy leaves it open when it is no zip file
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); expected a readable npz file") from error
    with file:
        return check_arrays(str(path), _read_arrays(file, path))


def _read_arrays(file: BinaryIO, path: Path) -> dict[str, NDArray[Any]]:
    try:
        archive = np.load(file, allow_pickle=False)
    except Exception as error:  # numpy, zipfile, zlib and tokenize each have their own for damaged bytes
        raise DataError(f"{path}: not a readable npz file; write one with numpy.savez, with the arrays "
                        f"{', '.join(KEYS)}") from error
    if isinstance(archive, np.ndarray):
        raise DataError(f"{path}: holds a single array (npy); expected an npz file with the arrays {', '.join(KEYS)}")
    with archive:
        missing = [key for key in KEYS if key not in archive.files]
        unknown = [key for key in archive.files if key not in KEYS]
        held, free = sum(member.file_size for member in archive.zip.infolist()), free_bytes()
        if free is not None and held > free / COPIES:
            raise DataError(f"{path}: its arrays unpack to {held / 1e9:.3g} GB, too much for the {free / 1e9:.3g} GB of memory "
                            "that are free; take fewer rows")
        if missing or unknown:
            found = f"misses {', '.join(missing)}" if missing else f"holds unknown arrays {', '.join(unknown)}"
            raise DataError(f"{path}: {found}; expected {', '.join(KEYS)} and nothing else")
        return {key: _read_array(archive, path, key) for key in KEYS}


def _read_array(archive: Any, path: Path, key: str) -> NDArray[Any]:
    expected = "expected a plain numeric array"
    try:
        array = archive[key]
    except Exception as error:  # as above; Python objects are refused here
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: {key} cannot be read ({reason}); {expected}") from error
    if not isinstance(array, np.ndarray):  # numpy hands out members that are not npy files as bytes
        raise DataError(f"{path}: {key} is not an array; {expected}")
    return array
