"""Views by changing the model (SRMA): dropped layers, dropped units, and another encoder that is trained before.

Zhiwei Liu, Yongjun Chen, Jia Li, Man Luo, Philip S. Yu, Caiming Xiong: *Improving Contrastive Learning with Model
Augmentation*, 2022. Two views of a history are read by an encoder that leaves out some of its layers (layer dropping)
and some of its units (neuron masking, which is dropout). Each may also be contrasted with what an encoder that was
trained before makes of the whole history (encoder complementing).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from conseq.config import Later, settings
from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone
from conseq.encoders.srma import SRMAEncoder
from conseq.methods.method import Terms
from conseq.methods.prediction import Loss, Prediction
from conseq.methods.staged import Staged, epochs_after
from conseq.nn import pooling
from conseq.nn.items import ItemTable
from conseq.objectives.aligned import aligned_info_nce
from conseq.objectives.contrast import info_nce
from conseq.views.augment import Crop, Mask, OneOf, Operator, Reorder

OperatorName = Literal["crop", "mask", "reorder"]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


@settings
class SRMAConfig:
    """Settings of SRMA. The defaults are its authors' script's, save `represent`."""

    loss: Loss = "binary_cross_entropy"
    """Loss of the next item."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = True
    """Correct the sampled softmax for how its items were drawn."""
    contrast: Weight = 0.1
    """Weight of the contrast of the views."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of every contrast."""
    represent: Literal["mean", "positions"] = "mean"
    """What represents a view: the mean of its states; or all of them, one after the other."""
    operators: Annotated[tuple[OperatorName, ...], Field(min_length=1)] = ("crop", "mask", "reorder")
    """What each view is drawn from."""
    crop: Share = 0.2
    """Share of the history that a crop keeps."""
    mask: Share = 0.7
    """Share of the items that are masked."""
    reorder: Share = 0.2
    """Length of the stretch that is shuffled, as a share of the history."""
    spare_last: Annotated[bool, Later()] = False
    """Crops and shuffled stretches end before the last item, as in the authors' code, whose bound is one too low."""
    drop: Annotated[int, Field(ge=0)] = 1
    """K, appended layers that a pass leaves out."""
    views_drop: Literal["same", "apart"] = "same"
    """Whether both views of a batch are read without the same layers, or each without its own."""
    next_item_reads: Literal["dropped", "below"] = "dropped"
    """What the next item learns from: layers dropped as for the views; or SASRec's states, below all of them."""
    complement: Annotated[int, Field(ge=0)] = 0
    """First epochs, which train the other encoder; 0: there is none. not_before must be later than they."""
    complementing: Weight = 0.5
    """Weight of a view's contrast with the other encoder, beside that of the views."""


class SRMA(Staged[SRMAEncoder]):
    """Next-item loss and the contrast of two views that a changing model reads.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings, of the other encoder, too.

    Raises:
        ValueError: if all appended layers, or more, are dropped.
    """

    def __init__(self, config: SRMAConfig, train: TrainSet, backbone: Backbone[SRMAEncoder]) -> None:
        super().__init__(train, backbone, config.complement)
        there = len(self.encoder.appended)
        if config.drop > there:
            raise ValueError(f"drop is {config.drop}, but the encoder has {there} appended layers")
        if config.drop == there > 0:
            raise ValueError(
                f"drop is {config.drop}, which is all appended layers: they would stay as they were drawn, and take "
                "part in recommending all the same; drop fewer, or append none"
            )
        self.config = config
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
        )
        known: dict[OperatorName, Operator] = {
            "crop": Crop(config.crop, config.spare_last),
            "mask": Mask(config.mask, self.encoder.items.mask_id),
            "reorder": Reorder(config.reorder, config.spare_last),
        }
        self.view = OneOf[Sequences](tuple(known[name] for name in config.operators))
        self.other = backbone(ItemTable(train.n_items, backbone.width)) if config.complement else None

    @staticmethod
    def training_defaults(config: SRMAConfig) -> dict[str, Any]:
        """As many epochs as other methods have are left after those of the other encoder."""
        return epochs_after(config.complement)

    def groups(self) -> dict[str, nn.Module]:
        """Gives the encoder and, where it is complemented, the other one, which is trained first."""
        if self.other is None:
            return {"all": self}
        return {"complement": self.other, "all": self.encoder}

    def updates(self, batch: Batch, rng: torch.Generator) -> Iterator[tuple[str, Terms]]:
        """Gives the one update of a batch, by the stage of the epoch."""
        if self.other is not None and self.in_first_stage:
            yield "complement", self.loss_of(self.other, batch, rng)
        else:
            yield "all", self.loss(batch, rng)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms of the encoder, ``complement`` among them where there is another one."""
        return self.loss_of(self.encoder, batch, rng, self.other)

    def loss_of(
        self, encoder: SRMAEncoder, batch: Batch, rng: torch.Generator, other: SRMAEncoder | None = None
    ) -> Terms:
        """Gives the terms of an encoder.

        Args:
            encoder: What learns.
            batch: Training examples.
            rng: Of the views, the dropped layers and the negatives; on the CPU.
            other: What its views are contrasted with as well; it learns nothing.

        Returns:
            ``next_item``, ``contrast``, and ``complement`` where there is another encoder: weighted scalars.
        """
        c, history = self.config, batch.history
        views = [self.view(history, rng) for _ in range(2)]
        parts = [history, *views]
        states = encoder.below(concatenate(parts))
        own, *seen = torch.split(states, [part.ids.numel() for part in parts])
        if c.next_item_reads == "dropped":
            own = encoder.append(own, self.drawn(rng))
        drops = [self.drawn(rng)] * 2 if c.views_drop == "same" else [self.drawn(rng), self.drawn(rng)]
        seen = [encoder.append(one, dropped) for one, dropped in zip(seen, drops, strict=True)]
        terms = {
            "next_item": self.prediction(encoder, own[batch.at], batch, rng),
            "contrast": c.contrast * self.between(seen, views),
        }
        if other is not None:
            with torch.no_grad():
                known = other.states(history)
            pairs = (self.between([one, known], [view, history]) for one, view in zip(seen, views, strict=True))
            terms["complement"] = c.contrast * c.complementing * torch.stack(list(pairs)).sum()
        return terms

    def drawn(self, rng: torch.Generator) -> frozenset[int]:
        """Gives the appended layers that a pass leaves out, every set of K as likely as any other."""
        order = torch.randperm(len(self.encoder.appended), generator=rng)
        return frozenset(order[: self.config.drop].tolist())

    def between(self, states: list[Tensor], seqs: list[Sequences]) -> Tensor:
        """Gives the contrast of two readings of each history, in both directions.

        Args:
            states: Two, float ``[N, D]`` each with its own N, of the tokens of ``seqs``.
            seqs: Two, ``B`` sequences each.

        Returns:
            Scalar, mean over the 2B anchors.
        """
        tau = self.config.temperature
        if self.config.represent == "mean":
            a, b = (pooling.mean(one, of) for one, of in zip(states, seqs, strict=True))
            return info_nce(a, b, temperature=tau)
        return aligned_info_nce(torch.cat(states), torch.cat([of.lengths for of in seqs]), temperature=tau)
