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


def read_categories(path: Path | str, items: Vocabulary, *, column: str = "categories") -> ItemCategories:
    """Gives the categories in a Parquet file.

    An item of the catalogue that the file does not hold, or whose list is empty or null, is in no category; items
    outside the catalogue are passed over. A category named twice for an item counts once.

    Args:
        path: A file with a column ``item_id`` (outside ids, once each) and a column of lists of categories, or of
            one category each.
        items: The catalogue's outside ids.
        column: The name of the categories' column.

    Returns:
        The categories; their numbers follow the order of their names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a column is missing, an item id occurs twice, or no item of the catalogue has a category.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a Parquet file with item_id and {column}")
    found = pl.read_parquet_schema(path)
    for name in ("item_id", column):
        if name not in found:
            raise ValueError(f"{path} has no column {name!r}; its columns are {', '.join(found)}")
    numbers = pl.DataFrame({"item_id": items.ids, "number": range(items.start, items.start + len(items))})
    table = pl.read_parquet(path, columns=["item_id", column]).select(pl.col("item_id").cast(pl.String), name=column)
    twice = table["item_id"].is_duplicated()
    if twice.any():
        raise ValueError(f"{path}: item_id {table['item_id'].filter(twice)[0]!r} occurs twice; give each item one row")
    if isinstance(found[column], pl.List):
        table = table.explode("name")
    pairs = table.select("item_id", pl.col("name").cast(pl.String)).drop_nulls().unique()
    pairs = pairs.join(numbers, on="item_id").sort("number", "name")
    if pairs.is_empty():
        raise ValueError(f"{path}: none of the {len(items)} items of the log has a category in column {column!r}")
    names = pairs["name"].unique().sort()
    ranked = pairs["name"].cast(pl.Enum(names)).to_physical()
    counts = torch.bincount(_tensor(pairs["number"]), minlength=len(items) + 2)
    return ItemCategories(Sequences(_tensor(ranked), offsets_of(counts)), names.to_list())


def _tensor(values: pl.Series) -> Tensor:
    return torch.from_numpy(values.cast(pl.Int64).to_numpy().copy())
