"""The splits: every rule by hand, and the whole of each against a slow twin on random logs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences
from conseq.data.splits import HeldOut, Split, by_time, by_user, leave_one_out
from conseq.data.vocabulary import Vocabulary

Rows = list[list[tuple[int, int]]]
Held = dict[int, tuple[list[int], list[int], bool]]


def log_of(rows: Rows, *, timed: bool = True) -> InteractionLog:
    """A log from ``(item number, time)`` pairs per user, in time order."""
    flat = [pair for row in rows for pair in row]
    n_items = max((item for item, _ in flat), default=1)
    return InteractionLog(
        items=np.array([item for item, _ in flat], dtype=np.int32),
        offsets=np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64),
        times=np.array([time for _, time in flat], dtype=np.int64) if timed else None,
        user_ids=Vocabulary([f"u{n}" for n in range(len(rows))], start=0),
        item_ids=Vocabulary([f"i{n}" for n in range(1, n_items + 1)], start=1),
        manifest={},
    )


def held(part: HeldOut) -> Held:
    """History, targets and tie of every judged user."""
    return {
        user: (history, targets, tied)
        for user, history, targets, tied in zip(
            part.users.tolist(),
            part.histories.to_lists(),
            part.targets.to_lists(),
            part.tied.tolist(),
            strict=True,
        )
    }


def trained(split: Split) -> dict[int, list[int]]:
    return dict(zip(split.train_users.tolist(), split.train.to_lists(), strict=True))


@st.composite
def random_logs(draw: st.DrawFn) -> InteractionLog:
    """Up to 12 users of up to 9 items each, with many equal times."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    rows = []
    for length in lengths:
        items = draw(st.lists(st.integers(1, 8), min_size=length, max_size=length))
        times = sorted(draw(st.lists(st.integers(0, 10), min_size=length, max_size=length)))
        rows.append(list(zip(items, times, strict=True)))
    return log_of(rows, timed=draw(st.booleans()))


def rows_of(log: InteractionLog) -> Rows:
    times = [0] * len(log) if log.times is None else log.times.tolist()
    pairs = list(zip(log.items.tolist(), times, strict=True))
    return [pairs[a:b] for a, b in zip(log.offsets[:-1].tolist(), log.offsets[1:].tolist(), strict=True)]


def items_of(row: list[tuple[int, int]]) -> list[int]:
    return [item for item, _ in row]


# Leave one out


def test_leave_one_out_holds_out_the_last_two_items_of_each_user() -> None:
    split = leave_one_out(log_of([[(1, 0), (2, 1), (3, 2), (4, 3)], [(5, 0), (6, 1), (7, 2)]]))
    assert trained(split) == {0: [1, 2], 1: [5]}
    assert held(split.validation) == {0: ([1, 2], [3], False), 1: ([5], [6], False)}
    assert held(split.test) == {0: ([1, 2, 3], [4], False), 1: ([5, 6], [7], False)}
    assert (split.name, split.n_items, split.n_users) == ("leave_one_out", 7, 2)


def test_users_with_fewer_than_three_interactions_train_whole_and_are_counted() -> None:
    split = leave_one_out(log_of([[(1, 0), (2, 1)], [(1, 0), (2, 1), (3, 2)], [(2, 0)]]))
    assert trained(split) == {0: [1, 2], 1: [1], 2: [2]}
    assert list(held(split.test)) == [1]
    assert split.notes["users_too_short"] == 2
    assert split.notes["test_users_judged"] == 1


def test_a_target_is_tied_where_its_time_is_that_of_the_last_history_item() -> None:
    split = leave_one_out(log_of([[(1, 0), (2, 4), (3, 5)], [(1, 0), (2, 0), (3, 1)]]))
    assert split.test.tied.tolist() == [False, False]
    assert split.validation.tied.tolist() == [False, True]


def test_of_the_last_two_items_at_one_time_the_tie_rule_decides_which_is_for_validation() -> None:
    split = leave_one_out(log_of([[(1, 0), (2, 1), (3, 5), (4, 5)]]))
    assert split.test.tied.tolist() == [True]
    assert split.validation.tied.tolist() == [True]


def test_the_share_that_is_shown_of_a_user_is_not_short_of_an_item_by_the_rounding_of_floats() -> None:
    log = log_of([[(1 + place, place) for place in range(90)]] * 3)
    split = by_user(log, validation=0.34, test=0.34, history=0.7, seed=0)
    assert split.test.histories.lengths.tolist() == [63]


