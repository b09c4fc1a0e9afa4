"""Any log, in a file or a table, becomes an :class:`~conseq.data.log.InteractionLog` or a prepared folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import polars as pl

from conseq.config import parse
from conseq.data.batches import Source
from conseq.data.delimited import open_delimited
from conseq.data.frames import open_frame, open_pandas, open_parquet
from conseq.data.json_lines import open_json_lines
from conseq.data.log import InteractionLog
from conseq.data.prepared import load, prepared_folder
from conseq.data.preparing import prepare_into
from conseq.data.reading import Format, Reading, Repeats, Ties
from conseq.data.s3rec_text import open_s3rec_text

if TYPE_CHECKING:
    import pandas as pd

    Readable = str | os.PathLike[str] | pl.DataFrame | pl.LazyFrame | pd.DataFrame

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".inter": "inter",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "s3rec",
}


def read(  # noqa: PLR0913  (one for each setting of Reading)
    source: Readable,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    format: Format | None = None,  # noqa: A002  (the word users know)
    k_core: int | tuple[int, int] = 0,
    repeats: Repeats = "keep",
    ties: Ties = "file_order",
    tie_seed: int = 0,
) -> InteractionLog:
    """Gives the interactions of a log, each user's in time order, in memory.

    Reads CSV, TSV, RecBole ``.inter``, JSON lines, Parquet and "user item item ..." text files, gzip or not, tables of
    polars and pandas, and prepared folders (whose arrays stay on disk). Ids are text, unchanged; integer ids of a table
    become their decimal digits. Temporary files, about 50 bytes per interaction, are written where ``TMPDIR`` says. For
    a log larger than memory: :func:`prepare`, then :func:`conseq.data.prepared.load`.

    Args:
        source: A path or a table.
        user: The user column; guessed from its name where not given.
        item: The item column; guessed from its name where not given.
        time: The time column (Unix seconds, ISO dates or datetimes); guessed where not given. Where there is none, or
            with ``"-"``, the order of the source is the order in time.
        format: How a file is written; from its suffix where not given.
        k_core: The fewest interactions of every user and item, or a pair: of users, of items. Users and items with
            fewer are taken out, repeatedly.
        repeats: Of a user's interactions with the same item keep all, the first or the last. Applied before ``k_core``.
        ties: The order of a user's interactions at equal times: as in the source, by item id (as text), or random for
            each user.
        tie_seed: Of the random order.

    Returns:
        The log. Its manifest says what was guessed and filtered.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not what its format says (line and reason are named), or the filters leave nothing.
    """
    choice: dict[str, object] = {"user": user, "item": item, "time": time, "format": format}
    choice |= {"k_core": k_core, "repeats": repeats, "ties": ties, "tie_seed": tie_seed}
    reading = parse(Reading, choice, source="read()")
    if isinstance(source, str | os.PathLike) and Path(source).is_dir():
        if reading != Reading():
            raise ValueError(f"{source} is prepared already; columns and filters apply when a log is prepared")
        return load(Path(source))
    with TemporaryDirectory(prefix="conseq-") as temporary:
        folder, work = Path(temporary, "log"), Path(temporary, "work")
        folder.mkdir()
        work.mkdir()
        prepare_into(folder, work, open_source(source, reading), reading)
        return load(folder, mapped=False, verify=False)


def prepare(source: Readable, folder: Path | str, reading: Reading) -> dict[str, object]:
    """Writes a log as a prepared folder, which :func:`conseq.data.prepared.load` opens at once.

    About a million interactions are in memory at a time, beside the ids. Temporary files of about 50 bytes per
    interaction stand beside the folder meanwhile. The folder is written whole or not at all; a prepared log that stands
    there is replaced.

    Args:
        source: A path or a table, as for :func:`read`.
        folder: A new or empty folder, or a prepared log.
        reading: Columns, format, filters and tie rule.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: if there is no such file.
        FileExistsError: if ``folder`` holds something other than a prepared log.
        ValueError: if the file is not what its format says, or the filters leave nothing.
        OSError: if ``folder`` cannot be written or its disk is full; what stood there stays.
    """
    opened = open_source(source, reading)
    with prepared_folder(folder) as temporary:
        work = temporary / "work"
        work.mkdir()
        manifest = prepare_into(temporary, work, opened, reading)
        shutil.rmtree(work)
    return manifest


def open_source(source: Readable, reading: Reading) -> Source:
    """Gives the interactions of a file or a table, not yet read.

    Args:
        source: A path or a table, as for :func:`read`.
        reading: Columns and format.

    Returns:
        The source.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its format cannot be told, or it lacks a column.
        TypeError: if ``source`` is neither a path nor a table.
    """
    choice = {"user": reading.user, "item": reading.item, "time": reading.time}
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return open_frame(source, choice)
    if type(source).__module__.partition(".")[0] == "pandas" and hasattr(source, "iloc"):
        return open_pandas(source, choice)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"a log is a path or a table of polars or pandas, found {type(source).__name__}")
    path = Path(source)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a log to prepare is a file or a table")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return replace(_open_file(path, reading.format or _format_of(path), choice), path=path, sha256=sha256)


def _format_of(path: Path) -> Format:
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise ValueError(f"{path}: the suffix {suffix!r} does not tell the format; known: {known}; or say format=")
    return SUFFIXES[suffix]


def _open_file(path: Path, kind: Format, choice: dict[str, str | None]) -> Source:
    if kind in {"csv", "tsv", "inter"}:
        return open_delimited(path, kind, choice)
    if kind == "jsonl":
        return open_json_lines(path, choice)
    if kind == "parquet":
        return open_parquet(path, choice)
    if any(value not in {None, "-"} for value in choice.values()):
        raise ValueError(f"{path}: 'user item item ...' files have no named columns; leave user, item and time out")
    return open_s3rec_text(path)
