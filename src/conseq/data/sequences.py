"""Jagged sequences: all tokens in one flat array, no padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sequences:
    """``B`` sequences of item numbers, one after the other.

    Sequence ``i`` is ``ids[offsets[i] : offsets[i + 1]]``. Nothing here writes into ``ids`` or ``offsets``.

    Attributes:
        ids: int64 ``[N]``, item numbers.
        offsets: int64 ``[B + 1]``, non-decreasing, from 0 to N.
    """

    ids: Tensor
    offsets: Tensor

    @classmethod
    def from_lists(cls, lists: Iterable[Sequence[int]]) -> Sequences:
        """Gives the sequences held in ``lists``, on the CPU."""
        rows = [list(row) for row in lists]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        flat = torch.tensor([one for row in rows for one in row], dtype=torch.int64)
        return cls(flat, offsets_of(lengths))

    def to_lists(self) -> list[list[int]]:
        """Gives the sequences as lists of integers."""
        flat = self.ids.tolist()
        return [flat[a:b] for a, b in pairwise(self.offsets.tolist())]

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    def __repr__(self) -> str:
        return f"Sequences({len(self)} sequences, {self.ids.numel()} tokens)"

    @property
    def device(self) -> torch.device:
        """The device that holds the tokens."""
        return self.ids.device

    @cached_property
    def lengths(self) -> Tensor:
        """int64 ``[B]``."""
        return self.offsets.diff()

    @cached_property
    def max_length(self) -> int:
        """The length of the longest sequence; 0 where there is none. Waits for the device."""
        return int(self.lengths.max()) if len(self) else 0

    @cached_property
    def rows(self) -> Tensor:
        """int64 ``[N]``: the sequence that each token belongs to."""
        index = torch.arange(len(self), device=self.device)
        return torch.repeat_interleave(index, self.lengths, output_size=self.ids.numel())

    @cached_property
    def positions(self) -> Tensor:
        """int64 ``[N]``: 0 for the first token of each sequence."""
        return torch.arange(self.ids.numel(), device=self.device) - self.offsets[self.rows]

    @property
    def last(self) -> Tensor:
        """int64 ``[B]``: the place in ``ids`` of each sequence's last token (meaningless where empty)."""
        return self.offsets[1:] - 1

    def to(self, device: torch.device | str) -> Sequences:
        """Gives the same sequences on ``device``."""
        return Sequences(self.ids.to(device), self.offsets.to(device))

    def replace(self, ids: Tensor) -> Sequences:
        """Gives sequences of the same lengths with other tokens ``ids``, int64 ``[N]``."""
        other = Sequences(ids, self.offsets)
        for name in ("lengths", "rows", "positions", "max_length"):
            if name in self.__dict__:
                other.__dict__[name] = self.__dict__[name]
        return other

    def keep(self, mask: Tensor) -> Sequences:
        """Gives the tokens where ``mask`` (bool ``[N]``) is true, in their order."""
        total = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.cumsum(0)])
        return Sequences(self.ids[mask], total[self.offsets])

    def select(self, rows: Tensor) -> Sequences:
        """Gives the sequences ``rows`` (int64 ``[M]``, repeats allowed), in that order."""
        return slices(self.ids, self.offsets[rows], self.lengths[rows])

    def tail(self, length: int) -> Sequences:
        """Gives the last ``length`` tokens of each sequence (all of a shorter one)."""
        kept = self.lengths.clamp(max=length)
        return slices(self.ids, self.offsets[1:] - kept, kept)

    def rank(self, score: Tensor) -> Tensor:
        """Gives each token's rank by ``score`` within its own sequence.

        Equal scores rank in token order.

        Args:
            score: ``[N]``, comparable.

        Returns:
            int64 ``[N]``; 0 for the smallest score of the sequence.
        """
        by_score = torch.argsort(score, stable=True)
        order = by_score[torch.argsort(self.rows[by_score], stable=True)]
        ranks = torch.empty_like(order)
        ranks[order] = torch.arange(order.numel(), device=self.device)
        return ranks - self.offsets[self.rows]

    def pad(self, values: Tensor, *, side: Literal["left", "right"] = "right", width: int | None = None) -> Tensor:
        """Gives token values as a padded block.

        Args:
            values: ``[N, ...]``, one per token.
            side: Where the zeros stand.
            width: Columns ``T``; the longest sequence's length where None.

        Returns:
            ``[B, T, ...]``, zero where there is no token.

        Raises:
            ValueError: if ``width`` is less than the longest length.
        """
        width = self.max_length if width is None else width
        if width < self.max_length:
            raise ValueError(f"width {width} is less than the longest sequence's {self.max_length} tokens")
        columns = self.positions
        if side == "left":
            columns = columns + (width - self.lengths)[self.rows]
        block = values.new_zeros(len(self), width, *values.shape[1:])
        return block.index_put((self.rows, columns), values)


def offsets_of(lengths: Tensor) -> Tensor:
    """Gives int64 ``[B + 1]`` offsets of sequences with ``lengths`` int64 ``[B]``."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def slices(flat: Tensor, starts: Tensor, lengths: Tensor) -> Sequences:
    """Gives the sequences ``flat[starts[i] : starts[i] + lengths[i]]`` without a loop.

    Args:
        flat: ``[M]``.
        starts: int64 ``[B]``.
        lengths: int64 ``[B]``, each at least 0.

    Returns:
        ``B`` sequences.
    """
    offsets = offsets_of(lengths)
    total = int(offsets[-1])
    shift = torch.repeat_interleave(starts - offsets[:-1], lengths, output_size=total)
    return Sequences(flat[torch.arange(total, device=flat.device) + shift], offsets)


def concatenate(parts: Sequence[Sequences]) -> Sequences:
    """Gives the sequences of all ``parts``, one part after the other (to encode them in one pass)."""
    ids = torch.cat([part.ids for part in parts])
    return Sequences(ids, offsets_of(torch.cat([part.lengths for part in parts])))
