"""What models gain over SASRec: of means where that is all there is, by user where records keep ranks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from conseq.evaluation.compare import compare
from conseq.evaluation.metrics import means
from conseq.evaluation.ranks import Protocol
from conseq.evaluation.result import Evaluation
from conseq.report.charts import Dot, Dots, Labels, dot_chart
from conseq.report.gains import gains
from conseq.report.results import results
from conseq.report.style import COLOURS
from conseq.run.config import RunConfig
from conseq.study.specification import Table, load_table
from conseq.study.top_ranks import packed

Make = Callable[..., dict[str, Any]]
Experiment = Callable[..., RunConfig]
NAMES = ["HR@5", "HR@20", "NDCG@5", "NDCG@20"]


def judged(history: Any, seed: int, better: float = 0.0, users: int = 400) -> Evaluation:
    ranks = np.random.default_rng(seed).integers(1, 41, users).astype(np.float64)
    ranks = np.maximum(np.floor(ranks * (1 - better)), 1.0)
    offsets = np.arange(users + 1)
    return Evaluation(
        model="m", protocol=Protocol(split="test", slicing="leave_one_out", history=history, ties="pessimistic"),
        users=np.arange(users), ranks=ranks, offsets=offsets, n_items=100,
        metrics=means(NAMES, ranks, offsets), seconds=0.0, held_out="a" * 16,
    )  # fmt: skip


@pytest.fixture
def table(experiments: Path) -> Table:
    return load_table(experiments / "paper" / "table1" / "toy.toml")


@pytest.fixture
def with_ranks(make_record: Make, experiment: Experiment) -> Callable[..., dict[str, Any]]:
    def make(row: str, seed: int = 0, better: float = 0.0, **how: Any) -> dict[str, Any]:
        made = make_record(experiment(seed, **how), row=row)
        both: Any = {history: judged(history, seed, better) for history in ("exclude", "keep")}
        made["both"] = {
            history: {**made["both"][history], "metrics": dict(one.metrics), "floors": {}}
            for history, one in both.items()
        }
        return made | {"ranks": packed(both), "split": "leave_one_out", "ties": "pessimistic"}

    return make


BETTER = {"method": {"name": "cl4srec"}}


def test_a_gain_by_user_is_what_compare_gives(table: Table, with_ranks: Callable[..., dict[str, Any]]) -> None:
    records = [with_ranks("SASRec"), with_ranks("CL4SRec", better=0.5, **BETTER)]
    (picture,) = gains(table, results(records), "g")
    rows = {row[1]: row for row in picture.rows}
    assert set(rows) == {"kept", "excluded"}
    for verb, history in (("kept", "keep"), ("excluded", "exclude")):
        (told,) = compare(judged(history, 0), judged(history, 0, better=0.5), ["NDCG@20"])
        assert rows[verb][2:6] == (told.difference.value, told.difference.low, told.difference.high, told.p_adjusted)
        assert rows[verb][6:] == (1, 1)
    assert picture.svg.count("stroke-width: 1.4") == 2  # an interval at either dot
    assert re.search(r"CL4SRec, history kept: \+0\.\d{4} \(\+0\.\d{4} to \+0\.\d{4}\)", picture.alt)


def test_a_gain_without_ranks_is_that_of_the_means(table: Table, make_record: Make, experiment: Experiment) -> None:
    base = [make_record(experiment(seed), row="SASRec", quality=0.1 + 0.01 * seed) for seed in range(2)]
    other = make_record(experiment(0, **BETTER), row="CL4SRec", quality=0.2)
    (picture,) = gains(table, results([*base, other]), "g")
    for model, verb, value, *rest in picture.rows:
        history = "keep" if verb == "kept" else "exclude"
        mean = sum(one["both"][history]["metrics"]["NDCG@20"] for one in base) / 2
        assert (model, rest) == ("CL4SRec", [None, None, None, 1, 2])
        assert value == pytest.approx(other["both"][history]["metrics"]["NDCG@20"] - mean)
    assert "first row" in picture.caption.lower()
    assert "SASRec, its seeds" in "".join(ET.fromstring(picture.svg).itertext())


def test_only_runs_with_ranks_are_compared_by_user(table: Table, with_ranks: Callable[..., dict[str, Any]]) -> None:
    bare = with_ranks("SASRec", 1)
    del bare["ranks"]
    records = [with_ranks("SASRec"), bare, with_ranks("CL4SRec", better=0.5, **BETTER)]
    (picture,) = gains(table, results(records), "g")
    assert {row[6:] for row in picture.rows} == {(1, 1)}
    assert {row[6:] for row in gains(table, results([bare, records[2]]), "g")[0].rows} == {(1, 1)}
    assert {row[3] for row in gains(table, results([bare, records[2]]), "g")[0].rows} == {None}


def test_models_stand_beside_sasrec_of_their_instances(table: Table, make_record: Make, experiment: Experiment) -> None:
    base = make_record(experiment(0), row="SASRec")
    alike = make_record(experiment(0, **BETTER), row="CL4SRec")
    apart = {**make_record(experiment(1, **BETTER), row="CL4SRec (prefixes)"), "instances": "prefixes"}
    apart["config"] = {**apart["config"], "training": {**apart["config"]["training"], "instances": "prefixes"}}
    (picture,) = gains(table, results([base, alike, apart]), "g")
    assert {row[0] for row in picture.rows} == {"CL4SRec"}
    assert gains(table, results([base]), "g") == []
    assert gains(table, results([alike, apart]), "g") == []
    assert gains(table, [], "g") == []


def test_many_models_make_several_figures(table: Table, make_record: Make, experiment: Experiment) -> None:
    others = [
        make_record(experiment(0, method={"name": "cl4srec", "contrast": 0.1 + number}), row=f"c{number}")
        for number in range(20)
    ]
    pictures = gains(table, results([make_record(experiment(0), row="SASRec"), *others]), "g")
    assert [one.name for one in pictures] == ["g-gains-1", "g-gains-2"]
    assert [one.title for one in pictures] == [f"NDCG@20: gain over SASRec ({number} of 2)" for number in (1, 2)]
    assert len({row[0] for one in pictures for row in one.rows}) == 20


def test_a_metric_of_longer_lists_has_no_interval(table: Table, with_ranks: Callable[..., dict[str, Any]]) -> None:
    records = [with_ranks("SASRec"), with_ranks("CL4SRec", better=0.5, **BETTER)]
    for record in records:
        for side in record["both"].values():
            side["metrics"]["HR@50"] = 0.5
    (picture,) = gains(replace(table, metric="HR@50"), results(records), "g")
    assert picture.title.startswith("HR@50")
    assert {row[3] for row in picture.rows} == {None}


def test_open_dots_have_no_interval() -> None:
    labels = Labels("difference", "", ("a", "b"))
    filled = dot_chart([Dots("kept", (Dot(0, 0.1, 0.05, 0.2), Dot(1, 0.2, 0.1, 0.3)))], labels)
    mixed = dot_chart([Dots("kept", (Dot(0, 0.1, 0.05, 0.2), Dot(1, 0.2)))], labels)
    assert filled.count(f"stroke: {COLOURS[0].lower()}; stroke-width: 1.4") == 2
    assert mixed.count(f"stroke: {COLOURS[0].lower()}; stroke-width: 1.4") == 1
