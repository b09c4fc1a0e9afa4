"""Figures of more models than one can show: each has the baseline, and its title says which part it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from conseq.report.curves import learning_curves
from conseq.report.pages import answered
from conseq.report.parts import beside_the_baseline, in_figures
from conseq.report.results import Result, results
from conseq.report.style import COLOURS, MOST_SERIES, Picture
from conseq.report.sweeps import sensitivity
from conseq.run.config import RunConfig
from conseq.study.specification import load_table

Make = Callable[..., dict[str, Any]]
Experiment = Callable[..., RunConfig]


@pytest.fixture
def found(make_record: Make, experiment: Experiment) -> list[Result]:
    """Eight contrasts and, among them, SASRec."""
    records = [
        make_record(experiment(0, method={"name": "cl4srec", "contrast": number / 10}), row=f"contrast {number}")
        for number in range(1, 9)
    ]
    made = results([*records[:4], make_record(experiment(0), row="SASRec"), *records[4:]])
    assert len(made) == 9
    return sorted(made, key=lambda one: (one.is_sasrec, one.label))


def labels(parts: Sequence[Sequence[Result]]) -> list[list[str]]:
    return [[one.label for one in part] for part in parts]


def test_the_baseline_stands_in_every_part(found: list[Result]) -> None:
    parts = labels(beside_the_baseline(found, 5))
    assert [part[0] for part in parts] == ["SASRec", "SASRec"]
    assert [label for part in parts for label in part[1:]] == [one.label for one in found[:-1]]
    assert [len(part) for part in parts] == [5, 5]


def test_what_fits_into_one_figure_keeps_its_order(found: list[Result]) -> None:
    assert labels(beside_the_baseline(found, 9)) == [[one.label for one in found]]
    assert beside_the_baseline([], 5) == []


def test_without_a_baseline_each_stands_once(found: list[Result]) -> None:
    parts = labels(beside_the_baseline(found[:-1], 5))
    assert [label for part in parts for label in part] == [one.label for one in found[:-1]]
    assert [len(part) for part in parts] == [4, 4]


def test_titles_say_which_part_it_is_where_there_are_several(found: list[Result]) -> None:
    (first, again), (one, _) = learning_curves(found, "x")[:2], learning_curves(found[:3], "x")
    assert first.title == "Validation NDCG@20 by epoch (1 of 2)"
    assert again.title.endswith("(1 of 2)")
    assert one.title == "Validation NDCG@20 by epoch"
    names = [picture.name for picture in learning_curves(found, "x")]
    assert len(set(names)) == len(names) == 4


def test_each_part_is_drawn_with_its_number(found: list[Result]) -> None:
    asked: list[tuple[int, int]] = []

    def draw(some: Sequence[Result], number: int) -> list[Picture]:
        asked.append((len(some), number))
        return learning_curves(some[:1], f"x-{number}")

    assert len(in_figures(found, 4, draw)) == 6
    assert asked == [(3, 1), (4, 2), (4, 3)]


SWEEP = """
[[sweep]]
name = "{name}"
experiment = "next_item/toy.toml"
preset = "paper"
method = {{ name = "{method}" }}
training = {{ batch_size = {size} }}
parameter = "training.learning_rate"
values = [0.0005, 0.002]
cells = {{ "NDCG@20" = [0.04, 0.05] }}
"""


def swept(root: Path, experiments: Path, make_record: Make, names: Sequence[str]) -> list[Picture]:
    """Gives the figures of curves over the learning rate; the last of them is the baseline's."""
    shutil.copytree(experiments, root)
    head = 'paper = "A paper"\ntitle = "Figure 2"\ndataset = "toy"\nhistory = "exclude"\n'
    methods = [*["cl4srec"] * (len(names) - 1), "next_item"]
    sweeps = (
        SWEEP.format(name=name, method=method, size=number)
        for number, (name, method) in enumerate(zip(names, methods, strict=True), start=5)
    )
    path = root / "paper" / "table1" / "sweeps.toml"
    path.write_text(head + "".join(sweeps), encoding="utf-8")
    table = load_table(path)
    records = [make_record(row.config) for row in table.rows if row.config is not None]
    (one,) = answered([table], records)
    return sensitivity(table, one.answers, list(one.own.values()), "s")


def test_curves_over_a_setting_are_shared_out_with_the_baseline_in_every_part(
    tmp_path: Path, experiments: Path, make_record: Make
) -> None:
    names = [f"contrast {number}" for number in range(MOST_SERIES + 1)]
    pictures = swept(tmp_path / "experiments", experiments, make_record, [*names, "SASRec"])
    shown = [list(dict.fromkeys(row[0] for row in picture.rows)) for picture in pictures]
    assert [part[0] for part in shown] == ["SASRec", "SASRec"]
    assert [name for part in shown for name in part[1:]] == names
    assert [picture.title for picture in pictures] == [
        "NDCG@20 by learning rate (1 of 2)",
        "NDCG@20 by learning rate (2 of 2)",
    ]
    assert len({picture.name for picture in pictures}) == 2
    assert [sum(one.lower() in picture.svg for one in COLOURS) for picture in pictures] == [len(one) for one in shown]


def test_curves_that_fit_into_one_figure_stand_there(tmp_path: Path, experiments: Path, make_record: Make) -> None:
    (picture,) = swept(tmp_path / "experiments", experiments, make_record, ["contrast", "SASRec"])
    assert picture.title == "NDCG@20 by learning rate"
    assert [row[:2] for row in picture.rows] == [
        ("contrast", "0.0005"), ("contrast", "0.002"), ("SASRec", "0.0005"), ("SASRec", "0.002"),
    ]  # fmt: skip
