"""Another history with the same next item: DuoRec's semantic view (Qiu et al., WSDM 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from conseq.data.sequences import Sequences, slices
from conseq.data.train_set import Batch, TrainSet
from conseq.views.augment import random_below


class SameTarget:
    """A view: the history of another training example that has the same target, drawn uniformly.

    The target of an example is the item after the end of its history: with ``prefixes`` the one item that it
    asks for, with ``whole`` the last of them. An example with no candidates is its own view.

    Args:
        train: The examples. Batches that the view is asked for must be cut from it.
        other_users: Whether the candidates are of other users only. False: every other example, with those of
            the same user that has met the target twice (the authors' code).
    """

    def __init__(self, train: TrainSet, *, other_users: bool = False) -> None:
        self.train = train
        self.other_users = other_users
        self.users = train.users
        self.n_users = int(self.users.max()) + 1
        self.targets = train.sequences.ids[train.end]
        keys = self.targets * self.n_users + self.users
        # Examples of one target stand together and, among them, those of one user.
        self.order = torch.argsort(keys, stable=True)
        self.keys = keys[self.order]
        self.place = torch.empty_like(self.order)
        self.place[self.order] = torch.arange(len(train), device=train.device)

    def __repr__(self) -> str:
        return f"SameTarget(other_users={self.other_users})"

    def __call__(self, batch: Batch, rng: torch.Generator) -> Sequences:
        """Gives, for each example of the batch, the history of a random candidate."""
        rows = self.draw(batch.rows, rng)
        start = self.train.start[rows]
        return slices(self.train.sequences.ids, start, self.train.end[rows] - start)

    def draw(self, rows: Tensor, rng: torch.Generator) -> Tensor:
        """Gives a random candidate of each example.

        Args:
            rows: int64 ``[B]``, numbers of examples in the train set.
            rng: On the CPU.

        Returns:
            int64 ``[B]``, numbers of examples; the example's own where it has no candidates.
        """
        begin, end, own, size = self._group(rows)
        others = end - begin - size
        place = begin + random_below(others.clamp(min=1), rng)
        place = torch.where(place < own, place, place + size)
        return torch.where(others > 0, self.order[place.clamp(max=len(self.order) - 1)], rows)

    def candidates(self, rows: Tensor) -> Sequences:
        """Gives the numbers of all candidates of each example, in no stated order.

        Args:
            rows: int64 ``[B]``, numbers of examples in the train set.

        Returns:
            ``B`` sequences of numbers of examples; empty where there are no candidates.
        """
        begin, end, own, size = self._group(rows)
        group = slices(torch.arange(len(self.order), device=rows.device), begin, end - begin)
        outside = (group.ids < own[group.rows]) | (group.ids >= (own + size)[group.rows])
        found = group.keep(outside)
        return found.replace(self.order[found.ids])

    def _group(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gives where in ``order`` a target's examples begin and end, and the run among them that is left out."""
        first = self.targets[rows] * self.n_users
        begin, end = torch.searchsorted(self.keys, torch.stack([first, first + self.n_users]))
        if not self.other_users:
            return begin, end, self.place[rows], torch.ones_like(begin)
        key = first + self.users[rows]
        own = torch.searchsorted(self.keys, key)
        return begin, end, own, torch.searchsorted(self.keys, key, right=True) - own
