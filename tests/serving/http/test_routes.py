"""The paths of the service: answers are the recommender's, and refusals say what was expected."""

from __future__ import annotations

import difflib
import http.client
import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from fastapi import FastAPI

import conseq
from conseq.serving.http import Limits, application, batching
from conseq.serving.ranking import ScoresError
from conseq.serving.recommender import Recommender


@pytest.fixture(scope="module")
def model(lasting_bundle: Path) -> Recommender:
    return Recommender.load(lasting_bundle)


def _same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [(one["item_id"], one["rank"]) for one in found] == [(one["item_id"], one["rank"]) for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-5)


def test_one_history_gets_one_list(client: Any, model: Recommender) -> None:
    status, answer = client.post("/recommend", {"history": ["a", "c d", "stranger"], "k": 3})
    assert status == 200
    assert {key: answer[key] for key in ("k", "dropped", "empty")} == {"k": 3, "dropped": 1, "empty": []}
    _same(answer["recommendations"], model.recommend(["a", "c d"], k=3).to_dicts())


def test_histories_get_a_list_each_and_ids_may_be_integers(client: Any, model: Recommender) -> None:
    status, answer = client.post("/recommend", {"histories": [["a"], [5, "é"]], "k": 2})
    assert status == 200
    for found, expected in zip(
        answer["recommendations"], model.recommend([["a"], ["5", "é"]], k=2).to_dicts(), strict=True
    ):
        _same(found, expected)


@pytest.mark.parametrize(
    ("asked", "arguments"),
    [
        ({"exclude_seen": False}, {"exclude_seen": False}),
        ({"candidates": ["b", "007", 5]}, {"candidates": ["b", "007", "5"]}),
        ({"candidates": [["b", 5], ["a", "nowhere"]]}, {"candidates": [["b", "5"], ["a"]]}),
        ({"candidates": [["b"], []], "exclude": ["b"]}, {"candidates": [["b"], []], "exclude": ["b"]}),
        ({"exclude": ["b", "nowhere"]}, {"exclude": ["b"]}),
        ({"exclude": [["b"], []]}, {"exclude": [["b"], []]}),
        ({"exclude": []}, {}),
        ({"candidates": None, "exclude": None, "on_empty": None}, {}),
    ],
)
def test_what_is_asked_is_what_the_recommender_is_asked(
    client: Any, model: Recommender, asked: dict[str, Any], arguments: dict[str, Any]
) -> None:
    histories = [["a"], ["é", "007"]]
    status, answer = client.post("/recommend", {"histories": histories, **asked})
    assert status == 200
    for found, expected in zip(
        answer["recommendations"], model.recommend(histories, **arguments).to_dicts(), strict=True
    ):
        _same(found, expected)


def test_no_histories_get_no_lists(client: Any) -> None:
    assert client.post("/recommend", {"histories": []})[1]["recommendations"] == []


def test_users_of_a_log_need_no_histories(
    bundle: Path, model: Recommender, tmp_path: Path, serving: Callable[[FastAPI], Any]
) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\n7,a,1\n7,é,2\n8,b,1\n7,elsewhere,3\n", encoding="utf-8")
    client = serving(application(bundle, log=conseq.read(tmp_path / "log.csv"), look_every=0))
    status, answer = client.post("/recommend", {"users": [7, "8"], "k": 2})
    assert status == 200
    assert answer["dropped"] == 1
    for found, expected in zip(
        answer["recommendations"], model.recommend([["a", "é"], ["b"]], k=2).to_dicts(), strict=True
    ):
        _same(found, expected)
    assert client.post("/recommend", {"users": ["7", "9"]}) == (
        422,
        {"detail": "key 'users': '9' is not among the 2 users with a history"},
    )
    assert "key 'users': a user id is a string" in client.post("/recommend", {"users": [1.5]})[1]["detail"]


def test_a_user_without_a_known_item_is_named(bundle: Path, tmp_path: Path, serving: Callable[[FastAPI], Any]) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,a,1\nv,elsewhere,1\n", encoding="utf-8")
    client = serving(application(bundle, log=conseq.read(tmp_path / "log.csv"), look_every=0))
    status, answer = client.post("/recommend", {"users": ["u", "v"]})
    assert status == 422
    assert answer["detail"].startswith("user 'v' has no item that the model knows")


def test_what_an_empty_history_gets_is_the_requests_or_the_services_choice(
    bundle: Path, serving: Callable[[FastAPI], Any]
) -> None:
    client = serving(application(bundle, on_empty="popular", look_every=0))
    _, answer = client.post("/recommend", {"histories": [["a"], ["nowhere"]], "k": 2})
    assert [one["item_id"] for one in answer["recommendations"][1]] == ["b", "007"]
    assert answer["empty"] == [1]
    _, answer = client.post("/recommend", {"history": [], "k": 2, "on_empty": "blank"})
    assert answer["recommendations"] == []
    assert client.post("/recommend", {"history": [], "on_empty": "error"})[0] == 422


