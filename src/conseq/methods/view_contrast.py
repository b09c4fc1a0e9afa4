"""The contrast of views of the user's choice: which augmentations help? (ECL-SR, Figure 1 c)

Peilin Zhou, Jingqi Gao, Yueqi Xie, Qichen Ye, Yining Hua, Jae Boum Kim, Shoujin Wang, Sunghun Kim; RecSys 2023. The
paper sets CL4SRec's contrast against itself with other invasive operators in the place of crop, mask and reorder, and
with a mild augmentation beside them. This is that bench: CL4SRec's contrast of any of six operators, and a second
contrast of any of three mild ones, or DuoRec's. With MCLRec's regulariser beside the contrasts it also asks what that
does to other models (Qin et al., SIGIR 2023, section 4.3).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from conseq.config import settings
from conseq.data.negatives import UniformNegatives
from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, Encoder
from conseq.methods.method import Method, Terms
from conseq.methods.prediction import Loss, Prediction, states_to_predict_from
from conseq.objectives.contrast import info_nce, margin_regularizer
from conseq.views import mild
from conseq.views.augment import Crop, Mask, OfHistory, Reorder, TwoOf, View
from conseq.views.invasive import Choice, Deletion, Edit, Insertion, RandomSubstitution
from conseq.views.same_target import SameTarget

Operator: TypeAlias = Literal["crop", "mask", "reorder", "substitute", "insert", "delete"]


@settings
class ViewContrastConfig:
    """Settings of the contrast of chosen views."""

    loss: Loss = "cross_entropy"
    """The loss of the next item."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = True
    """Correct the sampled softmax for how its items were drawn."""
    operators: tuple[Operator, ...] = ("crop", "mask", "reorder")
    """What views are drawn from, two different ones for each history; one alone makes both; none: no such contrast."""
    contrast: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrast of the operators' views."""
    crop: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Share of the history that a crop keeps."""
    mask: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the items that are masked."""
    reorder: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Length of the stretch that is shuffled, as a share of the history."""
    edit: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the items that are substituted, followed by an inserted one, or deleted; it is one item more."""
    mild: Literal["no", "dropout", "normalisation", "perturbation", "same_target"] = "no"
    """A second contrast: of the history with itself under another dropout mask, or with its changed vector; or, as
    DuoRec has it, of the history under another mask with another history of the same next item."""
    mild_contrast: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrast with the mild view."""
    noise: Annotated[float, Field(ge=0)] = 0.1
    """Length of a perturbation."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of both contrasts."""
    similarity: Literal["dot", "cosine"] = "dot"
    """What both contrasts compare vectors by."""
    remove_same_user: bool = False
    """Leave other histories of the same user out of the negatives (prefixes put several into a batch)."""
    margin: Annotated[float, Field(ge=0)] = 0.0
    """Weight of MCLRec's regulariser R (its eqs. 11-13) of the two views beside each contrast; 0: without it."""
    margin_bounds: Literal["batch", "anchor"] = "batch"
    """Bounds of R: one pair for the batch (its eq. 12); anchor: one for each vector (its code)."""


class ViewContrast(Method[Encoder]):
    """Next item, a contrast of two views by the chosen operators, and one with a mild view.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings.

    Raises:
        ValueError: if there is neither an operator nor a mild view, so that nothing is contrasted.
    """

    def __init__(self, config: ViewContrastConfig, train: TrainSet, backbone: Backbone[Encoder]) -> None:
        super().__init__(train, backbone)
        if not config.operators and config.mild == "no":
            raise ValueError("operators is empty and mild is 'no': nothing is contrasted; use method 'next_item'")
        self.config = config
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
        )
        chosen = tuple(self._view(name, train) for name in config.operators)
        self.views = TwoOf(chosen if len(chosen) > 1 else chosen * 2) if chosen else None
        self.same_target = SameTarget(train) if config.mild == "same_target" else None

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms ``next_item``, ``contrast`` and ``mild`` where there are such views, and with a ``margin``
        ``contrast_margin`` and ``mild_margin`` beside them.
        """
        c, history = self.config, batch.history
        views = [] if self.views is None else list(self.views(batch, rng))
        again = [history] if c.mild in {"dropout", "same_target"} else []
        if self.same_target is not None:
            again.append(self.same_target(batch, rng))
        states, users, vectors = self._encode(batch, [*views, *again])
        terms = {"next_item": self.prediction(self.encoder, states, batch, rng)}
        if views:
            terms |= self._contrast("contrast", c.contrast, (vectors[0], vectors[1]), batch)
        if c.mild != "no":
            terms |= self._contrast("mild", c.mild_contrast, self.mildly(users, vectors, rng), batch)
        return terms

    def _contrast(self, name: str, weight: float, views: tuple[Tensor, Tensor], batch: Batch) -> Terms:
        """Gives the contrast (CL4SRec eq. 3) of two views ``[B, D]`` by its name and, with a margin, R beside it."""
        c = self.config
        first, second = views if c.similarity == "dot" else (F.normalize(one, dim=1) for one in views)
        same = batch.users[:, None] == batch.users if c.remove_same_user else None
        terms = {name: weight * info_nce(first, second, temperature=c.temperature, same=same)}
        if c.margin:
            apart = margin_regularizer(first, second, per_row=c.margin_bounds == "anchor")
            terms[f"{name}_margin"] = c.margin * weight * apart
        return terms

    def mildly(self, users: Tensor, vectors: list[Tensor], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Gives what the second contrast compares: the users' vectors and mild views of them, float ``[B, D]`` each."""
        if self.config.mild == "same_target":
            return vectors[-2], vectors[-1]
        if self.config.mild == "dropout":
            return users, vectors[-1]
        if self.config.mild == "normalisation":
            return users, mild.normalised(users)
        return users, mild.perturbed(users, self.config.noise, rng)

    def _encode(self, batch: Batch, views: list[Sequences]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Gives the states to predict from ``[M, D]``, the users' vectors and those of each view, ``[B, D]``."""
        if batch.at_last:
            states, *vectors = self.encoder(concatenate([batch.history, *views])).chunk(1 + len(views))
            return states, states, vectors
        states = states_to_predict_from(self.encoder, batch)
        users = states[torch.searchsorted(batch.at, batch.history.last)]
        return states, users, list(self.encoder(concatenate(views)).chunk(len(views))) if views else []

    def _view(self, name: Operator, train: TrainSet) -> View:
        c, choice = self.config, Choice(self.config.edit, first=True)
        if name == "crop":
            return OfHistory(Crop(c.crop))
        if name == "mask":
            return OfHistory(Mask(c.mask, self.encoder.items.mask_id))
        if name == "reorder":
            return OfHistory(Reorder(c.reorder))
        if name == "substitute":
            negatives = UniformNegatives(train.sequences, train.sequence_users, train.n_items)
            return _Edited(RandomSubstitution(choice, negatives))
        return _Edited(Insertion(choice, train) if name == "insert" else Deletion(choice))


class _Edited:
    """An edit as a view: the edited history, whatever may be told of it.

    Args:
        edit: What is applied.
    """

    def __init__(self, edit: Edit) -> None:
        self.edit = edit

    def __call__(self, batch: Batch, rng: torch.Generator) -> Sequences:
        """Gives the edited history of each example."""
        return self.edit(batch, rng).history
