"""The contrast of views that are compared position by position."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Positions that are multiplied together: narrow where most sequences end, wide where few are left.
_EDGES = (0, 6, 12, 24, 48, 96, 192, 384, 768)


def aligned_info_nce(states: Tensor, lengths: Tensor, *, temperature: float) -> Tensor:
    r"""Gives NT-Xent between two views whose similarity is the sum over positions of their states' inner product.

    .. math:: -\frac{1}{2B} \sum_{i=1}^{2B} \log \frac{e^{s(i, i^+) / \tau}}{\sum_{j \ne i} e^{s(i, j) / \tau}},
        \qquad s(i, j) = \sum_{t=1}^{\min(n_i, n_j)} h_{i, n_i - t + 1} \cdot h_{j, n_j - t + 1}

    Positions are counted from the end. That is :func:`conseq.objectives.contrast.info_nce` of the states
    concatenated over all positions with zeros before the first (ICLRec section 3.3, CoSeRec), without the zeros:
    most sequences are short, and most of the products would be of nothing.

    Args:
        states: float ``[N, D]``, the tokens of the first view's B sequences and then those of the second's.
        lengths: int64 ``[2B]``, the number of tokens of each; sequence ``B + i`` is the positive of ``i``.
        temperature: τ > 0.

    Returns:
        Scalar, mean over the 2B anchors.

    Raises:
        ValueError: if there are fewer than two sequences in a view, the lengths do not add up to the tokens, or
            the temperature is not positive.
    """
    if len(lengths) < 4 or len(lengths) % 2:
        raise ValueError(f"expected two views of at least 2 sequences each, found {len(lengths)} sequences")
    if int(lengths.sum()) != len(states):
        raise ValueError(f"the lengths add up to {int(lengths.sum())} tokens, the states are {len(states)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, found {temperature}")
    states = states.to(torch.promote_types(states.dtype, torch.float32))
    loss: Tensor = _Aligned.apply(states, lengths, temperature)  # type: ignore[no-untyped-call]
    return loss


class _Band(NamedTuple):
    """The tokens at some neighbouring positions.

    Attributes:
        size: Sequences that have one: the first ones, by length.
        tokens: int64 ``[n]``, which tokens.
        places: int64 ``[n]``, where they stand in the block, row by row.
        width: Positions of the block.
    """

    size: int
    tokens: Tensor
    places: Tensor
    width: int


class _Aligned(torch.autograd.Function):
    """NT-Xent with its gradient; sequences are taken by falling length, so that those in a band come first."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, lengths: Tensor, temperature: float) -> Tensor:
        m = len(lengths)
        order = lengths.argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(m, device=order.device)
        bands = _bands(lengths, rank)
        scores = states.new_zeros(m, m)
        with torch.autocast(states.device.type, enabled=False):
            for band in bands:
                block = _block(states, band)
                scores[: band.size, : band.size].addmm_(block, block.T)
        scores.div_(temperature)
        partner = rank[(order + m // 2) % m]
        positive = scores.gather(1, partner[:, None]).squeeze(1)
        scores.fill_diagonal_(-math.inf)
        total = torch.logsumexp(scores, 1)
        if any(ctx.needs_input_grad):
            # d loss / d scores: softmax less the positive; the similarities are symmetric.
            weight = scores.sub_(total[:, None]).exp_()
            weight.scatter_add_(1, partner[:, None], weight.new_full((m, 1), -1.0))
            ctx.save_for_backward(states, (weight + weight.T).div_(m * temperature))
            ctx.bands = bands
        return (total - positive).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        states, weight = ctx.saved_tensors
        out = torch.empty_like(states)
        with torch.autocast(states.device.type, enabled=False):
            for band in ctx.bands:
                product = weight[: band.size, : band.size] @ _block(states, band)
                out[band.tokens] = product.view(-1, states.shape[1])[band.places]
        return out.mul_(gradient), None, None


def _bands(lengths: Tensor, rank: Tensor) -> list[_Band]:
    """Gives every token once, by its position from the end.

    Args:
        lengths: int64 ``[M]``.
        rank: int64 ``[M]``, the place of each sequence by falling length.

    Returns:
        The bands that hold a token.
    """
    row = torch.repeat_interleave(rank, lengths)
    from_end = torch.repeat_interleave(lengths.cumsum(0), lengths) - 1 - torch.arange(len(row), device=row.device)
    longest = int(lengths.max())
    found = []
    for low, high in pairwise((*(edge for edge in _EDGES if edge < longest), longest)):
        tokens = ((from_end >= low) & (from_end < high)).nonzero().squeeze(1)
        places = row[tokens] * (high - low) + from_end[tokens] - low
        found.append(_Band(int((lengths > low).sum()), tokens, places, high - low))
    return found


def _block(states: Tensor, band: _Band) -> Tensor:
    """Gives float ``[size, width * D]``, zero where a sequence has no token."""
    block = states.new_zeros(band.size * band.width, states.shape[1])
    return block.index_copy_(0, band.places, states[band.tokens]).view(band.size, -1)
