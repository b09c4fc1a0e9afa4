"""Lists of recommended items that something else made, as a scorer that can be judged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from conseq.data.batches import Source, check_ids
from conseq.data.columns import NO_COLUMN, called
from conseq.data.prepared import is_prepared
from conseq.data.readers import open_source
from conseq.data.reading import Reading
from conseq.data.sequences import Sequences
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.sparse import SparseScorer, SparseScores

if TYPE_CHECKING:
    from conseq.data.readers import Readable

Order = Literal["rank", "score", "rows"]
LIST_LENGTH, SHORTEST_LIST = "list_length", "shortest_list"
"""Of an evaluation's counts: the items of the longest list, after which no metric is cut off, and of the shortest."""
RANK_NAMES = frozenset({"rank", "position"})
SCORE_NAMES = frozenset({"score", "scores", "prediction"})


@dataclass(frozen=True, eq=False, repr=False)
class Lists:
    """Recommended items, a list for each user, the best first.

    Attributes:
        user_ids: Outside ids (strings), one for each list.
        item_ids: Outside ids (strings) of what is listed, the best first, the lists one behind the other.
        offsets: int64 ``[U + 1]``; the list of user ``u`` is ``item_ids[offsets[u]:offsets[u + 1]]``.
        order: What the order was told by: a column of ranks, a column of scores, or the rows as they stand.
        column: The name of that column.
        equal_scores: Items whose score is that of the one before them in the list: their order is that of the rows.
    """

    user_ids: pl.Series
    item_ids: pl.Series
    offsets: npt.NDArray[np.int64]
    order: Order
    column: str = ""
    equal_scores: int = 0

    def __repr__(self) -> str:
        return f"<conseq.Lists of {len(self.user_ids):,} users: {len(self.item_ids):,} items, by {self.order}>"


def read_lists(
    source: Readable,
    *,
    user: str | None = None,
    item: str | None = None,
    rank: str | None = None,
    score: str | None = None,
) -> Lists:
    """Gives the lists of a table with a row for each recommended item, as ``conseq recommend --out`` writes them.

    Args:
        source: A file (CSV, TSV, JSON lines, Parquet, RecBole's ``.inter``), a folder of such files, or a table.
        user: Name of the user column; None: guessed from its name.
        item: Name of the item column; None: guessed from its name.
        rank: Name of a column of ranks, the smallest first.
        score: Name of a column of scores, the largest first. Where neither is named, a column called ``rank`` or
            ``position`` is taken, else one called ``score`` or ``prediction`` (whatever the capitals), else the order
            of the rows.

    Returns:
        The lists.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a column is missing, both ``rank`` and ``score`` are named, an id, a rank or a score is missing
            or none, a user has two items with one rank, or an item twice.
    """
    if rank is not None and score is not None:
        raise ValueError(
            f"rank={rank!r} and score={score!r} (--rank and --score in a shell) are named; lists have one order: name "
            "one of them"
        )
    opened, order, column = _opened(source, user, item, rank, score)
    pieces = list(_pieces(opened, order))
    if not any(map(len, pieces)):
        raise ValueError(f"{opened.name}: there are no lists in it")
    table = pl.concat(pieces)
    table = table.with_columns(pl.col("user").rank("dense").alias("list"))
    table = table.sort("list", "order", descending=[False, order == "score"], maintain_order=True)
    _check(table, opened.name, order)
    counts = table.group_by("list", maintain_order=True).agg(pl.col("user").first(), pl.len())
    equal = table.select((pl.col("order") == pl.col("order").shift().over("list")).sum()).item()
    return Lists(
        user_ids=counts["user"],
        item_ids=table["item"],
        offsets=np.concatenate([[0], np.cumsum(counts["len"].to_numpy())]).astype(np.int64),
        order=order,
        column=column,
        equal_scores=equal if order == "score" else 0,
    )


class Listed(SparseScorer):
    """Scores the listed items of a user by their place, and nothing else: what is not listed is never recommended.

    Args:
        lists: One list of item numbers for each row of the log, the best first; empty where there is none.
        n_items: Items of the log.
    """

    def __init__(self, lists: Sequences, n_items: int) -> None:
        super().__init__()
        self.lists = lists
        self.n_items = n_items

    def sparse(self, users: Tensor, histories: Sequences) -> SparseScores:
        """Gives minus the place of each listed item, and ``-inf`` for all others."""
        asked = self.lists.select(users)
        return SparseScores(torch.full((self.n_items,), -torch.inf), asked, -asked.positions.float())


@dataclass(frozen=True, eq=False)
class Numbered:
    """Lists in the numbers of a log.

    Attributes:
        lists: One sequence of item numbers for each user of the log; empty where there is no list.
        unknown_users: Lists of users whom the log does not have: they are in no sequence.
        unknown_items: Listed items that the log does not have, each as often as it is listed.
    """

    lists: Sequences
    unknown_users: int
    unknown_items: int


