"""``conseq similar``: the items nearest to items, from a bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from conseq.serving.recommender import Recommender

_ITEMS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Options:
    """Gives the items whose vectors have the largest cosine with those of given items, or of every item."""

    bundle: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE")]
    """A bundle, or a run's folder."""
    items: str | None = None
    """Items: ids separated by spaces, a JSON array, or @FILE with one id per line; all items where not given."""
    out: Path | None = None
    """Write a table to this file: .parquet, .csv or .jsonl."""
    k: Annotated[int, tyro.conf.arg(aliases=("-k",))] = 10
    """Similar items to give of each."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Runs the command and gives its exit status."""
    options = tyro.cli(Options, prog="conseq similar", args=argv)
    import polars as pl

    from conseq.cli.models import manifest_of
    from conseq.cli.recommend import written
    from conseq.serving.export import check_table
    from conseq.serving.histories import ids_from
    from conseq.serving.recommender import Recommender

    if options.out is not None:
        if options.json:
            raise ValueError("give --out, which writes a file, or --json, which prints")
        check_table(options.out)
    manifest_of(options.bundle)
    model = Recommender.load(options.bundle)
    items = model.item_ids.ids if options.items is None else list(dict.fromkeys(ids_from(options.items)))
    if not items:
        raise ValueError("--items: expected an item id at least, found none")
    if options.json:
        answers = dict(zip(items, model.similar_items(items, options.k).to_dicts(), strict=True))
        print(json.dumps({"k": options.k, "similar": answers}))
        return 0
    table = pl.concat(_tables(model, items, options.k))
    if len(items) > 1 or options.out is not None:
        return written(table, options.out, "similar items")
    for _, item, score, rank in table.iter_rows():
        print(f"{rank:>4}  {score:>7.4f}  {item}")
    return 0


def _tables(model: Recommender, items: Sequence[str], k: int) -> Iterator[pl.DataFrame]:
    """Gives the table of some items at a time: names are objects of Python, of which all items would have too many."""
    import polars as pl

    for first in range(0, len(items), _ITEMS_AT_ONCE):
        some = items[first : first + _ITEMS_AT_ONCE]
        ids, cosines = model.similar_items(some, k)
        width = ids.shape[1]
        yield pl.DataFrame(
            {
                "item_id": [item for item in some for _ in range(width)],
                "similar_id": pl.Series(ids.ravel().tolist(), dtype=pl.String),
                "score": cosines.ravel(),
                "rank": list(range(1, width + 1)) * len(some),
            }
        ).drop_nulls("similar_id")
