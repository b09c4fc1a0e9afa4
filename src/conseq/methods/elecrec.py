"""A discriminator of true and guessed next items (ELECRec).

Yongjun Chen, Jia Li, Caiming Xiong; SIGIR 2022. A generator learns the next item by full softmax. From what it expects
a guess is drawn at some places, and a discriminator tells at every place whether the item it is shown is the true
one. The discriminator recommends.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from conseq.config import settings
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, Encoder
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
    detection: Weight = 0.4
    """Weight of the discriminator's loss."""
    sample: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Chance with which a next item gives way to one that the generator guesses."""
    power: Annotated[float, Field(gt=0)] = 1.0
    """Guesses are drawn from the generator's softmax to this power: the more, the more likely its favourites."""
    share: Literal["all", "items"] = "all"
    """What generator and discriminator have in common: everything, or the item table alone."""


class ELECRec(Method[Encoder]):
    """The generator's next item, and the detection of its guesses.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings, of generator and discriminator alike.

    Raises:
        ValueError: if the discriminator is not trained though it is another encoder than the generator, so that
            nothing would train what recommends.
    """

    def __init__(self, config: ELECRecConfig, train: TrainSet, backbone: Backbone[Encoder]) -> None:
        super().__init__(train, backbone)
        if config.share == "items" and not config.detection:
            raise ValueError(
                "detection is 0 and share is 'items': nothing would train the discriminator, which recommends; use "
                "a weight above 0, or share 'all'"
            )
        self.config = config
        self.own_generator = backbone(self.encoder.items) if config.share == "items" else None

    @property
    def generator(self) -> Encoder:
        """What guesses the next item: an encoder of its own, or the discriminator itself."""
        return self.encoder if self.own_generator is None else self.own_generator

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms ``next_item`` and ``detection``; the second has no gradient through the guesses."""
        c, table = self.config, self.encoder.items
        expected = states_to_predict_from(self.generator, batch)
        terms = {"next_item": c.generation * next_item.cross_entropy(expected, batch.next_ids, table)}
        if not c.detection:
            return terms
        shown = batch.next_ids.clone()
        chosen = (torch.rand(len(shown), generator=rng) < c.sample).to(shown.device)
        uniform = torch.rand(len(shown), generator=rng).to(shown.device)[chosen]
        with torch.no_grad():
            # A power of a softmax is the softmax of that many times the scores.
            shown[chosen] = fill_in(c.power * expected.detach()[chosen], table, uniform=uniform)
        # Another pass, with dropout of its own, where it is the same encoder.
        verdicts = (states_to_predict_from(self.encoder, batch) * table(shown)).sum(1)
        # The verdict is the log-odds that the item is the true one, the score by which items are ranked.
        terms["detection"] = c.detection * replaced_item_detection(-verdicts, shown != batch.next_ids)
        return terms
