"""Several writers of one file of records."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conseq.study.records import Record, read_records, write_records
from conseq.study.specification import Table

Made = Callable[..., Record]


def test_no_record_is_lost_where_several_write_one_file(table: Table, made: Made, tmp_path: Path) -> None:
    file = tmp_path / "results/paper/table1.jsonl"
    records = [made(table.rows[0], config=config) for config in table.rows[0].seeded(12)]
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(lambda one: write_records(file, [one]), records)) == {file}
    assert {one["seed"] for one in read_records(tmp_path / "results")} == {one["seed"] for one in records}


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
