"""Rows that start from the weights of another experiment: how they are read, run once for all, and recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conseq.data.readers import read
from conseq.data.synthetic import cycle_log, write_csv
from conseq.run import runner
from conseq.run.config import RunConfig, from_record
from conseq.study import execution
from conseq.study.execution import execute
from conseq.study.logs import Logs
from conseq.study.plan import Job, plan
from conseq.study.records import but_seed, read_records, stale
from conseq.study.specification import Table, load_table

LEARNS = "training = { epochs = 6, every = 6, learning_rate = 0.02 }"
ROWS = f"""
[[row]]
name = "Pretrained"
experiment = "next_item/toy.paper.toml"
preset = "paper"
training = {{ epochs = 1, learning_rate = 1e-9 }}
start = {{ experiment = "next_item/toy.paper.toml", method = {{ loss = "binary_cross_entropy" }}, {LEARNS} }}

[[row]]
name = "Pretrained, longer"
experiment = "next_item/toy.paper.toml"
preset = "paper"
start = {{ experiment = "next_item/toy.paper.toml", method = {{ loss = "binary_cross_entropy" }}, {LEARNS} }}
"""
TRAINS = 'preset = "ours"\nmethod = { name = "next_item" }'
HEAD = 'paper = "A paper"\ntitle = "Table 2"\ndataset = "toy"\nhistory = "keep"\n'
Rows = Callable[[str], Table]


@pytest.fixture
def rows(experiments: Path) -> Rows:
    def write(text: str) -> Table:
        file = experiments / "paper/table1/started.toml"
        file.write_text(HEAD + text)
        return load_table(file)

    return write


@pytest.fixture
def table(rows: Rows) -> Table:
    return rows(ROWS)


def jobs_of(table: Table, data: Path, tmp_path: Path) -> list[Job]:
    records = read_records(tmp_path / "results") if (tmp_path / "results").exists() else []
    return plan([table], Logs(data), records, seeds=1, runs=tmp_path / "runs")


def start_of(config: RunConfig | None) -> RunConfig:
    assert config is not None
    assert isinstance(config.start, RunConfig)
    return config.start


def test_a_row_names_the_experiment_that_it_starts_from(table: Table) -> None:
    config = table.rows[0].config
    assert config is not None
    start = start_of(config)
    assert (start.method.loss, start.training.epochs, start.training.learning_rate) == ("binary_cross_entropy", 6, 0.02)
    assert (config.method.loss, config.training.epochs) == ("cross_entropy", 1)
    assert (start.encoder, start.split, start.start) == (config.encoder, config.split, None)
    assert from_record(json.loads(json.dumps(config.record())), source="a record") == config


def test_what_a_run_starts_from_is_part_of_the_experiment(table: Table) -> None:
    config = table.rows[0].config
    assert config is not None
    other = replace(start_of(config), method=replace(start_of(config).method, loss="cross_entropy"))
    digests = {config.digest, replace(config, start=None).digest, replace(config, start=other).digest}
    assert len(digests) == len({but_seed(one.record()) for one in (config, replace(config, start=other))}) + 1 == 3


def test_a_later_seed_is_one_of_the_start_too_and_such_runs_are_averaged(table: Table) -> None:
    seeded = table.rows[0].seeded(3)
    assert [(one.training.seed, start_of(one).training.seed) for one in seeded] == [(3, 3), (4, 4), (5, 5)]
    assert len({but_seed(one.record()) for one in seeded}) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{TRAINS}\nstart = {{ encoder = {{ width = 16 }} }}", "start: its encoder has width = 16"),
        (f'{TRAINS}\nstart = {{ encoder = {{ name = "gru4rec" }} }}', "start: holds an encoder 'gru4rec'"),
        (f'{TRAINS}\nstart = {{ split = {{ name = "by_time" }} }}', r"unknown key 'start\.split'"),
        (f"{TRAINS}\nstart = {{ method = {{ losss = 1 }} }}", r"start: method.*losss"),
        ('closed = "no"\nstart = { method = { name = "next_item" } }', "a start is one of a training"),
    ],
)
def test_a_start_that_cannot_be_is_refused_where_it_is_read(rows: Rows, row: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        rows(f'[[row]]\nname = "A"\n{row}\n')
    assert "started.toml: row 'A'" in str(raised.value)


def test_a_base_of_a_start_that_is_not_there_is_named(rows: Rows) -> None:
    with pytest.raises(FileNotFoundError, match=r"row 'A': start: the experiment .*nothing\.toml does not exist"):
        rows(f'[[row]]\nname = "A"\n{TRAINS}\nstart = {{ experiment = "nothing.toml" }}')


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_what_two_rows_start_from_is_trained_once(table: Table, data: Path, tmp_path: Path, processes: int) -> None:
    said: list[str] = []
    jobs = jobs_of(table, data, tmp_path)
    done = execute(jobs, tmp_path / "results", processes=processes, say=said.append)
    assert (done.failed, done.stopped) == ([], [])
    assert sum(line.startswith("begins: what") for line in said) == 1
    assert jobs[0].start == jobs[1].start is not None
    records = {one["row"]: one for one in read_records(tmp_path / "results")}
    assert set(records) == {"Pretrained", "Pretrained, longer"}
    assert [stale(one, job.config) for job in jobs for one in [records[job.row.name]]] == ["", ""]
    # One epoch with steps of 1e-9 leaves the model as good as what it started from.
    assert jobs[0].start is not None
    held = next(jobs[0].start.glob("evaluation-test-*-keep-*.json"))
    earlier = json.loads(held.read_text())["metrics"]
    found = records["Pretrained"]["metrics"]
    assert found["NDCG@10"] == pytest.approx(earlier["NDCG@10"], abs=1e-6)
    assert found["NDCG@10"] > 2 * records["Pretrained"]["floors"]["popularity"]["NDCG@10"]
    assert [job.state for job in jobs_of(table, data, tmp_path)] == ["recorded", "recorded"]


@pytest.mark.slow
def test_a_start_that_is_stopped_is_gone_on_with_and_one_of_other_code_is_not(
    table: Table, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = table.rows[0]
    assert row.config is not None
    start = replace(start_of(row.config), training=replace(start_of(row.config).training, epochs=4000, patience=None))
    endless = replace(table, rows=(replace(row, config=replace(row.config, start=start)),))
    (job,) = jobs_of(endless, data, tmp_path)
    assert job.start is not None
    file = job.start / "metrics.jsonl"

    def epochs() -> list[int]:
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line)["epoch"] for line in lines]

    def stopped_after(more: int) -> int:
        """Goes on until there are that many epochs; gives how many there are then."""
        monkeypatch.setattr(execution, "_over", lambda deadline: len(epochs()) >= more)
        assert execute([job], tmp_path / "results", budget=1.0, say=lambda line: None).stopped == [job]
        assert epochs() == list(range(1, len(epochs()) + 1))
        return len(epochs())

    first = stopped_after(1)
    assert (job.start / "checkpoint.pt").exists()
    assert not job.folder.exists()
    assert stopped_after(first + 1) > first
    config = json.loads((job.start / "config.json").read_text())
    config["code"][0]["hash"] = "other"
    (job.start / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(execution, "_over", lambda deadline: (job.start.parent / "aside").exists() and epochs() != [])
    execute([job], tmp_path / "results", budget=1.0, say=lambda line: None)
    assert [one.name for one in (job.start.parent / "aside").iterdir()] == [f"{job.start.name}.other"]


def test_a_start_is_the_finished_run_of_that_experiment_on_that_log(table: Table, data: Path, tmp_path: Path) -> None:
    config = table.rows[0].config
    assert config is not None
    log = read(str(data / "toy/interactions.csv"))
    with pytest.raises(ValueError, match=r"starts from the run of another one \(next_item, .*found none"):
        runner.run(config, log)
    run = tmp_path / "run"
    runner.run(start_of(config), log, folder=run)
    with pytest.raises(ValueError, match=r"expected the folder of that run, finished, as start, found .*bundle"):
        runner.run(config, log, start=run / "bundle")
    runner.run(config, log, start=run)
    write_csv(cycle_log(n_users=41, n_items=30, length=6), tmp_path / "other.csv")
    with pytest.raises(ValueError, match=r"on the same log, and .* was run on another"):
        runner.run(config, read(str(tmp_path / "other.csv")), start=run)
    longer = replace(start_of(config), training=replace(start_of(config).training, epochs=7))
    with pytest.raises(ValueError, match=r"and .* holds another run \(next_item, "):
        runner.run(replace(config, start=longer), log, start=run)
