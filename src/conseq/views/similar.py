"""Views that bring in correlated items: substitute and insert (CoSeRec, Liu et al., arXiv 2108.06479)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from conseq.data.sequences import Sequences, concatenate
from conseq.views.augment import Operator, floor_share, random_like

Similar: TypeAlias = Callable[[Tensor], Tensor]
"""Gives an item in the place of each item number (int64, any shape), for instance its most correlated one."""


@dataclass(frozen=True)
class Substitute:
    """Replaces ``max(1, floor(ratio * n))`` random items of a sequence of ``n`` by similar ones.

    Attributes:
        ratio: The share that is replaced, in ``[0, 1]``.
        similar: Gives what stands in for an item, such as :class:`conseq.signals.correlation.ItemCorrelation`.
    """

    ratio: float
    similar: Similar

    def __post_init__(self) -> None:
        _check_ratio("substitution", self.ratio)

    def __call__(self, seqs: Sequences, rng: torch.Generator) -> Sequences:
        """Gives the new sequences; every set of positions of that size is as likely as any other."""
        chosen = _some_of_each(seqs, self.ratio, rng)
        return seqs.replace(torch.where(chosen, self.similar(seqs.ids), seqs.ids))


@dataclass(frozen=True)
class Insert:
    """Puts a similar item directly before ``max(1, floor(ratio * n))`` random items of a sequence of ``n``.

    Attributes:
        ratio: The share of items that get a companion, in ``[0, 1]``.
        similar: Gives the companion of an item.
        max_length: Where the sequence grows longer than this, the last items are kept.
    """

    ratio: float
    similar: Similar
    max_length: int

    def __post_init__(self) -> None:
        _check_ratio("insertion", self.ratio)

    def __call__(self, seqs: Sequences, rng: torch.Generator) -> Sequences:
        """Gives the longer sequences; every set of positions of that size is as likely as any other."""
        chosen = _some_of_each(seqs, self.ratio, rng)
        total = torch.cat([chosen.new_zeros(1, dtype=torch.int64), chosen.cumsum(0)])
        offsets = seqs.offsets + total[seqs.offsets]
        # A token moves on by the insertions up to its own; what is left over are the inserted ones' places.
        place = torch.arange(seqs.ids.numel(), device=seqs.device) + total[1:]
        ids = seqs.ids.new_empty(seqs.ids.numel() + int(total[-1]))
        ids[place] = seqs.ids
        ids[place[chosen] - 1] = self.similar(seqs.ids[chosen])
        return Sequences(ids, offsets).tail(self.max_length)


@dataclass(frozen=True)
class ByLength:
    """Applies one operator to short sequences and another to long ones.

    Attributes:
        short: For sequences of at most ``threshold`` items.
        long: For the others.
        threshold: Items, at least 0.
    """

    short: Operator
    long: Operator
    threshold: int

    def __call__(self, seqs: Sequences, rng: torch.Generator) -> Sequences:
        """Gives one view of each sequence."""
        is_long = seqs.lengths > self.threshold
        parts = [(~is_long).nonzero().squeeze(1), is_long.nonzero().squeeze(1)]
        made = [operator(seqs.select(rows), rng) for operator, rows in zip((self.short, self.long), parts, strict=True)]
        return concatenate(made).select(torch.cat(parts).argsort())


def _some_of_each(seqs: Sequences, ratio: float, rng: torch.Generator) -> Tensor:
    """Gives bool ``[N]``, true for ``max(1, floor(ratio * n))`` random tokens of each sequence of ``n``."""
    count = floor_share(seqs.lengths, ratio).clamp(min=1).minimum(seqs.lengths)
    # Within each sequence the tokens stand in random order: the first `count` of them are chosen.
    shuffled = torch.argsort(seqs.rows + random_like(seqs.ids, rng))
    chosen = torch.zeros_like(seqs.ids, dtype=torch.bool)
    chosen[shuffled] = seqs.positions < count[seqs.rows]
    return chosen


def _check_ratio(what: str, ratio: float) -> None:
    if not 0 <= ratio <= 1:
        raise ValueError(f"the {what} ratio must be in [0, 1], found {ratio}")
