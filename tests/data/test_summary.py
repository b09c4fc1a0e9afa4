from __future__ import annotations

import polars as pl

from conseq.data.readers import read
from conseq.data.summary import summary


def test_the_summary_tells_what_was_guessed_filtered_and_left() -> None:
    table = pl.DataFrame({"uid": list("aaabbc"), "sku": list("xxyxyx"), "date": ["2014-01-01"] * 5 + ["2014-01-03"]})
    text = summary(read(table, item="sku", repeats="first", k_core=(2, 1)).manifest)
    assert text.splitlines() == [
        "the table (table)",
        "  user   column 'uid' (guessed from its name)",
        "  item   column 'sku'",
        "  time   column 'date' (guessed from its name)",
        "  order  by time; equal times keep the order of the source",
        "  filter repeats, first kept",
        "         3 users, 2 items, 6 interactions",
        "      -> 3 users, 2 items, 5 interactions",
        "  filter k_core, users >= 2, items >= 1 (rounds: 1)",
        "         3 users, 2 items, 5 interactions",
        "      -> 2 users, 2 items, 4 interactions",
        "  log    2 users, 2 items, 4 interactions",
        "         2/2.0/2 interactions per user (least/mean/most), 0 users with only one, 0 repeats",
        "  times  1388534400 (2014-01-01) to 1388534400 (2014-01-01)",
        "  ties   100.0% of adjacent interactions have equal times; for 0.0% of the users with three or more "
        "a tie decides which is the last",
    ]


def test_a_log_without_times_and_filters_says_so() -> None:
    text = summary(read(pl.DataFrame({"user": [1], "item": [2]})).manifest)
    assert "  order  of the source, which has no times\n  filter none\n" in text
    assert "ties" not in text


def test_times_that_cannot_be_seconds_are_questioned() -> None:
    manifest = read(pl.DataFrame({"user": [1], "item": [2], "ts": [1406073600000]})).manifest
    assert "; are these seconds?" in summary(manifest)
