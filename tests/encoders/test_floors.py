"""Scorers that learn nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences
from conseq.data.splits import Split, leave_one_out
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.floors import OwnHistory, Popularity, item_counts
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.ranks import Protocol, Ties

USERS = torch.tensor([-1, -1])


def split_of(folder: Path) -> Split:
    """The leave-one-out cut of a real log, whose item ids are already 1..n_items and rows in order."""
    frame = pl.read_parquet(folder / "interactions.parquet")
    users, items = frame["user_id"].to_numpy(), frame["item_id"].to_numpy().astype(np.int32)
    offsets = np.concatenate([[0], np.flatnonzero(np.diff(users)) + 1, [users.size]]).astype(np.int64)
    log = InteractionLog(
        items=items,
        offsets=offsets,
        times=None,
        user_ids=Vocabulary([str(row) for row in range(offsets.size - 1)], start=0),
        item_ids=Vocabulary([str(item) for item in range(1, int(items.max()) + 1)], start=1),
        manifest={},
    )
    return leave_one_out(log)


def kept(ties: Ties) -> Protocol:
    return Protocol(split="test", slicing="leave_one_out", history="keep", ties=ties)


def test_popularity_scores_the_number_of_interactions_for_everybody() -> None:
    popularity = Popularity.from_train(Sequences.from_lists([[1, 3, 3], [3]]), 4)
    assert popularity.n_items == 4
    scores = popularity.scores(USERS, Sequences.from_lists([[1], [2, 3]]))
    assert scores.tolist() == [[1, 0, 3, 0]] * 2


def test_popularity_is_kept_with_the_weights() -> None:
    popularity = Popularity.from_train(Sequences.from_lists([[1, 3, 3]]), 3)
    other = Popularity(torch.zeros(3))
    other.load_state_dict(popularity.state_dict())
    assert other.counts.tolist() == [1, 0, 2]


@pytest.mark.parametrize("ids", [[0, 1], [1, 5]])
def test_training_items_outside_the_catalogue_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"item numbers lie in {ids[0]}..{ids[1]}; expected 1..4"):
        item_counts(Sequences.from_lists([ids]), 4)


def test_an_item_that_nobody_met_counts_0() -> None:
    assert item_counts(Sequences.from_lists([[], []]), 3).tolist() == [0, 0, 0]


def test_own_history_puts_the_most_recent_first_and_all_others_equal_below() -> None:
    scores = OwnHistory(5).scores(USERS, Sequences.from_lists([[4, 1, 2], [5]]))
    assert scores.tolist() == [[2, 3, 0, 1, 0], [0, 0, 0, 0, 1]]


def test_a_repeated_item_is_as_recent_as_its_last_occurrence() -> None:
    scores = OwnHistory(3).scores(USERS, Sequences.from_lists([[2, 1, 2], [3, 3, 1]]))
    assert scores.tolist() == [[2, 3, 0], [3, 0, 2]]


@pytest.mark.real_data
@pytest.mark.parametrize("ties", ["pessimistic", "mean"])
def test_own_history_on_yelp_scores_what_is_known(real_data: Path, ties: Ties) -> None:
    split = split_of(real_data / "yelp")
    found = evaluate(OwnHistory(split.n_items), split.test, kept(ties)).metrics
    expected = {
        "HR@5": 0.0547,
        "HR@10": 0.0620,
        "HR@20": 0.0653,
        "NDCG@5": 0.0389,
        "NDCG@10": 0.0414,
        "NDCG@20": 0.0422,
    }
    assert {name: round(found[name], 4) for name in expected} == expected


@pytest.mark.real_data
@pytest.mark.parametrize("ties", ["pessimistic", "mean", "optimistic"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [("sports", [0.0055, 0.0090, 0.0149]), ("toys", [0.0055, 0.0089, 0.0132]), ("yelp", [0.0058, 0.0100, 0.0163])],
)
def test_popularity_scores_what_is_known_under_every_tie_rule(
    real_data: Path, name: str, expected: list[float], ties: Ties
) -> None:
    split = split_of(real_data / name)
    found = evaluate(Popularity.from_train(split.train, split.n_items), split.test, kept(ties)).metrics
    assert [round(found[f"HR@{k}"], 4) for k in (5, 10, 20)] == expected


@pytest.mark.real_data
def test_popularity_on_beauty_depends_on_the_tie_rule(real_data: Path) -> None:
    """The known .0072 and .0114 stand between the rules: there, equal counts rank in the order of item numbers."""
    split = split_of(real_data / "beauty")
    popularity = Popularity.from_train(split.train, split.n_items)
    last, first = (evaluate(popularity, split.test, kept(ties)).metrics for ties in ("pessimistic", "optimistic"))
    assert [round(last[f"HR@{k}"], 4) for k in (5, 10, 20)] == [0.0064, 0.0106, 0.0195]
    assert [round(first[f"HR@{k}"], 4) for k in (5, 10, 20)] == [0.0081, 0.0120, 0.0195]
    in_order = Popularity(popularity.counts - torch.arange(split.n_items) / split.n_items)
    found = evaluate(in_order, split.test, kept("pessimistic")).metrics
    assert [round(found[f"HR@{k}"], 4) for k in (5, 10, 20)] == [0.0072, 0.0114, 0.0195]
