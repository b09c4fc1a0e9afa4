from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import polars as pl
import pytest

from conseq.data.batches import Times, check_ids, seconds, text_ids
from conseq.data.reading import TimeUnit


def _place(row: int) -> str:
    return f"line {row + 2}"


def _seconds(values: list[object], dtype: pl.DataType | type[pl.DataType] | None = None) -> Times:
    return seconds(pl.Series(values, dtype=dtype), "a.csv", _place)


def _unix(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp())  # type: ignore[arg-type, misc]


@pytest.mark.parametrize("values", [[3, -5, 1406073600], ["3", "-5", "1406073600"], [3.0, -5.0, 1406073600.0]])
def test_whole_seconds_are_int64_however_they_are_written(values: list[object]) -> None:
    found = _seconds(values)
    assert found.dtype == np.int64
    assert found.tolist() == [3, -5, 1406073600]


def test_text_with_a_decimal_point_that_is_whole_is_int64() -> None:
    assert _seconds(["978302109.0", "9.78302109e8"]).tolist() == [978302109, 978302109]


def test_fractions_of_a_second_are_float64() -> None:
    found = _seconds(["1.5", "2"])
    assert found.dtype == np.float64
    assert found.tolist() == [1.5, 2.0]


def test_nanoseconds_keep_all_their_digits() -> None:
    assert _seconds(["1406073600000000001", "1406073600000000002"]).tolist() == [
        1406073600000000001,
        1406073600000000002,
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2014-07-23", _unix(2014, 7, 23)),
        ("2014-07-23 10:15:30", _unix(2014, 7, 23, 10, 15, 30)),
        ("2014-07-23T10:15:30", _unix(2014, 7, 23, 10, 15, 30)),
        ("2014-07-23T10:15:30Z", _unix(2014, 7, 23, 10, 15, 30)),
        ("2014-07-23 10:15:30 UTC", _unix(2014, 7, 23, 10, 15, 30)),
        ("2014-07-23T10:15:30+02:00", _unix(2014, 7, 23, 8, 15, 30)),
        ("2014-07-23T10:15:30-0130", _unix(2014, 7, 23, 11, 45, 30)),
        ("2014-07-23 10:15", _unix(2014, 7, 23, 10, 15)),
        ("2014-07-23T10:15+01:00", _unix(2014, 7, 23, 9, 15)),
        (" 2014-07-23 ", _unix(2014, 7, 23)),
        ("1969-12-31", -86400),
        ("2014-07-23T10:15:30.25", _unix(2014, 7, 23, 10, 15, 30) + 0.25),
    ],
)
def test_iso_dates_become_unix_seconds(text: str, expected: float) -> None:
    assert _seconds([text]).tolist() == [expected]


