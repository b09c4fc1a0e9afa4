"""The catalogue, and fetching from it against a local server."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from conseq.data import sources
from conseq.data.download import Checksum, file_digest
from conseq.data.locks import locked
from conseq.data.sources import SOURCES, fetch, source

RATINGS = "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n"
RATINGS_TABLE = [("1", "1193", 978300760), ("1", "661", 978302109), ("2", "1193", 978298413)]


def archive_in(folder: Path) -> Path:
    """A small ml-1m.zip of the published layout."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/README", "terms")
        archive.writestr("ml-1m/ratings.dat", RATINGS)
    return folder / "ml-1m.zip"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose ml-1m.zip the catalogue's entry for ml-1m points to, with its checksum."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    archive = archive_in(tmp_path / "served")
    handler = partial(Quiet, directory=str(archive.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        entry = replace(
            SOURCES["ml-1m"],
            url=f"http://127.0.0.1:{server.server_port}/ml-1m.zip",
            checksum=Checksum(file_digest(archive), "a catalogue"),
            size=archive.stat().st_size,
        )
        monkeypatch.setitem(sources.SOURCES, "ml-1m", entry)
        yield archive.parent
        server.shutdown()
        thread.join()


# The catalogue


def test_the_catalogue_holds_the_logs_of_the_papers() -> None:
    categories = ("beauty", "sports", "toys", "clothing", "books")
    expected = {f"amazon-{name}{kind}" for name in categories for kind in ("", "-ratings")}
    assert set(SOURCES) == expected | {"ml-100k", "ml-1m", "ml-20m", "yelp", "gowalla", "steam"}


@pytest.mark.parametrize("name", SOURCES)
def test_every_checksum_is_whole_and_cites_an_address(name: str) -> None:
    checksum = SOURCES[name].checksum
    if checksum is not None:
        digits = hashlib.new(checksum.algorithm).digest_size * 2
        assert re.fullmatch(f"[0-9a-f]{{{digits}}}", checksum.digest)
        assert re.search(r"https://github\.com/\S+/[0-9a-f]{40}/\S+\.(txt|py)$", checksum.source)


@pytest.mark.parametrize("name", SOURCES)
def test_every_entry_names_its_file_its_page_and_its_terms(name: str) -> None:
    entry = SOURCES[name]
    assert entry.name == name
    assert re.fullmatch("[a-z0-9-]+", name)
    assert entry.page.startswith("https://")
    assert entry.licence
    if entry.url is not None:
        assert entry.url.startswith("https://")
        assert entry.url.rsplit("/", 1)[1] == entry.file


def test_no_two_entries_have_the_same_checksum() -> None:
    digests = [entry.checksum.digest for entry in SOURCES.values() if entry.checksum]
    assert len(set(digests)) == len(digests) == 10


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no public log is called 'ml-1n'; did you mean 'ml-1m'"):
        source("ml-1n")
    with pytest.raises(ValueError, match="'qqqq'; known: amazon-beauty, "):
        source("qqqq")


# Fetching


def test_fetching_downloads_checks_and_reads(served: Path, tmp_path: Path) -> None:
    fetched = fetch("ml-1m", tmp_path / "to", progress=False)
    assert fetched.path == tmp_path / "to" / "interactions.parquet"
    assert pl.read_parquet(fetched.path).rows() == RATINGS_TABLE
    assert (fetched.parsed.rows, fetched.parsed.users, fetched.parsed.items) == (3, 2, 2)
    assert fetched.verified_by == "a catalogue"
    record = json.loads((tmp_path / "to" / "source.json").read_text())
    assert record["sha256"] == file_digest(served / "ml-1m.zip")
    assert record["licence"].startswith("Research use")
    files = sorted(file.name for file in (tmp_path / "to").iterdir())
    assert files == [".lock", "interactions.parquet", "ml-1m.zip", "source.json"]


def test_fetching_again_neither_downloads_nor_reads_again(served: Path, tmp_path: Path) -> None:
    first = fetch("ml-1m", tmp_path / "to", progress=False)
    before = first.path.stat().st_mtime_ns
    (served / "ml-1m.zip").unlink()
    assert fetch("ml-1m", tmp_path / "to", progress=False) == first
    assert first.path.stat().st_mtime_ns == before


def test_a_first_download_without_a_published_checksum_says_where_it_recorded_its_own(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(SOURCES["ml-1m"], checksum=None, size=None)
    monkeypatch.setitem(sources.SOURCES, "ml-1m", entry)
    record = f"{tmp_path / 'to' / 'ml-1m.zip'}.sha256"
    first = fetch("ml-1m", tmp_path / "to", progress=False)
    assert (first.verified_by, first.recorded_in) == (None, record)
    assert Path(record).read_text().split() == [first.sha256, "ml-1m.zip"]
    again = fetch("ml-1m", tmp_path / "to", progress=False)
    assert (again.verified_by, again.recorded_in) == (record, None)


@pytest.mark.parametrize("record", ["not json", "{}", '{"name": "ml-1m", "sha256": "other", "parsed": {}}', "[]"])
def test_a_result_of_unknown_origin_is_read_again(served: Path, tmp_path: Path, record: str) -> None:
    fetched = fetch("ml-1m", tmp_path / "to", progress=False)
    fetched.path.write_bytes(b"something else")
    (tmp_path / "to" / "source.json").write_text(record)
    assert pl.read_parquet(fetch("ml-1m", tmp_path / "to", progress=False).path).rows() == RATINGS_TABLE


def test_a_damaged_result_is_read_again(served: Path, tmp_path: Path) -> None:
    fetched = fetch("ml-1m", tmp_path / "to", progress=False)
    whole = fetched.path.read_bytes()
    fetched.path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert fetch("ml-1m", tmp_path / "to", progress=False) == fetched
    assert fetched.path.read_bytes() == whole


def test_two_processes_do_not_fetch_into_one_folder(served: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "to"), pytest.raises(BlockingIOError, match="is at work in this folder; wait"):
        fetch("ml-1m", tmp_path / "to", progress=False)
    assert fetch("ml-1m", tmp_path / "to", progress=False).parsed.rows == 3


def test_the_default_folder_is_named_after_the_log_in_the_cache(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSEQ_DATA", str(tmp_path / "cache"))
    assert fetch("ml-1m", progress=False).path == tmp_path / "cache" / "ml-1m" / "interactions.parquet"


def test_a_download_that_is_not_what_was_published_is_not_read(served: Path, tmp_path: Path) -> None:
    size = (served / "ml-1m.zip").stat().st_size
    (served / "ml-1m.zip").write_bytes(bytes(size))
    with pytest.raises(ValueError, match=r"expected [0-9a-f]{64} \(from a catalogue\); nothing was kept"):
        fetch("ml-1m", tmp_path / "to", progress=False)
    assert not (tmp_path / "to" / "interactions.parquet").exists()


def test_a_log_that_only_its_user_may_get_says_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"accept its terms on https://.*conseq data fetch yelp --archive FILE"):
        fetch("yelp", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_the_users_own_archive_is_read_in_place_of_a_download(tmp_path: Path) -> None:
    review = {"user_id": "u", "business_id": "b", "date": "2016-05-28"}
    (tmp_path / "review.json").write_text(json.dumps(review) + "\n")
    fetched = fetch("yelp", tmp_path / "to", archive=tmp_path / "review.json")
    assert pl.read_parquet(fetched.path).rows() == [("u", "b", 1464393600)]
    assert fetched.verified_by is None
    assert fetched.sha256 == file_digest(tmp_path / "review.json")
    folder = fetch("yelp", tmp_path / "to", archive=tmp_path)
    assert (folder.sha256, folder.parsed.rows) == (None, 1)


def test_the_users_own_archive_must_be_what_was_published(served: Path, tmp_path: Path) -> None:
    own = archive_in(tmp_path / "own")
    own.write_bytes(own.read_bytes() + b"more")
    with pytest.raises(ValueError, match=r"own/ml-1m\.zip has sha256 .*, expected .* \(from a catalogue\)"):
        fetch("ml-1m", tmp_path / "to", archive=own)
    fetched = fetch("ml-1m", tmp_path / "to", archive=served / "ml-1m.zip")
    assert fetched.verified_by == "a catalogue"


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*Yelp-JSON\.zip"):
        fetch("yelp", tmp_path, archive=tmp_path / "Yelp-JSON.zip")
