"""Another history with the same next item, chosen by what the two have in common (EC4SRec section 4.3, ertrl+)."""

from __future__ import annotations

import torch
from torch import Tensor

from conseq.data.sequences import Sequences, slices
from conseq.data.train_set import Batch, TrainSet
from conseq.signals.importance import Importance
from conseq.views.augment import random_like
from conseq.views.same_target import SameTarget


class RetrieveAlike:
    r"""A view: the history of another user with the same target, by a probability proportional to

    .. math:: util(s') = \frac{|s \cap s'|}{|s \cup s'|} \sum_{v \in s \cap s'} score(v)

    where s and s' are sets of items and the scores are the importances of the items of s, summed over an item's
    occurrences. Where no candidate shares an item with the history (the paper's probability is then 0/0), each
    is as likely as any other. A history without candidates is its own view.

    Args:
        train: The examples. Batches that the view is asked for must be cut from it.
        importance: Of the examples' items; negative ones count as 0.
        most: Candidates of a history that are weighed, drawn uniformly where there are more; all where None.
            They are what the view costs: a popular target has as many as it has occurrences.

    Raises:
        ValueError: if ``most`` is less than 1.
    """

    def __init__(self, train: TrainSet, importance: Importance, *, most: int | None = None) -> None:
        if most is not None and most < 1:
            raise ValueError(f"at least 1 candidate must be weighed, found {most}")
        self.train = train
        self.importance = importance
        self.most = most
        self.same_target = SameTarget(train, other_users=True)
        self.before = _place_before(train.sequences)

    def __repr__(self) -> str:
        return f"RetrieveAlike(most={self.most})"

    def __call__(self, batch: Batch, rng: torch.Generator) -> Sequences:
        """Gives, for each example of the batch, the history of a candidate."""
        rows = self.draw(batch, rng)
        start = self.train.start[rows]
        return slices(self.train.sequences.ids, start, self.train.end[rows] - start)

    def draw(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """Gives a candidate of each example, int64 ``[B]`` numbers of examples; its own where it has none."""
        candidates = self._some(self.same_target.candidates(batch.rows), rng)
        utility = self.utilities(batch, candidates)
        total = utility.new_zeros(len(batch)).index_add_(0, candidates.rows, utility)
        utility = torch.where((total > 0)[candidates.rows], utility, 1.0)
        bounds = torch.cat([utility.new_zeros(1), utility.cumsum(0)])
        low, high = bounds[candidates.offsets[:-1]], bounds[candidates.offsets[1:]]
        drawn = torch.searchsorted(bounds, low + random_like(low, rng) * (high - low), right=True) - 1
        # Rounding may carry a draw onto the edge, where the next history's candidates begin.
        drawn = drawn.minimum(candidates.offsets[1:] - 1).maximum(candidates.offsets[:-1])
        none = candidates.lengths == 0
        padded = torch.cat([candidates.ids, candidates.ids.new_zeros(1)])
        return torch.where(none, batch.rows, padded[drawn])

    def utilities(self, batch: Batch, candidates: Sequences) -> Tensor:
        """Gives the utility of each candidate.

        Args:
            batch: The examples.
            candidates: ``B`` sequences of numbers of examples, one sequence for each example of the batch.

        Returns:
            float64, one number per candidate, at least 0.
        """
        train, history = self.train, batch.history
        width = train.n_items + 2
        # The items of each history, once, with the sum of the importances of their occurrences.
        keys, place = torch.unique(history.rows * width + history.ids, return_inverse=True)
        scores = self.importance.of(batch).double().clamp(min=0)
        worth = scores.new_zeros(len(keys)).index_add_(0, place, scores)
        start = train.start[candidates.ids]
        items = slices(train.sequences.ids, start, train.end[candidates.ids] - start)
        wanted = (candidates.rows * width).index_select(0, items.rows) + items.ids
        found = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
        # Of an item that a candidate holds more than once, only its first occurrence counts.
        begin = start.index_select(0, items.rows)
        first = self.before.index_select(0, begin + items.positions) < begin
        shared = (first & (keys.index_select(0, found) == wanted)).nonzero()[:, 0]
        theirs = torch.bincount(items.rows[first], minlength=len(start))
        ours = torch.bincount(keys // width, minlength=len(batch))[candidates.rows]
        common = torch.bincount(items.rows[shared], minlength=len(start))
        value = torch.bincount(items.rows[shared], worth[found[shared]], minlength=len(start))
        return common.double() / (ours + theirs - common) * value

    def _some(self, candidates: Sequences, rng: torch.Generator) -> Sequences:
        """Gives at most ``most`` random candidates of each history."""
        if self.most is None or candidates.max_length <= self.most:
            return candidates
        mixed = torch.argsort(candidates.rows + random_like(candidates.ids, rng))
        return candidates.replace(candidates.ids[mixed]).keep(candidates.positions < self.most)


def _place_before(seqs: Sequences) -> Tensor:
    """Gives int64 ``[N]``: the place of the same item's last occurrence before, in the same sequence; -1: none."""
    order = torch.argsort(seqs.ids, stable=True)
    order = order[torch.argsort(seqs.rows[order], stable=True)]
    ids, rows = seqs.ids[order], seqs.rows[order]
    again = (ids[1:] == ids[:-1]) & (rows[1:] == rows[:-1])
    before = torch.full_like(order, -1)
    before[order[1:]] = torch.where(again, order[:-1], -1)
    return before
