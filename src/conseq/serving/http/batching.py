"""Requests that wait for the model are answered together.

A call of the model costs several times what one more history in it costs, so the more requests wait, the less each one
takes. Nothing waits for company: what has arrived while the model was at work is the next batch.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class Asked:
    """A request for recommendations.

    Attributes:
        question: What is asked of every history.
        histories: Item ids of each.
        exclude: Items never recommended, for each history; None for none.
    """

    question: Question
    histories: Sequence[Sequence[str]]
    exclude: Sequence[Sequence[str]] | None


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


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A request in the queue: for recommendations, or for anything else that the model has to be asked."""

    asked: Asked | Callable[[Recommender], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop

    @property
    def size(self) -> int:
        return len(self.asked.histories) if isinstance(self.asked, Asked) else AT_ONCE


class BusyError(Exception):
    """As many requests wait as may."""


class Batcher:
    """The one thread that asks the model.

    Args:
        live: The model.
        most: Requests that may wait.
        observe: Is told how many histories each call of the model had.
    """

    def __init__(self, live: Live, *, most: int, observe: Callable[[int], None] = lambda histories: None) -> None:
        self._live = live
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(most)
        self._observe = observe
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to answer and to look for other bundles, where it has not begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="conseq-model", daemon=True)
            self._thread.start()
            self._live.start()

    def stop(self) -> None:
        """Answers what waits, and no more."""
        if self._thread is not None:
            self._live.stop()
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._queue.qsize()

    async def recommend(self, asked: Asked) -> Answered[Recommended]:
        """Gives the recommendations for a request.

        Args:
            asked: The request.

        Returns:
            The recommendations.

        Raises:
            BusyError: if too many requests wait already.
            ValueError: as in :meth:`conseq.Recommender.recommend`, and so are the others.
            KeyError: if an item is unknown and may not be.
        """
        answer: Answered[Recommended] = await self._ask(asked)
        return answer

    async def ask(self, of: Callable[[Recommender], T]) -> Answered[T]:
        """Gives what ``of`` gives for the model.

        Args:
            of: Called in the model's thread.

        Returns:
            Its result.

        Raises:
            BusyError: if too many requests wait already.
        """
        answer: Answered[T] = await self._ask(of)
        return answer

    async def _ask(self, asked: Asked | Callable[[Recommender], Any]) -> Any:
        self.start()  # an application that is mounted in another one is not told that it starts
        loop = asyncio.get_running_loop()
        waiting = _Waiting(asked, loop.create_future(), loop)
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise BusyError from None
        return await waiting.future

    def _work(self) -> None:
        stopping = False
        while not stopping:
            first = self._queue.get()
            if first is None:
                return
            batch, size = [first], first.size
            while size < AT_ONCE:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    stopping = True
                    break
                batch.append(more)
                size += more.size
            self._answer(batch)

    def _answer(self, batch: list[_Waiting]) -> None:
        model = self._live.model
        alike: dict[object, list[_Waiting]] = {}
        for one in batch:
            alike.setdefault(one.asked.question if isinstance(one.asked, Asked) else one, []).append(one)
        for group in alike.values():
            if not self._answered(model, group):
                # One of them cannot be answered, and the others do not suffer for it.
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
        asked = [one.asked for one in group if isinstance(one.asked, Asked)]
        if not asked:
            return [one.asked(recommender) for one in group if not isinstance(one.asked, Asked)]
        self._observe(sum(len(one.histories) for one in asked))
        return recommended(recommender, asked)


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
    exclude = None
    if any(one.exclude for one in asked):
        exclude = [row for one in asked for row in one.exclude or [[]] * len(one.histories)]
    found = recommender.recommend(
        [row for one in asked for row in one.histories],
        question.k,
        exclude_seen=question.exclude_seen,
        candidates=question.candidates,
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
