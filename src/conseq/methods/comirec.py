r"""ComiRec: Controllable Multi-Interest Framework for Recommendation, a baseline of MCLSR.

Yukuo Cen, Jianwei Zhang, Xu Zou, Chang Zhou, Hongxia Yang, Jie Tang; KDD 2020. A history has several vectors; the one
that is closest to the next item learns to predict it, and the others stay as they are:

.. math:: k^* = \arg\max_k v_k \cdot e_y, \qquad
    L = -\log \frac{e^{v_{k^*} \cdot e_y}}{\sum_{j \in S} e^{v_{k^*} \cdot e_j}}

where S is the sample (or, with ``cross_entropy``, the catalogue).
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from conseq.config import settings
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.comirec import MultiInterest
from conseq.encoders.encoder import Backbone
from conseq.methods.method import Method, Terms
from conseq.methods.prediction import Loss, Prediction


@settings
class ComiRecConfig:
    """Settings of ComiRec's training. The defaults are those of its authors' code, but for how the sample is drawn."""

    loss: Loss = "sampled_softmax"
    """Loss of the next item."""
    negatives: Annotated[int, Field(ge=1)] = 1280
    """Sampled items, for the losses that sample: ten times the batch of 128."""
    shared_negatives: bool = True
    """sampled_softmax: one sample of the catalogue for the whole batch; False: one per target, outside the history."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = False
    """Correct the sampled items' scores, and not the target's, for how they were drawn. Its authors correct both,
    which for uniform draws moves nothing."""


class ComiRec(Method[MultiInterest]):
    """The next-item loss of the interest that is closest to the target.

    Args:
        config: The settings.
        train: What is trained on, as ``prefixes``.
        backbone: Settings of the encoder ``comirec``.

    Raises:
        ValueError: if the instances are whole histories: an encoder of interests reads a history once, at its end.
    """

    def __init__(self, config: ComiRecConfig, train: TrainSet, backbone: Backbone[MultiInterest]) -> None:
        super().__init__(train, backbone)
        if train.instances != "prefixes":
            raise ValueError(
                "ComiRec has the interests of a history at its end alone; train it with instances 'prefixes'"
            )
        self.config = config
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
            shared=config.shared_negatives,
        )

    @staticmethod
    def training_defaults(config: ComiRecConfig) -> dict[str, Any]:
        """It is trained on prefixes."""
        del config
        return {"instances": "prefixes"}

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the term ``next_item``."""
        states = closest(self.encoder.interests(batch.history), self.encoder.items(batch.next_ids))
        return {"next_item": self.prediction(self.encoder, states, batch, rng)}


def closest(interests: Tensor, targets: Tensor) -> Tensor:
    """Gives the interest that has the greatest inner product with the target's vector.

    Args:
        interests: float ``[B, K, D]``.
        targets: float ``[B, D]``.

    Returns:
        float ``[B, D]``; the gradient goes to the chosen interest, none to the choice.
    """
    chosen = torch.einsum("bkd,bd->bk", interests, targets).argmax(1)
    return interests[torch.arange(len(chosen), device=chosen.device), chosen]
