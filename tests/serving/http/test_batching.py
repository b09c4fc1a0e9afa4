"""Requests that wait are answered together, and none suffers for another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conseq.serving.http import Limits, batching
from conseq.serving.http.batching import AT_ONCE, Asked, Batcher, BusyError, Each, Question, Recommended
from conseq.serving.http.live import Live
from conseq.serving.ranking import EmptyHistoryError
from conseq.serving.recommender import Recommender

QUESTION = Question(k=3, exclude_seen=True, candidates=None, unknown="drop", on_empty="error")


class Scene:
    """A batcher whose model is at work until it is released."""

    def __init__(self, bundle: Path, most: int = 1000, seconds: float = 60, work: float = 0) -> None:
        self.live = Live(bundle, look_every=0)
        self.batches: list[int] = []
        self._takes = work
        self.batcher = Batcher(self.live, most=most, seconds=seconds, observe=self.batches.append)
        self._at_work, self._released = threading.Event(), threading.Event()

    def together(self, *asked: Callable[[Batcher], Awaitable[Any]]) -> list[Any]:
        """Gives the answers to requests that all come while the model is at work."""

        def work(model: Recommender, rows: list[Any]) -> list[Any]:
            self._work(model)
            return rows

        async def all_of_them() -> list[Any]:
            first = asyncio.ensure_future(self.batcher.ask_of_each(Each([None], work, ("work",))))
            while not self._at_work.is_set():
                await asyncio.sleep(0.001)
            tasks = [asyncio.ensure_future(one(self.batcher)) for one in asked]
            await asyncio.sleep(self._takes)
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
    assert isinstance(found[1], EmptyHistoryError)
    assert found[1].row == 1
    assert scene.batches == [2]  # the others are not asked for again
    model = scene.live.model.recommender
    assert [_items(found[0]), _items(found[2])] == [
        model.recommend([["a"]], 3).ids.tolist(),
        model.recommend([["é"]], 3).ids.tolist(),
    ]


def test_what_nobody_foresees_is_refused_alone_too(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = batching.recommended

    def odd(recommender: Recommender, asked: Sequence[Asked]) -> list[Recommended]:
        if any(history == ["b"] for one in asked for history in one.histories):
            raise RuntimeError("out of memory")
        return answer(recommender, asked)

    monkeypatch.setattr(batching, "recommended", odd)
    found = Scene(bundle).together(_recommend(["a"]), _recommend(["b"]), _recommend(["é"]))
    assert isinstance(found[1], RuntimeError)
    assert [len(_items(one)[0]) for one in (found[0], found[2])] == [3, 3]


def test_what_is_excluded_for_all_is_asked_once(bundle: Path) -> None:
    without = replace(QUESTION, exclude=("b", "x"))
    scene = Scene(bundle)
    found = scene.together(_recommend(["a"], ["é"], question=without), _recommend(["a"]))
    assert scene.batches == [2, 1]
    model = scene.live.model.recommender
    assert _items(found[0]) == model.recommend([["a"], ["é"]], 3, exclude=["b"]).ids.tolist()


def test_candidates_of_each_history_are_one_call_whosever_they_are(bundle: Path) -> None:
    own = replace(QUESTION, exclude_seen=False, own_candidates=True)

    def ask(histories: list[list[str]], candidates: list[list[str]], question: Question = own) -> Any:
        return lambda batcher: batcher.recommend(Asked(question, histories, None, candidates))

    scene = Scene(bundle)
    strict = replace(own, unknown="error")
    found = scene.together(
        ask([["a"], ["b"]], [["é", "x"], []]),
        ask([["é"]], [["b", "a", "007"]]),
        ask([["a"]], [["b"]], strict),
        ask([["a"]], [["x"]], strict),
        _recommend(["a"]),
    )
    assert scene.batches == [3, 1, 1]
    assert _items(found[0]) == [["é"], []]
    assert (
        _items(found[1])
        == scene.live.model.recommender.recommend(
            [["é"]], 3, exclude_seen=False, candidates=["a", "b", "007"]
        ).ids.tolist()
    )
    assert _items(found[2]) == [["b"]]
    assert isinstance(found[3], KeyError)
    assert "x" in str(found[3])


def test_what_has_waited_for_too_long_is_sent_away(bundle: Path) -> None:
    scene = Scene(bundle, seconds=0.05, work=0.2)
    found = scene.together(_recommend(["a"]))
    assert isinstance(found[0], BusyError)
    assert "no answer within 0.05 seconds" in str(found[0])
    assert scene.batches == []


def test_after_it_has_stopped_nothing_is_taken(bundle: Path) -> None:
    batcher = Scene(bundle).batcher
    works = [batcher.works]
    batcher.start()
    batcher.stop()
    assert [*works, batcher.works] == [True, False]
    with pytest.raises(BusyError, match="the service ends"):
        asyncio.run(batcher.recommend(Asked(QUESTION, [["a"]], None)))
    batcher.start()
    assert len(_items(asyncio.run(batcher.recommend(Asked(QUESTION, [["a"]], None))))) == 1
    batcher.stop()


def test_starts_and_stops_from_many_threads_leave_no_thread_behind(bundle: Path) -> None:
    batcher = Scene(bundle).batcher
    before = threading.active_count()

    def some() -> None:
        for _ in range(50):
            batcher.start()
            batcher.stop()

    threads = [threading.Thread(target=some, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    batcher.stop()
    assert threading.active_count() == before


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


def test_more_histories_than_may_wait_are_sent_away(bundle: Path) -> None:
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


def test_what_is_asked_of_rows_gets_its_own_error(bundle: Path) -> None:
    def refuse(model: object, rows: list[Any]) -> list[Any]:
        del model, rows
        raise KeyError("nothing of the kind")

    found = Scene(bundle).together(
        lambda batcher: batcher.ask_of_each(Each([1], refuse, ("refused",))),
        lambda batcher: batcher.ask_of_each(Each([1], lambda _, rows: [7 for _ in rows], ("seven",))),
    )
    assert isinstance(found[0], KeyError)
    assert found[1].value == [7]


def _vectors(calls: list[int], *histories: list[str], question: tuple[object, ...] = ("vectors", "drop")) -> Any:
    def of(model: Recommender, rows: list[list[str]]) -> list[Any]:
        calls.append(len(rows))
        found: list[Any] = model.user_vectors(rows).tolist()
        return found

    return lambda batcher: batcher.ask_of_each(Each(histories, of, question))


def test_vectors_that_wait_are_one_call_and_get_what_each_would_get_alone(bundle: Path) -> None:
    scene, calls = Scene(bundle), list[int]()
    found = scene.together(
        _vectors(calls, ["a"], ["b"]),
        _vectors(calls),
        _vectors(calls, ["é", "a"]),
        _vectors(calls, ["b"], question=("vectors", "error")),
    )
    assert calls == [3, 1]  # one call for each question
    model = scene.live.model.recommender
    for answered, rows in zip(found, ([["a"], ["b"]], [], [["é", "a"]], [["b"]]), strict=True):
        assert len(answered.value) == len(rows)
        for vector, row in zip(answered.value, rows, strict=True):
            assert vector == pytest.approx(model.user_vectors(row).tolist(), abs=1e-6)


def test_a_history_without_a_vector_is_refused_alone(bundle: Path) -> None:
    calls: list[int] = []
    found = Scene(bundle).together(_vectors(calls, ["a"]), _vectors(calls, ["x"]), _vectors(calls, ["b"]))
    assert [type(one) for one in found] == [batching.Answered, ValueError, batching.Answered]
    assert "no known item" in str(found[1])
    assert calls == [3, 1, 1, 1]


@pytest.mark.parametrize("limit", ["histories", "ids", "k", "answer", "body", "waiting", "seconds"])
def test_a_limit_that_would_refuse_everything_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match=f"{limit} is 0"):
        Limits(**{limit: 0})
    with pytest.raises(TypeError, match=f"{limit} is '2'"):
        Limits(**{limit: "2"})  # type: ignore[arg-type]
