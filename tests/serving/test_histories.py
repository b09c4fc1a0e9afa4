"""Histories in the forms that users have them in."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from conseq.data.log import InteractionLog
from conseq.data.vocabulary import Vocabulary
from conseq.serving.histories import (
    ROWS_AT_ONCE,
    as_id,
    encode,
    encode_blocks,
    encode_log,
    histories_of,
    history_from_json,
    ids_from,
    read_histories,
    rows_of,
)

ABC = Vocabulary(["a", "b", "c"], start=1)


@pytest.mark.parametrize(
    ("one", "expected"), [("007", "007"), (7, "7"), (np.int64(7), "7"), (np.str_("x"), "x"), (" ", " ")]
)
def test_strings_stay_and_integers_become_decimal(one: object, expected: str) -> None:
    assert as_id(one) == expected
    assert type(as_id(one)) is str


@pytest.mark.parametrize("one", [7.0, None, True, b"a", ["a"], np.float32(1)])
def test_anything_else_is_no_item_id(one: object) -> None:
    with pytest.raises(TypeError, match="an item id is a string or an integer"):
        as_id(one)


@pytest.mark.parametrize("one_history", [["a", "b"], ("a", "b"), np.array(["a", "b"]), iter(["a", "b"])])
def test_ids_by_themselves_are_one_history(one_history: Iterable[object]) -> None:
    rows, one = rows_of(one_history, what="histories")
    assert one
    assert [list(row) for row in rows] == [["a", "b"]]


@pytest.mark.parametrize(
    "many", [[["a"], ["b", "c"]], (("a",), ("b", "c")), (iter(row) for row in (["a"], ["b", "c"]))]
)
def test_lists_of_ids_are_many_histories(many: Iterable[object]) -> None:
    rows, one = rows_of(many, what="histories")
    assert not one
    assert [list(row) for row in rows] == [["a"], ["b", "c"]]


def test_nothing_is_no_history_and_an_empty_list_in_a_list_is_one() -> None:
    assert list(rows_of([], what="histories")[0]) == []
    assert [list(row) for row in rows_of([[]], what="histories")[0]] == [[]]


@pytest.mark.parametrize("wrong", ["a b", {"u": ["a"]}, {"a", "b"}, 3, b"a"])
def test_what_has_no_order_or_is_a_string_is_refused(wrong: Iterable[object]) -> None:
    with pytest.raises(TypeError, match="histories: expected a list of item ids"):
        rows_of(wrong, what="histories")


def test_a_string_among_histories_is_refused_by_its_row() -> None:
    rows, _ = rows_of([["a"], "b"], what="histories")
    with pytest.raises(TypeError, match="row 1 is str 'b'"):
        list(rows)


def test_unknown_ids_are_dropped_and_counted() -> None:
    seqs, dropped = encode([["a", "x", "c"], ["y"], []], ABC, unknown="drop", what="histories")
    assert seqs.to_lists() == [[1, 3], [], []]
    assert dropped == 2


def test_unknown_ids_are_named_where_they_are_an_error() -> None:
    with pytest.raises(KeyError, match="histories: 'x', 'y' are not among the 3 known items"):
        encode([["a", "x"], ["y"]], ABC, unknown="error", what="histories")


def test_many_unknown_ids_are_not_all_listed() -> None:
    with pytest.raises(KeyError, match="'14' and 95 more are not"):
        encode([[str(n) for n in range(10, 110)]], ABC, unknown="error", what="histories")


def test_a_stream_is_read_in_blocks_and_no_further_than_asked() -> None:
    read = []

    def stream() -> Iterable[list[str]]:
        for number in range(3 * ROWS_AT_ONCE):
            read.append(number)
            yield ["a"]

    blocks = encode_blocks(iter(stream()), ABC, unknown="drop", what="histories")
    assert len(next(blocks)[0]) == ROWS_AT_ONCE
    assert len(read) == ROWS_AT_ONCE


def _log() -> InteractionLog:
    return InteractionLog(
        items=np.array([1, 2, 3, 2, 3], dtype=np.int32),
        offsets=np.array([0, 3, 4, 5], dtype=np.int64),
        times=None,
        user_ids=Vocabulary(["u", "v", "w"], start=0),
        item_ids=Vocabulary(["c", "new", "a"], start=1),
        manifest={},
    )


def test_a_log_with_another_numbering_is_renumbered_by_its_ids() -> None:
    blocks = list(encode_log(_log(), np.array([2, 0, 1]), ABC, unknown="drop"))
    assert [(seqs.to_lists(), dropped) for seqs, dropped in blocks] == [([[1], [3, 1], []], 2)]


def test_items_of_a_log_that_the_model_does_not_know_can_be_an_error() -> None:
    with pytest.raises(KeyError, match="log: 'new' is not among the 3 known items"):
        list(encode_log(_log(), np.array([0]), ABC, unknown="error"))


def test_users_are_chosen_in_the_order_asked() -> None:
    users, rows = histories_of({"u": ["a"], 7: ["b"]}, ["7", "u"])
    assert users == ["7", "u"]
    assert [list(row) for row in rows] == [["b"], ["a"]]


def test_a_user_without_a_history_is_named() -> None:
    with pytest.raises(KeyError, match="users: 'z' is not among the 1 users with a history"):
        histories_of({"u": ["a"]}, ["u", "z"])


def test_a_text_file_has_one_history_per_line(tmp_path: Path) -> None:
    (tmp_path / "h.txt").write_text("a  b\n\né\t007\n", encoding="utf-8")
    assert list(read_histories(tmp_path / "h.txt")) == [["a", "b"], [], ["é", "007"]]


def test_json_lines_keep_ids_with_spaces_also_when_packed(tmp_path: Path) -> None:
    text = '["a b", 7]\n\n["c"]\n'
    (tmp_path / "h.jsonl").write_text(text, encoding="utf-8")
    with gzip.open(tmp_path / "h.jsonl.gz", "wt", encoding="utf-8") as packed:
        packed.write(text)
    for name in ("h.jsonl", "h.jsonl.gz"):
        assert list(read_histories(tmp_path / name)) == [["a b", "7"], [], ["c"]]


@pytest.mark.parametrize("line", ["[1.5]", '{"a": 1}', "not json", '["a", null]'])
def test_a_bad_line_of_json_is_named_with_its_file(tmp_path: Path, line: str) -> None:
    (tmp_path / "h.jsonl").write_text(f'["a"]\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"h\.jsonl, line 2: "):
        list(read_histories(tmp_path / "h.jsonl"))


@pytest.mark.parametrize("name", ["h.txt", "h.jsonl", "h.txt.gz", "h.jsonl.gz"])
def test_a_byte_order_mark_is_no_part_of_the_first_id(tmp_path: Path, name: str) -> None:
    data = b"\xef\xbb\xbf" + (b'["a", "b"]\r\n["c"]\r\n' if ".jsonl" in name else b"a b\r\nc\r\n")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert list(read_histories(tmp_path / name)) == [["a", "b"], ["c"]]
    if ".jsonl" not in name:
        assert ids_from(f"@{tmp_path / name}") == ["a b", "c"]


@pytest.mark.parametrize("name", ["h.txt", "h.jsonl", "h.txt.gz"])
def test_a_line_that_is_not_utf8_is_named_with_its_file(tmp_path: Path, name: str) -> None:
    data = (b'["a"]\n' if name == "h.jsonl" else b"a\n") * 5000 + b'["\xe9"]\n'
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(ValueError, match=rf"{name}, line 5001: byte 0xe9 is not UTF-8; convert the file"):
        list(read_histories(tmp_path / name))
    with pytest.raises(ValueError, match=rf"{name}, line 5001: byte 0xe9 is not UTF-8; convert the file"):
        ids_from(f"@{tmp_path / name}")


def test_histories_may_come_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"a b\nc\n",))
    writer.start()
    assert list(read_histories(tmp_path / "pipe")) == [["a", "b"], ["c"]]
    writer.join()


def test_what_is_called_gzip_and_is_not_whole_gzip_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "fake.txt.gz").write_bytes(b"a b\n")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"a b\n" * 1000)[:-9])
    for name, problem in (("fake", "this is not gzip data"), ("cut", "the gzip data break off")):
        with pytest.raises(ValueError, match=rf"{name}\.txt\.gz: .*{problem}"):
            list(read_histories(tmp_path / f"{name}.txt.gz"))
        with pytest.raises(ValueError, match=rf"{name}\.txt\.gz: .*{problem}"):
            ids_from(f"@{tmp_path / f'{name}.txt.gz'}")


def test_a_json_array_on_the_command_line_keeps_its_ids() -> None:
    assert history_from_json('["a b", "c", 12]', source="--history-json") == ["a b", "c", "12"]


def test_command_line_ids_may_be_words_an_array_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("a b\nc\n", encoding="utf-8")
    assert ids_from("a  b") == ["a", "b"]
    assert ids_from(' ["a b"]') == ["a b"]
    assert ids_from(f"@{tmp_path / 'ids'}") == ["a b", "c"]
    assert ids_from("") == []


def test_a_space_that_is_not_ascii_is_part_of_an_id() -> None:
    assert ids_from("a\u00a0b c\u2028d") == ["a\u00a0b", "c\u2028d"]
