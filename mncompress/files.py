"""Writing files so that a reader never sees half of one, and a failed write never loses what was there.

A file is written beside its destination and renamed over it; a folder likewise. Renames on one file system are atomic.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mncompress.errors import OutputError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it replaces `path`, on any failure it is removed.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; free space or choose another --out") from error
    finally:
        with contextlib.suppress(OSError):      # gone after the rename; or its folder could not even be made
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document, atomically; NaN and infinities are refused since JSON has none."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def remove_file(path: Path) -> None:
    """Remove a file if it is there.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror or error}; choose another --out") from error


def check_output_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or that holds something, unless `overwrite`. Nothing is left changed.

    Raises:
        OutputError: `folder` is a file, cannot be written, or is not empty and `overwrite` is false.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file, not a folder; choose another --out")
        if folder.is_dir() and not overwrite and not all(map(_is_leftover, folder.iterdir())):
            raise OutputError(f"{folder} is not empty; choose another --out, or pass --overwrite")
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        os.rmdir(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=there))
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; choose another --out") from error


def _is_leftover(path: Path) -> bool:
    """Whether a killed process left this behind: see `atomic_path`, `atomic_folder`."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


@contextlib.contextmanager
def atomic_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside `folder`; on success it becomes `folder`, on failure it is removed.

    With `overwrite`, what was in `folder` is removed only after the new folder is complete.

    Raises:
        OutputError: see `check_output_folder`; or the place cannot be written, or the disk is full.
    """
    check_output_folder(folder, overwrite=overwrite)
    folder = folder.resolve()       # behind a symbolic link, the folder is replaced and the link stays
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; choose another --out") from error
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        if folder.exists():
            previous = temporary.with_suffix(".old")
            os.replace(folder, previous)
            try:
                os.replace(temporary, folder)
            except BaseException:
                os.replace(previous, folder)
                raise
            shutil.rmtree(previous, ignore_errors=True)
        else:
            os.replace(temporary, folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; free space or choose another --out") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder inside `folder`, removed at the end.

    What is complete there needs no more space to be renamed into `folder`.

    Raises:
        OutputError: `folder` cannot be written, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder) as temporary:
            try:
                yield Path(temporary)
            except OutputError as error:
                raise OutputError(str(error).replace(temporary, str(folder))) from error
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; free space or choose another --out") from error


def new_folder(parent: Path, name: str) -> Path:
    """Return `parent/name`, or the first of `name-2`, `name-3`, ... that does not exist. Nothing is created."""
    candidate, count = parent / name, 1
    while candidate.exists():
        count += 1
        candidate = parent / f"{name}-{count}"
    return candidate


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
