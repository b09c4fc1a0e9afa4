"""Next-item prediction alone: the baseline beside which every contrastive method is printed.

SASRec (Kang and McAuley, ICDM 2018) with encoder ``sasrec``, GRU4Rec and Caser with theirs; the loss is a
choice, because full softmax instead of sampled binary cross-entropy moves the metrics more than most methods.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from conseq.config import settings
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, Encoder
from conseq.methods.method import Method, Terms
from conseq.methods.prediction import Loss, Prediction, states_to_predict_from


@settings
class NextItemConfig:
    """Settings of plain next-item training."""

    loss: Loss = "cross_entropy"
    """Full softmax, or a loss over sampled items; the SASRec paper uses binary_cross_entropy."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = True
    """Correct the sampled softmax for how its items were drawn."""


class NextItem(Method[Encoder]):
    """One term: the loss of the next item.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings.
    """

    def __init__(self, config: NextItemConfig, train: TrainSet, backbone: Backbone[Encoder]) -> None:
        super().__init__(train, backbone)
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
        )

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the term ``next_item``."""
        states = states_to_predict_from(self.encoder, batch)
        return {"next_item": self.prediction(self.encoder, states, batch, rng)}
