"""Recommendations as a table, for the users of a log or of a mapping."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from conseq.data.log import InteractionLog
from conseq.data.readers import read
from conseq.data.vocabulary import Vocabulary
from conseq.serving.recommender import Recommender


def _log(users: list[str] | None = None) -> InteractionLog:
    """Histories u: d a, v: stranger b, w: stranger."""
    return InteractionLog(
        items=np.array([1, 2, 3, 4, 3], dtype=np.int32),
        offsets=np.array([0, 2, 4, 5], dtype=np.int64),
        times=None,
        user_ids=Vocabulary(users or ["u", "v", "w"], start=0),
        item_ids=Vocabulary(["d", "a", "stranger", "b"], start=1),
        manifest={},
    )


def test_a_table_has_one_row_per_user_and_item(line: Recommender) -> None:
    table = line.recommend_table(_log(), k=4, users=["v", "u"])
    expected = pl.DataFrame(
        {
            "user_id": ["v"] * 4 + ["u"] * 3,
            "item_id": ["d", "c", "a", "e", "c", "b", "e"],
            "score": [8.0, 6.0, 2.0, -2.0, 7.5, 5.0, -2.5],
            "rank": [1, 2, 3, 4, 1, 2, 3],
        },
        schema_overrides={"score": pl.Float32},
    )
    assert table.equals(expected)
    assert table.schema == expected.schema


def test_a_table_from_a_mapping_is_that_from_the_log(line: Recommender) -> None:
    by_user = {"u": ["d", "a"], "v": ["stranger", "b"], "w": ["stranger"]}
    from_log = line.recommend_table(_log(), k=2, on_empty="popular", exclude=["c"], candidates=["a", "b", "c"])
    assert from_log.equals(
        line.recommend_table(by_user, k=2, on_empty="popular", exclude=["c"], candidates=["a", "b", "c"])
    )
    assert from_log.filter(user_id="w")["item_id"].to_list() == ["b", "a"]


def test_a_table_tells_which_scores_are_of_popularity_where_there_may_be_some(line: Recommender) -> None:
    table = line.recommend_table(_log(), k=1, on_empty="popular")
    assert table.columns == ["user_id", "item_id", "score", "rank", "source"]
    assert table.select("user_id", "score", "source").rows() == [
        ("u", 7.5, "model"),
        ("v", 8.0, "model"),
        ("w", 9.0, "popularity"),
    ]
    assert line.recommend_table({"u": ["a"]}, k=1, on_empty="popular")["source"].to_list() == ["model"]
    assert line.recommend_table({"u": ["a"]}, k=1, on_empty="blank").columns == ["user_id", "item_id", "score", "rank"]


def _candidates(rows: list[tuple[str, str]]) -> InteractionLog:
    return read(pl.DataFrame(rows, schema=["user", "item"], orient="row"), time="-")


def test_each_user_may_have_their_own_candidates(line: Recommender) -> None:
    rows = [("v", "e"), ("u", "b"), ("v", "c"), ("u", "a"), ("other", "d"), ("v", "new")]
    by_user = {"u": ["b", "a"], "v": ["e", "c", "new"], 7: ["d"]}
    for given in (_candidates(rows), by_user):
        table = line.recommend_table(_log(), k=2, users=["v", "u"], candidates=given)
        assert table.select("user_id", "item_id", "rank").rows() == [("v", "c", 1), ("v", "e", 2), ("u", "b", 1)]
        with pytest.raises(KeyError, match="candidates: 'w' is without an entry, 1 of 3 users in all"):
            line.recommend_table(_log(), on_empty="blank", candidates=given)
        with pytest.raises(KeyError, match="candidates: 'new' is not among"):
            line.recommend_table({"v": ["a"]}, candidates=given, unknown="error")
    assert line.recommend_table({}, candidates=by_user).is_empty()
    with pytest.raises(TypeError, match="candidates: a table takes one list of items for all users, or a mapping"):
        line.recommend_table(_log(), candidates=[["a"]])
    with pytest.raises(ValueError, match="candidates: two users have one id"):
        line.recommend_table({"7": ["a"]}, candidates={7: ["a"], "7": ["b"]})


def test_a_blank_user_has_no_rows_in_the_table(line: Recommender) -> None:
    assert line.recommend_table(_log(), k=1, on_empty="blank")["user_id"].to_list() == ["u", "v"]
    with pytest.raises(ValueError, match=r"user '\w+' has no item that the model knows; leave them out"):
        line.recommend_table(_log(), k=1)


def test_a_table_of_nobody_is_empty_with_its_columns(line: Recommender) -> None:
    table = line.recommend_table({}, k=1)
    assert table.columns == ["user_id", "item_id", "score", "rank"]
    assert table.is_empty()


def test_a_table_names_unknown_users_and_items(line: Recommender) -> None:
    with pytest.raises(KeyError, match="'nobody'"):
        line.recommend_table(_log(), users=["nobody"])
    with pytest.raises(KeyError, match="'stranger'"):
        line.recommend_table(_log(), unknown="error")
    with pytest.raises(TypeError, match="one list of items for all users"):
        line.recommend_table(_log(), exclude=[["a"]])


def test_an_integer_stands_for_a_users_decimal_string(line: Recommender) -> None:
    log = _log(["7", "v", "w"])
    expected = line.recommend_table(log, k=2, users=["7"])
    assert expected["user_id"].to_list() == ["7", "7"]
    for histories in (log, {7: ["d", "a"]}, {"7": ["d", "a"]}):
        for users in ([7], np.array([7]), pl.Series([7]), (one for one in ["7"])):
            assert line.recommend_table(histories, k=2, users=users).equals(expected)


@pytest.mark.parametrize("by_mapping", [True, False])
@pytest.mark.parametrize(
    ("users", "message"),
    [
        ("u", "users: expected a list of user ids, found str 'u'"),
        (7, "users: expected a list of user ids, found int 7"),
        ([7.0], "a user id is a string or an integer; found 7.0 of type float"),
    ],
)
def test_users_that_are_no_list_of_ids_are_refused(
    line: Recommender, users: Any, message: str, *, by_mapping: bool
) -> None:
    with pytest.raises(TypeError, match=message):
        line.recommend_table({"u": ["d"]} if by_mapping else _log(), users=users)


@pytest.mark.parametrize("histories", [[["a"]], ["a"], "a", None, pl.DataFrame({"user": ["u"], "item": ["a"]})])
def test_histories_without_users_are_no_table(line: Recommender, histories: Any) -> None:
    with pytest.raises(TypeError, match="histories: expected a log or a mapping from user ids to lists of item ids"):
        line.recommend_table(histories)


def test_two_users_of_one_id_are_refused(line: Recommender) -> None:
    with pytest.raises(ValueError, match="histories: 1 and '1' are the same user id '1'; an integer stands for"):
        line.recommend_table({1: ["a"], "1": ["b"]})


def test_a_way_to_treat_unknown_items_is_checked_even_for_nobody(line: Recommender) -> None:
    unknown: Any = "raise"
    with pytest.raises(ValueError, match="unknown is 'raise'"):
        line.recommend_table(_log(), users=[], unknown=unknown)
