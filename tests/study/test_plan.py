"""How long what is left may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conseq.data.readers import read
from conseq.data.synthetic import cycle_log, write_csv
from conseq.run import runner
from conseq.run.config import RunConfig
from conseq.study.logs import Logs
from conseq.study.plan import estimate, plan
from conseq.study.records import Record
from conseq.study.specification import Table
from conseq.study.tables import plan_text

Made = Callable[..., Record]


def longer(config: RunConfig | None, **training: Any) -> RunConfig:
    assert config is not None
    return replace(config, training=replace(config.training, **{"epochs": 100, "patience": 10, **training}))


def test_an_estimate_is_of_the_most_similar_runs(table: Table, made: Made) -> None:
    row = table.rows[0]
    alike = made(row, seconds=40.0, epochs=20)  # its best epoch is 10
    other = made(row, seconds=4000.0, loss="binary_cross_entropy")
    larger = made(row, seconds=400.0, dataset="big", data={"interactions": 2400})
    config = longer(row.config)
    assert estimate(config, [alike, other, larger], "toy", 240) == 2.0 * 20
    assert estimate(config, [larger], "toy", 240) == 2.0 * 20
    assert estimate(config, [alike, made(row, seconds=80.0), made(row, seconds=60.0)], "toy", 240) == 3.0 * 20
    assert estimate(config, [], "toy", 240) is None
    assert estimate(config, [made(row, epochs=0)], "toy", 240) is None


@pytest.mark.parametrize(
    ("training", "epochs"),
    [
        ({}, 20),  # the best of similar runs, 10, and the patience
        ({"patience": 30}, 40),
        ({"patience": 3, "every": 5}, 25),
        ({"epochs": 15}, 15),
        ({"not_before": 60}, 60),
        ({"patience": 300, "epochs": 300}, 300),
        ({"patience": None}, 100),
    ],
)
def test_an_estimate_counts_the_epochs_that_the_settings_allow_or_force(
    table: Table, made: Made, training: dict[str, Any], epochs: int
) -> None:
    row = table.rows[0]
    assert estimate(longer(row.config, **training), [made(row)], "toy", 240) == 2.0 * epochs


def test_validation_counts_too(table: Table, made: Made) -> None:
    row = table.rows[0]
    assert estimate(longer(row.config), [made(row, validation_seconds=20.0)], "toy", 240) == 3.0 * 20


def test_a_log_under_another_name_has_records_of_its_own(table: Table, made: Made, data: Path, tmp_path: Path) -> None:
    row = table.rows[0]
    (data / "toy").rename(data / "other")
    logs = Logs(data)
    facts = logs.facts("other")
    assert facts is not None
    other = replace(table, dataset="other", rows=(replace(row, dataset="other"),))
    own = made(row, data_hash=facts["hash"])
    assert [job.state for job in plan([other], logs, [own], seeds=1, runs=tmp_path / "runs")] == ["to run"]
    both = [own, {**own, "dataset": "other"}]
    assert [job.state for job in plan([other], logs, both, seeds=1, runs=tmp_path / "runs")] == ["recorded"]


def test_a_run_of_another_version_of_the_log_is_to_be_trained_anew(table: Table, data: Path, tmp_path: Path) -> None:
    def states() -> list[str]:
        one = replace(table, rows=table.rows[:1])
        return [job.state for job in plan([one], Logs(data), [], seeds=1, runs=tmp_path / "runs")]

    assert states() == ["to run"]
    assert table.rows[0].config is not None
    (job,) = plan([replace(table, rows=table.rows[:1])], Logs(data), [], seeds=1, runs=tmp_path / "runs")
    assert job.data is not None
    runner.run(table.rows[0].config, read(str(job.data)), folder=job.folder)
    assert states() == ["finished"]
    write_csv(cycle_log(n_users=55, n_items=30, length=6), data / "toy/interactions.csv")
    assert states() == ["to run"]


def test_a_run_that_several_rows_start_from_is_counted_once(
    table: Table, made: Made, data: Path, tmp_path: Path
) -> None:
    row = table.rows[0]
    assert row.config is not None
    begun = [replace(row.config, start=row.config, training=replace(row.config.training, epochs=n)) for n in (1, 2, 3)]
    rows = tuple(replace(row, name=str(place), config=one) for place, one in enumerate(begun))
    jobs = plan([replace(table, rows=rows)], Logs(data), [made(row, seconds=6000.0)], seeds=1, runs=tmp_path / "runs")
    # 300 s an epoch: 2 epochs of the start before each, and 1, 2 and 3 of their own.
    assert [job.seconds for job in jobs] == [900.0, 1200.0, 1500.0]
    assert "estimate: 40 min with 1 at a time" in plan_text(jobs, 1)


def test_of_a_run_that_is_begun_only_what_is_left_is_counted(
    table: Table, made: Made, data: Path, tmp_path: Path
) -> None:
    row = replace(table.rows[0], config=longer(table.rows[0].config))
    records = [made(table.rows[0])]

    def seconds() -> float | None:
        job = plan([replace(table, rows=(row,))], Logs(data), records, seeds=1, runs=tmp_path / "runs")[0]
        assert job.state == ("begun" if job.folder.exists() else "to run")
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "checkpoint.pt").touch()
        return job.seconds

    assert seconds() == 2.0 * 20
    assert seconds() == 2.0 * 20  # begun, in the middle of the first epoch
    file = next((tmp_path / "runs").rglob("checkpoint.pt")).with_name("metrics.jsonl")
    file.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n')
    assert seconds() == 2.0 * 17
    file.write_text("{}\n" * 50)
    assert seconds() == 2.0  # longer than expected: it may end with any epoch
