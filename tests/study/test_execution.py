"""Trainings and analyses as processes of a study: in turn, stopped, gone on with, and never without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conseq.data.readers import read
from conseq.run import runner
from conseq.run.config import RunConfig
from conseq.study import child, execution
from conseq.study.asked import asked_for
from conseq.study.execution import execute
from conseq.study.plan import Job, Logs, plan
from conseq.study.records import read_records
from conseq.study.specification import Row, load_table


def asking(row: Row, **section: Any) -> Row:
    return replace(row, asked=asked_for(section, "keep", source="a test"))


def longer(row: Row) -> Row:
    """Gives a row with more epochs than a test waits for."""
    assert row.config is not None
    return replace(row, config=replace(row.config, training=replace(row.config.training, epochs=4000, patience=None)))


@pytest.fixture
def row(experiments: Path) -> Row:
    return load_table(experiments / "paper/table1/toy.toml").rows[0]


def jobs_of(rows: list[Row], data: Path, tmp_path: Path) -> list[Job]:
    table = replace(load_table(tmp_path / "experiments/paper/table1/toy.toml"), rows=tuple(rows))
    records = read_records(tmp_path / "results") if (tmp_path / "results").exists() else []
    return plan([table], Logs(data), records, seeds=1, runs=tmp_path / "runs")


@pytest.mark.slow
def test_a_run_is_trained_once_and_analysed_as_each_of_its_rows_asks(row: Row, data: Path, tmp_path: Path) -> None:
    rows = [row, asking(row, name="groups", edges=[5]), asking(row, name="noise", shares=[0.0, 0.5])]
    broken = asking(row, name="purity", items="nothing.parquet")
    said: list[str] = []
    done = execute(jobs_of([*rows, broken], data, tmp_path), tmp_path / "results", say=said.append)
    (why,) = done.failed
    assert "nothing.parquet" in why[1]
    (record,) = read_records(tmp_path / "results")
    assert set(record["analyses"]) == {one.asked.key for one in rows if one.asked is not None}
    assert record["analyses"][rows[1].asked.key]["groups"]  # type: ignore[union-attr]
    assert {one["history"] for one in record["analyses"].values()} == {"keep"}
    assert [len(one["analyses"]) for one in done.records] == [2]
    assert sum(line.startswith("begins") for line in said) == 1
    assert not any(job.to_do for job in jobs_of(rows, data, tmp_path))
    (again,) = jobs_of([broken], data, tmp_path)
    assert (again.state, again.asked) == ("finished", broken.asked)
    assert not list((tmp_path / "runs/toy").glob("*/*.found.json"))


@pytest.mark.slow
def test_an_analysis_that_trains_stops_with_the_budget_and_goes_on(
    row: Row, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = asking(longer(row), name="groups_apart", edges=[5])
    (job,) = jobs_of([apart], data, tmp_path)
    # As after a run that took long: finished, with the groups still to train.
    trained = replace(row.config, training=replace(row.config.training, epochs=1)) if row.config else None
    assert isinstance(trained, RunConfig)
    runner.run(trained, read(str(job.data)), folder=job.folder)
    config = (job.folder / "config.json").read_text().replace('"epochs": 1,', '"epochs": 4000,')
    (job.folder / "config.json").write_text(config.replace('"patience": 10', '"patience": null'))
    (job,) = jobs_of([apart], data, tmp_path)
    assert job.state == "finished"
    lines = job.folder / "groups/over-5/metrics.jsonl"
    monkeypatch.setattr(execution, "_over", lambda deadline: lines.exists())
    done = execute([job], tmp_path / "results", budget=1.0, say=lambda line: None)
    assert [one.row.name for one in done.stopped] == ["SASRec"]
    assert not done.failed
    assert (job.folder / "groups/over-5/checkpoint.pt").exists()
    (again,) = jobs_of([apart], data, tmp_path)
    assert (again.state, again.asked) == ("finished", apart.asked)


@pytest.mark.slow
def test_a_process_that_was_stopped_by_others_has_not_failed(
    row: Row, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of([longer(row)], data, tmp_path)
    started: list[execution._Running] = []
    start = execution._start

    def keep(*given: Any) -> execution._Running:
        started.append(start(*given))
        return started[-1]

    slept = time.sleep
    sent: list[int] = []

    def sleep(seconds: float) -> None:
        slept(seconds)
        if not sent and (jobs[0].folder / "metrics.jsonl").exists():
            sent.append(signal.SIGINT)
            started[0].process.send_signal(signal.SIGINT)

    monkeypatch.setattr(execution, "_start", keep)
    monkeypatch.setattr("conseq.study.execution.time.sleep", sleep)
    done = execute(jobs, tmp_path / "results", say=lambda line: None)
    assert [job.row.name for job in done.stopped] == ["SASRec"]
    assert not done.failed


# What it waits for is told once it can be interrupted, however slow the machine is.
RUN = """
import sys, time
from conseq.study import child
try:
    child.stop_without(int(sys.argv[1]))
    print("on", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("saved", flush=True)
"""
STUDY = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], start_new_session=True).wait()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a process keeps the number of its dead parent")
@pytest.mark.parametrize("ignored", [False, True], ids=["in front", "in the background"])
def test_a_run_stops_when_its_study_is_killed(ignored: bool) -> None:
    # A shell without job control has what it starts in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        _kill_the_study()
    finally:
        signal.signal(signal.SIGINT, before)


def _kill_the_study() -> None:
    with subprocess.Popen([sys.executable, "-c", STUDY, RUN], stdout=subprocess.PIPE, text=True) as study:
        assert study.stdout is not None
        assert study.stdout.readline() == "on\n"
        study.kill()
        assert study.stdout.readline() == "saved\n"


def test_what_goes_wrong_in_a_process_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = [str(tmp_path / name) for name in ("a.json", "data", "run")]
    assert child.main([str(os.getppid()), "train", *missing]) == 2
    told = capsys.readouterr().err
    assert told.startswith("conseq train: ")
    assert len(told.splitlines()) == 1
