"""A bidirectional transformer over the items of a history (Sun et al., CIKM 2019).

Every token reads the whole sequence, so a state cannot predict the item at its own or a later place unless that
place is masked: the model learns to recover masked items, and is asked for the next one by a mask at the end.
Departure from the paper: there is no projection and no bias before the softmax, because every encoder here is
compared with the item table by inner product (ECL-SR's generator has neither).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.config import settings
from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Encoder
from conseq.encoders.sasrec import FeedForward
from conseq.nn.attention import SelfAttention, blocks
from conseq.nn.dropout import Dropout
from conseq.nn.items import ItemTable


@settings
class BERT4RecConfig:
    """Settings of BERT4Rec."""

    width: Annotated[int, Field(ge=1)] = 64
    """D, width of item vectors and states."""
    layers: Annotated[int, Field(ge=1)] = 2
    """Number of blocks."""
    heads: Annotated[int, Field(ge=1)] = 2
    """Attention heads."""
    max_length: Annotated[int, Field(ge=1)] = 50
    """The most recent items of a history that are read; a mask comes after them."""
    hidden: Annotated[int, Field(ge=1)] | None = None
    """Inner width of the feed-forward; 4 D where not given."""
    positions: Literal["start", "end"] = "start"
    """Count positions from the first item read, or back from the end."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout of the embedding and of each sublayer's output."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout of the attention probabilities."""

    def __call__(self, items: ItemTable) -> BERT4Rec:
        """Gives a new encoder over ``items``."""
        return BERT4Rec(self, items)


class BERT4Rec(Encoder):
    """A transformer that reads both ways. Not a ``TokenEncoder``, whose states must not see what comes after them.

    Args:
        config: The settings.
        items: The item table, shared by input and output, and with other encoders where they are given the same.

    Raises:
        ValueError: if the table's width is not the encoder's.
    """

    def __init__(self, config: BERT4RecConfig, items: ItemTable) -> None:
        super().__init__(items)
        if items.width != config.width:
            raise ValueError(f"the item table is {items.width} wide, the encoder {config.width}")
        self.config = config
        self.max_length = config.max_length
        self.positions = nn.Embedding(config.max_length + 1, config.width)  # one more for the mask at the end
        self.norm = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.apply(_initialise)

    def states(self, seqs: Sequences, at: Tensor | None = None) -> Tensor:
        """Gives the state of each token, which has read the whole sequence.

        Args:
            seqs: Sequences of at most ``max_length + 1`` tokens, each an item or the mask (``items.mask_id``).
            at: int64 ``[M]``, places in ``seqs.ids``; for all tokens where None. What the last block computes for
                the others is saved.

        Returns:
            float ``[N, D]``, or ``[M, D]``.

        Raises:
            ValueError: if a sequence is longer.
        """
        longest = max((part.width for part in blocks(seqs)), default=0)
        if longest > self.max_length + 1:
            raise ValueError(
                f"a sequence has {longest} tokens, the encoder reads {self.max_length + 1}; cut it with tail()"
            )
        x, top = self._below_top(seqs)
        return top.transform(x, top.attention(x, seqs, causal=False), at)

    def forward(self, histories: Sequences) -> Tensor:
        """Gives the state of a mask that comes after each history, float ``[B, D]``: what is expected next."""
        asked = self.with_mask(histories)
        x, top = self._below_top(asked)
        return top.transform(x[asked.last], top.attention.last(x, asked))

    def with_mask(self, histories: Sequences) -> Sequences:
        """Gives the last ``max_length`` items of each history and a mask after them."""
        recent = histories.tail(self.max_length)
        rows = torch.arange(len(recent) + 1, device=recent.device)
        ids = recent.ids.new_full((recent.ids.numel() + len(recent),), self.items.mask_id)
        ids[torch.arange(recent.ids.numel(), device=recent.device) + recent.rows] = recent.ids
        return Sequences(ids, recent.offsets + rows)

    def _below_top(self, seqs: Sequences) -> tuple[Tensor, Block]:
        """Gives what the last block reads, float ``[N, D]``, and the last block."""
        x = self._embed(seqs)
        *lower, top = (block for block in self.blocks if isinstance(block, Block))
        for block in lower:
            x = block.transform(x, block.attention(x, seqs, causal=False))
        return x, top

    def _embed(self, seqs: Sequences) -> Tensor:
        places = seqs.positions
        if self.config.positions == "end":
            places = places + (self.max_length + 1 - seqs.lengths)[seqs.rows]
        x = self.items(seqs.ids) + F.embedding(places, self.positions.weight)
        out: Tensor = self.dropout(self.norm(x))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each with dropout, a residual and a normalisation after it."""

    def __init__(self, config: BERT4RecConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config.width, config.heads, config.attention_dropout)
        self.norm1 = nn.LayerNorm(config.width, eps=1e-12)
        self.feed_forward = FeedForward(config.width, config.hidden or 4 * config.width, relu=False, dropout=0.0)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = Dropout(config.dropout)

    def transform(self, x: Tensor, read: Tensor, at: Tensor | None = None) -> Tensor:
        """Gives the output of tokens whose input is ``x`` and whose attention has read ``read``.

        Args:
            x: float ``[N, D]``.
            read: float ``[N, D]``.
            at: int64 ``[M]``, the tokens that are wanted; all where None.

        Returns:
            float ``[N, D]``, or ``[M, D]``.
        """
        if at is not None:
            x, read = x.index_select(0, at), read.index_select(0, at)
        x = self.norm1(x + self.dropout(read))
        out: Tensor = self.norm2(x + self.dropout(self.feed_forward(x)))
        return out


def _initialise(module: nn.Module) -> None:
    """Draws weights from N(0, 0.02), cut at two deviations, and zeroes biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
