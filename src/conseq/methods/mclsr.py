"""Multi-level Contrastive Learning Framework for Sequential Recommendation.

Ziyang Wang, Huoyu Liu, Wei Wei, Yue Hu, Xian-Ling Mao, Shaojian He, Rui Fang, Dangyang Chen; CIKM 2022.

A user's current interest, pooled from the history, is contrasted with a general interest that a graph of users
and items gives; the graph's vectors of users and of items are contrasted with those of the graphs of users with
common items and items with common users. Only the current interest serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import scipy  # which loads scipy.sparse where it is first used
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.config import settings
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.attentive import attend
from conseq.encoders.encoder import Backbone, Encoder
from conseq.methods.method import Method, Terms
from conseq.methods.prediction import Loss, Prediction
from conseq.objectives.contrast import one_way_info_nce
from conseq.signals import graphs

if TYPE_CHECKING:
    import scipy.sparse

Weight = Annotated[float, Field(ge=0)]


@settings
class MCLSRConfig:
    """Settings of MCLSR. A weight of 0 removes its term: without IL, without UC, without IC."""

    loss: Loss = "sampled_softmax"
    """L_P; eq. 14 is a softmax over the target and sampled items."""
    negatives: Annotated[int, Field(ge=1)] = 1280
    """Sampled items, for the losses that sample: 10 x batch 128."""
    shared_negatives: bool = True
    """sampled_softmax: one sample of the catalogue for the whole batch; False: one per target, outside the history."""
    log_q: bool = False
    """Correct the sampled softmax for how its items were drawn; eq. 14 does not."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    mix: Annotated[float, Field(ge=0, le=1)] = 0.5
    """alpha, the share of the current interest in the combined one."""
    interest: Weight = 1.0
    """beta, weight of the interest-level contrast L_IL."""
    user_features: Weight = 0.05
    """gamma, weight of the feature-level contrast of users L_UC."""
    item_features: Weight = 0.05
    """gamma, weight of the feature-level contrast of items L_IC."""
    temperature: Annotated[float, Field(gt=0)] = 0.5
    """tau of all contrasts."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """What the contrasts compare projections by."""
    depth: Annotated[int, Field(ge=0)] = 2
    """l, layers of the graph encoder; 0 gives the embeddings as they are."""
    neighbours: Annotated[int, Field(ge=1)] = 50
    """Others that a user or item keeps in the graphs of users and of items, those with the most in common."""
    weighted: bool = True
    """Edges weigh the number of interactions, or of things in common; False: 1."""


class MCLSR(Method[Encoder]):
    """Next item from both interests, and three contrasts between views of the sequence and of the graphs.

    Args:
        config: The settings.
        train: What is trained on; the graphs are made of its sequences.
        backbone: The encoder of the current interest; ``attentive`` is the paper's.

    Raises:
        ValueError: if the instances are not ``prefixes``.
    """

    def __init__(self, config: MCLSRConfig, train: TrainSet, backbone: Backbone[Encoder]) -> None:
        super().__init__(train, backbone)
        if train.instances != "prefixes":
            raise ValueError(
                f"MCLSR gives a history one current and one general interest; set instances to 'prefixes', "
                f"found {train.instances!r}"
            )
        self.config = config
        width = backbone.width
        self.users = nn.Parameter(torch.randn(len(train.sequences), width) * 0.02)  # H^u
        self.query = nn.Linear(width, width, bias=False)  # W_3
        self.interest_head = _projector(width) if config.interest else None  # eq. 7
        self.user_head = _projector(width) if config.user_features else None  # eq. 10
        self.item_head = _projector(width) if config.item_features else None
        met = graphs.interactions(train.sequences, train.n_items)
        self.user_item = graphs.Graph(graphs.user_item(met, weighted=config.weighted))
        self.user_user = self._co_interaction(met) if config.user_features else None
        self.item_item = self._co_interaction(scipy.sparse.csr_array(met.T)) if config.item_features else None
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
            shared=config.shared_negatives,
        )

    @staticmethod
    def training_defaults(config: MCLSRConfig) -> dict[str, Any]:
        """It is trained on prefixes."""
        del config
        return {"instances": "prefixes"}

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms ``next_item``, ``interest``, ``user_features`` and ``item_features`` (eq. 15)."""
        config = self.config
        # Each user and item once: a second copy in the batch would be pushed away from itself.
        users, user_of = torch.unique(self.train_set.row[batch.rows], return_inverse=True)
        items, item_of = torch.unique(batch.history.ids, return_inverse=True)
        users_uv, items_uv = self.encode(users, items)
        current = self.encoder(batch.history)  # I^s
        general = self.general_interest(users_uv[user_of], items_uv[item_of], batch)  # I^c
        combined = config.mix * current + (1 - config.mix) * general  # eq. 13
        terms = {"next_item": self.prediction(self.encoder, combined, batch, rng)}  # eq. 14
        if self.interest_head is not None:
            terms["interest"] = config.interest * self.contrast(self.interest_head, current, general)
        if self.user_user is not None and self.user_head is not None:
            users_uu = self.user_user(self.users, depth=config.depth, rows=users)
            terms["user_features"] = config.user_features * self.contrast(self.user_head, users_uv, users_uu)
        if self.item_item is not None and self.item_head is not None:
            items_vv = self.item_item(self.encoder.items.weight, depth=config.depth, rows=items)
            terms["item_features"] = config.item_features * self.contrast(self.item_head, items_uv, items_vv)
        return terms

    def encode(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Gives vectors from the graph of users and items (eqs. 4 and 9).

        Args:
            users: int64 ``[P]``, numbers of training sequences.
            items: int64 ``[Q]``, item numbers.

        Returns:
            float ``[P, D]`` and ``[Q, D]``.
        """
        everything = torch.cat([self.users, self.encoder.items.weight])
        rows = torch.cat([users, len(self.users) + items])
        found = self.user_item(everything, depth=self.config.depth, rows=rows)
        return found[: len(users)], found[len(users) :]

    def general_interest(self, users: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """Gives I^c, the mean of a history's items in the graph, weighted by the user's liking of each (eqs. 5-6).

        Args:
            users: float ``[B, D]``, the users of the batch in the graph.
            items: float ``[N, D]``, the items of its histories in the graph.
            batch: Gives the histories.

        Returns:
            float ``[B, D]``.
        """
        liking = self.query(users).tanh()[batch.history.rows]
        return attend((liking * items).sum(1), items, batch.history)

    def contrast(self, head: nn.Module, anchors: Tensor, positives: Tensor) -> Tensor:
        """Gives the contrast of two views after the projection that they share (eqs. 7-8; eqs. 10-11).

        Args:
            head: The projection.
            anchors: float ``[M, D]``.
            positives: float ``[M, D]``.

        Returns:
            Scalar, mean over the ``M`` things; 0 where there is only one, which has nothing to be told from.
        """
        if len(anchors) < 2:
            return 0.0 * (anchors + positives).sum()
        a, b = head(anchors), head(positives)
        if self.config.similarity == "cosine":
            a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
        return one_way_info_nce(a, b, temperature=self.config.temperature, intra=True)

    def _co_interaction(self, met: graphs.Matrix) -> graphs.Graph:
        config = self.config
        return graphs.Graph(graphs.co_interaction(met, neighbours=config.neighbours, weighted=config.weighted))


def _projector(width: int) -> nn.Sequential:
    """Gives the two layers of eqs. 7 and 10."""
    return nn.Sequential(nn.Linear(width, width), nn.ELU(), nn.Linear(width, width))
