"""Runs that are compared among some of the users."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import conseq
from conseq.cli.main import main
from conseq.evaluation.result import Evaluation
from conseq.study.comparison import compare_runs


def runs(folder: Path) -> list[Path]:
    return [folder / "short", folder / "long"]


@pytest.mark.parametrize(
    "part", ["time tie=yes", "time tie=no", "repeat=yes", "repeat=no", "history=<=5", "history=6-10", "popularity=6-20"]
)
def test_values_in_a_part_are_those_of_the_evaluations_own_slices(trained: Path, part: str) -> None:
    log = conseq.read(str(trained / "log.csv"))
    metrics = ["HR@5", "NDCG@10"]
    found, evaluations = compare_runs(runs(trained), metrics, history="keep", resamples=50, part=part, log=log)
    cut, _, name = part.partition("=")
    slices = [
        Evaluation.load(next(one.glob("evaluation-*keep*.safetensors"))).slices[cut][name] for one in runs(trained)
    ]
    assert 0 < found[0].users < 120
    for one, metric in zip(found, metrics, strict=True):
        assert one.users == slices[0]["cases"]
        assert one.first_value == pytest.approx(slices[0][metric], abs=1e-12)
        assert one.second_value == pytest.approx(slices[1][metric], abs=1e-12)
    assert all(len(one.users) == found[0].users for one in evaluations)


def test_what_cannot_be_compared_in_a_part_is_refused(trained: Path, tmp_path: Path) -> None:
    log = conseq.read(str(trained / "log.csv"))

    def asked(part: str, given: conseq.InteractionLog | None = log) -> None:
        compare_runs(runs(trained), ["HR@5"], history="keep", resamples=50, part=part, log=given)

    for wrong in ("time tie", "time tie=maybe", "tie=no", ""):
        with pytest.raises(ValueError, match=rf"no users of '{wrong}'; the parts are history=<=5, .*time tie=yes"):
            asked(wrong)
    with pytest.raises(ValueError, match="which users are of 'repeat=yes' is in the log: give it, too"):
        asked("repeat=yes", None)
    other = pl.read_csv(trained / "log.csv").with_columns(pl.col("time").reverse())
    with pytest.raises(ValueError, match="was judged on another log than the one given"):
        asked("repeat=yes", conseq.read(other))


def test_the_command_names_the_part(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", *map(str, runs(trained)), "--history", "keep", "--metrics", "HR@10", "--resamples", "50"]
    asked = ["--among", "time tie=no", "--data", str(trained / "log.csv")]
    assert main([*command, *asked]) == 0
    assert "80 users of time tie=no" in " ".join(capsys.readouterr().out.split())
    assert main([*command, *asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["among"] == "time tie=no"
    assert told["comparisons"][0]["users"] == 80
    assert main([*command, "--data", str(trained / "log.csv")]) == 2
    assert "name the part with --among" in capsys.readouterr().err
