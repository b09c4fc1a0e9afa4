"""Several writers of one file of records."""

from __future__ import annotations

import fcntl
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conseq.study.comparison import _names
from conseq.study.equal_code import EQUAL_CODE, read_equal_code
from conseq.study.records import Record, but_seed, read_records, write_records
from conseq.study.specification import Table

Made = Callable[..., Record]


def test_no_record_is_lost_where_several_write_one_file(table: Table, made: Made, tmp_path: Path) -> None:
    file = tmp_path / "results/paper/table1.jsonl"
    records = [made(table.rows[0], config=config) for config in table.rows[0].seeded(12)]
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(lambda one: write_records(file, [one]), records)) == {file}
    assert {one["seed"] for one in read_records(tmp_path / "results")} == {one["seed"] for one in records}


def test_a_record_that_is_written_again_stands_last(table: Table, made: Made, tmp_path: Path) -> None:
    first, second = (made(table.rows[0], config=one) for one in table.rows[0].seeded(2))
    file = write_records(tmp_path / "x.jsonl", [first, second])
    write_records(file, [{**first, "commit": "again"}])
    assert [(one["seed"], one["commit"]) for one in read_records(file)] == [(4, "0123456789"), (3, "again")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "not a list of declarations: Expecting value"),
        (b"\xff", "not a list of declarations: 'utf-8' codec"),
        (b"{}", "expected a list, found dict"),
        (b'["a"]', "expected from, to and why, each a text, found a"),
        (b'[{"from": "a", "to": "b", "why": ""}]', "expected from, to and why, each a text"),
    ],
)
def test_a_damaged_declaration_of_equal_code_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / EQUAL_CODE
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: {message}"):
        read_equal_code(file)


def test_a_file_of_records_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: not records: 'utf-8' codec"):
        read_records(file)


def test_a_writer_waits_for_the_one_before_it(table: Table, made: Made, tmp_path: Path) -> None:
    file = tmp_path / "table1.jsonl"
    write_records(file, [made(table.rows[0])])
    other = made(table.rows[1])
    with (tmp_path / ".table1.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writer = threading.Thread(target=write_records, args=(file, [other]))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert len(read_records(file)) == 1
    writer.join(30)
    assert [one["row"] for one in read_records(file)] == ["SASRec", "SASRec, binary"]
    assert sorted(one.name for one in tmp_path.glob("*table1*")) == [".table1.lock", "table1.jsonl"]


def test_the_seed_of_what_a_run_starts_from_is_no_other_experiment(table: Table) -> None:
    config = table.rows[0].config
    assert config is not None
    tables = config.record()
    first, second = ({**tables, "start": {**tables, "training": {**tables["training"], "seed": n}}} for n in (3, 4))
    assert but_seed(first) == but_seed(second)
    assert but_seed(first) != but_seed(tables)
    named = _names({name: json.loads(but_seed(one)) for name, one in (("plain", tables), ("started", first))})
    assert named["plain"] == "next_item"
    assert named["started"] == "next_item (start.method.name=next_item)"
    other = {**first, "start": {**first["start"], "encoder": {**first["start"]["encoder"], "width": 16}}}
    named = _names({name: json.loads(but_seed(one)) for name, one in (("first", first), ("other", other))})
    assert named["other"] == "next_item (start.encoder.width=16)"
    three = {"plain": tables, "first": first, "other": other}
    named = _names({name: json.loads(but_seed(one)) for name, one in three.items()})
    assert named["plain"] == "next_item"
    assert named["first"] == "next_item (start.encoder.width=8, start.method.name=next_item)"
    assert named["other"] == "next_item (start.encoder.width=16, start.method.name=next_item)"
