"""A recurrent network over the items of a history (Hidasi, Karatzoglou, Baltrunas and Tikk, ICLR 2016).

Item vector, dropout, GRU and, where the state is of another width than the items, a linear map back: the
GRU4Rec that later papers compare with. Departures from the 2016 paper: the input is an item vector and not
one-hot, the same table scores the items, and a batch holds whole histories instead of parallel sessions.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from conseq.config import settings
from conseq.data.sequences import Sequences, offsets_of
from conseq.encoders.encoder import TokenEncoder
from conseq.nn.dropout import Dropout
from conseq.nn.items import ItemTable


@settings
class GRU4RecConfig:
    """Settings of GRU4Rec."""

    width: Annotated[int, Field(ge=1)] = 64
    """D, width of item vectors."""
    hidden: Annotated[int, Field(ge=1)] | None = None
    """Width of the recurrent state, mapped back to D where it differs; D where not given."""
    layers: Annotated[int, Field(ge=1)] = 1
    """Number of recurrent layers; the paper found no gain in more than 1."""
    max_length: Annotated[int, Field(ge=1)] = 50
    """The most recent items of a history that are read."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout of the item vectors."""

    def __call__(self, items: ItemTable) -> GRU4Rec:
        """Gives a new encoder over ``items``."""
        return GRU4Rec(self, items)


class GRU4Rec(TokenEncoder):
    """A GRU over the items of a history.

    Args:
        config: The settings.
        items: The item table, shared by input and output.

    Raises:
        ValueError: if the table's width is not the encoder's.
    """

    def __init__(self, config: GRU4RecConfig, items: ItemTable) -> None:
        super().__init__(items)
        if items.width != config.width:
            raise ValueError(f"the item table is {items.width} wide, the encoder {config.width}")
        self.config = config
        self.max_length = config.max_length
        hidden = config.hidden or config.width
        self.dropout = Dropout(config.dropout)
        # The paper's equations have no bias. Its candidate state is tanh(Wx + U(r * h)), with the reset gate
        # inside the product; torch's GRU computes tanh(Wx + r * (Uh)), which has a fused kernel.
        self.gru = nn.GRU(config.width, hidden, config.layers, bias=False)
        self.project = nn.Identity() if hidden == config.width else nn.Linear(hidden, config.width)
        for gates in self.gru.parameters():
            for gate in gates.chunk(3):
                nn.init.xavier_uniform_(gate)

    def contextualize(self, x: Tensor, seqs: Sequences, *, causal: bool = True) -> Tensor:
        """Gives token states from token inputs.

        Args:
            x: float ``[N, D]``.
            seqs: Gives the lengths.
            causal: Must be True: a recurrent network reads one way.

        Returns:
            float ``[N, D]``.

        Raises:
            ValueError: if ``causal`` is False.
        """
        if not causal:
            raise ValueError("GRU4Rec reads a history forwards only; use encoder 'sasrec' where causal=False is needed")
        if not len(x):
            return x
        places, sizes = _packed(seqs)
        ordered = torch.empty_like(places)
        ordered[places] = torch.arange(len(places), device=places.device)
        read, _ = self.gru(PackedSequence(self.dropout(x)[ordered], sizes))
        out: Tensor = self.project(read.data[places])
        return out


def _packed(seqs: Sequences) -> tuple[Tensor, Tensor]:
    """Gives each token's place in a packed batch, int64 ``[N]``, and the tokens of each step, on the CPU.

    A packed batch holds the first token of every sequence, then every second token, and so on; within a step
    the longest sequence comes first.
    """
    longest_first = torch.argsort(seqs.lengths, descending=True, stable=True)
    rank = torch.empty_like(longest_first)
    rank[longest_first] = torch.arange(len(seqs), device=seqs.device)
    sizes = torch.bincount(seqs.positions)
    return offsets_of(sizes)[seqs.positions] + rank[seqs.rows], sizes.cpu()
