"""Scores without a block: they are judged as the block would be."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.splits import HeldOut
from conseq.encoders.encoder import Scorer
from conseq.encoders.floors import OwnHistory, Popularity
from conseq.encoders.sparse import SparseScorer, SparseScores, scores_are_sparse
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.lists import Listed
from conseq.evaluation.ranks import Protocol, ScoreError, Ties, target_ranks, top_items

N_ITEMS = 40


class Block(Scorer):
    """The same scores as a block: nothing in it knows that they are sparse."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer, self.n_items = scorer, scorer.n_items

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        return self.scorer.scores(users, histories)


@st.composite
def cases(draw: st.DrawFn) -> tuple[SparseScores, Sequences, Sequences]:
    n_items, n_users = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    level = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0])
    items = st.integers(1, n_items)

    def lists(least: int, *, unique: bool) -> Sequences:
        one = st.lists(items, min_size=least, max_size=5, unique=unique)
        return Sequences.from_lists(draw(st.lists(one, min_size=n_users, max_size=n_users)))

    base = torch.tensor(draw(st.one_of(st.just([-math.inf] * n_items), _of(level, n_items))))
    own = lists(0, unique=True)
    values = torch.tensor(draw(_of(level, own.ids.numel())))
    return SparseScores(base, own, values), lists(1, unique=True), lists(0, unique=False)


def _of(level: st.SearchStrategy[float], size: int) -> st.SearchStrategy[list[float]]:
    return st.lists(level, min_size=size, max_size=size)


@given(case=cases(), ties=st.sampled_from(get_args(Ties)), exclude=st.booleans(), k=st.integers(1, 12))
def test_ranks_and_lists_are_those_of_the_block(
    case: tuple[SparseScores, Sequences, Sequences], ties: Ties, exclude: bool, k: int
) -> None:
    scores, targets, out = case
    excluded = out if exclude else None
    block = scores.dense()
    found, twin = (target_ranks(one, targets, excluded=excluded, ties=ties) for one in (scores, block))
    assert torch.equal(found.rank, twin.rank)
    assert torch.equal(found.equals, twin.equals)
    lists, others = (top_items(one, k, excluded=excluded) for one in (scores, block))
    assert lists.shape == others.shape
    # Equal scores may stand in another order: what is listed at each place has the same score.
    padded = torch.cat([torch.full((len(block), 1), -math.inf), block], 1)
    assert torch.equal(padded.gather(1, lists), padded.gather(1, others))
    assert all(len(set(row) - {0}) == len([one for one in row if one]) for row in lists.tolist())


@given(case=cases())
def test_the_block_has_what_is_asked_for_one_by_one(case: tuple[SparseScores, Sequences, Sequences]) -> None:
    scores, targets, _ = case
    assert scores.shape == scores.dense().shape
    assert torch.equal(scores.at(targets), scores.dense()[targets.rows, targets.ids - 1])


def held_out(n_targets: int) -> HeldOut:
    rng = np.random.default_rng(n_targets)
    users = 30
    return HeldOut(
        users=torch.arange(users),
        histories=Sequences.from_lists([rng.integers(1, N_ITEMS + 1, 1 + user % 9).tolist() for user in range(users)]),
        targets=Sequences.from_lists(
            [rng.choice(N_ITEMS, 1 + user % n_targets, replace=False) + 1 for user in range(users)]  # type: ignore[misc]
        ),
        tied=torch.zeros(users, dtype=torch.bool),
    )


def scorer_of(name: str) -> SparseScorer:
    rng = np.random.default_rng(7)
    if name == "popularity":
        return Popularity(torch.from_numpy(rng.integers(0, 9, N_ITEMS)))
    if name == "own history":
        return OwnHistory(N_ITEMS)
    lists = [rng.choice(N_ITEMS, rng.integers(0, 12), replace=False) + 1 for _ in range(30)]
    return Listed(Sequences.from_lists(lists), N_ITEMS)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["popularity", "own history", "listed"])
@pytest.mark.parametrize("history", ["exclude", "keep"])
@pytest.mark.parametrize("ties", get_args(Ties))
@pytest.mark.parametrize("n_targets", [1, 4])
@pytest.mark.parametrize("batch_size", [None, 7])
def test_an_evaluation_is_that_of_the_block(
    name: str, history: str, ties: Ties, n_targets: int, batch_size: int | None
) -> None:
    asked = Protocol(split="test", slicing="by_time", history=history, ties=ties)  # type: ignore[arg-type]
    scorer, held = scorer_of(name), held_out(n_targets)
    train = held.histories
    found, twin = (
        evaluate(one, held, asked, ks=(1, 5, 10), train=train, lists=name == "listed", batch_size=batch_size)
        for one in (scorer, Block(scorer))
    )
    assert np.array_equal(found.ranks, twin.ranks)
    assert found.metrics == twin.metrics
    assert found.slices == twin.slices
    assert found.counts == twin.counts
    # Own history has no hit where its items are excluded, and nothing but hits where ties count for it.
    assert name == "own history" or 0 < found.metrics["HR@10"] < 1


def test_a_scorer_with_scores_of_its_own_is_asked_for_the_block() -> None:
    class Reversed(Popularity):
        def scores(self, users: Tensor, histories: Sequences) -> Tensor:
            return -super().scores(users, histories)

    counts = torch.arange(N_ITEMS)
    assert scores_are_sparse(Popularity(counts))
    assert not scores_are_sparse(Reversed(counts))
    asked = Protocol(split="test", slicing="by_time", history="keep", ties="pessimistic")
    held = held_out(1)
    found, twin = (evaluate(one, held, asked) for one in (Reversed(counts), Popularity(-counts)))
    assert np.array_equal(found.ranks, twin.ranks)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(bad: float) -> None:
    one = Sequences.from_lists([[2]])
    good = torch.zeros(3)
    for scores, what in (
        (SparseScores(torch.tensor([0.0, bad, bad]), one, torch.zeros(1)), "2 scores that all share"),
        (SparseScores(good, one, torch.tensor([bad])), "1 scores of a row's own"),
    ):
        with pytest.raises(ScoreError, match=rf"{what} are NaN or \+inf"):
            target_ranks(scores, one, ties="mean")