def test_similar_items_are_the_recommenders(client: Any, model: Recommender) -> None:
    status, answer = client.post("/similar", {"item": 5, "k": 2})
    assert status == 200
    _same(answer["similar"], model.similar_items("5", k=2).to_dicts())
    _, answer = client.post("/similar", {"items": ["a", "é"]})
    for found, expected in zip(answer["similar"], model.similar_items(["a", "é"]).to_dicts(), strict=True):
        _same(found, expected)
    assert client.post("/similar", {"items": []})[1]["similar"] == []


def test_vectors_are_the_recommenders(client: Any, model: Recommender) -> None:
    _, answer = client.post("/vectors", {"histories": [["a", "x"], ["é"]]})
    np.testing.assert_allclose(answer["vectors"], model.user_vectors([["a"], ["é"]]), atol=1e-6)
    _, answer = client.post("/vectors", {"history": ["a"]})
    assert np.shape(answer["vectors"]) == (8,)


REFUSALS = [
    ("/recommend", {}, "give one of the keys 'history', 'histories' and 'users'"),
    ("/recommend", {"history": ["a"], "users": ["b"]}, "give one of the keys"),
    ("/recommend", {"histores": [["a"]]}, "unknown key 'histores'; did you mean 'histories'?"),
    ("/recommend", {"histories": ["a"]}, "key 'histories': row 0 is 'a'; expected a list of item ids"),
    ("/recommend", {"history": "a b"}, "key 'history': Input should be a valid list"),
    ("/recommend", {"history": [["a"]]}, "key 'history': an item id is a string or an integer; found ['a']"),
    ("/recommend", {"history": [True]}, "an item id is a string or an integer; found True"),
    ("/recommend", {"histories": [["a"], [1.5]]}, "key 'histories': an item id is a string or an integer; found 1.5"),
    ("/recommend", {"history": ["a"], "k": 0}, "key 'k': Input should be greater than or equal to 1, found 0"),
    ("/recommend", {"history": ["a"], "k": "3"}, "key 'k': Input should be a valid integer"),
    ("/recommend", {"history": ["a"], "k": 1001}, "key 'k': 1001, but this service gives at most 1000"),
    ("/recommend", {"history": ["a"], "unknown": "ignore"}, "key 'unknown': Input should be 'drop' or 'error'"),
    ("/recommend", {"history": ["a", "x"], "unknown": "error"}, "'x' is not among the 6 known items"),
    ("/recommend", {"history": ["x"]}, "the history has no known item; leave it out, or give 'on_empty'"),
    ("/recommend", {"histories": [["a"], ["x"]]}, "history 1 (counted from 0) has no known item"),
    ("/recommend", {"histories": [["a"]] * 101, "k": 1000}, "101 times 1000 items, but an answer has at most 100000"),
    ("/recommend", {"history": ["a"] * 100_001}, "100001 ids, but a request may have at most 100000 of them"),
    ("/recommend", {"histories": [["a"]] * 2, "exclude": [["b"] * 60_000] * 2}, "120004 ids, but a request"),
    ("/recommend", {"history": ["a"], "candidates": ["b"] * 100_000}, "100001 ids, but a request"),
    ("/similar", {"items": ["a"] * 101, "k": 1000}, "101 times 1000 items"),
    ("/recommend", {"history": ["a"], "candidates": ["x"]}, "candidates: none of them is a known item"),
    ("/recommend", {"history": ["a"], "exclude": [["b"], ["b"]]}, "key 'exclude': 2 lists for 1 histories"),
    ("/recommend", {"histories": [["a"]] * 2, "exclude": [["b"], "b"]}, "key 'exclude': row 1 is 'b'"),
    ("/recommend", {"histories": [["a"]] * 2, "candidates": [["b"]]}, "key 'candidates': 1 lists for 2 histories"),
    ("/recommend", {"history": ["a"], "candidates": []}, "candidates: none of them is a known item"),
    ("/recommend", {"histories": [["a"]] * 1001}, "key 'histories': 1001, but a request may have at most 1000"),
    ("/recommend", {"users": ["7"]}, "this service was started without a log"),
    ("/similar", {}, "give one of the keys 'item' and 'items'"),
    ("/similar", {"item": "x"}, "unknown id 'x'"),
    ("/similar", {"item": ["a"]}, "key 'item': an item id is a string or an integer"),
    ("/similar", {"itms": ["a"]}, "unknown key 'itms'; did you mean 'items'?"),
    ("/vectors", {"history": []}, "history 0 has no known item, so it has no vector"),
    ("/vectors", {"history": ["a"], "k": 3}, "unknown key 'k'"),
]


