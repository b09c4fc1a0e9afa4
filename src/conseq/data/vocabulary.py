"""Outside ids (strings, unchanged) and the integers that stand for them inside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt


class Vocabulary:
    """A two-way map between outside ids and consecutive integers.

    Items are numbered ``1..n`` (0 pads, ``n + 1`` masks), users ``0..n-1`` (their row in the log).

    Args:
        ids: The outside ids, in the order of their numbers.
        start: The number of the first id.

    Raises:
        ValueError: if an id occurs twice.
    """

    def __init__(self, ids: Sequence[str], *, start: int) -> None:
        self.ids = list(ids)
        self.start = start
        if len(self._numbers) != len(self.ids):
            seen: set[str] = set()
            twice = next(one for one in self.ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
            raise ValueError(f"id {twice!r} occurs twice in the vocabulary; ids must be unique")

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {one: number for number, one in enumerate(self.ids, self.start)}

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, one: str) -> bool:
        return one in self._numbers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.start == other.start and self.ids == other.ids

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} ids from {self.start})"

    def number(self, one: str) -> int | None:
        """Gives the number of ``one``, or None where it is unknown."""
        return self._numbers.get(one)

    def encode(self, ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Gives the numbers of known ids, int64 ``[n]``.

        Args:
            ids: Outside ids.

        Returns:
            Their numbers, in order.

        Raises:
            KeyError: if an id is unknown; the message names it.
        """
        try:
            return np.fromiter((self._numbers[one] for one in ids), dtype=np.int64)
        except KeyError as error:
            raise KeyError(f"unknown id {error.args[0]!r}: not among the {len(self)} known ids") from None

    def decode(self, numbers: npt.ArrayLike) -> list[str]:
        """Gives the outside ids of ``numbers``.

        Args:
            numbers: Integers ``start .. start + n - 1``, any shape of one dimension.

        Returns:
            Their outside ids, in order.

        Raises:
            IndexError: if a number is outside the range.
        """
        rows = np.asarray(numbers, dtype=np.int64) - self.start
        if rows.size and (rows.min() < 0 or rows.max() >= len(self.ids)):
            bad = int(rows[(rows < 0) | (rows >= len(self.ids))][0]) + self.start
            raise IndexError(f"number {bad} is outside {self.start}..{self.start + len(self.ids) - 1}")
        return [self.ids[row] for row in rows.tolist()]
