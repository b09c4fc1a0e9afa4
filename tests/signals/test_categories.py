"""Item categories: what is read, what is passed over, what is refused."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from conseq.data.sequences import Sequences
from conseq.data.vocabulary import Vocabulary
from conseq.signals.categories import read_categories

ITEMS = Vocabulary(["a", "b", "c", "d", "e"], start=1)


def write(folder: Path, **columns: list[object]) -> Path:
    path = folder / "items.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return path


def test_lists_become_numbers_in_the_order_of_the_names(tmp_path: Path) -> None:
    lists: list[object] = [["tea", "cup"], ["tea"], [], None, ["zoo"]]
    path = write(tmp_path, item_id=["c", "a", "b", "d", "elsewhere"], categories=lists)
    found = read_categories(path, ITEMS)
    assert found.names == ["cup", "tea"]
    assert found.of_item.to_lists() == [[], [1], [], [0, 1], [], [], []]


def test_one_category_each_may_be_given_as_a_plain_column_of_any_name(tmp_path: Path) -> None:
    path = write(tmp_path, item_id=["e", "a"], department=["x", "y"])
    found = read_categories(path, ITEMS, column="department")
    assert found.of_item.to_lists() == [[], [1], [], [], [], [0], []]


def test_integers_are_read_as_their_digits_and_repeats_and_nulls_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, item_id=[7, 10], categories=[[30, 4, None, 30], [4]])
    found = read_categories(path, Vocabulary(["10", "7"], start=1))
    assert found.names == ["30", "4"]
    assert found.of_item.to_lists() == [[], [1], [0, 1], []]


def test_the_categories_of_a_history_are_those_of_its_items(tmp_path: Path) -> None:
    lists: list[object] = [["x", "y"], ["y"], ["z"]]
    found = read_categories(write(tmp_path, item_id=["a", "b", "d"], categories=lists), ITEMS)
    histories = Sequences.from_lists([[1, 2], [3], [], [4, 6, 4, 1]])
    assert found.of_histories(histories).to_lists() == [[0, 1, 1], [], [], [2, 2, 0, 1]]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"nothing\.parquet: no such file; expected a table of items, Parquet or CSV"
    ):
        read_categories(tmp_path / "nothing.parquet", ITEMS)


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path, item_id=["a"], kinds=[["x"]])
    with pytest.raises(ValueError, match="no column 'categories'; its columns are item_id, kinds"):
        read_categories(path, ITEMS)


def test_an_item_with_several_rows_is_in_the_categories_of_all(tmp_path: Path) -> None:
    path = write(tmp_path, item_id=["a", "b", "b", "b"], categories=[["x"], ["x"], ["y"], ["x", "z"]])
    assert read_categories(path, ITEMS).of_item.to_lists() == [[], [0], [0, 1, 2], [], [], [], []]


def test_a_csv_table_with_columns_of_other_names_is_read(tmp_path: Path) -> None:
    path = tmp_path / "movies.csv"
    path.write_text("movie,genre\nb,x\nb,y\nb,x\nq,x\na,\n", encoding="utf-8")
    found = read_categories(path, ITEMS, id_column="movie", column="genre")
    assert found.names == ["x", "y"]
    assert found.of_item.to_lists() == [[], [], [0, 1], [], [], [], []]
    with pytest.raises(ValueError, match="no column 'item_id'; its columns are movie, genre"):
        read_categories(path, ITEMS)


def test_a_file_of_another_catalogue_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, item_id=["q"], categories=[["x"]])
    with pytest.raises(
        ValueError, match=r"none of the 5 items of the log has a category in column 'categories', .* column 'item_id'"
    ):
        read_categories(path, ITEMS)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "n_items", "n_categories"), [("sports", 18357, 2277), ("yelp", 20033, 1001)])
def test_the_papers_counts_of_categories_are_found(real_data: Path, name: str, n_items: int, n_categories: int) -> None:
    items = Vocabulary([str(one) for one in range(1, n_items + 1)], start=1)
    found = read_categories(real_data / name / "items.parquet", items, column="attribute_ids")
    assert len(found.names) == n_categories
    assert int((found.of_item.lengths[1:-1] > 0).sum()) >= n_items - 1  # one Yelp item is in none


def test_lists_of_one_length_are_lists_and_what_is_nested_deeper_is_refused(tmp_path: Path) -> None:
    items = Vocabulary(["a", "b"], start=1)
    table = pl.DataFrame({"item_id": ["a", "b"], "categories": [[1, 2], [2, 3]]})
    table.with_columns(pl.col("categories").cast(pl.Array(pl.Int64, 2))).write_parquet(tmp_path / "array.parquet")
    assert read_categories(tmp_path / "array.parquet", items).names == ["1", "2", "3"]
    pl.DataFrame({"item_id": ["a"], "categories": [[["x"]]]}).write_parquet(tmp_path / "deep.parquet")
    with pytest.raises(ValueError, match=r"column 'categories' holds List.*expected categories, or lists of them"):
        read_categories(tmp_path / "deep.parquet", items)
