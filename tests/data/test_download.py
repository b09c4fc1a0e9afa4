"""Downloads against a local server that cuts, refuses, forgets ranges and changes its file."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conseq.data.download import Checksum, cache_folder, download, recorded

CONTENT = bytes(range(256)) * 4000
OTHER = CONTENT[::-1]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


PUBLISHED = Checksum(sha256(CONTENT), source="the catalogue")


@dataclass
class Behaviour:
    """What the server does, and what it was asked for."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    ranges: bool = True
    chunked: bool = False
    cuts: list[int] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    shift: int = 0
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Behaviour

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        does = self.behaviour
        does.asked.append(self.headers.get("Range"))
        if does.refusals:
            status, headers = does.refusals.pop(0)
            self.answer(status, {**headers, "Content-Length": "0"})
            return
        start = self.start_of_range()
        if start is not None and start >= len(does.content):
            self.answer(416, {"Content-Range": f"bytes */{len(does.content)}", "Content-Length": "0"})
            return
        body = does.content[start or 0 :]
        headers = {} if does.etag is None else {"ETag": does.etag}
        if start is not None:
            last = len(does.content) - 1
            headers["Content-Range"] = f"bytes {start + does.shift}-{last}/{len(does.content)}"
        if does.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(body))
        self.answer(200 if start is None else 206, headers)
        self.send(body)

    def start_of_range(self) -> int | None:
        """The first byte asked for, where ranges are known and If-Range names the present file."""
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if asked is None or not self.behaviour.ranges or condition not in (None, self.behaviour.etag):
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, body: bytes) -> None:
        cut = self.behaviour.cuts.pop(0) if self.behaviour.cuts else None
        sent = body[:cut]
        if self.behaviour.chunked:
            self.wfile.write(f"{len(sent):x}\r\n".encode() + sent + b"\r\n")
            if cut is None:
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(sent)
        if cut is not None:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        # A client that stops reading early is part of these tests.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    behaviour = Behaviour()
    handler = type("OneHandler", (Handler,), {"behaviour": behaviour})
    with Server(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        behaviour.url = f"http://127.0.0.1:{running.server_port}/data.zip"
        yield behaviour
        running.shutdown()
        thread.join()


def fetch(
    server: Behaviour,
    path: Path,
    *,
    checksum: Checksum | None = PUBLISHED,
    size: int | None = None,
    attempts: int = 3,
) -> bytes:
    done = download(server.url, path, checksum=checksum, size=size, attempts=attempts, pause=0.01, progress=False)
    assert done.path == path
    content = path.read_bytes()
    assert done.sha256 == sha256(content)
    return content


def left_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_file_arrives_whole_and_leaves_nothing_else_behind(server: Behaviour, tmp_path: Path) -> None:
    assert fetch(server, tmp_path / "new" / "data.zip", size=len(CONTENT)) == CONTENT
    assert left_in(tmp_path / "new") == ["data.zip"]
    assert server.asked == [None]


def test_a_file_that_is_there_is_checked_and_not_asked_for_again(server: Behaviour, tmp_path: Path) -> None:
    fetch(server, tmp_path / "data.zip")
    done = download(server.url, tmp_path / "data.zip", checksum=PUBLISHED, progress=False)
    assert (done.fetched, done.verified) == (False, PUBLISHED)
    assert server.asked == [None]


def test_a_cut_connection_is_continued_where_it_broke(server: Behaviour, tmp_path: Path) -> None:
    server.cuts = [300_000, 200_000]
    assert fetch(server, tmp_path / "data.zip") == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]
    assert left_in(tmp_path) == ["data.zip"]


def test_a_later_call_continues_what_an_earlier_one_kept(server: Behaviour, tmp_path: Path) -> None:
    server.cuts = [300_000]
    with pytest.raises(OSError, match=r"the connection was cut .* 300000 bytes are kept in .*data.zip.partial"):
        fetch(server, tmp_path / "data.zip", attempts=1)
    assert left_in(tmp_path) == ["data.zip.partial", "data.zip.partial.json"]
    assert fetch(server, tmp_path / "data.zip") == CONTENT
    assert server.asked == [None, "bytes=300000-"]
    assert left_in(tmp_path) == ["data.zip"]


