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


class RefusedError(Exception):
    """A request cannot be meant as it is."""


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
            RefusedError: if it asks for too much or names a user who is unknown, an id is neither a string nor an
                integer, or its lists to exclude, or of candidates, are not one for each history.
        """
        histories = self.histories(request, _numbers(request.candidates, request.exclude))
        self._check_k(request.k, len(histories))
        excluded, excluded_of_each = _beside(request.exclude or [], len(histories), "exclude")
        if excluded and len(histories) == 1:
            # One history's own list does not keep the request from being answered with others.
            excluded, excluded_of_each = (), [list(excluded)]
        among, among_of_each = _beside(request.candidates or [], len(histories), "candidates")
        question = Question(
            k=request.k,
            exclude_seen=request.exclude_seen,
            candidates=None if request.candidates is None or among_of_each is not None else among,
            unknown=request.unknown,
            on_empty=request.on_empty or self._on_empty,
            exclude=excluded,
            own_candidates=among_of_each is not None,
        )
        return Asked(question, histories, excluded_of_each, among_of_each or ())

    def histories(self, request: HistoriesRequest, more: int = 0) -> list[list[str]]:
        """Gives the histories of a request.

        Args:
            request: The request as it came.
            more: Ids that it has beside those of histories.

        Returns:
            Item ids of each.

        Raises:
            RefusedError: if not one of the ways of giving histories is taken, there is too much of something, a user
                is unknown, or an id is neither a string nor an integer.
        """
        given = (request.history, request.histories, request.users)
        if sum(one is not None for one in given) != 1:
            raise RefusedError("give one of the keys 'history', 'histories' and 'users'")
        if request.users is not None:
            self._check_ids(more)
            return self._of_users(request.users)
        if request.histories is not None:
            self._check_number(len(request.histories), "histories")
        rows = [request.history] if request.histories is None else request.histories
        self._check_ids(more + sum(_numbers(row) for row in rows))
        return [_ids(request.history, "history")] if request.history is not None else _rows(rows, "histories")

    def items(self, request: SimilarRequest) -> list[str]:
        """Gives the items whose neighbours are asked for.

        Args:
            request: The request as it came.

        Returns:
            Their ids.

        Raises:
            RefusedError: if not one of the ways of giving items is taken, there are too many, ``k`` is too large, or
                an id is neither a string nor an integer.
        """
        if (request.item is None) == (request.items is None):
            raise RefusedError("give one of the keys 'item' and 'items'")
        items = [request.item] if request.items is None else request.items
        self._check_number(len(items), "items")
        self._check_k(request.k, len(items))
        return _ids(items, "item" if request.items is None else "items")

    def _of_users(self, users: Sequence[object]) -> list[list[str]]:
        log = self._log
        if log is None:
            raise RefusedError("key 'users': this service was started without a log; give 'histories'")
        self._check_number(len(users), "users")
        try:
            rows = log.user_ids.encode(chosen_users(users, log.user_ids)).tolist()
        except (KeyError, TypeError) as error:
            raise RefusedError(f"key 'users': {str(error.args[0]).removeprefix('users: ')}") from None
        return [log.item_ids.decode(log.items[log.offsets[row] : log.offsets[row + 1]]) for row in rows]

    def _check_k(self, k: int, histories: int) -> None:
        if k > self._limits.k:
            raise RefusedError(f"key 'k': {k}, but this service gives at most {self._limits.k} items")
        if k * histories > self._limits.answer:
            raise RefusedError(f"{histories} times {k} items, but an answer has at most {self._limits.answer} of them")

    def _check_number(self, number: int, key: str) -> None:
        most = self._limits.histories
        if number > most:
            raise RefusedError(f"key {key!r}: {number}, but a request may have at most {most} of them")

    def _check_ids(self, number: int) -> None:
        if number > self._limits.ids:
            raise RefusedError(f"{number} ids, but a request may have at most {self._limits.ids} of them")


def _numbers(*lists: object) -> int:
    """Gives how many ids there are in lists, and in lists of lists."""
    return sum(
        len(one) + sum(len(row) for row in one if isinstance(row, list)) for one in lists if isinstance(one, list)
    )


def _ids(values: Sequence[object], key: str) -> list[str]:
    try:
        return [as_id(one) for one in values]
    except TypeError as error:
        raise RefusedError(f"key {key!r}: {error}") from None


def _rows(values: Sequence[object], key: str) -> list[list[str]]:
    for number, row in enumerate(values):
        if not isinstance(row, list):
            raise RefusedError(f"key {key!r}: row {number} is {row!r:.60}; expected a list of item ids")
    return [_ids(row, key) for row in cast("Sequence[list[object]]", values)]


def _beside(given: list[Any], histories: int, key: str) -> tuple[tuple[str, ...], list[list[str]] | None]:
    """Gives the items that a list of ids holds for all histories, or those that a list of lists holds for each."""
    if not given or not isinstance(given[0], list):
        return tuple(_ids(given, key)), None
    if len(given) != histories:
        raise RefusedError(f"key {key!r}: {len(given)} lists for {histories} histories; give one for each, or one list")
    return (), _rows(given, key)
