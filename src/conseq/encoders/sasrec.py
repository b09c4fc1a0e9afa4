"""Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018), with two kinds of block.

``kang`` is the block of the paper: normalisation before each sublayer, ReLU, a feed-forward of the model's own
width, and one normalisation at the end. ``bert`` is the block that the contrastive papers' code uses under the
name SASRec: normalisation of the embedding and after each sublayer, GELU, a feed-forward four times as wide.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.config import settings
from conseq.data.sequences import Sequences
from conseq.encoders.encoder import TokenEncoder
from conseq.nn.activation import gelu
from conseq.nn.attention import SelfAttention, blocks
from conseq.nn.dropout import Dropout
from conseq.nn.items import ItemTable

BlockKind = Literal["kang", "bert"]


@settings
class SASRecConfig:
    """Settings of SASRec. The defaults are those of the contrastive papers' code."""

    width: Annotated[int, Field(ge=1)] = 64
    """D, width of item vectors and states."""
    layers: Annotated[int, Field(ge=1)] = 2
    """Number of blocks."""
    heads: Annotated[int, Field(ge=1)] = 2
    """Attention heads; the SASRec paper uses 1."""
    max_length: Annotated[int, Field(ge=1)] = 50
    """The most recent items of a history that are read."""
    hidden: Annotated[int, Field(ge=1)] | None = None
    """Inner width of the feed-forward; the block's own where not given (bert: 4 D, kang: D)."""
    block: BlockKind = "bert"
    """Kind of block: bert (post-norm, GELU) or kang (pre-norm, ReLU)."""
    positions: Literal["start", "end"] = "start"
    """Count positions from the first item read (as right-padding code does) or back from max_length (left-padding)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout of the embedding and of each sublayer's output."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout of the attention probabilities."""

    def __call__(self, items: ItemTable) -> SASRec:
        """Gives a new encoder over ``items``."""
        return SASRec(self, items)


