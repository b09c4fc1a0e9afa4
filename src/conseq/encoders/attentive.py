r"""A history as the weighted mean of its items: the current interest of MCLSR (Wang et al., CIKM 2022, eqs. 2-3).

.. math:: a = \text{softmax}(W_2 \tanh(W_1 (E + P)^\top)), \quad I^s = a E

The weights see items and positions, the mean is of the items alone. It is the one-interest case of ComiRec-SA's
attention (Cen et al., KDD 2020), from which the paper takes it; like the paper, without biases.
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
from conseq.nn.dropout import Dropout
from conseq.nn.items import ItemTable


@settings
class AttentiveConfig:
    """Settings of attentive pooling. The defaults are those of MCLSR and ComiRec."""

    width: Annotated[int, Field(ge=1)] = 64
    """D, width of item vectors."""
    hidden: Annotated[int, Field(ge=1)] | None = None
    """Rows of W1; 4 D where not given."""
    max_length: Annotated[int, Field(ge=1)] = 20
    """The most recent items of a history that are read."""
    positions: Literal["start", "end"] = "start"
    """Count positions from the first item read, or back from max_length."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of what the attention reads; the paper has none."""

    def __call__(self, items: ItemTable) -> Attentive:
        """Gives a new encoder over ``items``."""
        return Attentive(self, items)


class Attentive(Encoder):
    """Attention pooling over the items of a history.

    Args:
        config: The settings.
        items: The item table, shared by input and output.

    Raises:
        ValueError: if the table's width is not the encoder's.
    """

    def __init__(self, config: AttentiveConfig, items: ItemTable) -> None:
        super().__init__(items)
        if items.width != config.width:
            raise ValueError(f"the item table is {items.width} wide, the encoder {config.width}")
        self.config = config
        hidden = config.hidden or 4 * config.width
        self.positions = nn.Embedding(config.max_length, config.width)
        self.hidden = nn.Linear(config.width, hidden, bias=False)
        self.logit = nn.Linear(hidden, 1, bias=False)
        self.dropout = Dropout(config.dropout)
        nn.init.normal_(self.positions.weight, std=0.02)
        nn.init.xavier_uniform_(self.hidden.weight)
        nn.init.xavier_uniform_(self.logit.weight)

    def forward(self, histories: Sequences) -> Tensor:
        """Gives user vectors, float ``[B, D]``, from the last ``max_length`` items."""
        recent = histories.tail(self.config.max_length)
        items = self.items(recent.ids)
        rows = recent.positions
        if self.config.positions == "end":
            rows = rows + (self.config.max_length - recent.lengths)[recent.rows]
        placed = self.dropout(items + F.embedding(rows, self.positions.weight))
        return attend(self.logit(self.hidden(placed).tanh()).squeeze(1), items, recent)


def attend(logits: Tensor, values: Tensor, seqs: Sequences) -> Tensor:
    r"""Gives each sequence's mean of ``values``, weighted by the softmax of its ``logits``.

    Args:
        logits: float ``[N]``, one per token; the softmax is made in float32 where they are of less precision.
        values: float ``[N, D]``.
        seqs: Gives the lengths; its ids are not read.

    Returns:
        float ``[B, D]``; zero where a sequence is empty.
    """
    rows, n = seqs.rows, len(seqs)
    if logits.dtype.itemsize < 4:
        logits = logits.float()  # in bfloat16 a sum of weights is wrong by hundredths
    # Any shift gives the same softmax; the greatest logit of the sequence keeps the exponentials in range.
    top = logits.new_full((n,), -torch.inf).scatter_reduce(0, rows, logits.detach(), "amax")
    weights = (logits - top[rows]).exp()
    total = weights.new_zeros(n).index_add(0, rows, weights)
    weighted = weights[:, None] * values
    sums = weighted.new_zeros(n, values.shape[1]).index_add(0, rows, weighted)
    return sums / total.clamp(min=1)[:, None]  # the greatest weight is 1
