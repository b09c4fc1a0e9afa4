from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from conseq.data.log import InteractionLog
from conseq.data.prepared import load, save
from conseq.data.readers import prepare, read
from conseq.data.reading import Reading

Write = Callable[[str, str | bytes], Path]

TABLE = pl.DataFrame(
    {
        "user_id": ["b", "007", "b", "é x", "007"],
        "item_id": ["i1", "i2", "i 3", "i1", "i1"],
        "timestamp": [30, 5, 10, 7, 5],
    }
)


def _same(a: InteractionLog, b: InteractionLog) -> bool:
    times = (a.times is None) == (b.times is None) and (
        a.times is None or b.times is None or (a.times.tolist() == b.times.tolist() and a.times.dtype == b.times.dtype)
    )
    arrays = a.items.tolist() == b.items.tolist() and a.offsets.tolist() == b.offsets.tolist()
    return times and arrays and a.user_ids == b.user_ids and a.item_ids == b.item_ids


def _written(folder: Path, name: str) -> Path:
    """The table in the format of the name's suffix."""
    path = folder / name.removesuffix(".gz")
    if ".csv" in name:
        TABLE.write_csv(path)
    elif ".tsv" in name:
        TABLE.write_csv(path, separator="\t")
    elif ".inter" in name:
        names = ["user_id:token", "item_id:token", "timestamp:float"]
        TABLE.rename(dict(zip(TABLE.columns, names, strict=True))).write_csv(path, separator="\t")
    elif ".parquet" in name:
        TABLE.write_parquet(path)
    else:
        TABLE.write_ndjson(path)
    return path


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.inter", "a.jsonl", "a.ndjson", "a.json", "a.parquet", "A.CSV"])
def test_every_format_gives_the_same_log(tmp_path: Path, write: Write, name: str, packed: str) -> None:
    path = write(name + packed, _written(tmp_path, name.lower()).read_bytes())
    log = read(path)
    assert _same(log, read(TABLE))
    assert log.item_ids.decode(log.items) == ["i 3", "i1", "i2", "i1", "i1"]
    assert log.user_ids.ids == ["b", "007", "é x"]


def test_tables_of_pandas_and_lazy_tables_give_the_same_log() -> None:
    pandas = pd.DataFrame(TABLE.to_dict(as_series=False))
    assert _same(read(pandas), read(TABLE))
    assert _same(read(TABLE.lazy()), read(TABLE))


def test_a_text_file_of_histories_is_told_by_its_suffix(write: Write) -> None:
    log = read(write("a.txt", "u 3 1 2\nv 1 1\n"))
    assert log.user_ids.ids == ["u", "v"]
    assert log.item_ids.ids == ["3", "1", "2"]
    assert (log.items.tolist(), log.offsets.tolist()) == ([1, 2, 3, 2, 2], [0, 3, 5])
    assert log.times is None
    counts: Any = log.manifest["counts"]
    assert counts["repeats"] == 1


def test_the_format_may_be_said(write: Write) -> None:
    assert _same(read(write("ratings.dat", TABLE.write_csv(separator="\t")), format="tsv"), read(TABLE))


def test_a_prepared_folder_is_opened(tmp_path: Path) -> None:
    log = read(TABLE)
    save(log, tmp_path / "p")
    assert _same(read(tmp_path / "p"), log)
    assert _same(read(str(tmp_path / "p")), log)
    with pytest.raises(ValueError, match="p is prepared already; columns and filters apply when a log is prepared"):
        read(tmp_path / "p", k_core=2)


def test_preparing_and_loading_gives_what_reading_gives(tmp_path: Path) -> None:
    manifest = prepare(TABLE, tmp_path / "p", Reading(repeats="first"))
    assert _same(load(tmp_path / "p"), read(TABLE, repeats="first"))
    assert manifest == read(TABLE, repeats="first").manifest


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"repeats": "latest"}, "'repeats'"),
        ({"k_core": "5"}, "k_core"),
        ({"k_core": -1}, r"k_core \(--k-core\) is a number of interactions, at least 0; found -1"),
        ({"k_core": (1, 2, 3)}, "k_core"),
        ({"format": "xls"}, "'format'"),
        ({"ties": "shuffled"}, "'ties'"),
        ({"tie_seed": 3}, "tie_seed=3 is of random ties alone, found ties='file_order'"),
        ({"ties": "random", "tie_seed": -1}, "tie_seed"),
    ],
)
def test_a_wrong_setting_is_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(TABLE, **setting)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv: there is no such file"):
        read(tmp_path / "nothing.csv")


def test_an_unknown_suffix_is_named_with_the_known_ones(write: Write) -> None:
    with pytest.raises(ValueError, match=r"a\.xls\.gz: the suffix '\.xls' does not tell the format; known: \.csv, .*"):
        read(write("a.xls.gz", "x"))


def test_something_else_than_a_path_or_a_table_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"a log is a path, a list of paths, or a table .* found a list that holds tuple"
    ):
        read([("a", "b")])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="found dict"):
        read({"user": [1]})  # type: ignore[arg-type]


def test_a_folder_cannot_be_prepared_again(tmp_path: Path) -> None:
    save(read(TABLE), tmp_path / "p")
    with pytest.raises(ValueError, match="p is prepared already; to prepare anew, give the log that it came from"):
        prepare(tmp_path / "p", tmp_path / "q", Reading())


