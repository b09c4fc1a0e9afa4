"""The ranks by user that records keep: the same comparisons as of runs, as far as twenty ranks go."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import conseq
from conseq.cli.main import main
from conseq.evaluation.result import Evaluation
from conseq.study.comparison import chosen_records, compare_runs, load_runs
from conseq.study.records import Record, Told, read_records, record_of, write_records
from conseq.study.top_ranks import TOP, packed, unpacked

METRICS = ["HR@5", "NDCG@5", "HR@20", "NDCG@20"]


@pytest.fixture(scope="module")
def records(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of the two runs, in one file."""
    made = [record_of(trained / name, Told("own/one", name, "", "ours", "log", "keep")) for name in ("long", "short")]
    return write_records(tmp_path_factory.mktemp("records") / "own" / "one.jsonl", made)


def told(found: Any) -> list[tuple[Any, ...]]:
    return [(one.metric, one.users, one.first_value, one.difference, one.p_adjusted) for one in found]


@pytest.mark.parametrize("history", ["keep", "exclude"])
@pytest.mark.parametrize("part", [None, "time tie=no"])
def test_records_are_compared_as_their_runs_are(trained: Path, records: Path, history: Any, part: str | None) -> None:
    log = conseq.read(str(trained / "log.csv"))
    how: Mapping[str, Any] = {"history": history, "resamples": 200, "part": part, "log": log}
    of_runs, _ = compare_runs([trained / "short", trained / "long"], METRICS, **how)
    chosen = chosen_records([records], None, ["short", "long"])
    of_records, evaluations = compare_runs([], METRICS, records=chosen, **how)
    assert told(of_records) == told(of_runs)
    assert {one.model for one in evaluations} == {"short", "long"}
    mixed, _ = compare_runs([trained / "short"], METRICS, records=chosen[1:], **how)
    assert told(mixed) == told(of_runs)


def test_runs_and_records_of_one_experiment_are_one(trained: Path, records: Path) -> None:
    short, long = chosen_records([records], None, ["short", "long"])
    with pytest.raises(ValueError, match=r"short and the record of log: short \(ours\), seed 0 are runs of one"):
        compare_runs([trained / "short"], METRICS, history="keep", records=[short, long])
    other = copy.deepcopy(short)  # the same ranks under another seed
    other["config"]["training"]["seed"], other["seed"], other["config_hash"] = 1, 1, "0" * 12
    groups = load_runs([trained / "short"], "keep", [other, long])
    assert [len(one) for one in groups.values()] == [2, 1]
    assert list(groups)[1] == "long"


def test_the_command_compares_rows_of_a_file(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", str(records), "--history", "keep", "--resamples", "50"]
    assert main([*command, "--rows", "short", "long", "--json"]) == 0
    (first, *_) = json.loads(capsys.readouterr().out)["comparisons"]
    assert (first["first"], first["second"]) == ("short", "long")
    assert main([*command, "--dataset", "log"]) == 0
    assert "long" in capsys.readouterr().out
    for more, why in (
        (["--rows", "short", "tall"], "no record of the row 'tall'; there are long, short"),
        (["--dataset", "other"], "no record of 'other'; the records are of log"),
        (["--metrics", "MRR"], f"MRR needs more than the {TOP} items"),
        (["--metrics", "HR@50"], f"HR@50 needs more than the {TOP} items"),
    ):
        assert main([*command, *more]) == 2
        assert why in " ".join(capsys.readouterr().err.split())
    assert main(["compare", "run", "--history", "keep", "--rows", "short"]) == 2
    assert "choose among records: name" in capsys.readouterr().err


def test_records_of_several_logs_and_those_without_ranks_are_told(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = read_records(records)
    bare = {name: value for name, value in second.items() if name != "ranks"}
    both = write_records(tmp_path / "own" / "both.jsonl", [first, bare])
    assert [one["row"] for one in chosen_records([both], None, [])] == ["long"]
    assert "1 of 2 records keep no ranks by user" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no record of short keeps ranks by user; run what is to be compared again"):
        chosen_records([both], None, ["long", "short"])
    with pytest.raises(ValueError, match=r"log: short \(ours\), seed 0 keeps no ranks by user: it was made before"):
        unpacked(bare, "keep")
    seeds = write_records(tmp_path / "own" / "seeds.jsonl", [first, {**bare, "row": "long"}])
    assert chosen_records([seeds], None, ["long"]) == read_records(seeds)[:1]
    assert "1 of 2 records keep no ranks by user" in capsys.readouterr().err
    none = write_records(tmp_path / "own" / "none.jsonl", [bare])
    with pytest.raises(ValueError, match="none of the 1 records keeps ranks by user"):
        chosen_records([none], None, [])
    other = write_records(tmp_path / "own" / "other.jsonl", [first, {**second, "dataset": "another"}])
    with pytest.raises(ValueError, match="the records are of several logs, another, log: name one"):
        chosen_records([other], None, [])


def test_ranks_give_the_metrics_that_stand_beside_them(records: Path, tmp_path: Path) -> None:
    (record, _) = read_records(records)
    for history in ("keep", "exclude"):
        kept = unpacked(record, history)
        for name in ("HR@10", "NDCG@20"):
            assert kept.value(name) == pytest.approx(record["both"][history]["metrics"][name], abs=5e-7)

    def with_ranks(**changed: str) -> Record:
        new = copy.deepcopy(record)
        new["ranks"] |= changed
        return new

    exchanged = with_ranks(keep=record["ranks"]["exclude"])
    with pytest.raises(ValueError, match=r"own.jsonl: \w+@\d+ is [\d.]+ \(history keep\), but its ranks by user give"):
        write_records(tmp_path / "own.jsonl", [exchanged])
    with pytest.raises(ValueError, match=r"ranks in the record of log: long .* are damaged"):
        write_records(tmp_path / "own.jsonl", [with_ranks(keep="AAAA")])


def test_of_users_with_several_targets_no_ranks_are_kept(trained: Path) -> None:
    one = Evaluation.load(next((trained / "short").glob("evaluation-*keep*.safetensors")))
    assert packed({"keep": one}) is not None
    two = copy.copy(one)
    object.__setattr__(two, "offsets", np.array([0, 2, *range(3, len(one.ranks) + 1)]))
    object.__setattr__(two, "users", one.users[1:])
    assert packed({"keep": two}) is None
