"""What a report is made of, found in folders of any kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from conseq.data.synthetic import cycle_log
from conseq.report.sources import collect, dataset_of
from conseq.run import runner
from conseq.run.config import from_record
from conseq.tuning import space_of, tune

LOG = cycle_log(n_users=30, n_items=12, length=6)
TABLES: dict[str, dict[str, Any]] = {
    "encoder": {"width": 8, "layers": 1, "heads": 1, "max_length": 6},
    "training": {"epochs": 1, "metric": "NDCG@5"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    runner.run(from_record(TABLES, source="a test"), LOG, folder=folder)
    return folder


def test_of_a_search_the_winner_is_shown_as_a_run_on_the_log_around_it(tmp_path: Path) -> None:
    searched = {**TABLES, "training": {**TABLES["training"], "learning_rate": [1e-3, 1e-2]}}
    found = tune(space_of(searched, source="space"), LOG, tmp_path / "events" / "tuned", sampler="grid")
    said: list[str] = []
    sources = collect([tmp_path], said.append)
    assert [one.name for one in sources.models] == [f"{found.best.number:04d}"]
    assert [one["dataset"] for one in sources.records] == ["events"]
    assert said == []


def test_what_was_put_aside_and_logs_of_processes_are_not_shown(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "toy" / "one")
    shutil.copytree(trained, tmp_path / "toy" / "aside" / "one.0123")
    (tmp_path / "toy" / "logs").mkdir()
    (tmp_path / "toy" / "logs" / "one.jsonl").write_text("no record")
    sources = collect([tmp_path], pytest.fail)
    assert [one["dataset"] for one in sources.records] == ["toy"]


def test_a_run_that_cannot_be_understood_does_not_stop_the_others(trained: Path, tmp_path: Path) -> None:
    for name in ("good", "older", "damaged", "own"):
        shutil.copytree(trained, tmp_path / "toy" / name)
    older = tmp_path / "toy" / "older" / "config.json"
    written = json.loads(older.read_text())
    older.write_text(json.dumps({**written, "method": {**written["method"], "gone": 1}}))
    own = {**written, "method": {"name": "no_such_module:Mine"}}
    (tmp_path / "toy" / "own" / "config.json").write_text(json.dumps(own))
    (tmp_path / "toy" / "damaged" / "config.json").write_text("{half")
    said: list[str] = []
    sources = collect([tmp_path], said.append)
    assert [one.name for one in sources.models] == ["good"]
    for name, reason in (("damaged", "is damaged"), ("older", "unknown key 'gone'"), ("own", "cannot be imported")):
        assert any(f"{name} is left out: " in line and reason in line for line in said)


def test_what_is_no_file_of_records_is_passed_over_in_a_folder_and_refused_by_name(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "toy" / "one")
    for name, line in (("events.jsonl", '{"user": 1, "item": 2}'), ("histories.jsonl", '["a", "b"]')):
        (tmp_path / name).write_text(line + "\n")
    assert len(collect([tmp_path], pytest.fail).records) == 1
    (tmp_path / "damaged.jsonl").write_text('{"method": "next_it')
    with pytest.raises(ValueError, match=r"damaged.jsonl, line 1: not a record"):
        collect([tmp_path], pytest.fail)
    with pytest.raises(ValueError, match=r"events.jsonl, line 1: "):
        collect([tmp_path / "events.jsonl"], pytest.fail)


@pytest.mark.parametrize(
    ("source", "around", "name"),
    [
        ({"name": "events.csv.gz", "format": "csv"}, "runs", "events"),
        ({"name": "events.csv.gz", "format": "csv"}, "beauty", "beauty"),
        ({"name": "the table", "format": "table"}, "runs", "runs"),
        (None, "runs", "runs"),
    ],
)
def test_a_log_is_called_as_the_folder_around_its_runs_or_as_its_file(
    tmp_path: Path, source: dict[str, Any] | None, around: str, name: str
) -> None:
    assert dataset_of(tmp_path / around / "one", {"source": source}) == name


def test_a_run_is_called_by_its_method_and_an_encoder_that_is_not_the_usual_one(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "toy" / "one")
    assert [one["row"] for one in collect([tmp_path], pytest.fail).records] == ["next_item (sasrec)"]
    config = json.loads((tmp_path / "toy" / "one" / "config.json").read_text())
    for method, encoder, called in (
        ("duorec", "sasrec", "duorec"),
        ("mclsr", "attentive", "mclsr"),
        ("duorec", "gru4rec", "duorec (gru4rec)"),
    ):
        other = {**config, "method": {"name": method}, "encoder": {"name": encoder}}
        (tmp_path / "toy" / "one" / "config.json").write_text(json.dumps(other))
        assert [one["row"] for one in collect([tmp_path], pytest.fail).records] == [called]
