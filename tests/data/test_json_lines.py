from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conseq.data.batches import Source
from conseq.data.json_lines import open_json_lines

Write = Callable[[str, str | bytes], Path]
Row = tuple[str | None, ...]


def _open(path: Path, *, block_bytes: int = 1 << 20) -> Source:
    return open_json_lines(path, {"user": None, "item": None, "time": None}, block_bytes=block_bytes)


def _rows(source: Source) -> list[Row]:
    found: list[Row] = []
    for batch in source.batches:
        columns = [batch.users, batch.items] + ([] if batch.times is None else [batch.times])
        found += zip(*(column.to_list() for column in columns), strict=True)
    return found


def test_strings_and_integers_are_read_as_text(write: Write) -> None:
    path = write(
        "a.jsonl",
        '{"asin": "007", "reviewerID": "A é", "unixReviewTime": 1406073600, "helpful": [1, 2]}\n'
        '{"reviewerID": 12, "asin": "a\\nb", "unixReviewTime": 1406073600.5}\n',
    )
    assert _rows(_open(path)) == [("A é", "007", "1406073600"), ("12", "a\nb", "1406073600.5")]


def test_gzip_and_blank_lines_are_read_and_lines_are_counted_with_them(write: Write) -> None:
    path = write("a.jsonl.gz", '\n{"user": "a", "item": "b"}\n\n{"user": "c", "item": "d"}\n\n')
    assert _rows(_open(path)) == [("a", "b"), ("c", "d")]
    (batch,) = _open(path).batches
    assert [batch.place(0), batch.place(1)] == ["line 2", "line 4"]


def test_a_byte_order_mark_is_no_part_of_the_first_object(write: Write) -> None:
    assert _rows(_open(write("a.jsonl", b'\xef\xbb\xbf{"user": "a", "item": "b"}\n'))) == [("a", "b")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1) | st.integers(-(2**70), 2**70)), min_size=1),
    st.integers(1, 60),
    st.booleans(),
)
def test_any_id_survives_json_in_blocks_of_any_size(
    tmp_path: Path, rows: list[tuple[str, str | int]], block_bytes: int, ascii_only: bool
) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"user": user, "item": item}, ensure_ascii=ascii_only) for user, item in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert _rows(_open(path, block_bytes=block_bytes)) == [(user, str(item)) for user, item in rows]


@pytest.mark.parametrize("content", ["", "\n", " \n\n"])
def test_an_empty_file_is_an_error(write: Write, content: str) -> None:
    with pytest.raises(ValueError, match=r"a\.jsonl: the file is empty"):
        _open(write("a.jsonl", content))


@pytest.mark.parametrize("block_bytes", [8, 1000])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"user": "a", "item": ', "not JSON: .*each line must be one JSON object"),
        ("hello", "not JSON"),
        ('{"user": "a", "item": "b"} {"user": "a", "item": "b"}', "not JSON"),
        ("[1, 2]", "found a list, expected one JSON object per line"),
        ('{"user": "a"}', "'item' is missing"),
        ('{"user": null, "item": "b"}', "'user' is missing"),
        ('{"user": "a", "item": ""}', "'item' is missing"),
        ('{"user": "a", "item": true}', "'item' is true; ids are JSON strings or integers"),
        ('{"user": ["a"], "item": "b"}', r"'user' is \[\"a\"\]; ids"),
        ('{"user": {"id": 3}, "item": "b"}', "'user' is {.*}; ids"),
        ('{"user": "a", "item": 1.5}', "'item' is 1.5; ids"),
        ('{"user": "a", "item": 1.0}', "'item' is 1.0; ids"),
        ('{"user": 1e3, "item": "b"}', "'user' is 1000.0; ids"),
        ('{"item": -12E+2 ,"user": "a"}', "'item' is -1200.0; ids"),
        ('{"user": "a", "item"\t:\t1e25}', r"'item' is 1e\+25; ids"),
        ('{"user": "a", "item": 12345678901234567890.5}', r"'item' is 1.2.*e\+19; ids"),
        (r'{"user": "\ud800", "item": "b"}', r"'user' is \"\\ud800\", which holds half of a surrogate pair"),
        (r'{"user": "a", "item": "x \" \uDC01y"}', "'item' is .*half of a surrogate pair"),
    ],
)
def test_a_bad_line_is_named(write: Write, bad: str, message: str, block_bytes: int) -> None:
    path = write("a.jsonl", '{"user": "x", "item": "y"}\n\n' + bad + '\n{"user": "x", "item": "z"}\n')
    with pytest.raises(ValueError, match=rf"a\.jsonl, line 3: {message}"):
        _rows(_open(path, block_bytes=block_bytes))


