"""Pretraining in the space of several intents (DSSRec), then next-item training.

Jianxin Ma, Chang Zhou, Hongxia Yang, Peng Cui, Xin Wang, Wenwu Zhu; KDD 2020: *Disentangled Self-Supervision in
Sequential Recommenders*. A history is cut in two. Each half is told in K vectors, one for each intent, and what comes
after the cut is told from what came before it: the very next item, and the vectors of all that follows. ICLRec compares
with an implementation of third parties, which pretrains by both and then learns the next item as SASRec does; that
one is followed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.config import settings
from conseq.data.sequences import Sequences, slices
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.attentive import attend
from conseq.encoders.encoder import Backbone, TokenEncoder
from conseq.methods.method import Terms
from conseq.methods.prediction import Loss, Prediction, states_to_predict_from
from conseq.methods.staged import Staged, epochs_after
from conseq.views.augment import random_below
from conseq.views.completed import completed

Weight = Annotated[float, Field(ge=0)]


@settings
class DSSRecConfig:
    """Settings of DSSRec. The defaults are those of the code that ICLRec compares with."""

    loss: Loss = "binary_cross_entropy"
    """Loss of the next item, after pretraining."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = True
    """Correct the sampled softmax for how its items were drawn."""
    pretrain: Annotated[int, Field(ge=1)] = 30
    """First epochs, which pretrain; not_before must be later than they."""
    intents: Annotated[int, Field(ge=1)] = 4
    """K, the vectors of a sequence."""
    item: Weight = 1.0
    """Weight of the item after the cut (sequence to item)."""
    sequence: Weight = 1.0
    """Weight of the vectors of what follows the cut (sequence to sequence)."""
    confident: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the pairs of vectors that learn (lambda), those of the smallest losses."""


class DSSRec(Staged[TokenEncoder]):
    """Pretraining by intents in the first epochs, next item after them.

    Each stage has an optimizer of its own, as the code's two scripts have.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings.

    Raises:
        ValueError: if neither task of the pretraining has a weight.
    """

    def __init__(self, config: DSSRecConfig, train: TrainSet, backbone: Backbone[TokenEncoder]) -> None:
        super().__init__(train, backbone, config.pretrain)
        if not config.item + config.sequence:
            raise ValueError("item and sequence are 0: nothing is pretrained; use method 'next_item'")
        self.config = config
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
        )
        self.intents = Intents(config.intents, backbone.width, self.encoder.max_length)

    @staticmethod
    def training_defaults(config: DSSRecConfig) -> dict[str, Any]:
        """As many epochs as other methods have are left after those that pretrain."""
        return epochs_after(config.pretrain)

    def groups(self) -> dict[str, nn.Module]:
        """Gives the two stages, which both hold the encoder."""
        return {"pretraining": self, "next": self.encoder}

    def updates(self, batch: Batch, rng: torch.Generator) -> Iterator[tuple[str, Terms]]:
        """Gives the one update of a batch, by the stage of the epoch."""
        if self.in_first_stage:
            yield "pretraining", self.pretraining_loss(*cut(completed(self.train_set, batch.rows), rng))
        else:
            yield "next", self.loss(batch, rng)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the term ``next_item``."""
        states = states_to_predict_from(self.encoder, batch)
        return {"next_item": self.prediction(self.encoder, states, batch, rng)}

    def pretraining_loss(self, before: Sequences, after: Sequences) -> Terms:
        """Gives the terms ``item`` and ``sequence``, those that have a weight.

        Each is the sum over its sequences, or pairs of vectors, divided by the number of sequences: the code's sums,
        whose relation decides, in a size that does not grow with the batch.

        Args:
            before: ``B`` sequences of at least one item.
            after: What follows each of them, backwards: its last item is the very next one.

        Returns:
            Weighted scalars by name.
        """
        c = self.config
        vectors = self.intents(self.encoder.states(before), before, after=False)
        terms = {}
        if c.item:
            following = self.encoder.items(after.ids[after.last])
            terms["item"] = c.item * told_items(vectors, following) / len(before)
        if c.sequence:
            others = self.intents(self.encoder.states(after), after, after=True)
            terms["sequence"] = c.sequence * told_vectors(vectors, others, c.confident) / len(before)
        return terms