@pytest.mark.parametrize("bad", ["2014", "20140724", " 2014 "])
def test_a_year_or_a_day_beside_dates_is_no_second_of_1970(bad: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.csv, line 3: time '{bad}' is a number of as many digits as a year"):
        _seconds(["2014-07-23", bad])


@pytest.mark.parametrize("short", ["20140724", "1500"])
def test_the_first_time_that_is_not_like_those_before_it_is_named_with_one_of_them(short: str) -> None:
    message = (
        rf"a\.csv, line 5: time '2014-07-23' is a date with dashes, but '{short}' \(line 3\) is a number of as many "
        "digits as a year or a day has; write every time as a date such as 2014-07-23, or every one as Unix seconds"
    )
    with pytest.raises(ValueError, match=message):
        _seconds(["1406073600", short, short, "2014-07-23", "2014-07-24"])
    with pytest.raises(ValueError, match=rf"line 4: time '{short}' is a number .*, but '2014-07-23' \(line 2\) is a"):
        _seconds(["2014-07-23", "1406073600", short, "2014-07-24"])


@pytest.mark.parametrize("values", [["20140723", "20140722"], [20140723, 20131231], [20140723.0]])
def test_days_without_dashes_are_refused(values: list[object]) -> None:
    with pytest.raises(ValueError, match=r"a\.csv, line 2: time '20140723(\.0)?' and all others look like days"):
        _seconds(values)
    assert _seconds([*values, "20140000" if isinstance(values[0], str) else 20140000]).min() > 0  # no day 00


def test_numbers_and_dates_may_stand_in_one_column() -> None:
    assert _seconds(["5", "1970-01-02", "7.5"]).tolist() == [5.0, 86400.0, 7.5]


def test_date_and_datetime_columns_become_unix_seconds() -> None:
    assert _seconds([date(1970, 1, 3)]).tolist() == [2 * 86400]
    east = timezone(timedelta(hours=2))
    assert _seconds([datetime(1970, 1, 1, 2, 0, 7, tzinfo=east)]).tolist() == [7]
    assert _seconds([datetime(1970, 1, 1, 0, 0, 7, 500_000)]).tolist() == [7.5]
    assert _seconds([datetime(1970, 1, 1, 0, 0, 7)], pl.Datetime("ns")).tolist() == [7]


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "Infinity", "1e999"])
def test_a_time_that_is_not_finite_is_named_with_its_line(bad: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.csv, line 3: time '{bad}' is not finite"):
        _seconds(["1", bad, "2"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_float_time_that_is_not_finite_is_named_with_its_line(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"line 3: time {bad} is not finite"):
        _seconds([1.0, bad, 2.0])


@pytest.mark.parametrize(
    "bad", ["yesterday", "2014-02-30", "07/23/2014", "1_000", "2014-07-23T25:00:00", "05-01-14", "5-1-1", "-2014-07-23"]
)
def test_a_time_that_cannot_be_read_is_named_with_its_line(bad: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.csv, line 4: cannot read time '{bad}'; times are numbers"):
        _seconds(["1", "2014-01-01", bad])


@pytest.mark.parametrize("values", [["1", None], ["1", ""], [1, None], [1.0, None], [None, None]])
def test_a_missing_time_is_named_with_its_line(values: list[object]) -> None:
    with pytest.raises(ValueError, match=r"a\.csv, line [23]: the time is missing"):
        _seconds(values)


def test_a_column_of_another_type_holds_no_times() -> None:
    with pytest.raises(ValueError, match=r"a\.csv: the time column holds Boolean"):
        _seconds([True, False])


def test_text_and_integer_ids_become_text_unchanged() -> None:
    assert text_ids(pl.Series(["007", " a b ", "é\n"]), "t", "u").to_list() == ["007", " a b ", "é\n"]
    assert text_ids(pl.Series([7, -1, None], dtype=pl.Int16), "t", "u").to_list() == ["7", "-1", None]
    assert text_ids(pl.Series([2**64 - 1], dtype=pl.UInt64), "t", "u").to_list() == ["18446744073709551615"]
    assert text_ids(pl.Series(["x", "y"], dtype=pl.Categorical), "t", "u").to_list() == ["x", "y"]


@pytest.mark.parametrize("values", [[1.0, 2.0], [True, False], [date(2014, 1, 1)], [b"a"]])
def test_ids_of_other_types_are_refused(values: list[object]) -> None:
    with pytest.raises(ValueError, match=r"t: column 'u' holds \w+; ids must be text or integers"):
        text_ids(pl.Series(values), "t", "u")


@pytest.mark.parametrize("missing", [None, ""])
def test_a_missing_id_is_named_with_its_line(missing: str | None) -> None:
    with pytest.raises(ValueError, match=r"a\.csv, line 3: the item is missing"):
        check_ids(pl.Series(["x", missing, "y", ""]), "a.csv", "item", _place)


def test_spaces_around_times_are_no_part_of_them() -> None:
    found = seconds(pl.Series([" 10", "20 ", "\t30"]), "log", str)
    assert found.dtype.name == "int64"
    assert found.tolist() == [10, 20, 30]
    assert seconds(pl.Series([" 1.5", " 2014-07-23"]), "log", str).tolist() == [1.5, 1406073600.0]


@pytest.mark.parametrize(
    ("times", "unit", "expected"),
    [
        (pl.Series([1406073600000, 1406073601000]), "ms", [1406073600, 1406073601]),
        (pl.Series([1406073600000, 1406073600250]), "ms", [1406073600.0, 1406073600.25]),
        (pl.Series([1500.0, 3000.0]), "ms", [1.5, 3.0]),
        (pl.Series(["2000000", " 1e6 "]), "us", [2, 1]),
        (pl.Series([3_000_000_000]), "ns", [3]),
        (pl.Series([-1500]), "ms", [-1.5]),
    ],
)
def test_numbers_may_count_parts_of_a_second(times: pl.Series, unit: TimeUnit, expected: list[float]) -> None:
    found = seconds(times, "log", lambda row: f"row {row}", unit=unit)
    assert found.tolist() == expected
    assert found.dtype == (np.int64 if all(isinstance(one, int) for one in expected) else np.float64)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (pl.Series([1, None]), "log, row 1: the time is missing"),
        (
            pl.Series(["1000", "2014-07-23"]),
            r"log, row 1: time_unit='ms' \(--time-unit in a shell\) is of times that are numbers; found '2014-07-23'",
        ),
        (pl.Series([date(2014, 7, 23)]), "is of times that are numbers, and the time column holds Date; leave it out"),
        (pl.Series([math.inf]), "log, row 0: time inf is not finite"),
    ],
)
def test_a_unit_is_not_of_dates_and_what_is_no_time_is_named_as_ever(times: pl.Series, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seconds(times, "log", lambda row: f"row {row}", unit="ms")
