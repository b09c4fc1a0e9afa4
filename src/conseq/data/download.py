"""Downloads that resume, and files that are what their checksum says."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from conseq.data.files import atomic_write

BLOCK = 1 << 18
# Answers that a later attempt may not get: timeouts, too many requests, and the server's own faults.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Checksum:
    """What a file must hash to, and who says so.

    Attributes:
        digest: Lower-case hexadecimal.
        source: Where it was published, or the record of the first download.
        algorithm: ``sha256``, or ``md5`` where nothing better was published.
    """

    digest: str
    source: str
    algorithm: Literal["sha256", "md5"] = "sha256"


@dataclass(frozen=True)
class Downloaded:
    """A file that is there and checked.

    Attributes:
        path: The file.
        sha256: Its SHA-256, hexadecimal.
        verified: What it was checked against; None for a first download of a file without a published checksum.
        fetched: Whether this call downloaded it; False where it was there already.
    """

    path: Path
    sha256: str
    verified: Checksum | None
    fetched: bool


def cache_folder(folder: Path | str | None = None) -> Path:
    """Gives the folder of downloaded data.

    Args:
        folder: Used where given. Else the environment variable ``CONSEQ_DATA``, else the platform's cache.

    Returns:
        The folder, which need not exist.
    """
    if folder is not None:
        return Path(folder).expanduser()
    if chosen := os.environ.get("CONSEQ_DATA"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "conseq"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "conseq"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "conseq"


def download(
    url: str,
    path: Path | str,
    *,
    checksum: Checksum | None = None,
    size: int | None = None,
    attempts: int = 5,
    pause: float = 1.0,
    progress: bool = True,
) -> Downloaded:
    """Gives the file at ``url`` as ``path``, whole and checked, or raises and leaves nothing bad there.

    What arrived before a cut stays as ``<name>.partial`` and is continued, now or by a later call, unless the
    server says that its file has changed. Without a published checksum, the first download writes its own to
    ``<name>.sha256``, and whatever is downloaded later must equal it. A server that refuses, and a connection
    that fails too often, end in an OSError that says what was kept.

    Args:
        url: http or https.
        path: The file to make. Where it is there already, it is only checked.
        checksum: What was published for it.
        size: Its published size in bytes.
        attempts: How often to try in a row without receiving anything new.
        pause: Seconds before the second attempt; doubled for each further one.
        progress: Show a bar on standard error.

    Returns:
        The file and what it was checked against.

    Raises:
        ValueError: if the file is not what its checksum or size says, or the address is not http or https.
    """
    path = Path(path)
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError(f"cannot download {url!r}: expected an address that begins with http:// or https://")
    expected = checksum or recorded(path)
    if path.exists():
        return _checked(path, path, expected, url, fetched=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    transfer = _Transfer(url, partial, size, trusted=expected is not None)
    with _bar(progress) as bar:
        transfer.run(attempts, pause, _meter(bar, path.name))
    done = _checked(partial, path, expected, url, fetched=True)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    transfer.discard()
    return done


def recorded(path: Path) -> Checksum | None:
    """Gives the checksum that the first download of ``path`` recorded beside it, or None.

    Args:
        path: The downloaded file, which need not exist.

    Returns:
        The content of ``<name>.sha256``.

    Raises:
        ValueError: if that file does not begin with a SHA-256.
    """
    record = path.with_name(path.name + ".sha256")
    if not record.exists():
        return None
    digest = record.read_text(encoding="utf-8")[:64].lower()
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"{record} does not begin with a SHA-256 (64 hexadecimal digits); delete or mend it")
    return Checksum(digest, source=str(record))


def _checked(file: Path, path: Path, expected: Checksum | None, url: str, *, fetched: bool) -> Downloaded:
    """Gives ``file`` as what ``path`` is (to be), after comparing or recording its checksum."""
    sha256 = file_digest(file, "sha256")
    if expected is None:
        atomic_write(path.with_name(path.name + ".sha256"), f"{sha256}  {path.name}\n")
        return Downloaded(path, sha256, None, fetched)
    found = sha256 if expected.algorithm == "sha256" else file_digest(file, expected.algorithm)
    if found == expected.digest:
        return Downloaded(path, sha256, expected, fetched)
    problem = f"has {expected.algorithm} {found}, expected {expected.digest} (from {expected.source})"
    if not fetched:
        raise ValueError(f"{path} {problem}; delete it to download it again from {url}")
    _discard(file)
    advice = "try again later"
    if expected == recorded(path):
        advice = f"if the new file is the right one, delete {expected.source}"
    raise ValueError(f"{url} {problem}; nothing was kept; {advice}")


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Gives the hexadecimal digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


class _Transfer:
    """One download into a partial file, with what is needed to continue it.

    Args:
        url: The address.
        partial: The partial file.
        size: The published length in bytes, where known.
        trusted: Whether a checksum will tell a wrong continuation, so that one may be tried without a validator.
    """

    def __init__(self, url: str, partial: Path, size: int | None, *, trusted: bool) -> None:
        self.url = url
        self.partial = partial
        self.state = partial.with_name(partial.name + ".json")
        self.size = size
        self.trusted = trusted

    def run(self, attempts: int, pause: float, report: Callable[[int, int | None], None]) -> None:
        """Receives until the file is whole; waits and continues after passing failures."""
        failures = 0
        while True:
            before, wait = self.received(), 0.0
            try:
                if self._receive(report):
                    return
                reason = "the connection was cut"
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"the server answered {error.code} {error.reason}"
                    if error.code not in PASSING:
                        raise OSError(f"{self.url}: {reason}") from None
                    wait = _retry_after(error)
            except _NetworkError as error:
                reason = str(error)
            failures = 1 if self.received() > before else failures + 1
            if failures >= attempts:
                raise OSError(f"{self.url}: {reason} ({attempts} attempts without progress){self._kept()}")
            time.sleep(max(wait, pause * 2 ** (failures - 1)))

    def received(self) -> int:
        """Gives the bytes in the partial file."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _kept(self) -> str:
        received = self.received()
        return f"; {received} bytes are kept in {self.partial}, a new call continues there" if received else ""

    def discard(self) -> None:
        """Removes the partial file and its state."""
        _discard(self.partial)

    def _receive(self, report: Callable[[int, int | None], None]) -> bool:
        """Asks for what is missing and writes it; gives whether the file is whole."""
        start = self._start()
        try:
            answer = self._ask(start)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not start:
                raise
            with error:
                # Nothing lies after what we have. It is whole if the server says that this is its length.
                if error.headers.get("Content-Range", "").strip() == f"bytes */{start}":
                    return True
            self.discard()
            answer = self._ask(0)
        with answer:
            offset, total = _extent(answer, start)
            if self.size is not None and total not in {None, self.size}:
                self.discard()
                raise ValueError(f"{self.url} has {total} bytes, expected {self.size}; nothing was kept")
            if not offset:
                self._note(answer)
            return self._write(answer, offset, total or self.size, report)

    def _start(self) -> int:
        """Gives how many bytes can be continued from; 0 where that would be unsafe."""
        if not self.received():
            return 0
        state = self._read_state()
        if state.get("url") != self.url or not (self.trusted or state.get("validator")):
            self.discard()
            return 0
        return self.received()

    def _read_state(self) -> dict[str, str]:
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return state if isinstance(state, dict) else {}

    def _ask(self, start: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": "conseq", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if validator := self._read_state().get("validator"):
                headers["If-Range"] = validator
        try:
            answer: http.client.HTTPResponse = urllib.request.urlopen(
                urllib.request.Request(self.url, headers=headers), timeout=60
            )
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise _NetworkError(str(getattr(error, "reason", error)) or type(error).__name__) from None
        return answer

    def _note(self, answer: http.client.HTTPResponse) -> None:
        """Keeps the mark by which the server can tell later whether its file is still the same."""
        etag = answer.headers.get("ETag", "")
        # A weak tag promises equal meaning, not equal bytes, and may not be used to continue (RFC 9110).
        validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
        atomic_write(self.state, json.dumps({"url": self.url, "validator": validator}))

    def _write(
        self,
        answer: http.client.HTTPResponse,
        offset: int,
        total: int | None,
        report: Callable[[int, int | None], None],
    ) -> bool:
        """Writes the answer from ``offset`` on; gives whether the file has its ``total`` length then."""
        with self.partial.open("r+b" if offset else "wb") as file:
            file.truncate(offset)
            file.seek(offset)
            report(offset, total)
            while block := _read(answer):
                file.write(block)
                offset += len(block)
                report(offset, total)
        return total is None or offset == total


class _NetworkError(Exception):
    """A failure of the connection, as opposed to one of the disk."""


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(BLOCK)
    except (http.client.HTTPException, OSError) as error:
        raise _NetworkError(str(error) or type(error).__name__) from None


def _extent(answer: http.client.HTTPResponse, start: int) -> tuple[int, int | None]:
    """Gives where in the file the answer begins and how long the whole file is."""
    length = answer.headers.get("Content-Length")
    if answer.status != 206:
        return 0, int(length) if length else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
    if found is None or int(found[1]) != start:
        raise _NetworkError(f"the server sent another part of the file than bytes {start} and after")
    if found[2] != "*":
        return start, int(found[2])
    return start, start + int(length) if length else None


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Gives the seconds that the server asks us to wait, at most a minute."""
    asked = error.headers.get("Retry-After", "")
    return min(float(asked), 60.0) if asked.isdecimal() else 0.0


def _discard(partial: Path) -> None:
    for file in (partial, partial.with_name(partial.name + ".json")):
        file.unlink(missing_ok=True)


def _bar(shown: bool) -> Progress:
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()]
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


def _meter(bar: Progress, name: str) -> Callable[[int, int | None], None]:
    task = bar.add_task(name, total=None)

    def report(received: int, total: int | None) -> None:
        bar.update(task, completed=received, total=total)

    return report
