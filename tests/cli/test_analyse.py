"""``conseq analyse``: one table or one JSON object, and the mistakes that a user can make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conseq.analyses import ANALYSES, analyse
from conseq.cli import analyse as command
from conseq.data.readers import read
from conseq.data.synthetic import cycle_log, write_csv
from conseq.run.config import from_record
from conseq.run.runner import run as run_experiment


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A run and its log."""
    folder = tmp_path_factory.mktemp("analyse")
    write_csv(cycle_log(n_users=40, n_items=12, length=6), folder / "events.csv")
    small = {
        "encoder": {"width": 8, "layers": 1, "heads": 1, "max_length": 6},
        "training": {"epochs": 1, "metric": "NDCG@5"},
    }
    run_experiment(from_record(small, source="test"), read(folder / "events.csv"), folder=folder / "run")
    return str(folder / "run"), str(folder / "events.csv")


def test_json_is_one_object_and_that_of_the_library(
    stored: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(["noise", *stored, "--history", "keep", "--shares", "0", "0.5", "--seed", "3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == analyse("noise", {"shares": [0, 0.5], "seed": 3}, stored[0], read(stored[1]), history="keep")


def test_the_table_has_the_protocol_and_out_has_the_object(
    stored: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    assert command.run(["groups", *stored, "--history", "exclude", "--edges", "6", "--out", str(out)]) == 0
    assert "groups of users, one model for all: test, leave_one_out, history excluded" in capsys.readouterr().out
    assert json.loads(out.read_text()) == analyse(
        "groups", {"edges": [6]}, stored[0], read(stored[1]), history="exclude"
    )
    assert [one.name for one in tmp_path.iterdir()] == ["found.json"]


def test_what_judges_nothing_takes_no_history(stored: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["complexity", *stored, "--seconds", "0.01"]) == 0
    assert "users ranked per second" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        command.run(["complexity", *stored, "--history", "keep"])
    with pytest.raises(SystemExit, match="2"):
        command.run(["noise", *stored])
    assert "--history" in capsys.readouterr().err


def test_help_names_every_analysis(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in ANALYSES)


@pytest.mark.parametrize(
    ("argv", "message"), [([], "NAME comes first"), (["--json"], "NAME comes first"), (["nois"], "unknown analysis")]
)
def test_a_missing_or_unknown_name_is_told(argv: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command.run(argv)
