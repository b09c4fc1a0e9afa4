"""The categories of items, from a table beside the log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from conseq.data.sequences import Sequences, offsets_of
from conseq.data.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class ItemCategories:
    """What categories each item is in.

    Attributes:
        of_item: ``V + 2`` sequences of category numbers from 0, by item number; those of padding and mask are empty.
        names: The categories by number.
    """

    of_item: Sequences
    names: list[str]

    def of_histories(self, histories: Sequences) -> Sequences:
        """Gives ``B`` sequences: the categories of each history's items, one after the other."""
        found = self.of_item.select(histories.ids)
        return Sequences(found.ids, found.offsets[histories.offsets])


def read_categories(
    path: Path | str, items: Vocabulary, *, id_column: str = "item_id", column: str = "categories"
) -> ItemCategories:
    """Gives the categories of items, from any table that names both.

    An item of the catalogue that the table does not hold, or whose category is null or empty, is in none; items
    outside the catalogue are passed over. An item may have several rows; a category named twice for it counts once.

    Args:
        path: A Parquet file, or a CSV file where its name ends in ``.csv``.
        items: The catalogue's outside ids.
        id_column: The column of outside ids.
        column: The column of categories, or of lists of them.

    Returns:
        The categories; their numbers follow the order of their names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a column is missing or holds no categories, or no item of the catalogue has one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a table of items, Parquet or CSV")
    table = pl.scan_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.scan_parquet(path)
    schema = table.collect_schema()
    for name in (id_column, column):
        if name not in schema:
            raise ValueError(f"{path} has no column {name!r}; its columns are {', '.join(schema)}")
    pairs = table.select(item=pl.col(id_column).cast(pl.String), name=pl.col(column))
    if isinstance(schema[column], pl.List | pl.Array):
        pairs = pairs.explode("name")
    if pairs.collect_schema()["name"].is_nested():
        raise ValueError(f"{path}: column {column!r} holds {schema[column]}; expected categories, or lists of them")
    pairs = pairs.with_columns(pl.col("name").cast(pl.String)).drop_nulls().filter(pl.col("name") != "").unique()
    numbers = pl.LazyFrame({"item": items.ids, "number": range(items.start, items.start + len(items))})
    found = pairs.join(numbers, on="item").sort("number", "name").collect()
    if found.is_empty():
        raise ValueError(
            f"{path}: none of the {len(items)} items of the log has a category in column {column!r}, going by the ids "
            f"in column {id_column!r}"
        )
    names = found["name"].unique().sort()
    ranked = found["name"].cast(pl.Enum(names)).to_physical()
    counts = torch.bincount(_tensor(found["number"]), minlength=len(items) + 2)
    return ItemCategories(Sequences(_tensor(ranked), offsets_of(counts)), names.to_list())


def _tensor(values: pl.Series) -> Tensor:
    return torch.from_numpy(values.cast(pl.Int64).to_numpy().copy())