def test_no_target_is_tied_in_a_log_without_times() -> None:
    split = leave_one_out(log_of([[(1, 0), (2, 0), (3, 0)]], timed=False))
    assert split.test.tied.tolist() == [False]
    assert not split.test.timed


def test_targets_that_do_not_occur_in_training_are_counted_as_cold() -> None:
    split = leave_one_out(log_of([[(1, 0), (2, 1), (9, 2)], [(2, 0), (8, 1), (1, 2)]]))
    assert split.notes["validation_cold_targets"] == 1  # item 8; item 2 trains through the second user
    assert split.notes["test_cold_targets"] == 1  # item 9


def test_leave_one_out_of_short_users_only_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="none of the 2 users has 3 interactions"):
        leave_one_out(log_of([[(1, 0)], [(2, 0), (3, 1)]]))


@given(random_logs())
@settings(deadline=None, max_examples=50)
def test_leave_one_out_equals_its_slow_twin(log: InteractionLog) -> None:
    rows = rows_of(log)
    if max(map(len, rows)) < 3:
        return
    split = leave_one_out(log)
    timed = log.times is not None
    validation: Held = {}
    test: Held = {}
    train = {}
    for user, row in enumerate(rows):
        items = items_of(row)
        if len(row) < 3:
            train[user] = items
            continue
        train[user] = items[:-2]
        validation[user] = (items[:-2], [items[-2]], timed and row[-2][1] in {row[-3][1], row[-1][1]})
        test[user] = (items[:-1], [items[-1]], timed and row[-1][1] == row[-2][1])
    assert trained(split) == train
    assert held(split.validation) == validation
    assert held(split.test) == test


# By time


def test_by_time_cuts_everybody_at_the_same_moments() -> None:
    log = log_of([[(1, 10), (2, 20), (3, 30), (4, 40)], [(2, 5), (5, 25)], [(1, 35)]])
    split = by_time(log, validation_from=20, test_from=30)
    assert trained(split) == {0: [1], 1: [2]}
    assert held(split.validation) == {0: ([1], [2], False), 1: ([2], [5], False)}
    assert held(split.test) == {0: ([1, 2], [3, 4], False)}
    assert split.notes["test_users_without_history"] == 1  # user 2
    assert split.notes["validation_users_without_history"] == 0
    assert split.settings == {"validation_from": 20.0, "test_from": 30.0, "targets": "all", "drop_cold": False}


def test_targets_first_holds_out_one_item_each() -> None:
    log = log_of([[(1, 10), (2, 20), (3, 30), (4, 40)], [(2, 5), (5, 25), (1, 26)]])
    split = by_time(log, validation_from=20, test_from=30, targets="first")
    assert held(split.validation) == {0: ([1], [2], False), 1: ([2], [5], False)}
    assert held(split.test) == {0: ([1, 2], [3], False)}


def test_a_first_target_is_tied_where_the_next_item_has_its_time() -> None:
    log = log_of([[(1, 0), (2, 5), (3, 5), (4, 9)], [(1, 0), (2, 5), (3, 9)], [(1, 0), (3, 9), (4, 9)]])
    split = by_time(log, validation_from=3, test_from=8, targets="first")
    assert dict(zip(split.validation.users.tolist(), split.validation.tied.tolist(), strict=True)) == {
        0: True,
        1: False,
    }
    assert split.test.tied.tolist() == [False, False, True]


def test_cold_targets_are_counted_and_left_out_when_asked() -> None:
    log = log_of([[(1, 0), (2, 5), (9, 6), (1, 9)], [(2, 0), (8, 5), (2, 9), (8, 9)]])
    kept = by_time(log, validation_from=3, test_from=8)
    assert kept.notes["validation_cold_targets"] == 2
    assert held(kept.validation) == {0: ([1], [2, 9], False), 1: ([2], [8], False)}
    dropped = by_time(log, validation_from=3, test_from=8, drop_cold=True)
    assert held(dropped.validation) == {0: ([1], [2], False)}
    assert held(dropped.test) == {0: ([1, 2, 9], [1], False), 1: ([2, 8], [2], False)}
    assert dropped.notes["validation_cold_targets_dropped"] == 2
    assert dropped.notes["validation_cold_targets"] == 0
    assert dropped.notes["validation_users_with_only_cold_targets"] == 1
    assert dropped.notes["test_cold_targets_dropped"] == 1


