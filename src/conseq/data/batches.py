"""Interactions as they come out of a source: a few hundred thousand at a time, ids as text, times as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from conseq.data.columns import Columns
from conseq.data.reading import Format, TimeUnit

Times = npt.NDArray[np.int64] | npt.NDArray[np.float64]

# Larger than any time in seconds that a log can hold (the year 5138), smaller than today's in milliseconds.
LATEST_SECONDS = 10**11
_EXACT_FLOAT = 2.0**53
_PER_SECOND: dict[TimeUnit, int] = {"ms": 10**3, "us": 10**6, "ns": 10**9}
_YEAR_OR_DAY, _DATE = r"^(\d{4}|\d{8})$", r"^\d{4}-\d{1,2}-\d{1,2}"
_DATE_FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M%#z")


@dataclass(frozen=True)
class Batch:
    """Some interactions, in the order of the source.

    Attributes:
        users: The users' ids, text.
        items: The items' ids, text.
        times: Numbers (Unix seconds), text (numbers or ISO dates), dates or datetimes; None where there are none.
        place: Gives the words for row ``r`` of the batch, such as ``line 17``.
    """

    users: pl.Series
    items: pl.Series
    times: pl.Series | None
    place: Callable[[int], str]


@dataclass(frozen=True)
class SourceFile:
    """A file that a log is read from.

    Attributes:
        name: Its name, without the folder.
        bytes: Its size.
        sha256: Of its content.
    """

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """A log that has been opened: what is known before its interactions are read, and the way to read them.

    Attributes:
        name: For messages.
        format: What it is written in; ``table`` for one in memory.
        columns: The columns taken; None for a format without columns.
        batches: Gives the interactions, once.
        separator: What stands between the fields, for delimited text.
        files: The file, or several; none for a table in memory.
        sha256: Of the file; of several, of their names and hashes.
    """

    name: str
    format: Format | Literal["table"]
    columns: Columns | None
    batches: Iterator[Batch]
    separator: str | None = None
    files: tuple[SourceFile, ...] = ()
    sha256: str | None = None


def text_ids(ids: pl.Series, source: str, column: str) -> pl.Series:
    """Gives ids as text: text unchanged, integers as their decimal digits.

    Args:
        ids: A column of any type.
        source: The log's name, for errors.
        column: The column's name, for errors.

    Returns:
        The same ids as text, missing where they were.

    Raises:
        ValueError: if the column holds neither text nor integers.
    """
    if ids.dtype == pl.String:
        return ids
    if ids.dtype.is_integer() or ids.dtype in (pl.Categorical, pl.Enum, pl.Null):
        return ids.cast(pl.String)
    raise ValueError(
        f"{source}: column {column!r} holds {ids.dtype}; ids must be text or integers: convert the column "
        "(a table with missing ids often holds integers as floats)"
    )


def check_ids(ids: pl.Series, source: str, role: str, place: Callable[[int], str]) -> None:
    """Does nothing if every id is there.

    Args:
        ids: Text.
        source: The log's name, for errors.
        role: ``user`` or ``item``, for errors.
        place: Gives the words for a row.

    Raises:
        ValueError: if an id is missing or empty; the message names the line or row.
    """
    absent = ids.fill_null("") == ""
    if absent.any():
        row = cast("int", absent.arg_max())
        raise ValueError(f"{source}, {place(row)}: the {role} is missing; every interaction needs a user and an item")


def seconds(times: pl.Series, source: str, place: Callable[[int], str], *, unit: TimeUnit = "s") -> Times:
    """Gives times as Unix seconds: int64 where every one is a whole number, otherwise float64.

    Dates and datetimes without a zone are read as UTC.

    Args:
        times: Numbers (Unix seconds), text (numbers or ISO 8601 dates), dates or datetimes.
        source: The log's name, for errors.
        place: Gives the words for a row.
        unit: What numbers count. As a float of seconds, a time of today is exact to about a quarter of a microsecond.

    Returns:
        One finite number per row.

    Raises:
        ValueError: if a time is missing, not finite or cannot be read, or is a date though a unit is named; the message
            names the line or row.
    """
    return _seconds(times, source, place) if unit == "s" else _seconds_of_units(times, source, place, unit)


def _seconds(times: pl.Series, source: str, place: Callable[[int], str]) -> Times:
    if times.dtype == pl.String:
        numbers = _seconds_of_text(times)
    elif isinstance(times.dtype, pl.Date | pl.Datetime):
        numbers = _seconds_of_dates(times)
    elif times.dtype.is_integer():
        numbers = times.cast(pl.Int64, strict=False)
    elif times.dtype.is_numeric() or times.dtype == pl.Null:
        numbers = times.cast(pl.Float64)
    else:
        raise ValueError(f"{source}: the time column holds {times.dtype}; times are numbers (Unix seconds) or dates")
    if numbers.dtype == pl.Float64:
        bad = ~numbers.is_finite().fill_null(value=False)
    else:
        bad = numbers.is_null()
    if bad.any():
        row = cast("int", bad.arg_max())
        _refuse_days_beside_dates(times, row, source, place)
        raise ValueError(f"{source}, {place(row)}: {_complaint(times[row])}")
    found = whole_if_exact(numbers.to_numpy())
    if _days_without_dashes(found):
        raise ValueError(
            f"{source}, {place(0)}: time {str(times[0])!r} and all others look like days without dashes; "
            "write 2014-07-23, or Unix seconds"
        )
    return found


def unit_of(latest: float, unit: TimeUnit) -> TimeUnit:
    """Gives the unit in which a log's latest time, read as one of ``unit``, is a time until the year 5138."""
    latest *= _PER_SECOND.get(unit, 1)
    return next((unit for unit, n in _PER_SECOND.items() if latest <= LATEST_SECONDS * n), "ns")


