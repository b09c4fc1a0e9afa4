"""A small study: two rows that train in a second, one that cannot be run, one that a floor answers, and a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from conseq.data.synthetic import cycle_log, write_csv

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
