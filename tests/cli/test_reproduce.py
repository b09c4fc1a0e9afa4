"""``conseq reproduce`` and ``conseq compare``: from a table to its answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conseq.cli.main import main
from conseq.cli.reproduce import seconds
from conseq.data.synthetic import cycle_log, write_csv

BASE = """
[method]
name = "next_item"
[encoder]
name = "sasrec"
width = 8
layers = 1
heads = 1
max_length = 6
[training]
epochs = 1
batch_size = 64
"""
TABLE = """
paper = "A paper"
title = "Table 1: small"
dataset = "toy"
history = "exclude"
[[row]]
name = "SASRec"
experiment = "next_item/toy.paper.toml"
preset = "paper"
cells = { "HR@10" = 0.5 }
[[row]]
name = "BPR"
closed = "not among the methods"
"""


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    (tmp_path / "experiments/next_item").mkdir(parents=True)
    (tmp_path / "experiments/next_item/toy.paper.toml").write_text(BASE)
    (tmp_path / "experiments/paper/table1").mkdir(parents=True)
    (tmp_path / "experiments/paper/table1/toy.toml").write_text(TABLE)
    (tmp_path / "data").mkdir()
    write_csv(cycle_log(n_users=40, n_items=30, length=6), tmp_path / "data/toy.csv")
    return [f"--{name}={tmp_path / name}" for name in ("experiments", "data", "runs", "results")]


@pytest.mark.slow
def test_a_table_is_run_recorded_and_printed_beside_the_paper_s(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "paper/table1", "--dry-run", *options]) == 0
    told = capsys.readouterr()
    assert "runs: 1 to run" in told.err
    assert not (tmp_path / "runs").exists()
    assert main(["reproduce", "paper/table1", "--seeds", "2", *options]) == 0
    told = capsys.readouterr()
    assert "history excluded from the candidates" in told.out
    assert "0.5000" in told.out
    assert "not run: not among the methods" in told.out
    assert len((tmp_path / "results/paper/table1.jsonl").read_text().splitlines()) == 2
    assert main(["reproduce", "paper", "--json", *options]) == 0
    cells = json.loads(capsys.readouterr().out)["tables"][0]["cells"]
    assert [(one["row"], one["metric"], one["paper"], one["n"]) for one in cells] == [("SASRec", "HR@10", 0.5, 2)]
    runs = sorted(str(one) for one in (tmp_path / "runs/toy").glob("next_item-*"))
    assert len(runs) == 2
    assert main(["compare", *runs, "--history", "keep"]) == 2  # two seeds of one experiment
    assert "at least two experiments" in capsys.readouterr().err
    assert main(["compare", "--history", "keep", "--metrics", "HR@10", *runs]) == 2
    assert f"--metrics takes all that follows it, {runs[0]} too: name the runs first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper/table9"], "unknown study 'paper/table9'; known: paper/table1"),
        (["paper", "--dataset", "sports"], "no table for data set sports; known: toy"),
        (["paper", "--budget", "soon"], "--budget: expected a time such as 90m or 2h, found 'soon'"),
        (["paper", "--seeds", "0"], "--seeds and --processes must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_told(
    options: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["reproduce", *arguments, *options]) == 2
    assert message in capsys.readouterr().err


def test_folders_that_are_named_and_not_there_are_told(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = ["reproduce", "paper", "--dry-run", *options]
    assert main([*look, f"--data={tmp_path / 'dta'}"]) == 2
    assert "dta is no folder; expected the folder of the logs" in capsys.readouterr().err
    assert main(look) == 0
    assert f"note: --results: no folder {tmp_path / 'results'} yet" in capsys.readouterr().err
    assert main([*look, f"--results={tmp_path / 'data/toy.csv'}"]) == 2
    assert "toy.csv is no folder; expected the folder of the records" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path / "experiments")
    assert main(["reproduce", "paper", "--dry-run", options[0]]) == 0  # nothing was named: a first call
    told = capsys.readouterr().err
    assert "note:" not in told
    assert "no data found for: toy (see --data)" in told


def test_times_are_read_in_seconds_minutes_hours_and_days() -> None:
    assert [seconds(text) for text in ("30s", "1.5m", "2h", "1d")] == [30, 90, 7200, 86400]
