"""JSON lines: one object per line, one interaction per object."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from conseq.data.batches import Batch, Source
from conseq.data.blocks import BLOCK_BYTES, CR_ENDS, RECORD_BYTES, Block, blocks, opened
from conseq.data.columns import Columns, choose, looks_like_time

# No usual name of the time is longer or needs an escape, and looking for either would cost more than all other reading.
_KEY = re.compile(rb'"([^"\\]{1,64})"\s*:')


def open_json_lines(path: Path, choice: dict[str, str | None], *, block_bytes: int = BLOCK_BYTES) -> Source:
    """Gives the interactions of a file of JSON lines; its columns are the keys of the first object.

    Ids are JSON strings or integers written as digits, times strings or numbers. Blank lines are skipped. Where the
    first object has no time and ``time`` does not say that there is none, no later object may have one.

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
        line, number = file.readline(RECORD_BYTES), 1
        while line and not line.strip():
            line, number = file.readline(RECORD_BYTES), number + 1
    if not line:
        raise ValueError(f"{path}: the file is empty")
    first = _object(line.removeprefix(b"\xef\xbb\xbf"), f"{path}, line {number}")
    columns = choose(list(first), str(path), **choice)
    timeless = columns.time is None and choice["time"] is None
    return Source(str(path), "jsonl", columns, _batches(path, columns, block_bytes, timeless=timeless))


def _batches(path: Path, columns: Columns, block_bytes: int, *, timeless: bool) -> Iterator[Batch]:
    odd_ids = [_odd_id(name) for name in (columns.user.name, columns.item.name)]
    with opened(path) as file:
        for block in blocks(file, str(path), size=block_bytes):
            if timeless:
                _refuse_times(block, str(path))
            table = None if any(odd.search(block.data) for odd in odd_ids) else _at_once(block, columns)
            if table is None:
                table = _by_hand(block, columns, str(path))
            times = table[columns.time.name] if columns.time else None
            yield Batch(table[columns.user.name], table[columns.item.name], times, _place_of(block))


def _at_once(block: Block, columns: Columns) -> pl.DataFrame | None:
    """Gives the block as polars reads it; None where that fails, or an id may not be what the file says."""
    try:
        table = pl.read_ndjson(block.data, schema=dict.fromkeys(columns.names, pl.String))
    except pl.exceptions.PolarsError:
        return None
    doubtful = _may_be_no_text(table[columns.user.name]) or _may_be_no_text(table[columns.item.name])
    return None if doubtful else table


def _odd_id(key: str) -> re.Pattern[bytes]:
    """Gives what finds a number with a fraction or an exponent, or an escaped surrogate, at ``key``.

    Polars writes such numbers out (``1e3`` becomes ``1000``, ``1.0`` becomes ``1``), and any half of a surrogate pair
    becomes the same character.
    """
    # The key as it stands, or escaped: the pattern must start with fixed text, for which a search is fast.
    plain, escaped = (json.dumps(key, ensure_ascii=ascii_only).encode() for ascii_only in (False, True))
    odd = rb"""\s*:\s*(?:-?\d+[.eE]|"[^"\\]*(?:\\.[^"\\]*)*?\\u[dD][89a-fA-F])"""
    return re.compile(b"|".join(re.escape(one) + odd for one in dict.fromkeys((plain, escaped))))


def _refuse_times(block: Block, source: str) -> None:
    """Does nothing if no object has a key that looks like the time, which the first object lacks."""
    if not any(looks_like_time(key.decode(errors="replace")) for key in set(_KEY.findall(block.data))):
        return
    for number, line in enumerate(block.data.split(b"\n"), block.line):
        place = f"{source}, line {number}"
        late = next(filter(looks_like_time, _object(line, place)), None) if line.strip() else None
        if late is not None:
            raise ValueError(
                f"{place}: {late!r} looks like the time, which the first object of the file lacks; every object needs "
                "the time, or say time='-' (--time - in a shell) to take the order of the file"
            )


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
        if b"\r" in line.strip():
            raise ValueError(f"{place}: {CR_ENDS}") from None
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
    return _text(one, column, place)


def _time(value: dict[str, object], column: str, place: str) -> str:
    one = value.get(column)
    if one is None:
        raise ValueError(f"{place}: {column!r} is missing")
    if isinstance(one, bool) or not isinstance(one, str | int | float):
        raise ValueError(f"{place}: {column!r} is {json.dumps(one)}; times are numbers or ISO dates")
    return _text(one, column, place)


def _text(one: str | float, column: str, place: str) -> str:
    text = str(one)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{place}: {column!r} is {json.dumps(one)}, which holds half of a surrogate pair; that is no character, "
            "write both halves or none"
        ) from None
    return text
