"""A discriminator of sequences in which some items are guessed (ELECRec).

Yongjun Chen, Jia Li, Caiming Xiong; SIGIR 2022. A generator learns the next item by full softmax. Some of the next
items give way to what it guesses, and a discriminator reads the sequence that this gives and tells of each item
whether it is the true one. The discriminator's encoder recommends.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from conseq.config import settings
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, TokenEncoder
from conseq.encoders.sasrec import SASRec
from conseq.methods.method import Method, Terms
from conseq.methods.prediction import states_to_predict_from
from conseq.objectives import next_item
from conseq.objectives.detection import fill_in, replaced_item_detection

Weight = Annotated[float, Field(ge=0)]


@settings
class ELECRecConfig:
    """Settings of ELECRec. The defaults are those of its authors' script for Toys."""

    generation: Weight = 1.0
    """Weight of the generator's loss of the next item."""
    detection: Annotated[float, Field(gt=0)] = 0.4
    """Weight of the discriminator's loss."""
    sample: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Chance with which a next item gives way to one that the generator guesses."""
    power: Annotated[float, Field(gt=0)] = 1.0
    """Guesses are drawn from the generator's softmax to this power: the more, the more likely its favourites."""
    share: Literal["all", "embeddings"] = "all"
    """What generator and discriminator have in common: vectors of items and positions, and all blocks; or those
    vectors alone, with which nothing trains what items are ranked by. Each has a normalisation of its own."""


class ELECRec(Method[TokenEncoder]):
    """The generator's next item, and the detection of its guesses.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings, of generator and discriminator alike. Of another encoder than SASRec, ``all``
            means one encoder for both, and ``embeddings`` the item table.
    """

    def __init__(self, config: ELECRecConfig, train: TrainSet, backbone: Backbone[TokenEncoder]) -> None:
        super().__init__(train, backbone)
        self.config = config
        self.generator = _generator(self.encoder, backbone, config)
        self.verdict = nn.Linear(backbone.width, 1)
        nn.init.normal_(self.verdict.weight, std=0.02)
        nn.init.zeros_(self.verdict.bias)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms ``next_item`` and ``detection``; the second has no gradient through the guesses."""
        c, table = self.config, self.encoder.items
        expected = states_to_predict_from(self.generator, batch)
        shown = batch.next_ids.clone()
        chosen = (torch.rand(len(shown), generator=rng) < c.sample).to(shown.device)
        uniform = torch.rand(len(shown), generator=rng).to(shown.device)[chosen]
        with torch.no_grad():
            # A power of a softmax is the softmax of that many times the scores.
            shown[chosen] = fill_in(c.power * expected.detach()[chosen], table, uniform=uniform)
        read = self.encoder.states(batch.history.replace(_followers(batch, shown)))[batch.at]
        verdicts = self.verdict(read).squeeze(1)
        return {
            "next_item": c.generation * next_item.cross_entropy(expected, batch.next_ids, table),
            # The verdict is the log-odds that the item is the true one.
            "detection": c.detection * replaced_item_detection(-verdicts, shown != batch.next_ids),
        }


def _generator(encoder: TokenEncoder, backbone: Backbone[TokenEncoder], config: ELECRecConfig) -> TokenEncoder:
    """Gives what guesses: an encoder that has some of its modules in common with the discriminator's."""
    if config.share == "all" and not isinstance(encoder, SASRec):
        return encoder
    own = backbone(encoder.items)
    if isinstance(encoder, SASRec) and isinstance(own, SASRec):
        own.positions = encoder.positions
        if config.share == "all":
            own.blocks = encoder.blocks
    return own


def _followers(batch: Batch, shown: Tensor) -> Tensor:
    """Gives what the discriminator reads, int64 ``[N]``: in the place of each item of a history what follows it.

    That is ``shown`` where a next item is asked for, and elsewhere, as within the prefixes of which the last place
    alone is trained, the history's own next item.
    """
    found = batch.history.ids.roll(-1)
    found[batch.at] = shown
    return found
