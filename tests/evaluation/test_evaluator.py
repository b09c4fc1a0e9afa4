"""Judging a scorer on a held-out part."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.splits import HeldOut
from conseq.encoders.encoder import Scorer
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.inequalities import violations
from conseq.evaluation.ranks import Protocol, Ties

Make = Callable[[Tensor], Scorer]

# Ranks of the targets 2, 1, 1, 6 with the history kept: 2, 1, 3, 6.
TABLE = torch.tensor(
    [
        [9.0, 8.0, 7.0, 6.0, 5.0, 4.0],
        [9.0, 8.0, 7.0, 6.0, 5.0, 4.0],
        [5.0, 4.0, 3.0, 9.0, 7.0, 1.0],
        [9.0, 8.0, 7.0, 6.0, 5.0, 4.0],
    ]
)
TRAIN = Sequences.from_lists([[1, 1], [2, 3], [1], [1, 2, 3, 4]])


def test_ranks_stand_in_the_order_of_the_held_out_part(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol
) -> None:
    found = evaluate(table_scorer(TABLE), held_out, protocol)
    assert found.ranks.tolist() == [2, 1, 3, 6]
    assert found.users.tolist() == [0, 1, 2, 3]
    assert found.metrics["HR@5"] == 3 / 4
    assert found.metrics["NDCG@5"] == pytest.approx((1 / math.log2(3) + 1 + 1 / 2) / 4)
    assert found.metrics["MRR"] == pytest.approx((1 / 2 + 1 + 1 / 3 + 1 / 6) / 4)
    assert list(found.metrics) == ["HR@5", "HR@10", "HR@20", "NDCG@5", "NDCG@10", "NDCG@20", "MRR"]


def test_an_excluded_history_lifts_the_rest_and_loses_repeats(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol
) -> None:
    found = evaluate(table_scorer(TABLE), held_out, replace(protocol, history="exclude"))
    assert found.ranks.tolist() == [1, 1, math.inf, 1]
    assert found.counts == {"users": 4, "targets": 4, "items": 6, "unreachable": 1, "score_tied": 0}


@pytest.mark.parametrize(("ties", "rank"), [("pessimistic", 6), ("mean", 3.5), ("optimistic", 1)])
def test_the_tie_rule_of_the_protocol_is_obeyed(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol, ties: Ties, rank: float
) -> None:
    found = evaluate(table_scorer(torch.zeros(4, 6)), held_out, replace(protocol, ties=ties))
    assert found.ranks.tolist() == [rank] * 4
    assert found.counts["score_tied"] == 4


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
def test_the_batch_size_does_not_matter(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol, batch_size: int
) -> None:
    found = evaluate(table_scorer(TABLE), held_out, protocol, batch_size=batch_size, lists=True)
    assert found.ranks.tolist() == [2, 1, 3, 6]
    assert found.metrics["Coverage@5"] == 5 / 6  # item 6 is the last of everybody


def test_long_histories_share_a_batch_and_come_first(table_scorer: Make, held_out: HeldOut, protocol: Protocol) -> None:
    scorer = table_scorer(TABLE)
    evaluate(scorer, held_out, protocol, batch_size=2)
    assert scorer.asked == [[3, 1], [2, 0]]


def test_the_scorer_is_judged_in_evaluation_mode_and_every_module_put_back(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol
) -> None:
    scorer = table_scorer(TABLE)
    frozen = scorer.get_submodule("inner.0")
    frozen.eval()
    before = {name: module.training for name, module in scorer.named_modules()}
    evaluate(scorer, held_out, protocol)
    assert scorer.modes == {False}
    assert {name: module.training for name, module in scorer.named_modules()} == before
    assert not frozen.training
    assert scorer.training


def test_the_scorer_is_put_back_when_judging_fails(table_scorer: Make, held_out: HeldOut, protocol: Protocol) -> None:
    scorer = table_scorer(torch.full((4, 6), math.nan))
    with pytest.raises(ValueError, match="NaN"):
        evaluate(scorer, held_out, protocol)
    assert scorer.training


def test_the_held_out_part_and_the_scorer_are_left_as_they_were(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol
) -> None:
    scorer = table_scorer(TABLE.clone())
    evaluate(scorer, held_out, replace(protocol, history="exclude"), train=TRAIN, lists=True)
    assert torch.equal(dict(scorer.named_parameters())["table"], TABLE)
    assert held_out.histories.to_lists() == [[1], [2, 3], [1, 4], [1, 2, 3, 4, 5, 4]]
    assert held_out.targets.to_lists() == [[2], [1], [1], [6]]


def test_several_targets_add_recall_and_comirecs_ndcg(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol
) -> None:
    several = replace(held_out, targets=Sequences.from_lists([[2, 6], [1], [1, 4, 5], [6, 5]]))
    found = evaluate(table_scorer(TABLE), several, protocol, ks=(2,))
    assert found.ranks.tolist() == [2, 6, 1, 3, 1, 2, 6, 5]
    assert found.offsets.tolist() == [0, 2, 3, 6, 8]
    assert list(found.metrics) == ["HR@2", "Recall@2", "NDCG@2", "ComiRecNDCG@2", "MRR"]
    assert found.metrics["HR@2"] == 3 / 4
    assert found.metrics["Recall@2"] == pytest.approx((1 / 2 + 1 + 2 / 3 + 0) / 4)
    second = 1 / math.log2(3)
    assert found.metrics["NDCG@2"] == pytest.approx((second / (1 + second) + 1 + 1 + 0) / 4)
    assert found.metrics["ComiRecNDCG@2"] == pytest.approx((second + 1 + 1 + 0) / 4)


def test_a_target_that_is_named_twice_counts_once(table_scorer: Make, held_out: HeldOut, protocol: Protocol) -> None:
    twice = replace(held_out, targets=Sequences.from_lists([[2, 6, 2], [1], [1, 1], [6]]))
    found = evaluate(table_scorer(TABLE), twice, protocol)
    assert found.ranks.tolist() == [2, 6, 1, 3, 6]
    assert found.offsets.tolist() == [0, 2, 3, 4, 5]


def test_floors_are_judged_under_the_same_protocol_where_the_training_log_is_given(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol
) -> None:
    assert evaluate(table_scorer(TABLE), held_out, protocol).floors == {}
    kept = evaluate(table_scorer(TABLE), held_out, protocol, ks=(2,), train=TRAIN).floors
    # Counts 4, 2, 2, 1, 0, 0: items 2 and 3 share the places 2 and 3. Own history: only user 2 repeats, at place 2.
    assert kept["popularity"]["HR@2"] == 2 / 4
    assert kept["own history"]["HR@2"] == 1 / 4
    excluded = replace(protocol, history="exclude")
    without = evaluate(table_scorer(TABLE), held_out, excluded, ks=(2,), train=TRAIN).floors
    # Item 1 goes first for user 0, so item 2 is at place 2 by the pessimistic rule; user 3 has one candidate left.
    assert without["popularity"]["HR@2"] == 3 / 4


def test_slices_by_popularity_need_the_training_log(table_scorer: Make, held_out: HeldOut, protocol: Protocol) -> None:
    assert "popularity" not in evaluate(table_scorer(TABLE), held_out, protocol).slices
    found = evaluate(table_scorer(TABLE), held_out, protocol, train=TRAIN).slices["popularity"]
    assert {part: values["cases"] for part, values in found.items()} == {"0": 1, "1-5": 3}


def test_lists_give_coverage_and_with_the_training_log_popularity(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol
) -> None:
    excluded = replace(protocol, history="exclude")
    assert "MeanPopularity@1" not in evaluate(table_scorer(TABLE), held_out, excluded, ks=(1,), lists=True).metrics
    found = evaluate(table_scorer(TABLE), held_out, excluded, ks=(1, 2), train=TRAIN, lists=True).metrics
    # Lists of two: 2 3, 1 4, 5 2, and 6 alone for user 3. Counts 4, 2, 2, 1, 0, 0.
    assert found["Coverage@1"] == 4 / 6
    assert found["Coverage@2"] == 1
    assert found["MeanPopularity@1"] == (2 + 4 + 0 + 0) / 4
    assert found["MeanPopularity@2"] == (2 + 2 + 4 + 1 + 0 + 2 + 0) / 7


def test_lists_longer_than_the_catalogue_are_cut(table_scorer: Make, held_out: HeldOut, protocol: Protocol) -> None:
    found = evaluate(table_scorer(TABLE), held_out, protocol, ks=(50,), lists=True).metrics
    assert found["Coverage@50"] == 1
    assert found["HR@50"] == 1


def test_the_digest_changes_with_what_is_judged(table_scorer: Make, held_out: HeldOut, protocol: Protocol) -> None:
    scorer = table_scorer(TABLE)
    first = evaluate(scorer, held_out, protocol).held_out
    assert first == evaluate(scorer, held_out, replace(protocol, ties="mean")).held_out
    other = replace(held_out, targets=Sequences.from_lists([[3], [1], [1], [6]]))
    assert first != evaluate(scorer, other, protocol).held_out
    shorter = replace(held_out, histories=Sequences.from_lists([[1], [2, 3], [1, 4], [1, 2, 3, 4]]))
    assert first != evaluate(scorer, shorter, protocol).held_out


def test_judging_twice_gives_the_same_ranks(table_scorer: Make, held_out: HeldOut, protocol: Protocol) -> None:
    rng = torch.Generator().manual_seed(0)
    scorer = table_scorer(torch.rand(4, 6, generator=rng))
    first, second = (evaluate(scorer, held_out, protocol).ranks for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("history", ["exclude", "keep"])
def test_the_metrics_of_an_evaluation_are_possible(table_scorer: Make, protocol: Protocol, history: str) -> None:
    rng = torch.Generator().manual_seed(1)
    many = HeldOut(
        users=torch.arange(200),
        histories=Sequences.from_lists([[1 + user % 30, 1 + user % 7] for user in range(200)]),
        targets=Sequences.from_lists([[1 + (user * 11) % 30] for user in range(200)]),
        tied=torch.zeros(200, dtype=torch.bool),
    )
    scorer = table_scorer(torch.rand(200, 30, generator=rng))
    judged = Protocol(split="test", slicing="by_time", history=history, ties="pessimistic")  # type: ignore[arg-type]
    found = evaluate(scorer, many, judged, ks=(1, 2, 5, 10))
    assert violations(found.metrics) == []
    assert found.metrics["HR@10"] > found.metrics["HR@5"] > 0


def test_a_device_may_be_named(table_scorer: Make, held_out: HeldOut, protocol: Protocol) -> None:
    assert evaluate(table_scorer(TABLE), held_out, protocol, device="cpu").ranks.tolist() == [2, 1, 3, 6]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_scorer_is_judged_on_another_device_and_comes_back(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol
) -> None:
    scorer = table_scorer(TABLE)
    found = evaluate(scorer, held_out, protocol, device="cuda", lists=True)
    assert found.ranks.tolist() == [2, 1, 3, 6]
    assert all(parameter.device.type == "cpu" for parameter in scorer.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": [[2], [1], [], [6]]}, "user 2 has no targets"),
        ({"histories": [[], [2], [1], [1]]}, "user 0 has no histories"),
        ({"targets": [[2], [1], [1], [7]]}, r"targets have item numbers 1..7; the scorer knows 1..6"),
        ({"histories": [[0], [2], [1], [1]]}, r"histories have item numbers 0..2; the scorer knows 1..6"),
        ({"targets": [[2], [1]]}, "2 targets for 4 users"),
    ],
)
def test_a_held_out_part_that_cannot_be_judged_is_refused(
    table_scorer: Make,
    held_out: HeldOut,
    protocol: Protocol,
    change: dict[str, list[list[int]]],
    message: str,
) -> None:
    parts = {name: Sequences.from_lists(lists) for name, lists in change.items()}
    broken = HeldOut(
        users=held_out.users,
        histories=parts.get("histories", held_out.histories),
        targets=parts.get("targets", held_out.targets),
        tied=held_out.tied,
    )
    with pytest.raises(ValueError, match=message):
        evaluate(table_scorer(TABLE), broken, protocol)


def test_a_held_out_part_without_users_is_refused(table_scorer: Make, protocol: Protocol) -> None:
    nobody = HeldOut(
        users=torch.empty(0, dtype=torch.int64),
        histories=Sequences.from_lists([]),
        targets=Sequences.from_lists([]),
        tied=torch.empty(0, dtype=torch.bool),
    )
    with pytest.raises(ValueError, match="no users"):
        evaluate(table_scorer(TABLE), nobody, protocol)


@pytest.mark.parametrize("ks", [(), (5, 0)])
def test_a_cut_off_below_one_is_refused(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol, ks: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="cut-offs must be"):
        evaluate(table_scorer(TABLE), held_out, protocol, ks=ks)


def test_scores_with_columns_for_padding_or_mask_are_refused(
    table_scorer: Make, held_out: HeldOut, protocol: Protocol
) -> None:
    scorer = table_scorer(torch.zeros(4, 8))
    scorer.n_items = 6
    with pytest.raises(ValueError, match=r"gave scores of shape \[4, 8\] for 4 users and 6 items"):
        evaluate(scorer, held_out, protocol)