class Intents(nn.Module):
    """Tells a sequence in K vectors: what belongs to each intent, weighed by how much it says of what comes.

    Args:
        count: K.
        width: D.
        max_length: Positions, counted back from the last.
    """

    def __init__(self, count: int, width: int, max_length: int) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(count, width) / math.sqrt(width))
        self.of_state, self.of_prototype, self.of_key, self.of_query, self.of_vector = (
            nn.LayerNorm(width, eps=1e-12) for _ in range(5)
        )
        self.key = nn.Linear(width, width)
        self.query = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros(max_length, width))
        self.before, self.after = (nn.Parameter(torch.randn(count, width) / math.sqrt(width)) for _ in range(2))

    def __call__(self, states: Tensor, seqs: Sequences, *, after: bool) -> Tensor:
        """Gives the vectors, float ``[B, K, D]``."""
        out: Tensor = super().__call__(states, seqs, after=after)
        return out

    def forward(self, states: Tensor, seqs: Sequences, *, after: bool) -> Tensor:
        """Gives the vectors.

        Args:
            states: float ``[N, D]``, the encoder's.
            seqs: ``B`` sequences; gives the lengths.
            after: Whether they are what follows a cut: each side has constants of its own.

        Returns:
            float ``[B, K, D]``.
        """
        scale = math.sqrt(states.shape[1])
        # How likely each item is of each intent [N, K].
        of = (self.of_state(states) @ self.of_prototype(self.prototypes).T / scale).softmax(1)
        # How much each item says of the user's next intents, softmax over the sequence.
        place = len(self.positions) - seqs.lengths[seqs.rows] + seqs.positions
        keys = self.of_key(states + self.positions[place])
        keys = keys + F.relu(self.key(keys))
        queries = self.of_query(self.query + self.positions[-1] + states[seqs.last])
        logits = (keys * queries[seqs.rows]).sum(1) / scale
        parts = (of[:, :, None] * states[:, None]).flatten(1)
        read = attend(logits, parts, seqs).view(len(seqs), *self.prototypes.shape)
        out: Tensor = self.of_vector((self.after if after else self.before) + read)
        return out


def cut(seqs: Sequences, rng: torch.Generator) -> tuple[Sequences, Sequences]:
    """Gives what comes before a random cut of each sequence, and backwards what comes after it.

    At least two items come after it, where a sequence has three or more; every such cut is equally likely.

    Args:
        seqs: ``B`` sequences of at least two items.
        rng: On the CPU.

    Returns:
        ``B`` sequences each, of one item at least.
    """
    n, start = seqs.lengths, seqs.offsets[:-1]
    at = random_below((n - 2).clamp(min=1), rng) + 1
    after = slices(seqs.ids, start + at, n - at)
    return slices(seqs.ids, start, at), after.replace(after.ids[after.last[after.rows] - after.positions])


def told_items(vectors: Tensor, items: Tensor) -> Tensor:
    r"""Gives the sum of the losses of the next items.

    .. math:: -\sum_i \log \frac{\max_k e^{v_{ik} \cdot e_i / \sqrt{D}}}
        {\sum_k \sum_j e^{v_{ik} \cdot e_j / \sqrt{D}}}

    The negatives are the next items of the other sequences of the batch.

    Args:
        vectors: float ``[B, K, D]``.
        items: float ``[B, D]``.

    Returns:
        Scalar.
    """
    scores = _products(vectors.flatten(0, 1), items).view(*vectors.shape[:2], -1)  # [B, K, B]
    own = scores.diagonal(dim1=0, dim2=2).amax(0)
    return (scores.flatten(1).logsumexp(1) - own).sum()


def told_vectors(vectors: Tensor, others: Tensor, confident: float) -> Tensor:
    r"""Gives the sum of the losses of the vectors of what follows, over the pairs of the smallest losses.

    .. math:: \ell_{ik} = -\log \frac{e^{v_{ik} \cdot w_{ik} / \sqrt{D}}}
        {\sum_{k'} \sum_j e^{v_{ik} \cdot w_{jk'} / \sqrt{D}}}

    Where the future says nothing of an intent of the past, its vectors have nothing to do with each other; such pairs
    are those of the greatest losses.

    Args:
        vectors: float ``[B, K, D]``, of what came before.
        others: float ``[B, K, D]``, of what follows.
        confident: Share of the ``B K`` pairs that count, rounded down, one at least.

    Returns:
        Scalar.
    """
    scores = _products(vectors.flatten(0, 1), others.flatten(0, 1))
    losses = scores.logsumexp(1) - scores.diagonal()
    kept = max(1, math.floor(confident * len(losses)))
    return losses.topk(kept, largest=False, sorted=False).values.sum()


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of all rows of ``a`` with all of ``b``, divided by the root of the width; in float32 at least."""
    kind = torch.promote_types(a.dtype, torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        return a.to(kind) @ b.to(kind).T / math.sqrt(a.shape[1])
