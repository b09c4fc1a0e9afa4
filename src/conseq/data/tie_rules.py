"""In which order a user's interactions of one time stand, where not as in the source.

Where a log knows days and not hours, this order decides which item of many users is the last one, and so the test part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from conseq.data.reading import Reading
from conseq.data.store import Codes, Rows

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TieRule:
    """Gives interactions of one user and one time a key by which they are ordered; equal keys keep their order.

    Attributes:
        items: int64, by item number: the key, or what it is mixed from.
        users: int64, by user number: mixed into the key, so that each user has an order of its own; None: the items'
            order is that of all users.
    """

    items: Keys
    users: Keys | None = None

    def keys(self, rows: Rows) -> Keys:
        """Gives the key of each interaction, int64 ``[n]``."""
        of_items = self.items[rows.items]
        return of_items if self.users is None else _mixed(self.users[rows.users] + of_items)

    def renumbered(self, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]) -> TieRule:
        """Gives the same rule for other numbers: what is user ``n`` (item ``n``, from 1) there is ``users[n]`` here."""
        of_items = np.concatenate([np.zeros(1, np.int64), self.items[items]])
        return TieRule(of_items, None if self.users is None else self.users[users])


def tie_rule(reading: Reading, user_ids: pl.Series, item_ids: pl.Series) -> TieRule | None:
    """Gives the rule that a setting names.

    Neither order depends on that of the source: ``random`` goes by ids, too, and its order is that of the same ids and
    the same ``tie_seed`` however the rows of the source were sorted.

    Args:
        reading: Says the rule, and the seed of ``random``.
        user_ids: The ids by user code.
        item_ids: The ids by item code.

    Returns:
        The rule; None where the order of the source is kept.
    """
    if reading.ties == "file_order":
        return None
    rank = _text_rank(item_ids)
    if reading.ties == "item_id":
        return TieRule(rank.astype(np.int64))
    rng = np.random.default_rng(reading.tie_seed)
    of_users, of_items = (rng.integers(0, 1 << 62, len(ids)) for ids in (user_ids, item_ids))
    return TieRule(of_items[rank], of_users[_text_rank(user_ids)])


def _mixed(values: Keys) -> Keys:
    """Gives numbers whose order says nothing of that of ``values``, one to one: the finaliser of SplitMix64."""
    mixed = values.view(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).view(np.int64)


def _text_rank(ids: pl.Series) -> Codes:
    """Gives the rank of each id among all, in the order of their Unicode characters."""
    rank = np.empty(len(ids), np.int32)
    rank[ids.arg_sort().to_numpy()] = np.arange(len(ids), dtype=np.int32)
    return rank
