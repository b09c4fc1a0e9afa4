"""What a recommender answers: arrays in outside ids, or a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conseq.serving.ranking import Answer

SOURCES = ("model", "popularity")
"""What the scores of a table's row are of; the second, which are counts, where a history has no known item."""


@dataclass(frozen=True, eq=False)
class Recommendations:
    """Items and scores, best first; unpacks as ``ids, scores``.

    Where fewer than ``k`` items may be recommended, the rest of the row is ``None`` and ``-inf``.

    Attributes:
        ids: Outside ids, object array ``[B, k]``, or ``[k]`` for one history by itself.
        scores: float32, of the same shape.
        dropped: Unknown items that were left out of the histories, in all.
        empty: int64, the rows whose history had no known item: where they are answered with what is popular, their
            scores are counts.
    """

    ids: npt.NDArray[np.object_]
    scores: npt.NDArray[np.float32]
    dropped: int
    empty: npt.NDArray[np.int64]

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Gives the ids, then the scores."""
        return iter((self.ids, self.scores))

    def to_dicts(self) -> list[Any]:
        """Gives plain values for JSON: per history a list of ``item_id``, ``score`` and ``rank`` (from 1).

        For one history by itself, that one list. What is not there has no entry.
        """
        ids, scores = np.atleast_2d(self.ids).tolist(), np.atleast_2d(self.scores).tolist()
        answers = [
            [
                {"item_id": one, "score": score, "rank": rank}
                for rank, (one, score) in enumerate(zip(row, values, strict=True), 1)
                if one is not None
            ]
            for row, values in zip(ids, scores, strict=True)
        ]
        return answers[0] if self.ids.ndim == 1 else answers


def table_of(answer: Answer, users: Sequence[str], item_ids: Sequence[str], *, sources: bool) -> pl.DataFrame:
    """Gives an answer as a table with one row per user and item, best first.

    Args:
        answer: The best items of each user.
        users: The users' outside ids.
        item_ids: Outside ids of the items from 1.
        sources: Whether a column ``source`` says what the scores of each row are of, as in :data:`SOURCES`.

    Returns:
        Columns ``user_id``, ``item_id`` (strings), ``score`` (float32) and ``rank`` (from 1), and on request
        ``source``.
    """
    row, place = (answer.numbers > 0).nonzero(as_tuple=True)
    items = answer.numbers[row, place] - 1
    table = pl.DataFrame(
        {
            "user_id": pl.Series(users, dtype=pl.String).gather(row.numpy()),
            "item_id": pl.Series(item_ids, dtype=pl.String).gather(items.numpy()),
            "score": answer.scores[row, place].numpy(),
            "rank": place.numpy() + 1,
        }
    )
    return with_sources(table, np.isin(row.numpy(), answer.empty.numpy())) if sources else table


def with_sources(table: pl.DataFrame, popular: npt.NDArray[np.bool_]) -> pl.DataFrame:
    """Gives a table with a column ``source``: what each row's score is of, popularity where ``popular`` is true."""
    of_model, of_popularity = SOURCES
    return table.with_columns(source=pl.Series(np.where(popular, of_popularity, of_model).tolist(), dtype=pl.String))
