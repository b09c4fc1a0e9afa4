from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conseq.data.batches import Source
from conseq.data.delimited import open_delimited
from conseq.data.readers import read
from conseq.data.reading import Format

Write = Callable[[str, str | bytes], Path]
Row = tuple[str | None, ...]

GUESS: dict[str, str | None] = {"user": None, "item": None, "time": None}


def _open(path: Path, kind: Format = "csv", *, block_bytes: int = 1 << 20, **choice: str | None) -> Source:
    return open_delimited(path, kind, GUESS | choice, block_bytes=block_bytes)


def _rows(source: Source) -> list[Row]:
    found: list[Row] = []
    for batch in source.batches:
        columns = [batch.users, batch.items] + ([] if batch.times is None else [batch.times])
        found += zip(*(column.to_list() for column in columns), strict=True)
    return found


def _places(source: Source) -> list[str]:
    return [batch.place(row) for batch in source.batches for row in range(len(batch.users))]


def test_columns_come_as_text_in_the_order_user_item_time(write: Write) -> None:
    path = write("a.csv", "timestamp,rating,item_id,user_id\n1,5,007,a\n2,4, x y,é\n")
    assert _rows(_open(path)) == [("a", "007", "1"), ("é", " x y", "2")]


def test_a_file_without_times_gives_none(write: Write) -> None:
    assert _rows(_open(write("a.csv", "user,item\na,b\n"))) == [("a", "b")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_of_a_csv_is_told_by_its_header(write: Write, separator: str) -> None:
    source = _open(write("a.csv", "user,item,time\na,b,1\n".replace(",", separator)))
    assert source.separator == separator
    assert _rows(source) == [("a", "b", "1")]


def test_quoted_fields_may_hold_separators_quotes_and_newlines(write: Write) -> None:
    path = write("a.csv", '"user","item",time\n"a,1","say ""x""",1\nb,"two\nlines",2\nc,d,3\n')
    source = _open(path)
    assert _rows(source) == [("a,1", 'say "x"', "1"), ("b", "two\nlines", "2"), ("c", "d", "3")]
    assert _places(_open(path)) == ["line 2", "line 3", "line 5"]


def test_quotes_mean_nothing_in_a_tsv(write: Write) -> None:
    path = write("a.tsv", 'user\titem\n"a\tb"c\nd\t"e"\n')
    assert _rows(_open(path, "tsv")) == [('"a', 'b"c'), ("d", '"e"')]


def test_a_recbole_header_is_understood(write: Write) -> None:
    path = write("a.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t5\t9.5\n")
    assert _rows(_open(path, "inter")) == [("1", "2", "9.5")]


def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_the_fields(write: Write) -> None:
    path = write("a.csv", b"\xef\xbb\xbfuser,item,time\r\na,b,1\r\nc,d,2\r\n\r\n")
    assert _rows(_open(path)) == [("a", "b", "1"), ("c", "d", "2")]


def test_the_last_line_needs_no_newline(write: Write) -> None:
    assert _rows(_open(write("a.csv", "user,item\na,b\nc,d"))) == [("a", "b"), ("c", "d")]


def test_gzip_is_read(write: Write) -> None:
    assert _rows(_open(write("a.csv.gz", "user,item\na,b\n"))) == [("a", "b")]


def test_words_that_other_readers_take_for_missing_stay_as_they_are(write: Write) -> None:
    path = write("a.csv", "user,item\nNULL,NaN\nnan,None\n#x,1e5\n")
    assert _rows(_open(path)) == [("NULL", "NaN"), ("nan", "None"), ("#x", "1e5")]


field = st.text(st.characters(codec="utf-8", exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(field, field, field), min_size=1), st.integers(1, 60))
def test_any_text_survives_a_csv_in_blocks_of_any_size(
    tmp_path: Path, rows: list[tuple[str, str, str]], block_bytes: int
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("user", "note", "item"), *rows])
    path = tmp_path / "a.csv"
    path.write_bytes(text.getvalue().encode())
    assert _rows(_open(path, block_bytes=block_bytes)) == [(user, item) for user, _, item in rows]


@pytest.mark.parametrize("content", ["", "\n", "\r\n"])
def test_an_empty_file_is_an_error(write: Write, content: str) -> None:
    with pytest.raises(ValueError, match=r"a\.csv: the file is empty"):
        _open(write("a.csv", content))