@pytest.mark.parametrize(("path", "body", "expected"), REFUSALS, ids=range(len(REFUSALS)))
def test_a_refusal_says_what_was_found_and_what_is_expected(
    client: Any, path: str, body: dict[str, Any], expected: str
) -> None:
    status, answer = client.post(path, body)
    assert status == 422
    assert expected in answer["detail"]


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b'{"history": ', "application/json", "the body is not JSON"),
        (b'["a"]', "application/json", "expected a JSON object as the body"),
        (b"", "application/json", "expected a JSON object as the body"),
        (b'{"history": ["a"]}', "application/x-www-form-urlencoded", "with the header Content-Type: application/json"),
        (b'{"history": ["\xff"]}', "application/json", "error parsing the body"),
        (b'{"history": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "application/json", "error parsing the body"),
    ],
)
def test_what_is_no_json_object_is_refused(client: Any, body: bytes, kind: str, expected: str) -> None:
    status, answer = client.send("/recommend", body, kind)
    assert status in {400, 422}
    assert expected in json.loads(answer)["detail"]


def test_more_bytes_than_allowed_are_refused_before_they_are_read(
    bundle: Path, serving: Callable[[FastAPI], Any]
) -> None:
    client = serving(application(bundle, limits=Limits(body=100), look_every=0))
    long = json.dumps({"history": ["a"] * 50}).encode()
    status, answer = client.send("/recommend", long)
    assert status == 413
    assert "more than the 100 bytes" in json.loads(answer)["detail"]
    # Sent in pieces, a body does not tell its length beforehand.
    connection = http.client.HTTPConnection(client.url.removeprefix("http://"), timeout=60)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/recommend", iter([long[:90], long[90:]]), headers, encode_chunked=True)
    answered = connection.getresponse()
    assert answered.status == 413
    assert "more than the 100 bytes" in json.loads(answered.read())["detail"]
    connection.close()
    assert client.post("/recommend", {"history": ["a"]})[0] == 200


