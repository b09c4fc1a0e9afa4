"""Interactions as integers in temporary files: what a log of any size is turned into before it is filtered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl

from conseq.data.batches import Source, Times, check_ids, seconds
from conseq.data.files import append
from conseq.data.reading import TimeUnit

ROWS_IN_MEMORY = 1 << 20

Codes = npt.NDArray[np.int32]


class IdCodes:
    """Numbers ids from 0 in the order in which they are first seen.

    The hash table is that of polars' categories, which is much faster than a dictionary of Python. Its numbers are
    shared by the whole process, so they are numbered again here.
    """

    def __init__(self) -> None:
        self._keep_alive = pl.Series([], dtype=pl.Categorical)
        self._codes: Codes = np.full(0, -1, np.int32)
        self._parts: list[pl.Series] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def encode(self, ids: pl.Series) -> Codes:
        """Gives the codes of ``ids`` (text, none missing), int32 ``[n]``; ids that are new get the next ones."""
        shared = ids.cast(pl.Categorical).to_physical().to_numpy()
        if shared.size and shared.max() >= self._codes.size:
            more = max(int(shared.max()) + 1, 2 * self._codes.size) - self._codes.size
            self._codes = np.concatenate([self._codes, np.full(more, -1, np.int32)])
        codes: Codes = self._codes[shared]
        rows = np.flatnonzero(codes < 0)
        if not rows.size:
            return codes
        new, first = np.unique(shared[rows], return_index=True)
        order = np.argsort(first)
        self._codes[new[order]] = np.arange(self._size, self._size + new.size, dtype=np.int32)
        # Through a list, because gathered text holds on to all of the text that it was gathered from.
        self._parts.append(pl.Series(ids.gather(rows[first[order]]).to_list(), dtype=pl.String))
        self._size += new.size
        np.take(self._codes, shared, out=codes)
        return codes

    def ids(self) -> pl.Series:
        """Gives the ids in the order of their codes."""
        return pl.concat([pl.Series([], dtype=pl.String), *self._parts])


@dataclass(frozen=True)
class Rows:
    """Some interactions.

    Attributes:
        users: int32 ``[n]``.
        items: int32 ``[n]``.
        times: int64 or float64 ``[n]``, or None.
        places: int64 ``[n]``, the place of each in the source; None where nobody asked for it.
    """

    users: Codes
    items: Codes
    times: Times | None
    places: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return self.users.size

    def at(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Rows:
        """Gives the interactions where a mask is true, or those at the given rows, in that order."""
        times = None if self.times is None else self.times[which]
        places = None if self.places is None else self.places[which]
        return Rows(self.users[which], self.items[which], times, places)


@dataclass(frozen=True)
class RowStore:
    """All interactions of a source, as files in a folder.

    Attributes:
        folder: Holds one file per column.
        user_ids: The ids of the user codes.
        item_ids: The ids of the item codes.
        n_rows: Interactions.
        times: The type of the times; None where there are none.
        rows_in_memory: How many interactions to hold in memory at once, here and in what reads the store.
    """

    folder: Path
    user_ids: pl.Series
    item_ids: pl.Series
    n_rows: int
    times: np.dtype[np.int64] | np.dtype[np.float64] | None
    rows_in_memory: int

    def chunks(self, *, places: bool = False) -> Iterator[Rows]:
        """Gives the interactions in the order of the source, some at a time, on request with their places."""
        for start in range(0, self.n_rows, self.rows_in_memory):
            n = min(self.rows_in_memory, self.n_rows - start)
            users = np.fromfile(self.folder / "users", np.int32, n, offset=start * 4)
            items = np.fromfile(self.folder / "items", np.int32, n, offset=start * 4)
            times: Times | None = None
            if self.times is not None:
                times = cast("Times", np.fromfile(self.folder / "times", self.times, n, offset=start * 8))
            yield Rows(users, items, times, np.arange(start, start + n) if places else None)


def ingest(
    source: Source, folder: Path, *, time_unit: TimeUnit = "s", rows_in_memory: int = ROWS_IN_MEMORY
) -> RowStore:
    """Gives the interactions of ``source`` as integers, written to ``folder``.

    In memory are one batch and the two vocabularies, never all interactions.

    Args:
        source: The log; it is read once.
        folder: An empty folder.
        time_unit: What times that are numbers count.
        rows_in_memory: For :class:`RowStore`.

    Returns:
        The store.

    Raises:
        ValueError: if there are no interactions, an id is missing, or a time is missing, not finite or unreadable.
        OSError: if the folder's disk is full; the file is named.
    """
    users, items = IdCodes(), IdCodes()
    n_rows = 0
    parts: list[tuple[int, np.dtype[np.int64] | np.dtype[np.float64]]] = []
    with (
        (folder / "users").open("wb") as user_file,
        (folder / "items").open("wb") as item_file,
        (folder / "times").open("wb") as time_file,
    ):
        for batch in source.batches:
            check_ids(batch.users, source.name, "user", batch.place)
            check_ids(batch.items, source.name, "item", batch.place)
            append(user_file, users.encode(batch.users))
            append(item_file, items.encode(batch.items))
            if batch.times is not None:
                times = seconds(batch.times, source.name, batch.place, unit=time_unit)
                append(time_file, times)
                parts.append((times.size, times.dtype))
            n_rows += len(batch.users)
    if not n_rows:
        raise ValueError(f"{source.name}: there are no interactions in it")
    return RowStore(folder, users.ids(), items.ids(), n_rows, _one_type(folder, parts), rows_in_memory)


def _one_type(
    folder: Path, parts: list[tuple[int, np.dtype[np.int64] | np.dtype[np.float64]]]
) -> np.dtype[np.int64] | np.dtype[np.float64] | None:
    """Gives the type of all times, after making it one where some batches have fractions and others none."""
    types = {kind for _, kind in parts}
    if len(types) < 2:
        return next(iter(types), None)
    mixed = folder / "times"
    with (folder / "times.float").open("wb") as target:
        offset = 0
        for size, kind in parts:
            append(target, np.fromfile(mixed, kind, size, offset=offset).astype(np.float64))
            offset += size * 8
    (folder / "times.float").replace(mixed)
    return np.dtype(np.float64)
