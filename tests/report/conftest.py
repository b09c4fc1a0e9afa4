"""Records, experiments and a trained run that are made up: no number in them was measured."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conseq.api import train
from conseq.data.prepared import save
from conseq.data.synthetic import synthetic
from conseq.run.config import RunConfig, from_record
from conseq.run.provenance import code_hash
from conseq.study.asked import asked_for
from conseq.study.specification import load_table

Make = Callable[..., dict[str, Any]]
SLICES = {
    "history": ("<=5", "6-10", "11-20", "21-50", ">50"),
    "popularity": ("0", "1-5", "6-20", "21-100", ">100"),
    "time tie": ("yes", "no"),
    "repeat": ("yes", "no"),
}
COUNTS = {"users": 1000, "items": 300, "interactions": 9000}


def metrics(quality: float, seed: int, users: int = 1000) -> dict[str, float]:
    """Gives metrics of ranks that were drawn: a share of ``quality`` near the top, the others anywhere."""
    rng = np.random.default_rng(seed)
    ranks = np.where(rng.random(users) < quality, rng.integers(1, 25, users), rng.integers(1, 301, users))
    found = {}
    for k in (5, 10, 20):
        hits = ranks <= k
        found[f"HR@{k}"] = float(hits.mean())
        found[f"NDCG@{k}"] = float(np.where(hits, 1 / np.log2(ranks + 1), 0.0).mean())
    return found


def one_side(quality: float, seed: int) -> dict[str, Any]:
    parts = {
        cut: {
            part: {"cases": 200.0, **metrics(quality * (1 + number / 10), seed + number, 200)}
            for number, part in enumerate(names)
        }
        for cut, names in SLICES.items()
    }
    floors = {"popularity": metrics(0.01, 1), "own history": metrics(0.005, 2)}
    return {"metrics": metrics(quality, seed), "floors": floors, "slices": parts}


def curve(quality: float, seed: int, epochs: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "epoch": epoch,
            "seconds": round(2.0 + float(rng.random()) / 5, 3),
            "metrics": {
                "NDCG@20": round(quality * (1 - math.exp(-epoch / 8)) + 0.002 * float(rng.random()), 6),
            },
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.fixture(scope="session")
def experiment() -> Callable[..., RunConfig]:
    """Gives an experiment: ``experiment(seed=1, method={...})``."""

    def make(seed: int = 0, *, method: dict[str, Any] | None = None, **training: Any) -> RunConfig:
        tables = {
            "method": {"name": "next_item", "loss": "cross_entropy", **(method or {})},
            "encoder": {"name": "sasrec", "width": 8, "layers": 1, "heads": 1, "max_length": 10},
            "training": {"epochs": 3, "seed": seed, **training},
        }
        return from_record(tables, source="a test")

    return make


@pytest.fixture(scope="session")
def make_record() -> Make:
    """Gives a record: ``make_record(config, quality=0.1, row="SASRec")``; keywords take the place of its values."""

    def make(config: RunConfig, *, quality: float = 0.1, epochs: int = 20, **changed: Any) -> dict[str, Any]:
        seed = config.training.seed
        digest = int(config.digest, 16) % 10_000
        both = {history: one_side(scale * quality, digest) for history, scale in (("exclude", 1.3), ("keep", 1.0))}
        return {
            "study": "toy/table1", "row": config.method_name, "method": config.method_name, "variant": "",
            "preset": "ours", "encoder": config.encoder_name, "loss": getattr(config.method, "loss", ""),
            "instances": config.training.instances, "dataset": "toy", "history": "exclude",
            "split": config.split.name, "seed": seed, "epochs": epochs, "best_epoch": epochs - 1,
            "seconds": 2.1 * epochs,
            "commit": "0123456789", "code_hash": code_hash(config), "config_hash": config.digest,
            "data_hash": "feed" * 16, "data": COUNTS, "versions": {"conseq": "0.1.0", "torch": "2.13.0"},
            "machine": "a processor, 2 cores", "metrics": both["exclude"]["metrics"],
            "floors": both["exclude"]["floors"], "both": both, "curve": curve(quality, digest, epochs),
            "config": config.record(), "analyses": {}, **changed,
        }  # fmt: skip

    return make


@pytest.fixture(scope="session")
def write_lines() -> Callable[[Path, list[dict[str, Any]]], Path]:
    """Writes records to a file of lines and gives its path."""

    def write(path: Path, records: list[dict[str, Any]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
        return path

    return write


BASE = """
[method]
name = "next_item"
loss = "cross_entropy"

