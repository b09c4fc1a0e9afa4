"""Views that know which items count: explanation-guided augmentation (EC4SRec section 4.3).

The k = floor(share n) least important of a history's n items may be dropped, masked or shuffled without much
harm: positive views. A history that has lost its most important items is another one: negative views. Items of
equal importance stand in random order. No view is empty, and what happens to a history does not depend on what
shares its batch.

The style ``released`` is that of the authors' code where it differs from the paper: at least one item of a
history of two or more is dropped, masked or shuffled, and one stays; of the most important items the share is
``1 - share``; a cropped history stands in the order of rising importance instead of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch
from conseq.signals.importance import Importance
from conseq.views.augment import floor_share, random_like

Style = Literal["paper", "released"]


@dataclass(frozen=True, eq=False)
class CropUnimportant:
    """A positive view (ecrop+): the history without its k least important items; at least one stays.

    Attributes:
        importance: Of the examples' items.
        share: μ_e, the share of a history that is unimportant, in ``[0, 1]``.
        style: ``released`` keeps the ``max(1, floor((1 - share) n))`` most important items.
    """

    importance: Importance
    share: float
    style: Style = "paper"

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, batch: Batch, rng: torch.Generator) -> Sequences:
        """Gives the view of each history."""
        seqs = batch.history
        released = self.style == "released"
        kept = floor_share(seqs.lengths, 1 - self.share) if released else seqs.lengths - _k(seqs, self.share)
        rank = ranks(seqs, self.importance.of(batch), rng)
        wanted = rank >= (seqs.lengths - kept.clamp(min=1))[seqs.rows]
        return _cropped(seqs, wanted, rank if released else None)


@dataclass(frozen=True, eq=False)
class MaskUnimportant:
    """A positive view (emask+): the history with its k least important items masked.

    Attributes:
        importance: Of the examples' items.
        share: μ_e, the share of a history that is unimportant, in ``[0, 1]``.
        mask_id: What stands for a masked item: ``encoder.items.mask_id``, or 0 (padding) as in the authors' code.
        style: ``released`` masks at least one item where there are two.
    """

    importance: Importance
    share: float
    mask_id: int
    style: Style = "paper"

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, batch: Batch, rng: torch.Generator) -> Sequences:
        """Gives the view of each history."""
        masked = _least(batch, self.importance, self.share, self.style, rng)
        return batch.history.replace(batch.history.ids.masked_fill(masked, self.mask_id))


@dataclass(frozen=True, eq=False)
class ReorderUnimportant:
    """A positive view (erord+): the k least important items of a history exchange their places at random.

    Attributes:
        importance: Of the examples' items.
        share: μ_e, the share of a history that is unimportant, in ``[0, 1]``.
        style: ``released`` takes at least one item.
    """

    importance: Importance
    share: float
    style: Style = "paper"

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, batch: Batch, rng: torch.Generator) -> Sequences:
        """Gives the view of each history; every order of the k items (the old one, too) is equally likely."""
        return _shuffled(batch.history, _least(batch, self.importance, self.share, self.style, rng), rng)


@dataclass(frozen=True, eq=False)
class CropImportant:
    """A negative view (ecrop-): of a history, only its k least important items, at least one.

    A history of one item has no less important part: its view is the mask.

    Attributes:
        importance: Of the examples' items.
        share: μ_e, the share of a history that is unimportant, in ``[0, 1]``.
        mask_id: ``encoder.items.mask_id``.
        style: ``released`` changes the order.
    """

    importance: Importance
    share: float
    mask_id: int
    style: Style = "paper"

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, batch: Batch, rng: torch.Generator) -> Sequences:
        """Gives the view of each history."""
        seqs = _without_single_items(batch.history, self.mask_id)
        rank = ranks(seqs, self.importance.of(batch), rng)
        wanted = rank < _k(seqs, self.share).clamp(min=1)[seqs.rows]
        return _cropped(seqs, wanted, rank if self.style == "released" else None)


@dataclass(frozen=True, eq=False)
class MaskImportant:
    """A negative view (emask-): the history with its k most important items masked, at least one.

    Attributes:
        importance: Of the examples' items.
        share: μ_e, here the share of a history that is masked, in ``[0, 1]``.
        mask_id: What stands for a masked item: ``encoder.items.mask_id``, or 0 (padding) as in the authors' code.
        style: ``released`` masks the share ``1 - share``.
    """

    importance: Importance
    share: float
    mask_id: int
    style: Style = "paper"

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, batch: Batch, rng: torch.Generator) -> Sequences:
        """Gives the view of each history."""
        masked = _most(batch, self.importance, self.share, self.style, rng)
        return batch.history.replace(batch.history.ids.masked_fill(masked, self.mask_id))


@dataclass(frozen=True, eq=False)
class ReorderImportant:
    """A negative view that the paper leaves out and its code has: the most important items change places.

    A history of one item has no other order: its view is the mask.

    Attributes:
        importance: Of the examples' items.
        share: μ_e, here the share of a history that is shuffled, in ``[0, 1]``; at least one item.
        mask_id: ``encoder.items.mask_id``.
        style: ``released`` shuffles the share ``1 - share``.
    """

    importance: Importance
    share: float
    mask_id: int
    style: Style = "paper"

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, batch: Batch, rng: torch.Generator) -> Sequences:
        """Gives the view of each history."""
        return _shuffled(
            _without_single_items(batch.history, self.mask_id),
            _most(batch, self.importance, self.share, self.style, rng),
            rng,
        )


def _without_single_items(seqs: Sequences, mask_id: int) -> Sequences:
    """Gives the histories, those of one item as the mask: nothing less of them could be a view that is not theirs."""
    alone = (seqs.lengths == 1)[seqs.rows]
    return seqs.replace(seqs.ids.masked_fill(alone, mask_id))


def ranks(seqs: Sequences, scores: Tensor, rng: torch.Generator) -> Tensor:
    """Gives each item's rank by importance in its own sequence; items of equal importance in random order.

    Args:
        seqs: ``B`` sequences.
        scores: float ``[N]``.
        rng: On the CPU.

    Returns:
        int64 ``[N]``; 0 for the least important.
    """
    mixed = torch.argsort(random_like(seqs.ids, rng))
    rising = mixed[torch.argsort(scores[mixed], stable=True)]
    order = rising[torch.argsort(seqs.rows[rising], stable=True)]
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel(), device=seqs.device)
    return place - seqs.offsets[seqs.rows]


def _k(seqs: Sequences, share: float) -> Tensor:
    """Gives int64 ``[B]``, k = floor(share n)."""
    return floor_share(seqs.lengths, share)


def _least(batch: Batch, importance: Importance, share: float, style: Style, rng: torch.Generator) -> Tensor:
    """Gives bool ``[N]``: the k least important items."""
    seqs = batch.history
    k = _k(seqs, share)
    if style == "released":
        k = k.clamp(min=1).minimum(seqs.lengths - 1)
    return ranks(seqs, importance.of(batch), rng) < k[seqs.rows]


def _most(batch: Batch, importance: Importance, share: float, style: Style, rng: torch.Generator) -> Tensor:
    """Gives bool ``[N]``: the k most important items, at least one."""
    seqs = batch.history
    k = _k(seqs, share if style == "paper" else 1 - share).clamp(min=1)
    return ranks(seqs, importance.of(batch), rng) >= (seqs.lengths - k)[seqs.rows]


def _cropped(seqs: Sequences, wanted: Tensor, rank: Tensor | None) -> Sequences:
    """Gives the wanted items, in the order of time or, where given, of their ranks."""
    kept = seqs.keep(wanted)
    if rank is None:
        return kept
    order = torch.argsort(kept.rows * (seqs.max_length + 1) + rank[wanted])
    return kept.replace(kept.ids[order])


def _shuffled(seqs: Sequences, moved: Tensor, rng: torch.Generator) -> Sequences:
    """Gives the sequences with the items at ``moved`` (bool ``[N]``) shuffled within each."""
    places = moved.nonzero()[:, 0]
    order = torch.argsort(seqs.rows[places] + random_like(places, rng))
    return seqs.replace(seqs.ids.index_copy(0, places, seqs.ids[places[order]]))


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"the share of unimportant items must be in [0, 1], found {share}")
