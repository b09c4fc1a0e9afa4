"""Any log, in a file or a table, becomes an :class:`~conseq.data.log.InteractionLog` or a prepared folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import polars as pl

from conseq.config import parse
from conseq.data.batches import Source, SourceFile
from conseq.data.delimited import open_delimited
from conseq.data.frames import open_frame, open_pandas, open_parquet
from conseq.data.json_lines import open_json_lines
from conseq.data.log import InteractionLog
from conseq.data.prepared import load, prepared_folder
from conseq.data.preparing import prepare_into
from conseq.data.reading import Format, Reading, Repeats, Ties, TimeUnit
from conseq.data.s3rec_text import open_s3rec_text
from conseq.data.several import found_files, joined, one_format

if TYPE_CHECKING:
    import pandas as pd

    Readable = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | pl.DataFrame | pl.LazyFrame | pd.DataFrame


def read(  # noqa: PLR0913  (one for each setting of Reading)
    source: Readable,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    time_unit: TimeUnit = "s",
    format: Format | None = None,  # noqa: A002  (the word users know)
    k_core: int | tuple[int, int] = 0,
    repeats: Repeats = "keep",
    ties: Ties = "file_order",
    tie_seed: int = 0,
) -> InteractionLog:
    """Gives the interactions of a log, each user's in time order, in memory.

    Reads CSV, TSV, RecBole ``.inter``, JSON lines, Parquet and "user item item ..." text files, gzip or not, one or
    several (one behind the other), tables of polars and pandas, and prepared folders (whose arrays stay on disk). Ids
    are text, unchanged; integer ids of a table become their decimal digits. Temporary files, about 50 bytes per
    interaction, are written where ``TMPDIR`` says. For a log larger than memory: :func:`prepare`, then
    :func:`conseq.data.prepared.load`.

    Args:
        source: A file, a folder of files, a pattern such as ``"logs/*.parquet"``, a list of files, a prepared folder,
            or a table.
        user: The user column; guessed from its name where not given.
        item: The item column; guessed from its name where not given.
        time: The time column (Unix seconds, ISO dates or datetimes); guessed where not given. Where there is none, or
            with ``"-"``, the order of the source is the order in time.
        time_unit: What times that are numbers count: ``"s"``, ``"ms"``, ``"us"`` or ``"ns"`` since 1970.
        format: How a file is written; from its suffix where not given.
        k_core: The fewest interactions of every user and item, or a pair: of users, of items. Users and items with
            fewer are taken out, repeatedly.
        repeats: Of a user's interactions with the same item keep all, those at different times (``"distinct"``: a row
            that is there twice counts once), the first or the last. Applied before ``k_core``.
        ties: The order of a user's interactions at equal times: as in the source, by item id (as text), or random for
            each user.
        tie_seed: Of the random order.

    Returns:
        The log. Its manifest says what was guessed and filtered.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file is not what its format says (line and reason are named), several do not go together, or
            the filters leave nothing.
    """
    choice: dict[str, object] = {"user": user, "item": item, "time": time, "format": format}
    choice |= {"time_unit": time_unit, "k_core": k_core, "repeats": repeats, "ties": ties, "tie_seed": tie_seed}
    reading = parse(Reading, choice, source="read()")
    if isinstance(source, str | os.PathLike) and _is_prepared(Path(source)):
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
        source: Files or a table, as for :func:`read`.
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
    """Gives the interactions of files or a table, not yet read.

    Args:
        source: Files or a table, as for :func:`read`.
        reading: Columns and format.

    Returns:
        The source.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its format cannot be told, it lacks a column, or several files do not go together.
        TypeError: if ``source`` is neither paths nor a table.
    """
    choice = {"user": reading.user, "item": reading.item, "time": reading.time}
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return open_frame(source, choice)
    if type(source).__module__.partition(".")[0] == "pandas" and hasattr(source, "iloc"):
        return open_pandas(source, choice)
    files, name = _files_of(source, any_suffix=reading.format is not None)
    kind = reading.format or one_format(files, name)
    opened = [_opened(one, kind, choice) for one in files]
    return opened[0] if len(opened) == 1 else joined(opened, name)


def _files_of(source: object, *, any_suffix: bool) -> tuple[list[Path], str]:
    """Gives the files of a log that is not a table, and what to call them."""
    if isinstance(source, str | os.PathLike):
        if _is_prepared(Path(source)):
            raise ValueError(f"{Path(source)} is prepared already; to prepare anew, give the log that it came from")
        return found_files(source, any_suffix=any_suffix), str(Path(source))
    if not isinstance(source, list | tuple) or not all(isinstance(one, str | os.PathLike) for one in source):
        raise TypeError(f"a log is a path, a list of paths, or a table of polars or pandas, found {_kind(source)}")
    if not source:
        raise ValueError("a log is read from one file at least; found an empty list of paths")
    files = [Path(one) for one in source]
    missing = next((one for one in files if not one.is_file()), None)
    if missing is not None:
        raise FileNotFoundError(f"{missing}: there is no such file")
    twice = next((one for one in files if files.count(one) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is named twice; each file of a log is read once")
    parents = {one.parent for one in files}
    if len(parents) == 1 and parents != {Path()}:
        return files, f"{files[0].parent}"
    return files, Path(os.path.commonpath([one.resolve() for one in parents])).name


def _kind(source: object) -> str:
    if isinstance(source, list | tuple):
        other = next(one for one in source if not isinstance(one, str | os.PathLike))
        return f"a {type(source).__name__} that holds {type(other).__name__}"
    return type(source).__name__


def _is_prepared(path: Path) -> bool:
    """Whether a folder is a prepared log, be it damaged, and not one of files to prepare."""
    return path.is_dir() and any((path / name).exists() for name in ("manifest.json", "items.npy", "offsets.npy"))


def _opened(path: Path, kind: Format, choice: dict[str, str | None]) -> Source:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    name = os.fsencode(path.name).decode(errors="replace")
    record = SourceFile(name, path.stat().st_size, sha256)
    return replace(_open_file(path, kind, choice), files=(record,), sha256=sha256)


def _open_file(path: Path, kind: Format, choice: dict[str, str | None]) -> Source:
    if kind in {"csv", "tsv", "inter"}:
        return open_delimited(path, kind, choice)
    if kind == "jsonl":
        return open_json_lines(path, choice)
    if kind == "parquet":
        return open_parquet(path, choice)
    if any(value not in {None, "-"} for value in choice.values()):
        raise ValueError(
            f"{path}: 'user item item ...' files have no named columns; leave user, item and time out "
            "(--user, --item and --time in a shell)"
        )
    return open_s3rec_text(path)
