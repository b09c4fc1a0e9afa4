"""ICLRec-A: the categories of a user's items as his intent, its warm-up and its state."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, TrainSet
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Encoder
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.iclrec import ICLRec, ICLRecConfig
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Stopped, Trainer

N_ITEMS = 30
LENGTH = 8
CALM = SASRecConfig(width=8, layers=1, heads=1, max_length=LENGTH, dropout=0.0, attention_dropout=0.0, positions="end")
LIVELY = SASRecConfig(width=8, layers=1, heads=1, max_length=LENGTH, dropout=0.3, attention_dropout=0.3)


def train_set(*, item_ids: bool = True) -> TrainSet:
    drawn = rng(0)
    lengths = torch.randint(2, 15, (40,), generator=drawn).tolist()
    rows = [torch.randint(1, N_ITEMS + 1, (n,), generator=drawn).tolist() for n in lengths]
    made = TrainSet(Sequences.from_lists(rows), torch.arange(40), N_ITEMS, instances="whole", max_length=LENGTH)
    made.item_ids = Vocabulary([str(10 * i) for i in range(1, N_ITEMS + 1)], start=1) if item_ids else None
    return made


def with_categories(tmp_path: Path, backbone: SASRecConfig = CALM, **settings: Any) -> ICLRec:
    lists: list[Any] = [["a", "b"], ["b"], ["c"], [], *[["a"]] * (N_ITEMS - 4)]
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": [str(10 * i) for i in range(1, N_ITEMS + 1)], "kinds": lists}).write_parquet(path)
    torch.manual_seed(3)
    made = ICLRec(ICLRecConfig(categories=path, category_column="kinds", **settings), train_set(), backbone)
    with torch.no_grad():
        made.encoder.items.weight.mul_(20)
    return made.eval()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begun(one: ICLRec, epoch: int = 1) -> ICLRec:
    with torch.no_grad():
        one.begin_epoch(epoch, rng())
    return one


def some(one: ICLRec, n: int = 12) -> Batch:
    return one.train_set.batch(torch.arange(n))


def always_better() -> Callable[[Encoder], dict[str, float]]:
    """A validation that picks the last epoch."""
    values = itertools.count()
    return lambda encoder: {"NDCG@20": float(next(values))}


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def means_of_views(one: ICLRec, batch: Batch, seed: int) -> list[list[Tensor]]:
    drawn = rng(seed)
    views = [one.view(batch.history, drawn).to_lists() for _ in range(2)]
    return [[one.encoder.states(Sequences.from_lists([row])).detach().double().mean(0) for row in v] for v in views]


def test_the_mean_vector_of_the_categories_is_the_intent(tmp_path: Path) -> None:
    one = with_categories(tmp_path)
    assert one.categories is not None
    a, b, c = one.categories.vectors.detach()
    found = one.categories(Sequences.from_lists([[1, 2], [3], [4], [1, 7, 4, 7]]))
    assert torch.allclose(found, torch.stack([(a + b + b) / 3, c, torch.zeros(8), (a + b + a + a) / 4]))


def test_the_intent_needs_no_e_step_and_its_vectors_are_trained(tmp_path: Path) -> None:
    one = begun(with_categories(tmp_path, intent=1.0, sequence=0.0))
    batch = some(one)
    found = one.loss(batch, rng(7))["intent"]
    assert one.categories is not None
    intents = [unit(intent) for intent in one.categories(batch.history).detach().double()]
    total = 0.0
    for view in means_of_views(one, batch, 7):
        for user, mean in enumerate(view):
            scores = [math.exp(float(unit(mean) @ intent)) for intent in intents]
            total -= math.log(scores[user] / sum(scores))
    assert found.item() == pytest.approx(total / len(batch), abs=1e-6)
    torch.autograd.backward(found)
    gradient = one.categories.vectors.grad
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0
    assert not list(one.clusters)


def test_until_its_first_epoch_the_intent_is_missing_and_then_it_stays(tmp_path: Path) -> None:
    one = with_categories(tmp_path, intents_from=3)
    for epoch, expected in ((1, False), (2, False), (3, True), (4, True)):
        begun(one, epoch)
        assert ("intent" in one.loss(some(one), rng())) == expected


@pytest.mark.parametrize(("epochs", "moved"), [(1, False), (2, True)])
def test_the_vectors_of_the_categories_rest_during_the_warm_up(epochs: int, moved: bool, tmp_path: Path) -> None:
    one = with_categories(tmp_path, intents_from=2)
    assert one.categories is not None
    before = one.categories.vectors.detach().clone()
    Trainer(one, TrainingConfig(epochs=epochs, patience=None, instances="whole"), always_better()).fit()
    assert torch.equal(one.categories.vectors, before) != moved


class Interrupts:
    """Stops training after the first batch of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.trainer: Trainer | None = None

    def batch_done(self, epoch: int, batch: int, n_batches: int) -> None:
        if epoch == self.epoch and batch == 1 and self.trainer is not None:
            self.trainer.interrupted = True

    def epoch_done(self, record: dict[str, Any]) -> None:
        pass

    def rewind(self, epoch: int) -> None:
        pass


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_resumed_inside_an_epoch_ends_bit_identical(stop: int, tmp_path: Path) -> None:
    """Before, in and after the epoch that ends the warm-up."""
    training = TrainingConfig(epochs=3, batch_size=10, patience=None, instances="whole")
    better = always_better()

    def trainer(folder: Path | None, watcher: Interrupts | None = None) -> Trainer:
        one = with_categories(tmp_path, LIVELY, intents_from=2)
        return Trainer(one, training, better, folder=folder, watcher=watcher)

    whole = trainer(None)
    torch.manual_seed(6)
    whole.fit()
    watcher = Interrupts(stop)
    stopped = watcher.trainer = trainer(tmp_path, watcher)
    torch.manual_seed(6)
    with pytest.raises(Stopped):
        stopped.fit()
    assert (stopped.epoch, stopped.done) == (stop, 1)
    resumed = trainer(tmp_path)
    torch.manual_seed(99)
    assert resumed.resume()
    resumed.fit()
    one, other = whole.method.state_dict(), resumed.method.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_categories_a_checkpoint_holds_nothing_of_them() -> None:
    one = ICLRec(ICLRecConfig(clusters=(4,)), train_set(), CALM)
    held = {name for name in one.state_dict() if not name.startswith("encoder.")}
    assert held == {"clusters.0.centroids", "clusters.0.ids", "clusters.0._fitted"}


def test_categories_without_outside_ids_are_refused(tmp_path: Path) -> None:
    config = ICLRecConfig(categories=tmp_path / "items.parquet")
    with pytest.raises(ValueError, match="outside ids, which this train set does not hold"):
        ICLRec(config, train_set(item_ids=False), CALM)
