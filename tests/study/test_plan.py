"""How long what is left may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conseq.run.config import RunConfig
from conseq.study.plan import Logs, estimate, plan
from conseq.study.records import Record
from conseq.study.specification import Table

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
