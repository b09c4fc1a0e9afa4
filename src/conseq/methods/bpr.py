r"""BPR: Bayesian Personalized Ranking from Implicit Feedback, the papers' baseline that knows no order.

Steffen Rendle, Christoph Freudenthaler, Zeno Gantner, Lars Schmidt-Thieme; UAI 2009. A user's items are to score
above items that the user has not met:

.. math:: L = -\frac{1}{M} \sum_{(u, i, j)} \ln \sigma(\hat x_{ui} - \hat x_{uj})
    + \lambda_\Theta \frac{1}{M} \sum_{(u, i, j)} \left( \|w_u\|^2 + \|h_i\|^2 + \|h_j\|^2 \right)
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from conseq.config import settings
from conseq.data.negatives import UniformNegatives
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone
from conseq.encoders.matrix_factorization import MatrixFactorization
from conseq.methods.method import Method, Terms


@settings
class BPRConfig:
    """Settings of BPR."""

    negatives: Annotated[int, Field(ge=1)] = 1
    """Items that the user has not met, drawn for each of the user's own."""
    regularization: Annotated[float, Field(ge=0)] = 0.0
    """lambda_Theta: weight of the squared length of the three vectors of a pair."""


class BPR(Method[MatrixFactorization]):
    """Pairs of an item met and one not met, for every item of the examples: their next items, and first ones.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: Settings of matrix factorization.
    """

    def __init__(self, config: BPRConfig, train: TrainSet, backbone: Backbone[MatrixFactorization]) -> None:
        super().__init__(train, backbone)
        self.config = config
        # Of a sequence of one item there is no example: its user stays a stranger, made of his history.
        self.encoder.add_users(train.sequence_users[torch.unique(train.row)])
        self.sampler = UniformNegatives(train.sequences, train.sequence_users, train.n_items)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms ``ranking`` and, where it has a weight, ``regularization``."""
        users, items = self.met(batch)
        table, count = self.encoder.items, self.config.negatives
        w, met = self.encoder.users[users], table(items)
        drawn = table(self.sampler.draw(users, count, rng))  # [M, count, D]
        margins = (w * met).sum(1, keepdim=True) - torch.einsum("md,mkd->mk", w, drawn)
        terms = {"ranking": F.softplus(-margins).mean()}
        if self.config.regularization:
            squares = w.square().sum(1) + met.square().sum(1) + drawn.square().sum(2).mean(1)
            terms["regularization"] = self.config.regularization * squares.mean()
        return terms

    def met(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Gives the user's row and the item of each interaction of a batch, both int64 ``[M]``.

        They are the next items; and, with the example that begins a sequence, its first item, which is nobody's next.
        """
        train, history = self.train_set, batch.history
        begins = train.first[batch.rows] == train.sequences.offsets[train.row[batch.rows]]
        users = torch.cat([batch.next_users, batch.users[begins]])
        return users, torch.cat([batch.next_ids, history.ids[history.offsets[:-1][begins]]])
