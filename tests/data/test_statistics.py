from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conseq.data.statistics import Tally


def _tally(users: list[list[tuple[int, int]]], *, at_once: int = 100, times: bool = True) -> Tally:
    """Of users given as their (item, time) pairs, some at a time."""
    tally = Tally()
    for start in range(0, len(users), at_once):
        part = users[start : start + at_once]
        flat = np.array([pair for user in part for pair in user])
        lengths = np.array([len(user) for user in part])
        tally.add(lengths, flat[:, 0].astype(np.int32), flat[:, 1] if times else None)
    return tally


def test_counts_and_ties_of_a_small_log_by_hand() -> None:
    users = [
        [(1, 10), (2, 10), (1, 20)],  # one of two adjacent pairs is equal, one repeat
        [(3, 5), (3, 30), (3, 30)],  # one of two, and it decides the last; two repeats
        [(2, 40)],  # alone
    ]
    tally = _tally(users)
    assert tally.counts(3) == {
        "users": 3,
        "items": 3,
        "interactions": 7,
        "min_length": 1,
        "mean_length": 7 / 3,
        "max_length": 3,
        "users_with_one_interaction": 1,
        "repeats": 3,
    }
    assert tally.times() == {
        "first": 5,
        "last": 40,
        "adjacent_equal": 2 / 4,
        "last_decided_by_tie": 1 / 2,
        "duplicates": 1,
        "last_is_duplicate": 1 / 2,
    }


def test_equal_times_of_two_users_are_no_tie() -> None:
    assert _tally([[(1, 7)], [(2, 7)]]).times() == {
        "first": 7,
        "last": 7,
        "adjacent_equal": 0.0,
        "last_decided_by_tie": 0.0,
        "duplicates": 0,
        "last_is_duplicate": 0.0,
    }


def test_a_log_without_times_has_no_ties() -> None:
    assert _tally([[(1, 0), (1, 0)]], times=False).times() is None


@given(
    st.lists(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1), min_size=1),
    st.integers(1, 9),
)
def test_statistics_are_those_of_a_loop_over_users(users: list[list[tuple[int, int]]], at_once: int) -> None:
    users = [sorted(user, key=lambda pair: pair[1]) for user in users]
    found = _tally(users, at_once=at_once)
    times = found.times()
    assert times is not None
    adjacent = [(a[1], b[1]) for user in users for a, b in pairwise(user)]
    assert found.repeats == sum(len(user) - len({item for item, _ in user}) for user in users)
    assert found.single == sum(len(user) == 1 for user in users)
    assert (found.shortest, found.longest) == (min(map(len, users)), max(map(len, users)))
    assert times["adjacent_equal"] == pytest.approx(sum(a == b for a, b in adjacent) / max(1, len(adjacent)))
    tied = [user[-1][1] == user[-2][1] for user in users if len(user) >= 3]
    assert times["last_decided_by_tie"] == pytest.approx(sum(tied) / max(1, len(tied)))
    assert found.duplicates == sum(len(user) - len(set(user)) for user in users)
    assert found.duplicated_last == sum(user[-1] == user[-2] for user in users if len(user) >= 3)
