"""Training histories as batches of examples: no copy, no loader, no padding.

An example is a stretch of one flat array of items. ``prefixes`` makes one example of every item that has
something before it: the history up to it, and the item as the only target (the instances of the RecBole
family). ``whole`` makes one example of a history and asks for the next item after each of its items in one
pass (the instances of the S3Rec family).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from conseq.data.sequences import Sequences, offsets_of, slices
from conseq.data.vocabulary import Vocabulary

Instances = Literal["prefixes", "whole"]
Windows: TypeAlias = bool | Literal["disjoint"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some training examples.

    Attributes:
        rows: int64 ``[B]``, the numbers of the examples in their train set.
        users: int64 ``[B]``, the user's row in the log.
        history: ``B`` sequences of at least one item: what may be read.
        at: int64 ``[M]``, places in ``history.ids`` after which a next item is asked for.
        next_ids: int64 ``[M]``, those next items.
        at_last: True where the only next item asked for is that after the history's end (then M = B).
    """

    rows: Tensor
    users: Tensor
    history: Sequences
    at: Tensor
    next_ids: Tensor
    at_last: bool

    def __len__(self) -> int:
        return self.rows.numel()

    @cached_property
    def targets(self) -> Tensor:
        """int64 ``[B]``: the item after the end of each history."""
        if self.at_last:
            return self.next_ids
        # The next item after the last token is always asked for, and comes last among its sequence's.
        ends = torch.searchsorted(self.at, self.history.last)
        return self.next_ids[ends]

    @cached_property
    def next_users(self) -> Tensor:
        """int64 ``[M]``: the user's row for each next item."""
        return self.users if self.at_last else self.users[self.history.rows[self.at]]


class TrainSet:
    """Examples cut from training sequences.

    Args:
        sequences: One per user, in time order.
        users: int64 ``[U]``, the user's row in the log for each sequence.
        n_items: Items in the catalogue.
        instances: ``prefixes`` or ``whole``.
        max_length: The most recent items of a history that an example holds, at least 1.
        windows: What ``whole`` does with a history of more than ``max_length + 1`` items. True: it is cut into
            overlapping windows, in which every next item is asked for exactly once, with at least half of
            ``max_length`` items before it where there are as many. ``disjoint``: every next item is asked for
            exactly once, too, but no window reads what another one reads, so that the first items of a window
            have little before them. False: what is older than the most recent ``max_length + 1`` items is left
            out, as the S3Rec family does.
        item_ids: Outside ids of the items, for methods that read facts about items; None: such a method refuses.

    Raises:
        ValueError: if no sequence has two items, so that there is nothing to predict.
    """

    def __init__(
        self,
        sequences: Sequences,
        users: Tensor,
        n_items: int,
        *,
        instances: Instances,
        max_length: int,
        windows: Windows = True,
        item_ids: Vocabulary | None = None,
    ) -> None:
        self.sequences = sequences
        self.sequence_users = users
        self.n_items = n_items
        self.item_ids = item_ids
        self.instances = instances
        self.max_length = max_length
        if instances == "prefixes":
            row, start, end, first = _prefixes(sequences, max_length)
        else:
            row, start, end, first = _windows(sequences, max_length, windows=windows)
        if not len(row):
            raise ValueError("no training sequence has two items; there is no next item to learn")
        self.row, self.start, self.end, self.first = row, start, end, first

    def __len__(self) -> int:
        """Examples in the set."""
        return self.row.numel()

    @cached_property
    def n_targets(self) -> int:
        """Next items asked for in one pass over the set."""
        return int((self.end - self.first).sum())

    @property
    def users(self) -> Tensor:
        """int64: the user's row in the log for each example."""
        return self.sequence_users[self.row]

    @property
    def device(self) -> torch.device:
        """The device that holds the set and its batches."""
        return self.sequences.device

    def to(self, device: torch.device | str) -> TrainSet:
        """Gives the same set on ``device``."""
        other = object.__new__(TrainSet)
        other.__dict__.update(self.__dict__)
        other.sequences = self.sequences.to(device)
        for name in ("sequence_users", "row", "start", "end", "first"):
            setattr(other, name, getattr(self, name).to(device))
        return other

    def batch(self, rows: Tensor) -> Batch:
        """Gives the examples ``rows`` (int64 ``[B]``)."""
        start, end, first = self.start[rows], self.end[rows], self.first[rows]
        flat = self.sequences.ids
        history = slices(flat, start, end - start)
        users = self.sequence_users[self.row[rows]]
        if self.instances == "prefixes":
            return Batch(rows, users, history, history.last, flat[end], at_last=True)
        asked = slices(flat, first + 1, end - first)
        at = (history.offsets[:-1] + first - start)[asked.rows] + asked.positions
        return Batch(rows, users, history, at, asked.ids, at_last=False)

    def n_batches(self, batch_size: int) -> int:
        """Gives the number of batches of an epoch."""
        return max(1, -(-len(self) // batch_size))

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Gives every example once, in batches whose sizes differ by at most one.

        An even cut leaves no remainder of one example, for which a contrastive loss has no negatives, where batches
        hold three or more.

        Args:
            batch_size: The most examples in a batch, at least 1.
            generator: Of the order (on the CPU); in the set's own order where None.

        Yields:
            The batches.

        Raises:
            ValueError: if ``batch_size`` is less than 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {batch_size}")
        n = len(self)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        for rows in order.tensor_split(self.n_batches(batch_size)):
            yield self.batch(rows.to(self.device))


_Examples = tuple[Tensor, Tensor, Tensor, Tensor]


def _prefixes(sequences: Sequences, max_length: int) -> _Examples:
    """Gives row, start, end (the target's place) and the place of the last token read."""
    end = (sequences.positions > 0).nonzero().squeeze(1)
    row = sequences.rows[end]
    start = torch.maximum(sequences.offsets[row], end - max_length)
    return row, start, end, end - 1


def _windows(sequences: Sequences, max_length: int, *, windows: Windows) -> _Examples:
    """Gives row, start, end (the last target's place) and the place of the first token with a target."""
    begin, stop = sequences.offsets[:-1], sequences.offsets[1:] - 1
    row = (stop > begin).nonzero().squeeze(1)
    begin, stop = begin[row], stop[row]
    if not windows:
        start = torch.maximum(begin, stop - max_length)
        return row, start, stop, start
    # The window that ends last is full, the one before it ends `stride` earlier, and so on to the beginning.
    stride = max_length if windows == "disjoint" else max(1, max_length // 2)
    extra = ((stop - begin - max_length).clamp(min=0) + stride - 1) // stride
    count = extra + 1
    owner = torch.repeat_interleave(torch.arange(len(row), device=row.device), count)
    step = torch.arange(owner.numel(), device=row.device) - offsets_of(count)[owner]
    end = stop[owner] - (extra[owner] - step) * stride
    start = torch.maximum(begin[owner], end - max_length)
    first = torch.where(step == 0, start, end - stride)
    return row[owner], start, end, first