def test_a_cut_in_a_chunked_answer_is_noticed(server: Behaviour, tmp_path: Path) -> None:
    server.chunked, server.cuts = True, [300_000]
    assert fetch(server, tmp_path / "data.zip") == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_a_server_without_ranges_is_read_from_the_start_again(server: Behaviour, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [300_000]
    assert fetch(server, tmp_path / "data.zip") == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_a_file_that_changed_meanwhile_is_read_from_the_start(server: Behaviour, tmp_path: Path) -> None:
    server.cuts = [300_000]
    with pytest.raises(OSError, match="cut"):
        fetch(server, tmp_path / "data.zip", checksum=None, attempts=1)
    server.content, server.etag = OTHER, '"two"'
    assert fetch(server, tmp_path / "data.zip", checksum=None) == OTHER


def test_without_a_mark_or_a_checksum_nothing_is_continued(server: Behaviour, tmp_path: Path) -> None:
    server.etag, server.cuts = None, [300_000]
    assert fetch(server, tmp_path / "data.zip", checksum=None) == CONTENT
    assert server.asked == [None, None]


def test_a_weak_mark_is_not_used_to_continue(server: Behaviour, tmp_path: Path) -> None:
    server.etag, server.cuts = 'W/"one"', [300_000]
    assert fetch(server, tmp_path / "data.zip", checksum=None) == CONTENT
    assert server.asked == [None, None]


def test_without_a_mark_a_checksum_allows_to_continue(server: Behaviour, tmp_path: Path) -> None:
    server.etag, server.cuts = None, [300_000]
    assert fetch(server, tmp_path / "data.zip") == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_a_partial_file_that_is_already_whole_is_kept(server: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "data.zip.partial").write_bytes(CONTENT)
    (tmp_path / "data.zip.partial.json").write_text(json.dumps({"url": server.url, "validator": '"one"'}))
    assert fetch(server, tmp_path / "data.zip") == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_partial_file_that_is_too_long_is_thrown_away(server: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "data.zip.partial").write_bytes(CONTENT + b"more")
    (tmp_path / "data.zip.partial.json").write_text(json.dumps({"url": server.url, "validator": '"one"'}))
    assert fetch(server, tmp_path / "data.zip") == CONTENT
    assert server.asked == [f"bytes={len(CONTENT) + 4}-", None]


@pytest.mark.parametrize("state", ['{"url": "http://elsewhere/data.zip", "validator": "x"}', "not json", "[]"])
def test_a_partial_file_of_unknown_origin_is_thrown_away(server: Behaviour, tmp_path: Path, state: str) -> None:
    (tmp_path / "data.zip.partial").write_bytes(b"something else")
    (tmp_path / "data.zip.partial.json").write_text(state)
    assert fetch(server, tmp_path / "data.zip") == CONTENT
    assert server.asked == [None]


def test_a_server_that_sends_another_part_is_not_believed(server: Behaviour, tmp_path: Path) -> None:
    server.cuts, server.shift = [300_000], 10
    with pytest.raises(OSError, match="another part of the file than bytes 300000"):
        fetch(server, tmp_path / "data.zip")


def test_a_wrong_checksum_keeps_nothing_and_names_both(server: Behaviour, tmp_path: Path) -> None:
    wrong = Checksum("0" * 64, source="the catalogue")
    message = rf"has sha256 {sha256(CONTENT)}, expected {'0' * 64} \(from the catalogue\); nothing was kept"
    with pytest.raises(ValueError, match=message):
        fetch(server, tmp_path / "data.zip", checksum=wrong)
    assert left_in(tmp_path) == []


def test_an_md5_checksum_is_compared_as_md5(server: Behaviour, tmp_path: Path) -> None:
    digest = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert fetch(server, tmp_path / "data.zip", checksum=Checksum(digest, "a page", "md5")) == CONTENT
    with pytest.raises(ValueError, match=f"has md5 {digest}, expected {'f' * 32}"):
        fetch(server, tmp_path / "other.zip", checksum=Checksum("f" * 32, "a page", "md5"))


def test_a_damaged_file_that_is_there_is_refused_and_left_alone(server: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(OTHER)
    with pytest.raises(ValueError, match=r"data\.zip has sha256 .* delete it to download it again"):
        fetch(server, tmp_path / "data.zip")
    assert (tmp_path / "data.zip").read_bytes() == OTHER
    assert server.asked == []


def test_a_file_of_another_length_than_published_is_refused_at_once(server: Behaviour, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 1024000 bytes, expected 7; nothing was kept"):
        fetch(server, tmp_path / "data.zip", size=7)
    assert left_in(tmp_path) == []


def test_a_first_download_records_its_checksum(server: Behaviour, tmp_path: Path) -> None:
    done = download(server.url, tmp_path / "data.zip", progress=False)
    assert (done.fetched, done.verified) == (True, None)
    assert (tmp_path / "data.zip.sha256").read_text() == f"{sha256(CONTENT)}  data.zip\n"
    again = download(server.url, tmp_path / "data.zip", progress=False)
    assert again.verified == recorded(tmp_path / "data.zip")


def test_a_later_download_that_differs_from_the_first_is_refused(server: Behaviour, tmp_path: Path) -> None:
    fetch(server, tmp_path / "data.zip", checksum=None)
    (tmp_path / "data.zip").unlink()
    server.content, server.etag = OTHER, '"two"'
    with pytest.raises(
        ValueError, match=r"nothing was kept; if the new file is the right one, delete .*data\.zip\.sha256"
    ):
        fetch(server, tmp_path / "data.zip", checksum=None)
    assert left_in(tmp_path) == ["data.zip.sha256"]


def test_a_record_that_is_no_checksum_is_named(server: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "data.zip.sha256").write_text("hello\n")
    with pytest.raises(ValueError, match=r"data\.zip\.sha256 does not begin with a SHA-256"):
        fetch(server, tmp_path / "data.zip", checksum=None)


def test_a_missing_file_is_reported_with_its_status_and_not_tried_again(server: Behaviour, tmp_path: Path) -> None:
    server.refusals = [(404, {})] * 3
    with pytest.raises(OSError, match=r"/data\.zip: the server answered 404 Not Found"):
        fetch(server, tmp_path / "data.zip")
    assert server.asked == [None]
    assert left_in(tmp_path) == []


def test_a_busy_server_is_asked_again(server: Behaviour, tmp_path: Path) -> None:
    server.refusals = [(503, {"Retry-After": "0"}), (429, {})]
    assert fetch(server, tmp_path / "data.zip") == CONTENT
    assert server.asked == [None] * 3


def test_a_server_that_stays_busy_is_given_up(server: Behaviour, tmp_path: Path) -> None:
    server.refusals = [(500, {})] * 9
    with pytest.raises(OSError, match=r"500 Internal Server Error \(3 attempts without progress\)"):
        fetch(server, tmp_path / "data.zip")
    assert len(server.asked) == 3


def test_a_server_that_is_not_there_is_reported(server: Behaviour, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="attempts without progress"):
        download("http://127.0.0.1:9/x", tmp_path / "x", attempts=2, pause=0.01, progress=False)


def test_only_web_addresses_are_downloaded(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(ValueError, match="expected an address that begins with http"):
        download((tmp_path / "secret").as_uri(), tmp_path / "copy")
    assert left_in(tmp_path) == ["secret"]


def test_progress_goes_to_standard_error(server: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(server.url, tmp_path / "data.zip", checksum=PUBLISHED)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "data.zip" in shown.err


def test_the_cache_folder_is_the_argument_then_the_variable_then_the_platforms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("CONSEQ_DATA", str(tmp_path / "chosen"))
    assert cache_folder(tmp_path) == tmp_path
    assert cache_folder() == tmp_path / "chosen"
    monkeypatch.delenv("CONSEQ_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "conseq"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "conseq"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "conseq"
