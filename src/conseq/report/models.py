"""Trained models for pictures: a bundle with its log, and titles and categories of items where there are any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import polars as pl

from conseq.analyses.subject import Subject, subject_of
from conseq.encoders.comirec import MultiInterest
from conseq.report.logs import KnownLogs
from conseq.report.statement import Statement, listed
from conseq.report.stored import Stored, section
from conseq.report.style import plain
from conseq.serving.bundle import Bundle, load_bundle

OTHER = ""
"""Stands for the category of items that are in none that is shown; no category is called so."""

_ITEMS = "items.parquet"


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of items.

    Attributes:
        titles: By outside id; empty where there are none.
        categories: By outside id, each item's categories.
        column: Where the categories came from.
    """

    titles: Mapping[str, str]
    categories: Mapping[str, tuple[str, ...]]
    column: str = ""

    def title(self, item: str, limit: int = 60) -> str:
        """Gives an item's title, its id where it has none."""
        return plain(self.titles.get(item) or f"item {item}", limit)

    def main_categories(self, items: list[str], most: int) -> list[str]:
        """Gives one category for each item, ``OTHER`` where it is in none of those that are shown.

        Categories of more than half of the items tell nothing apart and are passed over; of an item's others the one
        with most items is taken.

        Args:
            items: Outside ids.
            most: How many categories are shown, the largest.

        Returns:
            One for each item.
        """
        own = {item: self.categories.get(item, ()) for item in items}
        sizes = Counter(name for names in own.values() for name in names)
        telling = {name: count for name, count in sizes.items() if count <= len(items) / 2}
        chosen = [
            max((name for name in own[item] if name in telling), key=lambda name: (telling[name], name), default=OTHER)
            for item in items
        ]
        ordered = sorted(Counter(chosen).items(), key=lambda one: (-one[1], one[0]))
        shown = [name for name, _ in ordered if name != OTHER][:most]
        return [name if name in shown else OTHER for name in chosen]


NOTHING = Facts({}, {})


@dataclass(frozen=True, eq=False)
class Model:
    """A bundle to be pictured.

    Attributes:
        told: What is known without its weights.
        bundle: What it holds.
        subject: The bundle with its log; None where the log is not there.
        facts: What is known of its items.
    """

    told: Stored
    bundle: Bundle
    subject: Subject | None
    facts: Facts

    @property
    def name(self) -> str:
        """As it is called."""
        return self.told.name

    @property
    def interests(self) -> int:
        """Vectors of a history; only where it is one there is a place of a user, and one vector to be explained."""
        encoder = self.bundle.encoder
        return encoder.config.interests if isinstance(encoder, MultiInterest) else 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not pictured, and why."""
        several = (
            f"its encoder gives {self.interests} vectors of a history, not one: users have no place on a map, and "
            "importances, which explain one vector, are left out"
        )
        found = (self.told.missing, several if self.subject is not None and self.interests > 1 else "")
        return tuple(filter(None, found))

    def statement(self, *, history: str, part: str) -> Statement:
        """Gives the protocol of what is computed from the model: how histories were treated, and of what part."""
        told, record = self.told.provenance, self.told.record or {}
        training, method = section(told, "training"), section(told, "method")
        data, versions = section(told, "data"), section(told, "versions")
        sizes = ", ".join(f"{data[name]:,} {name}" for name in ("users", "items", "interactions") if name in data)
        split = section(told, "split").get("name", "not recorded")
        made_by = self.told.code or (record,)
        return Statement(
            (
                ("data", f"{self.told.dataset} ({sizes})" if sizes else self.told.dataset),
                ("split", f"{split}, {part}"),
                ("history", history),
                ("ties", "pessimistic"),
                ("loss", str(method.get("loss", "the method's own")).replace("_", " ")),
                ("instances", str(training.get("instances", "not recorded"))),
                ("encoder", str(section(told, "encoder").get("name", type(self.bundle.encoder).__name__))),
                ("method", str(method.get("name", "not recorded"))),
                ("preset", str(record.get("preset") or "not said")),
                ("seeds", str(training.get("seed", "not recorded"))),
                ("commit", listed(one.get("commit") or "not recorded" for one in made_by)),
                ("data hash", str(data.get("hash", "not recorded"))[:12]),
                ("machine", listed(one.get("machine") or "not recorded" for one in made_by)),
                ("versions", ", ".join(f"{key} {versions[key]}" for key in sorted(versions)) or "not recorded"),
            )
        )


def load_model(told: Stored, logs: KnownLogs | None) -> Model:
    """Gives a model with its weights and, where it is there, its log.

    Args:
        told: Which one.
        logs: Where the logs are; None: nowhere.

    Returns:
        The model.

    Raises:
        ValueError: if the log has items that the model does not know, or the bundle is damaged.
    """
    if logs is None or told.log is None:
        return Model(told, load_bundle(told.bundle), None, NOTHING)
    found = logs.root / told.log / _ITEMS
    facts = read_facts(found) if found.is_file() else NOTHING
    subject = subject_of(told.folder, logs.log(told.log), device="cpu")
    return Model(told, subject.bundle, subject, facts)


def read_facts(path: Path) -> Facts:
    """Gives titles and categories of items from a table.

    Args:
        path: A Parquet file with ``item_id``; titles are in ``title``, categories in the first column that holds lists
            of text.

    Returns:
        What it says.

    Raises:
        ValueError: if it has no column ``item_id``, or is no whole Parquet file.
    """
    try:
        return _read_facts(path)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _read_facts(path: Path) -> Facts:
    schema = pl.read_parquet_schema(path)
    if "item_id" not in schema:
        raise ValueError(f"{path} has no column 'item_id'; its columns are {', '.join(schema)}")
    column = next((name for name, kind in schema.items() if kind == pl.List(pl.String)), "")
    wanted = ["item_id", *(["title"] if "title" in schema else []), *([column] if column else [])]
    table = pl.read_parquet(path, columns=wanted).with_columns(pl.col("item_id").cast(pl.String))
    ids = table["item_id"].to_list()
    titles = table["title"].cast(pl.String).to_list() if "title" in wanted else []
    lists = table[column].to_list() if column else []
    return Facts(
        {one: unescape(title) for one, title in zip(ids, titles, strict=False) if title},
        {one: tuple(dict.fromkeys(filter(None, names or ()))) for one, names in zip(ids, lists, strict=False)},
        column,
    )
