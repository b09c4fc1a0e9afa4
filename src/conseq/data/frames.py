"""Parquet files and the tables of polars and pandas."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from conseq.data.batches import Batch, Source, text_ids
from conseq.data.blocks import opened
from conseq.data.columns import Columns, choose

ROWS = 1 << 18
TABLE = "the table"

_PARQUET = b"PAR1"


def open_frame(frame: pl.DataFrame | pl.LazyFrame, choice: dict[str, str | None], *, rows: int = ROWS) -> Source:
    """Gives the interactions of a polars table.

    Args:
        frame: The table. A lazy one is computed as a stream, into a temporary file.
        choice: The names of the ``user``, ``item`` and ``time`` columns, as for :func:`conseq.data.columns.choose`.
        rows: Rows to hold in memory at once.

    Returns:
        The source. Reading it raises ValueError where a lazy table cannot be computed, or an id is neither text nor
        an integer.

    Raises:
        ValueError: if the table lacks a column.
    """
    if isinstance(frame, pl.DataFrame):
        columns = choose(frame.columns, TABLE, **choice)
        slices = frame.select(columns.names).iter_slices(rows)
    else:
        columns = choose(_names(frame, TABLE), TABLE, **choice)
        slices = _computed(frame, columns, rows)
    return Source(TABLE, "table", columns, _batches(slices, columns, TABLE))


def open_parquet(path: Path, choice: dict[str, str | None], *, rows: int = ROWS) -> Source:
    """Gives the interactions of a Parquet file. A gzip one is unpacked into memory: Parquet is compressed by itself.

    Args:
        path: The file, gzip or not.
        choice: The names of the ``user``, ``item`` and ``time`` columns, as for :func:`conseq.data.columns.choose`.
        rows: Rows to hold in memory at once.

    Returns:
        The source.

    Raises:
        ValueError: if the file is not a whole Parquet file, or lacks a column.
    """
    source = str(path)
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        with opened(path) as file:
            content = io.BytesIO(file.read())
        _check_parquet(content, source)
        frame = pl.scan_parquet(content)
    else:
        with path.open("rb") as file:
            _check_parquet(file, source)
        frame = pl.scan_parquet(path, glob=False)
    columns = choose(_names(frame, source), source, **choice)
    return Source(source, "parquet", columns, _batches(_slices(frame, columns, source, rows), columns, source))


def open_pandas(frame: Any, choice: dict[str, str | None], *, rows: int = ROWS) -> Source:
    """Gives the interactions of a pandas table. Its index is not read.

    Args:
        frame: A ``pandas.DataFrame``.
        choice: The names of the ``user``, ``item`` and ``time`` columns, as for :func:`conseq.data.columns.choose`.
        rows: Rows to hold in memory at once.

    Returns:
        The source. Reading it raises ValueError where an id is neither text nor an integer.

    Raises:
        ValueError: if the table lacks a column.
    """
    columns = choose([str(name) for name in frame.columns], TABLE, **choice)
    of_ids = (columns.user.name, columns.item.name)
    by_name = {str(name): frame[name] for name in frame.columns if str(name) in columns.names}
    slices = (
        pl.DataFrame(
            {
                name: _from_pandas(by_name[name].iloc[start : start + rows], name, first=start, ids=name in of_ids)
                for name in columns.names
            }
        )
        for start in range(0, len(frame), rows)
    )
    return Source(TABLE, "table", columns, _batches(slices, columns, TABLE))


def _names(frame: pl.LazyFrame, source: str) -> list[str]:
    try:
        return frame.collect_schema().names()
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{source}: cannot be read: {_first_line(error)}") from None


def _slices(frame: pl.LazyFrame, columns: Columns, source: str, rows: int) -> Iterator[pl.DataFrame]:
    """Gives a file slice by slice; of each, only the row groups that hold it are read."""
    try:
        n_rows = frame.select(pl.len()).collect().item()
        for start in range(0, n_rows, rows):
            yield frame.select(columns.names).slice(start, rows).collect()
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{source}: the Parquet file is corrupt: {_first_line(error)}") from None


def _computed(frame: pl.LazyFrame, columns: Columns, rows: int) -> Iterator[pl.DataFrame]:
    """Gives a lazy table slice by slice, by way of a temporary file: it is computed once, as a stream."""
    with TemporaryDirectory(prefix="conseq-") as folder:
        path = Path(folder, "table.parquet")
        try:
            frame.select(columns.names).sink_parquet(path)
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{TABLE} cannot be computed: {_first_line(error)}") from None
        yield from _slices(pl.scan_parquet(path, glob=False), columns, TABLE, rows)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _batches(slices: Iterator[pl.DataFrame], columns: Columns, source: str) -> Iterator[Batch]:
    first = 0
    for piece in slices:
        users = text_ids(piece[columns.user.name], source, columns.user.name)
        items = text_ids(piece[columns.item.name], source, columns.item.name)
        times = piece[columns.time.name] if columns.time else None
        yield Batch(users, items, times, _place_from(first))
        first += piece.height


def _place_from(first: int) -> Callable[[int], str]:
    def place(row: int) -> str:
        return f"row {first + row} (counted from 0)"

    return place


def _check_parquet(file: BinaryIO, source: str) -> None:
    start = file.read(len(_PARQUET))
    size = file.seek(0, 2)
    file.seek(max(0, size - len(_PARQUET)))
    whole = start == _PARQUET and file.read() == _PARQUET
    file.seek(0)
    if not size:
        raise ValueError(f"{source}: the file is empty")
    if not whole:
        problem = "the Parquet file is truncated" if start == _PARQUET else "this is not a Parquet file"
        raise ValueError(f"{source}: {problem}; write or get it again")


def _from_pandas(column: Any, name: str, *, first: int, ids: bool) -> pl.Series:
    """Gives a pandas column without pandas' or pyarrow's help: whole numbers, dates or Python values.

    Its first row is row ``first`` of the table; values that are no ``ids`` are refused among those that may be.
    """
    if getattr(column.dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    array = column.to_numpy()
    if array.dtype.kind == "M" and np.datetime_data(array.dtype)[0] not in {"D", "ms", "us", "ns"}:
        array = array.astype("M8[ms]")  # whole seconds and longer, which polars does not know
    with_gaps = array.dtype.kind == "f" and column.dtype.kind in "iu"  # pandas' own integers, made floats for a gap
    if array.dtype.kind in "iufM" and not with_gaps:
        return pl.Series(name, array)
    values = [None if _absent(one) else one for one in column.tolist()]
    wrong = next((row for row, one in enumerate(values) if not _is_id(one)), None)
    if wrong is None:
        return _texts(name, [one if one is None else str(one) for one in values], first)
    if ids and array.dtype.kind == "O":
        raise ValueError(
            f"{TABLE}, {_place_from(first)(wrong)}: {name!r} is {values[wrong]!r:.60} of type "
            f"{type(values[wrong]).__name__}; ids must be text or integers: convert the column"
        )
    if any(isinstance(one, date | str) for one in values):
        return _texts(name, [_time_as_text(one, name, first + row) for row, one in enumerate(values)], first)
    return pl.Series(name, values, strict=False)


def _time_as_text(one: Any, name: str, row: int) -> str | None:
    """Gives a time of a column that mixes kinds of them as text: a number as it is, a date in UTC."""
    if one is None or isinstance(one, str):
        return one
    if isinstance(one, datetime):
        return (one if one.tzinfo else one.replace(tzinfo=UTC)).astimezone(UTC).isoformat(sep=" ")
    if isinstance(one, date):
        return one.isoformat()
    if isinstance(one, int | float | np.number) and not isinstance(one, bool):
        return str(one)
    raise ValueError(
        f"{TABLE}, {_place_from(0)(row)}: {name!r} is {one!r:.60} of type {type(one).__name__}; times are numbers "
        "(Unix seconds), text or dates"
    )


def _texts(name: str, values: list[str | None], first: int) -> pl.Series:
    try:
        return pl.Series(name, values, dtype=pl.String)
    except UnicodeEncodeError:
        row = next(row for row, one in enumerate(values) if one is not None and not _is_text(one))
        raise ValueError(
            f"{TABLE}, {_place_from(first)(row)}: {name!r} is {values[row]!r:.60}, which holds half a surrogate pair: "
            "no UTF-8 can hold it"
        ) from None


def _is_text(one: str) -> bool:
    try:
        one.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_id(one: object) -> bool:
    """True for text and integers, and for what is missing: that is told apart later."""
    return one is None or (isinstance(one, str | int | np.integer) and not isinstance(one, bool))


def _absent(one: object) -> bool:
    """True for the ways in which pandas writes that a value is missing."""
    return one is None or type(one).__name__ in {"NAType", "NaTType"} or (isinstance(one, float) and math.isnan(one))
