"""Contrastive Self-supervised Sequential Recommendation with Robust Augmentation (CoSeRec).

Zhiwei Liu, Yongjun Chen, Jia Li, Philip S. Yu, Julian McAuley, Caiming Xiong; arXiv 2108.06479, 2021.

Random crops and masks break the relations of the items in a history, most of all in a short one. So views are
also made by substituting and inserting correlated items, and short histories draw from operators of their own.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from conseq.config import Later, settings
from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, TokenEncoder
from conseq.methods.method import Method, Terms
from conseq.methods.prediction import Loss, Prediction
from conseq.methods.slots import Slots
from conseq.nn import pooling
from conseq.objectives.aligned import aligned_info_nce
from conseq.objectives.contrast import info_nce
from conseq.signals.correlation import Compare, ItemCorrelation, Kind
from conseq.views.augment import Crop, Mask, OneOf, Operator, Reorder
from conseq.views.similar import ByLength, Insert, Substitute

OperatorName = Literal["crop", "mask", "reorder", "substitute", "insert"]
Operators = Annotated[tuple[OperatorName, ...], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@settings
class CoSeRecConfig:
    """Settings of CoSeRec. The defaults are the authors' code's, save `short`, `reorder` and `represent`."""

    loss: Loss = "binary_cross_entropy"
    """Loss of the next item."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = True
    """Correct the sampled softmax for how its items were drawn."""
    contrast: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrast (lambda)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the contrast."""
    represent: Literal["mean", "positions"] = "mean"
    """What represents a view: the mean of its states; or all of them, one after the other."""
    padding: Annotated[Literal["none", "data"], Later()] = "none"
    """none: a view has states for its items alone. data: it has max_length of them, as in the authors' code, and
    those of padding count; for left-padded SASRec alone, at several times the cost."""
    threshold: Annotated[int, Field(ge=0)] = 4
    """K: histories of at most so many items are short."""
    short: Operators = ("substitute", "insert")
    """What views of short histories are drawn from."""
    long: Operators = ("crop", "mask", "reorder", "substitute", "insert")
    """What views of long histories are drawn from."""
    crop: Share = 0.2
    """Share of the history that a crop keeps."""
    mask: Share = 0.7
    """Share of the items that are masked."""
    reorder: Share = 0.2
    """Length of the stretch that is shuffled, as a share of the history."""
    spare_last: Annotated[bool, Later()] = False
    """Crops and shuffled stretches end before the last item, as in the authors' code, whose bound is one too low."""
    substitute: Share = 0.1
    """Share of the items that are replaced by their most correlated one; at least one item is."""
    insert: Share = 0.4
    """Share of the items before which their most correlated one is put; before one at least."""
    correlation: Kind = "hybrid"
    """What decides after the warm-up: hybrid, the stronger of the two; co_occurrence alone; embedding alone."""
    compare: Compare = "dot"
    """How item vectors are compared: dot or cosine."""
    vectors_from: Annotated[int, Field(ge=1)] = 161
    """First epoch that reads item vectors; before it, in the warm-up, co-occurrence decides."""


class CoSeRec(Method[TokenEncoder]):
    """Next-item loss and the contrast of two views that respect the correlations of items.

    Args:
        config: The settings.
        train: What is trained on; the correlations are those of its sequences.
        backbone: The encoder's settings.
    """

    def __init__(self, config: CoSeRecConfig, train: TrainSet, backbone: Backbone[TokenEncoder]) -> None:
        super().__init__(train, backbone)
        self.config = config
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
        )
        self.slots = Slots(self.encoder) if config.padding == "data" else None
        if self.slots:
            self.slots.draw_padding()
        self.correlation = ItemCorrelation(
            train.sequences, train.n_items, kind=config.correlation, compare=config.compare
        )
        known: dict[OperatorName, Operator] = {
            "crop": Crop(config.crop, config.spare_last),
            "mask": Mask(config.mask, self.encoder.items.mask_id),
            "reorder": Reorder(config.reorder, config.spare_last),
            "substitute": Substitute(config.substitute, self.correlation),
            "insert": Insert(config.insert, self.correlation, train.max_length),
        }
        short, long = (tuple(known[name] for name in pool) for pool in (config.short, config.long))
        self.view = ByLength(OneOf[Sequences](short), OneOf[Sequences](long), config.threshold)

    @property
    def later(self) -> dict[str, int]:
        """The end of the warm-up, from which item vectors count."""
        c = self.config
        read = c.correlation != "co_occurrence" and not {"substitute", "insert"}.isdisjoint((*c.short, *c.long))
        return {"correlations of item vectors": c.vectors_from} if read and c.vectors_from > 1 else {}

    def begin_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Computes the correlations anew once the warm-up is over."""
        if epoch >= self.config.vectors_from:
            self.correlation.refresh(self.encoder.items)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms ``next_item`` and ``contrast``."""
        c = self.config
        views = [self.view(batch.history, rng) for _ in range(2)]
        parts = [batch.history, *views]
        if self.slots:
            states, n = self.slots(concatenate(parts)), len(batch.history)
            tokens = self.slots.tokens(states[:n], batch.history)
        else:
            states, n = self.encoder.states(concatenate(parts)), batch.history.ids.numel()
            tokens = states[:n]
        return {
            "next_item": self.prediction(self.encoder, tokens[batch.at], batch, rng),
            "contrast": c.contrast * self.view_contrast(states[n:], concatenate(views)),
        }

    def view_contrast(self, states: Tensor, views: Sequences) -> Tensor:
        """Gives the contrast of the two views of each history, in both directions.

        Args:
            states: float ``[N, D]``, of the tokens of the views; with padding as data ``[2B, T, D]``.
            views: The first views and then the second: 2B sequences.

        Returns:
            Scalar, mean over the 2B anchors.
        """
        tau = self.config.temperature
        # The paper concatenates the states of all T positions, most of which are padding; see docs/methods/iclrec.md.
        if self.slots:
            a, b = (states.mean(1) if self.config.represent == "mean" else states.flatten(1)).chunk(2)
            return info_nce(a, b, temperature=tau)
        if self.config.represent == "mean":
            a, b = pooling.mean(states, views).chunk(2)
            return info_nce(a, b, temperature=tau)
        return aligned_info_nce(states, views.lengths, temperature=tau)
