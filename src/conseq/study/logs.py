"""The logs of a study: those of a folder, and those that are prepared from one of them in a way that a table says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field

from conseq.config import settings
from conseq.data.prepared import is_prepared, load
from conseq.data.readers import prepare, read
from conseq.data.reading import Reading, Repeats, Ties
from conseq.run.runner import data_record
from conseq.study.folders import LOGS

_FILES = ("interactions.parquet", "interactions.csv", "interactions.tsv")
_ENDINGS = (".parquet", ".csv", ".tsv", ".inter", ".jsonl")


@settings
class Origin:
    """Which log a table's log is prepared from, and how; what is not said stays as ``conseq prepare`` has it."""

    of: Annotated[str, Field(min_length=1)]
    """The name of that log in the folder of the logs."""
    k_core: int | tuple[int, int] = 0
    repeats: Repeats = "keep"
    ties: Ties = "file_order"
    tie_seed: Annotated[int, Field(ge=0)] = 0

    @property
    def reading(self) -> Reading:
        """The same as settings of the preparation."""
        told = asdict(self)
        del told["of"]
        return Reading(**told)


class Named(Protocol):
    """A table, as far as its log goes."""

    @property
    def dataset(self) -> str:
        """The name of its log."""
        ...

    @property
    def log(self) -> Origin | None:
        """What that is prepared from; None: it lies in the folder of the logs."""
        ...


def origins(tables: Iterable[Named]) -> dict[str, Origin]:
    """Gives what the logs of some tables are prepared from; those that lie in the folder of the logs are left out.

    Args:
        tables: The tables.

    Returns:
        Origins by the log's name.

    Raises:
        ValueError: if two tables call different logs by one name.
    """
    found: dict[str, Origin | None] = {}
    for table in tables:
        if found.setdefault(table.dataset, table.log) != table.log:
            raise ValueError(
                f"two tables have a log called {table.dataset!r}, prepared from {_told(found[table.dataset])} and from "
                f"{_told(table.log)}; expected one name for each"
            )
    return {name: one for name, one in found.items() if one is not None}


def _told(origin: Origin | None) -> str:
    return "nothing (it is that of the folder of the logs)" if origin is None else str(asdict(origin))


class Logs:
    """The logs under a folder: where they are, what identifies them, how large they are; each is read once.

    Args:
        root: The folder.
        origins: What the logs are prepared from that do not lie there, by name.
    """

    def __init__(self, root: Path, origins: Mapping[str, Origin] | None = None) -> None:
        self.root = root
        self.origins = dict(origins or {})
        self._known: dict[str, dict[str, Any] | None] = {}

    def path(self, name: str) -> Path | None:
        """Gives the log called ``name``, or the one that it is prepared from.

        Args:
            name: The log's name.

        Returns:
            A prepared folder, a file in a folder of that name, or a file; None where there is none.
        """
        name = self.origins[name].of if name in self.origins else name
        folder = self.root / name
        if (folder / "manifest.json").is_file():
            return folder
        options = [*(folder / one for one in _FILES), *(self.root / f"{name}{ending}" for ending in _ENDINGS)]
        return next((one for one in options if one.is_file()), None)

    def facts(self, name: str) -> dict[str, Any] | None:
        """Gives what identifies a log.

        Args:
            name: The log's name.

        Returns:
            Its hash and its counts; None where it is not there.

        Raises:
            ValueError: if it cannot be prepared as its table says, or is no log.
        """
        if name not in self._known:
            path, origin = self.path(name), self.origins.get(name)
            how = {} if origin is None else asdict(origin.reading)
            self._known[name] = None if path is None else data_record(read(str(path), **how))
        return self._known[name]


def prepared(source: Path, origin: Origin, beside: Path, data_hash: str | None) -> Path:
    """Gives the folder of a log that a table prepares from another one; writes it where it is not there yet.

    Args:
        source: The log that it is prepared from.
        origin: How.
        beside: The folder of the runs on it.
        data_hash: The hash that it must have; another one stands for another version of ``source``.

    Returns:
        A prepared log, in the folder ``logs`` there.

    Raises:
        ValueError: if it cannot be prepared so.
        OSError: if it cannot be written.
    """
    folder = _prepared_in(beside)
    if not is_prepared(folder) or load(folder).manifest.get("data_hash") != data_hash:
        folder.parent.mkdir(parents=True, exist_ok=True)
        prepare(str(source), folder, origin.reading)
    return folder


def prepared_beside(runs: Iterable[Path]) -> dict[str, Path]:
    """Gives the logs that a study prepared beside runs, by what the folder of the runs is called.

    Args:
        runs: Folders of runs, or bundles in them.

    Returns:
        Prepared logs; none of a folder in which there is none.
    """
    folders = {run.resolve().parents[depth] for run in runs for depth in (0, 1)}
    return {one.name: _prepared_in(one) for one in sorted(folders) if is_prepared(_prepared_in(one))}


def _prepared_in(folder: Path) -> Path:
    return folder / LOGS / "data"
