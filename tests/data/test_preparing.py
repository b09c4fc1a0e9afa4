from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conseq.data.log import InteractionLog
from conseq.data.prepared import load
from conseq.data.preparing import prepare_into
from conseq.data.readers import open_source, prepare, read
from conseq.data.reading import Reading, Repeats, Ties

Row = tuple[str, str, int]
Histories = list[tuple[str, list[tuple[str, int]]]]


def _histories(log: InteractionLog) -> Histories:
    times = [0] * len(log) if log.times is None else log.times.tolist()
    flat = list(zip(log.item_ids.decode(log.items), times, strict=True))
    ends = log.offsets.tolist()
    return [(user, flat[ends[row] : ends[row + 1]]) for row, user in enumerate(log.user_ids.ids)]


def _by_hand(rows: list[Row], *, k: tuple[int, int], repeats: Repeats, ties: Ties) -> tuple[Histories, list[str]]:
    """Histories by user and the items in order, by plain loops."""
    order = sorted(range(len(rows)), key=lambda at: (rows[at][2], rows[at][1] if ties == "item_id" else "", at))
    if repeats != "keep":
        chosen: dict[tuple[str, str], int] = {}
        for at in order if repeats == "last" else reversed(order):
            chosen[rows[at][:2]] = at
        order = [at for at in order if at in set(chosen.values())]
    while True:
        users, items = Counter(rows[at][0] for at in order), Counter(rows[at][1] for at in order)
        left = [at for at in order if users[rows[at][0]] >= k[0] and items[rows[at][1]] >= k[1]]
        if left == order:
            break
        order = left
    in_source = sorted(order)
    histories = [
        (user, [(rows[at][1], rows[at][2]) for at in order if rows[at][0] == user])
        for user in dict.fromkeys(rows[at][0] for at in in_source)
    ]
    return histories, list(dict.fromkeys(rows[at][1] for at in in_source))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("cabd"), st.sampled_from(["9", "10", "z", "é"]), st.integers(0, 3)), min_size=1),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.sampled_from(["keep", "first", "last"]),
    st.sampled_from(["file_order", "item_id"]),
    st.sampled_from([1, 3, 1000]),
)
def test_a_prepared_log_is_what_plain_loops_make_of_it(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    k: tuple[int, int],
    repeats: Repeats,
    ties: Ties,
    rows_in_memory: int,
) -> None:
    expected, items = _by_hand(rows, k=k, repeats=repeats, ties=ties)
    folder, work = tmp_path_factory.mktemp("log"), tmp_path_factory.mktemp("work")
    reading = Reading(k_core=k, repeats=repeats, ties=ties)
    source = open_source(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), reading)
    if not expected:
        with pytest.raises(ValueError, match="nothing is left"):
            prepare_into(folder, work, source, reading, rows_in_memory=rows_in_memory)
        return
    prepare_into(folder, work, source, reading, rows_in_memory=rows_in_memory)
    log = load(folder)
    assert _histories(log) == expected
    assert log.item_ids.ids == items
    counts: Any = log.manifest["counts"]
    assert (counts["users"], counts["items"], counts["interactions"]) == (log.n_users, log.n_items, len(log))


