"""Histories with the item that follows them: what a task may read that hides items itself."""

from __future__ import annotations

import torch

from conseq.data.sequences import Sequences, slices
from conseq.data.train_set import Batch


def completed(batch: Batch) -> Sequences:
    """Gives each history of a batch and the item after its end, as one sequence.

    Args:
        batch: Training examples.

    Returns:
        ``B`` sequences of at least two items: one item longer than the histories.
    """
    seqs = batch.history
    after = torch.arange(len(seqs) + 1, device=seqs.device)
    ids = seqs.ids.new_empty(seqs.ids.numel() + len(seqs))
    ids[torch.arange(seqs.ids.numel(), device=seqs.device) + seqs.rows] = seqs.ids
    offsets = seqs.offsets + after
    ids[offsets[1:] - 1] = batch.targets
    return Sequences(ids, offsets)


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
