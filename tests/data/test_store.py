from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conseq.data.batches import Batch, Source
from conseq.data.store import IdCodes, ingest

Row = tuple[str, str, float]


def _source(batches: list[list[Row]], *, times: bool = True) -> Source:
    def each() -> Iterator[Batch]:
        for rows in batches:
            users, items, moments = (pl.Series(column) for column in zip(*rows, strict=True))
            yield Batch(users, items, moments if times else None, lambda row: f"line {row}")

    return Source("a.csv", "csv", None, each())


@given(st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=20), max_size=8))
def test_codes_count_ids_in_the_order_of_their_first_appearance(batches: list[list[str]]) -> None:
    others, codes = IdCodes(), IdCodes()
    expected: dict[str, int] = {}
    for batch in batches:
        others.encode(pl.Series(["something", "else", *batch]))
        for one in batch:
            expected.setdefault(one, len(expected))
        assert codes.encode(pl.Series(batch)).tolist() == [expected[one] for one in batch]
    assert codes.ids().to_list() == list(expected)
    assert len(codes) == len(expected)


def test_codes_stay_when_all_that_was_encoded_is_gone() -> None:
    codes = IdCodes()
    assert codes.encode(pl.Series(["x", "y"])).tolist() == [0, 1]
    gc.collect()
    other = pl.Series(["q", "y"]).cast(pl.Categorical)
    assert codes.encode(pl.Series(["y", "z", "x", "q"])).tolist() == [1, 2, 0, 3]
    assert other.to_list() == ["q", "y"]


@pytest.mark.parametrize("rows_in_memory", [1, 2, 100])
def test_the_store_gives_back_what_it_was_given(tmp_path: Path, rows_in_memory: int) -> None:
    batches: list[list[Row]] = [[("b", "x", 5), ("a", "x", 4)], [("b", "y", 3)]]
    store = ingest(_source(batches), tmp_path, rows_in_memory=rows_in_memory)
    assert (store.n_rows, store.user_ids.to_list(), store.item_ids.to_list()) == (3, ["b", "a"], ["x", "y"])
    chunks = list(store.chunks(places=True))
    assert max(len(rows) for rows in chunks) <= rows_in_memory
    assert np.concatenate([rows.users for rows in chunks]).tolist() == [0, 1, 0]
    assert np.concatenate([rows.items for rows in chunks]).tolist() == [0, 0, 1]
    assert np.concatenate([rows.times for rows in chunks if rows.times is not None]).tolist() == [5, 4, 3]
    assert np.concatenate([rows.places for rows in chunks if rows.places is not None]).tolist() == [0, 1, 2]


def test_a_fraction_in_a_late_batch_makes_all_times_floats(tmp_path: Path) -> None:
    batches: list[list[Row]] = [[("a", "x", 5), ("a", "x", 4)], [("a", "y", 2.5)], [("a", "x", 1)]]
    store = ingest(_source(batches), tmp_path)
    (rows,) = store.chunks()
    assert store.times == np.float64
    assert rows.times is not None
    assert rows.times.tolist() == [5.0, 4.0, 2.5, 1.0]


def test_a_log_without_times_has_none(tmp_path: Path) -> None:
    store = ingest(_source([[("a", "x", 5)]], times=False), tmp_path)
    assert store.times is None
    assert next(store.chunks()).times is None


def test_no_interactions_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.csv: there are no interactions"):
        ingest(_source([]), tmp_path)


@pytest.mark.parametrize(("row", "role"), [(("", "x", 1), "user"), (("a", "", 1), "item")])
def test_an_interaction_without_a_user_or_an_item_is_named(tmp_path: Path, row: Row, role: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.csv, line 1: the {role} is missing"):
        ingest(_source([[("a", "x", 1), row]]), tmp_path)
