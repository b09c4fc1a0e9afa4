"""What is printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.splits import HeldOut
from conseq.encoders.encoder import Scorer
from conseq.evaluation.compare import compare
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.ranks import Protocol
from conseq.evaluation.result import Evaluation
from conseq.evaluation.tables import as_text, comparison_table, metrics_table, slices_table

TRAIN = Sequences.from_lists([[1, 2, 3, 4, 5, 6, 1]])


@pytest.fixture
def evaluation(table_scorer: Callable[[Tensor], Scorer], held_out: HeldOut, protocol: Protocol) -> Evaluation:
    return evaluate(table_scorer(torch.arange(24.0).view(4, 6)), held_out, protocol, train=TRAIN, lists=True)


def cells(text: str, first: str) -> list[str]:
    """The cells of the first line that begins with ``first``."""
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines()]
    return next(line for line in lines if line[0] == first)


def test_the_protocol_stands_in_one_line_above_the_metrics(evaluation: Evaluation) -> None:
    text = as_text(metrics_table(evaluation))
    assert text.splitlines()[0].strip() == "TableScorer: test, leave_one_out, history kept, pessimistic ties"


def test_the_floors_stand_beside_the_model(evaluation: Evaluation) -> None:
    text = as_text(metrics_table(evaluation))
    for name in ("model", "popularity", "own history"):
        assert (name if name != "model" else "TableScorer") in text
    row = cells(text, "HR@5")
    assert row[1] == f"{evaluation.metrics['HR@5']:.4f}"
    assert row[2] == f"{evaluation.floors['popularity']['HR@5']:.4f}"
    assert row[3] == f"{evaluation.floors['own history']['HR@5']:.4f}"
    assert cells(text, "Coverage@5")[2:] == ["", ""]
    assert cells(text, "MeanPopularity@5")[1] == "1.0"


def test_the_caption_counts_users_targets_and_what_was_out_of_reach(
    table_scorer: Callable[[Tensor], Scorer], held_out: HeldOut, protocol: Protocol
) -> None:
    several = replace(held_out, targets=Sequences.from_lists([[2, 3], [1], [1], [6]]))
    excluded = replace(protocol, history="exclude")
    found = evaluate(table_scorer(torch.zeros(4, 6)), several, excluded)
    caption = as_text(metrics_table(found)).strip().splitlines()[-1]
    # Users 0 and 1 have equals; user 2's target is bought again; user 3 has one candidate left.
    assert caption.startswith("4 users, 5 targets, 6 items, 1 targets out of reach, 3 ranks decided by the tie rule")


def test_every_part_has_its_line(evaluation: Evaluation) -> None:
    text = as_text(slices_table(evaluation, ["HR@5", "NDCG@5"]))
    assert "history kept, pessimistic ties" in text.splitlines()[0]
    for cut, parts in evaluation.slices.items():
        first = next(iter(parts))
        row = cells(text, cut)
        assert row[1:] == [
            first,
            f"{parts[first]['cases']:.0f}",
            f"{parts[first]['HR@5']:.4f}",
            f"{parts[first]['NDCG@5']:.4f}",
        ]


def test_a_comparison_says_what_was_compared_with_what(evaluation: Evaluation) -> None:
    found = compare(evaluation, replace(evaluation, model="other"), ["HR@5"])
    text = as_text(comparison_table(found, evaluation.protocol))
    assert text.splitlines()[0].strip() == f"Paired comparison with TableScorer: {evaluation.protocol}"
    assert "95 % interval" in text
    narrow = compare(evaluation, replace(evaluation, model="other"), ["HR@5"], confidence=0.805)
    assert "80.5 % interval" in as_text(comparison_table(narrow, evaluation.protocol))
    assert cells(text, "HR@5")[1] == "other"
    assert cells(text, "HR@5")[4:] == ["+0.0000", "+0.0000 … +0.0000", "1.0000", "1.0000", "1.0000"]


def test_where_not_all_are_compared_with_the_same_each_line_says_with_what(evaluation: Evaluation) -> None:
    names = [("one", "two"), ("two", "three")]
    found = [
        one
        for first, second in names
        for one in compare(replace(evaluation, model=first), replace(evaluation, model=second), ["HR@5"])
    ]
    text = as_text(comparison_table(found, evaluation.protocol))
    assert text.splitlines()[0].strip() == f"Paired comparison: {evaluation.protocol}"
    rows = [line for line in text.splitlines() if "HR@5" in line]
    assert [[cell.strip() for cell in row.split("│")[2:4]] for row in rows] == [["one", "two"], ["two", "three"]]


def test_values_stand_beside_those_of_what_they_are_compared_with(evaluation: Evaluation) -> None:
    (one,) = compare(evaluation, replace(evaluation, model="other", ranks=evaluation.ranks + 1), ["MRR"])
    assert one.first_value > one.second_value
    text = as_text(comparison_table([one], evaluation.protocol))
    assert cells(text, "MRR")[2:4] == [f"{one.second_value:.4f}", f"{one.first_value:.4f}"]


def test_an_evaluation_is_told_in_one_line(evaluation: Evaluation) -> None:
    assert repr(evaluation) == (
        f"<conseq.Evaluation of TableScorer: {evaluation.protocol}; 4 users; HR@10 {evaluation.metrics['HR@10']:.4f}, "
        f"HR@20 {evaluation.metrics['HR@20']:.4f}, NDCG@10 {evaluation.metrics['NDCG@10']:.4f}, "
        f"NDCG@20 {evaluation.metrics['NDCG@20']:.4f}, MRR {evaluation.metrics['MRR']:.4f}>"
    )


def test_plain_text_has_no_colours(evaluation: Evaluation) -> None:
    assert "\x1b" not in as_text(metrics_table(evaluation))
