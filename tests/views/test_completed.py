"""Histories with their next item, and the beginnings of sequences."""

from __future__ import annotations

import pytest
import torch

from conseq.data.sequences import Sequences
from conseq.data.train_set import Instances, TrainSet
from conseq.views.completed import completed, prefixes

LISTS = [[1, 2, 3, 4], [5, 6], [7, 8, 9]]


def train(instances: Instances, length: int = 8) -> TrainSet:
    return TrainSet(Sequences.from_lists(LISTS), torch.arange(3), 9, instances=instances, max_length=length)


def test_a_whole_history_is_completed_by_its_last_item() -> None:
    one = train("whole")
    assert completed(one, torch.arange(3)).to_lists() == LISTS


def test_a_prefix_is_completed_by_its_target() -> None:
    one = train("prefixes")
    found = completed(one, torch.arange(len(one))).to_lists()
    assert found == [[1, 2], [1, 2, 3], [1, 2, 3, 4], [5, 6], [7, 8], [7, 8, 9]]


def test_a_completed_history_is_one_longer_than_what_is_read() -> None:
    assert completed(train("whole", 2), torch.tensor([0, 1])).to_lists() == [[1, 2, 3], [2, 3, 4]]


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (1, [[1], [1, 2], [3], [4], [4, 5], [4, 5, 6]]),
        (2, [[1, 2], [4, 5], [4, 5, 6]]),
        (3, [[4, 5, 6]]),
        (4, []),
    ],
)
def test_the_beginnings_of_sequences(least: int, expected: list[list[int]]) -> None:
    assert prefixes(Sequences.from_lists([[1, 2], [3], [4, 5, 6]]), least=least).to_lists() == expected
