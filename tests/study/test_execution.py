"""Trainings and analyses as processes of a study: in turn, stopped, gone on with, and never without it."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conseq.cores import SHARED_CORES
from conseq.data.readers import read
from conseq.data.synthetic import cycle_log, write_csv
from conseq.run import runner
from conseq.run.config import RunConfig
from conseq.run.folder import claimed
from conseq.run.provenance import code_hash
from conseq.study import child, execution
from conseq.study.asked import asked_for
from conseq.study.execution import execute
from conseq.study.folders import is_of_code, is_of_log, put_aside
from conseq.study.logs import Logs
from conseq.study.plan import Job, plan
from conseq.study.records import read_records, write_records
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


def test_a_process_that_the_system_killed_says_so_and_not_what_it_did_last(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("epoch 4/100 next_item 3.38\n")
    assert execution._last_words(log, -9) == "killed by SIGKILL, as a system that lacks memory does"
    assert execution._last_words(log, -11) == "killed by SIGSEGV"
    assert execution._last_words(log, 2) == "epoch 4/100 next_item 3.38"
    log.write_text("")
    assert execution._last_words(log, 2) == "status 2"


def test_a_process_finds_what_this_one_imports_and_shares_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "cores", lambda: 8)
    own = {"PYTHONPATH": os.pathsep.join(["mine", "", "/abs"]), "A": "b"}
    found = execution._environment(own, 3)
    paths = os.pathsep.join([str(Path.cwd() / "mine"), "/abs"])
    assert found == {"PYTHONPATH": paths, "OMP_NUM_THREADS": "2", "A": "b"}
    assert execution._environment({"OMP_NUM_THREADS": "5"}, 3) == {"OMP_NUM_THREADS": "5"}
    # What the command line chose for itself is not the user's wish for each of several processes.
    shared = {"OMP_NUM_THREADS": "8", SHARED_CORES: "8"}
    assert execution._environment(shared, 4)["OMP_NUM_THREADS"] == "2"
    assert execution._environment({**shared, "OMP_NUM_THREADS": "5"}, 4)["OMP_NUM_THREADS"] == "5"


def test_a_folder_in_which_a_process_is_at_work_is_not_moved(row: Row, tmp_path: Path) -> None:
    assert row.config is not None
    folder = tmp_path / "run"
    at_work = pytest.raises(BlockingIOError, match="is at work in this folder")
    with claimed(folder, row.config, {"hash": "feed"}), at_work:
        put_aside(folder)
    assert is_of_log(folder, "feed")
    assert not is_of_log(folder, "beef")
    assert is_of_code(folder, row.config, {})
    put_aside(folder)
    assert not folder.exists()
    assert (tmp_path / "aside" / f"run.{code_hash(row.config)}" / "config.json").exists()
    put_aside(folder)  # nothing is there
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/config.json").write_text("")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        put_aside(tmp_path / "bad")


@pytest.mark.slow
def test_a_log_that_changed_is_trained_on_anew_and_its_old_run_is_kept(row: Row, data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    execute(jobs_of([row], data, tmp_path), tmp_path / "results", say=said.append)
    write_csv(cycle_log(n_users=55, n_items=30, length=6), data / "toy/interactions.csv")
    (job,) = jobs_of([row], data, tmp_path)
    assert job.state == "to run"
    execute([job], tmp_path / "results", say=said.append)
    old, new = read_records(tmp_path / "results")
    assert (old["data"]["users"], new["data"]["users"]) == (40, 55)
    assert len(list((tmp_path / "runs/toy/aside").iterdir())) == 1
    assert [one.state for one in jobs_of([row], data, tmp_path)] == ["recorded"]


@pytest.mark.slow
def test_an_analysis_does_not_replace_a_record_that_is_newer_than_the_folder(
    row: Row, data: Path, tmp_path: Path
) -> None:
    execute(jobs_of([row], data, tmp_path), tmp_path / "results", say=lambda line: None)
    file = next((tmp_path / "results").rglob("*.jsonl"))
    (record,) = read_records(file)
    both = copy.deepcopy(record["both"])
    for side in both.values():
        side["metrics"]["MeanPopularity@5"] += 1
    newer = {**record, "both": both, "metrics": both[record["history"]]["metrics"], "commit": "newer"}
    write_records(file, [newer])
    done = execute(
        jobs_of([asking(row, name="groups", edges=[5])], data, tmp_path), tmp_path / "results", say=lambda line: None
    )
    assert "is not the one that" in done.failed[0][1]
    assert [(one["commit"], one["analyses"]) for one in read_records(file)] == [("newer", {})]


def test_the_result_of_another_analysis_is_not_recorded(row: Row, data: Path, tmp_path: Path) -> None:
    asked = asked_for({"name": "groups", "edges": [5]}, "keep", source="a test")
    out = tmp_path / "found.json"
    out.write_text(json.dumps({"analysis": "noise", "settings": {}}))
    (job,) = jobs_of([row], data, tmp_path)
    with pytest.raises(ValueError, match=r"found.json holds noise with \{\}; expected groups, keep"):
        execution._add(asked, out, job, tmp_path / "results", execution.Executed(), lambda line: None)


def test_what_goes_wrong_in_a_process_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = [str(tmp_path / name) for name in ("a.json", "data", "run")]
    assert child.main([str(os.getppid()), "train", *missing]) == 2
    told = capsys.readouterr().err
    assert told.startswith("conseq train: ")
    assert len(told.splitlines()) == 1
