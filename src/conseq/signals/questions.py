"""What is to be explained: next items, by the items before them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from conseq.data.sequences import Sequences, offsets_of


@dataclass(frozen=True, eq=False)
class Questions:
    """Histories, and the places in them after which a next item is to be explained.

    A question is about the prefix that ends at its place; several questions may share a history. The answer to
    a question is one number per item of its prefix, and all answers stand in one flat array, in the order of
    the questions: ``[A]``, A the sum of ``lengths``.

    Attributes:
        seqs: The histories, each at least one item long and with at least one question.
        at: int64 ``[Q]``, places in ``seqs.ids``, rising.
        targets: int64 ``[Q]``, the item that came next.
    """

    seqs: Sequences
    at: Tensor
    targets: Tensor

    @classmethod
    def after_the_end(cls, histories: Sequences, targets: Tensor) -> Questions:
        """Gives one question for each whole history.

        Args:
            histories: ``B`` sequences of at least one item.
            targets: int64 ``[B]``, the item after each.

        Returns:
            ``B`` questions, whose answers stand in the places of the histories' items.
        """
        return cls(histories, histories.last, targets)

    @cached_property
    def lengths(self) -> Tensor:
        """int64 ``[Q]``: items of each prefix."""
        return self.seqs.positions[self.at] + 1

    @cached_property
    def offsets(self) -> Tensor:
        """int64 ``[Q + 1]``: where each answer begins."""
        return offsets_of(self.lengths)

    @cached_property
    def rows(self) -> Tensor:
        """int64 ``[A]``: the question that each number of the answers belongs to."""
        index = torch.arange(len(self.at), device=self.at.device)
        return torch.repeat_interleave(index, self.lengths)

    @cached_property
    def items(self) -> Tensor:
        """int64 ``[A]``: the place in ``seqs.ids`` of the item that each number of the answers is about."""
        first = self.at - self.lengths + 1
        return torch.arange(self.rows.numel(), device=self.at.device) + (first - self.offsets[:-1])[self.rows]

    @cached_property
    def only_last(self) -> bool:
        """Whether each history has one question, about all of it."""
        return len(self.at) == len(self.seqs) and torch.equal(self.at, self.seqs.last)

    def split(self, cost: Tensor, most: int) -> list[Questions]:
        """Gives the same questions, some histories at a time, in their order.

        Args:
            cost: int64 ``[B]``, of each history.
            most: Cost of a part; the last history of a part may carry it over that.

        Returns:
            Questions whose answers, one after the other, are the answers to all.
        """
        bounds = [0, *cuts_of(cost, most).tolist(), len(self.seqs)]
        tokens = self.seqs.offsets[torch.tensor(bounds, device=self.at.device)]
        asked = torch.searchsorted(self.at, tokens)
        places = pairwise(zip(bounds, tokens.tolist(), asked.tolist(), strict=True))
        found = []
        for (row, begin, first), (next_row, end, next_first) in places:
            seqs = Sequences(self.seqs.ids[begin:end], self.seqs.offsets[row : next_row + 1] - begin)
            found.append(Questions(seqs, self.at[first:next_first] - begin, self.targets[first:next_first]))
        return found


def cuts_of(cost: Tensor, most: int) -> Tensor:
    """Gives where a row of things is cut so that the parts cost about ``most`` each.

    Args:
        cost: int64 ``[B]``, of each thing, at least 1.
        most: Cost of a part; the last thing of a part may carry it over that.

    Returns:
        int64, rising: a part ends before each of these things.
    """
    part = (cost.cumsum(0) - cost) // most
    return (part.diff() > 0).nonzero()[:, 0] + 1