@pytest.mark.parametrize("block_bytes", [8, 1000])
@pytest.mark.parametrize(
    ("bad", "found"), [("a,b", 2), ("a,b,1,x,y", 5), ("a", 1), ("a,b,1,", 4), ("a,b,1,x,y\na,b,1", 5)]
)
def test_a_record_with_too_few_or_too_many_fields_is_named_with_its_line(
    write: Write, bad: str, found: int, block_bytes: int
) -> None:
    content = f"user,item,time,rating,note\nu,i,1,5,n\n{bad}\nu,j,2,5,n\n"
    if found == 5:
        content = content.replace("user,item,time,rating,note", "user,item,time").replace(",5,n", "")
    expected = 3 if found == 5 else 5
    with pytest.raises(
        ValueError, match=rf"a\.csv, line 3: found {found} fields, expected {expected} as in the header"
    ):
        _rows(_open(write("a.csv", content), block_bytes=block_bytes))


def test_a_short_and_a_long_record_do_not_make_up_for_each_other(write: Write) -> None:
    path = write("a.csv", "user,item,time\na,b\nc,d,1,2\n")
    with pytest.raises(ValueError, match=r"line 2: found 2 fields"):
        _rows(_open(path))


def test_a_blank_line_is_named(write: Write) -> None:
    with pytest.raises(ValueError, match=r"a\.csv, line 3: the line is blank"):
        _rows(_open(write("a.csv", "user,item\na,b\n\nc,d\n")))


@pytest.mark.parametrize("block_bytes", [16, 1 << 20])
def test_the_header_of_a_file_that_was_joined_to_another_is_named(write: Write, block_bytes: int) -> None:
    path = write("a.csv", "user,item\na,b\nuser,x\nuser,item\nc,d\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 4: this is the header again; remove it"):
        _rows(_open(path, block_bytes=block_bytes))


def test_the_line_of_a_bad_record_counts_newlines_in_quoted_fields(write: Write) -> None:
    with pytest.raises(ValueError, match=r"line 5: found 1 field"):
        _rows(_open(write("a.csv", 'user,item\na,"x\ny\nz"\nb\n')))


@pytest.mark.parametrize("bad", ['5" pipe,b', 'a,"b"c', '"a" ,b', 'x"y"z,b'])
def test_a_quote_inside_a_field_is_named_with_its_line(write: Write, bad: str) -> None:
    content = f'user,item\nu,i\n{bad}\n"x",y\n'
    content += '"' if content.count('"') % 2 else ""
    with pytest.raises(ValueError, match=r"a\.csv, line 3: a quote stands inside a field"):
        _rows(_open(write("a.csv", content)))


@pytest.mark.parametrize("block_bytes", [8, 1000])
def test_invalid_utf8_is_named_with_its_line(write: Write, block_bytes: int) -> None:
    path = write("a.csv", b"user,item\na,b\nc,\xe9\nd,e\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 3: byte 0xe9 is not UTF-8"):
        _rows(_open(path, block_bytes=block_bytes))


def test_a_header_that_is_not_utf8_is_an_error(write: Write) -> None:
    with pytest.raises(ValueError, match=r"a\.csv, line 1: the header is not UTF-8"):
        _open(write("a.csv", "user,item\n".encode("utf-16")))


@pytest.mark.parametrize("kind", ["csv", "tsv", "inter"])
def test_lines_that_end_in_carriage_returns_are_refused(write: Write, kind: Format) -> None:
    text = "user,item\ra,b\rc,d\r" if kind == "csv" else "user\titem\ra\tb\rc\td\r"
    with pytest.raises(ValueError, match=r"a\.log: the line ends are CR; convert them to LF"):
        _open(write("a.log", text), kind)


def test_a_carriage_return_in_a_quoted_column_name_is_part_of_it(write: Write) -> None:
    assert _rows(_open(write("a.csv", 'user,item,"no\rte"\r\na,b,c\r\n'))) == [("a", "b")]


def test_a_doubled_column_is_an_error(write: Write) -> None:
    with pytest.raises(ValueError, match=r"column 'item' occurs 2 times"):
        _open(write("a.csv", "user,item,item\na,b,c\n"))


def test_truncated_gzip_is_an_error(write: Write) -> None:
    path = write("a.csv.gz", "user,item\n" + "".join(f"{i * i},{i}\n" for i in range(5000)))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"a\.csv\.gz: the gzip data break off"):
        _rows(_open(path))


def test_lines_that_end_in_cr_below_a_header_that_does_not_are_told(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"user_id,item_id\nu,a\ru,b\ru,c\r")
    with pytest.raises(ValueError, match=r"line 2: found 4 fields, expected 2 as in the header; the line ends are CR"):
        read(tmp_path / "log.csv")
