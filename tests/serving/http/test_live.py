"""Another bundle takes over without a pause, and one that cannot is told of."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from fastapi import FastAPI

from conseq.serving.http import application
from conseq.serving.http.live import Live
from conseq.serving.recommender import Recommender


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def live(bundle: Path, told: list[str]) -> Live:
    return Live(bundle, look_every=0, say=told.append)


def test_the_same_bundle_is_not_loaded_again(live: Live, told: list[str]) -> None:
    model = live.model
    assert not live.look()
    assert live.model is model
    assert told == []


def test_another_bundle_takes_over(live: Live, bundle: Path, save: Callable[..., Path], told: list[str]) -> None:
    before = live.model.name
    save(bundle, seed=1)
    assert live.look()
    assert live.model.name != before
    assert live.changes == 1
    assert told == [f"model {live.model.name} has taken over: 6 items"]
    expected = Recommender.load(bundle).recommend(["a"], 3)
    assert live.model.recommender.recommend(["a"], 3).ids.tolist() == expected.ids.tolist()


def test_the_folder_of_a_run_is_looked_at_where_its_bundle_is(
    bundle: Path, tmp_path: Path, save: Callable[..., Path], told: list[str]
) -> None:
    run = tmp_path / "a run"
    run.mkdir()
    inside = bundle.rename(run / "bundle")
    live = Live(run, look_every=0, say=told.append)
    assert not live.look()
    save(inside, seed=1)
    assert live.look()


def test_a_damaged_bundle_is_told_of_once_and_the_older_one_answers(
    live: Live, bundle: Path, save: Callable[..., Path], told: list[str]
) -> None:
    name = live.model.name
    save(bundle, seed=1)
    weights = (bundle / "weights.safetensors").read_bytes()
    (bundle / "weights.safetensors").write_bytes(weights[:-8])
    assert not live.look()
    assert not live.look()
    assert (live.model.name, live.failures, live.changes) == (name, 1, 0)
    assert live.trouble is not None
    assert "weights.safetensors" in live.trouble
    assert told == [f"{live.trouble}; model {name} goes on answering"]
    (bundle / "weights.safetensors").write_bytes(weights)
    assert live.look()
    assert live.trouble is None


def test_a_bundle_that_is_gone_is_told_of(live: Live, bundle: Path, told: list[str]) -> None:
    (bundle / "manifest.json").rename(bundle / "elsewhere")
    assert not live.look()
    assert "is not a bundle" in told[0]
    (bundle / "elsewhere").rename(bundle / "manifest.json")
    assert not live.look()
    assert live.trouble is None


@pytest.mark.parametrize("weights", ["items", "position"])
def test_weights_that_are_no_numbers_do_not_take_over(
    live: Live, bundle: Path, save: Callable[..., Path], weights: str
) -> None:
    save(bundle, broken=weights)
    assert not live.look()
    assert live.trouble is not None
    assert f"{weights}" in live.trouble
    assert "are not numbers" in live.trouble
    with pytest.raises(ValueError, match="are not numbers"):
        Live(bundle)


def test_a_bundle_that_cannot_take_over_is_read_once(
    live: Live, bundle: Path, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Mock(wraps=Recommender.load)
    monkeypatch.setattr(Recommender, "load", load)
    save(bundle, broken="items")
    for _ in range(3):
        live.look()
    assert load.call_count == 1
    assert live.failures == 1


def test_what_is_the_machines_fault_is_tried_again(
    live: Live, bundle: Path, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    save(bundle, seed=1)
    with monkeypatch.context() as patched:
        patched.setattr(
            Recommender, "load", lambda *_, **__: (_ for _ in ()).throw(RuntimeError(f"no {len(told)} MiB"))
        )
        assert not live.look()
        assert not live.look()
    assert live.failures == 1
    assert len(told) == 1
    assert live.look()
    assert live.trouble is None


def test_it_goes_on_looking_though_nobody_can_be_told(
    bundle: Path, save: Callable[..., Path], wait_for: Callable[[Callable[[], bool]], None]
) -> None:
    def broken(line: str) -> None:
        raise BrokenPipeError(line)

    live = Live(bundle, look_every=0.01, say=broken)
    live.start()
    try:
        for changes in (1, 2):
            save(bundle, seed=changes)
            wait_for(lambda expected=changes: live.changes == expected)  # type: ignore[misc]
    finally:
        live.stop()


def test_what_the_service_promises_for_empty_histories_is_asked_of_a_bundle(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    folder = save(tmp_path / "uncounted")
    with pytest.raises(ValueError, match="needs item counts"):
        Live(folder, on_empty="popular")
    with pytest.raises(ValueError, match="on_empty is 'popula'"):
        Live(folder, on_empty="popula")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="look_every is -1"):
        Live(folder, look_every=-1)
    with pytest.raises(FileNotFoundError, match="is not a bundle"):
        Live(tmp_path)


def test_it_looks_by_itself(
    bundle: Path, save: Callable[..., Path], wait_for: Callable[[Callable[[], bool]], None]
) -> None:
    live = Live(bundle, look_every=0.01)
    live.start()
    live.start()  # once more does nothing
    try:
        save(bundle, seed=1)
        wait_for(lambda: live.changes == 1)
    finally:
        live.stop()
    save(bundle, seed=2)
    time.sleep(0.05)
    assert live.changes == 1


def test_every_answer_is_of_one_model_while_bundles_change(
    bundle: Path,
    save: Callable[..., Path],
    serving: Callable[[FastAPI], Any],
    wait_for: Callable[[Callable[[], bool]], None],
) -> None:
    histories = [["a"], ["b", "c d"], ["007"]]
    expected = {}
    for seed in (0, 1):
        save(bundle, seed=seed)
        sha = json.loads((bundle / "manifest.json").read_text())["files"]["weights.safetensors"]["sha256"]
        expected[sha[:12]] = Recommender.load(bundle).recommend(histories, 4).ids.tolist()
    client = serving(application(bundle, look_every=0.01))
    done = threading.Event()
    found: list[tuple[str, list[list[str]]]] = []

    def ask() -> None:
        while not done.is_set():
            status, answer = client.post("/recommend", {"histories": histories, "k": 4})
            assert status == 200
            found.append((answer["model"], [[one["item_id"] for one in row] for row in answer["recommendations"]]))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for seed in (0, 1, 0):
            name = json.loads(client.get("/health")[1])["model"]
            save(bundle, seed=seed)
            wait_for(lambda before=name: json.loads(client.get("/health")[1])["model"] != before)  # type: ignore[misc]
    finally:
        done.set()
        asking.join()
    assert {name for name, _ in found} <= expected.keys()
    assert len({name for name, _ in found}) == 2
    assert all(items == expected[name] for name, items in found)
