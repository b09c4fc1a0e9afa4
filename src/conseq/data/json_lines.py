"""JSON lines: one object per line, one interaction per object."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from conseq.data.batches import Batch, Source
from conseq.data.blocks import BLOCK_BYTES, Block, blocks, opened
from conseq.data.columns import Columns, choose


def open_json_lines(path: Path, choice: dict[str, str | None], *, block_bytes: int = BLOCK_BYTES) -> Source:
    """Gives the interactions of a file of JSON lines; its columns are the keys of the first object.

    Ids are JSON strings or integers, times strings or numbers. Blank lines are skipped.

    Args:
        path: The file, gzip or not.
        choice: The names of the ``user``, ``item`` and ``time`` keys, as for :func:`conseq.data.columns.choose`.
        block_bytes: Bytes to hold in memory at once.

    Returns:
        The source.

    Raises:
        ValueError: if the file is empty, or its first line is not an object or lacks a key.
    """
    with opened(path) as file:
        line, number = file.readline(), 1
        while line and not line.strip():
            line, number = file.readline(), number + 1
    if not line:
        raise ValueError(f"{path}: the file is empty")
    first = _object(line.removeprefix(b"\xef\xbb\xbf"), f"{path}, line {number}")
    columns = choose(list(first), str(path), **choice)
    return Source(str(path), "jsonl", columns, _batches(path, columns, block_bytes))


def _batches(path: Path, columns: Columns, block_bytes: int) -> Iterator[Batch]:
    schema = dict.fromkeys(columns.names, pl.String)
    with opened(path) as file:
        for block in blocks(file, str(path), size=block_bytes):
            try:
                table = pl.read_ndjson(block.data, schema=schema)
            except pl.exceptions.PolarsError:
                table = _by_hand(block, columns, str(path))
            ids = table.select(columns.user.name, columns.item.name)
            if any(_may_be_no_text(ids[name]) for name in ids.columns):
                table = _by_hand(block, columns, str(path))
            times = table[columns.time.name] if columns.time else None
            yield Batch(table[columns.user.name], table[columns.item.name], times, _place_of(block))


def _may_be_no_text(ids: pl.Series) -> bool:
    """True where an id is missing, or may have been a JSON value other than a string or an integer."""
    return ids.null_count() > 0 or ids.str.contains(r"^($|[\[{]|true$|false$|-?\d+\.\d+$)").any()


def _place_of(block: Block) -> Callable[[int], str]:
    def place(row: int) -> str:
        filled = [number for number, line in enumerate(block.data.split(b"\n"), block.line) if line.strip()]
        return f"line {filled[row]}"

    return place


def _by_hand(block: Block, columns: Columns, source: str) -> pl.DataFrame:
    """Gives the block as the parser of the standard library reads it: slow, strict, and it knows the line."""
    rows = []
    for number, line in enumerate(block.data.split(b"\n"), block.line):
        if line.strip():
            place = f"{source}, line {number}"
            value = _object(line, place)
            row = [_id(value, column, place) for column in (columns.user.name, columns.item.name)]
            rows.append(row + ([_time(value, columns.time.name, place)] if columns.time else []))
    return pl.DataFrame(rows, schema=dict.fromkeys(columns.names, pl.String), orient="row")


def _object(line: bytes, place: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: byte 0x{line[error.start]:02x} is not UTF-8; convert the file to UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{place}: not JSON: {error}; each line must be one JSON object") from None
    if not isinstance(value, dict):
        raise ValueError(f"{place}: found a {type(value).__name__}, expected one JSON object per line")
    return value


def _id(value: dict[str, object], column: str, place: str) -> str:
    one = value.get(column)
    if one is None or one == "":
        raise ValueError(f"{place}: {column!r} is missing")
    if isinstance(one, bool) or not isinstance(one, str | int):
        raise ValueError(f"{place}: {column!r} is {json.dumps(one)}; ids are JSON strings or integers")
    return str(one)


def _time(value: dict[str, object], column: str, place: str) -> str:
    one = value.get(column)
    if one is None:
        raise ValueError(f"{place}: {column!r} is missing")
    if isinstance(one, bool) or not isinstance(one, str | int | float):
        raise ValueError(f"{place}: {column!r} is {json.dumps(one)}; times are numbers or ISO dates")
    return str(one)
