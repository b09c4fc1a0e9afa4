from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conseq.data.negatives import UniformNegatives
from conseq.data.sequences import Sequences


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=9).filter(lambda row: len(set(row)) < 6), min_size=1),
    st.integers(0, 99),
)
def test_negatives_are_items_the_user_never_met(lists: list[list[int]], seed: int) -> None:
    users = torch.arange(len(lists)).flip(0) * 2  # neither in order nor without gaps
    sampler = UniformNegatives(Sequences.from_lists(lists), users, 6)
    drawn = sampler.draw(users, 20, rng(seed))
    assert drawn.shape == (len(lists), 20)
    for met, negatives in zip(lists, drawn.tolist(), strict=True):
        assert set(negatives) <= set(range(1, 7)) - set(met)


@pytest.mark.parametrize("met", [[2, 3, 3, 7], [1, 8], [4], [1, 2, 3, 4, 5, 6]])
def test_every_unmet_item_is_as_likely_as_any_other(met: list[int]) -> None:
    sampler = UniformNegatives(Sequences.from_lists([[5, 6], met]), torch.tensor([0, 1]), 8)
    drawn = sampler.draw(torch.tensor([1]), 20_000, rng())
    counts = torch.bincount(drawn[0], minlength=10)
    unmet = sorted(set(range(1, 9)) - set(met))
    assert int(counts[unmet].sum()) == 20_000
    assert stats.chisquare(counts[unmet].numpy()).pvalue > 1e-3


def test_the_only_item_left_is_always_drawn() -> None:
    sampler = UniformNegatives(Sequences.from_lists([[1, 2, 4]]), torch.tensor([0]), 4)
    assert set(sampler.draw(torch.tensor([0, 0]), 50, rng()).flatten().tolist()) == {3}


def test_sequences_of_one_user_are_avoided_together() -> None:
    sampler = UniformNegatives(Sequences.from_lists([[1], [2, 1]]), torch.tensor([5, 5]), 3)
    assert set(sampler.draw(torch.tensor([5]), 50, rng())[0].tolist()) == {3}


def test_a_user_who_met_everything_is_named() -> None:
    with pytest.raises(ValueError, match=r"the user in row 4 has met all 3 items.*; choose a loss without negatives"):
        UniformNegatives(Sequences.from_lists([[1, 2], [3, 1, 2, 3]]), torch.tensor([2, 4]), 3)


def test_the_same_seed_gives_the_same_draw() -> None:
    sampler = UniformNegatives(Sequences.from_lists([[1, 2], [3]]), torch.tensor([0, 1]), 50)
    users = torch.tensor([0, 1, 0])
    first = sampler.draw(users, 7, rng(3))
    assert torch.equal(first, sampler.draw(users, 7, rng(3)))
    assert not torch.equal(first, sampler.draw(users, 7, rng(4)))
    assert not torch.equal(first[0], first[2])


def test_the_probability_is_that_of_each_unmet_item() -> None:
    sampler = UniformNegatives(Sequences.from_lists([[1, 2, 2], [3]]), torch.tensor([0, 1]), 6)
    expected = [math.log(1 / 4), math.log(1 / 5), math.log(1 / 4)]
    assert sampler.log_probability(torch.tensor([0, 1, 0])).tolist() == pytest.approx(expected)


def test_to_gives_a_sampler_that_draws_alike() -> None:
    sampler = UniformNegatives(Sequences.from_lists([[1, 2], [3]]), torch.tensor([0, 1]), 9)
    users = torch.tensor([0, 1])
    assert torch.equal(sampler.to("cpu").draw(users, 30, rng()), sampler.draw(users, 30, rng()))
    moved = sampler.to("meta")
    assert {one.device.type for one in (moved.met, moved.begin, moved.skips)} == {"meta"}
