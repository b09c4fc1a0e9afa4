from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conseq.report.statement import listed, statement
from conseq.run.config import RunConfig

Make = Callable[..., dict[str, Any]]
Experiment = Callable[..., RunConfig]


def test_a_protocol_says_all_that_numbers_depend_on(make_record: Make, experiment: Experiment) -> None:
    parts = dict(statement([make_record(experiment(3))], history="keep").parts)
    assert parts == {
        "data": "toy (1,000 users, 300 items, 9,000 interactions)",
        "split": "leave_one_out, test part",
        "history": "kept",
        "ties": "pessimistic",
        "loss": "cross entropy",
        "instances": "whole",
        "encoder": "sasrec",
        "preset": "ours",
        "seeds": "3",
        "commit": "0123456789",
        "data hash": "feedfeedfeed",
        "machine": "a processor, 2 cores",
        "versions": "conseq 0.1.0, torch 2.13.0",
    }


def test_a_protocol_lists_what_differs(make_record: Make, experiment: Experiment) -> None:
    records = [make_record(experiment(10)), make_record(experiment(9, instances="prefixes"), preset="paper")]
    parts = dict(statement(records, history="exclude", part="validation").parts)
    assert parts["instances"] == "whole / prefixes"
    assert parts["preset"] == "ours / paper"
    assert parts["seeds"] == "9, 10"
    assert parts["split"] == "leave_one_out, validation part"


def test_a_figure_says_less_than_the_numbers_behind_it(make_record: Make, experiment: Experiment) -> None:
    found = statement([make_record(experiment(0))], history="exclude")
    left = {name for name, _ in found.parts} - {name for name, _ in found.brief}
    assert left == {"data hash", "machine", "versions"}


def test_without_records_there_is_no_protocol() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        statement([], history="keep")


def test_many_different_values_are_counted() -> None:
    assert listed(["a", "b", "a"]) == "a / b"
    assert listed(["e", "d", "c", "b", "a"]) == "5 different ones, from e to a"
    assert listed([10, 9, 10]) == "9, 10"
