"""Items that a user has not met, drawn uniformly."""

from __future__ import annotations

import torch
from torch import Tensor

from conseq.data.sequences import Sequences


class UniformNegatives:
    """Draws items outside a user's training history; never padding, never the mask.

    The draw is exact: a rank among the items that the user has not met is drawn and translated into an item,
    so nothing is rejected and every call takes the same number of random numbers.

    Args:
        sequences: Training sequences, one per user.
        users: int64 ``[U]``, the row in the log of each sequence.
        n_items: Items in the catalogue.

    Raises:
        ValueError: if a user has met every item.
    """

    def __init__(self, sequences: Sequences, users: Tensor, n_items: int) -> None:
        self.n_items = n_items
        keys = torch.unique(users[sequences.rows] * (n_items + 1) + sequences.ids)
        owner, item = keys // (n_items + 1), keys % (n_items + 1)
        size = int(users.max()) + 1
        self.met = torch.bincount(owner, minlength=size)
        if int(self.met.max()) >= n_items:
            user = int(self.met.argmax())
            raise ValueError(
                f"the user in row {user} has met all {n_items} items, so there is no negative to draw; choose a loss "
                "without negatives (loss = cross_entropy), or leave such users out of the log"
            )
        self.begin = torch.cat([self.met.new_zeros(1), self.met.cumsum(0)])
        nth = torch.arange(keys.numel(), device=keys.device) - self.begin[owner]
        # An item's predecessors that the user has not met; constant or rising inside a user.
        self.skips = owner * (n_items + 1) + (item - 1 - nth)

    def to(self, device: torch.device | str) -> UniformNegatives:
        """Gives the same sampler on ``device``."""
        other = object.__new__(UniformNegatives)
        other.n_items = self.n_items
        other.met, other.begin, other.skips = (one.to(device) for one in (self.met, self.begin, self.skips))
        return other

    def draw(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Gives negatives, with replacement.

        Args:
            users: int64 ``[M]``, rows in the log that had a training sequence.
            count: Negatives for each.
            generator: On the CPU.

        Returns:
            int64 ``[M, count]``, items ``1..n_items`` that the user has not met.
        """
        free = (self.n_items - self.met[users])[:, None]
        share = torch.rand(len(users), count, generator=generator, dtype=torch.float64).to(users.device)
        rank = (share * free).long().clamp(max=free - 1)
        key = users[:, None] * (self.n_items + 1) + rank
        met_before = torch.searchsorted(self.skips, key, right=True) - self.begin[users][:, None]
        return rank + met_before + 1

    def log_probability(self, users: Tensor) -> Tensor:
        """Gives the log-probability with which a draw gives any one item that the user has not met.

        Args:
            users: int64 ``[M]``, rows in the log that had a training sequence.

        Returns:
            float32 ``[M]``.
        """
        return -(self.n_items - self.met[users]).float().log()
