from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from conseq.data.log import InteractionLog
from conseq.data.readers import prepare, read
from conseq.data.reading import Reading

TABLE = pl.DataFrame(
    {
        "user_id": ["b", "a", "b", "c", "a", "b"],
        "item_id": ["i1", "i2", "i3", "i1", "i1", "i2"],
        "timestamp": [30, 5, 10, 7, 5, 30],
    }
)


def _same(a: InteractionLog, b: InteractionLog) -> bool:
    arrays = a.items.tolist() == b.items.tolist() and a.offsets.tolist() == b.offsets.tolist()
    times = (None if a.times is None else a.times.tolist()) == (None if b.times is None else b.times.tolist())
    return arrays and times and a.user_ids == b.user_ids and a.item_ids == b.item_ids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The table in three Parquet files, beside what a Spark job leaves."""
    folder = tmp_path / "events"
    (folder / "day=2").mkdir(parents=True)
    TABLE[:2].write_parquet(folder / "day=1-0000.parquet")
    TABLE[2:3].write_parquet(folder / "day=1-0001.parquet")
    TABLE[3:].write_parquet(folder / "day=2" / "0000.parquet")
    (folder / "_SUCCESS").write_text("")
    (folder / ".day=1-0000.parquet.crc").write_text("x")
    (folder / "_temporary").mkdir()
    TABLE.write_parquet(folder / "_temporary" / "half.parquet")
    return folder


def test_a_folder_a_pattern_and_a_list_are_their_files_one_behind_the_other(folder: Path) -> None:
    whole = read(TABLE)
    files = [folder / "day=1-0000.parquet", folder / "day=1-0001.parquet", folder / "day=2" / "0000.parquet"]
    for source in (folder, str(folder), f"{folder}/**/*000[0-9].parquet", files, tuple(map(str, files))):
        assert _same(read(source), whole), source
    assert _same(read(files[::-1]), read(pl.concat([TABLE[3:], TABLE[2:3], TABLE[:2]])))


def test_the_manifest_holds_every_file_and_a_hash_of_all(folder: Path, tmp_path: Path) -> None:
    manifest: Any = prepare(folder, tmp_path / "p", Reading())
    files = sorted(one for one in folder.rglob("*.parquet") if "_temporary" not in one.parts)
    hashes = [hashlib.sha256(one.read_bytes()).hexdigest() for one in files]
    source = manifest["source"]
    assert source["name"] == "events (3 files)"
    assert source["bytes"] == sum(one.stat().st_size for one in files)
    assert [(one["name"], one["sha256"]) for one in source["files"]] == [
        (file.name, digest) for file, digest in zip(files, hashes, strict=True)
    ]
    text = "".join(f"{digest}  {file.name}\n" for file, digest in zip(files, hashes, strict=True))
    assert source["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert _same(read(tmp_path / "p"), read(TABLE))


def test_times_of_one_file_may_be_dates_and_those_of_another_seconds(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user,item,time\nu,a,1970-01-01 00:00:09\n")
    (tmp_path / "2.csv").write_text("time;user;item\n3;u;b\n")
    log = read(tmp_path)
    assert log.item_ids.decode(log.items) == ["b", "a"]
    source: Any = log.manifest["source"]
    assert source["separator"] is None


def test_an_error_names_the_file_and_its_line(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user,item\nu,a\n")
    (tmp_path / "2.csv").write_text("user,item\nu,a\n,b\n")
    with pytest.raises(ValueError, match=r"\(2 files\), .*2\.csv, line 3: the user is missing"):
        read(tmp_path)


def test_files_with_other_columns_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user,item,time\nu,a,1\n")
    (tmp_path / "2.csv").write_text("user,item\nu,a\n")
    with pytest.raises(ValueError, match=r"2\.csv has the columns 'user', 'item', .*1\.csv has 'user', 'item', 'time'"):
        read(tmp_path)
    (tmp_path / "3.txt").write_text("u a b\n")
    with pytest.raises(
        ValueError, match=r"1\.csv is read as csv, .*3\.txt as s3rec; all files of a log have one format"
    ):
        read(tmp_path)
    assert len(read(f"{tmp_path}/*.txt")) == 2


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"\*\.csv: no file is called like this"):
        read(tmp_path / "*.csv")
    with pytest.raises(ValueError, match=r"holds neither a prepared log \(manifest.json\) nor files of a log \(.csv"):
        read(tmp_path)
    (tmp_path / "ratings.dat").write_text("user\titem\nu\ta\n")
    assert len(read(tmp_path, format="tsv")) == 1
    with pytest.raises(FileNotFoundError, match=r"b\.csv: there is no such file"):
        read([tmp_path / "ratings.dat", tmp_path / "b.csv"])
    with pytest.raises(ValueError, match=r"ratings\.dat is named twice"):
        read([tmp_path / "ratings.dat"] * 2)
    with pytest.raises(ValueError, match="found an empty list of paths"):
        read([])


def test_a_file_whose_name_has_brackets_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_text("user,item\nu,a\nu,b\n")
    assert len(read(tmp_path / "a[1].csv")) == 2


def test_a_damaged_prepared_folder_is_not_taken_for_files(tmp_path: Path) -> None:
    prepare(TABLE, tmp_path / "p", Reading())
    (tmp_path / "p" / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"p is not a prepared log: it has no manifest.json"):
        read(tmp_path / "p")
