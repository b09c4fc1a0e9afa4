"""What files and places of a page are called, no two alike, and how tables of one study are told apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conseq.study.specification import Table

_HISTORIES = {"exclude": "history excluded", "keep": "history kept"}


@dataclass(frozen=True)
class Place:
    """Where a table stands on the page of its study.

    Attributes:
        anchor: What links to it end with, and what its files are named after.
        dataset: Its data set.
        apart: What sets it apart from other tables of the study on the same data set; empty where there are none.
    """

    anchor: str
    dataset: str
    apart: str

    @property
    def heading(self) -> str:
        """What stands above it."""
        return f"{self.dataset}, {self.apart}" if self.apart else self.dataset


def slugged(text: str) -> str:
    """Gives text as a part of a file's name or an address; different texts may give the same."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def slugs() -> Callable[[str], str]:
    """Gives a function that gives names of files or anchors, another one each time."""
    used: set[str] = set()

    def slug(text: str) -> str:
        base = slugged(text)
        name = next(one for one in (base, *(f"{base}-{n}" for n in range(2, 10**6))) if one not in used)
        used.add(name)
        return name

    return slug


def places(tables: Sequence[Table]) -> dict[Path, Place]:
    """Gives where tables stand on the pages of their studies.

    Args:
        tables: All tables, those without a run too: a place does not depend on what was run.

    Returns:
        Their places by file. Anchors differ within a study, and so do headings.
    """
    found: dict[Path, Place] = {}
    for study in dict.fromkeys(one.study for one in tables):
        own = [one for one in tables if one.study == study]
        slug = slugs()
        datasets = Counter(one.dataset for one in own)
        treated = Counter((one.dataset, one.history) for one in own)
        for one in own:
            apart = _HISTORIES[one.history] if datasets[one.dataset] > 1 else ""
            apart += f", {one.path.stem}" if treated[one.dataset, one.history] > 1 else ""
            found[one.path] = Place(slug(one.path.stem), one.dataset, apart)
    return found


def in_words(some: Iterable[Place], among: Iterable[Place]) -> str:
    """Gives the data sets of some tables of a study, each once.

    Args:
        some: Where the tables stand.
        among: Where all tables of the study stand.

    Returns:
        Their names; where a data set has other tables than these, in brackets which it is.
    """
    count = Counter(one.dataset for one in among)
    by_dataset: dict[str, list[Place]] = {}
    for one in some:
        by_dataset.setdefault(one.dataset, []).append(one)
    return ", ".join(
        dataset if len(own) == count[dataset] else f"{dataset} ({'; '.join(one.apart for one in own)})"
        for dataset, own in by_dataset.items()
    )
