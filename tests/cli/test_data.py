"""``conseq data list`` and ``conseq data fetch``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conseq.cli.data import run
from conseq.data.sources import SOURCES


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "review.json"
    rows = [{"user_id": f"u{n % 3}", "business_id": f"b{n}", "date": "2016-05-28"} for n in range(200)]
    path.write_text("\n".join(map(json.dumps, [*rows, {"user_id": "u"}])) + "\n")
    return path


def test_the_list_names_every_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    shown = capsys.readouterr().out
    for name in SOURCES:
        assert f"\n{name} " in f"\n{shown}"
    assert "Next: conseq data fetch NAME" in shown


def test_the_list_as_json_is_one_object_with_every_address_and_checksum(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["list", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["sources"]
    assert [entry["name"] for entry in entries] == list(SOURCES)
    for entry in entries:
        known = SOURCES[entry["name"]]
        assert entry["url"] == known.url
        assert (entry["checksum"] or {}).get("digest") == (known.checksum.digest if known.checksum else None)


def test_fetch_says_what_it_wrote_and_what_to_do_next(
    reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fetch", "yelp", "--to", str(tmp_path / "to"), "--archive", str(reviews)]) == 0
    shown = capsys.readouterr().out
    written = tmp_path / "to" / "interactions.parquet"
    assert f"{written}: 200 interactions of 3 users and 200 items" in shown
    assert "left out: 1 rows" in shown
    assert "checked against: nothing, for no published checksum is known" in shown
    assert f"Next: conseq prepare {written} yelp" in shown


def test_fetch_as_json_is_one_object(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fetch", "yelp", "--to", str(tmp_path / "to"), "--archive", str(reviews), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["path"] == str(tmp_path / "to" / "interactions.parquet")
    assert shown["parsed"] == {"rows": 200, "users": 3, "items": 200, "left_out": 1}


def test_an_unknown_log_is_a_mistake_with_a_hint() -> None:
    with pytest.raises(ValueError, match="did you mean 'gowalla'"):
        run(["fetch", "gowala"])


def test_a_sub_command_is_needed() -> None:
    with pytest.raises(SystemExit) as stopped:
        run([])
    assert stopped.value.code == 2
