"""Intent Contrastive Learning for Sequential Recommendation (ICLRec).

Yongjun Chen, Zhiwei Liu, Jia Li, Julian McAuley, Caiming Xiong; WWW 2022.

Users act on latent intents. E-step, once an epoch: encode every history and cluster the mean states by K-means;
a centroid is an intent (section 4.1.2). M-step: next item, each view of a history against the intent of its user
(section 4.1.3), and the two views against each other (section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.config import Later, settings
from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import Batch, TrainSet
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Backbone, TokenEncoder
from conseq.methods.method import Method, Terms
from conseq.methods.prediction import Loss, Prediction, states_to_predict_from
from conseq.methods.slots import Slots
from conseq.nn import pooling
from conseq.objectives.aligned import aligned_info_nce
from conseq.objectives.contrast import info_nce, one_way_info_nce
from conseq.signals.categories import ItemCategories, read_categories
from conseq.signals.clusters import Clusters
from conseq.views.augment import Crop, Mask, OneOf, Reorder

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]

# Histories encoded at once in the E-step.
_E_STEP_BATCH = 1024


@settings
class ICLRecConfig:
    """Settings of ICLRec. The defaults are the paper's, save `represent`; K and `intent` those of Figure 5 (Yelp)."""

    loss: Loss = "binary_cross_entropy"
    """Loss of the next item (eq. 2)."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Sampled items per target, for the losses that sample."""
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""
    log_q: bool = True
    """Correct the sampled softmax for how its items were drawn."""
    intent: Weight = 0.5
    """Weight of the intent contrast (lambda, eq. 18); 0: without it, and without an E-step."""
    sequence: Weight = 0.1
    """Weight of the sequence contrast (beta, eq. 18); 0: without it."""
    clusters: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (512,)
    """K, intents; with several, the intent contrast is the mean over them."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of both contrasts; the paper has none."""
    mitigation: bool = True
    """False-negative mitigation (eq. 17): users of the same intent are not each other's negatives."""
    augment: bool = True
    """Contrast augmented views; False: the history itself, twice, with different dropout."""
    represent: Literal["mean", "positions"] = "mean"
    """What represents a view in the sequence contrast: the mean of its states; or all of them, one after the other."""
    padding: Annotated[Literal["none", "data"], Later()] = "none"
    """none: a history has states for its items alone. data: it has max_length of them, as in the authors' code, and
    those of padding count in every mean and in `positions`; for left-padded SASRec alone, at several times the cost."""
    crop: Share = 0.2
    """Share of a history that a crop keeps."""
    mask: Share = 0.7
    """Share of a history that is masked."""
    reorder: Share = 0.2
    """Share of a history that is shuffled."""
    spare_last: Annotated[bool, Later()] = False
    """Crops and shuffled stretches end before the last item, as in the authors' code, whose bound is one too low."""
    iterations: Annotated[int, Field(ge=1)] = 20
    """m, rounds of a run of K-means."""
    restarts: Annotated[int, Field(ge=1)] = 1
    """Runs of K-means from different starts, of which the best is kept; the authors' code: 5."""
    warm_start: bool = False
    """Go on from the last epoch's centroids, as the authors' code does, rather than from random points."""
    intents_from: Annotated[int, Field(ge=1)] = 1
    """First epoch with the intent contrast (and its E-step); until then the rest warms up the encoder."""
    assignment: Literal["e_step", "batch"] = "e_step"
    """Where a user's intent comes from: the E-step (eq. 12), or anew in each batch, as in the authors' code."""
    normalise: Literal["both", "centroids"] = "both"
    """What has length 1 in the intent contrast: views and intents (eq. 13), or intents alone (authors' code)."""
    against: Literal["intents", "all"] = "intents"
    """Negatives of a view: the batch's other intents (eq. 17); or NT-Xent of views and intents (authors' code)."""
    directions: Literal["sum", "mean"] = "sum"
    """How the two directions of L_SeqCL and the two views of L_ICL come together: eqs. 5 and 15 add them; the authors'
    code takes their mean."""
    categories: Path | None = None
    """ICLRec-A: a table of item_id and categories; their mean vector is the intent, without an E-step."""
    category_column: str = "categories"
    """The column of that file that holds the lists of categories."""


