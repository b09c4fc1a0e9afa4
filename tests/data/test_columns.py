from __future__ import annotations

import pytest

from conseq.data.columns import Column, Columns, choose, sounds_like_time


def _choose(*names: str, user: str | None = None, item: str | None = None, time: str | None = None) -> Columns:
    return choose(names, "a.csv", user=user, item=item, time=time)


@pytest.mark.parametrize(
    "names",
    [
        ("user_id", "item_id", "timestamp"),
        ("userId", "movieId", "timestamp"),
        ("reviewerID", "asin", "unixReviewTime"),
        ("visitorid", "itemid", "timestamp"),
        ("session_id", "sku", "event_time"),
        ("user_id:token", "item_id:token", "timestamp:float"),
        ("User", "Product ID", "Date"),
    ],
)
def test_usual_names_are_guessed(names: tuple[str, str, str]) -> None:
    columns = _choose("rating", *names, "title")
    assert columns.names == list(names)
    assert columns.user.guessed
    assert columns.item.guessed
    assert columns.time == Column(names[2], guessed=True)


def test_a_log_needs_no_time_column() -> None:
    assert _choose("user", "item").time is None


def test_a_dash_takes_no_times_although_there_are_some() -> None:
    assert _choose("user", "item", "time", time="-").time is None


def test_a_named_column_is_taken_and_not_marked_as_guessed() -> None:
    columns = _choose("a", "b", "user_id", "when", user="a", item="b", time="when")
    taken = (Column("a", guessed=False), Column("b", guessed=False), Column("when", guessed=False))
    assert columns == Columns(*taken, every=("a", "b", "user_id", "when"))


def test_a_recbole_column_may_be_named_without_its_type() -> None:
    assert _choose("who:token", "item_id:token", user="who").user == Column("who:token", guessed=False)


def test_several_columns_that_fit_are_an_error_that_names_them() -> None:
    with pytest.raises(ValueError, match=r"a\.csv: several columns may be the item: 'asin', 'parent_asin'.*item="):
        _choose("user_id", "asin", "parent_asin")


def test_naming_one_of_several_columns_that_fit_ends_the_ambiguity() -> None:
    assert _choose("user_id", "asin", "parent_asin", item="asin").item == Column("asin", guessed=False)


def test_a_missing_column_is_named_with_what_was_found() -> None:
    with pytest.raises(ValueError, match=r"a\.csv: no column 'uid' for the user; found 'u', 'item'"):
        _choose("u", "item", user="uid")


def test_no_column_that_looks_like_the_item_is_an_error() -> None:
    with pytest.raises(
        ValueError,
        match=r"no column looks like the item; found 'user', 'x'; name it with item= "
        r"\(--item in a shell\)",
    ):
        _choose("user", "x")


def test_a_doubled_column_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"column 'user_id' occurs 2 times"):
        _choose("user_id", "user_id", "item_id")


def test_one_column_cannot_be_two_things() -> None:
    with pytest.raises(ValueError, match=r"column 'x' is taken twice"):
        _choose("x", "y", user="x", item="x")


def test_a_long_header_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match=r"'c19' and 10 more"):
        _choose(*(f"c{i}" for i in range(30)))


@pytest.mark.parametrize(
    "name",
    ["purchased_at", "orderDate", "start.ts", "Bought on", "viewTs", "click_time:float", "logtimestamp", "createdAt"],
)
def test_the_end_of_a_name_may_sound_like_a_time(name: str) -> None:
    assert sounds_like_time(name)


@pytest.mark.parametrize("name", ["format", "cat", "rating", "candidate", "person", "counts", "price", "position"])
def test_other_names_do_not_sound_like_a_time(name: str) -> None:
    assert not sounds_like_time(name)


def test_what_is_passed_over_for_the_time_is_told_unless_there_is_said_to_be_none() -> None:
    names = ["user_id", "rating", "item_id", "purchased_at"]
    none: dict[str, str | None] = {"user": None, "item": None, "time": None}
    assert choose(names, "a.csv", **none).passed_over == ("purchased_at", "rating")
    assert choose(names, "a.csv", **none | {"time": "-"}).passed_over == ()
    assert choose([*names, "ts"], "a.csv", **none).passed_over == ()
