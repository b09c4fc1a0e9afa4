"""A bundle, and its service on a port of this machine."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from fastapi import FastAPI

from conseq.data.vocabulary import Vocabulary
from conseq.encoders.sasrec import SASRecConfig
from conseq.nn.items import ItemTable
from conseq.serving.bundle import save_bundle
from conseq.serving.http import application

COUNTS = [1, 5, 2, 4, 3, 0]
ITEMS = ["a", "b", "c d", "007", "é", "5"]


class Client:
    """Asks a service, without any library's idea of what an answer is."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> tuple[int, bytes]:
        return self._answer(urllib.request.Request(self.url + path))

    def post(self, path: str, body: object) -> tuple[int, Any]:
        status, answer = self.send(path, json.dumps(body).encode())
        return status, json.loads(answer)

    def send(self, path: str, body: bytes, kind: str = "application/json") -> tuple[int, bytes]:
        return self._answer(urllib.request.Request(self.url + path, body, {"Content-Type": kind}))

    def _answer(self, request: urllib.request.Request) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()


@contextmanager
def running(app: FastAPI, *, root_path: str = "") -> Iterator[Client]:
    """Gives a client of ``app``, which answers in a thread until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", root_path=root_path))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Client(f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(name="running")
def running_fixture() -> Callable[..., AbstractContextManager[Client]]:
    """Gives a client of an application that ends with a block."""
    return running


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Waits until something is so, for a minute at most."""

    def wait(what: Callable[[], bool]) -> None:
        for _ in range(6000):
            if what():
                return
            time.sleep(0.01)
        raise AssertionError("it has not happened in a minute")

    return wait


@pytest.fixture
def serving() -> Iterator[Callable[[FastAPI], Client]]:
    """Gives clients of applications, which end with the test."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(running(app))


def _saved(
    folder: Path, *, items: Sequence[str] = ITEMS, seed: int = 0, counts: list[int] | None = None, broken: str = ""
) -> Path:
    torch.manual_seed(seed)
    config = SASRecConfig(width=8, layers=1, max_length=4)
    encoder = config(ItemTable(len(items), 8))
    if broken:
        with torch.no_grad():
            next(values for name, values in encoder.named_parameters() if broken in name)[2] = torch.nan
    save_bundle(encoder, config, Vocabulary(items, start=1), folder, {}, counts=counts)
    return folder


@pytest.fixture
def save() -> Callable[..., Path]:
    """Saves a bundle of random weights."""
    return _saved


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return _saved(tmp_path / "bundle", counts=COUNTS)


@pytest.fixture(scope="module")
def lasting_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for tests that change nothing."""
    return _saved(tmp_path_factory.mktemp("lasting") / "bundle", counts=COUNTS)


@pytest.fixture(scope="module")
def client(lasting_bundle: Path) -> Iterator[Client]:
    """Asks its service."""
    with running(application(lasting_bundle, look_every=0)) as one:
        yield one
