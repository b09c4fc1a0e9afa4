"""The synthetic log: what its truth says is what happened in it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from conseq.data.log import InteractionLog
from conseq.data.splits import leave_one_out
from conseq.data.synthetic import Truth, cycle_log, synthetic, write_csv
from conseq.data.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def default() -> tuple[InteractionLog, Truth]:
    return synthetic(seed=0)


def rows_of(log: InteractionLog) -> np.ndarray:
    """The user's row of every interaction."""
    return np.repeat(np.arange(log.n_users), np.diff(log.offsets))


def ranks_of(log: InteractionLog) -> np.ndarray:
    """The popularity rank, within its intent, of every item number from 1 on, as its id tells it."""
    return np.array([int(one.rsplit("item", 1)[1]) for one in log.item_ids.ids])


def test_the_default_log_has_the_stated_size(default: tuple[InteractionLog, Truth]) -> None:
    log, _ = default
    assert (log.n_users, log.n_items) == (2500, 800)
    assert len(log) == pytest.approx(40_000, rel=0.05)
    assert np.diff(log.offsets).min() == 5


def test_the_same_seed_gives_the_same_log_and_another_seed_another() -> None:
    (one, truth), (two, again), (three, _) = (synthetic(n_users=50, seed=seed) for seed in (1, 1, 2))
    assert one.times is not None
    assert two.times is not None
    np.testing.assert_array_equal(one.items, two.items)
    np.testing.assert_array_equal(one.times, two.times)
    assert one.item_ids == two.item_ids
    for name in ("item_intents", "successors", "gaps", "user_intents", "intents", "causes"):
        np.testing.assert_array_equal(getattr(truth, name), getattr(again, name))
    assert not np.array_equal(one.items, three.items)


def test_times_increase_strictly_inside_a_user(default: tuple[InteractionLog, Truth]) -> None:
    log, _ = default
    assert log.times is not None
    same_user = np.diff(rows_of(log)) == 0
    assert (np.diff(log.times)[same_user] > 0).all()
    assert log.times.dtype == np.int64


def test_every_item_of_the_catalogue_occurs(default: tuple[InteractionLog, Truth]) -> None:
    log, truth = default
    assert set(log.items.tolist()) == set(range(1, log.n_items + 1))
    assert truth.item_intents.shape == truth.successors.shape == truth.gaps.shape == (log.n_items + 1,)
    rare, rare_truth = synthetic(n_users=3, seed=0)
    assert set(rare.items.tolist()) == set(range(1, rare.n_items + 1))
    assert rare_truth.item_intents.size == rare.n_items + 1 < 100


def test_users_do_not_meet_an_item_twice_unless_repeats_are_asked_for() -> None:
    for seed in range(3):
        log, _ = synthetic(n_users=300, n_items=60, n_intents=3, seed=seed)
        pairs = rows_of(log) * 1000 + log.items
        assert np.unique(pairs).size == len(log)
    log, _ = synthetic(n_users=300, n_items=60, n_intents=3, repeats=True, seed=0)
    pairs = rows_of(log) * 1000 + log.items
    assert np.unique(pairs).size < 0.9 * len(log)


def test_users_who_have_met_all_of_their_intents_meet_other_items() -> None:
    # Two intents of four items each are 8 items; the longest histories have 10.
    log, truth = synthetic(n_users=200, n_items=40, n_intents=10, mean_length=30, seed=0)
    lengths = np.diff(log.offsets)
    assert lengths.max() == 10
    assert np.unique(rows_of(log) * 1000 + log.items).size == len(log)
    outside = ~truth.user_intents[rows_of(log), truth.item_intents[log.items]]
    assert np.add.reduceat(outside, log.offsets[:-1])[lengths == 10].min() >= 2


def test_popularity_within_an_intent_falls_as_a_power_of_the_rank() -> None:
    log, truth = synthetic(n_users=4000, n_items=80, n_intents=4, mean_length=12, follow=0, repeats=True, seed=0)
    counts = np.bincount(log.items)[1:]
    ranks = ranks_of(log)
    for intent in range(4):
        members = truth.item_intents[1:] == intent
        assert members.sum() == 20
        slope, _ = np.polyfit(np.log(ranks[members]), np.log(counts[members]), 1)
        assert slope == pytest.approx(-0.9, abs=0.06)


