"""Edits of a history that change what it says, each with what an encoder equivariant to it can tell (ECL-SR).

An invasive view is not a positive one: the encoder shall notice it. So every operator gives, beside the edited
history, a yes-or-no question for each of its tokens with the right answer, and the original token whose state
the question is asked under.

======================  ========================================================================
Operator                A token is *changed* where
======================  ========================================================================
substitution, masked    its item is not the one that stood there (a right guess is no change)
substitution, random    its item is not the one that stood there
insertion               it was put in
deletion                something was taken out between it and the token before it
crop                    something was cut off right before it
reorder                 its item is not the one that stood there
======================  ========================================================================

The paper prints the first question only (eq. 15). Compared by place, as it stands there, an insertion would
change every later token; the others ask what a reader of the history so far can answer. Of a token that the edit
could not have changed nothing is asked: the answer would be the same for every history, and the loss is a mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from conseq.data.negatives import UniformNegatives
from conseq.data.sequences import Sequences, slices
from conseq.data.train_set import Batch, TrainSet
from conseq.views.augment import floor_share, random_below, random_like

Draw: TypeAlias = Literal["share", "count", "chance"]


@dataclass(frozen=True, eq=False)
class Edited:
    """Edited histories and what can be told of each token.

    Attributes:
        history: ``B`` sequences, ``N'`` tokens.
        source: int64 ``[N']``, the place among the tokens of the original histories whose state a token is judged
            under: its own where it stood there, else the one that it replaces or follows.
        changed: bool ``[N']``, the answer.
        judged: bool ``[N']``, where the question is asked. False for a token that the operator could not have
            changed (but for ``Choice.judge_first``).
    """

    history: Sequences
    source: Tensor
    changed: Tensor
    judged: Tensor

    def tail(self, length: int) -> Edited:
        """Gives the same of the last ``length`` tokens of each history."""
        seqs = self.history
        kept = seqs.positions >= (seqs.lengths - length)[seqs.rows]
        return Edited(seqs.keep(kept), self.source[kept], self.changed[kept], self.judged[kept])


Edit: TypeAlias = Callable[[Batch, torch.Generator], Edited]
"""Gives the edited histories of a batch."""


@dataclass(frozen=True)
class Choice:
    """Which items of a history are edited.

    A number of items is chosen, or all that may be if those are fewer; every choice is equally likely.

    Attributes:
        ratio: γ, in ``[0, 1]``.
        draw: How many of ``n`` items are chosen. ``share``: ``floor(ratio * n)``, at least one (the paper gives a
            ratio and no rounding); ``count``: ``floor(ratio * n) + 1`` (its code); ``chance``: each item on its own
            with probability γ, and the last that may be where that chose none (the code's second strategy).
        first: Whether the first item may be chosen. Nothing before it tells what it should be; eq. 15 leaves it out.
        judge_first: Whether the first item is judged where items are substituted, though it may not be chosen.
    """

    ratio: float
    draw: Draw = "count"
    first: bool = False
    judge_first: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"the ratio must be in [0, 1], found {self.ratio}")

    def __call__(self, seqs: Sequences, rng: torch.Generator, *, last: bool = True) -> Tensor:
        """Gives the chosen items.

        Args:
            seqs: Histories.
            rng: On the CPU.
            last: Whether the last item may be chosen.

        Returns:
            bool ``[N]``.
        """
        stop = seqs.lengths - int(not last)
        allowed = self.allowed(seqs) & (seqs.positions < stop[seqs.rows])
        uniform = random_like(seqs.ids, rng)
        if self.draw == "chance":
            chosen = (uniform < self.ratio) & allowed
            some = torch.zeros(len(seqs), dtype=torch.bool, device=seqs.device)
            some[seqs.rows[chosen]] = True
            final = seqs.positions == (stop - 1)[seqs.rows]
            return chosen | (final & allowed & ~some[seqs.rows])
        share = floor_share(seqs.lengths, self.ratio)
        count = share + 1 if self.draw == "count" else share.clamp(min=1)
        # Within each sequence the items stand in random order, those that may not be chosen behind the others.
        shuffled = torch.argsort(seqs.rows + (uniform + ~allowed) / 2)
        chosen = torch.zeros_like(allowed)
        chosen[shuffled[seqs.positions < count[seqs.rows]]] = True
        return chosen & allowed

    def allowed(self, seqs: Sequences) -> Tensor:
        """Gives bool ``[N]``: what the rule for the first item allows."""
        return seqs.positions >= (0 if self.first else 1)

    def judged(self, seqs: Sequences) -> Tensor:
        """Gives bool ``[N]``: which items are judged where the chosen ones are substituted."""
        return seqs.positions >= (0 if self.first or self.judge_first else 1)


def substituted(seqs: Sequences, chosen: Tensor, items: Tensor, *, judged: Tensor) -> Edited:
    """Gives histories with other items in the chosen places: what a generator filled in, or random ones.

    Args:
        seqs: The originals.
        chosen: bool ``[N]``, ``m`` of them True.
        items: int64 ``[m]``, in their order.
        judged: bool ``[N]``.

    Returns:
        The edit; an item that is the original one is no change.
    """
    ids = seqs.ids.masked_scatter(chosen, items)
    return Edited(seqs.replace(ids), torch.arange(ids.numel(), device=ids.device), ids != seqs.ids, judged)


@dataclass(frozen=True)
class RandomSubstitution:
    """Replaces chosen items by ones that the user has not met, each equally likely (ECL-SR eq. 4).

    Attributes:
        choice: Which items.
        negatives: Draws the others.
    """

    choice: Choice
    negatives: UniformNegatives

    def __call__(self, batch: Batch, rng: torch.Generator) -> Edited:
        """Gives the edited histories."""
        seqs = batch.history
        chosen = self.choice(seqs, rng)
        drawn = self.negatives.draw(batch.users[seqs.rows[chosen]], 1, rng)[:, 0]
        return substituted(seqs, chosen, drawn, judged=self.choice.judged(seqs))


class Insertion:
    """Puts an item after each chosen one, from a random interaction of another user (ECL-SR eq. 2).

    Any item may be chosen, the first too: nothing is ever put before it.

    Args:
        choice: Which items are followed by a new one; its rule for the first item is not read.
        train: Gives the interactions.

    Raises:
        ValueError: if all interactions are one user's.
    """

    def __init__(self, choice: Choice, train: TrainSet) -> None:
        if train.sequences.max_length == train.sequences.ids.numel():
            raise ValueError("insertion takes items from other users, and the training log has one user only")
        self.choice = Choice(choice.ratio, choice.draw, first=True)
        self.train = train

    def __call__(self, batch: Batch, rng: torch.Generator) -> Edited:
        """Gives the edited histories; they are longer than the originals."""
        seqs = batch.history
        chosen = self.choice(seqs, rng)
        copies = 1 + chosen.long()
        source = torch.repeat_interleave(torch.arange(seqs.ids.numel(), device=seqs.device), copies)
        inserted = torch.zeros_like(source, dtype=torch.bool)
        inserted[1:] = source[1:] == source[:-1]
        rows = self.train.row[batch.rows][seqs.rows[chosen]]
        ids = seqs.ids[source].masked_scatter(inserted, self.from_others(rows, rng))
        before = torch.cat([copies.new_zeros(1), copies.cumsum(0)])
        history = Sequences(ids, before[seqs.offsets])
        return Edited(history, source, inserted, history.positions > 0)

    def from_others(self, rows: Tensor, rng: torch.Generator) -> Tensor:
        """Gives the item of a random interaction outside each training sequence of ``rows``, int64 ``[M]``."""
        flat, offsets = self.train.sequences.ids, self.train.sequences.offsets
        own = offsets[rows + 1] - offsets[rows]
        drawn = random_below(flat.numel() - own, rng)
        return flat[torch.where(drawn < offsets[rows], drawn, drawn + own)]


@dataclass(frozen=True)
class Deletion:
    """Takes the chosen items out, never the last one (ECL-SR eq. 3).

    No token after the last is left to tell its absence by. With that, and with the rule for the first item, a
    history of two is left as it is, and none of its tokens is judged.

    Attributes:
        choice: Which items.
    """

    choice: Choice

    def __call__(self, batch: Batch, rng: torch.Generator) -> Edited:
        """Gives the edited histories."""
        seqs = batch.history
        kept = ~self.choice(seqs, rng, last=False)
        history = seqs.keep(kept)
        source = kept.nonzero().squeeze(1)
        begins = history.positions == 0
        before = torch.where(begins, seqs.offsets[history.rows] - 1, source.roll(1))
        free = seqs.lengths - 1 - int(not self.choice.first)
        judged = self.choice.allowed(history) & (free > 0)[history.rows]
        return Edited(history, source, source != before + 1, judged)


@dataclass(frozen=True)
class Cropping:
    """Keeps a random stretch of a history, shorter by a share of it and never empty (ECL-SR eq. 5).

    Only the first token of the stretch can tell that something is missing, so it alone is judged, and it is not
    where the history is of one item, of which nothing can be cut off.

    Attributes:
        ratio: The share that is cut off, 1 - α.
        draw: How much of ``n`` items that is. ``share``: ``floor((1 - ratio) * n)`` stay (the paper); else
            ``floor(ratio * n) + 1`` go, as many as the other edits of that rule change.
    """

    ratio: float
    draw: Draw = "count"

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"the ratio must be in [0, 1], found {self.ratio}")

    def __call__(self, batch: Batch, rng: torch.Generator) -> Edited:
        """Gives the stretches; every start is equally likely."""
        seqs = batch.history
        if self.draw == "share":
            kept = floor_share(seqs.lengths, 1 - self.ratio).clamp(min=1)
        else:
            kept = (seqs.lengths - floor_share(seqs.lengths, self.ratio) - 1).clamp(min=1)
        start = random_below(seqs.lengths - kept + 1, rng)
        places = slices(torch.arange(seqs.ids.numel(), device=seqs.device), seqs.offsets[:-1] + start, kept)
        history = Sequences(seqs.ids[places.ids], places.offsets)
        begins = history.positions == 0
        shorter = (kept < seqs.lengths)[history.rows]
        return Edited(history, places.ids, begins & (start > 0)[history.rows], begins & shorter)


@dataclass(frozen=True)
class Reordering:
    """Shuffles a random stretch, at least 2 items where there are as many (eq. 6).

    Attributes:
        ratio: The length of the stretch as a share of the history's, α.
        first: Whether the stretch may hold the first item.
        draw: How long it is in ``n`` items. ``share``: ``floor(ratio * n)`` (the paper); else one more.
    """

    ratio: float
    first: bool = False
    draw: Draw = "count"

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"the ratio must be in [0, 1], found {self.ratio}")

    def __call__(self, batch: Batch, rng: torch.Generator) -> Edited:
        """Gives the reordered histories; every start and every order (the old one, too) is equally likely."""
        seqs = batch.history
        begin = torch.full_like(seqs.lengths, 0 if self.first else 1).minimum(seqs.lengths)
        free = seqs.lengths - begin
        more = int(self.draw != "share")
        count = (floor_share(seqs.lengths, self.ratio) + more).clamp(min=2).minimum(free)
        start = begin + random_below(free - count + 1, rng)
        inside = (seqs.positions >= start[seqs.rows]) & (seqs.positions < (start + count)[seqs.rows])
        place = torch.arange(seqs.ids.numel(), dtype=torch.float64, device=seqs.device)
        drawn = (seqs.offsets[:-1] + start)[seqs.rows] + random_like(seqs.ids, rng) * count[seqs.rows]
        ids = seqs.ids[torch.argsort(torch.where(inside, drawn, place))]
        judged = (seqs.positions >= begin[seqs.rows]) & (count > 1)[seqs.rows]
        return Edited(seqs.replace(ids), torch.arange(ids.numel(), device=ids.device), ids != seqs.ids, judged)
