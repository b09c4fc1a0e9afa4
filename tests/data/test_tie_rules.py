"""Random ties: every order comes up, none depends on the source, and nothing but ties is drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conseq.data.log import InteractionLog
from conseq.data.prepared import load
from conseq.data.preparing import prepare_into
from conseq.data.readers import open_source, prepare, read
from conseq.data.reading import Reading
from conseq.data.summary import summary

ITEMS = ("a", "b", "c")


def tied(users: int) -> pl.DataFrame:
    """Gives users who read first one item, then all of ``ITEMS`` at one time, then another one."""
    rows = [
        (f"u{user}", item, time)
        for user in range(users)
        for item, time in (("first", 1), *((item, 5) for item in ITEMS), ("last", 9))
    ]
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")


def histories(log: InteractionLog) -> dict[str, tuple[str, ...]]:
    ids, ends = log.item_ids.decode(log.items), log.offsets.tolist()
    return {user: tuple(ids[ends[row] : ends[row + 1]]) for row, user in enumerate(log.user_ids.ids)}


def random(table: pl.DataFrame, seed: int = 0, **more: Any) -> dict[str, tuple[str, ...]]:
    return histories(read(table, ties="random", tie_seed=seed, **more))


def test_all_orders_of_a_tie_are_equally_often_drawn_over_users_and_over_seeds() -> None:
    over_users = Counter(one[1:4] for one in random(tied(6000)).values())
    over_seeds = Counter(random(tied(1), seed)["u0"][1:4] for seed in range(300))
    for found, expected in ((over_users, 1000), (over_seeds, 50)):
        assert len(found) == 6
        # Each is a binomial number with a standard deviation of sqrt(5 / 6 * expected).
        assert max(abs(count - expected) for count in found.values()) < 4.5 * (5 / 6 * expected) ** 0.5


def test_what_is_not_tied_keeps_its_place() -> None:
    for one in random(tied(50)).values():
        assert (one[0], one[4], sorted(one[1:4])) == ("first", "last", ["a", "b", "c"])


def test_the_order_is_that_of_the_ids_and_the_seed_however_the_source_is_sorted() -> None:
    table = tied(40)
    shuffled = table[np.random.default_rng(0).permutation(len(table)).tolist()]
    assert random(shuffled) == random(table)
    assert random(table, 1) != random(table)


def test_two_users_of_the_same_items_have_orders_of_their_own() -> None:
    assert len(set(random(tied(40)).values())) == 6


@pytest.mark.parametrize("rows_in_memory", [1, 7, 1000])
def test_the_order_does_not_depend_on_what_fits_into_memory(tmp_path: Path, rows_in_memory: int) -> None:
    reading = Reading(ties="random", tie_seed=3, repeats="last")
    folder, work = tmp_path / "log", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    prepare_into(folder, work, open_source(tied(20), reading), reading, rows_in_memory=rows_in_memory)
    assert histories(load(folder)) == random(tied(20), 3)


def test_filters_leave_the_order_of_what_they_leave() -> None:
    rare = pl.DataFrame([("u3", "rare", 5), ("stranger", "a", 5)], schema=["user", "item", "time"], orient="row")
    table = pl.concat([rare, tied(20)])
    everything = random(table)
    left = random(table, k_core=(2, 2))
    assert "stranger" not in left
    assert left == {user: tuple(item for item in everything[user] if item != "rare") for user in left}


def test_of_tied_repeats_one_is_kept_and_it_does_not_matter_which() -> None:
    twice = pl.concat([tied(10), tied(10)])
    assert random(twice, repeats="last") == random(twice, repeats="first") == random(tied(10))


def test_manifest_and_summary_name_the_seed(tmp_path: Path) -> None:
    manifest = prepare(tied(3), tmp_path / "log", Reading(ties="random", tie_seed=7))
    assert manifest["order"] == {"by": "time", "ties": "random", "tie_seed": 7}
    assert "order  by time; equal times are in a random order, seed 7" in summary(manifest)


def test_random_ties_need_times() -> None:
    with pytest.raises(ValueError, match="has no times, so there are no ties"):
        read(tied(2).drop("time"), ties="random")