def test_a_number_with_an_exponent_is_refused_also_where_the_key_is_escaped(write: Write) -> None:
    path = write("a.jsonl", '{"us\u00e9r": "a", "item": "b"}\n{"us\\u00e9r": 1e3, "item": "b"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: 'usér' is 1000\.0; ids"):
        _rows(open_json_lines(path, {"user": "us\u00e9r", "item": None, "time": None}))


def test_a_pair_of_surrogates_is_a_character(write: Write) -> None:
    path = write("a.jsonl", r'{"user": "\ud83d\ude00", "item": "\u0000", "x": "\ud800"}')
    assert _rows(_open(path)) == [("\U0001f600", "\0")]


def test_numbers_of_other_keys_may_be_written_in_any_way(write: Write) -> None:
    path = write("a.jsonl", '{"user": 1000, "item": "1e3", "rating": 1e3, "time": 1.5e3}\n')
    ((user, item, time),) = _rows(_open(path))
    assert (user, item, float(time or "")) == ("1000", "1e3", 1500.0)


@pytest.mark.parametrize("block_bytes", [8, 1000])
@pytest.mark.parametrize("key", ["timestamp", "unixReviewTime", "event time"])
def test_a_time_that_the_first_object_lacks_is_refused_with_its_line(write: Write, key: str, block_bytes: int) -> None:
    path = write("a.jsonl", '{"user": "a", "item": "b"}\n\n{"user": "c", "' + key + '": 3, "item": "d"}\n')
    with pytest.raises(ValueError, match=rf"a\.jsonl, line 3: '{key}' looks like the time.* or say time='-'"):
        _rows(_open(path, block_bytes=block_bytes))


def test_times_may_come_late_where_the_order_of_the_file_is_taken(write: Write) -> None:
    path = write("a.jsonl", '{"user": "a", "item": "b"}\n{"user": "c", "item": "d", "time": 3}\n')
    assert _rows(open_json_lines(path, {"user": None, "item": None, "time": "-"})) == [("a", "b"), ("c", "d")]


def test_a_time_inside_a_value_is_not_the_time_of_the_interaction(write: Write) -> None:
    path = write("a.jsonl", r'{"user": "a", "item": "b", "x": {"time": 3}, "y": "\"time\":"}' + "\n")
    assert _rows(_open(path)) == [("a", "b")]


def test_lines_that_end_in_carriage_returns_are_refused(write: Write) -> None:
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: the line ends are CR; convert them to LF"):
        _open(write("a.jsonl", '{"user": "a", "item": "b"}\r{"user": "a", "item": "b"}\r'))


def test_an_id_that_looks_like_json_is_text(write: Write) -> None:
    path = write("a.jsonl", '{"user": "[1]", "item": "{}"}\n{"user": "true", "item": "1.50"}\n')
    assert _rows(_open(path)) == [("[1]", "{}"), ("true", "1.50")]


def test_a_time_that_is_no_number_or_text_is_named_with_its_line(write: Write) -> None:
    path = write("a.jsonl", '{"user": "1.5", "item": "b", "time": 3}\n{"user": "x", "item": "y", "time": [3]}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: 'time' is \[3\]; times are numbers or ISO dates"):
        _rows(_open(path))


def test_invalid_utf8_is_named_with_its_line(write: Write) -> None:
    path = write("a.jsonl", b'{"user": "a", "item": "b"}\n{"user": "a", "item": "\xe9"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: byte 0xe9 is not UTF-8"):
        _rows(_open(path))


def test_a_json_array_is_refused_on_its_first_line(write: Write) -> None:
    with pytest.raises(ValueError, match=r"a\.json, line 1: found a list, expected one JSON object per line"):
        _open(write("a.json", '[{"user": "a", "item": "b"}]'))


def test_the_keys_of_the_first_object_are_the_columns(write: Write) -> None:
    with pytest.raises(ValueError, match=r"no column looks like the item; found 'user', 'x'"):
        _open(write("a.jsonl", '{"user": "a", "x": "b"}'))
