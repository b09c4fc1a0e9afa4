"""Logs, scorers and encoders whose answers are known, and a small trained run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences
from conseq.data.synthetic import cycle_log
from conseq.encoders.encoder import Encoder, Scorer
from conseq.nn.items import ItemTable
from conseq.run import runner
from conseq.run.config import RunConfig, from_record

SMALL: dict[str, dict[str, Any]] = {
    "encoder": {"width": 8, "layers": 1, "heads": 1, "max_length": 6},
    "training": {"epochs": 2, "batch_size": 16, "patience": None, "metric": "NDCG@5", "learning_rate": 0.01},
}


class After(Scorer):
    """Scores items by how soon they follow the last item of the history in the catalogue."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        last = histories.ids[histories.last]
        return -((torch.arange(1, self.n_items + 1) - last[:, None] - 1) % self.n_items).float()


class Read(Scorer):
    """Scores the items of what it reads above all others; among alike ones, small numbers come first."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        base = -torch.arange(self.n_items).float().repeat(len(histories), 1)
        return base.index_put((histories.rows, histories.ids - 1), base[histories.rows, histories.ids - 1] + 1000)


class Mean(Encoder):
    """The mean of the vectors of the items, with dropout."""

    def __init__(self, vectors: Tensor, dropout: float = 0.0) -> None:
        super().__init__(ItemTable(len(vectors), vectors.shape[1]))
        with torch.no_grad():
            self.items.weight[1:-1] = vectors
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, histories: Sequences) -> Tensor:
        sums = torch.zeros(len(histories), self.items.width).index_add(0, histories.rows, self.items(histories.ids))
        out: Tensor = self.dropout(sums / histories.lengths[:, None])
        return out


@pytest.fixture
def after() -> type[After]:
    return After


@pytest.fixture
def read() -> type[Read]:
    return Read


@pytest.fixture
def mean() -> Callable[..., Mean]:
    return Mean


@pytest.fixture(scope="session")
def log() -> InteractionLog:
    """40 users whose next item is certain; 12 items, six of them each."""
    return cycle_log(n_users=40, n_items=12, length=6)


@pytest.fixture(scope="session")
def config() -> RunConfig:
    return from_record(SMALL, source="test")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, log: InteractionLog, config: RunConfig) -> Path:
    """A finished run on that log."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    runner.run(config, log, folder=folder)
    return folder


@pytest.fixture(scope="session")
def contrasting(tmp_path_factory: pytest.TempPathFactory, log: InteractionLog) -> Path:
    """A finished run of MCLRec on that log."""
    folder = tmp_path_factory.mktemp("runs") / "mclrec"
    runner.run(from_record({**SMALL, "method": {"name": "mclrec"}}, source="test"), log, folder=folder)
    return folder
