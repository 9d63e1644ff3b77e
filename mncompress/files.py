"""Writing files so that a reader never sees half of one, and a failed write never loses what was there.

A file is written beside its destination and renamed over it; a folder likewise. Renames on one file system are atomic.

A folder that is written over minutes is held (`hold_folder`): a second process is refused in one line. The lock is the
operating system's and dies with its process, so who gets it may clear away what a killed one left behind: temporary files
and folders, whose names begin with a dot and end in `.tmp`, and a folder that was set aside (`.old`) for one that never came.
"""

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
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
        _clear_dead(path)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(_cannot_write(path, error)) from error
    finally:
        with contextlib.suppress(OSError):      # gone after the rename; or its folder could not even be made
            temporary.unlink()


def _cannot_write(path: Path, error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"cannot write {path}: {error.strerror or error}; {'free space or ' if full else ''}choose another --out"


def _clear_dead(path: Path) -> None:
    """Remove what processes that are gone have begun to write for `path`."""
    if os.name != "posix":      # elsewhere there is no asking without ending it
        return
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = left.name.removesuffix(".tmp").rpartition(".")[2]
        try:
            if number.isdecimal() and int(number) < 2**31:
                os.kill(int(number), 0)
        except ProcessLookupError:
            remove_file(left)
        except OSError:         # it lives, and is somebody else's
            continue


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
        if folder.is_dir() and not overwrite and not all(map(is_leftover, folder.iterdir())):
            raise OutputError(f"{folder} is not empty; choose another --out, or pass --overwrite")
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        prefix = "." if there == folder.absolute() else f".{folder.name}."       # as `hold_folder` would clear it away
        with _uninterrupted(), contextlib.suppress(FileNotFoundError):    # another process cleared it away
            os.rmdir(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=there))
    except OSError as error:
        raise OutputError(_cannot_write(folder, error)) from error


def is_leftover(path: Path) -> bool:
    """Whether this is a lock, or something that a killed process left behind: see `atomic_path`, `atomic_folder`."""
    return path.name.startswith(".") and path.name.endswith((".tmp", ".old", ".lock"))


@contextlib.contextmanager
def hold_folder(folder: Path, *, whole: bool = False) -> Iterator[None]:
    """Keep every other process from writing into `folder`; what a killed one left behind is cleared away first.

    The lock is the file `.lock` in the folder and goes again at the end, with the folders made for it that are still empty.

    Args:
        folder: the output folder.
        whole: it is replaced as a whole, as `atomic_folder` does; then the lock lies beside it.

    Raises:
        OutputError: another process holds it, it is a file, or its place cannot be written.
    """
    folder = folder.resolve()
    place = folder.parent if whole else folder
    lock = place / (f".{folder.name}.lock" if whole else ".lock")
    try:
        if not whole and place.exists() and not place.is_dir():
            raise OutputError(f"{folder} is a file, not a folder; choose another --out")
        made = [path for path in (place, *place.parents) if not path.exists()]
        place.mkdir(parents=True, exist_ok=True)
        held = _try_to_lock(lock)
    except OSError as error:
        raise OutputError(_cannot_write(folder, error)) from error
    if held is None:
        raise OutputError(f"{folder} is in use by another mncompress process; wait until it ends, or choose another --out")
    try:
        with contextlib.suppress(OSError):
            _clear_leftovers(place, folder.name if whole else None)
        yield
    finally:
        with contextlib.suppress(OSError):      # before the release: who waits for this very file then tries again
            lock.unlink()
        held.release()
        with contextlib.suppress(OSError):      # not empty
            for path in made:
                path.rmdir()


def _try_to_lock(path: Path) -> Any:
    """The lock, or None while another process has it."""
    from filelock import FileLock, Timeout  # where it is needed: `--help` answers at once

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.3)      # one that is just being released is not held
    except Timeout:
        return None
    return lock


def _clear_leftovers(place: Path, name: str | None) -> None:
    """Remove what killed writers of `place/name`, or of the files in `place`, left there, and put back a folder set aside."""
    random = r"[a-z0-9_]{8}"        # see tempfile
    pattern = rf"\.{random}\.tmp|\..+\.\d+\.tmp" if name is None else rf"\.{re.escape(name)}\.{random}\.(tmp|old)"
    for path in sorted(place.iterdir()):
        if not re.fullmatch(pattern, path.name):
            continue
        if path.suffix == ".old" and name is not None and not (place / name).exists():
            os.replace(path, place / name)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            remove_file(path)


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
        with _temporary_folder(folder.parent, f".{folder.name}.") as temporary:
            new = temporary / folder.name       # with everyone's rights, which the temporary folder has not
            new.mkdir()
            yield new
            with _uninterrupted():
                _exchange(new, folder, temporary.with_suffix(".old"))
    except OSError as error:
        raise OutputError(_cannot_write(folder, error)) from error


def _exchange(new: Path, folder: Path, previous: Path) -> None:
    """Put a complete folder in the place of what may be there, which is called `previous` meanwhile."""
    if not folder.exists():
        os.replace(new, folder)
        return
    os.replace(folder, previous)
    try:
        os.replace(new, folder)
    except BaseException:
        os.replace(previous, folder)
        raise
    shutil.rmtree(previous, ignore_errors=True)


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder inside `folder`, removed at the end.

    What is complete there needs no more space to be renamed into `folder`.

    Raises:
        OutputError: `folder` cannot be written, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(folder, ".") as temporary:
            try:
                yield temporary
            except OutputError as error:
                raise OutputError(str(error).replace(str(temporary), str(folder))) from error
    except OSError as error:
        raise OutputError(_cannot_write(folder, error)) from error


@contextlib.contextmanager
def _temporary_folder(place: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in `place`, removed at the end whenever Ctrl-C comes."""
    temporary = None
    try:
        with _uninterrupted():
            temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=place))
        yield temporary
    finally:
        if temporary is not None:
            with _uninterrupted():
                shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of a short step that would leave something behind halfway."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: waiting.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(*waiting[0])


def new_folder(parent: Path, name: str) -> Path:
    """Return `parent/name`, or the first of `name-2`, `name-3`, ... that does not exist. Nothing is created."""
    candidate, count = parent / name, 1
    while candidate.exists():
        count += 1
        candidate = parent / f"{name}-{count}"
    return candidate