class ICLRec(Method[TokenEncoder]):
    """Next item, intent contrast and sequence contrast.

    Args:
        config: The settings.
        train: What is trained on; its sequences (one per user, what is read of each) are clustered.
        backbone: The encoder's settings.

    Raises:
        FileNotFoundError: if there is no file of categories where one is named.
        ValueError: if that file does not fit the log.
    """

    def __init__(self, config: ICLRecConfig, train: TrainSet, backbone: Backbone[TokenEncoder]) -> None:
        super().__init__(train, backbone)
        self.config = config
        self.prediction = Prediction(
            config.loss,
            train,
            negatives=config.negatives,
            calibration=config.calibration,
            log_q=config.log_q,
        )
        self.view = OneOf[Sequences](
            (
                Crop(config.crop, config.spare_last),
                Mask(config.mask, self.encoder.items.mask_id),
                Reorder(config.reorder, config.spare_last),
            )
        )
        # One example per user, whatever the examples are that are trained on: what the encoder reads of {S^u}.
        self.histories = TrainSet(
            train.sequences,
            train.sequence_users,
            train.n_items,
            instances="whole",
            max_length=train.max_length,
            windows=False,
        )
        self.slots = Slots(self.encoder) if config.padding == "data" else None
        if self.slots:
            self.slots.draw_padding()
        self.clusters = nn.ModuleList()
        self.categories: CategoryIntents | None = None
        if config.categories is not None:
            read = read_categories(config.categories, _item_ids(train), column=config.category_column)
            self.categories = CategoryIntents(read, backbone.width, train.device)
        elif config.intent:
            self.clusters.extend(self._clusters(count, backbone.width) for count in config.clusters)

    @property
    def later(self) -> dict[str, int]:
        """The end of the warm-up, from which intents are contrasted."""
        return {"intents": self.config.intents_from} if self.config.intent and self.config.intents_from > 1 else {}

    def begin_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """E-step (Alg. 1, line 2): clusters all users' mean states; draws one seed per number of clusters."""
        if epoch < self.config.intents_from:
            return
        if self.categories is not None:
            self.categories.begin()
        if not len(self.clusters):
            return
        batches = self.histories.batches(_E_STEP_BATCH)
        points = torch.cat([self._mean(self._states(batch.history), batch.history) for batch in batches])
        for clusters in self._all_clusters():
            clusters.fit(points, rng)

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """M-step: gives the terms ``next_item`` and, where they have a weight, ``intent`` and ``sequence`` (eq. 18).

        Before the epoch ``intents_from`` there is no ``intent``.
        """
        c = self.config
        intent = c.intent > 0 and self._has_intents()
        if not (intent or c.sequence):
            states = states_to_predict_from(self.encoder, batch)
            return {"next_item": self.prediction(self.encoder, states, batch, rng)}
        views = [self.view(batch.history, rng) if c.augment else batch.history for _ in range(2)]
        parts = [batch.history, *views]
        sizes = [len(part) if self.slots else part.ids.numel() for part in parts]
        states, *encoded = torch.split(self._states(concatenate(parts)), sizes)
        tokens = self.slots.tokens(states, batch.history) if self.slots else states
        terms = {"next_item": self.prediction(self.encoder, tokens[batch.at], batch, rng)}
        if intent:
            means = [self._mean(one, view) for one, view in zip(encoded, views, strict=True)]
            terms["intent"] = c.intent * self.intent_contrast(means, self.intents(batch, states))
        if c.sequence:
            terms["sequence"] = c.sequence * self.sequence_contrast(encoded, views)
        return terms

    def intents(self, batch: Batch, states: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Gives the intents of the batch's users, once for each number of clusters.

        Args:
            batch: Training examples.
            states: float ``[N, D]``, of the histories' tokens; with padding as data ``[B, T, D]``.

        Yields:
            Vectors float ``[B, D]`` and numbers int64 ``[B]`` (None where every user has an intent of their own).
        """
        if self.categories is not None:
            yield self.categories(batch.history), None
            return
        for clusters in self._all_clusters():
            if self.config.assignment == "batch":
                ids = clusters.assign(self._mean(states.detach(), batch.history))
            else:
                ids = clusters.ids[torch.searchsorted(self.histories.row, self.train_set.row[batch.rows])]
            yield clusters.centroids[ids], ids

    def intent_contrast(self, views: list[Tensor], intents: Iterator[tuple[Tensor, Tensor | None]]) -> Tensor:
        """Gives the contrast of views and their intents (eqs. 15-17), the mean over numbers of clusters.

        Args:
            views: float ``[B, D]`` each.
            intents: From :meth:`intents`.

        Returns:
            Scalar, the sum or the mean over views (``directions``).
        """
        c = self.config
        if c.normalise == "both":
            views = [F.normalize(view, dim=-1) for view in views]
        contrast = one_way_info_nce if c.against == "intents" else info_nce
        losses = []
        for vectors, ids in intents:
            same = ids[:, None] == ids if c.mitigation and ids is not None else None
            unit = F.normalize(vectors, dim=-1)
            losses += [contrast(view, unit, temperature=c.temperature, same=same) for view in views]
        return self._of_two(torch.stack(losses).mean())

    def sequence_contrast(self, states: list[Tensor], views: list[Sequences]) -> Tensor:
        """Gives the contrast of the two views of each history, in both directions (eqs. 5-6).

        Args:
            states: float ``[N_v, D]`` of the tokens of each view; with padding as data ``[B, T, D]``.
            views: The two views.

        Returns:
            Scalar, the mean over the B histories of the sum of their two anchors, or of their mean (``directions``).
        """
        tau = self.config.temperature
        # The paper concatenates the states of all T positions, of which most are padding. The mean over real ones is
        # what comes nearest to that; their concatenation alone compares little but lengths (docs/methods/iclrec.md).
        if self.config.represent == "mean":
            a, b = (self._mean(one, view) for one, view in zip(states, views, strict=True))
            return self._of_two(info_nce(a, b, temperature=tau))
        if self.slots:
            a, b = (one.flatten(1) for one in states)
            return self._of_two(info_nce(a, b, temperature=tau))
        lengths = torch.cat([view.lengths for view in views])
        return self._of_two(aligned_info_nce(torch.cat(states), lengths, temperature=tau))

    def _states(self, seqs: Sequences) -> Tensor:
        """Gives the states of tokens, float ``[N, D]``, or with padding as data of slots, ``[B, T, D]``."""
        return self.slots(seqs) if self.slots else self.encoder.states(seqs)

    def _mean(self, states: Tensor, seqs: Sequences) -> Tensor:
        """Gives the mean state of each sequence, float ``[B, D]``."""
        return states.mean(1) if self.slots else pooling.mean(states, seqs)

    def _of_two(self, mean: Tensor) -> Tensor:
        """Gives what two views or directions make together, from the mean over both."""
        return 2 * mean if self.config.directions == "sum" else mean

    def _has_intents(self) -> bool:
        """Whether the warm-up is over. Waits for the device."""
        if self.categories is not None:
            return self.categories.begun
        return all(one.fitted for one in self._all_clusters())

    def _clusters(self, count: int, width: int) -> Clusters:
        c = self.config
        return Clusters(
            count,
            len(self.histories),
            width,
            iterations=c.iterations,
            restarts=c.restarts,
            warm_start=c.warm_start,
        )

    def _all_clusters(self) -> list[Clusters]:
        return [one for one in self.clusters if isinstance(one, Clusters)]


class CategoryIntents(nn.Module):
    """The mean of the trainable vectors of a history's categories, as its intent (ICLRec-A, Appendix E).

    Args:
        categories: Of every item.
        width: ``D``.
        device: Where the histories are.
    """

    _begun: Tensor

    def __init__(self, categories: ItemCategories, width: int, device: torch.device) -> None:
        super().__init__()
        self.categories = ItemCategories(categories.of_item.to(device), categories.names)
        self.vectors = nn.Parameter(0.02 * torch.randn(len(categories.names), width))
        # A buffer, because a run resumed inside an epoch does not see that epoch begin.
        self.register_buffer("_begun", torch.tensor(False))

    @property
    def begun(self) -> bool:
        """Whether the warm-up is over. Waits for the device."""
        return bool(self._begun)

    def begin(self) -> None:
        """Ends the warm-up."""
        self._begun.fill_(True)

    def __call__(self, histories: Sequences) -> Tensor:
        """Gives intents, float ``[B, D]``; zeros for a history without a category."""
        out: Tensor = super().__call__(histories)
        return out

    def forward(self, histories: Sequences) -> Tensor:
        """Gives intents, float ``[B, D]``; zeros for a history without a category."""
        found = self.categories.of_histories(histories)
        return pooling.mean(F.embedding(found.ids, self.vectors), found)


def _item_ids(train: TrainSet) -> Vocabulary:
    if train.item_ids is None:
        raise ValueError("categories are read by the items' outside ids, which this train set does not hold")
    return train.item_ids