def _table(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")


def test_every_filter_is_recorded_in_the_order_of_its_use() -> None:
    rows: list[Row] = [("a", "x", 1), ("a", "x", 2), ("a", "y", 3), ("b", "x", 1), ("b", "y", 2), ("c", "x", 1)]
    manifest = read(_table(*rows), k_core=(2, 1), repeats="first").manifest
    everything = {"users": 3, "items": 2, "interactions": 6}
    single = everything | {"interactions": 5}
    core = {"users": 2, "items": 2, "interactions": 4}
    assert manifest["filters"] == [
        {"filter": "repeats", "keep": "first", "before": everything, "after": single},
        {
            "filter": "k_core",
            "least": {"users": 2, "items": 1},
            "rounds": 1,
            "before": single,
            "after": core,
        },
    ]
    assert read(_table(*rows)).manifest["filters"] == []


def test_a_core_that_leaves_nothing_says_which_would_leave_something() -> None:
    rows: list[Row] = [(user, item, 0) for user in "abc" for item in "xyz"] + [("d", "x", 0)]
    message = (
        r"the table: of 4 users, 3 items, 10 interactions, nothing is left when users need 5 interactions and items 4; "
        r"the largest k that leaves something is 3, with 3 users, 3 items, 9 interactions: choose k_core=3 "
        r"\(--k-core 3 in a shell\) or less"
    )
    with pytest.raises(ValueError, match=message):
        read(_table(*rows), k_core=(5, 4))


def test_users_with_one_interaction_are_kept_and_counted() -> None:
    log = read(_table(("a", "x", 1), ("b", "y", 1), ("b", "z", 2)))
    counts: Any = log.manifest["counts"]
    assert log.n_users == 2
    assert counts["users_with_one_interaction"] == 1


def test_a_single_item_is_a_log() -> None:
    log = read(_table(("a", "x", 1), ("b", "x", 2)))
    assert (log.n_items, log.items.tolist()) == (1, [1, 1])


def test_ties_by_item_id_need_times() -> None:
    with pytest.raises(ValueError, match="the table has no times, so there are no ties"):
        read(_table(("a", "x", 1)).drop("time"), ties="item_id")


def test_without_times_the_order_of_the_source_is_kept_and_said() -> None:
    log = read(_table(("a", "x", 3), ("b", "x", 2), ("a", "y", 1)), time="-")
    assert log.times is None
    assert _histories(log) == [("a", [("x", 0), ("y", 0)]), ("b", [("x", 0)])]
    assert log.manifest["order"] == {"by": "source", "ties": "file_order"}
    assert log.manifest["times"] is None


def test_the_guess_and_the_filters_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="conseq"):
        read(_table(("a", "x", 1)), item="item", k_core=1)
    text = caplog.text
    assert "user column 'user' (guessed), item column 'item', time column 'time' (guessed)" in text
    assert "k_core, users 1, items 1: 1 users, 1 items, 1 interactions left" in text


def test_milliseconds_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    for ticks, unit in ((1406073600000, "ms"), (1406073600000000, "us"), (1406073600000000000, "ns")):
        caplog.clear()
        read(_table(("a", "x", ticks)))
        assert (
            f"as Unix seconds that is past the year 5000: say time_unit='{unit}' (--time-unit {unit} in a shell)?"
            in caplog.text
        )
        log = read(_table(("a", "x", ticks)), time_unit=unit)  # type: ignore[arg-type]
        assert log.times is not None
        assert log.times.dtype == np.int64
        assert log.times.tolist() == [1406073600]
        assert log.manifest["order"] == {"by": "time", "ties": "file_order", "time_unit": unit}
    caplog.clear()
    read(_table(("a", "x", 1406073600000000)), time_unit="ms")
    assert "say time_unit='us' (--time-unit us in a shell)?" in caplog.text


def test_a_unit_is_of_times_that_are_numbers() -> None:
    with pytest.raises(
        ValueError,
        match="the table has no times, so they have no unit; leave time_unit "
        r"\(--time-unit\) out",
    ):
        read(pl.DataFrame({"user": ["a"], "item": ["x"]}), time_unit="ms")


def test_a_file_is_recorded_by_name_size_and_hash(write: Callable[[str, str | bytes], Path], tmp_path: Path) -> None:
    path = write("events.csv", "uid,sku\na,x\n")
    manifest = prepare(path, tmp_path / "p", Reading(item="sku"))
    assert manifest["source"] == {
        "name": "events.csv",
        "format": "csv",
        "separator": ",",
        "bytes": 12,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "columns": {
            "user": {"name": "uid", "guessed": True},
            "item": {"name": "sku", "guessed": False},
            "time": None,
        },
    }
    assert json.loads((tmp_path / "p" / "manifest.json").read_text()) == manifest
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "item_ids.parquet",
        "items.npy",
        "manifest.json",
        "offsets.npy",
        "user_ids.parquet",
    ]


