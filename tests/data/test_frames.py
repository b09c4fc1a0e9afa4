from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from conseq.data.batches import Source, seconds
from conseq.data.frames import open_frame, open_pandas, open_parquet
from conseq.data.readers import read

Write = Callable[[str, str | bytes], Path]
Row = tuple[object, ...]

GUESS: dict[str, str | None] = {"user": None, "item": None, "time": None}
PLUS_TWO = timezone(timedelta(hours=2))
TABLE = pl.DataFrame({"user": ["a", "b", "c"], "item": [7, 8, 9], "time": [3, 2, 1]})
ROWS: list[Row] = [("a", "7", 3), ("b", "8", 2), ("c", "9", 1)]


def _rows(source: Source) -> list[Row]:
    found: list[Row] = []
    for batch in source.batches:
        times = [] if batch.times is None else [seconds(batch.times, source.name, batch.place).tolist()]
        found += zip(batch.users.to_list(), batch.items.to_list(), *times, strict=True)
    return found


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("lazy", [True, False])
def test_a_polars_table_is_read_in_order(lazy: bool, rows: int) -> None:
    assert _rows(open_frame(TABLE.lazy() if lazy else TABLE, GUESS, rows=rows)) == ROWS


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_a_parquet_file_is_read_in_order(tmp_path: Path, write: Write, name: str, rows: int) -> None:
    TABLE.write_parquet(tmp_path / "plain", row_group_size=2)
    path = write(name, (tmp_path / "plain").read_bytes())
    assert _rows(open_parquet(path, GUESS, rows=rows)) == ROWS


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_a_pandas_table_is_read_in_order_whatever_its_index(rows: int) -> None:
    frame = pd.DataFrame({"user": ["a", "b", "c"], "item": [7, 8, 9], "time": [3, 2, 1]}, index=[5, 5, 1])
    assert _rows(open_pandas(frame, GUESS, rows=rows)) == ROWS


@pytest.mark.parametrize(
    "users",
    [
        pd.Series(["007", " x ", "é"]),
        pd.Series(["007", " x ", "é"], dtype=object),
        pd.Series(["007", " x ", "é"], dtype="string"),
        pd.Series(["007", " x ", "é"], dtype="category"),
    ],
)
def test_text_of_any_pandas_type_stays_unchanged(users: pd.Series) -> None:
    frame = pd.DataFrame({"user": users, "item": users})
    assert _rows(open_pandas(frame, GUESS)) == [("007", "007"), (" x ", " x "), ("é", "é")]


@pytest.mark.parametrize("dtype", ["int32", "uint8", "Int64", "category", object])
def test_integers_of_any_pandas_type_become_their_digits(dtype: str | type) -> None:
    frame = pd.DataFrame({"user": pd.Series([1, 22], dtype=dtype), "item": ["a", "b"]})
    assert _rows(open_pandas(frame, GUESS)) == [("1", "a"), ("22", "b")]


def test_text_and_integers_in_one_pandas_column_are_ids() -> None:
    frame = pd.DataFrame({"user": pd.Series(["a", 1, np.int64(2)], dtype=object), "item": ["a", "b", "c"]})
    assert _rows(open_pandas(frame, GUESS)) == [("a", "a"), ("1", "b"), ("2", "c")]


@pytest.mark.parametrize("rows", [1, 100])
@pytest.mark.parametrize(
    ("one", "kind"),
    [
        (7.0, "float"),
        ([1], "list"),
        (True, "bool"),
        (pd.Timestamp("2014-07-23"), "Timestamp"),
        (b"x", "bytes"),
        (Decimal(3), "Decimal"),
    ],
)
def test_a_pandas_id_that_is_neither_text_nor_an_integer_is_refused_with_its_row(
    one: object, kind: str, rows: int
) -> None:
    frame = pd.DataFrame({"user": ["a", "b"], "item": pd.Series(["x", one], dtype=object)})
    message = rf"the table, row 1 \(counted from 0\): 'item' is .* of type {kind}; ids must be text or integers"
    with pytest.raises(ValueError, match=message):
        _rows(open_pandas(frame, GUESS, rows=rows))


@pytest.mark.parametrize(
    "times",
    [
        pd.Series([datetime(1970, 1, 1, 0, 0, 5), datetime(1970, 1, 1, 0, 0, 7)]),
        pd.Series(["1970-01-01 00:00:05", "1970-01-01 00:00:07"]),
        pd.Series([5.0, 7.0]),
        pd.Series([5, 7], dtype="Int64"),
        pd.to_datetime(pd.Series([5, 7]), unit="s"),
        pd.to_datetime(pd.Series([5, 7]), unit="s").astype("datetime64[ns]"),
        pd.to_datetime(pd.Series([5, 7]), unit="s", utc=True).dt.tz_convert("Europe/Vienna"),
        pd.to_datetime(pd.Series([5, 7]), unit="s").astype("datetime64[s]"),
        pd.to_datetime(pd.Series([5, 7]), unit="s", utc=True).astype("datetime64[s, UTC]"),
        pd.Series([5, datetime(1970, 1, 1, 0, 0, 7)], dtype=object),
        pd.Series([datetime(1970, 1, 1, 0, 0, 5), "1970-01-01 00:00:07"], dtype=object),
        pd.Series([datetime(1970, 1, 1, 0, 0, 5), datetime(1970, 1, 1, 2, 0, 7, tzinfo=PLUS_TWO)], dtype=object),
        pd.Series([5.0, 7], dtype=object),
    ],
)
def test_times_of_any_pandas_type_become_unix_seconds(times: pd.Series) -> None:
    frame = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "time": times})
    assert _rows(open_pandas(frame, GUESS)) == [("a", "x", 5), ("b", "y", 7)]


