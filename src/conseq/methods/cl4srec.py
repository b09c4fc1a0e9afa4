"""Contrastive Learning for Sequential Recommendation (CL4SRec).

Xu Xie, Fei Sun, Zhaoyang Liu, Shiwen Wu, Jinyang Gao, Jiandong Zhang, Bolin Ding, Bin Cui; ICDE 2022.

Two views of every history, made by two different operators among crop, mask and reorder, are to be encoded
alike and unlike the views of the other histories of the batch; beside it, the next item is learned as ever.
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
from conseq.views.augment import Crop, Mask, Operator, Reorder, TwoOf

OperatorName = Literal["crop", "mask", "reorder"]


@settings
class CL4SRecConfig:
    """Settings of CL4SRec. The defaults are the paper's, and for what it leaves open those of the DuoRec code."""

    loss: Loss = "sampled_softmax"
    """L_main: the paper sets the next item against one sampled item; all code uses cross_entropy."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = False
    """Correct the sampled softmax for how its items were drawn."""
    contrast: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrast (lambda)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the contrast; the paper's equation has none."""
    operators: Annotated[tuple[OperatorName, ...], Field(min_length=1)] = ("crop", "mask", "reorder")
    """What views are drawn from, two different ones for each history; where only one is given, it makes both."""
    crop: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Share of the history that a crop keeps (eta)."""
    mask: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the items that are masked (gamma)."""
    reorder: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Length of the stretch that is shuffled, as a share of the history (beta)."""
    remove_same_user: bool = False
    """Leave other histories of the same user out of the negatives (prefixes put several into a batch)."""


class CL4SRec(Method[Encoder]):
    """Next-item loss and the contrast of two random views.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings.
    """

    def __init__(self, config: CL4SRecConfig, train: TrainSet, backbone: Backbone[Encoder]) -> None:
        super().__init__(train, backbone)
        self.config = config
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
        )
        known: dict[OperatorName, Operator] = {
            "crop": Crop(config.crop),
            "mask": Mask(config.mask, self.encoder.items.mask_id),
            "reorder": Reorder(config.reorder),
        }
        chosen = tuple(known[name] for name in config.operators)
        self.views = TwoOf(chosen if len(chosen) > 1 else chosen * 2)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms ``next_item`` and ``contrast``."""
        c = self.config
        first, second = self.views(batch.history, rng)
        states, a, b = self._encode(batch, first, second)
        same = batch.users[:, None] == batch.users if c.remove_same_user else None
        return {
            "next_item": self.prediction(self.encoder, states, batch, rng),
            "contrast": c.contrast * info_nce(a, b, temperature=c.temperature, same=same),
        }

    def _encode(self, batch: Batch, first: Sequences, second: Sequences) -> tuple[Tensor, Tensor, Tensor]:
        """Gives the states to predict from ``[M, D]`` and the vectors of both views ``[B, D]``."""
        if batch.at_last:
            states, a, b = self.encoder(concatenate([batch.history, first, second])).chunk(3)
        else:
            states = states_to_predict_from(self.encoder, batch)
            a, b = self.encoder(concatenate([first, second])).chunk(2)
        return states, a, b
