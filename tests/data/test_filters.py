from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conseq.data.filters import Kept, Sizes, core, count_into, everything, largest_core, without_repeats
from conseq.data.frames import open_frame
from conseq.data.store import RowStore, ingest

Pair = tuple[str, str]

pairs_of_a_log = st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("qrstuvwxyz")), min_size=1)


def _store(
    folder: Path, pairs: list[Pair], times: list[int] | None = None, *, rows_in_memory: int = 1 << 20
) -> RowStore:
    table = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    table = table if times is None else table.with_columns(time=pl.Series(times))
    return ingest(open_frame(table, {"user": None, "item": None, "time": None}), folder, rows_in_memory=rows_in_memory)


def _pairs(store: RowStore, kept: Kept) -> list[Pair]:
    users, items = store.user_ids.to_list(), store.item_ids.to_list()
    return [
        (users[u], items[i])
        for rows in kept.of(store)
        for u, i in zip(rows.users.tolist(), rows.items.tolist(), strict=True)
    ]


def _core_by_hand(pairs: list[Pair], least: tuple[int, int]) -> list[Pair]:
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        left = [(user, item) for user, item in pairs if users[user] >= least[0] and items[item] >= least[1]]
        if left == pairs:
            return pairs
        pairs = left


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs_of_a_log, st.integers(0, 5), st.integers(0, 5), st.sampled_from([1, 3, 1000]))
def test_a_core_is_what_taking_out_one_by_one_leaves(
    tmp_path: Path, pairs: list[Pair], users: int, items: int, rows_in_memory: int
) -> None:
    store = _store(tmp_path, pairs, rows_in_memory=rows_in_memory)
    kept, rounds = core(store, everything(store), (users, items), tmp_path)
    expected = _core_by_hand(pairs, (users, items))
    assert _pairs(store, kept) == expected
    assert kept.sizes == Sizes(len({u for u, _ in expected}), len({i for _, i in expected}), len(expected))
    assert (rounds == 0) == (expected == pairs)


def test_a_core_takes_rounds_until_nothing_changes(tmp_path: Path) -> None:
    # z is rare, so c has one interaction left, so y has one, so b has one, so x has one, ...
    pairs = [("a", "x"), ("b", "x"), ("b", "y"), ("c", "y"), ("c", "z")]
    pairs += [(user, item) for user in "de" for item in "vw"]
    store = _store(tmp_path, pairs)
    kept, rounds = core(store, everything(store), (2, 2), tmp_path)
    assert _pairs(store, kept) == [("d", "v"), ("d", "w"), ("e", "v"), ("e", "w")]
    assert rounds == 3


def test_a_user_threshold_alone_also_drops_items_that_nobody_has_left(tmp_path: Path) -> None:
    store = _store(tmp_path, [("a", "x"), ("a", "y"), ("b", "z")])
    kept, _ = core(store, everything(store), (2, 0), tmp_path)
    assert kept.sizes == Sizes(1, 2, 2)


def test_the_largest_core_that_is_not_empty_is_found(tmp_path: Path) -> None:
    store = _store(tmp_path, [(user, item) for user in "abc" for item in "xyz"] + [("d", "x")])
    assert largest_core(store, everything(store), (9, 9), tmp_path) == (3, Sizes(3, 3, 9))
    assert largest_core(store, everything(store), (9, 2), tmp_path) == (3, Sizes(3, 3, 9))
    assert largest_core(store, everything(store), (1, 9), tmp_path) == (4, Sizes(4, 1, 4))


@pytest.mark.parametrize(("which", "places"), [("first", [0, 2, 3]), ("last", [1, 3, 4])])
@pytest.mark.parametrize("rows_in_memory", [1, 2, 100])
def test_the_first_or_the_last_of_repeats_is_kept(
    tmp_path: Path, which: str, places: list[int], rows_in_memory: int
) -> None:
    pairs = [("a", "x"), ("a", "x"), ("b", "x"), ("a", "y"), ("b", "x")]
    store = _store(tmp_path, pairs, rows_in_memory=rows_in_memory)
    kept = without_repeats(store, everything(store), which, tmp_path, ties=None)  # type: ignore[arg-type]
    assert kept.rows is not None
    assert np.flatnonzero(kept.rows).tolist() == places
    assert kept.sizes == Sizes(2, 2, 3)


def test_first_and_last_go_by_time_and_not_by_place(tmp_path: Path) -> None:
    store = _store(tmp_path, [("a", "x"), ("a", "x"), ("a", "x")], [2, 1, 3])
    found = {}
    for which in ("first", "last"):
        kept = without_repeats(store, everything(store), which, tmp_path, ties=None)
        assert kept.rows is not None
        found[which] = np.flatnonzero(kept.rows).tolist()
    assert found == {"first": [1], "last": [2]}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 3)), min_size=1),
    st.sampled_from([2, 1000]),
)
def test_distinct_keeps_the_first_of_the_rows_that_are_equal(
    tmp_path: Path, rows: list[tuple[str, str, int]], rows_in_memory: int
) -> None:
    pairs, times = [(user, item) for user, item, _ in rows], [time for *_, time in rows]
    store = _store(tmp_path, pairs, times, rows_in_memory=rows_in_memory)
    kept = without_repeats(store, everything(store), "distinct", tmp_path, ties=None)
    assert kept.rows is not None
    assert np.flatnonzero(kept.rows).tolist() == [place for place, row in enumerate(rows) if row not in rows[:place]]
    assert kept.interactions == len(set(rows))


def test_distinct_asks_for_times(tmp_path: Path) -> None:
    store = _store(tmp_path, [("a", "x"), ("a", "x")])
    with pytest.raises(ValueError, match="the log has no times; choose first or last"):
        without_repeats(store, everything(store), "distinct", tmp_path, ties=None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs_of_a_log, st.integers(1, 4), st.sampled_from([2, 1000]))
def test_a_core_after_repeats_counts_different_items(
    tmp_path: Path, pairs: list[Pair], k: int, rows_in_memory: int
) -> None:
    store = _store(tmp_path, pairs, rows_in_memory=rows_in_memory)
    kept = without_repeats(store, everything(store), "first", tmp_path, ties=None)
    kept, _ = core(store, kept, (k, k), tmp_path)
    assert _pairs(store, kept) == _core_by_hand(list(dict.fromkeys(pairs)), (k, k))


def test_counting_adds_and_takes_away() -> None:
    counts = np.zeros(6, np.int64)
    count_into(counts, np.array([2, 4, 2], np.int32))
    assert counts.tolist() == [0, 0, 2, 0, 1, 0]
    count_into(counts, np.array([2], np.int32), sign=-1)
    count_into(counts, np.array([], np.int32))
    assert counts.tolist() == [0, 0, 1, 0, 1, 0]


def test_sizes_read_as_words() -> None:
    assert str(Sizes(1000, 2, 30000)) == "1,000 users, 2 items, 30,000 interactions"
