"""The cloze task: recover masked items from what stands on both sides of them (BERT4Rec).

Fei Sun, Jun Liu, Jian Wu, Changhua Pei, Xiao Lin, Wenwu Ou, Peng Jiang; CIKM 2019. A baseline of the contrastive
papers. Its encoder is ``bert4rec``; in evaluation that puts a mask after the history and reads what stands there.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from conseq.config import settings
from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.bert4rec import BERT4Rec
from conseq.encoders.encoder import Backbone
from conseq.methods.method import Method, Terms
from conseq.objectives import next_item
from conseq.views.augment import random_like
from conseq.views.completed import completed

Share = Annotated[float, Field(ge=0, le=1)]


@settings
class ClozeConfig:
    """Settings of the cloze task."""

    mask: Share = 0.2
    """rho, share of a sequence that is masked; the paper has 0.6 on Beauty, 0.4 on Steam, 0.2 on MovieLens."""
    draw: Literal["count", "chance"] = "count"
    """Mask round(rho n) of n items, at least one (the authors' code); or each with its own chance."""
    last: Share = 0.1
    """Share of examples of which the last item alone is masked, as in use; the authors' code: 1 of 11."""


class Cloze(Method[BERT4Rec]):
    """One term: the full softmax at the masked places.

    The sequence is the history and the item after it, so that every training item can be masked.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings.

    Raises:
        ValueError: if the encoder is no :class:`~conseq.encoders.bert4rec.BERT4Rec`.
    """

    def __init__(self, config: ClozeConfig, train: TrainSet, backbone: Backbone[BERT4Rec]) -> None:
        super().__init__(train, backbone)
        self.config = config

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the term ``cloze`` (eq. 8, but over all masked items of the batch alike)."""
        seqs = completed(self.train_set, batch.rows)
        chosen = self.chosen(seqs, rng)
        places = chosen.nonzero().squeeze(1)
        masked = seqs.replace(seqs.ids.masked_fill(chosen, self.encoder.items.mask_id))
        states = self.encoder.states(masked, places)
        return {"cloze": next_item.cross_entropy(states, seqs.ids[places], self.encoder.items)}

    def chosen(self, seqs: Sequences, rng: torch.Generator) -> Tensor:
        """Gives the places to mask, at least one of each sequence.

        Where ``draw`` is ``chance`` and took none of a sequence, its last item is masked.

        Args:
            seqs: Sequences of at least one item.
            rng: On the CPU.

        Returns:
            bool ``[N]``.
        """
        c = self.config
        score = random_like(seqs.ids, rng)
        final = seqs.positions == (seqs.lengths - 1)[seqs.rows]
        if c.draw == "count":
            # The ratio is read as the decimal that was written: a half stays one, whatever the product's last digit.
            count = (c.mask * seqs.lengths.double() + 0.5 + 1e-9).floor().clamp(min=1)
            chosen = seqs.rank(score) < count[seqs.rows]
        else:
            chosen = score < c.mask
            some = torch.zeros(len(seqs), dtype=torch.bool, device=seqs.device)
            some[seqs.rows[chosen]] = True
            chosen = chosen | (final & ~some[seqs.rows])
        alone = torch.rand(len(seqs), generator=rng).to(seqs.device) < c.last
        return torch.where(alone[seqs.rows], final, chosen)
