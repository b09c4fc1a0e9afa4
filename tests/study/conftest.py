"""A small study: two rows that train in a second, one that cannot be run, one that a floor answers, and a sweep."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import conseq
from conseq.data.synthetic import cycle_log, write_csv
from conseq.run.config import RunConfig
from conseq.run.provenance import code_hash
from conseq.study.records import Record
from conseq.study.specification import Row, Table, load_table

Made = Callable[..., Record]

# 5 % of the targets are at rank 1 and 5 % at 4, 10 % at 8 and 10 % at 15.
SHARES = {
    "HR@5": 0.1, "HR@10": 0.2, "HR@20": 0.3, "NDCG@5": 0.071534, "NDCG@10": 0.10308, "NDCG@20": 0.12808,
    "MRR": 0.085, "Coverage@10": 0.5, "MeanPopularity@10": 30.0,
}  # fmt: skip
SHARES_BY_USER = {
    "HR@20": 0.3, "HR@50": 0.4, "Recall@20": 0.2, "Recall@50": 0.3, "NDCG@20": 0.1, "NDCG@50": 0.09,
    "ComiRecNDCG@20": 0.2, "MRR": 0.1,
}  # fmt: skip

BASE = """
[data]
name = "toy"

[method]
name = "next_item"
loss = "cross_entropy"

[encoder]
name = "sasrec"
width = 8
layers = 1
heads = 1
max_length = 6

[training]
instances = "whole"
epochs = 2
batch_size = 64
seed = 3
metric = "NDCG@10"
"""

TABLE = """
paper = "A paper"
title = "Table 1: small"
dataset = "toy"
history = "keep"

[[row]]
name = "SASRec"
experiment = "next_item/toy.paper.toml"
preset = "paper"
cells = { "HR@10" = 0.5, "NDCG@10" = 0.25 }

[[row]]
name = "SASRec, binary"
variant = "binary cross-entropy"
experiment = "next_item/toy.paper.toml"
preset = "paper"
method = { loss = "binary_cross_entropy" }
cells = { "HR@10" = 0.5 }

[[row]]
name = "BPR"
closed = "not among the methods"
cells = { "HR@10" = 0.1 }

[[row]]
name = "PopRec"
floor = "popularity"
cells = { "HR@10" = 0.1 }

[[sweep]]
name = "SASRec"
experiment = "next_item/toy.paper.toml"
preset = "paper"
parameter = "encoder.dropout"
values = [0.0, 0.2]
"""


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    root = tmp_path / "experiments"
    (root / "next_item").mkdir(parents=True)
    (root / "next_item/toy.paper.toml").write_text(BASE)
    (root / "paper/table1").mkdir(parents=True)
    (root / "paper/table1/toy.toml").write_text(TABLE)
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data/toy").mkdir(parents=True)
    write_csv(cycle_log(n_users=40, n_items=30, length=6), tmp_path / "data/toy/interactions.csv")
    return tmp_path / "data"


@pytest.fixture
def table(experiments: Path) -> Table:
    return load_table(experiments / "paper/table1/toy.toml")


@pytest.fixture
def made() -> Made:
    """Gives a record that no run made: ``made(row)``; of another experiment with ``config``, else keywords replace."""

    def make(row: Row, *, config: RunConfig | None = None, **more: Any) -> Record:
        config = config or row.config
        assert config is not None
        several = config.split.name == "by_user"
        shares = SHARES_BY_USER if several else SHARES
        side = {
            "metrics": shares,
            "floors": {"popularity": shares},
            "slices": {"history": {"<=5": {"cases": 3.0, "HR@10": 0.333333, "NDCG@10": 0.333333}}},
        }
        both = {history: copy.deepcopy(side) for history in ("exclude", "keep")}
        return {
            "study": row.study, "row": row.name, "variant": row.variant, "preset": row.preset, "dataset": row.dataset,
            "history": row.history, "method": config.method_name, "encoder": config.encoder_name,
            "loss": "cross_entropy", "instances": config.training.instances, "split": config.split.name,
            "ties": "pessimistic", "seed": config.training.seed, "epochs": 20, "best_epoch": 10, "seconds": 40.0,
            "commit": "0123456789", "code_hash": code_hash(config), "config_hash": config.digest,
            "data_hash": "feed", "data": {"users": 40, "items": 30, "interactions": 240}, "versions": {},
            "machine": "a processor", "metrics": both[row.history]["metrics"],
            "floors": both[row.history]["floors"], "both": both, "curve": [], "config": config.record(),
            "analyses": {}, **more,
        }  # fmt: skip

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which some last items stand at the time of the one before and some are repeats, and two runs of it."""
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    rows = []
    for user in range(120):
        length = 4 + user % 9
        items = rng.integers(0, 25, length).tolist()
        times = [10 * step for step in range(length)]
        if user % 3 == 0:
            times[-1] = times[-2]
        if user % 5 == 0:
            items[-1] = items[0]
        rows += [(f"u{user}", f"i{item}", time) for item, time in zip(items, times, strict=True)]
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_csv(folder / "log.csv")
    log = conseq.read(str(folder / "log.csv"))
    for name, epochs in (("short", 1), ("long", 4)):
        small = {"name": "sasrec", "width": 8}
        conseq.train("next_item", log, encoder=small, training={"epochs": epochs}, run=folder / name, show="nothing")
    return folder