def test_a_text_file_of_histories_has_no_columns_to_name(write: Write) -> None:
    with pytest.raises(ValueError, match="have no named columns"):
        read(write("a.txt", "u 1 2\n"), user="u")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "user,item\n", "there are no interactions"),
        ("a.csv", "user,item,time\na,b,1\n,c,2\n", "line 3: the user is missing"),
        ("a.csv", "user,item,time\na,b,1\nx,,2\n", "line 3: the item is missing"),
        ("a.csv", "user,item,time\na,b,1\nx,c,\n", "line 3: the time is missing"),
        ("a.csv", "user,item,time\na,b,1\nx,c,inf\n", "line 3: time 'inf' is not finite"),
        ("a.csv", "user,item,time\na,b,1\nx,c,soon\n", "line 3: cannot read time 'soon'"),
        ("a.tsv", "user\titem\ttime\na\tb\t1\nx\tc\tnan\n", "line 3: time 'nan' is not finite"),
        ("a.inter", "user_id:token\titem_id:token\ttimestamp:float\n1\t2\tx\n", "line 2: cannot read time 'x'"),
        ("a.jsonl", '{"user": 1, "item": 2, "time": 3}\n{"user": 1, "item": 2, "time": "x"}', "line 2: cannot read"),
        ("a.jsonl", '{"user": 1, "item": 2, "time": 3}\n{"user": 1, "item": 2}', "line 2: the time is missing"),
    ],
)
def test_bad_input_is_named_with_file_and_line(write: Write, name: str, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}(, |: ){message}"):
        read(write(name, content))


def test_bad_rows_of_a_table_are_named() -> None:
    with pytest.raises(ValueError, match=r"the table, row 1 \(counted from 0\): the item is missing"):
        read(pl.DataFrame({"user": [1, 2], "item": [3, None]}))
    with pytest.raises(ValueError, match="the table: there are no interactions"):
        read(TABLE.clear())


def test_a_full_disk_leaves_the_older_prepared_log(tmp_path: Path, write: Write) -> None:
    prepare(TABLE, tmp_path / "p", Reading())
    path = write("a.csv", "user,item\n" + "".join(f"{row},{row}\n" for row in range(3000)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (0, 5000, 14000, 30000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(OSError, match=r"too large|written"):
                prepare(path, tmp_path / "p", Reading(k_core=1, repeats="first"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert _same(load(tmp_path / "p"), read(TABLE))
        assert sorted(one.name for one in tmp_path.iterdir()) == ["a.csv", "p"]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "text", "users", "items", "interactions", "lengths", "repeats"),
    [
        ("beauty", "Beauty.txt", 22363, 12101, 198502, (5, 8.9, 204), 0),
        ("sports", "Sports_and_Outdoors.txt", 35598, 18357, 296337, (5, 8.3, 296), 0),
        ("toys", "Toys_and_Games.txt", 19412, 11924, 167597, (5, 8.6, 550), 0),
        ("yelp", "Yelp.txt", 30431, 20033, 316354, (5, 10.4, 350), 11830),
        ("ml-1m", None, 6040, 3416, 999611, (18, 165.5, 2277), 0),
    ],
)
def test_the_real_logs_have_the_published_counts_and_their_text_files_the_same_sequences(
    real_data: Path,
    name: str,
    text: str | None,
    users: int,
    items: int,
    interactions: int,
    lengths: tuple[int, float, int],
    repeats: int,
) -> None:
    log = read(real_data / name / "interactions.parquet")
    counts: Any = log.manifest["counts"]
    assert (counts["users"], counts["items"], counts["interactions"]) == (users, items, interactions)
    assert (counts["min_length"], round(counts["mean_length"], 1), counts["max_length"]) == lengths
    assert counts["repeats"] == repeats
    if text is not None:
        other = read(real_data / name / text)
        assert other.items.tolist() == log.items.tolist()
        assert other.offsets.tolist() == log.offsets.tolist()
        assert (other.user_ids, other.item_ids) == (log.user_ids, log.item_ids)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "adjacent", "last"), [("beauty", 0.439, 0.435), ("sports", 0.476, 0.451)])
def test_the_ties_of_the_amazon_logs_are_those_that_were_published(
    real_data: Path, name: str, adjacent: float, last: float
) -> None:
    times: Any = read(real_data / name / "interactions.parquet").manifest["times"]
    assert round(times["adjacent_equal"], 3) == adjacent
    assert round(times["last_decided_by_tie"], 3) == last


@pytest.mark.real_data
def test_the_papers_logs_are_five_cores_already(real_data: Path) -> None:
    log = read(real_data / "beauty" / "interactions.parquet", k_core=5)
    filters: Any = log.manifest["filters"]
    assert filters[0]["rounds"] == 0
    assert filters[0]["before"] == filters[0]["after"]


def test_a_log_is_told_in_one_line() -> None:
    assert repr(read(TABLE)) == "<conseq.InteractionLog: 3 users, 3 items, 5 interactions, by times>"
    assert repr(read(TABLE, time="-")).endswith("5 interactions, by the order of the source>")
