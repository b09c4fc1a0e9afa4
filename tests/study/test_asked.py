"""Analyses by what makes them one: name, protocol and settings; and when they are out of date."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conseq.data.readers import read
from conseq.run import provenance, runner
from conseq.run.provenance import analysis_hash, code_hash
from conseq.study.answers import answers
from conseq.study.asked import ANALYSIS_CHANGED, Asked, asked_for, outdated
from conseq.study.logs import Logs
from conseq.study.plan import plan
from conseq.study.records import declare_equal_code, read_records, record_of, write_records
from conseq.study.specification import Row, find_tables, load_table

ROOT = Path(__file__).resolve().parents[2]


def of(history: Any = "keep", **settings: Any) -> Asked:
    return asked_for({"name": "groups", **settings}, history, source="here")


@pytest.fixture
def row(experiments: Path) -> Row:
    """A row that asks for groups, history kept."""
    asked = of(edges=[5])
    return replace(load_table(experiments / "paper/table1/toy.toml").rows[0], asked=asked, cells={})


@pytest.fixture
def record(row: Row, data: Path, tmp_path: Path) -> dict[str, Any]:
    """The record of its run, with the analysis as it would be found."""
    (job,) = jobs(row, data, tmp_path, [])
    runner.run(job.config, read(str(job.data)), folder=job.folder)
    counts = {"users": 40, "items": 30, "interactions": 240, "sparsity": 0.8}
    found = {
        "analysis": "groups",
        "settings": {"edges": [5]},
        "groups": [{"name": ">5", "metrics": {"NDCG@20": 0.5, "NDCG@5": 0.25}, **counts}],
    }
    assert row.asked is not None
    return {**record_of(job.folder, job.told), "analyses": {row.asked.key: row.asked.stamped(found, job.config)}}


def jobs(row: Row, data: Path, tmp_path: Path, records: list[dict[str, Any]], *, again: bool = False) -> list[Any]:
    table = replace(load_table(tmp_path / "experiments/paper/table1/toy.toml"), rows=(row,))
    return plan([table], Logs(data), records, seeds=1, runs=tmp_path / "runs", again=again)


def test_an_analysis_is_one_by_its_name_its_protocol_and_all_its_settings() -> None:
    assert of().key == of(edges=[5, 8]).key == "groups, keep, edges=[5, 8]"
    assert len({of().key, of("exclude").key, of(edges=[5]).key}) == 3
    shape = [asked_for({"name": "representations"}, history, source="x") for history in ("keep", "exclude")]
    assert shape[0] == shape[1]  # it judges nothing
    assert shape[0].history is None
    noise = asked_for({"name": "noise", "seed": 1}, "keep", source="x")
    assert noise.key.startswith("noise, keep, ")
    assert json.loads(json.dumps(noise.settings)) == noise.settings


def test_an_analysis_of_one_protocol_does_not_answer_a_row_of_another(
    row: Row, record: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    table = load_table(tmp_path / "experiments/paper/table1/toy.toml")
    assert jobs(row, data, tmp_path, [record])[0].state == "recorded"
    (cell,) = answers(replace(table, rows=(row,)), [record])
    assert (cell.metric, cell.ours, cell.stale) == ("NDCG@20, length >5", 0.5, "")
    (cell,) = answers(replace(table, rows=(replace(row, shown=("NDCG@5",)),)), [record])
    assert (cell.metric, cell.ours) == ("NDCG@5, length >5", 0.25)
    for other in (of("exclude", edges=[5]), of(edges=[5, 8])):
        changed = replace(row, asked=other)
        assert jobs(changed, data, tmp_path, [record])[0].state == "finished"
        assert jobs(changed, data, tmp_path, [record])[0].asked == other
        (cell,) = answers(replace(table, rows=(changed,)), [record])
        assert (cell.metric, cell.ours) == ("groups", None)


def test_an_analysis_by_other_code_is_stale_and_made_again_when_asked(
    row: Row, record: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    table = load_table(tmp_path / "experiments/paper/table1/toy.toml")
    assert row.asked is not None
    old = {**record, "analyses": {row.asked.key: {**record["analyses"][row.asked.key], "code_hash": "0" * 12}}}
    (cell,) = answers(replace(table, rows=(row,)), [old])
    assert (cell.ours, cell.stale) == (0.5, ANALYSIS_CHANGED)
    assert jobs(row, data, tmp_path, [old])[0].state == "recorded"
    (job,) = jobs(row, data, tmp_path, [old], again=True)
    assert (job.state, job.asked) == ("finished", row.asked)
    root = tmp_path / "results"
    write_records(root / "paper/table1.jsonl", [old])
    assert declare_equal_code(root, "a loop in another order, equal to the bit") == 1
    assert row.config is not None
    (same,) = read_records(root)
    assert outdated(row.asked.of(same) or {}, same, row.config) == ""


def test_an_analysis_that_trains_takes_as_long_as_the_run(
    row: Row, record: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    apart = replace(row, asked=asked_for({"name": "groups_apart"}, "keep", source="x"))
    timed = {**record, "seconds": 100.0, "validation_seconds": 0.0}
    assert jobs(apart, data, tmp_path, [timed])[0].seconds == 100.0
    assert jobs(replace(row, asked=of("exclude")), data, tmp_path, [timed])[0].seconds == 0.0
    stale = {**timed, "code_hash": "0" * 12}
    assert jobs(apart, data, tmp_path, [stale], again=True)[0].seconds == 200.0


def test_the_hash_of_an_analysis_is_of_its_own_code_and_not_of_the_run_s(
    row: Row, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, edited = provenance._path, tmp_path / "edited.py"

    def before_and_after(name: str) -> tuple[bool, bool]:
        """Gives whether the hashes of the analysis and of the run change with a module."""
        assert row.config is not None
        module = name.replace("/", ".")
        monkeypatch.setattr(provenance, "_path", lambda asked: edited if asked == module else real(asked))
        text = (ROOT / "src" / f"{name}.py").read_text(encoding="utf-8")
        hashes = []
        for more in ("", "\nMORE = 1\n"):
            edited.write_text(text + more, encoding="utf-8")
            provenance._analysis_hash.cache_clear()
            provenance._code_hash.cache_clear()
            hashes.append((analysis_hash("conseq.analyses.groups", row.config), code_hash(row.config)))
        return hashes[0][0] != hashes[1][0], hashes[0][1] != hashes[1][1]

    try:
        assert before_and_after("conseq/analyses/groups") == (True, False)
        assert before_and_after("conseq/analyses/subject") == (True, False)
        assert before_and_after("conseq/evaluation/metrics") == (False, True)
        assert before_and_after("conseq/analyses/noise") == (False, False)
        assert before_and_after("conseq/run/runner") == (False, False)
    finally:
        provenance._analysis_hash.cache_clear()
        provenance._code_hash.cache_clear()


def test_no_two_rows_share_what_they_ask_of_a_run_with_other_settings() -> None:
    told: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    by_name = defaultdict(set)
    for table in find_tables(ROOT / "experiments", "all"):
        for row in table.rows:
            if row.asked is not None and row.config is not None:
                assert row.analysis is not None
                own = json.dumps([row.analysis["name"], dict(row.asked.settings), row.asked.history], sort_keys=True)
                told[row.config.digest, row.dataset, row.asked.key].add(own)
                by_name[row.config.digest, row.dataset, row.asked.name].add(own)
    assert all(len(one) == 1 for one in told.values())
    assert any(len(one) > 1 for one in by_name.values()), "the name alone would do"