def test_a_thousand_unknown_keys_are_not_all_explained(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    near = Mock(wraps=difflib.get_close_matches)
    monkeypatch.setattr(difflib, "get_close_matches", near)
    status, answer = client.post("/recommend", {f"key{one}": "x" * 1000 for one in range(1000)})
    assert status == 422
    assert near.call_count == 3
    assert len(answer["detail"]) <= 1000


def test_a_long_wrong_value_is_cut(client: Any) -> None:
    for body in ({"history": [["x" * 10_000]]}, {"history": ["a"], "k": "1" * 10_000}):
        assert len(client.post("/recommend", body)[1]["detail"]) <= 1000


def test_a_body_that_does_not_come_is_not_waited_for(bundle: Path, serving: Callable[[FastAPI], Any]) -> None:
    client = serving(application(bundle, limits=Limits(seconds=0.2), look_every=0))
    with socket.create_connection(_address(client), timeout=60) as connection:
        connection.sendall(b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 408")
    assert client.post("/recommend", {"history": ["a"]})[0] == 200


def test_who_goes_away_is_not_answered(
    bundle: Path,
    serving: Callable[[FastAPI], Any],
    monkeypatch: pytest.MonkeyPatch,
    wait_for: Callable[[Callable[[], bool]], None],
) -> None:
    asked, go_on = threading.Event(), threading.Event()
    answer = batching.recommended
    histories = []

    def slowly(model: Recommender, group: Any) -> Any:
        histories.append([one.histories for one in group])
        asked.set()
        go_on.wait(60)
        return answer(model, group)

    monkeypatch.setattr(batching, "recommended", slowly)
    client = serving(application(bundle, look_every=0))
    body = b'{"history": ["b"]}'
    head = (
        f"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    first = threading.Thread(target=client.post, args=("/recommend", {"history": ["a"]}))
    first.start()
    assert asked.wait(60)
    with socket.create_connection(_address(client), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        wait_for(lambda: b"conseq_waiting 1.0" in client.get("/metrics")[1])
    wait_for(lambda: b'path="/recommend",status="499"} 1.0' in client.get("/metrics")[1])
    go_on.set()
    first.join()
    assert client.post("/recommend", {"history": ["é"]})[0] == 200
    assert histories == [[[["a"]]], [[["é"]]]]


def test_a_failure_of_the_model_is_not_called_the_clients(
    bundle: Path, serving: Callable[[FastAPI], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serving(application(bundle, look_every=0))
    for error in (ScoresError("no numbers"), RuntimeError("no memory"), TypeError("a mistake")):
        monkeypatch.setattr(batching, "recommended", _raising(error))
        status, answer = client.post("/recommend", {"history": ["a"]})
        assert (status, answer) == (500, {"detail": "the service failed; its log says how"})


def test_too_much_waiting_is_said_with_when_to_come_again(
    bundle: Path, serving: Callable[[FastAPI], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serving(application(bundle, look_every=0))
    monkeypatch.setattr(batching, "recommended", _raising(batching.BusyError("too much")))
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        urllib.request.urlopen(
            urllib.request.Request(
                client.url + "/recommend", b'{"history": ["a"]}', {"Content-Type": "application/json"}
            ),
            timeout=60,
        )
    assert refused.value.headers["Retry-After"] == "1"
    refused.value.close()


def _raising(error: Exception) -> Callable[..., Any]:
    def answer(*_: object) -> Any:
        raise error

    return answer


def _address(client: Any) -> tuple[str, int]:
    host, port = client.url.removeprefix("http://").split(":")
    return host, int(port)


def test_health_names_the_model_that_answers(client: Any, lasting_bundle: Path) -> None:
    status, answer = client.get("/health")
    health = json.loads(answer)
    assert (status, health["status"], health["encoder"], health["n_items"], health["trouble"]) == (
        200,
        "ok",
        "sasrec",
        6,
        None,
    )
    head = urllib.request.Request(client.url + "/health", method="HEAD")
    with urllib.request.urlopen(head, timeout=60) as answered:
        assert answered.status == 200
    weights = json.loads((lasting_bundle / "manifest.json").read_text())["files"]["weights.safetensors"]["sha256"]
    assert health["model"] == weights[:12] == client.post("/recommend", {"history": ["a"]})[1]["model"]


def test_what_happened_is_counted(bundle: Path, serving: Callable[[FastAPI], Any]) -> None:
    client = serving(application(bundle, look_every=0))
    client.post("/recommend", {"histories": [["a", "x"], ["x"]], "on_empty": "blank"})
    client.post("/recommend", {"histories": []})
    client.post("/recommend", {"history": []})
    client.get("/favicon.ico")
    _, text = client.get("/metrics")
    lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
    assert lines['conseq_requests_total{path="/recommend",status="200"}'] == "2.0"
    assert lines['conseq_requests_total{path="/recommend",status="422"}'] == "1.0"
    assert lines['conseq_requests_total{path="other",status="404"}'] == "1.0"
    assert lines['conseq_request_seconds_count{path="/recommend"}'] == "3.0"
    assert lines["conseq_histories_total"] == "2.0"
    assert lines["conseq_unknown_items_total"] == "2.0"
    assert lines["conseq_empty_histories_total"] == "1.0"
    assert lines["conseq_waiting"] == "0.0"
    assert lines["conseq_model_changes_total"] == "0.0"
    assert any(re.match(r'conseq_model_info\{.*encoder="sasrec"', line) for line in lines)


def test_the_description_knows_every_key_and_its_type(client: Any) -> None:
    _, text = client.get("/openapi.json")
    described = json.loads(text)
    assert set(described["paths"]) == {"/recommend", "/similar", "/vectors", "/health", "/metrics"}
    keys = described["components"]["schemas"]["RecommendRequest"]["properties"]
    assert keys["k"]["default"] == 10
    item = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
    assert keys["history"]["anyOf"][0] == {"type": "array", "items": item}
    assert all("description" in one for one in keys.values())


def test_it_can_be_mounted_in_another_application(bundle: Path, serving: Callable[[FastAPI], Any]) -> None:
    outer = FastAPI()
    outer.mount("/next", application(bundle, look_every=0))
    client = serving(outer)
    assert client.post("/next/recommend", {"history": ["a"]})[0] == 200
    assert "did you mean 'histories'" in client.post("/next/recommend", {"histores": ["a"]})[1]["detail"]
    assert b'path="/recommend",status="422"' in client.get("/next/metrics")[1]


def test_a_proxy_may_show_it_under_a_path(bundle: Path, running: Callable[..., Any]) -> None:
    with running(application(bundle, look_every=0), root_path="/next") as client:  # the proxy takes the path off
        assert client.post("/recommend", {"history": ["a"]})[0] == 200
        assert "did you mean 'histories'" in client.post("/recommend", {"histores": ["a"]})[1]["detail"]
        assert b'path="/recommend",status="422"' in client.get("/metrics")[1]
        assert json.loads(client.get("/openapi.json")[1])["servers"] == [{"url": "/next"}]


def test_the_outer_application_may_start_and_end_it(
    bundle: Path, running: Callable[[FastAPI], Any], wait_for: Callable[[Callable[[], bool]], None]
) -> None:
    inner = application(bundle, look_every=0.01)
    before = threading.active_count()
    outer = FastAPI(lifespan=inner.router.lifespan_context)
    outer.mount("/next", inner)
    with running(outer) as client:
        assert client.get("/next/health")[0] == 200
        assert threading.active_count() >= before + 3  # the server, the model, the bundle
        assert client.post("/next/recommend", {"history": ["a"]})[0] == 200
    wait_for(lambda: threading.active_count() == before)
