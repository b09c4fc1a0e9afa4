"""What the metrics of a record can be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from conseq.run.config import from_record
from conseq.study.checks import faults
from conseq.study.records import Record, check
from conseq.study.specification import Table

Made = Callable[..., Record]


@pytest.fixture
def record(table: Table, made: Made) -> Record:
    found: Record = json.loads(json.dumps(made(table.rows[0])))
    return found


@pytest.fixture
def record_by_user(table: Table, made: Made) -> Record:
    row = table.rows[0]
    assert row.config is not None
    config = from_record({**row.config.record(), "split": {"name": "by_user"}}, source="a test")
    found: Record = json.loads(json.dumps(made(row, config=config)))
    return found


@pytest.mark.parametrize(
    ("metrics", "wrong"),
    [
        ({"HR@10": 3.0}, "HR@10 = 3, expected a share from 0 to 1"),
        ({"MRR": -1.0}, "MRR = -1, expected a share"),
        ({"Coverage@10": 1.5}, "Coverage@10 = 1.5, expected a share"),
        ({"ComiRecNDCG@5": 1.2}, "ComiRecNDCG@5 = 1.2, expected a share"),
        ({"MeanPopularity@5": -2.0}, "MeanPopularity@5 = -2, expected at least 0"),
        ({"cases": math.inf}, "cases = inf, expected a number"),
        ({"NDCG@5": math.nan}, "NDCG@5 = nan, expected a number"),
        ({"HR@5": "0.3"}, "HR@5 = '0.3', expected a number"),
        ({"HR@5": 0.3, "HR@20": 0.2}, "HR@20 = 0.2, but HR@5 is 0.3 already"),
        ({"Recall@20": 0.3, "Recall@5": 0.31}, "Recall@20 = 0.3, but Recall@5 is 0.31 already"),
        ({"HR@5": 0.3, "Recall@5": 0.31}, "Recall@5 = 0.31, but HR@5 allows at most 0.3"),
        ({}, "there are no metrics"),
    ],
)
def test_what_no_ranks_can_give_is_found(metrics: dict[str, Any], wrong: str) -> None:
    for single in (True, False):
        assert [one[: len(wrong)] for one in faults(metrics, single=single)] == [wrong]


def test_what_ranks_can_give_is_not_found_whatever_six_decimals_leave_of_it(
    record: Record, record_by_user: Record
) -> None:
    assert not faults(record["metrics"], single=True)
    assert not faults(record_by_user["metrics"], single=False)
    # One case in three at rank 1, and at rank 10: NDCG is at its bounds, a half of the last digit beyond them.
    assert not faults({"HR@10": 0.333333, "NDCG@10": 0.3333334}, single=True)
    assert not faults({"HR@10": 0.333333, "NDCG@10": round(1 / 3 / math.log2(11), 6)}, single=True)
    assert faults({"HR@10": 0.333333, "NDCG@10": 0.333335}, single=True)


def test_the_gain_of_a_hit_is_bounded_by_hit_rates_where_a_case_has_one_target() -> None:
    assert "NDCG@10 = 0.3" in faults({"HR@10": 0.2, "NDCG@10": 0.3}, single=True)[0]
    assert not faults({"HR@10": 0.2, "NDCG@10": 0.01}, single=False)
    # A hit at rank 5.5 gains more than one at 6.
    half = {"HR@5": 0.0, "HR@10": 1.0, "NDCG@5": 0.0, "NDCG@10": 1 / math.log2(6.5)}
    assert faults(half, single=True)
    assert not faults(half, single=True, half_ranks=True)


@pytest.mark.parametrize(
    ("path", "value", "wrong"),
    [
        (("both",), {}, "both holds nothing; expected exclude and keep"),
        (("both",), {"keep": {}}, "both holds keep; expected exclude and keep"),
        (("history",), "both", "history is 'both'"),
        (("both", "keep"), {"metrics": {}}, "floors of keep of both is None; expected a table"),
        (("both", "exclude"), 1, "exclude of both is 1; expected a table"),
        (("both", "keep", "floors", "popularity"), [0.1], "the floor 'popularity' of keep of both is"),
        (("curve",), [3], "point 0 of the curve"),
        (("analyses",), {"noise": 3}, "the analysis 'noise' is 3; expected a table"),
        (("metrics", "HR@10"), 0.1, "metrics are not those of both under history keep"),
        (("floors", "popularity", "HR@10"), 0.1, "floors are not those of both under history keep"),
        (("both", "exclude", "metrics", "HR@10"), 3.0, "next_item, history exclude: HR@10 = 3"),
        (("both", "keep", "floors", "popularity", "NDCG@10"), 0.9, "history keep, floor popularity: NDCG@10 = 0.9"),
        (("both", "keep", "slices", "history", "<=5", "NDCG@10"), 0.9, "history keep, history <=5: NDCG@10 = 0.9"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(
    record: Record, path: tuple[str, ...], value: object, wrong: str
) -> None:
    check(record, source="here")
    *way, last = path
    place: Any = record
    for key in way:
        place = place[key]
    place[last] = value
    with pytest.raises(ValueError, match=f"here: .*{wrong}"):
        check(record, source="here")


@pytest.mark.parametrize(("targets", "refused"), [("all", False), ("first", True)])
def test_hit_rates_bound_the_gain_of_a_run_by_time_where_its_cases_have_one_target(
    table: Table, made: Made, targets: str, refused: bool
) -> None:
    row = table.rows[0]
    assert row.config is not None
    split = {"name": "by_time", "targets": targets}
    found = made(row, config=from_record({**row.config.record(), "split": split}, source="a test"), split="by_time")
    for side in found["both"].values():
        side["metrics"] = {**side["metrics"], "NDCG@5": 0.02}  # a tenth of the cases have a hit at 5: at least .038
    found["metrics"] = found["both"][found["history"]]["metrics"]
    if refused:
        with pytest.raises(ValueError, match=r"NDCG@5 = 0.02, but the hit rates allow"):
            check(found, source="x")
    else:
        check(found, source="x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "20"}, "epochs is '20'; expected a whole number"),
        ({"seed": True}, "seed is True; expected a whole number"),
        ({"seconds": None}, "seconds is None; expected a number"),
        ({"floors": []}, r"floors is \[\]; expected a table"),
        ({"analyses": []}, r"analyses is \[\]; expected a table"),
        ({"data": {}}, "data lacks the number of users, items, interactions"),
        ({"curve": {}}, "curve is {}; expected a list"),
        ({"data_hash": 7}, "data_hash is 7; expected a text"),
    ],
)
def test_a_record_with_one_thing_in_the_place_of_another_is_refused(
    record: Record, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^here: {message}"):
        check({**record, **change}, source="here")


def test_a_record_of_held_out_users_is_checked_too(record_by_user: Record) -> None:
    check(record_by_user, source="here")
    record_by_user["both"]["exclude"]["metrics"] |= {"Recall@20": 0.35, "Recall@50": 0.4}
    with pytest.raises(ValueError, match=r"history exclude: Recall@20 = 0\.35, but HR@20 allows at most 0\.3"):
        check(record_by_user, source="here")