def _seconds_of_units(times: pl.Series, source: str, place: Callable[[int], str], unit: TimeUnit) -> Times:
    """Gives the seconds of numbers that count a part of a second."""
    told = f"time_unit={unit!r} (--time-unit in a shell) is of times that are numbers"
    if isinstance(times.dtype, pl.Date | pl.Datetime):
        raise ValueError(f"{source}: {told}, and the time column holds {times.dtype}; leave it out")
    if times.dtype == pl.String:
        texts = times.str.strip_chars()
        others = texts.cast(pl.Float64, strict=False).is_null() & (texts != "").fill_null(value=False)
        if others.any():
            row = cast("int", others.arg_max())
            raise ValueError(f"{source}, {place(row)}: {told}; found {times[row]!r}")
    numbers = _seconds(times, source, place)
    per_second = _PER_SECOND[unit]
    if numbers.dtype == np.int64 and not (numbers % per_second).any():
        return numbers // per_second
    return whole_if_exact(numbers / per_second)


def _days_without_dashes(times: Times) -> bool:
    """Whether every time is a day from 1900 to 2100, written as a number of eight digits."""
    if not times.size or times.dtype != np.int64 or times.min() < 19_000_101 or times.max() > 21_001_231:
        return False
    month, day = times // 100 % 100, times % 100
    return bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())


def whole_if_exact(numbers: Times) -> Times:
    """Gives int64 where every number is whole (and exact as a float), otherwise the floats as they are."""
    if numbers.dtype == np.int64:
        return numbers
    exact = bool(np.all((np.floor(numbers) == numbers) & (np.abs(numbers) < _EXACT_FLOAT)))
    return numbers.astype(np.int64) if exact else numbers.astype(np.float64, copy=False)


def _complaint(time: object) -> str:
    if time is None or time == "":
        return "the time is missing"
    try:
        unbounded = not math.isfinite(float(str(time)))
    except ValueError:
        unbounded = False
    if unbounded:
        return f"time {time!r} is not finite"
    return f"cannot read time {time!r}; times are numbers (Unix seconds) or ISO dates such as 2014-07-23 10:15:00"


def _refuse_days_beside_dates(times: pl.Series, row: int, source: str, place: Callable[[int], str]) -> None:
    """Refuses a column in which a number could be a year or a day, for others are dates; does nothing if it is not so.

    Of the first number and the first date, it is the later one that is not like what came before it.
    """
    if times.dtype != pl.String:
        return
    texts = times.str.strip_chars()
    dates = texts.str.contains(_DATE)
    if not texts.str.contains(_YEAR_OR_DAY)[row] or not dates.any():
        return
    date = cast("int", dates.arg_max())
    first, second = min(row, date), max(row, date)
    kinds = {row: "a number of as many digits as a year or a day has", date: "a date with dashes"}
    raise ValueError(
        f"{source}, {place(second)}: time {times[second]!r} is {kinds[second]}, but {times[first]!r} ({place(first)}) "
        f"is {kinds[first]}; write every time as a date such as 2014-07-23, or every one as Unix seconds"
    )


def _seconds_of_text(times: pl.Series) -> pl.Series:
    """Gives Int64 or Float64, null where a text is neither a number nor an ISO date."""
    whole = times.cast(pl.Int64, strict=False)
    if not whole.null_count():
        return whole
    times = times.str.strip_chars()
    whole = times.cast(pl.Int64, strict=False)
    if not whole.null_count():
        return whole
    table = pl.DataFrame({"text": times, "number": times.cast(pl.Float64, strict=False)})
    rest = table.filter(pl.col("number").is_null())["text"]
    if rest.is_empty():
        return table["number"]
    dates = _seconds_of_dates(_dates(rest))
    if len(rest) == len(times):
        return dates
    # Beside dates, 2014 and 20140723 are a year and a day, and not seconds of 1970.
    short = times.str.contains(_YEAR_OR_DAY) & (dates.count() > 0)
    numbers = table["number"].set(short.fill_null(value=False), None).to_numpy().copy()
    numbers[table["number"].is_null().to_numpy()] = dates.cast(pl.Float64).to_numpy()
    return pl.Series(numbers, nan_to_null=True)


def _dates(texts: pl.Series) -> pl.Series:
    """Gives UTC datetimes in microseconds, null where a text is not an ISO 8601 date."""
    # chrono takes a year of two digits for one of the first century: 05-01-14 would be the year 5.
    texts = texts.set(~texts.str.contains(_DATE).fill_null(value=False), None)
    texts = texts.str.replace(r"^(\d{4}-\d{2}-\d{2})[Tt]", "${1} ").str.replace(r" ?(UTC|[Zz])$", "+00:00")
    found = pl.Series(np.full(len(texts), None), dtype=pl.Datetime("us", "UTC"))
    for written in _DATE_FORMATS:
        parsed = texts.str.to_datetime(written, time_unit="us", strict=False)
        parsed = parsed.dt.convert_time_zone("UTC") if "%#z" in written else parsed.dt.replace_time_zone("UTC")
        found = found.zip_with(found.is_not_null(), parsed)
        if not found.null_count():
            break
    return found


def _seconds_of_dates(dates: pl.Series) -> pl.Series:
    """Gives Int64 where every date is a whole second, otherwise Float64; null where the date is."""
    ticks = dates.cast(pl.Datetime("us")).dt.epoch("us")
    if (ticks % 1_000_000 == 0).all():
        return ticks // 1_000_000
    return ticks.cast(pl.Float64) / 1e6
