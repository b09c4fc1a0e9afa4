"""Explanation Guided Contrastive Learning for Sequential Recommendation (EC4SRec).

Lei Wang, Ee-Peng Lim, Zhiwei Liu, Tianxiang Zhao; CIKM 2022.

At a few epochs it is computed how much each item of a history counts for the prediction of the next one. From then
on positive views spare the important items, negative views lose them, and a history with the same target is chosen
by the important items that it shares. Until then CL4SRec's and DuoRec's losses prepare the encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from conseq.config import settings
from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, Encoder
from conseq.methods.method import Method, Terms
from conseq.methods.prediction import Loss, Prediction, states_to_predict_from
from conseq.objectives.contrast import info_nce, negative_view_contrast, one_way_info_nce
from conseq.signals.importance import Explainer, Importance
from conseq.signals.predicted import Differenced
from conseq.views.augment import Crop, Mask, OneOf, Operator, Reorder, TwoOf, View
from conseq.views.explained import (
    CropImportant,
    CropUnimportant,
    MaskImportant,
    MaskUnimportant,
    ReorderImportant,
    ReorderUnimportant,
    Style,
)
from conseq.views.retrieved import RetrieveAlike
from conseq.views.same_target import SameTarget

T = TypeVar("T")
OperatorName = Literal["crop", "mask", "reorder"]
OperatorNames = Annotated[tuple[OperatorName, ...], Field(min_length=1)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@settings
class EC4SRecConfig:
    """Settings of EC4SRec. The paper tunes μ_e, τ and the weights; the defaults are values of its grids.

    A weight of 0 removes its term. EC4SRec(SSL): supervised = 0; EC4SRec(SL): positive_views = negative_views = 0.
    """

    loss: Loss = "cross_entropy"
    """L_rec: full softmax (eq. 2), or a loss over sampled items."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = True
    """Correct the sampled softmax for how its items were drawn."""
    positive_views: Weight = 0.1
    """λ_cl+, weight of the contrast of two positive views."""
    negative_views: Weight = 0.1
    """λ_cl-, weight of the contrast of negative with positive views (eq. 9; eq. 6 multiplies it by λ_cl+)."""
    supervised: Weight = 0.1
    """λ_sl+, weight of the contrast with the retrieved history."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """τ; the paper tunes it in .5, 1, 1.5."""
    negative_temperature: Annotated[float, Field(gt=0)] | None = None
    """τ of the contrast of negative views; as the others' where not given (authors' code: 0.1)."""
    unimportant: Share = 0.5
    """μ_e, the share of a history's items that counts as unimportant."""
    operators: OperatorNames = ("crop", "mask", "reorder")
    """A+, what positive views are drawn from, two different ones for each history; one alone makes both."""
    negative_operators: OperatorNames = ("crop", "mask")
    """A-, what the negative view is drawn from; the authors' code has reorder, too."""
    retrieval: Literal["utility", "uniform"] = "utility"
    """How a history with the same target is drawn: by shared important items (ertrl+), or any alike (rtrl)."""
    candidates: Annotated[int, Field(ge=1)] | None = None
    """Most histories with the same target that are weighed, drawn anew each time; all where not given."""
    explanation: Literal["occlusion", "saliency", "integrated_gradients", "attention", "given"] = "occlusion"
    """How importances are made; given: not at all, they are put into the method's ``importance`` from outside."""
    differenced: Differenced = "probability"
    """What is explained: probability or logit of the item that came next, predicted_probability of the item ranked
    first, or top_logit (authors' code), the highest logit whichever item has it."""
    signed: bool = False
    """Rank items by the attribution with its sign (authors' code); eq. 5 takes absolute values."""
    integration_steps: Annotated[int, Field(ge=1)] = 20
    """Points of the integral of integrated_gradients."""
    updates: Annotated[int, Field(ge=1)] = 5
    """p, how many times importances are computed: at the beginning of epochs l floor(N / (p + 1))."""
    planned_epochs: Annotated[int, Field(ge=1)] = 150
    """N, the epochs over which the updates are spread."""
    update_epochs: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """The epochs at whose beginning importances are computed, instead of p and N (authors' code: 16, 31)."""
    contrast: Weight = 0.1
    """λ of CL4SRec's contrast before the first update."""
    same_target: Weight = 0.1
    """λ of DuoRec's contrast before the first update."""
    crop: Share = 0.2
    """Share of the history that a random crop keeps (before the first update); the authors' code for Amazon."""
    mask: Share = 0.7
    """Share of the items that are masked at random (before the first update)."""
    reorder: Share = 0.2
    """Share of the history that is shuffled at random (before the first update)."""
    style: Style = "paper"
    """How explained views are made: released counts, orders and masks as the authors' code does."""
    both_ways: bool = False
    """Let both of two positive views be anchors (authors' code); the paper's is the first alone."""
    directions: Literal["sum", "mean"] = "sum"
    """How L_sl and L_sl+ put their two directions together: eqs. 4 and 8 add them, DuoRec's code takes the mean."""
    crowd: bool = False
    """Let other negative views share the denominator of L_cl- (authors' code)."""
    second_pass: bool = False
    """Contrast the retrieved history with the history under a dropout mask of its own (authors' code)."""


