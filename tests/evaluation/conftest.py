"""Scorers whose answers are known, and a small held-out part."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from conseq.data.sequences import Sequences
from conseq.data.splits import HeldOut
from conseq.encoders.encoder import Scorer
from conseq.evaluation.ranks import Protocol


class TableScorer(Scorer):
    """Gives each user the row of a table, and remembers how it was asked."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.inner = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1))
        self.n_items = table.shape[1]
        self.asked: list[list[int]] = []
        self.modes: set[bool] = set()

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        self.asked.append(users.tolist())
        self.modes |= {module.training for module in self.modules()}
        return self.table[users]


@pytest.fixture
def table_scorer() -> Callable[[Tensor], TableScorer]:
    return TableScorer


@pytest.fixture
def protocol() -> Protocol:
    return Protocol(split="test", slicing="leave_one_out", history="keep", ties="pessimistic")


@pytest.fixture
def held_out() -> HeldOut:
    """Users 0 to 3 of a catalogue of 6; user 2 buys item 1 again, user 3 has the longest history."""
    return HeldOut(
        users=torch.tensor([0, 1, 2, 3]),
        histories=Sequences.from_lists([[1], [2, 3], [1, 4], [1, 2, 3, 4, 5, 4]]),
        targets=Sequences.from_lists([[2], [1], [1], [6]]),
        tied=torch.tensor([False, True, False, True]),
    )
