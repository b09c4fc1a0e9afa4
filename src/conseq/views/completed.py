"""Histories with the item that follows them: what a task may read that hides items itself."""

from __future__ import annotations

from torch import Tensor

from conseq.data.sequences import Sequences, slices
from conseq.data.train_set import TrainSet


def completed(train: TrainSet, rows: Tensor) -> Sequences:
    """Gives the history of each example and the item after its end, which stand side by side in the train set.

    Args:
        train: The examples.
        rows: int64 ``[B]``, their numbers.

    Returns:
        ``B`` sequences of at least two items: one item longer than the histories.
    """
    start = train.start[rows]
    return slices(train.sequences.ids, start, train.end[rows] + 1 - start)


def prefixes(seqs: Sequences, *, least: int = 1) -> Sequences:
    """Gives every beginning of every sequence.

    Args:
        seqs: Any sequences.
        least: The fewest items of a beginning.

    Returns:
        The beginnings of the first sequence from the shortest to the whole, then those of the second, and so on.
    """
    ends = (seqs.positions >= least - 1).nonzero().squeeze(1)
    lengths = seqs.positions[ends] + 1
    return slices(seqs.ids, ends + 1 - lengths, lengths)
