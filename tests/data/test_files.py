from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conseq.data.files import append, atomic_path, atomic_write, naming, write_parquet

FullDisk = Callable[[int], AbstractContextManager[None]]


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_text_is_written_as_utf8_and_bytes_as_they_are(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", "è\n")
    atomic_write(tmp_path / "b", b"\xff\x00")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa8\n"
    assert (tmp_path / "b").read_bytes() == b"\xff\x00"
    assert names(tmp_path) == ["a", "b"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    atomic_write(str(tmp_path / "x" / "y" / "a"), "new")
    assert (tmp_path / "x" / "y" / "a").read_text() == "new"


def test_the_old_file_stands_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with atomic_path(path) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_inside_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_found_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, b"something long")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_found_while_flushing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_the_content_reaches_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    seen, flush = [], os.fsync

    def note(handle: int) -> None:
        seen.append(path.read_text())
        flush(handle)

    monkeypatch.setattr(os, "fsync", note)
    atomic_write(path, "new")
    assert seen == ["old", "new"]  # the file before the rename, its folder after


def test_a_block_that_writes_nothing_fails_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        atomic_write(tmp_path / "a", "new")
    assert names(tmp_path) == ["a"]


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match="a"):
        atomic_write(tmp_path / "a" / "b", "new")
    assert (tmp_path / "a").read_text() == "old"


def test_two_writers_of_one_file_do_not_share_a_temporary_name(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as first, atomic_path(tmp_path / "a") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "a").read_text() == "1"  # the last to end
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("size", [10, 100_000])
def test_an_array_that_finds_the_disk_full_names_the_file_and_the_cause(
    tmp_path: Path, full_disk: FullDisk, size: int
) -> None:
    def fill() -> None:
        with (tmp_path / "a").open("wb") as file:
            for _ in range(300):
                append(file, np.zeros(size, np.int32))

    with full_disk(1000), pytest.raises(OSError, match="File too large") as caught:
        fill()
    assert caught.value.filename == str(tmp_path / "a")
    assert caught.value.errno == errno.EFBIG


def test_arrays_of_any_shape_and_type_are_appended_as_their_bytes(tmp_path: Path) -> None:
    records = np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "<i4"), ("b", "<f8")])
    arrays = [np.arange(6, dtype="<i2").reshape(2, 3).T, records, records[:0], np.zeros((0, 2), np.int32)]
    with (tmp_path / "a").open("wb") as file:
        for one in arrays:
            append(file, one)
    assert (tmp_path / "a").read_bytes() == b"".join(one.tobytes() for one in arrays)


@pytest.mark.parametrize("lazy", [True, False])
def test_a_table_that_finds_the_disk_full_names_the_file_and_the_cause(
    tmp_path: Path, full_disk: FullDisk, *, lazy: bool
) -> None:
    table = pl.DataFrame({"a": np.random.default_rng(0).random(9000)})
    with full_disk(1000), pytest.raises(OSError, match=r"a\.parquet: cannot be written: .*too large"):
        write_parquet(table.lazy() if lazy else table, tmp_path / "a.parquet")


def test_only_an_error_of_the_system_without_a_path_gets_one() -> None:
    def failing(error: OSError) -> OSError:
        with pytest.raises(OSError, match=r".") as caught, naming("here"):
            raise error
        return caught.value

    bare = failing(OSError(errno.EACCES, "denied"))
    assert (type(bare), bare.errno, bare.filename) == (PermissionError, errno.EACCES, "here")
    assert failing(OSError(errno.ENOENT, "missing", "there")).filename == "there"
    assert failing(FileExistsError("our own words")).args == ("our own words",)


def test_a_file_that_finds_the_disk_full_is_named(tmp_path: Path, full_disk: FullDisk) -> None:
    with full_disk(10), pytest.raises(OSError, match="File too large") as caught:
        atomic_write(tmp_path / "a", "something long")
    assert caught.value.filename == str(tmp_path / "a")
    assert names(tmp_path) == []
