"""An interaction log: who met which item, in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conseq.data.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False, repr=False)
class InteractionLog:
    """Every user's items in time order, as flat arrays (in memory or memory-mapped).

    User ``u`` (a row, ``0..n_users-1``) met ``items[offsets[u] : offsets[u + 1]]``.

    Attributes:
        items: int32 ``[N]``, item numbers ``1..n_items``.
        offsets: int64 ``[U + 1]``.
        times: int64 or float64 ``[N]`` in Unix seconds, non-decreasing inside a user; None where the log has no times.
        user_ids: Outside ids of the rows.
        item_ids: Outside ids of the item numbers.
        manifest: Where the log came from and what was done to it (JSON values).
    """

    items: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64] | npt.NDArray[np.float64] | None
    user_ids: Vocabulary
    item_ids: Vocabulary
    manifest: dict[str, object]

    @property
    def n_users(self) -> int:
        """Users in the log."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Different items in the log."""
        return len(self.item_ids)

    def __len__(self) -> int:
        """Interactions in the log."""
        return int(self.items.size)

    def __repr__(self) -> str:
        order = "the order of the source" if self.times is None else "times"
        counts = f"{self.n_users:,} users, {self.n_items:,} items, {len(self):,} interactions"
        return f"<conseq.InteractionLog: {counts}, by {order}>"
