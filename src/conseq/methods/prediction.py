"""The next-item term that every method shares: which loss, over which states."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from conseq.data.negatives import UniformNegatives
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Encoder, TokenEncoder
from conseq.objectives import next_item

Loss = Literal["cross_entropy", "binary_cross_entropy", "sampled_softmax", "gbce"]


def states_to_predict_from(encoder: Encoder, batch: Batch) -> Tensor:
    """Gives the state from which each next item of the batch is predicted.

    Args:
        encoder: A :class:`TokenEncoder` where the batch asks for more than the item after the end.
        batch: Training examples.

    Returns:
        float ``[M, D]``.

    Raises:
        ValueError: if the encoder has no token states and the batch needs them.
    """
    if batch.at_last:
        return encoder(batch.history)
    if isinstance(encoder, TokenEncoder):
        return encoder.states(batch.history)[batch.at]
    raise ValueError(f"{type(encoder).__name__} has no token states; train it with instances 'prefixes'")


class Prediction:
    """The next-item loss of a method's settings, with its sampler.

    Args:
        loss: Which of the losses of :mod:`conseq.objectives.next_item`.
        train: Gives the histories that negatives avoid.
        negatives: Sampled items per target; of no effect for ``cross_entropy``.
        calibration: t of gBCE, in ``[0, 1]``; of no effect for the others.
        log_q: Whether the sampled softmax is corrected for the sampling.
        shared: Whether the sampled softmax has one sample of the whole catalogue for all targets of a batch, in place
            of one per target that avoids the target's history; of no effect for the other losses.
    """

    def __init__(
        self,
        loss: Loss,
        train: TrainSet,
        *,
        negatives: int = 1,
        calibration: float = 0.75,
        log_q: bool = True,
        shared: bool = False,
    ) -> None:
        self.loss = loss
        self.count = negatives
        self.calibration = calibration
        self.log_q = log_q
        self.shared = shared and loss == "sampled_softmax"
        self.sampler = None
        if not self.shared and loss != "cross_entropy":
            self.sampler = UniformNegatives(train.sequences, train.sequence_users, train.n_items)

    def __call__(self, encoder: Encoder, states: Tensor, batch: Batch, rng: torch.Generator) -> Tensor:
        """Gives the loss.

        Args:
            encoder: Gives the item table.
            states: float ``[M, D]``, from :func:`states_to_predict_from`.
            batch: Gives the next items.
            rng: Of the negatives.

        Returns:
            Scalar, mean over the ``M`` next items.
        """
        if self.shared:
            return self._of_one_sample(encoder, states, batch, rng)
        if self.sampler is None:
            return next_item.cross_entropy(states, batch.next_ids, encoder.items)
        drawn = self.sampler.draw(batch.next_users, self.count, rng)
        if self.loss == "binary_cross_entropy":
            return next_item.binary_cross_entropy(states, batch.next_ids, drawn, encoder.items)
        if self.loss == "gbce":
            return next_item.generalized_bce(states, batch.next_ids, drawn, encoder.items, calibration=self.calibration)
        log_q = self.sampler.log_probability(batch.next_users)[:, None] if self.log_q else None
        return next_item.sampled_softmax(states, batch.next_ids, drawn, encoder.items, log_q=log_q)

    def _of_one_sample(self, encoder: Encoder, states: Tensor, batch: Batch, rng: torch.Generator) -> Tensor:
        table = encoder.items
        drawn = torch.randint(1, table.n_items + 1, (self.count,), generator=rng).to(states.device)
        log_q = states.new_tensor(-math.log(table.n_items)) if self.log_q else None
        return next_item.sampled_softmax(states, batch.next_ids, drawn, table, log_q=log_q)