def test_a_pandas_time_of_another_kind_is_named_with_its_row() -> None:
    times = pd.Series([date(1970, 1, 1), (1, 2)], dtype=object)
    frame = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "time": times})
    with pytest.raises(ValueError, match=r"row 1 \(counted from 0\): 'time' is \(1, 2\) of type tuple"):
        _rows(open_pandas(frame, GUESS))


def test_half_a_surrogate_pair_is_named_with_its_row() -> None:
    frame = pd.DataFrame({"user": pd.Series(["a", "\ud800"], dtype=object), "item": ["x", "y"]})
    with pytest.raises(ValueError, match=r"row 1 \(counted from 0\): 'user' is .*half a surrogate pair"):
        _rows(open_pandas(frame, GUESS))


@pytest.mark.parametrize("missing", [None, pd.NA, float("nan"), pd.NaT])
def test_a_missing_pandas_id_is_missing_and_not_a_word(missing: object) -> None:
    frame = pd.DataFrame({"user": pd.Series(["a", missing], dtype=object), "item": ["x", "y"]})
    (batch,) = open_pandas(frame, GUESS).batches
    assert batch.users.to_list() == ["a", None]
    assert batch.place(1) == "row 1 (counted from 0)"


def test_integer_ids_that_pandas_made_floats_are_refused() -> None:
    frame = pd.DataFrame({"user": [1, None], "item": ["x", "y"]})
    with pytest.raises(ValueError, match=r"column 'user' holds Float64; ids must be text or integers"):
        _rows(open_pandas(frame, GUESS))


def test_rows_are_counted_through_all_slices() -> None:
    places = [batch.place(0) for batch in open_frame(TABLE, GUESS, rows=1).batches]
    assert places == [f"row {row} (counted from 0)" for row in range(3)]


def test_a_lazy_table_that_cannot_be_computed_is_an_error() -> None:
    broken = TABLE.lazy().with_columns(pl.col("item").cast(pl.String).str.to_date("%Y"))
    with pytest.raises(ValueError, match="the table cannot be computed"):
        _rows(open_frame(broken, GUESS))
    with pytest.raises(ValueError, match="the table: cannot be read"):
        open_frame(TABLE.lazy().select("nothing"), GUESS)


@pytest.mark.parametrize("keep", [3, 500, -1])
def test_a_truncated_parquet_is_an_error_that_names_the_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user": range(2000), "item": range(2000)}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:keep])
    problem = "truncated" if keep != 3 else "not a Parquet file"
    with pytest.raises(ValueError, match=rf"a\.parquet: .*{problem}"):
        open_parquet(path, GUESS)


def test_a_parquet_file_with_corrupt_pages_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rng = np.random.default_rng(0)
    pl.DataFrame({"user": rng.integers(0, 2**60, 9000), "item": rng.integers(0, 2**60, 9000)}).write_parquet(path)
    data = bytearray(path.read_bytes())
    data[4:60] = b"\xff" * 56
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.parquet: the Parquet file is corrupt"):
        _rows(open_parquet(path, GUESS))


def test_a_parquet_file_with_a_corrupt_footer_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    TABLE.write_parquet(path)
    data = bytearray(path.read_bytes())
    data[-60:-8] = b"\xff" * 52
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read"):
        open_parquet(path, GUESS)


def test_an_empty_parquet_file_is_an_error(write: Write) -> None:
    with pytest.raises(ValueError, match=r"a\.parquet: the file is empty"):
        open_parquet(write("a.parquet", b""), GUESS)


def test_a_truncated_gzip_parquet_is_an_error(tmp_path: Path, write: Write) -> None:
    TABLE.write_parquet(tmp_path / "plain")
    path = write("a.parquet.gz", (tmp_path / "plain").read_bytes())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a\.parquet\.gz: the gzip data break off"):
        open_parquet(path, GUESS)


def test_reading_needs_neither_pandas_nor_pyarrow_nor_torch() -> None:
    code = (
        "import sys\nimport polars as pl\nfrom conseq.data.readers import read\n"
        "assert len(read(pl.DataFrame({'user': [1], 'item': [2]}))) == 1\n"
        "print(sorted({'pandas', 'pyarrow', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_id_of_pandas_own_integers_is_named_by_its_row() -> None:
    frame = pd.DataFrame({"user_id": pd.array([1, None, 3], dtype="Int64"), "item_id": ["a", "b", "c"]})
    with pytest.raises(ValueError, match=r"row 1 \(counted from 0\): the user is missing"):
        read(frame)
    whole = read(frame.dropna())
    assert whole.user_ids.ids == ["1", "3"]


def test_a_folder_s_name_is_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "tmp[1]*"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    frame = pl.LazyFrame({"user_id": ["u", "u", "u"], "item_id": ["a", "b", "c"]})
    assert read(frame).item_ids.ids == ["a", "b", "c"]
