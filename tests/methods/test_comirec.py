"""ComiRec: which interest learns, its loss against a slow reading, what it finds, and how it is served."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import conseq
from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences
from conseq.data.train_set import Instances, TrainSet
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.comirec import ComiRecConfig as Encoder
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.comirec import ComiRec, ComiRecConfig, closest
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.serving.recommender import Recommender

N_ITEMS = 9
LISTS = [[1, 2, 3, 4, 1, 5, 6, 2], [6, 7], [2, 4, 6], [9, 1, 5, 3]]


def examples(instances: Instances = "prefixes") -> TrainSet:
    return TrainSet(Sequences.from_lists(LISTS), torch.arange(4), N_ITEMS, instances=instances, max_length=3)


def make(**settings: object) -> ComiRec:
    torch.manual_seed(0)
    method = ComiRec(ComiRecConfig(**settings), examples(), Encoder(width=4, interests=3, max_length=3))  # type: ignore[arg-type]
    with torch.no_grad():
        method.encoder.items.weight.mul_(50)
    return method


def test_the_interest_closest_to_the_target_is_chosen_and_alone_learns() -> None:
    interests = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 3.0], [1.0, -1.0]]], requires_grad=True)
    chosen = closest(interests, torch.tensor([[1.0, 0.6], [-1.0, -2.0]]))
    assert chosen.tolist() == [[0.0, 2.0], [1.0, -1.0]]
    torch.autograd.backward(chosen.sum())
    assert interests.grad is not None
    assert interests.grad.sum(2).tolist() == [[0.0, 2.0], [0.0, 2.0]]


@pytest.mark.parametrize("log_q", [False, True])
def test_the_loss_is_the_slow_one(log_q: bool) -> None:
    method = make(negatives=6, log_q=log_q)
    batch = method.train_set.batch(torch.arange(len(method.train_set)))
    with torch.no_grad():
        found = method.loss(batch, torch.Generator().manual_seed(3))
        products = (method.encoder.interests(batch.history) @ method.encoder.items.weight.T).double().tolist()
    assert set(found) == {"next_item"}
    drawn = torch.randint(1, N_ITEMS + 1, (6,), generator=torch.Generator().manual_seed(3)).tolist()
    shift = math.log(6 / N_ITEMS) if log_q else 0.0
    losses = []
    for rows, target in zip(products, batch.next_ids.tolist(), strict=True):
        best = rows[max(range(3), key=[row[target] for row in rows].__getitem__)]
        others = [math.exp(best[item] - shift) for item in drawn if item != target]
        losses.append(math.log(math.exp(best[target]) + math.fsum(others)) - best[target])
    assert found["next_item"].item() == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize(
    "settings", [{"loss": "cross_entropy"}, {"shared_negatives": False, "negatives": 2, "log_q": True}]
)
def test_with_one_interest_it_is_the_next_item_method(settings: dict[str, object]) -> None:
    backbone = Encoder(width=4, interests=1, max_length=3)
    terms = []
    for kind, config in ((ComiRec, ComiRecConfig), (NextItem, NextItemConfig)):
        own = {"loss": "sampled_softmax", **settings}
        if config is NextItemConfig:
            own.pop("shared_negatives", None)
        torch.manual_seed(0)
        method = kind(config(**own), examples(), backbone)  # type: ignore[arg-type]
        batch = method.train_set.batch(torch.arange(5))
        terms.append(method.loss(batch, torch.Generator().manual_seed(1))["next_item"])
    assert torch.equal(terms[0], terms[1])


def test_what_it_cannot_train_is_refused() -> None:
    with pytest.raises(ValueError, match="ComiRec trains encoders of class MultiInterest, found SASRec"):
        ComiRec(ComiRecConfig(), examples(), SASRecConfig(width=4, max_length=3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="train it with instances 'prefixes'"):
        ComiRec(ComiRecConfig(), examples("whole"), Encoder(width=4, max_length=3))


def two_tastes(users: int = 60) -> InteractionLog:
    """Users who go on in two cycles of ten items each by turns: what comes next is of either."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(users):
        at, row = rng.integers(10, size=2), []
        for _ in range(8):
            taste = int(rng.integers(2))
            row.append(taste * 10 + int(at[taste]) % 10 + 1)
            at[taste] += 1
        rows.append(row)
    ids = [[f"{kind}{n}" for n in range(count)] for kind, count in (("u", users), ("i", 20))]
    items = np.array(rows, dtype=np.int32).ravel()
    return InteractionLog(
        items, np.arange(users + 1) * 8, None, Vocabulary(ids[0], start=0), Vocabulary(ids[1], start=1), {}
    )


def test_it_is_trained_judged_and_served_with_all_its_vectors(tmp_path: Path) -> None:
    log = two_tastes()
    model = conseq.train(
        {"name": "comirec", "loss": "cross_entropy"},
        log,
        encoder={"name": "comirec", "width": 16, "interests": 2, "max_length": 6, "positions": "end"},
        training={
            "instances": "prefixes", "epochs": 12, "batch_size": 32, "learning_rate": 0.01, "patience": None,
            "metric": "NDCG@5",
        },
        run=tmp_path,
    )  # fmt: skip
    recommender = Recommender.load(tmp_path / "bundle")
    history = ["i0", "i10", "i1", "i11", "i2"]
    vectors = recommender.user_vectors(history)
    assert vectors.shape == (2, 16)
    assert recommender.user_vectors([history, history[:2]]).shape == (2, 2, 16)
    ids, items = recommender.item_vectors()
    scores = dict(zip(ids, (vectors @ items.T).max(0).tolist(), strict=True))
    best = recommender.recommend(history, k=3, exclude_seen=False)
    assert [name for name, _ in sorted(scores.items(), key=lambda one: -one[1])[:3]] == list(best.ids)
    assert model.evaluate(history="keep").metrics["HR@5"] > 0.5
