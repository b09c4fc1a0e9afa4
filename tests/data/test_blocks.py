from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conseq.data.blocks import Block, blocks, opened, unquoted

Write = Callable[[str, str | bytes], Path]


def _blocks(data: bytes, *, size: int, quotes: bool = False, longest: int = 1000) -> list[Block]:
    return list(blocks(io.BytesIO(data), "a.csv", quotes=quotes, size=size, longest=longest))


@given(st.lists(st.text("ab,é\r", min_size=1), min_size=1), st.integers(1, 20), st.booleans())
def test_blocks_are_the_file_cut_at_line_ends(lines: list[str], size: int, ended: bool) -> None:
    lines[-1] += "z"
    data = "\n".join(lines).encode() + b"\n" * ended
    found = _blocks(data, size=size)
    assert b"".join(block.data for block in found) == "\n".join(lines).encode() + b"\n"
    assert all(block.data.endswith(b"\n") for block in found)
    assert [block.line for block in found] == [1, *(block.after for block in found[:-1])]


@given(st.lists(st.sampled_from(['"a\n"', '"b,""\n\n"""', "c", '""']), min_size=1), st.integers(1, 9))
def test_a_newline_between_quotes_ends_no_record(records: list[str], size: int) -> None:
    found = _blocks("\n".join(records).encode(), size=size, quotes=True)
    assert b"".join(block.data for block in found) == "\n".join(records).encode() + b"\n"
    for block in found:
        assert block.data.count(b'"') % 2 == 0


def test_blank_lines_at_the_end_are_left_out() -> None:
    assert [block.data for block in _blocks(b"a\nb\r\n\r\n\n", size=100)] == [b"a\nb\n"]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\r\n"])
def test_a_file_without_content_has_no_blocks(data: bytes) -> None:
    assert _blocks(data, size=4) == []


def test_a_byte_order_mark_is_left_out() -> None:
    assert _blocks(b"\xef\xbb\xbfa\n", size=100) == [Block(b"a\n", 1)]


def test_a_quote_that_is_never_closed_is_named_with_its_line() -> None:
    with pytest.raises(ValueError, match=r"a\.csv, line 2: a quote opened in this record is never closed"):
        _blocks(b'a\n"b\nc\n', size=100, quotes=True)


def test_a_record_that_never_ends_is_an_error_before_it_fills_the_memory() -> None:
    with pytest.raises(ValueError, match=r"a\.csv, line 2: a record of more than 20 bytes"):
        _blocks(b"a\n" + b"b" * 100 + b"\n", size=10, longest=20)


def test_unquoted_places_are_those_outside_of_quotes() -> None:
    data = b'a,"b,c",d,"e"",f",g'
    commas = np.flatnonzero(np.frombuffer(data, np.uint8) == ord(","))
    assert unquoted(data, commas).tolist() == [1, 7, 9, 17]


def test_a_line_is_found_by_the_place_of_a_byte() -> None:
    block = Block(b"ab\ncd\nef\n", 10)
    assert [block.line_of(place) for place in (0, 2, 3, 8)] == [10, 10, 11, 12]


def test_bad_utf8_is_named_with_its_line() -> None:
    assert Block(b"ab\nc\xff\n", 10).bad_utf8() == "line 11: byte 0xff is not UTF-8"
    assert Block("é\n".encode(), 1).bad_utf8() is None


def test_gzip_is_told_by_its_content_and_not_by_its_name(write: Write) -> None:
    path = write("a.csv", gzip.compress(b"hello"))
    with opened(path) as file:
        assert file.read() == b"hello"


def test_truncated_gzip_is_an_error_that_names_the_file(write: Write) -> None:
    path = write("a.csv", gzip.compress(np.random.default_rng(0).bytes(5000))[:-100])
    with pytest.raises(ValueError, match=r"a\.csv: the gzip data break off"), opened(path) as file:
        file.read()


def test_corrupt_gzip_is_an_error_that_names_the_file(write: Write) -> None:
    packed = bytearray(gzip.compress(np.random.default_rng(0).bytes(5000)))
    packed[1000:1100] = bytes(100)
    with pytest.raises(ValueError, match=r"a\.csv: corrupt gzip data"), opened(write("a.csv", bytes(packed))) as file:
        file.read()
