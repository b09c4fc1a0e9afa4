"""Moments in time: from dates and from shares of a log to Unix seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time

import numpy as np

from conseq.data.log import InteractionLog


def unix_seconds(moment: float | str | date) -> float:
    """Gives Unix seconds from a number (also as text), an ISO date, a date or a datetime.

    Args:
        moment: The moment; UTC where it names no zone. A date is its midnight.

    Returns:
        Seconds since 1970-01-01 UTC.

    Raises:
        ValueError: if the text is neither a number nor an ISO date, or the number is not finite.
    """
    if isinstance(moment, str):
        moment = _from_text(moment)
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time.min)
    if isinstance(moment, datetime):
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(moment):
        raise ValueError(f"a moment must be finite, found {moment}")
    return float(moment)


def _from_text(text: str) -> float | datetime:
    try:
        if re.fullmatch(r"\s*(\d{4}|\d{8})\s*", text):  # 2014 and 20140131 are meant as dates
            raise ValueError
        return datetime.fromisoformat(text) if "-" in text[1:] else float(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither Unix seconds nor an ISO date such as 2014-01-31 or 2014-01-31T12:00"
        ) from None


def time_boundaries(log: InteractionLog, shares: Sequence[float] = (0.8, 0.9)) -> tuple[float, float]:
    """Gives ``validation_from`` and ``test_from`` for a split by time, from shares of the interactions.

    Strictly before each boundary lies at most its share of all interactions; less where many happened at the
    boundary itself.

    Args:
        log: The log, with times.
        shares: Two shares between 0 and 1, ascending.

    Returns:
        Two moments in Unix seconds.

    Raises:
        ValueError: if the log has no times, the shares are out of order, or both give the same moment.
    """
    if log.times is None:
        raise ValueError("time_boundaries needs times, and this log has none; name its time column when reading it")
    if len(shares) != 2 or not 0 < shares[0] < shares[1] < 1:
        raise ValueError(f"shares must be two ascending numbers between 0 and 1, found {tuple(shares)}")
    places = [int(share * len(log)) for share in shares]
    first, second = (float(moment) for moment in np.partition(log.times, places)[places])
    if first == second:
        raise ValueError(
            f"the shares {tuple(shares)} both fall on {day(first)}, at which many interactions happened; "
            "choose shares further apart, or dates"
        )
    return first, second


def day(seconds: float) -> str:
    """Gives a moment for a message: the number, and its date where it has one."""
    try:
        return f"{seconds:.15g} ({datetime.fromtimestamp(seconds, UTC):%Y-%m-%d})"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.15g}"
