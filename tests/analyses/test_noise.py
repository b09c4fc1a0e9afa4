"""Noise in test histories: exact counts, order kept, nothing met, each user's own."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conseq.analyses.noise import Counting, Misled, NoiseConfig, noise, noisy
from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences
from conseq.data.splits import HeldOut, Split, leave_one_out
from conseq.encoders.encoder import Scorer
from conseq.evaluation.evaluator import evaluate
from conseq.run.runner import protocol

N_ITEMS = 30
COUNTINGS: list[Counting] = ["proportion", "released"]


def held_out(histories: list[list[int]], targets: list[list[int]], users: list[int] | None = None) -> HeldOut:
    rows = torch.arange(len(histories)) if users is None else torch.tensor(users)
    tied = torch.zeros(len(histories), dtype=torch.bool)
    return HeldOut(rows, Sequences.from_lists(histories), Sequences.from_lists(targets), tied)


def alike(n_users: int, length: int) -> HeldOut:
    """Many users of one history, 1 .. length, and the target after it."""
    return held_out([list(range(1, length + 1))] * n_users, [[length + 1]] * n_users)


@st.composite
def cases(draw: st.DrawFn) -> HeldOut:
    items = st.integers(1, N_ITEMS)
    histories = draw(st.lists(st.lists(items, min_size=1, max_size=12), min_size=1, max_size=6))
    targets = [draw(st.lists(items, min_size=1, max_size=3, unique=True)) for _ in histories]
    rows = draw(st.lists(st.integers(0, 10_000), min_size=len(histories), max_size=len(histories), unique=True))
    return held_out(histories, targets, rows)


@pytest.mark.parametrize("counting", COUNTINGS)
@settings(max_examples=60, deadline=None)
@given(case=cases(), share=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_without_what_was_never_met_the_history_is_as_it_was(
    counting: Counting, case: HeldOut, share: float, seed: int
) -> None:
    found = noisy(case, share, n_items=N_ITEMS, seed=seed, counting=counting).to_lists()
    for row, (history, targets) in enumerate(zip(case.histories.to_lists(), case.targets.to_lists(), strict=True)):
        inserted = [item for item in found[row] if item not in {*history, *targets}]
        assert [item for item in found[row] if item in {*history, *targets}] == history
        assert all(1 <= item <= N_ITEMS for item in inserted)
        if counting == "proportion":
            assert math.floor(share * len(history)) <= len(inserted) <= math.floor(share * len(history)) + 1
        else:
            assert len(inserted) <= math.floor(share * (len(history) + len(targets)))


@settings(max_examples=40, deadline=None)
@given(case=cases(), small=st.floats(0, 1), large=st.floats(0, 1))
def test_the_noise_of_a_smaller_share_is_part_of_that_of_a_larger_one(
    case: HeldOut, small: float, large: float
) -> None:
    small, large = sorted([small, large])
    less, more = (noisy(case, share, n_items=N_ITEMS, seed=3).to_lists() for share in (small, large))
    for few, many in zip(less, more, strict=True):
        rest = iter(many)
        assert all(item in rest for item in few)


@pytest.mark.parametrize("counting", COUNTINGS)
def test_a_users_noise_does_not_depend_on_other_users(counting: Counting) -> None:
    case = held_out([[1, 2, 3, 4, 5], [7], [9, 9, 9, 2]] * 4, [[6], [8], [3]] * 4, list(range(5, 17)))
    whole = noisy(case, 0.7, n_items=N_ITEMS, seed=1, counting=counting).to_lists()
    for rows in ([3], [11, 0, 7]):
        index = torch.tensor(rows)
        part = HeldOut(case.users[index], case.histories.select(index), case.targets.select(index), case.tied[index])
        assert noisy(part, 0.7, n_items=N_ITEMS, seed=1, counting=counting).to_lists() == [whole[row] for row in rows]
    assert whole[0] != whole[3]  # the same history, another user


def test_the_seed_decides_the_noise() -> None:
    case = alike(50, 6)
    first, again, other = (noisy(case, 0.5, n_items=N_ITEMS, seed=seed).to_lists() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_short_histories_get_the_share_on_average_and_the_whole_share_exactly() -> None:
    case = alike(4000, 3)
    added = noisy(case, 0.1, n_items=N_ITEMS, seed=0).lengths - 3
    assert set(added.tolist()) == {0, 1}
    assert float(added.double().mean()) == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 4000))
    assert noisy(case, 1.0, n_items=N_ITEMS, seed=0).lengths.tolist() == [6] * 4000
    assert noisy(case, 0.0, n_items=N_ITEMS, seed=0).to_lists() == case.histories.to_lists()


def test_places_and_items_are_uniform() -> None:
    case = alike(6000, 3)
    rows = noisy(case, 1 / 3, n_items=8, seed=0).to_lists()  # one item each: floor(1 + v), up to rounding
    single = [row for row in rows if len(row) == 4]
    assert len(single) > 5000
    places = Counter(next(place for place, item in enumerate(row) if item > 4) for row in single)
    items = Counter(item for row in single for item in row if item > 4)
    for counts in (places, items):
        assert len(counts) == 4  # four places; the items 5, 6, 7, 8
        for count in counts.values():
            assert count / len(single) == pytest.approx(1 / 4, abs=4 * math.sqrt(3 / 16 / len(single)))


def test_the_released_count_leaves_histories_of_18_items_alone_at_5_percent() -> None:
    case = held_out([[1] * 18, [1] * 19, [1] * 39], [[2], [2], [2]])
    added = noisy(case, 0.05, n_items=N_ITEMS, seed=0, counting="released").lengths - case.histories.lengths
    assert added.tolist()[:2] == [0, 1]
    assert added.tolist()[2] in {1, 2}  # two draws, of which equal places count once


def test_released_noise_never_stands_twice_in_one_place() -> None:
    case = alike(300, 3)
    found = noisy(case, 1.0, n_items=N_ITEMS, seed=0, counting="released").to_lists()
    assert all(left <= 4 or right <= 4 for row in found for left, right in pairwise(row))
    # Four draws among four places: all different with probability 4! / 4^4.
    full = sum(len(row) == 7 for row in found) / len(found)
    assert full == pytest.approx(24 / 256, abs=4 * math.sqrt(24 / 256 / 300))


def test_a_user_who_has_met_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="has met all 3 items"):
        noisy(held_out([[1, 2]], [[3]]), 0.5, n_items=3, seed=0)


def split_of(log: InteractionLog) -> Split:
    return leave_one_out(log)


def test_with_the_history_kept_metrics_are_those_of_the_noisy_histories(
    log: InteractionLog, after: Callable[[int], Scorer]
) -> None:
    split, scorer = split_of(log), after(12)
    found = noise(scorer, split, history="keep", shares=[0.0, 0.2, 0.6], seed=5)
    how = protocol(split, history="keep", part="test")
    for point in found.points:
        histories = noisy(split.test, point.share, n_items=12, seed=5)
        changed = HeldOut(split.test.users, histories, split.test.targets, split.test.tied)
        assert point.metrics == evaluate(scorer, changed, how).metrics
        assert point.inserted == histories.ids.numel() - split.test.histories.ids.numel()
        assert point.users == sum(len(row) > 5 for row in histories.to_lists()) / 40
    assert found.points[0].metrics == found.clean
    assert found.clean["HR@5"] == 1.0 > found.points[2].metrics["HR@5"]


def test_with_the_history_excluded_inserted_items_stay_candidates(
    log: InteractionLog, read: Callable[[int], Scorer]
) -> None:
    split = split_of(log)
    histories = noisy(split.test, 0.4, n_items=12, seed=2)
    misled = Misled(read(12), split.test.users, histories)
    judged = evaluate(misled, split.test, protocol(split, history="exclude", part="test"))
    for row, rank in enumerate(judged.ranks.tolist()):
        met, target = split.test.histories.to_lists()[row], split.test.targets.to_lists()[row][0]
        inserted = set(histories.to_lists()[row]) - set(met)
        before = [item for item in range(1, target) if item not in inserted and item not in met]
        assert rank == 1 + len(inserted) + len(before)


def test_the_loss_is_the_share_of_the_clean_value(log: InteractionLog, after: Callable[[int], Scorer]) -> None:
    split = split_of(log)
    other = split.test.targets.replace(split.test.targets.ids * 5 % 12 + 1)  # targets that the scorer half knows
    split = replace(split, test=replace(split.test, targets=other))
    found = noise(after(12), split, history="keep", shares=[0.5])
    point = found.points[0]
    assert 0 < found.clean["MRR"] < 1
    assert point.metrics["MRR"] != found.clean["MRR"]
    assert point.loss["MRR"] == pytest.approx((found.clean["MRR"] - point.metrics["MRR"]) / found.clean["MRR"])
    assert point.realised == pytest.approx(point.inserted / (40 * 5))


def test_a_clean_value_of_nothing_has_no_loss(log: InteractionLog, read: Callable[[int], Scorer]) -> None:
    found = noise(read(12), split_of(log), history="keep", shares=[0.4])
    assert found.clean["HR@5"] == 0  # the five items of the history stand first
    assert found.points[0].loss["HR@5"] is None


def test_the_record_is_json_and_names_the_protocol(log: InteractionLog, after: Callable[[int], Scorer]) -> None:
    found = noise(after(12), split_of(log), history="exclude", shares=[0.1])
    record = json.loads(json.dumps(found.record()))
    assert record["protocol"]["history"] == "exclude"
    assert record["points"][0]["metrics"] == found.points[0].metrics
    assert set(record["floors"]) == {"popularity", "own history"}


@pytest.mark.parametrize("shares", [[], [-0.1], [1.5]])
def test_shares_out_of_range_are_refused(
    shares: list[float], log: InteractionLog, after: Callable[[int], Scorer]
) -> None:
    with pytest.raises(ValueError, match="shares of noise must be numbers from 0 to 1"):
        noise(after(12), split_of(log), history="keep", shares=shares)


def test_the_default_shares_are_iclrecs() -> None:
    assert NoiseConfig().shares == (0.0, 0.05, 0.1, 0.15, 0.2)
