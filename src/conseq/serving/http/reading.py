"""What a request asks for, read and checked before the model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from conseq.data.log import InteractionLog
from conseq.serving.histories import as_id, chosen_users
from conseq.serving.http.batching import Asked, Question
from conseq.serving.http.limits import Limits
from conseq.serving.http.live import Live
from conseq.serving.http.messages import HistoriesRequest, RecommendRequest, SimilarRequest


class Reader:
    """Reads requests, and refuses what cannot be meant before the model is asked.

    Args:
        live: The model, whose service says what an empty history gets.
        limits: What is refused.
        log: Histories by user id; None where there are none.
    """

    def __init__(self, live: Live, limits: Limits, log: InteractionLog | None) -> None:
        self._on_empty = live.on_empty
        self._limits = limits
        self._log = log

    def recommendations(self, request: RecommendRequest) -> Asked:
        """Gives a request for recommendations.

        Args:
            request: The request as it came.

        Returns:
            What is asked.

        Raises:
            ValueError: if it asks for too much, or its lists to exclude are not one for each history.
            KeyError: if a user is unknown.
            TypeError: if an id is neither a string nor an integer.
        """
        histories = self.histories(request)
        self._check_k(request.k)
        question = Question(
            k=request.k,
            exclude_seen=request.exclude_seen,
            candidates=None if request.candidates is None else tuple(_ids(request.candidates, "candidates")),
            unknown=request.unknown,
            on_empty=request.on_empty or self._on_empty,
        )
        return Asked(question, histories, _exclusions(request.exclude, len(histories)))

    def histories(self, request: HistoriesRequest) -> list[list[str]]:
        """Gives the histories of a request.

        Args:
            request: The request as it came.

        Returns:
            Item ids of each.

        Raises:
            ValueError: if not one of the ways of giving histories is taken, or there are too many.
            KeyError: if a user is unknown.
            TypeError: if an id is neither a string nor an integer.
        """
        given = (request.history, request.histories, request.users)
        if sum(one is not None for one in given) != 1:
            raise ValueError("give one of the keys 'history', 'histories' and 'users'")
        if request.history is not None:
            return [_ids(request.history, "history")]
        if request.histories is not None:
            self._check_number(len(request.histories), "histories")
            return _rows(request.histories, "histories")
        return self._of_users(request.users or [])

    def items(self, request: SimilarRequest) -> list[str]:
        """Gives the items whose neighbours are asked for.

        Args:
            request: The request as it came.

        Returns:
            Their ids.

        Raises:
            ValueError: if not one of the ways of giving items is taken, or there are too many, or ``k`` is too large.
            TypeError: if an id is neither a string nor an integer.
        """
        if (request.item is None) == (request.items is None):
            raise ValueError("give one of the keys 'item' and 'items'")
        self._check_k(request.k)
        if request.items is None:
            return _ids([request.item], "item")
        self._check_number(len(request.items), "items")
        return _ids(request.items, "items")

    def _of_users(self, users: Sequence[object]) -> list[list[str]]:
        log = self._log
        if log is None:
            raise ValueError("key 'users': this service was started without a log; give 'histories'")
        self._check_number(len(users), "users")
        rows = log.user_ids.encode(chosen_users(users, log.user_ids)).tolist()
        return [log.item_ids.decode(log.items[log.offsets[row] : log.offsets[row + 1]]) for row in rows]

    def _check_k(self, k: int) -> None:
        if k > self._limits.k:
            raise ValueError(f"key 'k': {k}, but this service gives at most {self._limits.k} items")

    def _check_number(self, number: int, key: str) -> None:
        if number > self._limits.histories:
            raise ValueError(f"key {key!r}: {number}, but a request may have at most {self._limits.histories} of them")


def _ids(values: Sequence[object], key: str) -> list[str]:
    try:
        return [as_id(one) for one in values]
    except TypeError as error:
        raise TypeError(f"key {key!r}: {error}") from None


def _rows(values: Sequence[object], key: str) -> list[list[str]]:
    for number, row in enumerate(values):
        if not isinstance(row, list):
            raise TypeError(f"key {key!r}: row {number} is {row!r:.60}; expected a list of item ids")
    return [_ids(row, key) for row in cast("Sequence[list[object]]", values)]


def _exclusions(given: list[Any] | None, histories: int) -> list[list[str]] | None:
    """Gives the items to leave out for each history."""
    if not given:
        return None
    if not isinstance(given[0], list):
        return [_ids(given, "exclude")] * histories
    if len(given) != histories:
        raise ValueError(f"key 'exclude': {len(given)} lists for {histories} histories; give one for each, or one list")
    return _rows(given, "exclude")
