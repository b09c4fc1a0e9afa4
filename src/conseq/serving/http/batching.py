"""Requests that wait for the model are answered together, where they ask the same.

A call of the model costs several times what one more history in it costs, so the more requests wait, the less each one
takes. Nothing waits for company: what has arrived while the model was at work is the next batch.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from conseq.serving.histories import Unknown
from conseq.serving.http.live import Live, Loaded
from conseq.serving.ranking import OnEmpty
from conseq.serving.recommender import Recommender

AT_ONCE = 512
"""Histories answered in one call of the model."""

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """What is asked of every history of a request; requests that ask the same can be answered together."""

    k: int
    exclude_seen: bool
    candidates: tuple[str, ...] | None
    unknown: Unknown
    on_empty: OnEmpty
    exclude: tuple[str, ...] = ()
    own_candidates: bool = False


@dataclass(frozen=True, eq=False)
class Asked:
    """A request for recommendations.

    Attributes:
        question: What is asked of every history.
        histories: Item ids of each.
        exclude: Items never recommended, for each history; None for none, or where the question has some for all.
        candidates: The only items recommended, for each history; empty but where the question says ``own_candidates``.
    """

    question: Question
    histories: Sequence[Sequence[str]]
    exclude: Sequence[Sequence[str]] | None
    candidates: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, eq=False)
class Each:
    """A request for something of each of its rows, such as the vectors of histories.

    Attributes:
        rows: What it is asked of.
        of: Gives the answers of rows, one for each.
        question: What requests have in common that can be answered together; of those, ``of`` must be the same.
    """

    rows: Sequence[Any]
    of: Callable[[Recommender, list[Any]], Sequence[Any]]
    question: tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Answered(Generic[T]):
    """An answer, and the model that gave it."""

    value: T
    model: Loaded


@dataclass(frozen=True, eq=False)
class Recommended:
    """The recommendations of one request.

    Attributes:
        items: For each history ``item_id``, ``score`` and ``rank`` of each item, best first.
        dropped: Unknown items left out of the histories.
        empty: Rows whose history had no known item.
    """

    items: list[Any]
    dropped: int
    empty: list[int]


class BusyError(Exception):
    """The model cannot be asked now: too much waits, this has waited for too long, or the service ends."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A request in the queue: for recommendations, or for something of each row."""

    asked: Asked | Each
    size: int
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """The one thread that asks the model.

    Args:
        live: The model.
        most: Histories that may wait.
        seconds: How long one may.
        observe: Is told how many histories each call of the model had.
    """

    def __init__(
        self, live: Live, *, most: int, seconds: float, observe: Callable[[int], None] = lambda histories: None
    ) -> None:
        self._live = live
        self._most = most
        self._seconds = seconds
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """Begins to answer and to look for other bundles, where it has not begun."""
        with self._changed:
            self._closed = False
            self._start()

    def stop(self) -> None:
        """Answers what waits, and no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        self._live.stop()
        if thread is not None:
            thread.join()

    @property
    def waiting(self) -> int:
        """How many histories wait."""
        return self._size

    @property
    def works(self) -> bool:
        """Whether the model is asked, or will be with the first request."""
        thread = self._thread
        return not self._closed and (thread is None or thread.is_alive())

    async def recommend(self, asked: Asked) -> Answered[Recommended]:
        """Gives the recommendations for a request.

        Args:
            asked: The request.

        Returns:
            The recommendations.

        Raises:
            BusyError: if the model cannot be asked now.
            ValueError: as in :meth:`conseq.Recommender.recommend`, and so are the others.
            KeyError: if an item is unknown and may not be.
        """
        answer: Answered[Recommended] = await self._ask(asked, len(asked.histories))
        return answer

    async def ask_of_each(self, asked: Each) -> Answered[list[Any]]:
        """Gives what is asked of each row, in one call of the model with the requests of the same question that wait.

        Args:
            asked: The request.

        Returns:
            The answers, in the order of the rows.

        Raises:
            BusyError: if the model cannot be asked now.
        """
        answer: Answered[list[Any]] = await self._ask(asked, len(asked.rows))
        return answer

    async def _ask(self, asked: Asked | Each, size: int) -> Any:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(asked, max(1, size), loop.create_future(), loop)
        with self._changed:
            if self._closed:
                raise BusyError("the service ends")
            self._start()  # an application that is mounted in another one is not told that it starts
            if self._queue and self._size + waiting.size > self._most:
                raise BusyError(f"{self._most} histories wait for the model already; ask again later")
            self._queue.append(waiting)
            self._size += waiting.size
            self._changed.notify_all()
        return await waiting.future

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="conseq-model", daemon=True)
            self._thread.start()
            self._live.start()

    def _work(self) -> None:
        while batch := self._next():
            self._answer(batch)

    def _next(self) -> list[_Waiting]:
        """Gives what is answered next; nothing where the service ends."""
        batch: list[_Waiting] = []
        size = 0
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            while self._queue and size < AT_ONCE:
                batch.append(self._queue.popleft())
                size += batch[-1].size
            self._size -= size
        return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        model = self._live.model
        groups: dict[object, list[_Waiting]] = {}
        for one in batch:
            if one.future.done():  # whoever asked has gone away
                continue
            if time.monotonic() - one.since > self._seconds:
                _settle(one, None, BusyError(f"no answer within {self._seconds:g} seconds; ask again later"))
            elif isinstance(one.asked, Asked) and may_be_refused(model.recommender, one.asked):
                self._answered(model, [one])  # alone, so that nothing else is asked again
            else:
                groups.setdefault(one.asked.question, []).append(one)
        for group in groups.values():
            if not self._answered(model, group):
                for one in group:
                    self._answered(model, [one])

    def _answered(self, model: Loaded, group: list[_Waiting]) -> bool:
        """Answers requests that ask the same, and gives whether it could; the error of one alone is its answer."""
        try:
            values = self._values(model.recommender, group)
        except Exception as error:  # noqa: BLE001  (whoever asked is told)
            if len(group) > 1:
                return False
            _settle(group[0], None, error)
            return True
        for one, value in zip(group, values, strict=True):
            _settle(one, Answered(value, model), None)
        return True

    def _values(self, recommender: Recommender, group: list[_Waiting]) -> list[Any]:
        each = [one.asked for one in group if isinstance(one.asked, Each)]
        if each:
            return answers_of_each(recommender, each)
        asked = [one.asked for one in group if isinstance(one.asked, Asked)]
        found = recommended(recommender, asked)
        self._observe(sum(len(one.histories) for one in asked))
        return found


def may_be_refused(recommender: Recommender, asked: Asked) -> bool:
    """Gives whether a request has a history that its question does not allow: of no known item, or of an unknown one.

    Args:
        recommender: The model.
        asked: The request.

    Returns:
        True where the model would refuse it.
    """
    question, known = asked.question, recommender.item_ids
    for history in asked.histories if "error" in {question.on_empty, question.unknown} else ():
        found = sum(one in known for one in history)
        if (question.on_empty == "error" and not found) or (question.unknown == "error" and found < len(history)):
            return True
    return False


def recommended(recommender: Recommender, asked: Sequence[Asked]) -> list[Recommended]:
    """Gives the recommendations for requests that ask the same, by one call of the model.

    Args:
        recommender: The model.
        asked: The requests, at least one, of one question.

    Returns:
        Those of each.

    Raises:
        ValueError: as in :meth:`conseq.Recommender.recommend`, and so are the others.
        KeyError: if an item is unknown and may not be.
    """
    question = asked[0].question
    exclude: Any = question.exclude or None
    if any(one.exclude for one in asked):
        exclude = [row for one in asked for row in one.exclude or [[]] * len(one.histories)]
    among: Any = [row for one in asked for row in one.candidates] if question.own_candidates else question.candidates
    found = recommender.recommend(
        [row for one in asked for row in one.histories],
        question.k,
        exclude_seen=question.exclude_seen,
        candidates=among,
        exclude=exclude,
        unknown=question.unknown,
        on_empty=question.on_empty,
    )
    rows, empty = found.to_dicts(), found.empty.tolist()
    answers, start = [], 0
    for one in asked:
        stop = start + len(one.histories)
        dropped = found.dropped if len(asked) == 1 or not found.dropped else _unknown(recommender, one.histories)
        own = [row - start for row in empty if start <= row < stop]
        answers.append(Recommended(rows[start:stop], dropped, own))
        start = stop
    return answers


def answers_of_each(recommender: Recommender, asked: Sequence[Each]) -> list[list[Any]]:
    """Gives the answers to requests of one question, by one call of the model.

    Args:
        recommender: The model.
        asked: The requests, at least one.

    Returns:
        Those of each.
    """
    found = iter(asked[0].of(recommender, [row for one in asked for row in one.rows]))
    return [list(islice(found, len(one.rows))) for one in asked]


def _unknown(recommender: Recommender, histories: Sequence[Sequence[str]]) -> int:
    return sum(one not in recommender.item_ids for row in histories for one in row)


def _settle(waiting: _Waiting, value: object, error: Exception | None) -> None:
    """Hands an answer to the event loop of whoever asked, unless that is gone."""

    def settle() -> None:
        if waiting.future.done():  # the client has gone away
            return
        if error is None:
            waiting.future.set_result(value)
        else:
            waiting.future.set_exception(error)

    try:
        waiting.loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop is closed: nobody waits
        return
