"""Scorers that learn nothing. What a model must beat before its number means anything."""

from __future__ import annotations

import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Scorer


class Popularity(Scorer):
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

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        """Gives the counts for every history, as a view ``[B, V]`` of one row."""
        return self.counts.expand(len(histories), self.n_items)


class OwnHistory(Scorer):
    """Scores the items of the user's own history, the most recent highest; all others are equal below them.

    With the history excluded every candidate is equal, and the tie rule alone decides. Under optimistic ties
    the target then comes first: read this floor under pessimistic or mean ties.

    Args:
        n_items: Items in the catalogue.
    """

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        """Gives, float ``[B, V]``, 1 plus the last position of each item in the history; 0 where it is not there."""
        flat = torch.zeros(len(histories) * self.n_items, device=histories.device)
        places = histories.rows * self.n_items + histories.ids - 1
        latest = (histories.positions + 1).to(flat.dtype)
        # The greatest position wins where an item is repeated.
        return flat.scatter_reduce_(0, places, latest, reduce="amax").view(len(histories), self.n_items)


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
