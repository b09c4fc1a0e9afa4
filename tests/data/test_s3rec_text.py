from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conseq.data.s3rec_text import open_s3rec_text

Write = Callable[[str, str | bytes], Path]


def _rows(path: Path, *, block_bytes: int = 1 << 20) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for batch in open_s3rec_text(path, block_bytes=block_bytes).batches:
        assert batch.times is None
        found += zip(batch.users.to_list(), batch.items.to_list(), strict=True)
    return found


@pytest.mark.parametrize("block_bytes", [1, 9, 1000])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_line_is_a_user_and_the_items_in_order(write: Write, name: str, block_bytes: int) -> None:
    path = write(name, "1 007 é 3\n2 3\nx 9 9")
    expected = [("1", "007"), ("1", "é"), ("1", "3"), ("2", "3"), ("x", "9"), ("x", "9")]
    assert _rows(path, block_bytes=block_bytes) == expected


def test_spaces_tabs_and_windows_line_ends_only_separate(write: Write) -> None:
    assert _rows(write("a.txt", "1  a\tb \r\n 2 c\r\n\n")) == [("1", "a"), ("1", "b"), ("2", "c")]


def test_a_row_is_found_again_by_its_line(write: Write) -> None:
    (batch,) = open_s3rec_text(write("a.txt", "1 a b\n2 c\n")).batches
    assert [batch.place(row) for row in range(3)] == ["line 1", "line 1", "line 2"]


@pytest.mark.parametrize("block_bytes", [4, 1000])
def test_a_user_without_items_is_named_with_the_line(write: Write, block_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"a\.txt, line 2: user '2' has no items"):
        _rows(write("a.txt", "1 a\n2\n3 c\n"), block_bytes=block_bytes)


@pytest.mark.parametrize("block_bytes", [4, 1000])
def test_a_user_on_two_lines_is_an_error_that_names_both(write: Write, block_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"a\.txt: user '2' stands on line 2 and on line 4"):
        _rows(write("a.txt", "1 a\n2 b\n3 c\n2 d\n"), block_bytes=block_bytes)


def test_a_blank_line_is_named(write: Write) -> None:
    with pytest.raises(ValueError, match=r"a\.txt, line 2: the line is blank"):
        _rows(write("a.txt", "1 a\n\n2 b\n"))


def test_invalid_utf8_is_named_with_its_line(write: Write) -> None:
    with pytest.raises(ValueError, match=r"a\.txt, line 2: byte 0xe9 is not UTF-8"):
        _rows(write("a.txt", b"1 a\n2 \xe9\n"))


@pytest.mark.parametrize("content", ["", "\n1 a\n"])
def test_an_empty_file_is_an_error(write: Write, content: str) -> None:
    with pytest.raises(ValueError, match=r"a\.txt: the file is empty or starts with a blank line"):
        open_s3rec_text(write("a.txt", content))


@pytest.mark.parametrize("first", ["user_id,item_id", "user\titem", "user;item"])
def test_a_table_under_this_name_is_refused(write: Write, first: str) -> None:
    with pytest.raises(ValueError, match=r"the first line does not read 'user item item \.\.\.'; say what .* format="):
        open_s3rec_text(write("a.txt", f"{first}\n1,2\n"))


@pytest.mark.parametrize("content", ["u a b\rv c\r", "u a b\nv c\rw d\n"])
def test_lines_that_end_in_carriage_returns_are_refused(write: Write, content: str) -> None:
    with pytest.raises(ValueError, match=r"a\.txt.*: the line ends are CR; convert them to LF"):
        _rows(write("a.txt", content))