@pytest.mark.parametrize("limit", [200, 9000, 12_500])
def test_a_full_disk_is_named_with_its_cause_and_leaves_nothing(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]], limit: int
) -> None:
    table = pl.DataFrame({"user": [row % 97 for row in range(3000)], "item": range(3000), "time": range(3000)})
    with full_disk(limit), pytest.raises(OSError, match=r"[Ff]ile too large") as caught:
        prepare(table, tmp_path / "log", Reading(k_core=1))
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, names of files are text")
def test_a_file_s_name_may_be_no_text(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/log\xe9.csv"))
    file.write_text("user_id,item_id\nu,a\nu,b\nu,c\n")
    prepare(file, tmp_path / "prepared", Reading())
    assert load(tmp_path / "prepared").manifest["source"]["name"] == "log\ufffd.csv"  # type: ignore[index]


def test_spaces_around_ids_are_kept_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id\nu, a\nu,b c\nu,d\n")
    assert read(tmp_path / "log.csv").item_ids.ids == [" a", "b c", "d"]
    assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"] == [
        f"{tmp_path / 'log.csv'}: 1 item ids begin or end with white space, such as ' a', and are kept so; take it out "
        "of the file where it does not belong to them"
    ]


def test_ids_that_look_like_a_missing_value_are_warned_of_once_a_role(
    write: Callable[[str, str | bytes], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = write("log.csv", "user_id,item_id\nnan,a\nu,None\nnan,b\nNULL,a\n  ,a\nN/A,a\nu,Nona\nv,None\nu,a\n")
    assert read(path).user_ids.ids == ["nan", "u", "NULL", "  ", "N/A", "v"]
    rest = "; take their rows out of the file where no"
    assert _warnings(caplog) == [
        f"{path}: 4 user ids look like a value that is missing, and are kept as ids like any other: 'nan' with 2 "
        f"interactions, 'NULL' with 1 interaction, '  ' with 1 interaction, ...{rest} user is called so",
        f"{path}: 1 item ids look like a value that is missing, and are kept as ids like any other: 'None' with 2 "
        f"interactions{rest} item is called so",
    ]


def test_what_the_filters_take_out_is_not_warned_of_as_missing(caplog: pytest.LogCaptureFixture) -> None:
    rows: list[Row] = [("u", "x", 1), ("u", "nan", 2), ("v", "x", 1), ("u", "y", 3), ("v", "y", 1)]
    assert read(_table(*rows), k_core=2).item_ids.ids == ["x", "y"]
    assert _warnings(caplog) == []


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]


def test_an_order_without_times_is_warned_of_where_a_column_may_hold_them(caplog: pytest.LogCaptureFixture) -> None:
    table = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "rating": [1, 2], "bought_at": [2, 1]})
    assert read(table).times is None
    assert _warnings(caplog) == [
        "the table: no column was taken for the time (one of these may be it: 'bought_at'), so the order of the rows "
        "is the order in time; name the column (--time, in Python time=), or say that there is none with '-'"
    ]
    caplog.clear()
    read(table.drop("bought_at"))
    assert "(not read: 'rating')" in _warnings(caplog)[0]
    caplog.clear()
    read(table, time="-")
    read(table, time="bought_at")
    read(table.select("user_id", "item_id"))
    assert _warnings(caplog) == []


def test_rows_that_are_there_twice_are_warned_of_where_they_decide_the_test_item(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("u", "c", 3), ("v", "a", 1), ("v", "a", 1), ("v", "b", 2)]
    table = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    log = read(table)
    times: Any = log.manifest["times"]
    assert (times["duplicates"], times["last_is_duplicate"]) == (2, 1 / 2)
    assert _warnings(caplog) == [
        "the table: 2 interactions repeat another one's user, item and time; for 1 of 2 users the last one does, so "
        "that leave-one-out asks for the item that stands just before it; repeats='distinct' (--repeats "
        "distinct in a shell) counts such rows once"
    ]
    caplog.clear()
    distinct = read(table, repeats="distinct")
    assert distinct.item_ids.decode(distinct.items) == ["a", "b", "c", "a", "b"]
    assert _warnings(caplog) == []
