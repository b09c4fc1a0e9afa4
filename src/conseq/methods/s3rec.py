"""Self-supervised pretraining that fills in items, attributes and segments (S3-Rec), then next-item training.

Kun Zhou, Hui Wang, Wayne Xin Zhao, Yutao Zhu, Sirui Wang, Fuzheng Zhang, Zhongyuan Wang, Ji-Rong Wen; CIKM 2020.
Up to four tasks pretrain an encoder that reads both ways: the attributes of an item (AAP, eq. 5), a masked item
(MIP, eq. 6), the attributes of a masked item (MAP, eq. 8), a masked segment (SP, eq. 10). Then the same encoder,
reading forwards, learns the next item as SASRec does. The contrastive papers compare with two of its variants:
S3Rec_MIP, and S3Rec_ISP, which is MIP and SP.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.config import settings
from conseq.data.negatives import UniformNegatives
from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, TokenEncoder
from conseq.encoders.gru4rec import GRU4Rec
from conseq.encoders.selected import last_states, states_at
from conseq.methods.method import Terms
from conseq.methods.prediction import Loss, Prediction, states_to_predict_from
from conseq.methods.staged import Staged, epochs_after
from conseq.signals.categories import ItemCategories, read_categories
from conseq.views.augment import random_below, random_like
from conseq.views.completed import completed, prefixes

Weight = Annotated[float, Field(ge=0)]


@settings
class S3RecConfig:
    """Settings of S3-Rec. The defaults are its authors' code's, without attributes: S3Rec_ISP."""

    loss: Loss = "binary_cross_entropy"
    """Loss of the next item, after pretraining."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = True
    """Correct the sampled softmax for how its items were drawn."""
    pretrain: Annotated[int, Field(ge=0)] = 100
    """First epochs, which pretrain; not_before must be later than they. The authors' code is tried at 100 and 150."""
    pretrain_batch: Annotated[int, Field(ge=1)] = 100
    """Sequences of an update of the pretraining."""
    every_prefix: bool = True
    """Pretrain on every beginning of a history (the authors' code), rather than on the history alone."""
    item: Weight = 1.0
    """Weight of MIP, the prediction of masked items."""
    segment: Weight = 0.5
    """Weight of SP, the prediction of a masked segment; 0: S3Rec_MIP."""
    associated: Weight = 0.2
    """Weight of AAP, the attributes of the items that are not masked; needs `attributes`."""
    masked: Weight = 1.0
    """Weight of MAP, the attributes of the masked items; needs `attributes`."""
    mask: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Chance with which an item is masked; the last one always is."""
    attributes: Path | None = None
    """A table of item_id and attributes, for AAP and MAP; without it there are neither."""
    attribute_column: str = "categories"
    """The column of that file that holds the lists of attributes."""
    describe: Literal["item", "state"] = "state"
    """What AAP reads: the item's vector (eq. 5), or the encoder's state of it (the authors' code)."""


class S3Rec(Staged[TokenEncoder]):
    """Pretraining in the first epochs, next item after them.

    Each stage has an optimizer of its own, as its authors' two scripts have. An epoch of the pretraining makes several
    updates a batch: its sequences (each history with the item after it and, where ``every_prefix``, all beginnings of
    that) are shuffled and taken ``pretrain_batch`` at a time.

    Args:
        config: The settings.
        train: What is trained on.
        backbone: The encoder's settings.

    Raises:
        FileNotFoundError: if there is no file of attributes where one is named.
        ValueError: if the encoder cannot read both ways; if nothing is pretrained in the epochs that shall; if the
            attributes do not fit the log; if a user has met every item.
    """

    def __init__(self, config: S3RecConfig, train: TrainSet, backbone: Backbone[TokenEncoder]) -> None:
        super().__init__(train, backbone, config.pretrain)
        _check(config, self.encoder)
        self.config = config
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
        )
        width, pretrains = backbone.width, config.pretrain > 0
        items = pretrains and config.item > 0
        self.unmet = UniformNegatives(train.sequences, train.sequence_users, train.n_items) if items else None
        self.item_map = _map(width) if items else None
        self.segment_map = _map(width) if pretrains and config.segment else None
        self.attributes = _attributes(config, train, width) if pretrains and _described(config) else None
        described = self.attributes is not None
        self.associated_map = _map(width) if described and config.associated else None
        self.masked_map = _map(width) if described and config.masked else None

    @staticmethod
    def training_defaults(config: S3RecConfig) -> dict[str, Any]:
        """As many epochs as other methods have are left after those that pretrain."""
        return epochs_after(config.pretrain)

    def groups(self) -> dict[str, nn.Module]:
        """Gives the two stages: the pretraining of all there is, and the encoder's training.

        Both hold the encoder. Without pretraining there is the second alone.
        """
        if not self.config.pretrain:
            return {"next": self.encoder}
        return {"pretraining": self, "next": self.encoder}

    def updates(self, batch: Batch, rng: torch.Generator) -> Iterator[tuple[str, Terms]]:
        """Gives the updates of a batch: several of the pretraining, or one of the next item."""
        if not self.in_first_stage:
            yield "next", self.loss(batch, rng)
            return
        seqs, users = self.sequences(batch)
        order = torch.randperm(len(seqs), generator=rng).to(seqs.device)
        for rows in order.tensor_split(-(-len(seqs) // self.config.pretrain_batch)):
            yield "pretraining", self.pretraining_loss(seqs.select(rows), users[rows], rng)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the term ``next_item``."""
        states = states_to_predict_from(self.encoder, batch)
        return {"next_item": self.prediction(self.encoder, states, batch, rng)}

    def sequences(self, batch: Batch) -> tuple[Sequences, Tensor]:
        """Gives what a batch pretrains on: ``S`` sequences of at least two items, and their users, int64 ``[S]``."""
        seqs, users = completed(self.train_set, batch.rows), batch.users
        if self.config.every_prefix and not batch.at_last:
            # One item has nothing beside it to be recovered from.
            users = users.repeat_interleave(seqs.lengths - 1)
            seqs = prefixes(seqs, least=2)
        return seqs.tail(self.encoder.max_length), users

    def pretraining_loss(self, seqs: Sequences, users: Tensor, rng: torch.Generator) -> Terms:
        """Gives the terms ``associated``, ``item``, ``masked`` and ``segment``, those that have a weight.

        Each is the sum over its items, attributes or segments, divided by the number of sequences: the authors' sums,
        whose relation decides, in a size that does not grow with the batch.

        Args:
            seqs: ``S`` sequences of at most the encoder's length.
            users: int64 ``[S]``, rows in the log; their items are no negatives.
            rng: On the CPU.

        Returns:
            Weighted scalars by name.
        """
        chosen = random_like(seqs.ids, rng) < self.config.mask
        chosen |= seqs.positions == (seqs.lengths - 1)[seqs.rows]
        segments = self.segments(seqs, rng) if self.segment_map is not None else []
        sums = self._items_and_attributes(seqs, users, chosen, rng)
        if self.segment_map is not None:
            # Of these the last states alone are read, which spares most of the encoder's last block.
            around, own, other = last_states(self.encoder, concatenate(segments), causal=False).chunk(3)
            sums["segment"] = self.config.segment * paired(self.segment_map(around), own, other)
        return {name: total / len(seqs) for name, total in sums.items()}

    def _items_and_attributes(self, seqs: Sequences, users: Tensor, chosen: Tensor, rng: torch.Generator) -> Terms:
        """The sums of AAP, MIP and MAP over sequences of which the ``chosen`` items are masked, those with a weight."""
        c, table, sums = self.config, self.encoder.items, {}
        masked, kept = chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)
        tells_kept = self.associated_map is not None and c.describe == "state"
        read = torch.cat([masked, kept]) if tells_kept else masked
        if tells_kept or self.item_map is not None or self.masked_map is not None:
            hidden = seqs.replace(seqs.ids.masked_fill(chosen, table.mask_id))
            of_masked, of_kept = states_at(self.encoder, hidden, read, causal=False).tensor_split([len(masked)])
        if self.associated_map is not None and self.attributes is not None:
            shown = of_kept if tells_kept else table(seqs.ids[kept])
            sums["associated"] = c.associated * self.attributes(self.associated_map(shown), seqs.ids[kept])
        if self.item_map is not None and self.unmet is not None:
            drawn = self.unmet.draw(users[seqs.rows[masked]], 1, rng)[:, 0]
            sums["item"] = c.item * paired(self.item_map(of_masked), table(seqs.ids[masked]), table(drawn))
        if self.masked_map is not None and self.attributes is not None:
            sums["masked"] = c.masked * self.attributes(self.masked_map(of_masked), seqs.ids[masked])
        return sums

    def segments(self, seqs: Sequences, rng: torch.Generator) -> list[Sequences]:
        """Gives what SP tells apart: sequences without a segment, the segment alone, and another one in its place.

        A segment is ``1 .. n // 2`` of ``n`` items long, every length and then every place equally likely. The other
        one is cut from the training sequences laid end to end, so that it may reach from one user's into the next's.
        Masks stand for what is left out, so that a segment stands where it was.

        Args:
            seqs: Sequences of at least two items.
            rng: On the CPU.

        Returns:
            Three times ``S`` sequences, of the lengths of ``seqs``.
        """
        n = seqs.lengths
        size = random_below(n // 2, rng) + 1
        start = random_below(n - size + 1, rng)
        place = seqs.positions - start[seqs.rows]
        inside = (place >= 0) & (place < size[seqs.rows])
        every = self.train_set.sequences.ids
        begin = random_below(every.numel() - size + 1, rng)
        other = every[(begin[seqs.rows] + place).clamp(0, every.numel() - 1)]  # of what is masked below, anything
        mask = self.encoder.items.mask_id
        return [
            seqs.replace(seqs.ids.masked_fill(inside, mask)),
            seqs.replace(seqs.ids.masked_fill(~inside, mask)),
            seqs.replace(other.masked_fill(~inside, mask)),
        ]


class Attributes(nn.Module):
    """Tells from a vector which attributes an item has.

    Args:
        found: The attributes of every item.
        width: ``D``.
        device: Where the items' numbers are.
    """

    def __init__(self, found: ItemCategories, width: int, device: torch.device) -> None:
        super().__init__()
        self.of_item = found.of_item.to(device)
        self.vectors = nn.Parameter(0.02 * torch.randn(len(found.names), width))

    def __call__(self, known: Tensor, items: Tensor) -> Tensor:
        """Gives the sum of the binary cross-entropies of all attributes of all items (eqs. 5 and 8).

        Args:
            known: float ``[M, D]``, mapped vectors.
            items: int64 ``[M]``.

        Returns:
            Scalar.
        """
        out: Tensor = super().__call__(known, items)
        return out

    def forward(self, known: Tensor, items: Tensor) -> Tensor:
        """Gives the sum of the binary cross-entropies of all attributes of all items (eqs. 5 and 8)."""
        scores = known @ self.vectors.T
        own = self.of_item.select(items)
        # -log sigmoid(x) where an item has the attribute, else -log sigmoid(-x), which is x more.
        return F.softplus(scores).sum() - scores[own.rows, own.ids].sum()


def paired(known: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    r"""Gives the sum of the losses that prefer one thing to another (eqs. 6 and 10 with one negative).

    .. math:: -\sum_m \log \frac{e^{f_m^+}}{e^{f_m^+} + e^{f_m^-}}, \qquad f_m^\pm = \sigma(x_m \cdot y_m^\pm)

    The scores are squashed before they are compared, as both the equations and the code have it.

    Args:
        known: float ``[M, D]``, x: mapped states.
        positive: float ``[M, D]``.
        negative: float ``[M, D]``.

    Returns:
        Scalar.
    """
    score, against = ((known * one).sum(1).sigmoid() for one in (positive, negative))
    return F.softplus(against - score).sum()


def _map(width: int) -> nn.Linear:
    """W of an equation; with a bias, as in the authors' code."""
    layer = nn.Linear(width, width)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def _check(config: S3RecConfig, encoder: TokenEncoder) -> None:
    if not config.pretrain:
        return
    if isinstance(encoder, GRU4Rec):
        raise ValueError(
            "S3-Rec pretrains an encoder that reads both ways, and GRU4Rec reads forwards only; use encoder 'sasrec', "
            "or pretrain 0"
        )
    if not (config.item or config.segment or _described(config)):
        raise ValueError(
            f"pretrain is {config.pretrain}, but there is nothing to pretrain by: item and segment are 0, and without "
            "attributes there is neither associated nor masked"
        )


def _described(config: S3RecConfig) -> bool:
    return config.attributes is not None and config.associated + config.masked > 0


def _attributes(config: S3RecConfig, train: TrainSet, width: int) -> Attributes:
    assert config.attributes is not None
    if train.item_ids is None:
        raise ValueError("attributes are read by the items' outside ids, which this train set does not hold")
    found = read_categories(config.attributes, train.item_ids, column=config.attribute_column)
    return Attributes(found, width, train.device)
