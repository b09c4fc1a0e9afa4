"""One vector for each sequence from the states of its tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from conseq.data.sequences import Sequences


def last(states: Tensor, seqs: Sequences) -> Tensor:
    """Gives the state of each sequence's last token, float ``[B, D]``.

    Args:
        states: float ``[N, D]``.
        seqs: Gives the lengths, each at least 1.

    Returns:
        float ``[B, D]``.
    """
    return states[seqs.last]


def mean(states: Tensor, seqs: Sequences) -> Tensor:
    """Gives the mean of each sequence's states.

    Args:
        states: float ``[N, D]``.
        seqs: Gives the lengths.

    Returns:
        float ``[B, D]``; zeros for a sequence without tokens.
    """
    return sums(states, seqs) / seqs.lengths.clamp(min=1)[:, None]


def window(states: Tensor, seqs: Sequences, k: int) -> Tensor:
    r"""Gives the mean of each sequence's last ``k`` states (ECL-SR eq. 12).

    .. math:: \frac{1}{\min(k, n)} \sum_{t = n - \min(k, n) + 1}^{n} h_t

    A shorter sequence gives the mean of all its states: nothing is read before its beginning.

    Args:
        states: float ``[N, D]``.
        seqs: Gives the lengths n.
        k: At least 1.

    Returns:
        float ``[B, D]``; zeros for a sequence without tokens.

    Raises:
        ValueError: if ``k`` is less than 1.
    """
    if k < 1:
        raise ValueError(f"a window holds at least 1 state, found {k}")
    count = seqs.lengths.clamp(max=k)
    inside = seqs.positions >= (seqs.lengths - count)[seqs.rows]
    return sums(states * inside.to(states.dtype)[:, None], seqs) / count.clamp(min=1)[:, None]


def flatten(states: Tensor, seqs: Sequences, width: int, *, side: Literal["left", "right"]) -> Tensor:
    """Gives each sequence's states one after the other, with zeros where there is no token.

    Args:
        states: float ``[N, D]``.
        seqs: Gives the lengths, each at most ``width``.
        width: Tokens that a vector has room for, ``T``.
        side: Where the zeros stand: before the first token, or after the last.

    Returns:
        float ``[B, T * D]``.

    Raises:
        ValueError: if a sequence has more than ``width`` tokens.
    """
    return seqs.pad(states, side=side, width=width).flatten(1)


def sums(values: Tensor, seqs: Sequences) -> Tensor:
    """Gives the sum of the token values of each sequence, float ``[B, ...]``, from float ``[N, ...]``."""
    return torch.segment_reduce(values, "sum", offsets=seqs.offsets, axis=0, unsafe=True, initial=0.0)
