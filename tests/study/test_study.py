"""From a table to records and back: what runs, what is recorded, what is compared, and what is shown."""

from __future__ import annotations

import json
import os
import shutil
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
from conseq.study import execution
from conseq.study.answers import answers
from conseq.study.comparison import compare_runs, load_runs
from conseq.study.execution import execute
from conseq.study.logs import Logs
from conseq.study.page import results_page
from conseq.study.plan import Job, plan
from conseq.study.records import (
    REQUIRED,
    Record,
    check,
    declare_equal_code,
    read_records,
    record_of,
    stale,
    write_records,
)
from conseq.study.specification import Table
from conseq.study.tables import answers_text, as_json, plan_text


def jobs_of(table: Table, data: Path, tmp_path: Path, records: list[Record] | None = None, **more: Any) -> list[Job]:
    return plan([table], Logs(data), records or [], **{"seeds": 1, "runs": tmp_path / "runs", **more})


def endless(table: Table) -> Table:
    """Gives the first row alone, with more epochs than a test waits for."""
    row = table.rows[0]
    assert row.config is not None
    longer = replace(row.config, training=replace(row.config.training, epochs=4000, patience=None))
    return replace(table, rows=(replace(row, config=longer),))


def train(job: Job) -> None:
    runner.run(job.config, read(str(job.data)), folder=job.folder)


@pytest.fixture
def record(table: Table, data: Path, tmp_path: Path) -> Record:
    job = jobs_of(replace(table, rows=table.rows[:1]), data, tmp_path)[0]
    train(job)
    return record_of(job.folder, job.told)


def test_a_record_holds_the_run_and_both_protocols(record: Record, tmp_path: Path) -> None:
    assert not [name for name in REQUIRED if name not in record]
    assert record["study"] == "paper/table1"
    assert (record["method"], record["preset"], record["loss"]) == ("next_item", "paper", "cross_entropy")
    assert (record["instances"], record["split"], record["seed"], record["epochs"]) == ("whole", "leave_one_out", 3, 2)
    assert record["metrics"] == record["both"]["keep"]["metrics"] != record["both"]["exclude"]["metrics"]
    assert set(record["floors"]) == {"popularity", "own history"}
    assert [point["epoch"] for point in record["curve"]] == [1, 2]
    assert all(set(point["metrics"]) == {"NDCG@10"} for point in record["curve"])
    assert record["both"]["keep"]["slices"]["history"]
    assert stale(record) == ""
    json.dumps(record, allow_nan=False)


def test_an_unfinished_run_has_no_record(table: Table, data: Path, tmp_path: Path) -> None:
    job = jobs_of(replace(table, rows=table.rows[:1]), data, tmp_path)[0]
    train(job)
    for file in job.folder.glob("evaluation-*"):
        file.unlink()
    with pytest.raises(ValueError, match="holds no finished run"):
        record_of(job.folder, job.told)


def test_a_run_whose_epochs_are_not_all_there_once_has_no_record(table: Table, data: Path, tmp_path: Path) -> None:
    job = jobs_of(replace(table, rows=table.rows[:1]), data, tmp_path)[0]
    train(job)
    file = job.folder / "metrics.jsonl"
    first, second = file.read_text().splitlines()
    for lines, wrong in (
        ([first, first, second], "line 2: expected epoch 2, found 1"),
        ([second], "line 1: expected epoch 1, found 2"),
        ([first, second[:9]], "line 2: not of an epoch"),
    ):
        file.write_text("".join(f"{line}\n" for line in lines))
        with pytest.raises(ValueError, match=rf"metrics\.jsonl, {wrong}"):
            record_of(job.folder, job.told)


def test_a_record_takes_the_place_of_an_earlier_one_of_the_same_run(record: Record, tmp_path: Path) -> None:
    file = tmp_path / "results/paper/table1.jsonl"
    other = {**record, "config_hash": "x" * 12}
    write_records(file, [record, other])
    write_records(file, [{**record, "seconds": 7.0}])
    found = read_records(tmp_path / "results")
    assert [one["seconds"] for one in found] == [other["seconds"], 7.0]


