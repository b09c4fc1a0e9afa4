"""``conseq serve``, in a process of its own."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from conseq.cli import serve
from conseq.cli.main import main
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.sasrec import SASRecConfig
from conseq.nn.items import ItemTable
from conseq.serving.bundle import save_bundle
from conseq.serving.recommender import Recommender


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = SASRecConfig(width=8, layers=1, max_length=4)
    save_bundle(config(ItemTable(3, 8)), config, Vocabulary(list("abc"), start=1), tmp_path / "b", {}, counts=[1, 3, 2])
    return tmp_path / "b"


@pytest.fixture
def process(bundle: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "log.csv").write_text("user,item,time\nu,a,1\nu,b,2\n", encoding="utf-8")
    given = f"--port 0 --log {tmp_path / 'log.csv'} --on-empty popular --threads 1 --most-seconds 1 --access-log"
    options = given.split()
    command = [sys.executable, "-m", "conseq.cli.main", "serve", str(bundle), *options]
    # A shell's background jobs ignore Ctrl-C, and so would what they start: the service is to be asked as in front.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        yield process
        process.kill()


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_it_says_where_it_answers_and_ends_with_the_signal(
    process: subprocess.Popen[str], bundle: Path, stop: signal.Signals, status: int
) -> None:
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    line = next(line for line in lines if "answers at" in line)  # what reading a log shows comes before it
    found = re.search(r"answers at (http://127\.0\.0\.1:\d+)", line)
    assert found is not None
    answers = []
    for body in ({"users": ["u"], "k": 1}, {"history": [], "k": 1}):
        asked = urllib.request.Request(
            found[1] + "/recommend", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            answers.append(json.load(answer)["recommendations"])
    assert answers[0][0][0]["item_id"] == Recommender.load(bundle).recommend(["a", "b"], 1).ids[0] == "c"
    assert answers[1][0]["item_id"] == "b"
    host, port = found[1].removeprefix("http://").split(":")
    stalled = socket.create_connection((host, int(port)))
    stalled.sendall(b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
    process.send_signal(stop)
    printed, _ = process.communicate(timeout=60)
    stalled.close()
    assert process.returncode == status
    assert '"POST /recommend HTTP/1.1" 200' in printed


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(bundle), "--port", str(port)]) == 2
    assert f"127.0.0.1, port {port}: cannot listen there: address already in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "port 70000: expected 0 to 65535"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid, port 0: cannot listen there"),
        (["--most-k", "0"], "k is 0; it must be at least 1"),
        (["--look-every", "-1"], "look_every is -1"),
        (["--log", "nowhere.csv"], "nowhere.csv"),
        (["--device", "quantum"], "quantum"),
        (["--threads", "0"], "threads is 0"),
    ],
)
def test_what_cannot_be_meant_is_one_message(
    bundle: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(bundle), *(["--port", "0"] if "--port" not in options else []), *options]) == 2
    assert message in capsys.readouterr().err


def test_answers_do_not_wait_for_the_client_to_confirm_their_first_piece() -> None:
    (listening,) = serve._listening("127.0.0.1", 0)
    with listening:
        # asyncio asks this of a connection before it turns Nagle's algorithm off.
        assert listening.proto == socket.IPPROTO_TCP
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.proto == socket.IPPROTO_TCP


def test_all_addresses_of_a_name_have_one_port() -> None:
    with ExitStack() as stack:
        found = [stack.enter_context(one) for one in serve._listening("localhost", 0)]
        (port,) = {one.getsockname()[1] for one in found}
        socket.create_connection(("localhost", port), timeout=60).close()
        socket.create_connection(("127.0.0.1", port), timeout=60).close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_all_of_the_machines_addresses_are_those_of_ipv4_too() -> None:
    with ExitStack() as stack:
        found = [stack.enter_context(one) for one in serve._listening("::", 0)]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, found[0].getsockname()[1]), timeout=60).close()


def test_no_bundle_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert f"{tmp_path} is not a bundle" in capsys.readouterr().err
