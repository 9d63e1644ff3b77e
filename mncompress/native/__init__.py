"""The compiled kernels of the domain `ai.mncompress`: where their library is, and what it chose on this machine.

The sources are the C++ files of this folder; `setup.py` compiles them where there is a compiler. ONNX Runtime loads the
library as custom operators (`mncompress.runtime`), torch modules call it directly (`mncompress.nn`). Neither is imported here.
"""

import ctypes
import functools
import struct
import sys
from pathlib import Path

INTERFACE = b"mncompress native interface 2"
"""What a library has in it that was built from sources of this version, or of another that passes the same to its functions."""
_NAMES = {"win32": "mncompress_ops.dll", "darwin": "libmncompress_ops.dylib"}


def library_path() -> Path | None:
    """Path of the compiled kernel library, or None where it was not built."""
    path = Path(__file__).parent / _NAMES.get(sys.platform, "libmncompress_ops.so")
    return path if path.is_file() else None


@functools.cache
def check_library() -> str | None:
    """The reason why the library must not be loaded, or None: functions of another version, or a truncated file, would crash.

    An ELF file says itself how long it is: its last part is the table of sections, or a section. Other systems check that.
    """
    path = library_path()
    if path is None:
        return None
    content = path.read_bytes()
    reason = _find_truncation(path, content) if sys.platform == "linux" else None
    return reason or (None if INTERFACE in content else f"{path} was built from other sources")


def _find_truncation(path: Path, content: bytes) -> str | None:
    if content[4:5] != b"\x02":     # Linux itself refuses what is no ELF file of 64 bits
        return None
    try:
        start, size, count = (*struct.unpack_from("<Q", content, 0x28), *struct.unpack_from("<HH", content, 0x3A))
        sections = [struct.unpack_from("<IIQQQQ", content, start + size * number) for number in range(count)]
    except struct.error:
        return f"{path} is truncated"
    end = max((offset + length for _, kind, _, _, offset, length in sections if kind != _NOBITS), default=0)
    return f"{path} is truncated" if end > len(content) or content[:4] != b"\x7fELF" else None


_NOBITS = 8
"""The kind of a section that takes no room in the file."""


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """The library, or None where it was not built, is damaged, or this machine cannot load it."""
    path = library_path()
    try:
        return None if path is None or check_library() else ctypes.CDLL(str(path))
    except OSError:
        return None


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
