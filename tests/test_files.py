"""Atomic writes: half a file is never seen, and what was there survives every failure."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mncompress import files
from mncompress.errors import OutputError
from mncompress.files import (
    atomic_folder,
    atomic_path,
    check_output_folder,
    new_folder,
    remove_file,
    write_json,
    write_text,
)


def entries(folder: Path) -> dict[str, str]:
    """Everything below a folder: relative names and contents."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def fail_with(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))
    return fail


def assert_one_line(error: pytest.ExceptionInfo[OutputError], *words: str) -> None:
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_writes_appear_whole_and_make_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "text", "größe")
    write_json(tmp_path / "document.json", {"x": [1, 2.5]})
    write_text(tmp_path / "document.json", "second")
    assert (tmp_path / "a" / "b" / "text").read_bytes() == "größe".encode()
    assert entries(tmp_path) == {"a/b/text": "größe", "document.json": "second"}


def test_file_is_untouched_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent      # so that the rename stays on one file system
    assert entries(tmp_path) == {"file": "new"}


@pytest.mark.parametrize("error", [KeyError("bug"), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert entries(tmp_path) == {"file": "old"}


def test_json_refuses_what_json_has_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"x": float("nan")})
    assert entries(tmp_path) == {}


def test_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "replace", fail_with(errno.ENOSPC))
    with pytest.raises(OutputError) as error:
        write_text(tmp_path / "file", "x")
    assert_one_line(error, "No space left", str(tmp_path / "file"), "; free space or choose another --out")
    assert entries(tmp_path) == {}


@pytest.mark.parametrize("name", ["file/below", "file/deep/below", "n" * 300, "folder"])
def test_place_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError) as error:
        write_text(tmp_path / name, "x")
    assert_one_line(error, "cannot write", "; choose another --out")       # no space would help
    assert entries(tmp_path) == {"file": "kept"}


def test_remove_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError) as error:
        remove_file(tmp_path / "file" / "below")
    assert_one_line(error, "cannot remove")
    remove_file(tmp_path / "file")
    remove_file(tmp_path / "file")
    assert entries(tmp_path) == {}


def test_check_output_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for overwrite in (False, True):
        check_output_folder(tmp_path / "new" / "deeper", overwrite=overwrite)
        for name, words in {"file": "is a file", "file/below": "cannot write", "n" * 300: "cannot write"}.items():
            with pytest.raises(OutputError) as error:
                check_output_folder(tmp_path / name, overwrite=overwrite)
            assert_one_line(error, words, "--out")
    with pytest.raises(OutputError) as error:
        check_output_folder(tmp_path, overwrite=False)
    assert_one_line(error, "not empty", "--overwrite")
    check_output_folder(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]       # nothing was left behind


def test_read_only_place_is_found_out_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.tempfile, "mkdtemp", fail_with(errno.EACCES))
    with pytest.raises(OutputError) as error:
        check_output_folder(tmp_path / "new", overwrite=False)
    assert_one_line(error, "Permission denied")


@pytest.mark.parametrize("before", [None, {}, {"old": "1", "sub/older": "2"}])
def test_folder_appears_whole(tmp_path: Path, before: dict[str, str] | None) -> None:
    folder = tmp_path / "parent" / "out"
    for name, text in (before or {}).items():
        write_text(folder / name, text)
    if before == {}:
        folder.mkdir(parents=True)
    with atomic_folder(folder, overwrite=bool(before)) as temporary:
        (temporary / "new").write_text("3")
        assert before is None or entries(folder) == before
    assert entries(tmp_path) == {"parent/out/new": "3"}
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    reference = tmp_path / "reference"
    reference.mkdir()
    assert folder.stat().st_mode == reference.stat().st_mode        # not the private mode of a temporary folder


