"""Names of files and places: no two tables of a study share one, whatever their files are called."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from conseq.report.addresses import in_words, places, slugs
from conseq.study.specification import Table


def table(file: str, dataset: str, history: Literal["exclude", "keep"] = "keep", study: str = "p/t") -> Table:
    return Table(
        path=Path(study) / f"{file}.toml", study=study, paper="P", title="T", dataset=dataset, history=history,
        metric=None, note=None, log=None, rows=(),
    )  # fmt: skip


def test_a_table_alone_on_its_data_set_is_called_by_it() -> None:
    tables = [table("beauty", "beauty"), table("toys", "toys")]
    assert [one.heading for one in places(tables).values()] == ["beauty", "toys"]


def test_tables_of_one_data_set_say_which_they_are_and_have_places_of_their_own() -> None:
    tables = [table("beauty", "beauty"), table("beauty.excluded", "beauty", "exclude")]
    kept, excluded = places(tables).values()
    assert (kept.heading, excluded.heading) == ("beauty, history kept", "beauty, history excluded")
    assert (kept.anchor, excluded.anchor) == ("beauty", "beauty-excluded")


def test_tables_of_one_data_set_and_history_are_called_by_their_files() -> None:
    tables = [table("beauty", "beauty"), table("beauty.late", "beauty")]
    assert [one.heading for one in places(tables).values()] == [
        "beauty, history kept, beauty",
        "beauty, history kept, beauty.late",
    ]


def test_names_that_read_alike_are_numbered() -> None:
    files = ["ml-1m", "ml_1m", "美妆", "音乐", "ml-1m-2"]
    found = [one.anchor for one in places([table(one, one) for one in files]).values()]
    assert found == ["ml-1m", "ml-1m-2", "x", "x-2", "ml-1m-2-2"]
    slug = slugs()
    assert [slug("A b"), slug("a-b"), slug("a_b")] == ["a-b", "a-b-2", "a-b-3"]


def test_a_table_of_another_study_sets_nothing_apart() -> None:
    tables = [table("beauty", "beauty"), table("beauty", "beauty", study="p/u")]
    assert {(one.anchor, one.heading) for one in places(tables).values()} == {("beauty", "beauty")}


def test_data_sets_are_named_once_and_with_the_history_where_another_table_was_run() -> None:
    tables = [table(f"{data}{kind}", data, "exclude" if kind else "keep") for data in "ab" for kind in ("", ".2")]
    found = list(places([*tables, table("c", "c")]).values())
    assert in_words(found[1:], found) == "a (history excluded), b, c"
    assert in_words([], found) == ""