[encoder]
name = "sasrec"
width = 8
layers = 1
heads = 1
max_length = 10

[training]
epochs = 3
seed = 0
"""
TABLE = """
paper = "A paper (2022)"
title = "Table 1: <b>methods</b> & more"
dataset = "toy"
history = "exclude"
note = "<script>document.title = 'broken'</script> must be text"

[[row]]
name = "SASRec"
experiment = "next_item/toy.toml"
preset = "paper"
cells = { "HR@20" = 0.1, "NDCG@20" = 0.05 }

[[row]]
name = "without windows"
variant = "windows off"
experiment = "next_item/toy.toml"
preset = "paper"
training = { windows = false }
impossible = "NDCG@20 < HR@20 / log2(21)"
cells = { "HR@20" = 0.1, "NDCG@20" = 0.01 }

[[row]]
name = "not run"
experiment = "next_item/toy.toml"
preset = "paper"
training = { batch_size = 7 }
cells = { "HR@20" = 0.3, "NDCG@20" = 0.2 }

[[row]]
name = "BPR"
closed = "matrix factorization is not among the methods"
cells = { "HR@20" = 0.02, "NDCG@20" = 0.01 }

[[row]]
name = "PopRec"
floor = "popularity"
cells = { "HR@20" = 0.0198, "NDCG@20" = 0.0074 }

[[sweep]]
name = "SASRec"
experiment = "next_item/toy.toml"
preset = "paper"
parameter = "training.learning_rate"
values = [0.0005, 0.002, 0.03]
cells = { "NDCG@20" = [0.04, 0.05, 0.03] }
"""
OURS = """
paper = "conseq"
title = "What models stand"
dataset = "toy"
history = "keep"

[[row]]
name = "SASRec"
experiment = "next_item/toy.toml"
preset = "ours"
analysis = { name = "noise" }

[[row]]
name = "SASRec by groups"
experiment = "next_item/toy.toml"
preset = "ours"
analysis = { name = "groups" }

[[row]]
name = "SASRec's vectors"
experiment = "next_item/toy.toml"
preset = "ours"
analysis = { name = "representations" }

[[row]]
name = "SASRec's cost"
experiment = "next_item/toy.toml"
preset = "ours"
analysis = { name = "complexity" }

[[row]]
name = "SASRec's intents"
experiment = "next_item/toy.toml"
preset = "ours"
analysis = { name = "purity", items = "items.parquet" }
"""


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, a paper's table with rows of every kind, and a table of ours with every analysis."""
    root = tmp_path_factory.mktemp("toy") / "experiments"
    for name, text in {"next_item/toy": BASE, "paper/table1/toy": TABLE, "ours/stand/toy": OURS}.items():
        path = root / f"{name}.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    return root


