from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conseq.data.batches import Times
from conseq.data.ordering import by_user, stable_argsort
from conseq.data.store import Rows
from conseq.data.tie_rules import TieRule

Row = tuple[int, int, int]

rows_of_users = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(-3, 3)), min_size=1, max_size=40)


def _chunks(rows: list[Row], size: int, *, times: bool) -> list[Rows]:
    """Users are numbered without gaps, as the caller must."""
    numbers = {user: number for number, user in enumerate(dict.fromkeys(user for user, _, _ in rows))}
    table = np.array([(numbers[user], item, time) for user, item, time in rows])
    return [
        Rows(
            part[:, 0].astype(np.int32),
            part[:, 1].astype(np.int32),
            part[:, 2].astype(np.int64) if times else None,
            np.arange(start, start + len(part)),
        )
        for start in range(0, len(rows), size)
        for part in [table[start : start + size]]
    ]


def _lengths(chunks: list[Rows]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.bincount(np.concatenate([rows.users for rows in chunks])).astype(np.int64)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows_of_users, st.integers(1, 50), st.integers(1, 50), st.booleans())
def test_groups_are_sorted_by_user_then_time_then_place(
    tmp_path: Path, rows: list[Row], size: int, bucket_rows: int, times: bool
) -> None:
    chunks = _chunks(rows, size, times=times)
    groups = list(by_user(chunks, _lengths(chunks), tmp_path, bucket_rows=bucket_rows))
    flat = [(*row, place) for rows in chunks for place, row in zip(*_listed(rows), strict=True)]
    expected = sorted(flat, key=lambda row: (row[0], row[2] if times else 0, row[3]))
    assert [(*row, place) for rows in groups for place, row in zip(*_listed(rows), strict=True)] == expected


def _listed(rows: Rows) -> tuple[list[int], list[tuple[int, int, int]]]:
    times = np.zeros(len(rows)) if rows.times is None else rows.times
    places = np.arange(0) if rows.places is None else rows.places
    return places.tolist(), list(zip(rows.users.tolist(), rows.items.tolist(), times.tolist(), strict=True))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows_of_users, st.integers(1, 50))
def test_a_user_is_never_cut_and_a_bucket_is_not_much_larger_than_asked(
    tmp_path: Path, rows: list[Row], bucket_rows: int
) -> None:
    chunks = _chunks(rows, 7, times=True)
    lengths = _lengths(chunks)
    groups = [group.users.tolist() for group in by_user(chunks, lengths, tmp_path, bucket_rows=bucket_rows)]
    seen = [user for group in groups for user in dict.fromkeys(group)]
    assert seen == list(range(lengths.size))
    assert all(len(group) < bucket_rows + lengths.max() for group in groups)


def test_equal_times_are_ordered_by_the_item_rank_when_asked(tmp_path: Path) -> None:
    chunks = _chunks([(0, 0, 5), (0, 1, 5), (0, 2, 5), (0, 3, 1)], 2, times=True)
    rule = TieRule(np.array([2, 0, 1, 3]))
    (group,) = by_user(chunks, _lengths(chunks), tmp_path, bucket_rows=9, ties=rule)
    assert group.items.tolist() == [3, 1, 2, 0]


def test_the_temporary_file_is_gone_at_the_end(tmp_path: Path) -> None:
    chunks = _chunks([(0, 0, 0), (1, 0, 0)], 1, times=False)
    list(by_user(chunks, _lengths(chunks), tmp_path, bucket_rows=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "keys",
    [
        np.array([3, 1, 3, 1, 2], dtype=np.int32),
        np.array([3, 1, 3, 1, 2]),
        np.array([2**62, -(2**62), 2**62, 0]),
        np.array([0.5, -1.0, 0.5, np.inf]),
        np.array([], dtype=np.int64),
        np.random.default_rng(0).integers(-50, 50, 1000),
    ],
)
def test_a_stable_argsort_is_that_of_numpy(keys: Times) -> None:
    assert stable_argsort(keys).tolist() == np.argsort(keys, kind="stable").tolist()