def test_ids_tell_the_intent(default: tuple[InteractionLog, Truth]) -> None:
    log, truth = default
    for number in (1, 400, 800):
        found = re.fullmatch(r"intent(\d+)-item\d{3}", log.item_ids.decode([number])[0])
        assert found
        assert int(found[1]) == truth.item_intents[number] + 1
    assert truth.item_intents[0] == -1


def test_users_are_always_in_one_of_their_intents(default: tuple[InteractionLog, Truth]) -> None:
    log, truth = default
    assert (truth.user_intents.sum(axis=1) == 2).all()
    assert truth.user_intents[rows_of(log), truth.intents].all()


def test_free_draws_come_from_the_present_intent_but_for_strays() -> None:
    log, truth = synthetic(n_users=2000, n_items=800, n_intents=8, repeats=True, seed=0)
    free = truth.causes < 0
    agree = (truth.item_intents[log.items] == truth.intents)[free].mean()
    assert agree == pytest.approx(1 - 0.1 * 7 / 8, abs=0.01)


def test_a_user_who_never_switches_stays_in_one_intent() -> None:
    log, truth = synthetic(n_users=100, switch=0, seed=0)
    first = truth.intents[log.offsets[:-1]]
    np.testing.assert_array_equal(truth.intents, np.repeat(first, np.diff(log.offsets)))


def test_a_switch_at_every_step_visits_both_intents_alike() -> None:
    log, truth = synthetic(n_users=500, switch=1, seed=0)
    lower = truth.user_intents.argmax(axis=1)[rows_of(log)]
    assert (truth.intents == lower).mean() == pytest.approx(0.5, abs=0.02)


def test_every_cause_is_a_trigger_of_the_same_user_whose_successor_came_after_its_gap(
    default: tuple[InteractionLog, Truth],
) -> None:
    log, truth = default
    later = np.flatnonzero(truth.causes >= 0)
    earlier = truth.causes[later]
    users = rows_of(log)
    assert later.size > 0.15 * len(log)
    np.testing.assert_array_equal(users[earlier], users[later])
    np.testing.assert_array_equal(truth.successors[log.items[earlier]], log.items[later])
    np.testing.assert_array_equal(truth.gaps[log.items[earlier]], later - earlier)
    assert set(truth.gaps.tolist()) == {0, 1, 2, 3}


def test_the_important_interactions_are_exactly_the_causes(default: tuple[InteractionLog, Truth]) -> None:
    _, truth = default
    assert set(np.flatnonzero(truth.important).tolist()) == set(truth.causes.tolist()) - {-1}


def test_successors_are_of_the_same_intent_and_no_triggers(default: tuple[InteractionLog, Truth]) -> None:
    _, truth = default
    triggers = np.flatnonzero(truth.successors)
    assert triggers.size == pytest.approx(0.4 * 800, rel=0.01)
    after = truth.successors[triggers]
    np.testing.assert_array_equal(truth.item_intents[triggers], truth.item_intents[after])
    assert (truth.successors[after] == 0).all()
    assert np.unique(after).size == triggers.size
    np.testing.assert_array_equal(truth.gaps > 0, truth.successors > 0)


def test_always_followed_triggers_bring_their_successor_unless_the_place_is_taken() -> None:
    log, truth = synthetic(n_users=300, follow=1, repeats=True, seed=0)
    users = rows_of(log)
    places = np.flatnonzero(truth.gaps[log.items])
    due = places + truth.gaps[log.items[places]]
    inside = due < len(log)
    places, due = places[inside], due[inside]
    same = users[places] == users[due]
    places, due = places[same], due[same]
    assert (truth.causes[due] >= 0).all()
    assert (truth.causes[due] <= places).all()
    assert (truth.causes[due] == places).mean() > 0.8


def test_triggers_that_are_never_followed_cause_nothing() -> None:
    _, truth = synthetic(n_users=100, follow=0, seed=0)
    assert (truth.causes == -1).all()
    assert not truth.important.any()


