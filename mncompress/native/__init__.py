"""The compiled kernels of the domain `ai.mncompress`: where their library is, and what it chose on this machine.

The sources are the C++ files of this folder; `setup.py` compiles them where there is a compiler. ONNX Runtime loads the
library as custom operators (`mncompress.runtime`), torch modules call it directly (`mncompress.nn`). Neither is imported here.
"""

import ctypes
import functools
import sys
from pathlib import Path

_NAMES = {"win32": "mncompress_ops.dll", "darwin": "libmncompress_ops.dylib"}


def library_path() -> Path | None:
    """Path of the compiled kernel library, or None where it was not built."""
    path = Path(__file__).parent / _NAMES.get(sys.platform, "libmncompress_ops.so")
    return path if path.is_file() else None


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """The library, or None where it was not built or this machine cannot load it."""
    path = library_path()
    try:
        library = None if path is None else ctypes.CDLL(str(path))
    except OSError:
        return None
    return library if hasattr(library, "mncompress_kernels") else None


def instruction_set() -> str | None:
    """The instruction set of the kernels in use: `avx512`, `avx2`, `neon` or `scalar`; None without a library.

    The environment variable MNCOMPRESS_KERNELS names another, for tests and measurements, before the library is first used; a
    name that this machine does not know changes nothing.
    """
    library = load_library()
    if library is None:
        return None
    library.mncompress_kernels.restype = ctypes.c_char_p
    return str(library.mncompress_kernels().decode())
