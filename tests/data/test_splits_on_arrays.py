"""Splits of logs that are arrays on disk, and of the real logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conseq.data.log import InteractionLog
from conseq.data.splits import by_time, by_user, leave_one_out
from conseq.data.vocabulary import Vocabulary


def test_a_memory_mapped_log_splits_like_one_in_memory_and_is_not_written_to(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 20, size=100)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(1, 50, size=offsets[-1]).astype(np.int32)
    times = np.concatenate([np.sort(rng.integers(0, 1000, size=n)) for n in lengths])
    for name, array in (("items", items), ("offsets", offsets), ("times", times)):
        np.save(tmp_path / f"{name}.npy", array)

    def log(**arrays: np.ndarray) -> InteractionLog:
        users = Vocabulary([str(n) for n in range(100)], start=0)
        catalogue = Vocabulary([str(n) for n in range(50)], start=1)
        return InteractionLog(**arrays, user_ids=users, item_ids=catalogue, manifest={})

    mapped = log(**{name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("items", "offsets", "times")})
    inside = log(items=items, offsets=offsets, times=times)
    for cut in (
        leave_one_out,
        lambda one: by_time(one, validation_from=500, test_from=700),
        lambda one: by_user(one, seed=0),
    ):
        one, other = cut(mapped), cut(inside)
        assert one.train.to_lists() == other.train.to_lists()
        assert one.test.histories.to_lists() == other.test.histories.to_lists()
        assert one.test.targets.to_lists() == other.test.targets.to_lists()
        assert one.test.tied.tolist() == other.test.tied.tolist()


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "cold"), [("beauty", 138), ("sports", 317)])
def test_the_real_logs_have_the_published_number_of_cold_test_targets(real_data: Path, name: str, cold: int) -> None:
    table = pl.read_parquet(real_data / name / "interactions.parquet")
    users, items, times = (table[column].to_numpy() for column in ("user_id", "item_id", "timestamp"))
    counts = np.bincount(users)[1:]
    log = InteractionLog(
        items=items.astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        times=times,
        user_ids=Vocabulary([str(n) for n in range(1, counts.size + 1)], start=0),
        item_ids=Vocabulary([str(n) for n in range(1, int(items.max()) + 1)], start=1),
        manifest={},
    )
    split = leave_one_out(log)
    assert split.notes["test_cold_targets"] == cold
    share = {"beauty": 0.435, "sports": 0.451}[name]
    assert split.test.tied.double().mean().item() == pytest.approx(share, abs=5e-4)