def test_by_time_takes_dates_and_datetimes() -> None:
    day = 86400
    log = log_of([[(1, 0), (2, day), (1, 2 * day), (2, 3 * day)]])
    expected = held(by_time(log, validation_from=day, test_from=2 * day).test)
    assert expected == {0: ([1, 2], [1, 2], False)}
    assert held(by_time(log, validation_from="1970-01-02", test_from="1970-01-03").test) == expected
    zoned = datetime(1970, 1, 3, 2, tzinfo=timezone(timedelta(hours=2)))
    assert held(by_time(log, validation_from="86400", test_from=zoned).test) == expected


def test_by_time_refuses_a_log_without_times() -> None:
    with pytest.raises(ValueError, match="by_time needs times"):
        by_time(log_of([[(1, 0), (2, 1), (3, 2)]], timed=False), validation_from=1, test_from=2)


def test_by_time_refuses_moments_out_of_order_or_outside_the_log() -> None:
    log = log_of([[(1, 10), (2, 20), (3, 30)]])
    with pytest.raises(ValueError, match="must be before test_from"):
        by_time(log, validation_from=30, test_from=20)
    with pytest.raises(ValueError, match="no interaction is before validation_from"):
        by_time(log, validation_from=10, test_from=20)
    with pytest.raises(ValueError, match="a history and a target for test"):
        by_time(log, validation_from=15, test_from=40)
    with pytest.raises(ValueError, match="a history and a target for validation"):
        by_time(log, validation_from=21, test_from=25)


def test_by_time_refuses_unknown_targets() -> None:
    with pytest.raises(ValueError, match="'all' or 'first', found 'last'"):
        by_time(log_of([[(1, 0), (2, 1), (3, 2)]]), validation_from=1, test_from=2, targets="last")  # type: ignore[arg-type]


@given(random_logs(), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=100)
def test_by_time_equals_its_slow_twin(
    log: InteractionLog, start: int, width: int, first: bool, drop_cold: bool
) -> None:
    if log.times is None:
        return
    end = start + width
    rows = rows_of(log)
    train = {user: items_of([p for p in row if p[1] < start]) for user, row in enumerate(rows)}
    train = {user: items for user, items in train.items() if items}
    known = {item for items in train.values() for item in items}

    def twin(lower: int, upper: int) -> Held:
        part: Held = {}
        for user, row in enumerate(rows):
            history = items_of([p for p in row if p[1] < lower])
            later = [p for p in row if lower <= p[1] < upper]
            tied = first and len(later) > 1 and later[0][1] == later[1][1]
            targets = items_of(later[:1] if first else later)
            if drop_cold:
                targets = [item for item in targets if item in known]
            if history and targets:
                part[user] = (history, targets, tied)
        return part

    validation, test = twin(start, end), twin(end, 100)
    targets = "first" if first else "all"
    if not (train and validation and test):
        with pytest.raises(ValueError, match="by_time"):
            by_time(log, validation_from=start, test_from=end, targets=targets, drop_cold=drop_cold)  # type: ignore[arg-type]
        return
    split = by_time(log, validation_from=start, test_from=end, targets=targets, drop_cold=drop_cold)  # type: ignore[arg-type]
    assert trained(split) == train
    assert held(split.validation) == validation
    assert held(split.test) == test


@given(random_logs(), st.integers(1, 9))
@settings(deadline=None, max_examples=40)
def test_no_training_interaction_of_by_time_is_at_or_after_the_boundary(log: InteractionLog, start: int) -> None:
    if log.times is None:
        return
    try:
        split = by_time(log, validation_from=start, test_from=start + 1)
    except ValueError:
        return
    early = (log.times < start).sum()
    assert split.train.ids.numel() == early
    assert split.validation.histories.ids.numel() <= early


# By user


def test_by_user_shows_the_first_share_of_a_held_out_user_and_hides_the_rest() -> None:
    rows = [[(item, item) for item in range(1, 11)] for _ in range(10)]
    split = by_user(log_of(rows), seed=1)
    assert split.train.to_lists() == [list(range(1, 11))] * 8
    for part in (split.validation, split.test):
        assert part.histories.to_lists() == [[1, 2, 3, 4, 5, 6, 7, 8]]
        assert part.targets.to_lists() == [[9, 10]]
    everybody = torch.cat([split.train_users, split.validation.users, split.test.users])
    assert sorted(everybody.tolist()) == list(range(10))


