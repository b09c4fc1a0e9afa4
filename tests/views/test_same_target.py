"""The same-target view, against a search of all examples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conseq.data.sequences import Sequences
from conseq.data.train_set import Instances, TrainSet
from conseq.views.same_target import SameTarget

LOGS = st.lists(st.lists(st.integers(1, 5), min_size=2, max_size=9), min_size=1, max_size=8)
WAYS: list[Instances] = ["prefixes", "whole"]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def train_set(lists: list[list[int]], instances: Instances = "prefixes", max_length: int = 4) -> TrainSet:
    users = torch.arange(len(lists)).flip(0) * 3 + 1  # neither in order nor without gaps
    return TrainSet(Sequences.from_lists(lists), users, 9, instances=instances, max_length=max_length)


def by_search(train: TrainSet, *, other_users: bool) -> list[set[int]]:
    """The candidates of each example, by comparing it with every other."""
    examples = range(len(train))
    whole = train.batch(torch.arange(len(train)))
    targets, users = whole.targets.tolist(), whole.users.tolist()
    return [
        {j for j in examples if j != i and targets[j] == targets[i] and not (other_users and users[j] == users[i])}
        for i in examples
    ]


@settings(deadline=None)
@given(LOGS, st.sampled_from(WAYS), st.booleans())
def test_the_candidates_are_all_other_examples_with_the_target(
    lists: list[list[int]], instances: Instances, other_users: bool
) -> None:
    train = train_set(lists, instances)
    found = SameTarget(train, other_users=other_users).candidates(torch.arange(len(train))).to_lists()
    assert [set(row) for row in found] == by_search(train, other_users=other_users)
    assert all(len(row) == len(set(row)) for row in found)


@settings(deadline=None)
@given(LOGS, st.sampled_from(WAYS), st.booleans(), st.integers(0, 99))
def test_a_draw_is_a_candidate_or_the_example_itself_where_there_is_none(
    lists: list[list[int]], instances: Instances, other_users: bool, seed: int
) -> None:
    train = train_set(lists, instances)
    rows = torch.randperm(len(train), generator=rng(seed)).repeat(2)  # in any order, with repeats
    drawn = SameTarget(train, other_users=other_users).draw(rows, rng(seed))
    expected = by_search(train, other_users=other_users)
    for row, one in zip(rows.tolist(), drawn.tolist(), strict=True):
        assert one in (expected[row] or {row})


@pytest.mark.parametrize("other_users", [False, True])
def test_every_candidate_is_as_likely_as_any_other(other_users: bool) -> None:
    # 9 is the target of seven examples: one user meets it three times.
    lists = [[1, 9, 2, 9, 3, 9], [4, 9], [5, 9, 6], [7, 9], [1, 2, 9], [8, 3]]
    train = train_set(lists)
    view, expected = SameTarget(train, other_users=other_users), by_search(train, other_users=other_users)
    for row in range(len(train)):
        drawn = Counter(view.draw(torch.full((4000,), row), rng(row)).tolist())
        assert set(drawn) == (expected[row] or {row})
        assert len(drawn) == 1 or stats.chisquare(list(drawn.values())).pvalue > 1e-3


@pytest.mark.parametrize("instances", WAYS)
def test_the_view_is_the_history_of_an_example_with_the_same_target(instances: Instances) -> None:
    torch.manual_seed(0)
    lists = [torch.randint(1, 6, (2 + row % 11,)).tolist() for row in range(40)]
    train = train_set(lists, instances)
    batch = train.batch(torch.arange(len(train))[::3])
    view = SameTarget(train)
    drawn = train.batch(view.draw(batch.rows, rng(5)))
    assert view(batch, rng(5)).to_lists() == drawn.history.to_lists()
    assert torch.equal(drawn.targets, batch.targets)
    assert bool((drawn.rows != batch.rows).any())


def test_the_target_of_a_whole_history_is_the_item_after_its_end() -> None:
    # 3 follows in both, but ends only the first: 4 is what the second leads to.
    train = train_set([[1, 2, 3], [2, 3, 4], [5, 6, 4]], "whole")
    assert SameTarget(train).candidates(torch.arange(3)).to_lists() == [[], [2], [1]]


def test_a_history_without_company_is_its_own_view() -> None:
    train = train_set([[1, 2], [3, 4]])
    batch = train.batch(torch.tensor([1, 0]))
    assert SameTarget(train)(batch, rng()).to_lists() == [[3], [1]]


def test_a_repeated_target_of_one_user_is_a_candidate_unless_other_users_are_asked_for() -> None:
    train = train_set([[1, 2, 3, 2]])
    assert SameTarget(train).candidates(torch.arange(3)).to_lists() == [[2], [], [0]]
    assert SameTarget(train, other_users=True).candidates(torch.arange(3)).to_lists() == [[], [], []]


def test_the_same_generator_gives_the_same_view_and_the_data_stay_as_they_are() -> None:
    train = train_set([[1, 2, 3], [3, 1, 3], [2, 3], [1, 1, 3]])
    batch, view = train.batch(torch.arange(len(train))), SameTarget(train)
    kept = train.sequences.ids.clone()
    assert view(batch, rng(1)).to_lists() == view(batch, rng(1)).to_lists()
    view(batch, rng(1)).ids.fill_(7)
    assert torch.equal(train.sequences.ids, kept)
    assert repr(view) == "SameTarget(other_users=False)"


@pytest.mark.real_data
def test_on_beauty_few_examples_have_no_company(real_data: Path) -> None:
    log = pl.read_parquet(real_data / "beauty" / "interactions.parquet")
    rows = log.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    train = TrainSet(
        Sequences.from_lists([row[:-2] for row in rows]),
        torch.arange(len(rows)),
        12_101,
        instances="prefixes",
        max_length=50,
    )
    view = SameTarget(train)
    company = view.candidates(torch.arange(len(train))).lengths
    counts = torch.bincount(train.sequences.ids[train.end])
    assert torch.equal(company, counts[train.sequences.ids[train.end]] - 1)
    assert 0 < int((company == 0).sum()) == int((counts == 1).sum()) < 0.01 * len(train)
