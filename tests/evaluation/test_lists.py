"""Tables of recommended items, as lists with an order and in the numbers of a log."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from conseq.data.readers import prepare
from conseq.data.reading import Reading
from conseq.data.sequences import Sequences
from conseq.data.vocabulary import Vocabulary
from conseq.evaluation.lists import Listed, Lists, numbered, read_lists

ROWS = {"user_id": ["b", "a", "b", "a", "b"], "item_id": ["x", "y", "z", "x", "y"]}


def as_dict(lists: Lists) -> dict[str, list[str]]:
    bounds = lists.offsets.tolist()
    return {user: lists.item_ids[bounds[at] : bounds[at + 1]].to_list() for at, user in enumerate(lists.user_ids)}


@pytest.mark.parametrize(
    ("more", "named", "order", "expected"),
    [
        ({}, {}, "rows", {"a": ["y", "x"], "b": ["x", "z", "y"]}),
        ({"rank": [3, 2, 1, 1, 2]}, {}, "rank", {"a": ["x", "y"], "b": ["z", "y", "x"]}),
        ({"score": [0.5, -1.0, 2.5, 1e-3, 7.0]}, {}, "score", {"a": ["x", "y"], "b": ["y", "z", "x"]}),
        # a rank tells more than a score, and what is named more than what is guessed
        ({"rank": [3, 2, 1, 1, 2], "score": [9, 9, 1, 1, 5]}, {}, "rank", {"a": ["x", "y"], "b": ["z", "y", "x"]}),
        (
            {"rank": [3, 2, 1, 1, 2], "score": [9, 9, 1, 1, 5]},
            {"score": "score"},
            "score",
            {"a": ["y", "x"], "b": ["x", "y", "z"]},
        ),
        ({"place": [0, 1, 2, 0, 1]}, {"rank": "place"}, "rank", {"a": ["x", "y"], "b": ["x", "y", "z"]}),
        # names are read as those of users and items are
        ({"Position": [3, 2, 1, 1, 2]}, {}, "rank", {"a": ["x", "y"], "b": ["z", "y", "x"]}),
        ({"prediction": [0.5, -1.0, 2.5, 1e-3, 7.0]}, {}, "score", {"a": ["x", "y"], "b": ["y", "z", "x"]}),
        # a column of times is not what tells the order
        ({"timestamp": [5, 4, 3, 2, 1]}, {}, "rows", {"a": ["y", "x"], "b": ["x", "z", "y"]}),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "table"])
def test_the_order_is_that_of_ranks_of_scores_or_of_the_rows(
    more: dict[str, list[float]],
    named: dict[str, str],
    order: str,
    expected: dict[str, list[str]],
    suffix: str,
    tmp_path: Path,
) -> None:
    table = pl.DataFrame({**ROWS, **more})
    path = tmp_path / f"lists.{suffix}"
    if suffix != "table":
        getattr(table, {"csv": "write_csv", "parquet": "write_parquet", "jsonl": "write_ndjson"}[suffix])(path)
    lists = read_lists(table if suffix == "table" else path, **named)
    assert as_dict(lists) == expected
    assert lists.order == order
    assert repr(lists) == f"<conseq.Lists of 2 users: 5 items, by {order}>"


def test_equal_scores_keep_the_order_of_the_rows_and_are_counted() -> None:
    lists = read_lists(pl.DataFrame({**ROWS, "score": [1.0, 1.0, 1.0, 1.0, 2.0]}))
    assert as_dict(lists) == {"a": ["y", "x"], "b": ["y", "x", "z"]}
    assert lists.equal_scores == 2


def test_ids_come_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "lists.csv").write_text("uid,asin,rank\n007,a b,2\n007,é,1\n")
    assert as_dict(read_lists(tmp_path / "lists.csv")) == {"007": ["é", "a b"]}
    numbers = pl.DataFrame({"user_id": [7, 7], "item_id": [10, 9]})
    assert as_dict(read_lists(numbers)) == {"7": ["10", "9"]}


@pytest.mark.parametrize(
    ("text", "named", "problem"),
    [
        ("user,item\na,x\na,x\n", {}, "the list of user 'a' holds the item 'x' more than once"),
        ("user,item,rank\na,x,1\na,y,1\n", {}, "user 'a' has more than one item of rank 1; ranks tell the order"),
        ("user,item,rank\na,x,1\na,y,best\n", {}, "line 3: the rank is 'best'; expected a finite number"),
        ("user,item,score\na,x,1\na,y,\n", {}, "line 3: the score is missing; expected a finite number"),
        ("user,item,score\na,x,nan\n", {}, "line 2: the score is 'nan'; expected a finite number"),
        ("user,item\na,\n", {}, "line 2: the item is missing"),
        ("user,item\n", {}, "there are no lists in it"),
        ("user,item\na,x\n", {"rank": "place"}, "no column 'place' for the rank; the columns are 'user', 'item'"),
        ("user,item,rank,Rank\na,x,1,1\n", {}, "several columns may be the rank: 'rank', 'Rank'; choose one with"),
        ("user,item,score\na,x,-inf\n", {}, "line 2: the score is '-inf'; expected a finite number"),
        ("user,thing\na,x\n", {}, "no column looks like the item"),
        ("user,item,rank\na,x,1\n", {"rank": "rank", "score": "rank"}, "lists have one order: name one of them"),
    ],
)
def test_what_is_no_list_is_refused_with_its_place(
    text: str, named: dict[str, str], problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "lists.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem) as error:
        read_lists(path, **named)
    assert named or str(path) in str(error.value)


def test_lists_get_the_numbers_of_the_log() -> None:
    lists = read_lists(pl.DataFrame(ROWS))
    users, items = Vocabulary(["c", "b", "a"], start=0), Vocabulary(["y", "x", "z"], start=1)
    assert numbered(lists, users, items).lists.to_lists() == [[], [2, 3, 1], [1, 2]]
    assert numbered(lists, Vocabulary(["b"], start=0), items).lists.to_lists() == [[2, 3, 1]]
    fewer = Vocabulary(["y", "z"], start=1)
    with pytest.raises(ValueError, match=r"1 of the listed items are not in the log, such as 'x'; .*--unknown drop"):
        numbered(lists, users, fewer)
    assert numbered(lists, users, fewer, unknown="drop").lists.to_lists() == [[], [2, 1], [1]]
    with pytest.raises(ValueError, match=r"none of the 2 users of the lists, such as 'a'; its own are called as 'u0'"):
        numbered(lists, Vocabulary(["u0"], start=0), items)


def test_what_is_listed_is_scored_by_its_place_and_nothing_else_can_be_recommended() -> None:
    scorer = Listed(Sequences.from_lists([[2, 3], [], [1]]), 3)
    histories = Sequences.from_lists([[1], [1], [1]])
    found = scorer.scores(torch.tensor([2, 0, 1]), histories)
    low = -torch.inf
    assert found.tolist() == [[0, low, low], [low, 0, -1], [low, low, low]]


def test_a_column_that_is_no_number_is_refused() -> None:
    for column in (pl.Series([True]), pl.Series([[1]]), pl.Series(["1"], dtype=pl.Categorical)):
        with pytest.raises(ValueError, match=r"the column of the rank holds .*; expected numbers"):
            read_lists(pl.DataFrame({"user": ["a"], "item": ["x"], "rank": column}))


def test_files_of_one_table_are_ordered_by_one_column(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/a.csv").write_text("user,item,rank\na,x,2\na,y,1\n")
    (tmp_path / "lists/b.csv").write_text("user,item,rank\nb,x,1\n")
    assert as_dict(read_lists(tmp_path / "lists")) == {"a": ["y", "x"], "b": ["x"]}
    (tmp_path / "lists/b.csv").write_text("user,item,score\nb,x,1\n")
    with pytest.raises(ValueError, match=r"b\.csv: no column 'rank'"):
        read_lists(tmp_path / "lists")


def test_a_prepared_log_is_no_table_of_lists(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user,item\na,x\na,y\nb,x\n")
    prepare(tmp_path / "events.csv", tmp_path / "data", Reading())
    with pytest.raises(ValueError, match="data is a prepared log; expected a table with a row for each recommended"):
        read_lists(tmp_path / "data")