def analyses(quality: float, config: RunConfig) -> dict[str, Any]:
    """Gives every analysis as a record has it, with the settings of the table of ours."""
    clean = metrics(quality, 5)
    protocol = {"split": "test", "slicing": "leave_one_out", "history": "keep", "ties": "pessimistic"}
    spread = {
        "vectors": 300, "width": 4, "singular_values": [1.0, 0.5, 0.25, 0.125], "effective_rank": 3.1,
        "mean_cosine": 0.2, "mean_norm": 1.1, "uniformity": -2.5, "points": 300,
    }  # fmt: skip
    groups = [
        {"name": name, "users": 100, "items": 50, "interactions": 900, "sparsity": 0.9, "judged": count,
         "metrics": metrics(quality * scale, 6), "floors": {}, "epochs": None, "best_epoch": None}
        for name, count, scale in (("<=5", 300, 1.0), ("6-8", 400, 1.2), (">8", 300, 1.4))
    ]  # fmt: skip
    points = [
        {"share": share, "inserted": 9, "realised": share, "users": 0.5,
         "metrics": {name: value * (1 - share) for name, value in clean.items()},
         "loss": dict.fromkeys(clean, share)}
        for share in (0.0, 0.1, 0.2)
    ]  # fmt: skip
    by_name: dict[str, dict[str, Any]] = {
        "noise": {"protocol": protocol, "seed": 0, "counting": "proportion", "clean": clean, "floors": {},
                  "points": points},
        "groups": {"protocol": protocol, "edges": [5, 8], "apart": False, "groups": groups},
        "groups_apart": {"protocol": protocol, "edges": [5, 8], "apart": True, "groups": groups},
        "representations": {"items": spread, "users": spread, "seed": 0,
                            "alignment": {"same_target": {"value": 0.8, "pairs": 10}}},
        "complexity": {"encoder_parameters": 3000, "item_parameters": 2400, "trained_parameters": None,
                       "epochs": {"count": 3, "mean": 2.0, "median": 1.5, "total": 6.0},
                       "speed": {"users_per_second": 5000.0, "users": 500, "batch_size": 256, "k": 20},
                       "ranking_bytes": 2**21, "training_bytes": None, "device": "cpu", "threads": 1},
        "purity": {"users": 900, "without_category": 100, "categories": 7, "majority": 0.2,
                   "agreement": {"purity": 0.4, "nmi": 0.3}, "chance": {"purity": 0.25, "nmi": 0.1},
                   "clusters": [{"users": 500, "top": []}, {"users": 400, "top": []}]},
    }  # fmt: skip
    found = {}
    for name, result in by_name.items():
        items = {"items": "items.parquet"} if name == "purity" else {}
        asked = asked_for({"name": name, **items}, "keep", source="a test")
        found[asked.key] = asked.stamped({"analysis": name, "settings": dict(asked.settings), **result}, config)
    return found


@pytest.fixture
def records(all_records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A copy of all records, to be changed at will."""
    return copy.deepcopy(all_records)


@pytest.fixture(scope="session")
def all_records(experiments: Path, make_record: Make) -> list[dict[str, Any]]:
    """Two seeds of the table's rows that can be run, but for the one called ``not run``; one seed of the sweep."""
    table = load_table(experiments / "paper" / "table1" / "toy.toml")
    found = []
    for number, row in enumerate(table.rows):
        for config in row.seeded(1 if row.parameter else 2) if row.name != "not run" else []:
            quality = 0.1 * (1 + number / 10)
            told = {"study": row.study, "row": row.name, "variant": row.variant, "preset": row.preset}
            extra = {"analyses": analyses(quality, config)} if row.name == "SASRec" else {}
            found.append(make_record(config, quality=quality, **told, **extra))
    return found


TITLE = "<img src=x onerror=\"document.title='broken'\"> & $1 \u65e5\u672c"


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data/toy``, a log and a table of its items, and ``runs/toy/sasrec``, a run trained on it."""
    root = tmp_path_factory.mktemp("trained")
    log, _ = synthetic(n_users=150, n_items=60, n_intents=4, mean_length=9, seed=3)
    data = root / "data" / "toy"
    save(log, data)
    ids = log.item_ids.ids
    table = {"item_id": ids, "title": [f"{TITLE} {one}" for one in ids[:-1]] + [None]}
    table["kinds"] = [["all", f"kind {number % 3}"] for number in range(len(ids))]
    pl.DataFrame(table).write_parquet(data / "items.parquet")
    train(
        "next_item",
        log,
        encoder={"name": "sasrec", "width": 8, "layers": 1, "heads": 1, "max_length": 12},
        training={"epochs": 2, "seed": 5},
        run=root / "runs" / "toy" / "sasrec",
        show="nothing",
    )
    return root
