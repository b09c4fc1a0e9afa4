"""A tiny encoder whose answers can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Encoder
from conseq.nn.items import ItemTable
from conseq.serving.recommender import Recommender


class Mean(Encoder):
    """The mean of the vectors of the last ``max_length`` items."""

    def __init__(self, items: ItemTable, max_length: int = 3) -> None:
        super().__init__(items)
        self.max_length = max_length

    def forward(self, histories: Sequences) -> Tensor:
        read = histories.tail(self.max_length)
        if not bool(read.lengths.all()):
            raise AssertionError("an encoder must never be given an empty history")
        sums = torch.zeros(len(read), self.items.width).index_add(0, read.rows, self.items(read.ids))
        return sums / read.lengths[:, None]


@pytest.fixture
def mean_of() -> Callable[..., Mean]:
    """Gives the encoder over given item vectors."""

    def build(vectors: Tensor, max_length: int = 3) -> Mean:
        items = ItemTable(len(vectors), vectors.shape[1])
        with torch.no_grad():
            items.weight[1:-1] = vectors
        return Mean(items, max_length)

    return build


@pytest.fixture
def line(mean_of: Callable[..., Mean]) -> Recommender:
    """Items a..e with the one-dimensional vectors 1, 2, 3, 4, -1: the scores of a positive user rank d c b a e."""
    encoder = mean_of(torch.tensor([[1.0], [2.0], [3.0], [4.0], [-1.0]]))
    return Recommender(encoder, Vocabulary(list("abcde"), start=1), counts=[5, 9, 1, 2, 7])


@pytest.fixture
def random_model(mean_of: Callable[..., Mean]) -> Recommender:
    """900 items "0".."899" with random vectors of width 6."""
    torch.manual_seed(3)
    return Recommender(mean_of(torch.randn(900, 6)), Vocabulary([str(n) for n in range(900)], start=1))
