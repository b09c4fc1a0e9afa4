r"""Several vectors of one history, its interests: ComiRec-SA and ComiRec-DR (Cen et al., KDD 2020).

A score is that of the interest which likes the item best, :math:`\max_k v_k \cdot e_j`: what the authors' search for
the neighbours of each interest, merged by score, comes to.

**attention** (SA) weighs the items of a history once for each interest:

.. math:: A = \text{softmax}(\tanh((E + P) W_1 + b) W_2)^\top, \quad V = A E

**routing** (DR) lets items, mapped for each interest and place, agree on capsules (dynamic routing):

.. math:: u_{tk} = W_{tk} e_t, \quad v_k = \text{squash}\Big(\sum_t c_{tk} u_{tk}\Big), \quad
    c_t = \text{softmax}_k(b_t), \quad b_{tk} \leftarrow b_{tk} + u_{tk} \cdot v_k

Neither paper nor equations were at hand; both are read off the authors' code.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.config import settings
from conseq.data.sequences import Sequences
from conseq.encoders.attentive import attend
from conseq.encoders.encoder import Encoder
from conseq.nn.dropout import Dropout
from conseq.nn.items import ItemTable


@settings
class ComiRecConfig:
    """Settings of ComiRec. The defaults are those of its authors' code, for books."""

    width: Annotated[int, Field(ge=1)] = 64
    """D, width of item vectors and interests."""
    interests: Annotated[int, Field(ge=1)] = 4
    """K, vectors of a history."""
    extraction: Literal["attention", "routing"] = "attention"
    """How they are made: self-attention (ComiRec-SA) or dynamic routing (ComiRec-DR)."""
    hidden: Annotated[int, Field(ge=1)] | None = None
    """Columns of W1, of attention alone; 4 D where not given."""
    iterations: Annotated[int, Field(ge=1)] = 3
    """Rounds of the routing."""
    max_length: Annotated[int, Field(ge=1)] = 20
    """The most recent items of a history that are read."""
    positions: Literal["start", "end"] = "start"
    """Count positions from the first item read, or back from max_length."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of what the attention or the routing reads; the authors have none."""

    def __call__(self, items: ItemTable) -> MultiInterest:
        """Gives a new encoder over ``items``."""
        return MultiInterest(self, items)


class MultiInterest(Encoder):
    """K vectors of a history; an item's score is the greatest of its inner products with them.

    Args:
        config: The settings.
        items: The item table, shared by input and output.

    Raises:
        ValueError: if the table's width is not the encoder's.
    """

    def __init__(self, config: ComiRecConfig, items: ItemTable) -> None:
        super().__init__(items)
        if items.width != config.width:
            raise ValueError(f"the item table is {items.width} wide, the encoder {config.width}")
        self.config = config
        kind = _Attention if config.extraction == "attention" else _Routing
        self.extraction: _Attention | _Routing = kind(config)

    def interests(self, histories: Sequences) -> Tensor:
        """Gives the vectors of each history, float ``[B, K, D]``, from its last ``max_length`` items."""
        recent = histories.tail(self.config.max_length)
        found: Tensor = self.extraction(self.items(recent.ids), recent)
        return found

    def forward(self, histories: Sequences) -> Tensor:
        """Gives the vector of each history, float ``[B, D]``; a ``ValueError`` where there are several interests."""
        if self.config.interests > 1:
            raise ValueError(
                f"a history has {self.config.interests} vectors here, not one: train this encoder with the method "
                "'comirec' and read them with interests(), or set interests to 1"
            )
        return self.interests(histories)[:, 0]

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        """Gives each item's greatest inner product with an interest, float ``[B, V]``."""
        table = self.items.candidates.T
        first, *others = self.interests(histories).unbind(1)
        best = first @ table
        for one in others:
            best = torch.maximum(best, one @ table)
        return best


class _Attention(nn.Module):
    """ComiRec-SA; a bias of the logits, which the authors' code has, would move nothing in a softmax."""

    def __init__(self, config: ComiRecConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = Dropout(config.dropout)
        hidden = config.hidden or 4 * config.width
        self.positions = nn.Embedding(config.max_length, config.width)
        self.hidden = nn.Linear(config.width, hidden)
        self.logits = nn.Linear(hidden, config.interests, bias=False)
        nn.init.normal_(self.positions.weight, std=0.02)
        nn.init.xavier_uniform_(self.hidden.weight)
        nn.init.zeros_(self.hidden.bias)
        nn.init.xavier_uniform_(self.logits.weight)

    def forward(self, x: Tensor, seqs: Sequences) -> Tensor:
        """Gives interests, float ``[B, K, D]``, from item vectors ``x``, float ``[N, D]``."""
        places = seqs.positions
        if self.config.positions == "end":
            places = places + (self.config.max_length - seqs.lengths)[seqs.rows]
        read = self.dropout(x + F.embedding(places, self.positions.weight))
        logits = self.logits(self.hidden(read).tanh())
        return torch.stack([attend(one, x, seqs) for one in logits.unbind(1)], 1)


class _Routing(nn.Module):
    """ComiRec-DR, with a map of its own for each place and interest."""

    def __init__(self, config: ComiRecConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = Dropout(config.dropout)
        self.maps = nn.Parameter(torch.randn(config.max_length, config.interests * config.width, config.width))

    def forward(self, x: Tensor, seqs: Sequences) -> Tensor:
        """Gives interests, float ``[B, K, D]``, from item vectors ``x``, float ``[N, D]``."""
        c = self.config
        # Padding stands at the places that a short history leaves free. It is zero, and so is all that is mapped of it.
        padded = seqs.pad(self.dropout(x), side="right" if c.positions == "start" else "left", width=c.max_length)
        # One product for each place: [T, B, D] x [T, D, K D].
        mapped = torch.bmm(padded.transpose(0, 1), self.maps.transpose(1, 2)).transpose(0, 1)
        mapped = mapped.reshape(len(seqs), c.max_length, c.interests, c.width)
        # Only the last round learns: the ones before it merely find out where an item belongs.
        still = mapped.detach()
        agreement = x.new_zeros(mapped.shape[:3])
        for _ in range(c.iterations - 1):
            capsules = _squash(torch.einsum("btk,btkd->bkd", agreement.softmax(2), still))
            agreement = agreement + torch.einsum("btkd,bkd->btk", still, capsules)
        return _squash(torch.einsum("btk,btkd->bkd", agreement.softmax(2), mapped))


def _squash(x: Tensor) -> Tensor:
    """Gives vectors of the same directions with lengths below 1: ``|x|^2 / (1 + |x|^2)``."""
    square = x.square().sum(-1, keepdim=True)
    return x * (square / (1 + square) / (square + 1e-9).sqrt())
