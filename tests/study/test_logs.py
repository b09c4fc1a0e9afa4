"""Logs that a table prepares from another one: what they are, where they are written, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conseq.cli.main import main
from conseq.data.prepared import load
from conseq.data.readers import read
from conseq.study.execution import execute
from conseq.study.logs import Logs, Origin, origins, prepared
from conseq.study.plan import plan
from conseq.study.records import read_records
from conseq.study.specification import Table, load_table
from conseq.study.tables import plan_text

# Days without hours: the order within one is that of the file.
DAYS = "user,item,time\n" + "".join(
    f"u{user},i{(user + 3 * step) % 11},{86400 * (step // 3)}\n" for user in range(20) for step in range(9)
)


@pytest.fixture
def days(tmp_path: Path) -> Path:
    folder = tmp_path / "logs/days"
    folder.mkdir(parents=True)
    (folder / "interactions.csv").write_text(DAYS)
    return folder.parent


@pytest.fixture
def file(experiments: Path) -> Path:
    """A table on the same log with its days in a random order."""
    path = experiments / "paper/table1/toy.toml"
    text = path.read_text().replace(
        'dataset = "toy"', 'dataset = "drawn"\nlog = { of = "days", ties = "random", tie_seed = 1 }', 1
    )
    drawn = path.with_name("drawn.toml")
    drawn.write_text(text)
    return drawn


@pytest.fixture
def drawn(file: Path) -> Table:
    return load_table(file)


def test_a_log_is_prepared_as_its_table_says(drawn: Table, days: Path, tmp_path: Path) -> None:
    logs = Logs(days, origins([drawn]))
    assert logs.path("drawn") == days / "days/interactions.csv"
    assert logs.path("days") == logs.path("drawn")
    own, given = logs.facts("drawn"), logs.facts("days")
    assert own is not None
    assert given is not None
    assert own["hash"] != given["hash"]
    assert own["interactions"] == given["interactions"] == 180
    origin = drawn.log
    assert origin is not None
    folder = prepared(days / "days/interactions.csv", origin, tmp_path / "runs/drawn", own["hash"])
    expected = read(days / "days/interactions.csv", ties="random", tie_seed=1)
    assert load(folder).manifest["data_hash"] == own["hash"]
    assert np.array_equal(load(folder).items, expected.items)
    written = (folder / "manifest.json").stat().st_mtime_ns
    assert prepared(days / "days/interactions.csv", origin, tmp_path / "runs/drawn", own["hash"]) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == written


def test_a_prepared_log_of_another_version_makes_room(drawn: Table, days: Path, tmp_path: Path) -> None:
    source, origin = days / "days/interactions.csv", drawn.log
    assert origin is not None
    folder = prepared(source, origin, tmp_path, Logs(days, origins([drawn])).facts("drawn")["hash"])  # type: ignore[index]
    source.write_text(DAYS + "u0,i10,8640000\n")
    new = Logs(days, origins([drawn])).facts("drawn")
    assert new is not None
    assert prepared(source, origin, tmp_path, new["hash"]) == folder
    assert load(folder).manifest["data_hash"] == new["hash"]


def test_two_logs_of_one_name_are_refused(drawn: Table) -> None:
    with pytest.raises(ValueError, match=r"two tables have a log called 'drawn'.*'tie_seed': 1.*'tie_seed': 2"):
        origins([drawn, replace(drawn, log=Origin(of="days", ties="random", tie_seed=2))])
    with pytest.raises(ValueError, match=r"folder of the logs"):
        origins([drawn, replace(drawn, log=None)])


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('{ ties = "random" }', "of"),
        ('{ of = "days", ties = "drawn" }', "ties"),
        ('{ of = "days", user = "u" }', "user"),
        ('"days"', "log"),
    ],
)
def test_an_origin_that_cannot_be_is_refused_with_the_file(file: Path, written: str, told: str) -> None:
    file.write_text(file.read_text().replace('{ of = "days", ties = "random", tie_seed = 1 }', written))
    with pytest.raises(ValueError, match=rf"drawn\.toml.*{told}"):
        load_table(file)


def test_a_plan_names_the_log_that_is_not_there(drawn: Table, tmp_path: Path) -> None:
    jobs = plan([drawn], Logs(tmp_path, origins([drawn])), [], seeds=1, runs=tmp_path / "runs")
    assert {job.state for job in jobs} == {"no data"}
    assert "no data found for: days (see --data)" in plan_text(jobs, 1)


@pytest.mark.slow
def test_runs_on_a_prepared_log_are_recorded_under_its_name(drawn: Table, days: Path, tmp_path: Path) -> None:
    logs, runs = Logs(days, origins([drawn])), tmp_path / "runs"
    one = replace(drawn, rows=drawn.rows[:1])
    done = execute(plan([one], logs, [], seeds=1, runs=runs), tmp_path / "results", say=lambda line: None)
    assert not done.failed
    (record,) = read_records(tmp_path / "results")
    facts = logs.facts("drawn")
    assert facts is not None
    assert (record["dataset"], record["data_hash"]) == ("drawn", facts["hash"])
    (again,) = plan([one], logs, [record], seeds=1, runs=runs)
    assert again.state == "recorded"
    # The same experiment on the log that it was drawn of is another run.
    other = replace(one, dataset="days", log=None, rows=(replace(one.rows[0], dataset="days"),))
    (apart,) = plan([other], Logs(days), [record], seeds=1, runs=runs)
    assert apart.state == "to run"


@pytest.mark.slow
def test_the_command_prepares_and_runs(
    file: Path, days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = ["reproduce", "paper/table1", "--data", str(days), "--dataset", "drawn", "--row", "SASRec, binary"]
    assert main([*told, "--dry-run"]) == 0
    assert not (tmp_path / "runs").exists()
    assert main(told) == 0
    assert "drawn, test" in capsys.readouterr().out
    assert load(tmp_path / "runs/drawn/logs/data").manifest["order"]["tie_seed"] == 1  # type: ignore[index]