def numbered(
    lists: Lists, user_ids: Vocabulary, item_ids: Vocabulary, *, unknown: Literal["error", "drop"] = "error"
) -> Numbered:
    """Gives lists in the numbers of a log.

    Args:
        lists: The lists.
        user_ids: The log's users.
        item_ids: The log's items.
        unknown: What to do with items that the log does not have: refuse them by name, or leave them out, so that what
            follows in a list moves up.

    Returns:
        The lists.

    Raises:
        ValueError: if the log has none of the users, or not all of the items and they may not be left out.
    """
    rows, items = _numbers_of(lists.user_ids, user_ids), _numbers_of(lists.item_ids, item_ids)
    if (rows < 0).all():
        raise ValueError(
            f"the log has none of the {len(rows):,} users of the lists, such as {lists.user_ids[0]!r}; its own are "
            f"called as {user_ids.ids[0]!r}"
        )
    lacking = lists.item_ids.filter(items < 0)
    if len(lacking) == len(items) or (unknown == "error" and len(lacking)):
        missing = lacking.unique()
        count, first = len(missing), missing.min()
        if len(lacking) == len(items):
            raise ValueError(
                f"the log has none of the {count:,} listed items, such as {first!r}; its own are called as "
                f"{item_ids.ids[0]!r}"
            )
        raise ValueError(
            f"{count:,} of the listed items are not in the log, such as {first!r}; give the log that the lists were "
            "made for, or leave such items out (--unknown drop)"
        )
    owner = np.repeat(rows, np.diff(lists.offsets))
    kept = (owner >= 0) & (items >= 0)
    order = np.argsort(owner[kept], kind="stable")
    counts = np.bincount(owner[kept], minlength=len(user_ids))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    found = Sequences(torch.from_numpy(items[kept][order]), torch.from_numpy(offsets))
    return Numbered(found, int((rows < 0).sum()), len(lacking))


def _numbers_of(ids: pl.Series, known: Vocabulary) -> npt.NDArray[np.int64]:
    """Gives the number of each outside id, int64 ``[n]``; -1 where it is unknown."""
    numbers = pl.Series(np.arange(known.start, known.start + len(known), dtype=np.int64))
    table = pl.DataFrame({"id": pl.Series(known.ids, dtype=pl.String), "number": numbers})
    found = pl.DataFrame({"id": ids}).join(table, on="id", how="left", maintain_order="left")
    return found["number"].fill_null(-1).to_numpy()


def _opened(
    source: Readable,
    user: str | None,
    item: str | None,
    rank: str | None,
    score: str | None,
) -> tuple[Source, Order, str]:
    """Gives the source with what tells the order in the place of the times, what that is, and the column's name."""
    if isinstance(source, str | os.PathLike) and is_prepared(Path(source)):
        raise ValueError(f"{source} is a prepared log; expected a table with a row for each recommended item")
    first = open_source(source, Reading(user=user, item=item, time=NO_COLUMN))
    names = first.columns.every if first.columns is not None else ()
    asked: tuple[tuple[Order, str | None, frozenset[str]], ...] = (
        ("rank", rank, RANK_NAMES),
        ("score", score, SCORE_NAMES),
    )
    for order, name, usual in asked:
        found = [name] if name is not None else called(names, usual) if rank is score is None else []
        if len(found) > 1:
            told = ", ".join(map(repr, found))
            raise ValueError(f"{first.name}: several columns may be the {order}: {told}; choose one with {order}=")
        if found and found[0] not in names:
            told = ", ".join(map(repr, names))
            raise ValueError(f"{first.name}: no column {found[0]!r} for the {order}; the columns are {told}")
        if found:
            return open_source(source, Reading(user=user, item=item, time=found[0])), order, found[0]
    return first, "rows", ""


def _pieces(source: Source, order: Order) -> Iterator[pl.DataFrame]:
    """Gives users, items and what orders them, as they are read."""
    rows = 0
    for batch in source.batches:
        check_ids(batch.users, source.name, "user", batch.place)
        check_ids(batch.items, source.name, "item", batch.place)
        size = len(batch.users)
        if batch.times is None or order == "rows":
            places = pl.Series(np.arange(rows, rows + size, dtype=np.float64))
        else:
            places = _numbers(batch.times, source.name, order)
            bad = ~places.is_finite().fill_null(value=False)
            if bad.any():
                at = cast("int", bad.arg_max())
                found = batch.times[at]
                told = "is missing" if found in {None, ""} else f"is {found!r}"
                raise ValueError(f"{source.name}, {batch.place(at)}: the {order} {told}; expected a finite number")
        rows += size
        yield pl.DataFrame({"user": batch.users, "item": batch.items, "order": places})


def _numbers(column: pl.Series, source: str, order: Order) -> pl.Series:
    kind = column.dtype
    if not (kind.is_numeric() or kind in (pl.String, pl.Null)):
        raise ValueError(f"{source}: the column of the {order} holds {kind}; expected numbers")
    return column.cast(pl.Float64, strict=False)


def _check(table: pl.DataFrame, source: str, order: Order) -> None:
    """Refuses lists that name an item twice, or give two items one rank."""
    twice = table.filter(table.select("user", "item").is_duplicated())
    if len(twice):
        user, item, *_ = twice.row(0)
        raise ValueError(f"{source}: the list of user {user!r} holds the item {item!r} more than once")
    level = table.filter(table.select("user", "order").is_duplicated()) if order == "rank" else table.clear()
    if len(level):
        user, _, rank, *_ = level.row(0)
        raise ValueError(f"{source}: user {user!r} has more than one item of rank {rank:g}; ranks tell the order")