def test_a_record_with_metrics_that_cannot_be_is_refused(record: Record) -> None:
    wrong = json.loads(json.dumps(record))
    wrong["both"]["keep"]["metrics"]["NDCG@10"] = 0.99 * wrong["both"]["keep"]["metrics"]["HR@10"] + 0.02
    with pytest.raises(ValueError, match=r"history keep: NDCG@10"):
        check(wrong, source="here")
    del wrong["seed"]
    with pytest.raises(ValueError, match="here: the record lacks seed"):
        check(wrong, source="here")


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{}\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: the record lacks study, row, method"):
        read_records(file)
    file.write_text("no\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: not a record"):
        read_records(file)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_records(tmp_path / "none")


def test_a_record_of_other_code_or_of_another_experiment_is_stale(record: Record, table: Table) -> None:
    config = table.rows[0].config
    assert config is not None
    assert stale(record, config) == ""
    assert stale({**record, "code_hash": "0" * 12}, config) == "the code changed"
    assert stale(record, table.rows[1].config) == "the experiment changed"
    assert stale({**record, "config": {"method": {"name": "gone"}}}) == "its settings are no longer understood"


def test_code_that_is_declared_equal_makes_no_record_stale(record: Record, tmp_path: Path) -> None:
    root = tmp_path / "results"
    write_records(root / "paper/table1.jsonl", [{**record, "code_hash": "0" * 12}])
    assert stale(read_records(root)[0]) == "the code changed"
    with pytest.raises(ValueError, match="say why"):
        declare_equal_code(root, " ")
    (root / "equal-code.json").write_text(json.dumps([{"from": "0" * 12, "to": "1" * 12, "why": "faster"}]))
    assert stale(read_records(root)[0]) == "the code changed"
    assert declare_equal_code(root, "of another method", method="duorec") == 0
    assert declare_equal_code(root, "products in another order, equal to 1e-6") == 1
    assert stale(read_records(root)[0]) == ""
    assert stale(read_records(root / "paper/table1.jsonl")[0]) == ""
    assert declare_equal_code(root, "once more") == 0
    write_records(root / "paper/table1.jsonl", read_records(root))
    assert "equal_code" not in json.loads((root / "paper/table1.jsonl").read_text())
    (root / "equal-code.json").write_text('[{"from": "0", "to": "1"}]')
    with pytest.raises(ValueError, match="expected from, to and why"):
        read_records(root)


def test_a_plan_tells_what_is_to_run_what_is_there_and_how_long_it_takes(
    table: Table, data: Path, tmp_path: Path, record: Record
) -> None:
    jobs = jobs_of(table, data, tmp_path, seeds=2)
    assert len(jobs) == 8  # two rows and two points, two seeds each; a floor and a closed row train nothing
    states = {(job.row.name, job.config.training.seed): job.state for job in jobs}
    assert states["SASRec", 3] == "finished"
    assert states["SASRec", 4] == "to run"
    jobs = jobs_of(table, data, tmp_path, [record])
    states = {(job.row.name, job.config.training.seed): job.state for job in jobs}
    assert states["SASRec", 3] == "recorded"
    whole = record["seconds"] + record["validation_seconds"]
    assert next(job for job in jobs if job.row.name == "SASRec, binary").seconds == pytest.approx(whole)
    text = plan_text(jobs, 2)
    assert "1 recorded, 3 to run" in text
    assert "estimate:" in text
    assert {job.state for job in jobs_of(table, tmp_path / "nothing", tmp_path)} == {"no data"}
    assert "no data found for: toy" in plan_text(jobs_of(table, tmp_path / "nothing", tmp_path), 1)


@pytest.mark.slow
def test_a_stale_record_is_run_again_when_asked(table: Table, data: Path, tmp_path: Path, record: Record) -> None:
    old = {**record, "code_hash": "0" * 12}
    first = replace(table, rows=table.rows[:1])
    assert jobs_of(first, data, tmp_path, [old])[0].state == "recorded"
    job = jobs_of(first, data, tmp_path, [old], again=True)[0]
    assert job.state == "stale"
    written = json.loads((job.folder / "config.json").read_text())
    written["code"][0]["hash"] = "0" * 12
    (job.folder / "config.json").write_text(json.dumps(written))
    (job.folder.parent / "aside" / f"{job.folder.name}.{'0' * 12}").mkdir(parents=True)
    done = execute([job], tmp_path / "results", say=lambda line: None)
    assert [stale(one) for one in done.records] == [""]
    # A pattern such as next_item-* finds the runs, and nothing else that a study writes.
    assert list(job.folder.parent.glob("next_item-*")) == [job.folder]
    assert (job.folder.parent / "aside" / f"{job.folder.name}.{'0' * 12}.2" / "config.json").exists()
    assert (job.folder.parent / "logs" / f"{job.folder.name}.log").exists()


