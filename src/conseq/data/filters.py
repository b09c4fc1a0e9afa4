"""Which interactions of a store are kept: repeats, k-core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from conseq.data.files import append
from conseq.data.ordering import by_user
from conseq.data.store import Codes, Rows, RowStore
from conseq.data.tie_rules import TieRule

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sizes:
    """How much a log holds."""

    users: int
    items: int
    interactions: int

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions"


@dataclass(frozen=True)
class Kept:
    """What the filters so far have kept of a store.

    Attributes:
        users: bool, by user code.
        items: bool, by item code.
        rows: bool, by place in the source (memory-mapped); None where no single row was dropped.
        interactions: How many interactions that leaves.
    """

    users: Mask
    items: Mask
    rows: Mask | None
    interactions: int

    @property
    def sizes(self) -> Sizes:
        """How much is kept."""
        return Sizes(int(self.users.sum()), int(self.items.sum()), self.interactions)

    def of(self, store: RowStore) -> Iterator[Rows]:
        """Gives the kept interactions in the order of the source, a chunk at a time."""
        everyone = bool(self.users.all() and self.items.all())
        start = 0
        for rows in store.chunks():
            mask = None if self.rows is None else np.asarray(self.rows[start : start + len(rows)])
            start += len(rows)
            if not everyone:
                alive = self.users[rows.users] & self.items[rows.items]
                mask = alive if mask is None else mask & alive
            yield rows if mask is None else rows.at(mask)


def everything(store: RowStore) -> Kept:
    """Gives what is kept before any filter."""
    users, items = np.ones(len(store.user_ids), np.bool_), np.ones(len(store.item_ids), np.bool_)
    return Kept(users, items, None, store.n_rows)


def count_into(counts: Counts, codes: Codes, *, sign: Literal[1, -1] = 1) -> None:
    """Adds to ``counts`` (by code), or takes from it, how often each code occurs."""
    if codes.size:
        low = int(codes.min())
        part = np.bincount(codes - low)
        counts[low : low + part.size] += sign * part


def without_repeats(
    store: RowStore, kept: Kept, which: Literal["distinct", "first", "last"], folder: Path, *, ties: TieRule | None
) -> Kept:
    """Gives what is left when each user keeps the first or the last interaction with an item, or one for each time.

    Args:
        store: The interactions.
        kept: What is kept so far: all of them.
        which: The interaction to keep, in time order; ``distinct``: one of those that are equal in user, item and time.
        folder: For temporary files.
        ties: The order of equal times; None: that of the source.

    Returns:
        What is left.

    Raises:
        ValueError: if ``distinct`` is asked of a store without times.
    """
    if which == "distinct" and store.times is None:
        raise ValueError(
            "repeats='distinct' (--repeats distinct in a shell) keeps a user's interactions with an item that have "
            "different times, and the log has no times; choose first or last"
        )
    lengths = np.zeros(kept.users.size, np.int64)
    for rows in store.chunks():
        count_into(lengths, rows.users)
    mask = np.memmap(folder / "kept", np.bool_, "w+", shape=(store.n_rows,))
    n_kept = 0
    for group in by_user(store.chunks(places=True), lengths, folder, bucket_rows=store.rows_in_memory, ties=ties):
        owners = group.users.astype(np.int64)
        if which == "distinct" and group.times is not None:
            # A number for each time of each user takes the user's place.
            same = (group.users[1:] == group.users[:-1]) & (group.times[1:] == group.times[:-1])
            owners = np.cumsum(np.concatenate([[0], ~same]))
        pairs = owners * kept.items.size + group.items
        if which == "last":
            pairs = pairs[::-1]
        chosen = np.unique(pairs, return_index=True)[1]
        if which == "last":
            chosen = pairs.size - 1 - chosen
        if group.places is not None:
            mask[group.places[chosen]] = True
        n_kept += chosen.size
    return replace(kept, rows=mask, interactions=n_kept)


def core(store: RowStore, kept: Kept, least: tuple[int, int], folder: Path) -> tuple[Kept, int]:
    """Gives the largest part of the log in which every user and every item has enough interactions.

    Weak users and items are taken out together, again and again, until none is left. Each round reads the interactions
    that survived the last one, from a file.

    Args:
        store: The interactions.
        kept: What is kept so far.
        least: The fewest interactions of a user and of an item.
        folder: For temporary files.

    Returns:
        What is left, maybe nothing, and the number of rounds that took something out.
    """
    users, items = kept.users.copy(), kept.items.copy()
    least = (max(1, least[0]), max(1, least[1]))
    of_users, of_items = np.zeros(users.size, np.int64), np.zeros(items.size, np.int64)
    for rows in kept.of(store):
        count_into(of_users, rows.users)
        count_into(of_items, rows.items)
    rounds, left = 0, kept.interactions
    source, target = folder / "core", folder / "core.next"
    while (users & (of_users < least[0])).any() or (items & (of_items < least[1])).any():
        users &= of_users >= least[0]
        items &= of_items >= least[1]
        rounds += 1
        pairs = _pairs_of(kept, store) if rounds == 1 else _pairs_in(source, left, store.rows_in_memory)
        left = _survivors(pairs, users, items, (of_users, of_items), target)
        target.replace(source)
    source.unlink(missing_ok=True)
    return Kept(users, items, kept.rows, left), rounds


def largest_core(store: RowStore, kept: Kept, least: tuple[int, int], folder: Path) -> tuple[int, Sizes]:
    """Gives the largest ``k`` whose core is not empty, at most the largest of ``least``, and what that core holds.

    Args:
        store: The interactions.
        kept: What is kept before the core.
        least: The thresholds that leave nothing; that of ``k`` is the smaller of ``k`` and each.
        folder: For temporary files.

    Returns:
        ``k``, at least 1, and the sizes.
    """
    best = (1, kept.sizes)
    for k in range(2, max(least) + 1):
        kept, _ = core(store, kept, (min(k, least[0]), min(k, least[1])), folder)
        if not kept.interactions:
            break
        best = (k, kept.sizes)
    return best


def _pairs_of(kept: Kept, store: RowStore) -> Iterator[npt.NDArray[np.int32]]:
    for rows in kept.of(store):
        yield np.stack([rows.users, rows.items], axis=1)


def _pairs_in(path: Path, n: int, step: int) -> Iterator[npt.NDArray[np.int32]]:
    for start in range(0, n, step):
        yield np.fromfile(path, np.int32, 2 * min(step, n - start), offset=start * 8).reshape(-1, 2)


def _survivors(
    pairs: Iterator[npt.NDArray[np.int32]],
    users: Mask,
    items: Mask,
    counts: tuple[Counts, Counts],
    target: Path,
) -> int:
    """Writes the pairs of a kept user and a kept item, takes the others out of ``counts``; gives how many stay."""
    left = 0
    with target.open("wb") as file:
        for some in pairs:
            stays = users[some[:, 0]] & items[some[:, 1]]
            gone, staying = some[~stays], some[stays]
            for column in (0, 1):
                count_into(counts[column], gone[:, column], sign=-1)
            append(file, staying)
            left += len(staying)
    return left