def test_the_same_seed_holds_out_the_same_users_and_another_does_not() -> None:
    log = log_of([[(1, 0), (2, 1)] for _ in range(200)])
    first, again, other = (by_user(log, seed=seed).test.users.tolist() for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_user_with_one_interaction_is_never_held_out() -> None:
    log = log_of([[(1, 0), (2, 1)], [(2, 0)], [(1, 0), (2, 1)], [(1, 0)]])
    for seed in range(20):
        split = by_user(log, validation=0.25, test=0.25, seed=seed)
        assert sorted([*split.validation.users.tolist(), *split.test.users.tolist()]) == [0, 2]
        assert split.notes["users_too_short"] == 2


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.1), (0.1, 0.0), (0.5, 0.5), (-0.1, 0.2)])
def test_by_user_refuses_shares_out_of_range(validation: float, test: float) -> None:
    with pytest.raises(ValueError, match="sum to less than 1"):
        by_user(log_of([[(1, 0), (2, 1)]] * 10), validation=validation, test=test, seed=0)


def test_by_user_refuses_a_history_share_of_one() -> None:
    with pytest.raises(ValueError, match="history must be between 0 and 1"):
        by_user(log_of([[(1, 0), (2, 1)]] * 10), history=1.0, seed=0)


def test_by_user_refuses_a_log_of_too_few_users() -> None:
    with pytest.raises(ValueError, match=r"cannot hold out 0\.1 and 0\.1 of 9 users"):
        by_user(log_of([[(1, 0), (2, 1)]] * 9), seed=0)


@given(random_logs(), st.integers(0, 5), st.floats(0.05, 0.95))
@settings(deadline=None, max_examples=60)
def test_by_user_equals_its_slow_twin(log: InteractionLog, seed: int, share: float) -> None:
    try:
        split = by_user(log, validation=0.2, test=0.3, history=share, seed=seed)
    except ValueError:
        return
    rows = rows_of(log)
    judged = held(split.validation) | held(split.test)
    assert len(judged) == int(0.2 * len(rows)) + int(0.3 * len(rows))
    assert trained(split) == {user: items_of(row) for user, row in enumerate(rows) if user not in judged}
    for user, (history, targets, tied) in judged.items():
        items = items_of(rows[user])
        shown = max(1, int(len(items) * share))
        assert history == items[:shown]
        assert targets == items[shown:]
        assert tied == (log.times is not None and rows[user][shown][1] == rows[user][shown - 1][1])


# What holds for every split


@given(random_logs(), st.sampled_from(["leave_one_out", "by_time", "by_user"]))
@settings(deadline=None, max_examples=60)
def test_every_interaction_is_used_once_at_most(log: InteractionLog, name: str) -> None:
    # Distinct items make an interaction recognisable in every part of the split.
    numbered = InteractionLog(
        items=np.arange(1, len(log) + 1, dtype=np.int32),
        offsets=log.offsets,
        times=log.times,
        user_ids=log.user_ids,
        item_ids=Vocabulary([str(n) for n in range(len(log))], start=1),
        manifest={},
    )
    try:
        if name == "leave_one_out":
            split = leave_one_out(numbered)
        elif name == "by_time":
            split = by_time(numbered, validation_from=4, test_from=7)
        else:
            split = by_user(numbered, validation=0.2, test=0.2, seed=0)
    except ValueError:
        return
    train, validation, test = (
        set(part.tolist()) for part in (split.train.ids, split.validation.targets.ids, split.test.targets.ids)
    )
    assert not train & validation
    assert not train & test
    assert not validation & test
    for part in (split.validation, split.test):
        for history, targets in zip(part.histories.to_lists(), part.targets.to_lists(), strict=True):
            assert max(history) < min(targets)


def test_a_user_held_out_twice_is_refused() -> None:
    split = by_user(log_of([[(1, 0), (2, 1)]] * 10), seed=0)
    with pytest.raises(ValueError, match=r"train, validation and test together: user row \d occurs more than"):
        Split(**{**vars(split), "test": split.validation})
    with pytest.raises(ValueError, match="train: user row 0 occurs more than once"):
        Split(**{**vars(split), "train_users": torch.zeros_like(split.train_users)})


def test_a_part_whose_tensors_do_not_fit_is_refused() -> None:
    split = by_user(log_of([[(1, 0), (2, 1)]] * 10), seed=0)
    test = split.test
    short = HeldOut(test.users, test.histories, Sequences.from_lists([[1], [2]]), test.tied)
    with pytest.raises(ValueError, match="test has 1 users and 2 targets"):
        Split(**{**vars(split), "test": short})
    empty = HeldOut(test.users, Sequences.from_lists([[]]), test.targets, test.tied)
    with pytest.raises(ValueError, match=r"test: the histories of user row \d is empty"):
        Split(**{**vars(split), "test": empty})
