"""Moments: dates, numbers and shares of a log."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pytest

from conseq.data.log import InteractionLog
from conseq.data.moments import time_boundaries, unix_seconds
from conseq.data.vocabulary import Vocabulary


def log_at(*times: int) -> InteractionLog:
    """One user who met one item at each of ``times``."""
    return InteractionLog(
        items=np.ones(len(times), dtype=np.int32),
        offsets=np.array([0, len(times)]),
        times=np.array(times, dtype=np.int64) if times else None,
        user_ids=Vocabulary(["u"], start=0),
        item_ids=Vocabulary(["i"], start=1),
        manifest={},
    )


def test_time_boundaries_leave_the_asked_share_before_them() -> None:
    log = log_at(*range(100))
    assert time_boundaries(log) == (80.0, 90.0)
    assert time_boundaries(log, (0.5, 0.75)) == (50.0, 75.0)


def test_time_boundaries_never_leave_more_than_the_asked_share_before_them() -> None:
    log = log_at(0, 0, 1, 1, 1, 1, 1, 1, 2, 2)
    assert log.times is not None
    first, second = time_boundaries(log, (0.7, 0.9))
    assert (first, second) == (1.0, 2.0)
    assert (log.times < first).mean() == 0.2


def test_time_boundaries_refuse_shares_that_fall_on_one_moment() -> None:
    log = log_at(0, 5, 5, 5, 5)
    with pytest.raises(ValueError, match="both fall on 5"):
        time_boundaries(log, (0.5, 0.9))


@pytest.mark.parametrize("shares", [(0.9, 0.8), (0.5,), (0.0, 0.5), (0.5, 1.0)])
def test_time_boundaries_refuse_shares_out_of_order(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="two ascending numbers between 0 and 1"):
        time_boundaries(log_at(0, 5), shares)


def test_time_boundaries_refuse_a_log_without_times() -> None:
    with pytest.raises(ValueError, match="needs times"):
        time_boundaries(log_at())


def test_a_moment_is_read_from_numbers_dates_and_datetimes() -> None:
    assert unix_seconds(12) == 12.0
    assert unix_seconds("12.5") == 12.5
    assert unix_seconds("-3") == -3.0
    assert unix_seconds("2014-01-31") == 1391126400.0
    assert unix_seconds("2014-01-31T00:00:00+01:00") == 1391126400.0 - 3600
    assert unix_seconds(datetime(2014, 1, 31, tzinfo=UTC)) == 1391126400.0
    assert unix_seconds(date(2014, 1, 31)) == 1391126400.0


@pytest.mark.parametrize("text", ["soon", "2014-31-01", "2014-01", "", "20140131", "2014"])
def test_a_text_that_is_no_moment_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text!r} is neither Unix seconds nor an ISO date"):
        unix_seconds(text)


@pytest.mark.parametrize("moment", ["nan", "inf", float("nan")])
def test_a_moment_must_be_finite(moment: str | float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        unix_seconds(moment)
