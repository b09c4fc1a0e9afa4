"""Contrastive Learning for Representation Degeneration Problem in Sequential Recommendation (DuoRec).

Ruihong Qiu, Zi Huang, Hongzhi Yin, Zijian Wang; WSDM 2022.

No items are altered. One view of a history is the history itself under another dropout mask (unsupervised);
the other is a history that leads to the same next item (supervised).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from conseq.config import settings
from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, Encoder
from conseq.methods.method import Method, Terms
from conseq.methods.prediction import Loss, Prediction, states_to_predict_from
from conseq.objectives.contrast import info_nce
from conseq.views.same_target import SameTarget

Pairs = Literal["cross", "both", "unsupervised", "supervised"]


@settings
class DuoRecConfig:
    """Settings of DuoRec."""

    loss: Loss = "cross_entropy"
    """Full softmax (paper), or a loss over sampled items."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = True
    """Correct the sampled softmax for how its items were drawn."""
    pairs: Pairs = "cross"
    """What is contrasted: cross, the dropout view with the same-target view (paper; us_x in the authors' code);
    unsupervised, the history with its dropout view (un); supervised, with its same-target view (su); both (us)."""
    unsupervised: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrast with the dropout view, for unsupervised and both."""
    supervised: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrast with the same-target view (lambda), for cross, supervised and both."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the contrast."""
    remove_same_target: bool = False
    """Leave histories with the same target out of each other's negatives (the paper keeps them)."""


class DuoRec(Method[Encoder]):
    """Next-item loss, and contrasts with a dropout view and a same-target view.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings; without dropout, an unsupervised view is the history itself.
    """

    def __init__(self, config: DuoRecConfig, train: TrainSet, backbone: Backbone[Encoder]) -> None:
        super().__init__(train, backbone)
        self.config = config
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
        )
        self.same_target = None if config.pairs == "unsupervised" else SameTarget(train)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the term ``next_item`` and, as ``pairs`` has it, ``unsupervised``, ``supervised`` or both."""
        views = {}
        if self.config.pairs != "supervised":
            views["dropped"] = batch.history  # the same input, a fresh dropout mask
        if self.same_target is not None:
            views["semantic"] = self.same_target(batch, rng)
        states, encoded = self._encode(batch, views)
        terms = {"next_item": self.prediction(self.encoder, states, batch, rng)}
        if self.config.pairs == "cross":
            terms["supervised"] = self.config.supervised * self._contrast(
                batch, encoded["dropped"], encoded["semantic"]
            )
            return terms
        users = states if batch.at_last else states[torch.searchsorted(batch.at, batch.history.last)]
        if "dropped" in encoded:
            terms["unsupervised"] = self.config.unsupervised * self._contrast(batch, users, encoded["dropped"])
        if "semantic" in encoded:
            terms["supervised"] = self.config.supervised * self._contrast(batch, users, encoded["semantic"])
        return terms

    def _contrast(self, batch: Batch, a: Tensor, b: Tensor) -> Tensor:
        same = batch.targets[:, None] == batch.targets if self.config.remove_same_target else None
        return info_nce(a, b, temperature=self.config.temperature, same=same)

    def _encode(self, batch: Batch, views: dict[str, Sequences]) -> tuple[Tensor, dict[str, Tensor]]:
        """Gives the states to predict from ``[M, D]`` and the vectors of each view ``[B, D]``."""
        if batch.at_last:
            states, *encoded = self.encoder(concatenate([batch.history, *views.values()])).chunk(1 + len(views))
        else:
            states = states_to_predict_from(self.encoder, batch)
            encoded = list(self.encoder(concatenate(list(views.values()))).chunk(len(views)))
        return states, dict(zip(views, encoded, strict=True))
