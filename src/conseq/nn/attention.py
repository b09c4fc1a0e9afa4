"""Multi-head self-attention over jagged sequences: the only place where anything is padded.

Sequences of similar length share one padded block, so that a batch with one long history does not pad every
short one to its length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.data.sequences import Sequences
from conseq.nn.dropout import Dropout

# Few enough that a block's fixed cost of launching operators stays small beside its work.
_EDGES = (0, 6, 12, 24, 48, 96, 192, 384, 1 << 31)
_FAR = 10_000.0


@dataclass(frozen=True, eq=False)
class Block:
    """Sequences of similar length and where their tokens stand in a right-padded block.

    Attributes:
        rows: int64 ``[b]``, the sequences of the block; None for all of them, in order.
        tokens: int64 ``[n]``, places of their tokens in the batch; None for all of them, in order.
        slots: int64 ``[n]``, places of the same tokens in the block, row by row.
        lengths: int64 ``[b]``.
        width: ``T``.
    """

    rows: Tensor | None
    tokens: Tensor | None
    slots: Tensor
    lengths: Tensor
    width: int


def blocks(seqs: Sequences) -> list[Block]:
    """Gives padded blocks that hold every token of ``seqs`` once (made once per ``Sequences``)."""
    made: list[Block] | None = seqs.__dict__.get("_attention_blocks")
    if made is None:
        made = _make_blocks(seqs)
        seqs.__dict__["_attention_blocks"] = made
    return made


def _make_blocks(seqs: Sequences) -> list[Block]:
    lengths = seqs.lengths.cpu()
    found = []
    for low, high in pairwise(_EDGES):
        inside = (lengths > low) & (lengths <= high)
        count = int(inside.sum())
        if count == 0:
            continue
        width = int(lengths[inside].max())
        member = inside.to(seqs.device)
        row = (member.cumsum(0) - 1)[seqs.rows]
        slots = row * width + seqs.positions
        if count == len(seqs):
            return [Block(None, None, slots, seqs.lengths, width)]
        tokens = member[seqs.rows].nonzero().squeeze(1)
        found.append(Block(member.nonzero().squeeze(1), tokens, slots[tokens], seqs.lengths[member], width))
    return found


class SelfAttention(nn.Module):
    """Scaled dot-product self-attention with ``heads`` heads.

    Args:
        width: ``D``, a multiple of ``heads``.
        heads: Number of heads.
        dropout: Of the attention probabilities, in ``[0, 1)``.

    Raises:
        ValueError: if ``heads`` does not divide ``width``.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of the number of heads, {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, seqs: Sequences, *, causal: bool = True) -> Tensor:
        """Gives what each token reads from its own sequence.

        Args:
            x: float ``[N, D]``.
            seqs: Gives the lengths.
            causal: A token reads itself and what came before; False: the whole sequence.

        Returns:
            float ``[N, D]``.
        """
        if not len(x):
            return x
        qkv = _joint(x, self.query, self.key, self.value)
        parts = blocks(seqs)
        read = [self._attend(qkv, block, causal=causal) for block in parts]
        mixed = _assemble(read, [block.tokens for block in parts], x.shape[0])
        out: Tensor = self.out(mixed)
        return out

    def last(self, x: Tensor, seqs: Sequences) -> Tensor:
        """Gives what the last token of each sequence reads: the rows ``seqs.last`` of :meth:`forward`.

        Where only those are wanted, as after the last layer of an encoder of histories, this saves the queries
        and all that follows them for every other token.

        Args:
            x: float ``[N, D]``.
            seqs: Gives the lengths, each at least 1.

        Returns:
            float ``[B, D]``.
        """
        if not len(x):
            return x
        kv = _joint(x, self.key, self.value)
        query = self.query(x[seqs.last])
        parts = blocks(seqs)
        read = [self._attend_last(query, kv, block) for block in parts]
        mixed = _assemble(read, [block.rows for block in parts], len(seqs))
        out: Tensor = self.out(mixed)
        return out

    def slots(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Gives what each slot of a padded block reads, where what is hidden is far away and not out of reach.

        The scores of hidden slots are lowered by 10,000, as the contrastive papers' code does. A slot from which every
        slot is hidden, which is what padding before a history is, then reads all of them.

        Args:
            x: float ``[B, T, D]``.
            hidden: bool ``[B, T, T]``: whether the slot of a row may not read the slot of a column.

        Returns:
            float ``[B, T, D]``.
        """
        b, t, _ = x.shape
        qkv = _joint(x, self.query, self.key, self.value).view(b, t, 3, self.heads, -1)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        logits = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
        kept: Tensor = self.dropout((logits - _FAR * hidden[:, None]).softmax(-1))
        out: Tensor = self.out((kept @ v).transpose(1, 2).reshape(b, t, -1))
        return out

    def _attend(self, qkv: Tensor, block: Block, *, causal: bool) -> Tensor:
        """Gives what the tokens of a block read, float ``[n, D]``."""
        b, t, h = block.lengths.numel(), block.width, self.heads
        own = qkv if block.tokens is None else _gather(qkv, block.tokens)
        padded = _scatter(own, block.slots, b * t).view(b, t, 3, h, -1)
        q, k, v = (part.transpose(1, 2) for part in padded.unbind(2))
        # Padding stands on the right, so a causal mask already keeps every token from reading it.
        mask = None if causal else _readable(block, q.device)
        read = self._kernel(q, k, v, mask)
        return _gather(read.transpose(1, 2).reshape(b * t, -1), block.slots)

    def _attend_last(self, query: Tensor, kv: Tensor, block: Block) -> Tensor:
        """Gives what the last tokens of a block's sequences read, float ``[b, D]``."""
        b, t, h = block.lengths.numel(), block.width, self.heads
        own = kv if block.tokens is None else _gather(kv, block.tokens)
        padded = _scatter(own, block.slots, b * t).view(b, t, 2, h, -1)
        k, v = (part.transpose(1, 2) for part in padded.unbind(2))
        q = query if block.rows is None else _gather(query, block.rows)
        return self._kernel(q.view(b, h, 1, -1), k, v, _readable(block, q.device)).reshape(b, -1)

    def _kernel(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Gives the attention of one padded block, float ``[b, h, T, d]``; causal where there is no mask."""
        causal = mask is None
        p = self.dropout.p if self.training else 0.0
        if p == 0 or q.device.type != "cpu":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, is_causal=causal)
        # With dropout torch's CPU kernel takes its slow path, and draws one Bernoulli number per probability.
        logits = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
        hidden = _future(k.shape[-2], q.device) if mask is None else ~mask
        kept: Tensor = self.dropout(logits.masked_fill(hidden, -math.inf).softmax(-1))
        return kept @ v


def _joint(x: Tensor, *layers: nn.Linear) -> Tensor:
    """Gives the outputs of several layers of one input side by side, by one product."""
    return F.linear(x, torch.cat([one.weight for one in layers]), torch.cat([one.bias for one in layers]))


def _assemble(parts: list[Tensor], places: list[Tensor | None], size: int) -> Tensor:
    """Gives ``[size, D]`` from what each block read and where its rows belong."""
    if len(parts) == 1:
        return parts[0]
    return _scatter(torch.cat(parts), torch.cat([one for one in places if one is not None]), size)


def _future(width: int, device: torch.device) -> Tensor:
    return torch.ones(width, width, dtype=torch.bool, device=device).triu(1)


def _readable(block: Block, device: torch.device) -> Tensor:
    """Gives bool ``[b, 1, 1, T]``: the columns that hold a token."""
    columns = torch.arange(block.width, device=device)
    return (columns < block.lengths[:, None])[:, None, None, :]


def _scatter(rows: Tensor, places: Tensor, size: int) -> Tensor:
    """Gives float ``[size, D]`` with ``rows`` at ``places`` (each at most once) and zeros elsewhere."""
    out: Tensor = _Scatter.apply(rows, places, size)  # type: ignore[no-untyped-call]
    return out


def _gather(block: Tensor, places: Tensor) -> Tensor:
    """Gives ``block[places]`` for places that are all different."""
    out: Tensor = _Gather.apply(block, places)  # type: ignore[no-untyped-call]
    return out


class _Scatter(torch.autograd.Function):
    """Its gradient is a gather; torch's own for an indexed write also computes one for what was overwritten."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return rows.new_zeros(size, rows.shape[1]).index_copy_(0, places, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return _gather(gradient, places), None, None


class _Gather(torch.autograd.Function):
    """Its gradient is a plain write, since no place repeats; torch's own accumulates."""

    @staticmethod
    def forward(ctx: Any, block: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = block.shape[0]
        return block.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return _scatter(gradient, places, ctx.size), None
