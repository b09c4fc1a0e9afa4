"""Interactions sorted by user and time, some users at a time, so that no log has to fit in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from conseq.data.batches import Times
from conseq.data.files import append
from conseq.data.store import Codes, Rows
from conseq.data.tie_rules import TieRule

_FIELDS = ("users", "items", "times", "places")


def by_user(
    chunks: Iterable[Rows],
    lengths: npt.NDArray[np.int64],
    folder: Path,
    *,
    bucket_rows: int,
    ties: TieRule | None = None,
) -> Iterator[Rows]:
    """Gives the interactions of all users in order of their numbers, each user's in time order.

    Rows are first dealt to buckets, each the rows of consecutive users, in one temporary file; a bucket is then sorted
    in memory.

    Args:
        chunks: The interactions in the order of the source.
        lengths: int64 ``[U]``, how many interactions each user has in ``chunks``.
        folder: For the temporary file.
        bucket_rows: Rows to sort in memory at once (a user with more is sorted alone).
        ties: The order of a user's equal times; None: they keep that of the source.

    Yields:
        Rows of whole users.
    """
    starts = np.cumsum(lengths) - lengths
    opens = np.diff(starts // bucket_rows, prepend=-1) > 0
    # Sixteen bits are sorted by radix, several times faster.
    bucket_of = (np.cumsum(opens) - 1).astype(np.uint16 if opens.sum() < 1 << 16 else np.int32)
    bounds = np.append(starts[opens], lengths.sum())
    path = folder / "buckets"
    kind = _deal(chunks, bucket_of, bounds[:-1].copy(), path)
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        records = np.fromfile(path, kind, end - start, offset=start * kind.itemsize)
        yield _sorted(_from_records(records), ties)
    path.unlink()


def stable_argsort(keys: Codes | Times) -> npt.NDArray[np.int64]:
    """Gives the places of ``keys`` from the smallest to the largest, equal ones in the order in which they stand.

    Integers of a small enough range share 64 bits with their place, and are then sorted as plain numbers: several times
    faster than a stable argsort.

    Args:
        keys: Numbers, one dimension.

    Returns:
        int64 ``[n]``.
    """
    if keys.size and keys.dtype.kind == "i":
        bits = keys.size.bit_length()
        low = int(keys.min())
        if (int(keys.max()) - low).bit_length() + bits < 63:
            packed = ((keys.astype(np.int64) - low) << bits) | np.arange(keys.size)
            packed.sort()
            return packed & ((1 << bits) - 1)
    return np.argsort(keys, kind="stable")


def _sorted(rows: Rows, ties: TieRule | None) -> Rows:
    """Gives the rows by user, then time, then tie rule, the least significant key first."""
    keys: list[Codes | Times] = []
    if rows.times is not None:
        keys += [] if ties is None else [ties.keys(rows)]
        keys.append(rows.times)
    keys.append(rows.users)
    order = None
    for key in keys:
        placed = key if order is None else key[order]
        if not bool(np.all(placed[1:] >= placed[:-1])):
            step = stable_argsort(placed)
            order = step if order is None else order[step]
    return rows if order is None else rows.at(order)


def _deal(
    chunks: Iterable[Rows],
    bucket_of: npt.NDArray[Any],
    cursors: npt.NDArray[np.int64],
    path: Path,
) -> np.dtype[np.void]:
    """Writes each row, as a record, to the next free place of its bucket; gives the type of the records."""
    kind = None
    with path.open("wb") as file:
        for rows in chunks:
            records = _to_records(rows)
            kind = records.dtype
            buckets = bucket_of[rows.users]
            counts = np.bincount(buckets, minlength=cursors.size)
            if counts.max() < records.size:
                records = records[np.argsort(buckets, kind="stable")]
            begin = 0
            for bucket in np.flatnonzero(counts).tolist():
                file.seek(int(cursors[bucket]) * kind.itemsize)
                append(file, records[begin : begin + counts[bucket]])
                begin += counts[bucket]
            cursors += counts
    return cast("np.dtype[np.void]", kind)


def _to_records(rows: Rows) -> npt.NDArray[np.void]:
    columns = {name: column for name in _FIELDS if (column := getattr(rows, name)) is not None}
    records = np.empty(len(rows), np.dtype([(name, column.dtype) for name, column in columns.items()]))
    for name, column in columns.items():
        records[name] = column
    return records


def _from_records(records: npt.NDArray[np.void]) -> Rows:
    names = records.dtype.names or ()
    columns: dict[str, Any] = {name: np.ascontiguousarray(records[name]) for name in names}
    return Rows(columns["users"], columns["items"], columns.get("times"), columns.get("places"))