class SASRec(TokenEncoder):
    """A causal transformer over the items of a history.

    Args:
        config: The settings.
        items: The item table, shared by input and output.

    Raises:
        ValueError: if the table's width is not the encoder's.
    """

    def __init__(self, config: SASRecConfig, items: ItemTable) -> None:
        super().__init__(items)
        if items.width != config.width:
            raise ValueError(f"the item table is {items.width} wide, the encoder {config.width}")
        self.config = config
        self.max_length = config.max_length
        self.positions = nn.Embedding(config.max_length, config.width)
        self.norm = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.apply(_initialise)

    def contextualize(self, x: Tensor, seqs: Sequences, *, causal: bool = True) -> Tensor:
        """Gives token states from token inputs; positions are added here.

        Args:
            x: float ``[N, D]``.
            seqs: Gives the lengths, at most ``max_length``.
            causal: A token reads itself and what came before; False: the whole sequence.

        Returns:
            float ``[N, D]``.

        Raises:
            ValueError: if a sequence is longer than ``max_length``.
        """
        longest = max((part.width for part in blocks(seqs)), default=0)
        if longest > self.max_length:
            raise ValueError(f"a sequence has {longest} items, the encoder reads {self.max_length}; cut it with tail()")
        x = self._embed(x, seqs)
        for block in self._layers():
            x = block(x, seqs, causal=causal)
        return self._finish(x)

    def slots(self, ids: Tensor) -> Tensor:
        """Gives the states of all slots of left-padded histories, padding among them, as left-padding code has them.

        No slot of an item reads padding, so those have the states that :meth:`states` gives with positions counted from
        the end. A slot of padding reads what :meth:`~conseq.nn.attention.SelfAttention.slots` says: in the end the
        whole history.

        Args:
            ids: int64 ``[B, max_length]``; 0 where there is no item.

        Returns:
            float ``[B, max_length, D]``.
        """
        x = self.items(ids) + self.positions.weight
        x = self.dropout(self.norm(x) if self.config.block == "bert" else x)
        later = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)
        hidden = later | (ids == 0)[:, None, :]
        for block in self._layers():
            x = block.slots(x, hidden)
        return self._finish(x)

    def forward(self, histories: Sequences) -> Tensor:
        """Gives the last state of each history, float ``[B, D]``, reading its last ``max_length`` items.

        The last block is evaluated for the last tokens only; the result is that of :meth:`states`.
        """
        histories = histories.tail(self.max_length)
        x = self._embed(self.items(histories.ids), histories)
        *lower, top = self._layers()
        for block in lower:
            x = block(x, histories, causal=True)
        return self._finish(top.last(x, histories))

    def _layers(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def _embed(self, x: Tensor, seqs: Sequences) -> Tensor:
        x = x + F.embedding(self._position_rows(seqs), self.positions.weight)
        if self.config.block == "bert":
            x = self.norm(x)
        out: Tensor = self.dropout(x)
        return out

    def _finish(self, x: Tensor) -> Tensor:
        # The SASRec paper prints no normalisation after the last pre-norm block; its code has one, without
        # which the scale of the output is unbounded.
        out: Tensor = self.norm(x) if self.config.block == "kang" else x
        return out

    def _position_rows(self, seqs: Sequences) -> Tensor:
        if self.config.positions == "start":
            return seqs.positions
        return seqs.positions + (self.max_length - seqs.lengths)[seqs.rows]


class Block(nn.Module):
    """Attention and feed-forward, each with dropout, a residual and a normalisation."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        pre = config.block == "kang"
        hidden = config.hidden or (config.width if pre else 4 * config.width)
        self.pre = pre
        self.attention = SelfAttention(config.width, config.heads, config.attention_dropout)
        self.norm1 = nn.LayerNorm(config.width, eps=1e-12)
        self.feed_forward = FeedForward(config.width, hidden, relu=pre, dropout=config.dropout if pre else 0.0)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = Dropout(config.dropout)

    def __call__(self, x: Tensor, seqs: Sequences, *, causal: bool) -> Tensor:
        """Gives the block's output, float ``[N, D]``."""
        out: Tensor = super().__call__(x, seqs, causal=causal)
        return out

    def forward(self, x: Tensor, seqs: Sequences, *, causal: bool) -> Tensor:
        """Gives the block's output, float ``[N, D]``."""
        read = self.attention(self.norm1(x) if self.pre else x, seqs, causal=causal)
        return self._transform(x, read)

    def last(self, x: Tensor, seqs: Sequences) -> Tensor:
        """Gives the causal block's output for the last token of each sequence, float ``[B, D]``."""
        read = self.attention.last(self.norm1(x) if self.pre else x, seqs)
        return self._transform(x[seqs.last], read)

    def slots(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Gives the block's output for all slots, float ``[B, T, D]``; ``hidden`` is bool ``[B, T, T]``."""
        return self._transform(x, self.attention.slots(self.norm1(x) if self.pre else x, hidden))

    def _transform(self, x: Tensor, read: Tensor) -> Tensor:
        """Gives the output of the tokens whose input is ``x`` and whose attention has read ``read``."""
        if self.pre:
            x = x + self.dropout(read)
            out: Tensor = x + self.dropout(self.feed_forward(self.norm2(x)))
        else:
            x = self.norm1(x + self.dropout(read))
            out = self.norm2(x + self.dropout(self.feed_forward(x)))
        return out


class FeedForward(nn.Module):
    """Two linear layers with a nonlinearity, the same for every token."""

    def __init__(self, width: int, hidden: int, *, relu: bool, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.relu = relu
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Gives float ``[N, D]``."""
        x = self.inner(x)
        out: Tensor = self.outer(self.dropout(F.relu(x) if self.relu else gelu(x)))
        return out


def _initialise(module: nn.Module) -> None:
    """Draws weights from N(0, 0.02) and zeroes biases, as all the papers' code does."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        with torch.no_grad():
            module.weight.normal_(std=0.02)