@pytest.mark.parametrize("error", [KeyError("bug"), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [{}, {"old": "1"}])
def test_failed_folder_keeps_the_old_one(tmp_path: Path, error: BaseException, before: dict[str, str]) -> None:
    folder = tmp_path / "out"
    for name, text in before.items():
        write_text(folder / name, text)
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), atomic_folder(folder, overwrite=True) as temporary:  # noqa: PT012
        (temporary / "new").write_text("half")
        raise error
    assert entries(tmp_path) == {f"out/{name}": text for name, text in before.items()}
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if before else [])


def test_failed_swap_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, replace = tmp_path / "out", os.replace
    write_text(folder / "old", "1")

    def fail_for_the_new_one(source: Path, target: Path) -> None:
        if Path(source).parent.suffix == ".tmp":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", fail_for_the_new_one)
    with pytest.raises(OutputError) as error, atomic_folder(folder, overwrite=True) as temporary:
        (temporary / "new").write_text("2")
    assert_one_line(error, "Input/output error")
    assert entries(tmp_path) == {"out/old": "1"}


def test_folder_that_is_not_empty_is_refused_without_overwrite(tmp_path: Path) -> None:
    write_text(tmp_path / "out" / "old", "1")
    with pytest.raises(OutputError, match="not empty"), atomic_folder(tmp_path / "out"):
        pytest.fail("the block must not run")
    with pytest.raises(OutputError, match="is a file"), atomic_folder(tmp_path / "out" / "old", overwrite=True):
        pytest.fail("the block must not run")
    with pytest.raises(OutputError, match="cannot write"), atomic_folder(tmp_path / "out" / "old" / "below"):
        pytest.fail("the block must not run")
    assert entries(tmp_path) == {"out/old": "1"}


def test_folder_behind_a_symbolic_link(tmp_path: Path) -> None:
    write_text(tmp_path / "real" / "old", "1")
    (tmp_path / "link").symlink_to("real")
    with atomic_folder(tmp_path / "link", overwrite=True) as temporary:
        (temporary / "new").write_text("2")
    assert (tmp_path / "link").is_symlink()
    assert entries(tmp_path / "real") == {"new": "2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_relative_folder_and_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with atomic_folder(Path("out")) as temporary:
        monkeypatch.chdir(tmp_path / "elsewhere")
        (temporary / "new").write_text("2")
    assert entries(tmp_path) == {"out/new": "2"}


def test_old_folder_that_cannot_be_removed_does_not_undo_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "out" / "old", "1")
    monkeypatch.setattr(os, "unlink", fail_with(errno.EBUSY))
    with atomic_folder(tmp_path / "out", overwrite=True) as temporary:
        (temporary / "new").write_text("2")
    assert entries(tmp_path / "out") == {"new": "2"}


def test_new_folder_counts_up(tmp_path: Path) -> None:
    assert new_folder(tmp_path, "run") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").write_text("a file counts as well")
    assert new_folder(tmp_path, "run") == tmp_path / "run-3"
    assert new_folder(tmp_path / "missing", "run") == tmp_path / "missing" / "run"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("moment", ["made", "removed"])
@pytest.mark.parametrize("folder_of", [files.atomic_folder, files.staging_folder])
def test_ctrl_c_leaves_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder_of: Any, moment: str) -> None:
    make, remove, sent = files.tempfile.mkdtemp, files.shutil.rmtree, []

    def interrupt() -> None:
        sent.append(os.kill(os.getpid(), signal.SIGINT))

    def interrupted_make(*args: Any, **kwargs: Any) -> str:
        path = make(*args, **kwargs)
        if moment == "made":
            interrupt()
        return path

    def interrupted_remove(*args: Any, **kwargs: Any) -> None:
        if moment == "removed":
            interrupt()
        remove(*args, **kwargs)

    monkeypatch.setattr(files.tempfile, "mkdtemp", interrupted_make)
    monkeypatch.setattr(files.shutil, "rmtree", interrupted_remove)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), folder_of(tmp_path / "out") as folder:
        (folder / "file").write_text("content")
    assert sent == [None]
    assert list(tmp_path.rglob(".*")) == []
    assert signal.getsignal(signal.SIGINT) is handler
