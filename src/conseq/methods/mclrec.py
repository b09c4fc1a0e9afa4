"""Meta-optimized Contrastive Learning for Sequential Recommendation (MCLRec).

Xiuyuan Qin, Huanhuan Yuan, Pengpeng Zhao, Junhua Fang, Fuzhen Zhuang, Guanfeng Liu, Yanchi Liu, Victor Sheng;
SIGIR 2023.

Two random views of a history are encoded, and each vector is transformed by an augmenter of its own, a small
network, into one more view. The encoder learns the next item and to tell the views of a history from those of
others; then the augmenters are trained on what the updated encoder makes of the same random views.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.config import settings
from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, Encoder
from conseq.methods.method import Method, Terms
from conseq.methods.prediction import Loss, Prediction, states_to_predict_from
from conseq.nn.heads import MLP
from conseq.objectives.contrast import info_nce, margin_regularizer
from conseq.views.augment import Crop, Mask, Reorder, TwoOf

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


@settings
class MCLRecConfig:
    """Settings of MCLRec. The defaults are the paper's, for Yelp where it tunes, and the code's where it is silent."""

    loss: Loss = "cross_entropy"
    """L_rec: full softmax (eq. 3), or a loss over sampled items."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Share = 0.75
    """t of gBCE."""
    log_q: bool = True
    """Correct the sampled softmax for how its items were drawn."""
    contrast: Weight = 0.03
    """lambda, weight of the contrast of the random views, L_cl1 (0.04 Sports, 0 Beauty); 0: without it."""
    learned: Weight = 0.1
    """beta, weight of the contrasts with augmenters' views, L_cl2 (0.4 Sports, 0.05 Beauty); 0: without augmenters."""
    margin: Weight = 0.1
    """gamma / beta, weight of the regulariser R beside L_cl2; 0: without it."""
    scale_margin: bool = True
    """In the augmenters' update, too, R weighs gamma = margin x learned (eq. 15); False: margin (authors' code)."""
    margin_pairs: Literal["learned", "all"] = "learned"
    """Views that R compares: both augmenters' (eq. 11); all: every pair of L_cl2 (authors' code)."""
    margin_bounds: Literal["batch", "anchor"] = "batch"
    """Bounds of R: one pair for the batch (eq. 12); anchor: one for each vector (authors' code)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the contrasts; eq. 8 has none."""
    normalise: bool = False
    """Give the augmenters' vectors length 1 (authors' code)."""
    directions: Literal["sum", "mean"] = "sum"
    """How the two directions of L_con come together: eq. 8 adds them, the authors' code takes the mean."""
    augmenter_hidden: tuple[Annotated[int, Field(ge=1)], ...] = (32, 16)
    """Widths of the augmenters' hidden layers: the paper's 3 layers, the code's widths."""
    shared_augmenter: bool = False
    """One augmenter for both views (variant E, share)."""
    joint: bool = False
    """Train everything by eq. 14 in one update (MCLRec-J)."""
    encoder_steps: Annotated[int, Field(ge=1)] = 1
    """Updates of the encoder per batch: before the augmenters' (Alg. 1), and again after it (2, authors' code)."""
    crop: Share = 0.5
    """Share of the history that a crop keeps; the paper states no ratios."""
    mask: Share = 0.5
    """Share of the items that are masked."""
    reorder: Share = 0.8
    """Length of the stretch that is shuffled, as a share of the history."""


