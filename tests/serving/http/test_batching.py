"""Requests that wait are answered together, and none suffers for another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from conseq.serving.http.batching import AT_ONCE, Asked, Batcher, BusyError, Question
from conseq.serving.http.live import Live

QUESTION = Question(k=3, exclude_seen=True, candidates=None, unknown="drop", on_empty="error")


class Scene:
    """A batcher whose model is at work until it is released."""

    def __init__(self, bundle: Path, most: int = 100) -> None:
        self.live = Live(bundle, look_every=0)
        self.batches: list[int] = []
        self.batcher = Batcher(self.live, most=most, observe=self.batches.append)
        self._at_work, self._released = threading.Event(), threading.Event()

    def together(self, *asked: Callable[[Batcher], Awaitable[Any]]) -> list[Any]:
        """Gives the answers to requests that all come while the model is at work."""

        async def all_of_them() -> list[Any]:
            first = asyncio.ensure_future(self.batcher.ask(self._work))
            while not self._at_work.is_set():
                await asyncio.sleep(0.001)
            tasks = [asyncio.ensure_future(one(self.batcher)) for one in asked]
            await asyncio.sleep(0)
            self._released.set()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            await first
            return list(found)

        try:
            return asyncio.run(all_of_them())
        finally:
            self.batcher.stop()

    def _work(self, model: object) -> None:
        del model
        self._at_work.set()
        self._released.wait(60)


def _recommend(*histories: list[str], question: Question = QUESTION, exclude: Any = None) -> Any:
    return lambda batcher: batcher.recommend(Asked(question, histories, exclude))


def _items(answered: Any) -> list[list[str]]:
    return [[one["item_id"] for one in row] for row in answered.value.items]


def test_requests_that_wait_are_one_call_and_get_what_each_would_get_alone(bundle: Path) -> None:
    scene = Scene(bundle)
    found = scene.together(
        _recommend(["a"], ["b", "x"]),
        _recommend(["é"], exclude=[["b", "007"]]),
        _recommend(),
        _recommend(["x", "y", "5"]),
    )
    assert scene.batches == [4]
    model = scene.live.model.recommender
    assert _items(found[0]) == model.recommend([["a"], ["b"]], 3).ids.tolist()
    assert _items(found[1]) == model.recommend([["é"]], 3, exclude=["b", "007"]).ids.tolist()
    assert _items(found[2]) == []
    assert _items(found[3]) == model.recommend([["5"]], 3).ids.tolist()
    assert [one.value.dropped for one in found] == [1, 0, 0, 2]


def test_what_cannot_be_answered_is_refused_alone(bundle: Path) -> None:
    scene = Scene(bundle)
    found = scene.together(_recommend(["a"]), _recommend(["b"], []), _recommend(["é"]))
    assert isinstance(found[1], ValueError)
    assert "history 1 has no known item" in str(found[1])
    model = scene.live.model.recommender
    assert [_items(found[0]), _items(found[2])] == [
        model.recommend([["a"]], 3).ids.tolist(),
        model.recommend([["é"]], 3).ids.tolist(),
    ]


def test_empty_rows_are_counted_from_each_requests_own_start(bundle: Path) -> None:
    blank = Question(k=2, exclude_seen=True, candidates=None, unknown="drop", on_empty="blank")
    found = Scene(bundle).together(_recommend(["a"], ["x"], question=blank), _recommend([], ["b"], question=blank))
    assert [one.value.empty for one in found] == [[1], [0]]
    assert [[len(row) for row in one.value.items] for one in found] == [[2, 0], [0, 2]]


def test_different_questions_are_not_mixed(bundle: Path) -> None:
    seen = Question(k=6, exclude_seen=False, candidates=("a", "b"), unknown="drop", on_empty="error")
    scene = Scene(bundle)
    found = scene.together(_recommend(["a"]), _recommend(["a"], question=seen), _recommend(["b"]))
    assert scene.batches == [2, 1]
    assert sorted(_items(found[1])[0]) == ["a", "b"]
    assert "a" not in _items(found[0])[0]


def test_a_batch_has_an_end(bundle: Path) -> None:
    scene = Scene(bundle)
    scene.together(*[_recommend(*[["a"]] * 200) for _ in range(4)])
    assert scene.batches == [600, 200]
    assert AT_ONCE == 512


def test_more_than_may_wait_are_sent_away(bundle: Path) -> None:
    found = Scene(bundle, most=2).together(_recommend(["a"]), _recommend(["b"]), _recommend(["é"]))
    assert isinstance(found[2], BusyError)
    assert [len(_items(one)) for one in found[:2]] == [1, 1]


def test_whoever_goes_away_is_no_harm_to_the_others(bundle: Path) -> None:
    async def gone(batcher: Batcher) -> str:
        asked = asyncio.ensure_future(batcher.recommend(Asked(QUESTION, [["a"]], None)))
        await asyncio.sleep(0)
        asked.cancel()
        return "gone"

    found = Scene(bundle).together(gone, _recommend(["b"]))
    assert found[0] == "gone"
    assert len(_items(found[1])[0]) == 3


def test_stopping_answers_what_waits(bundle: Path) -> None:
    scene = Scene(bundle)

    async def ask_and_stop() -> list[Any]:
        tasks = [asyncio.ensure_future(scene.batcher.recommend(Asked(QUESTION, [["a"]], None))) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.to_thread(scene.batcher.stop)
        return list(await asyncio.gather(*tasks))

    assert [len(_items(one)[0]) for one in asyncio.run(ask_and_stop())] == [3, 3, 3]


def test_what_is_asked_of_the_model_itself_gets_its_own_error(bundle: Path) -> None:
    def refuse(model: object) -> None:
        del model
        raise KeyError("nothing of the kind")

    found = Scene(bundle).together(lambda batcher: batcher.ask(refuse), lambda batcher: batcher.ask(lambda _: 7))
    assert isinstance(found[0], KeyError)
    assert found[1].value == 7


@pytest.mark.parametrize("limit", ["histories", "k", "body", "waiting"])
def test_a_limit_that_would_refuse_everything_is_refused(limit: str) -> None:
    from conseq.serving.http import Limits  # noqa: PLC0415

    with pytest.raises(ValueError, match=f"{limit} is 0"):
        Limits(**{limit: 0})
    with pytest.raises(TypeError, match=f"{limit} is 2.5"):
        Limits(**{limit: 2.5})  # type: ignore[arg-type]