@pytest.mark.slow
def test_what_is_to_do_is_run_once_recorded_and_not_run_again(table: Table, data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    rows = replace(table, rows=table.rows[:2])
    done = execute(jobs_of(rows, data, tmp_path), tmp_path / "results", processes=2, say=said.append)
    assert not done.failed
    assert len(done.records) == 2
    records = read_records(tmp_path / "results")
    assert {one["row"] for one in records} == {"SASRec", "SASRec, binary"}
    assert sum(line.startswith("begins") for line in said) == 2
    again = jobs_of(rows, data, tmp_path, records)
    assert not any(job.to_do for job in again)
    assert not execute(again, tmp_path / "results", say=said.append).records
    text = answers_text(table, records)
    assert "history kept among the candidates" in text
    assert "not run: not among the methods" in text
    cells = as_json([table], records)["tables"][0]["cells"]
    floor = next(one for one in cells if one["row"] == "PopRec")
    assert floor["ours"] == records[0]["both"]["keep"]["floors"]["popularity"]["HR@10"]


@pytest.mark.slow
def test_a_run_that_fails_is_told_with_its_last_line_and_the_others_go_on(
    table: Table, data: Path, tmp_path: Path
) -> None:
    jobs = jobs_of(replace(table, rows=table.rows[:2]), data, tmp_path)
    jobs[0].folder.mkdir(parents=True)
    (jobs[0].folder / "something").write_text("of somebody's")
    said: list[str] = []
    done = execute(jobs, tmp_path / "results", say=said.append)
    assert [job.row.name for job, _ in done.failed] == [jobs[0].row.name]
    assert "is not empty and holds no run" in done.failed[0][1]
    assert [one["row"] for one in done.records] == [jobs[1].row.name]


@pytest.mark.slow
def test_a_run_that_cannot_be_recorded_is_told_and_recorded_the_next_time(
    table: Table, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = replace(table, rows=table.rows[:1])
    with monkeypatch.context() as patch:

        def full(*_: Any) -> Record:
            raise OSError("no space left")

        patch.setattr(execution, "write_records", full)
        done = execute(jobs_of(rows, data, tmp_path), tmp_path / "results", say=lambda line: None)
    assert [why for _, why in done.failed] == ["OSError: no space left"]
    assert not done.records
    job = jobs_of(rows, data, tmp_path)[0]
    assert job.state == "finished"
    assert len(execute([job], tmp_path / "results", say=lambda line: None).records) == 1


@pytest.mark.slow
def test_no_run_goes_on_alone_when_something_unforeseen_stops_the_others(
    table: Table, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(endless(table), data, tmp_path)
    started: list[execution._Running] = []
    start = execution._start

    def keep(*given: Any) -> execution._Running:
        started.append(start(*given))
        return started[-1]

    monkeypatch.setattr(execution, "_start", keep)

    def broken(*_: Any) -> bool:
        while not (jobs[0].folder / "metrics.jsonl").exists():
            time.sleep(0.05)
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(execution, "_ended", broken)
    with pytest.raises(RuntimeError, match="unforeseen"):
        execute(jobs, tmp_path / "results", say=lambda line: None)
    assert started[0].process.poll() is not None
    assert (jobs[0].folder / "checkpoint.pt").exists()


@pytest.mark.slow
def test_a_budget_stops_a_run_with_its_state_saved_and_the_next_call_ends_it(
    table: Table, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = endless(table)
    first = jobs_of(rows, data, tmp_path)
    assert execution._over(0.0)
    assert not execution._over(None)
    # The budget ends once the run has begun, however slow the machine is.
    monkeypatch.setattr(execution, "_over", lambda deadline: (first[0].folder / "metrics.jsonl").exists())
    done = execute(first, tmp_path / "results", budget=1.0, say=lambda line: None)
    assert len(done.stopped) == 1
    assert not done.records
    job = jobs_of(rows, data, tmp_path)[0]
    assert job.state == "begun"
    assert (job.folder / "checkpoint.pt").exists()


@pytest.mark.slow
def test_a_signal_to_stop_saves_every_run(
    table: Table, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(endless(table), data, tmp_path)
    slept = time.sleep
    sent: list[int] = []

    def sleep(seconds: float) -> None:
        slept(seconds)
        if not sent and (jobs[0].folder / "metrics.jsonl").exists():
            sent.append(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("conseq.study.execution.time.sleep", sleep)
    said: list[str] = []
    done = execute(jobs, tmp_path / "results", say=said.append)
    assert len(done.stopped) == 1
    assert "stopping: every run saves its state" in said
    assert (jobs[0].folder / "checkpoint.pt").exists()


def test_cells_are_compared_with_the_paper_s(table: Table, record: Record) -> None:
    def cell(paper: float, ours: float, **row: Any) -> Any:
        changed = json.loads(json.dumps(record))
        changed["both"]["keep"]["metrics"]["HR@10"] = ours
        one = replace(table.rows[0], cells={"HR@10": paper}, **row)
        return next(iter(answers(replace(table, rows=(one,)), [changed])))

    assert cell(0.1, 0.0971).verdict == "reached"
    assert cell(0.1, 0.0969).verdict == "below"
    assert cell(0.1, 0.1031).verdict == "above"
    assert cell(0.1, 0.1, impossible="cannot be").verdict == "impossible in print"
    assert cell(0.1, 0.09).difference == pytest.approx(-0.01)
    second = {**record, "config_hash": table.rows[0].seeded(2)[1].digest}
    both = answers(replace(table, rows=table.rows[:1]), [record, second])
    assert [one.n for one in both] == [2, 2]
    assert both[0].spread == 0.0
    assert next(iter(answers(replace(table, rows=table.rows[1:2]), [record]))).verdict == "not run"


def test_the_page_of_results_shows_every_run_under_both_protocols_and_the_cells_it_answers(
    table: Table, record: Record
) -> None:
    page = results_page([table], [record])
    for history in ("keep", "exclude"):
        assert f"{record['both'][history]['metrics']['HR@10']:.4f}" in page
    assert "| SASRec | paper | HR@10 | 0.5000 |" in page
    assert "| SASRec, binary | paper | 0.5000 | not run |" in page
    assert "| BPR |  | 0.1000 | not run: not among the methods |" in page
    assert "Not run yet: SASRec, dropout = 0.0 (paper); SASRec, dropout = 0.2 (paper)." in page
    assert "(stale)" not in page
    assert "(stale)" in results_page([table], [{**record, "code_hash": "0" * 12}])
    assert "; stale: the code changed |" in results_page([table], [{**record, "code_hash": "0" * 12}])


def test_runs_that_differ_in_the_seed_alone_are_compared_as_one(table: Table, data: Path, tmp_path: Path) -> None:
    jobs = jobs_of(replace(table, rows=table.rows[:2]), data, tmp_path, seeds=2)
    for job in jobs:
        train(job)
    folders = [job.folder for job in jobs]
    groups = load_runs(folders, "keep")
    assert sorted(len(one) for one in groups.values()) == [2, 2]
    assert set(groups) == {"next_item (loss=cross_entropy)", "next_item (loss=binary_cross_entropy)"}
    found, _ = compare_runs(folders, ["HR@10"], history="keep", resamples=200)
    assert found[0].seeds == (2, 2)
    assert found[0].p_seeds is not None
    means = [sum(one.value("HR@10") for one in group) / 2 for group in groups.values()]
    assert found[0].difference.value == pytest.approx(means[1] - means[0])
    with pytest.raises(ValueError, match="at least two experiments, found 1"):
        compare_runs([job.folder for job in jobs if job.row.name == "SASRec"], ["HR@10"], history="keep")
    with pytest.raises(ValueError, match="is not the folder of a run"):
        compare_runs([tmp_path, folders[0]], ["HR@10"], history="keep")
    copied = shutil.copytree(folders[0], tmp_path / "copied")
    with pytest.raises(ValueError, match="copied are runs of one experiment with the same seed, 3"):
        compare_runs([*folders, copied], ["HR@10"], history="keep")
    with pytest.raises(ValueError, match="resamples must be at least 1, found 0"):
        compare_runs(folders, ["HR@10"], history="keep", resamples=0)


def test_a_process_that_does_not_save_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_PATIENCE", 0.2)
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    job: Any = "the job"
    work = execution._Work(job, to_train=True, to_record=True, analyses=[])
    assert execution._stop([execution._Running(work, process, Path("x"), None, Path("run"), Path("none"))]) == [job]
    assert process.wait(5) != 0
    process.stdout.close()
