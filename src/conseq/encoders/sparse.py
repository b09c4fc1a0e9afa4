"""Scores that are the same for every history, but for a few items of each."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TypeGuard

import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Scorer


@dataclass(frozen=True, eq=False)
class SparseScores:
    """The scores ``[B, V]`` of ``B`` histories, without the block that would hold them.

    Attributes:
        base: float ``[V]``; the score of item ``j + 1`` in every row that has none of its own for it.
        items: ``B`` sequences of different item numbers: those with a score of the row's own.
        own: ``[N]``, of the type of ``base``: the scores of ``items``, one per token.
    """

    base: Tensor
    items: Sequences
    own: Tensor

    @property
    def shape(self) -> torch.Size:
        """``[B, V]``."""
        return torch.Size((len(self.items), self.base.numel()))

    def at(self, asked: Sequences) -> Tensor:
        """Gives the scores of the tokens of ``asked``, ``B`` sequences of item numbers, ``[M]``."""
        found = self.base[asked.ids - 1]
        keys, own = self._keys
        if not keys.numel() or not asked.ids.numel():
            return found
        wanted = self._key(asked)
        place = torch.searchsorted(keys, wanted).clamp_(max=keys.numel() - 1)
        return torch.where(keys[place] == wanted, own[place], found)

    def count(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Gives int64 ``[R]`` twice: how many scores of ``base`` exceed, and reach, each ``level`` ``[R]``."""
        size = self.base.numel()
        not_above = torch.searchsorted(self._ordered, level, right=True)
        below = torch.searchsorted(self._ordered, level, right=False)
        return size - not_above, size - below

    def dense(self) -> Tensor:
        """Gives the block ``[B, V]``; a view of ``base`` where no row has scores of its own."""
        block = self.base.expand(self.shape)
        if not self.own.numel():
            return block
        return block.clone().index_put_((self.items.rows, self.items.ids - 1), self.own)

    @cached_property
    def _ordered(self) -> Tensor:
        return self.base.sort().values

    @cached_property
    def _keys(self) -> tuple[Tensor, Tensor]:
        keys, order = self._key(self.items).sort()
        return keys, self.own[order]

    def _key(self, sequences: Sequences) -> Tensor:
        return sequences.rows * (self.base.numel() + 1) + sequences.ids


class SparseScorer(Scorer):
    """A scorer whose scores are :class:`SparseScores`: it is judged in no more time than its own items take."""

    @abstractmethod
    def sparse(self, users: Tensor, histories: Sequences) -> SparseScores:
        """Gives the scores of every item for every history; the arguments are those of :meth:`scores`."""

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        """Gives the same as a block, float ``[B, V]``; a view of one row where no history has scores of its own."""
        return self.sparse(users, histories).dense()


def scores_are_sparse(scorer: Scorer) -> TypeGuard[SparseScorer]:
    """Gives whether scores are what :class:`SparseScorer` makes them."""
    return isinstance(scorer, SparseScorer) and type(scorer).scores is SparseScorer.scores