def test_what_came_before_predicts_far_better_than_popularity(default: tuple[InteractionLog, Truth]) -> None:
    log, _ = default
    split = leave_one_out(log)
    train, targets = split.train, split.test.targets.ids
    popularity = torch.bincount(train.ids, minlength=log.n_items + 1).double()
    pairs = torch.zeros(log.n_items + 1, log.n_items + 1, dtype=torch.float64)
    follows = train.rows[1:] == train.rows[:-1]
    pairs.index_put_((train.ids[:-1][follows], train.ids[1:][follows]), torch.ones(1, dtype=torch.float64), True)
    last = split.test.histories.ids[split.test.histories.last]

    def hits(scores: torch.Tensor) -> float:
        top = scores.topk(10, dim=1).indices
        return (top == targets[:, None]).any(dim=1).double().mean().item()

    by_popularity = hits(popularity.expand(len(targets), -1))
    by_pairs = hits(pairs[last] + popularity / popularity.sum())
    assert by_popularity < 0.1
    assert by_pairs > 3 * by_popularity
    history = split.test.histories
    own = torch.zeros(len(history), log.n_items + 1).index_put((history.rows, history.ids), torch.ones(1))
    assert not own.gather(1, targets[:, None]).any()  # recommending the own history hits nobody


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_users": 0}, "n_users and n_intents must be at least 1, found 0 and 8"),
        ({"n_items": 31}, "n_items must be at least 32 for 8 intents, found 31"),
        ({"n_items": 19, "n_intents": 1}, "n_items must be at least 20 for 1 intents"),
        ({"mean_length": 4.9}, "mean_length must be at least 5, found 4.9"),
        ({"follow": 1.1}, "follow must be between 0 and 1, found 1.1"),
        ({"switch": -0.1}, "switch must be between 0 and 1, found -0.1"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        synthetic(**arguments, seed=0)  # type: ignore[arg-type]


def test_one_user_and_one_intent_are_enough() -> None:
    log, truth = synthetic(n_users=1, n_items=20, n_intents=1, mean_length=5, seed=0)
    assert np.diff(log.offsets).tolist() == [5]
    assert truth.user_intents.tolist() == [[True]]


# The cycle


def test_in_the_cycle_every_item_is_followed_by_the_next_and_the_last_by_the_first() -> None:
    log = cycle_log(3, 4, 6)
    assert log.items.reshape(3, 6).tolist() == [[1, 2, 3, 4, 1, 2], [2, 3, 4, 1, 2, 3], [3, 4, 1, 2, 3, 4]]
    assert log.offsets.tolist() == [0, 6, 12, 18]
    assert log.times is not None
    assert log.times.tolist() == list(range(6)) * 3
    assert (log.n_users, log.n_items) == (3, 4)


@pytest.mark.parametrize("shape", [(2, 9, 7), (0, 1, 1), (1, 1, 0), (5, 0, 5)])
def test_a_cycle_that_misses_an_item_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="do not meet"):
        cycle_log(*shape)


# As a file


def test_a_log_written_as_csv_has_the_same_rows(tmp_path: Path) -> None:
    log, _ = synthetic(n_users=7, seed=0)
    write_csv(log, tmp_path / "events.csv")
    table = pl.read_csv(tmp_path / "events.csv")
    assert table.columns == ["user_id", "item_id", "timestamp"]
    assert log.times is not None
    assert table["timestamp"].to_list() == log.times.tolist()
    assert table["item_id"].to_list() == log.item_ids.decode(log.items)
    assert table["user_id"].to_list() == log.user_ids.decode(rows_of(log))


def test_a_log_without_times_is_written_without_a_time_column(tmp_path: Path) -> None:
    log = InteractionLog(
        items=np.array([2, 1], dtype=np.int32),
        offsets=np.array([0, 2]),
        times=None,
        user_ids=Vocabulary(["a,b"], start=0),
        item_ids=Vocabulary(["x", "ÿ"], start=1),
        manifest={},
    )
    write_csv(log, tmp_path / "events.csv")
    assert (tmp_path / "events.csv").read_text(encoding="utf-8") == 'user_id,item_id\n"a,b",ÿ\n"a,b",x\n'
