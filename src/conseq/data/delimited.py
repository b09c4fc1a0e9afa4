"""CSV, TSV and RecBole ``.inter`` files: a header, then one interaction per record.

Every record's number of fields is counted here, because the parser fills short records up with nulls and, when only
some columns are asked for, drops the end of long ones.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl

from conseq.data.batches import Batch, Source
from conseq.data.blocks import BLOCK_BYTES, CR_ENDS, RECORD_BYTES, Block, blocks, opened, unquoted
from conseq.data.columns import Columns, choose
from conseq.data.reading import Format

_QUOTE = ord('"')


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written.

    Attributes:
        separator: What stands between fields, one ASCII character.
        quotes: Fields may stand between double quotes (RFC 4180); False: a quote is a character like any other.
    """

    separator: str
    quotes: bool


def open_delimited(
    path: Path, kind: Format, choice: dict[str, str | None], *, block_bytes: int = BLOCK_BYTES
) -> Source:
    """Gives the interactions of a delimited file.

    CSV fields may be quoted and are separated by a comma or, where the header has no comma, by a semicolon, a tab or a
    bar. In ``tsv`` and ``inter`` files the separator is a tab and quotes have no meaning.

    Args:
        path: The file, gzip or not.
        kind: ``csv``, ``tsv`` or ``inter``.
        choice: The names of the ``user``, ``item`` and ``time`` columns, as for :func:`conseq.data.columns.choose`.
        block_bytes: Bytes to hold in memory at once.

    Returns:
        The source.

    Raises:
        ValueError: if the file is empty, its lines end in CR alone, or its header is not UTF-8 or lacks a column.
    """
    with opened(path) as file:
        header = next(_lines(file.readline(RECORD_BYTES).removeprefix(b"\xef\xbb\xbf"), str(path)), "")
    if not header.strip():
        raise ValueError(f"{path}: the file is empty or starts with a blank line; its first line must name the columns")
    dialect = Dialect("\t", quotes=False)
    if kind == "csv":
        dialect = Dialect(next((one for one in ",;\t|" if one in header), ","), quotes=True)
    if "\r" in (re.sub('"[^"]*"', "", header) if dialect.quotes else header):
        raise ValueError(f"{path}: {CR_ENDS}")
    names = _fields(header, dialect)
    columns = choose(names, str(path), **choice)
    batches = _batches(path, dialect, names, columns, block_bytes)
    return Source(str(path), kind, columns, batches, separator=dialect.separator)


def _lines(data: bytes, source: str) -> Iterator[str]:
    try:
        yield data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{source}, line 1: the header is not UTF-8; convert the file to UTF-8") from None


def _fields(line: str, dialect: Dialect) -> list[str]:
    if not dialect.quotes:
        return line.split(dialect.separator)
    return next(csv.reader([line], delimiter=dialect.separator))


def _batches(path: Path, dialect: Dialect, names: list[str], columns: Columns, block_bytes: int) -> Iterator[Batch]:
    places = [names.index(name) for name in columns.names]
    in_table = [sorted(places).index(place) for place in places]
    with opened(path) as file:
        pieces = blocks(file, str(path), quotes=dialect.quotes, size=block_bytes)
        first = next(pieces)
        start = first.data.index(b"\n") + 1
        rest = [Block(first.data[start:], first.line + 1)] if start < len(first.data) else []
        for block in chain(rest, pieces):
            ends = _record_ends(block, dialect, len(names), str(path))
            table = _table(block, dialect, places, str(path))
            if table.height != len(ends):
                raise ValueError(f"{path}: lines {block.line} to {block.after - 1} hold quotes that cannot be read")
            series = [table.to_series(place) for place in in_table]
            _refuse_header(series, columns, _place_of(block, ends), str(path))
            yield Batch(series[0], series[1], series[2] if len(series) > 2 else None, _place_of(block, ends))


def _refuse_header(series: list[pl.Series], columns: Columns, place: Callable[[int], str], source: str) -> None:
    """Refuses a line that is the header again, as files that were joined have it: it would be a user and an item."""
    again = (series[0] == columns.user.name) & (series[1] == columns.item.name)
    if again.any():
        row = cast("int", again.fill_null(value=False).arg_max())
        raise ValueError(f"{source}, {place(row)}: this is the header again; remove it")


def _place_of(block: Block, ends: npt.NDArray[np.intp]) -> Callable[[int], str]:
    def place(row: int) -> str:
        return f"line {block.line_of(int(ends[row - 1]) + 1 if row else 0)}"

    return place


def _table(block: Block, dialect: Dialect, places: list[int], source: str) -> pl.DataFrame:
    try:
        return pl.read_csv(
            block.data,
            has_header=False,
            separator=dialect.separator,
            quote_char='"' if dialect.quotes else None,
            infer_schema=False,
            columns=sorted(places),
        )
    except pl.exceptions.PolarsError as error:
        problem = block.bad_utf8()
        if problem is not None:
            raise ValueError(f"{source}, {problem}; convert the file to UTF-8") from None
        lines = f"lines {block.line} to {block.after - 1}"
        raise ValueError(f"{source}: {lines} cannot be read: {str(error).splitlines()[0]}") from None


def _record_ends(block: Block, dialect: Dialect, n_fields: int, source: str) -> npt.NDArray[np.intp]:
    """Gives the place of the newline that ends each record; checks that each has ``n_fields`` fields."""
    data = np.frombuffer(block.data, np.uint8)
    newlines = data == ord("\n")
    marks = np.flatnonzero(newlines | (data == ord(dialect.separator)))
    if dialect.quotes and b'"' in block.data:
        _check_quotes(block, data, dialect, source)
        marks = unquoted(block.data, marks)
    is_end = newlines[marks]
    if marks.size % n_fields == 0:
        table = is_end.reshape(-1, n_fields)
        if table[:, -1].all() and np.count_nonzero(is_end) == len(table):
            return marks[n_fields - 1 :: n_fields]
    which = np.flatnonzero(is_end)
    counts = np.diff(which, prepend=-1)
    bad = int(np.flatnonzero(counts != n_fields)[0])
    begin = int(marks[which[bad - 1]]) + 1 if bad else 0
    line = block.line_of(begin)
    if not block.data[begin : marks[which[bad]]].strip():
        raise ValueError(f"{source}, line {line}: the line is blank; every line must hold an interaction")
    problem = f"found {counts[bad]} fields, expected {n_fields} as in the header"
    if b"\r" in block.data[begin : marks[which[bad]]].removesuffix(b"\r"):
        problem += f"; {CR_ENDS}"
    raise ValueError(f"{source}, line {line}: {problem}")


def _check_quotes(block: Block, data: npt.NDArray[np.uint8], dialect: Dialect, source: str) -> None:
    """Does nothing if each quoted field is quoted as a whole, with quotes inside it doubled."""
    quotes = np.flatnonzero(data == _QUOTE)
    separator = ord(dialect.separator)
    opening, closing = quotes[::2], quotes[1::2]
    before = np.where(opening > 0, data[opening - 1], ord("\n"))
    behind = data[closing + 1]
    wrong = np.concatenate(
        [
            opening[~np.isin(before, (separator, ord("\n"), _QUOTE))],
            closing[~np.isin(behind, (separator, ord("\n"), ord("\r"), _QUOTE))],
        ]
    )
    if wrong.size:
        raise ValueError(
            f"{source}, line {block.line_of(int(wrong.min()))}: a quote stands inside a field; "
            'quote the whole field and double the quotes in it: "a ""b"" c"'
        )
