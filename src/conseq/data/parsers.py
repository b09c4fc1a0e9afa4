"""From published archives to interactions: user id, item id, Unix seconds, in the order of the file.

Everything is read as a stream, in blocks of whole lines, so that a log may be larger than memory. Nothing is
unpacked to disk. A row without a user, an item or a readable time is left out and counted.
"""

from __future__ import annotations

import ast
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from conseq.data.archives import opened_member
from conseq.data.blocks import blocks
from conseq.data.files import atomic_path, write_parquet

COLUMNS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
# More than this share of unreadable rows means another file than expected, not a few bad rows.
TOLERATED = 0.01


@dataclass(frozen=True)
class Rows:
    """A stretch of a file.

    Attributes:
        table: Its readable rows: ``user_id``, ``item_id`` (text), ``timestamp`` (int64, Unix seconds).
        left_out: How many rows were not readable.
    """

    table: pl.DataFrame
    left_out: int


@dataclass(frozen=True)
class Parsed:
    """What :func:`write_interactions` wrote.

    Attributes:
        rows: Interactions written.
        users: Different users.
        items: Different items.
        left_out: Rows that were not readable.
    """

    rows: int
    users: int
    items: int
    left_out: int


Parser = Callable[[Path], Iterator[Rows]]


def write_interactions(parser: Parser, source: Path, path: Path) -> Parsed:
    """Gives what was written: the interactions in ``source`` as a Parquet file of three columns.

    Args:
        parser: Reads ``source``.
        source: The archive.
        path: The file to write, whole or not at all.

    Returns:
        Counts.

    Raises:
        ValueError: if ``source`` holds no interaction, or more than 1 % of its rows are not readable.
    """
    left_out = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".parts-") as folder:
        parts: list[Path] = []
        for rows in parser(source):
            left_out += rows.left_out
            if rows.table.height:
                parts.append(Path(folder) / f"{len(parts):06}.parquet")
                write_parquet(rows.table, parts[-1])
        if not parts:
            raise ValueError(f"{source} holds no readable interaction ({left_out} rows were not readable)")
        table = pl.scan_parquet(parts, glob=False)
        counts = table.select(rows=pl.len(), users=pl.col("user_id").n_unique(), items=pl.col("item_id").n_unique())
        parsed = Parsed(**counts.collect(engine="streaming").row(0, named=True), left_out=left_out)
        if left_out > TOLERATED * (parsed.rows + left_out):
            raise ValueError(
                f"{source}: {left_out} of {parsed.rows + left_out} rows are not readable; is it the right file?"
            )
        with atomic_path(path) as temporary:
            write_parquet(table, temporary)
    return parsed


def delimited(
    path: Path, *, member: str, separator: str, columns: tuple[int, int, int], header: str = ""
) -> Iterator[Rows]:
    """Gives the rows of a delimited text file without quotes.

    Args:
        path: The file itself, gzipped or not, or an archive or folder that holds it.
        member: Its name there.
        separator: Between the fields.
        columns: Places of user, item and time, counted from 0.
        header: The first line, where the file has one.

    Yields:
        Stretches of rows, in order.

    Raises:
        ValueError: if the first line is not ``header``.
    """
    names = [f"{place}" for place in range(max(columns) + 1)]
    user, item, time = (pl.col(names[place]) for place in columns)
    mark = separator if len(separator) == 1 else "\t"
    with opened_member(path, (member,)) as stream:
        if header and (first := stream.readline().decode(errors="replace").strip()) != header:
            raise ValueError(f"{path}: the first line of {member} is {first!r}, expected {header!r}")
        for block in blocks(stream, str(path)):
            text = block.data.replace(b"\r\n", b"\n")
            if len(separator) > 1:
                text = text.replace(separator.encode(), b"\t")
            # Under a header of our own, a short first row is a short row and not another table.
            table = pl.read_csv(
                f"{mark.join(names)}\n".encode() + text,
                separator=mark,
                quote_char=None,
                infer_schema=False,
                truncate_ragged_lines=True,
                encoding="utf8-lossy",
            )
            yield _readable(table.select(user_id=user, item_id=item, timestamp=time))


def json_lines(path: Path, *, members: tuple[str, ...], fields: tuple[str, str, str]) -> Iterator[Rows]:
    """Gives the rows of a file with one JSON object per line.

    Args:
        path: The file itself, gzipped or not, or an archive or folder that holds it.
        members: Names that it has had there.
        fields: The keys of user, item and time.

    Yields:
        Stretches of rows, in order.
    """
    user, item, time = fields
    with opened_member(path, members) as stream:
        for block in blocks(stream, str(path)):
            try:
                table = pl.read_ndjson(block.data, schema=dict.fromkeys(fields, pl.String))
            except pl.exceptions.ComputeError:
                yield _one_by_one(block.data, fields, json.loads)
            else:
                yield _readable(table.select(user_id=user, item_id=item, timestamp=time))


def python_lines(path: Path, *, member: str, fields: tuple[str, str, str]) -> Iterator[Rows]:
    """Gives the rows of a file with one Python dictionary per line, none of which is ever executed.

    Args:
        path: The file itself, gzipped or not, or an archive or folder that holds it.
        member: Its name there.
        fields: The keys of user, item and time.

    Yields:
        Stretches of rows, in order.
    """
    with opened_member(path, (member,)) as stream:
        for block in blocks(stream, str(path)):
            yield _one_by_one(block.data, fields, ast.literal_eval)


def _readable(table: pl.DataFrame) -> Rows:
    """Gives the rows of three columns of text that have an id each and a readable time."""
    text = pl.col("timestamp").str.strip_chars()
    date = text.str.replace("T", " ", literal=True).str.strip_suffix("Z")
    day = pl.when(date.str.len_chars() == 10).then(date + " 00:00:00").otherwise(date)
    seconds = pl.coalesce(
        text.cast(pl.Int64, strict=False),
        day.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="ms", strict=False).dt.epoch("s"),
    )
    whole = pl.all_horizontal(pl.col("user_id", "item_id").str.len_chars() > 0, pl.col("timestamp").is_not_null())
    kept = table.with_columns(timestamp=seconds).filter(whole)
    return Rows(kept, table.height - kept.height)


def _one_by_one(block: bytes, fields: tuple[str, str, str], read: Callable[[str], object]) -> Rows:
    """Gives the rows of a block whose lines are read one at a time by ``read``."""
    found: list[tuple[str, ...]] = []
    unread = 0
    for line in block.decode(errors="replace").split("\n"):
        if not line.strip():
            continue
        try:
            value = read(line)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            value = None
        if isinstance(value, dict) and all(value.get(field) is not None for field in fields):
            found.append(tuple(str(value[field]) for field in fields))
        else:
            unread += 1
    rows = _readable(pl.DataFrame(found, schema=dict.fromkeys(COLUMNS, pl.String), orient="row"))
    return Rows(rows.table, rows.left_out + unread)
