"""Scorers that learn nothing. What a model must beat before its number means anything."""

from __future__ import annotations

import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.sparse import SparseScorer, SparseScores


class Popularity(SparseScorer):
    """Scores every item by the number of its training interactions, the same for everybody.

    Args:
        counts: float ``[V]``; entry ``j`` belongs to item number ``j + 1``.
    """

    counts: Tensor

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        self.n_items = counts.numel()
        self.register_buffer("counts", counts.float())

    @classmethod
    def from_train(cls, train: Sequences, n_items: int) -> Popularity:
        """Gives the popularity in ``train``, whose item numbers are ``1..n_items``."""
        return cls(item_counts(train, n_items))

    def sparse(self, users: Tensor, histories: Sequences) -> SparseScores:
        """Gives the counts for every history."""
        none = Sequences(histories.ids[:0], torch.zeros_like(histories.offsets))
        return SparseScores(self.counts, none, self.counts[:0])


class OwnHistory(SparseScorer):
    """Scores the items of the user's own history, the most recent highest; all others are equal below them.

    With the history excluded every candidate is equal, and the tie rule alone decides. Under optimistic ties
    the target then comes first: read this floor under pessimistic or mean ties.

    Args:
        n_items: Items in the catalogue.
    """

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items

    def sparse(self, users: Tensor, histories: Sequences) -> SparseScores:
        """Gives 1 plus the last position of each item in the history; 0 where it is not there."""
        key = histories.rows * (self.n_items + 1) + histories.ids
        ordered, order = torch.sort(key, stable=True)
        last = torch.ones_like(key, dtype=torch.bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        kept = torch.zeros_like(last).index_fill_(0, order[last], value=True)
        base = torch.zeros(self.n_items, device=histories.device)
        return SparseScores(base, histories.keep(kept), (histories.positions[kept] + 1).to(base.dtype))


def item_counts(train: Sequences, n_items: int) -> Tensor:
    """Gives int64 ``[V]``: the interactions of item ``j + 1`` in ``train``.

    Args:
        train: Sequences of item numbers ``1..n_items``.
        n_items: Items in the catalogue.

    Returns:
        The counts.

    Raises:
        ValueError: if an item number is outside the range.
    """
    ids = train.ids
    if ids.numel() and (int(ids.min()) < 1 or int(ids.max()) > n_items):
        raise ValueError(f"training item numbers lie in {int(ids.min())}..{int(ids.max())}; expected 1..{n_items}")
    return torch.bincount(ids - 1, minlength=n_items)
