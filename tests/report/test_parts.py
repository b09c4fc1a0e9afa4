"""Figures of more models than one can show: each has the baseline, and its title says which part it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from conseq.report.curves import learning_curves
from conseq.report.parts import beside_the_baseline, in_figures
from conseq.report.results import Result, results
from conseq.report.style import Picture
from conseq.run.config import RunConfig

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