class MCLRec(Method[Encoder]):
    """Next item, contrasts of random and learned views, and a two-stage update.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings.

    Raises:
        ValueError: if the encoder is to be updated more than once per batch and everything at once.
    """

    def __init__(self, config: MCLRecConfig, train: TrainSet, backbone: Backbone[Encoder]) -> None:
        super().__init__(train, backbone)
        if config.joint and config.encoder_steps != 1:
            raise ValueError(
                f"joint training has one update per batch; set encoder_steps to 1, found {config.encoder_steps}"
            )
        self.config = config
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
        )
        self.views = TwoOf((Crop(config.crop), Mask(config.mask, self.encoder.items.mask_id), Reorder(config.reorder)))
        # Without L_cl2 nothing learns from the augmenters, nor do they.
        count = 0 if config.learned == 0 else 1 if config.shared_augmenter else 2
        widths = (backbone.width, *config.augmenter_hidden, backbone.width)
        self.augmenters = nn.ModuleList(MLP(widths) for _ in range(count))

    def groups(self) -> dict[str, nn.Module]:
        """Gives ``encoder`` and ``augmenters``, or ``all`` where there is one stage."""
        if self.config.joint or not len(self.augmenters):
            return {"all": self}
        return {"encoder": self.encoder, "augmenters": self.augmenters}

    def updates(self, batch: Batch, rng: torch.Generator) -> Iterator[tuple[str, Terms]]:
        """Gives the updates of Algorithm 1, the two stages alternating batch by batch."""
        views = self.views(batch.history, rng)  # drawn once (eq. 4), encoded anew in every update
        whole = "all" in self.groups()
        yield "all" if whole else "encoder", self.encoder_terms(batch, views, rng)
        if not whole:
            yield "augmenters", self.augmenter_terms(views)
        for _ in range(self.config.encoder_steps - 1):
            yield "all" if whole else "encoder", self.encoder_terms(batch, views, rng)

    def encoder_terms(self, batch: Batch, views: tuple[Sequences, Sequences], rng: torch.Generator) -> Terms:
        """Gives L_0 (eq. 14): ``next_item`` and, where they have a weight, ``contrast``, ``learned``, ``margin``.

        Args:
            batch: Training examples.
            views: Two views of each history.
            rng: Of the negatives.

        Returns:
            Scalars by name.
        """
        c = self.config
        states, h1, h2 = self._encode(batch, views)
        terms = {"next_item": self.prediction(self.encoder, states, batch, rng)}
        if c.contrast:
            terms["contrast"] = c.contrast * self._alike(h1, h2)  # eq. 7
        if c.learned:
            terms |= self._learned_terms(h1, h2, learned=c.learned, margin=c.margin * c.learned)
        return terms

    def augmenter_terms(self, views: tuple[Sequences, Sequences]) -> Terms:
        """Gives L_1 (eq. 15), ``learned`` and ``margin``, from the views as the encoder now sees them.

        The authors' code also adds λ L_cl1, which the augmenters do not change.

        Args:
            views: Two views of each history.

        Returns:
            Scalars by name.
        """
        c = self.config
        with torch.no_grad():  # only the augmenters are updated: to them, the encoder's vectors are constants
            h1, h2 = self.encoder(concatenate(views)).chunk(2)
        return self._learned_terms(h1, h2, learned=1.0, margin=c.margin * (c.learned if c.scale_margin else 1.0))

    def _learned_terms(self, h1: Tensor, h2: Tensor, *, learned: float, margin: float) -> Terms:
        """Gives L_cl2 (eq. 9) and R (eqs. 11-13), weighted, from the vectors of the random views."""
        c = self.config
        z1, z2 = self.augmenters[0](h1), self.augmenters[-1](h2)  # eq. 5
        if c.normalise:
            z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
        pairs = [(z1, z2), (h1, z2), (h2, z1)]
        terms = {"learned": learned * _sum(self._alike(a, b) for a, b in pairs)}
        if margin:
            compared = pairs if c.margin_pairs == "all" else pairs[:1]
            per_row = c.margin_bounds == "anchor"
            terms["margin"] = margin * _sum(margin_regularizer(a, b, per_row=per_row) for a, b in compared)
        return terms

    def _alike(self, first: Tensor, second: Tensor) -> Tensor:
        """Gives L_con (eq. 8), its mean over the batch."""
        mean = info_nce(first, second, temperature=self.config.temperature)
        return 2 * mean if self.config.directions == "sum" else mean

    def _encode(self, batch: Batch, views: tuple[Sequences, Sequences]) -> tuple[Tensor, Tensor, Tensor]:
        """Gives the states to predict from ``[M, D]`` and the vectors of both views ``[B, D]``."""
        if batch.at_last:
            states, h1, h2 = self.encoder(concatenate([batch.history, *views])).chunk(3)
        else:
            states = states_to_predict_from(self.encoder, batch)
            h1, h2 = self.encoder(concatenate(views)).chunk(2)
        return states, h1, h2


def _sum(terms: Iterator[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
