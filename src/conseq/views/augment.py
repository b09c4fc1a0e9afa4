"""Random views of a history: crop, mask, reorder (CL4SRec, Xie et al., ICDE 2022), and draws among operators.

Every operator works on the whole batch by index arithmetic. What happens to a sequence has the same
distribution whatever shares its batch; no operator writes into what it is given, and none makes a sequence
empty that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from conseq.data.sequences import Sequences, concatenate, slices
from conseq.data.train_set import Batch

Operator: TypeAlias = Callable[[Sequences, torch.Generator], Sequences]
"""Gives as many sequences as it is given, each made from the one in its place."""

View: TypeAlias = Callable[[Batch, torch.Generator], Sequences]
"""Gives one sequence for each example of a batch."""

T = TypeVar("T")


@dataclass(frozen=True)
class Crop:
    """Keeps a random contiguous stretch of ``max(1, floor(ratio * n))`` of a sequence's ``n`` items.

    Attributes:
        ratio: The share that is *kept* (CL4SRec's η), in ``[0, 1]``. Papers and code that state the share that
            is removed mean ``1 - ratio``.
        spare_last: Whether a stretch of ``ratio * n`` items must end before the last one, as in the code of CoSeRec,
            ICLRec and SRMA, whose upper bound is one too low; a stretch of less than one item, of which one is kept,
            may be the last.
    """

    ratio: float
    spare_last: bool = False

    def __post_init__(self) -> None:
        _check_ratio("crop", self.ratio)

    def __call__(self, seqs: Sequences, rng: torch.Generator) -> Sequences:
        """Gives the stretches; every start that there may be is as likely as any other."""
        share = floor_share(seqs.lengths, self.ratio)
        kept = share.clamp(min=1).minimum(seqs.lengths)
        starts = (seqs.lengths - share).clamp(min=1) if self.spare_last else seqs.lengths - kept + 1
        start = random_below(starts, rng)
        return slices(seqs.ids, seqs.offsets[:-1] + start, kept)


@dataclass(frozen=True)
class Mask:
    """Replaces ``floor(ratio * n)`` random items of a sequence of ``n`` by the mask; short ones may keep all.

    Attributes:
        ratio: The share that is masked (CL4SRec's γ), in ``[0, 1]``.
        mask_id: What stands for a masked item: ``encoder.items.mask_id``, or 0 where code masks with padding.
    """

    ratio: float
    mask_id: int

    def __post_init__(self) -> None:
        _check_ratio("mask", self.ratio)

    def __call__(self, seqs: Sequences, rng: torch.Generator) -> Sequences:
        """Gives the masked sequences; every set of ``floor(ratio * n)`` positions is as likely as any other."""
        count = floor_share(seqs.lengths, self.ratio)
        # Within each sequence the tokens stand in random order: the first `count` of them are masked.
        shuffled = torch.argsort(seqs.rows + random_like(seqs.ids, rng))
        masked = shuffled[seqs.positions < count[seqs.rows]]
        return seqs.replace(seqs.ids.index_fill(0, masked, self.mask_id))


@dataclass(frozen=True)
class Reorder:
    """Shuffles a random contiguous stretch of ``floor(ratio * n)`` of a sequence's ``n`` items.

    Attributes:
        ratio: The length of the stretch (CL4SRec's β) as a share of the sequence's, in ``[0, 1]``.
        spare_last: Whether the stretch must end before the last item, as that of a :class:`Crop` may have to.
    """

    ratio: float
    spare_last: bool = False

    def __post_init__(self) -> None:
        _check_ratio("reorder", self.ratio)

    def __call__(self, seqs: Sequences, rng: torch.Generator) -> Sequences:
        """Gives the reordered sequences; every start that there may be and every order are equally likely."""
        count = floor_share(seqs.lengths, self.ratio)
        starts = seqs.lengths - count + (0 if self.spare_last else 1)
        first = random_below(starts.clamp(min=1), rng)
        inside = (seqs.positions >= first[seqs.rows]) & (seqs.positions < (first + count)[seqs.rows])
        # A place inside the stretch is drawn for its tokens, and the others keep theirs.
        place = torch.arange(seqs.ids.numel(), dtype=torch.float64, device=seqs.device)
        drawn = (seqs.offsets[:-1] + first)[seqs.rows] + random_like(seqs.ids, rng) * count[seqs.rows]
        return seqs.replace(seqs.ids[torch.argsort(torch.where(inside, drawn, place))])


@dataclass(frozen=True)
class OneOf(Generic[T]):
    """Applies one operator to each sequence, drawn uniformly for each on its own.

    Attributes:
        operators: One or more, all :data:`Operator` or all :data:`View`; what they are called on, so is this.
    """

    operators: tuple[Callable[[T, torch.Generator], Sequences], ...]

    def __post_init__(self) -> None:
        _check_operators(self.operators, 1)

    def __call__(self, of: T, rng: torch.Generator) -> Sequences:
        """Gives one view of each sequence."""
        parts = [operator(of, rng) for operator in self.operators]
        return pick(parts, torch.randint(len(parts), (len(parts[0]),), generator=rng))


@dataclass(frozen=True)
class TwoOf(Generic[T]):
    """Makes two views of each sequence by two *different* operators, drawn for each sequence on its own.

    Every ordered pair of operators is equally likely.

    Attributes:
        operators: Two or more, all :data:`Operator` or all :data:`View`; what they are called on, so is this.
    """

    operators: tuple[Callable[[T, torch.Generator], Sequences], ...]

    def __post_init__(self) -> None:
        _check_operators(self.operators, 2)

    def __call__(self, of: T, rng: torch.Generator) -> tuple[Sequences, Sequences]:
        """Gives the first and the second views."""
        # Each operator is applied once to all: no sequence takes both of its views from the same one.
        parts = [operator(of, rng) for operator in self.operators]
        n, size = len(parts), (len(parts[0]),)
        first = torch.randint(n, size, generator=rng)
        second = (first + 1 + torch.randint(n - 1, size, generator=rng)) % n
        return pick(parts, first), pick(parts, second)


@dataclass(frozen=True)
class OfHistory:
    """An operator as a view: applied to the histories of a batch.

    Attributes:
        operator: What is applied.
    """

    operator: Operator

    def __call__(self, batch: Batch, rng: torch.Generator) -> Sequences:
        """Gives the operator's view of each history."""
        return self.operator(batch.history, rng)


def pick(parts: Sequence[Sequences], choice: Tensor) -> Sequences:
    """Gives, for each ``i``, sequence ``i`` of ``parts[choice[i]]``.

    Args:
        parts: One or more, of ``B`` sequences each.
        choice: int64 ``[B]``, from 0, on any device.

    Returns:
        ``B`` sequences.

    Raises:
        ValueError: if the parts do not hold ``B`` sequences each.
    """
    size = choice.numel()
    if any(len(part) != size for part in parts):
        raise ValueError(f"expected parts of {size} sequences, found {', '.join(str(len(part)) for part in parts)}")
    choice = choice.to(parts[0].device)
    return concatenate(parts).select(choice * size + torch.arange(size, device=choice.device))


def floor_share(lengths: Tensor, ratio: float) -> Tensor:
    """Gives ``floor(ratio * n)`` for each length ``n``.

    The ratio is read as the decimal that was written: 0.29 of 100 is 29, where floating point says 28.99….

    Args:
        lengths: int64 ``[B]``.
        ratio: At least 0.

    Returns:
        int64 ``[B]``.
    """
    return (lengths.double() * ratio + 1e-9).floor().long()


def random_below(counts: Tensor, rng: torch.Generator) -> Tensor:
    """Gives a random integer of ``0 .. count - 1``, uniform, for each count.

    Args:
        counts: int64 ``[B]``, each at least 1.
        rng: On the CPU.

    Returns:
        int64 ``[B]``, on the device of ``counts``.
    """
    return (random_like(counts, rng) * counts).long().minimum(counts - 1)


def random_like(values: Tensor, rng: torch.Generator) -> Tensor:
    """Gives float64 numbers from ``[0, 1)`` in the shape and on the device of ``values``; ``rng`` on the CPU."""
    return torch.rand(values.shape, generator=rng, dtype=torch.float64).to(values.device)


def _check_ratio(what: str, ratio: float) -> None:
    if not 0 <= ratio <= 1:
        raise ValueError(f"the {what} ratio must be in [0, 1], found {ratio}")


def _check_operators(operators: tuple[object, ...], least: int) -> None:
    if len(operators) < least:
        raise ValueError(f"expected at least {least} operators to draw from, found {len(operators)}")