class EC4SRec(Method[Encoder]):
    """Next-item loss, contrasts of random views, and from the first update on contrasts of explained views.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings.

    Attributes:
        importance: Of the items of the examples. With ``explanation="given"``, put them in before training.
        update_epochs: The epochs at whose beginning it is computed.

    Raises:
        ValueError: if there are more updates than epochs.
    """

    def __init__(self, config: EC4SRecConfig, train: TrainSet, backbone: Backbone[Encoder]) -> None:
        super().__init__(train, backbone)
        c = self.config = config
        self.prediction = Prediction(c.loss, train, negatives=c.negatives, calibration=c.calibration, log_q=c.log_q)
        self.update_epochs = update_epochs(c)
        explainer = None
        if c.explanation != "given":
            explainer = Explainer(c.explanation, c.differenced, signed=c.signed, steps=c.integration_steps)
            explainer.check(self.encoder)
        self.importance = Importance(train, explainer)
        mask_id = self.encoder.items.mask_id
        random: dict[OperatorName, Operator] = {
            "crop": Crop(c.crop),
            "mask": Mask(c.mask, mask_id),
            "reorder": Reorder(c.reorder),
        }
        self.random_views = _two_of(random, c.operators)
        self.positive_views = _two_of(_positive(c, self.importance, mask_id), c.operators)
        negative = _negative(c, self.importance, mask_id)
        self.negative_view = OneOf(tuple(negative[name] for name in c.negative_operators))
        self.same_target = SameTarget(train, other_users=True)
        self.retrieved: View = self.same_target
        if c.retrieval == "utility":
            self.retrieved = RetrieveAlike(train, self.importance, most=c.candidates)

    @property
    def later(self) -> dict[str, int]:
        """The first update of the importances, with which explained views begin."""
        c = self.config
        explained = c.positive_views or c.negative_views or c.supervised
        return {"explained views": min(self.update_epochs)} if explained and self.update_epochs else {}

    def begin_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Computes the importances where the schedule says so.

        Args:
            epoch: From 1.
            rng: Not used: explanations draw nothing.

        Raises:
            ValueError: if importances are to be given and are not there.
        """
        if self.config.explanation == "given":
            if not self.importance.ready:
                raise ValueError("explanation is 'given': call method.importance.put(scores) before training")
        elif epoch in self.update_epochs:
            self.importance.refresh(self.encoder)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the term ``next_item`` and those whose weight is not 0: ``contrast`` and ``same_target`` before
        the first update, ``positive_views``, ``negative_views`` and ``supervised`` after it.
        """
        return self._explained(batch, rng) if self.importance.ready else self._random(batch, rng)

    def _random(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms before the first update: L_rec + λ L_cl + λ L_sl (section 4.1)."""
        c = self.config
        views: dict[str, Sequences] = {}
        if c.contrast:
            views["first"], views["second"] = self.random_views(batch.history, rng)
        if c.same_target:
            views["retrieved"] = self.same_target(batch, rng)
        states, users, of = self._encode(batch, views)
        terms = {"next_item": self.prediction(self.encoder, states, batch, rng)}
        if c.contrast:
            terms["contrast"] = c.contrast * self._alike(of["first"], of["second"])
        if c.same_target:
            terms["same_target"] = c.same_target * self._supervised(users, of["retrieved"])
        return terms

    def _explained(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms after it: L_rec + λ_cl+ L_cl+ + λ_cl- L_cl- + λ_sl+ L_sl+ (eq. 9)."""
        c = self.config
        views: dict[str, Sequences] = {}
        if c.positive_views or c.negative_views:
            views["first"], views["second"] = self.positive_views(batch, rng)
        if c.negative_views:
            views["negative"] = self.negative_view(batch, rng)
        if c.supervised:
            views["retrieved"] = self.retrieved(batch, rng)
        states, users, of = self._encode(batch, views)
        terms = {"next_item": self.prediction(self.encoder, states, batch, rng)}
        if c.positive_views:
            terms["positive_views"] = c.positive_views * self._alike(of["first"], of["second"])
        if c.negative_views:
            apart = negative_view_contrast(
                of["negative"],
                torch.cat([of["first"], of["second"]]),
                temperature=c.negative_temperature or c.temperature,
                crowd=c.crowd,
            )
            terms["negative_views"] = c.negative_views * apart
        if c.supervised:
            terms["supervised"] = c.supervised * self._supervised(users, of["retrieved"])
        return terms

    def _alike(self, first: Tensor, second: Tensor) -> Tensor:
        """Gives the contrast of two views, with the views of all others as negatives (eq. 3; L_cl+)."""
        temperature = self.config.temperature
        if self.config.both_ways:
            return info_nce(first, second, temperature=temperature)
        return one_way_info_nce(first, second, temperature=temperature, inter=True, intra=True)

    def _supervised(self, users: Tensor, retrieved: Tensor) -> Tensor:
        """Gives the contrast of users with histories of the same target (eqs. 4 and 8)."""
        mean = info_nce(users, retrieved, temperature=self.config.temperature)
        return 2 * mean if self.config.directions == "sum" else mean

    def _encode(self, batch: Batch, views: dict[str, Sequences]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Gives the states to predict from ``[M, D]``, user vectors ``[B, D]`` and the vectors of each view."""
        if self.config.second_pass and "retrieved" in views:
            views = {**views, "again": batch.history}
        parts = list(views.values())
        if batch.at_last:
            states, *encoded = self.encoder(concatenate([batch.history, *parts])).chunk(1 + len(parts))
            users = states
        else:
            states = states_to_predict_from(self.encoder, batch)
            users = states[torch.searchsorted(batch.at, batch.history.last)]
            encoded = list(self.encoder(concatenate(parts)).chunk(len(parts))) if parts else []
        of = dict(zip(views, encoded, strict=True))
        return states, of.get("again", users), of


def update_epochs(config: EC4SRecConfig) -> tuple[int, ...]:
    """Gives the epochs at whose beginning importances are computed: l floor(N / (p + 1)) for l = 1 .. p.

    Args:
        config: Gives p and N, or the epochs themselves.

    Returns:
        The epochs, from 1; none where importances are given.

    Raises:
        ValueError: if there are more updates than epochs.
    """
    if config.explanation == "given":
        return ()
    if config.update_epochs is not None:
        return config.update_epochs
    apart = config.planned_epochs // (config.updates + 1)
    if apart < 1:
        raise ValueError(
            f"{config.updates} updates do not fit into {config.planned_epochs} planned epochs; "
            "set updates, planned_epochs or update_epochs"
        )
    return tuple(apart * number for number in range(1, config.updates + 1))


def _positive(c: EC4SRecConfig, of: Importance, mask_id: int) -> dict[OperatorName, View]:
    """Gives ecrop+, emask+ and erord+."""
    hidden = mask_id if c.style == "paper" else 0
    return {
        "crop": CropUnimportant(of, c.unimportant, c.style),
        "mask": MaskUnimportant(of, c.unimportant, hidden, c.style),
        "reorder": ReorderUnimportant(of, c.unimportant, c.style),
    }


def _negative(c: EC4SRecConfig, of: Importance, mask_id: int) -> dict[OperatorName, View]:
    """Gives ecrop-, emask- and what only the authors' code has."""
    hidden = mask_id if c.style == "paper" else 0
    return {
        "crop": CropImportant(of, c.unimportant, hidden, c.style),
        "mask": MaskImportant(of, c.unimportant, hidden, c.style),
        "reorder": ReorderImportant(of, c.unimportant, hidden, c.style),
    }


def _two_of(
    known: dict[OperatorName, Callable[[T, torch.Generator], Sequences]], names: tuple[OperatorName, ...]
) -> TwoOf[T]:
    """Gives two views by two different operators; one alone makes both."""
    chosen = tuple(known[name] for name in names)
    return TwoOf(chosen if len(chosen) > 1 else chosen * 2)
