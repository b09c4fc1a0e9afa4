"""Padding as data: histories as blocks of slots whose empty ones have states that count, as in the authors' code."""

from __future__ import annotations

import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.encoder import TokenEncoder
from conseq.encoders.sasrec import SASRec


class Slots:
    """The states of all slots of left-padded histories.

    Masked items are padding, too, as in the code of ICLRec and CoSeRec. The vector of padding is row 0 of the table of
    items. It does not learn; the code draws it like that of an item: its initialisation writes over torch's zeros.

    Args:
        encoder: SASRec with positions counted from the end.

    Raises:
        ValueError: if it is another encoder.
    """

    def __init__(self, encoder: TokenEncoder) -> None:
        if not isinstance(encoder, SASRec) or encoder.config.positions != "end":
            found = f"{type(encoder).__name__}" + (
                f" with positions={encoder.config.positions!r}" if isinstance(encoder, SASRec) else ""
            )
            raise ValueError(f"padding='data' is of left-padded SASRec (positions='end'), found {found}")
        self.encoder = encoder

    @torch.no_grad()
    def draw_padding(self) -> None:
        """Draws the vector of padding anew, from N(0, 0.02) and torch's default generator."""
        self.encoder.items.weight[0].normal_(std=0.02)

    def __call__(self, seqs: Sequences) -> Tensor:
        """Gives states, float ``[B, max_length, D]``, of sequences of at most ``max_length`` tokens."""
        ids = seqs.pad(seqs.ids, side="left", width=self.encoder.max_length)
        return self.encoder.slots(ids.masked_fill(ids == self.encoder.items.mask_id, 0))

    def tokens(self, block: Tensor, seqs: Sequences) -> Tensor:
        """Gives the states of the tokens alone.

        Args:
            block: float ``[B, max_length, D]``, of ``seqs``.
            seqs: The sequences.

        Returns:
            float ``[N, D]``.
        """
        return block[seqs.rows, seqs.positions + (block.shape[1] - seqs.lengths)[seqs.rows]]
