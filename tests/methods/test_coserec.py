"""CoSeRec: its terms beside the paper's sums, pools by length, warm-up, state."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.coserec import CoSeRec, CoSeRecConfig
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.signals.correlation import by_co_occurrence, by_embedding
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Stopped, Trainer

N_ITEMS = 30
LENGTH = 8
CALM = SASRecConfig(width=8, layers=1, heads=1, max_length=LENGTH, dropout=0.0, attention_dropout=0.0, positions="end")
LIVELY = SASRecConfig(width=8, layers=1, heads=1, max_length=LENGTH, dropout=0.3, attention_dropout=0.3)


def train_set(instances: Instances = "whole") -> TrainSet:
    rng = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 15, (40,), generator=rng).tolist()
    rows = [torch.randint(1, N_ITEMS + 1, (n,), generator=rng).tolist() for n in lengths]
    return TrainSet(Sequences.from_lists(rows), torch.arange(40), N_ITEMS, instances=instances, max_length=LENGTH)


def method(config: CoSeRecConfig, train: TrainSet | None = None, backbone: SASRecConfig = CALM) -> CoSeRec:
    torch.manual_seed(3)
    made = CoSeRec(config, train or train_set(), backbone)
    with torch.no_grad():
        made.encoder.items.weight.mul_(20)
    return made.eval()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(one: CoSeRec, n: int = 16) -> Batch:
    return one.train_set.batch(torch.arange(n))


def value(term: Tensor) -> float:
    return float(term.detach())


@pytest.mark.parametrize(("instances", "represent"), [("whole", "positions"), ("whole", "mean"), ("prefixes", "mean")])
def test_both_terms_are_those_of_the_papers_sums(instances: Instances, represent: Any) -> None:
    train = train_set(instances)
    one = method(CoSeRecConfig(contrast=0.25, temperature=2.0, represent=represent), train)
    batch = some(one)
    found = one.loss(batch, rng(7))
    drawn = rng(7)
    views = [one.view(batch.history, drawn).to_lists() for _ in range(2)]
    states = [one.encoder.states(Sequences.from_lists([row])).detach().double() for view in views for row in view]
    if represent == "mean":
        vectors = [each.mean(0) for each in states]
    else:  # from the last position to the first, one after the other, and zeros
        room = [8 * (LENGTH - len(each)) for each in states]
        vectors = [torch.nn.functional.pad(x.flip(0).flatten(), (0, n)) for x, n in zip(states, room, strict=True)]
    n, total = len(batch), 0.0
    for i, x in enumerate(vectors):
        scores = [math.exp(float(x @ y) / 2.0) for y in vectors]
        total -= math.log(scores[(i + n) % (2 * n)] / (sum(scores) - scores[i]))
    assert list(found) == ["next_item", "contrast"]
    assert value(found["contrast"]) == pytest.approx(0.25 * total / (2 * n), rel=1e-6)
    plain = NextItem(NextItemConfig(loss="binary_cross_entropy"), train, CALM).eval()
    plain.encoder.load_state_dict(one.encoder.state_dict())
    assert value(found["next_item"]) == pytest.approx(value(plain.loss(batch, drawn)["next_item"]), abs=1e-6)


def kinds(one: CoSeRec, n: int) -> set[str]:
    """Gives which operators made views of histories of n different items."""
    history = list(range(1, n + 1))
    close = one.correlation(torch.tensor(history)).tolist()
    found = set()
    for view in one.view(Sequences.from_lists([history] * 400), rng(1)).to_lists():
        if len(view) > n or (n == LENGTH and set(view) - set(history)):
            found.add("insert")
        elif len(view) < n:
            found.add("crop")
        elif N_ITEMS + 1 in view:
            found.add("mask")
        elif sorted(view) == history:
            found.add("reorder")
        else:
            assert all(a in (b, c) for a, b, c in zip(view, history, close, strict=True))
            found.add("substitute")
    return found


def test_short_histories_draw_from_the_short_pool_and_long_ones_from_the_long() -> None:
    one = method(CoSeRecConfig(threshold=5, reorder=1.0, insert=0.2))
    assert kinds(one, 5) == {"substitute", "insert"}
    assert kinds(one, 6) == {"crop", "mask", "reorder", "substitute", "insert"}


def test_the_pools_are_those_of_the_settings() -> None:
    one = method(CoSeRecConfig(threshold=4, short=("crop",), long=("mask", "insert")))
    assert kinds(one, 4) == {"crop"}
    assert kinds(one, 7) == {"mask", "insert"}


def test_a_view_is_never_longer_than_the_encoder_reads() -> None:
    one = method(CoSeRecConfig(threshold=0, long=("insert",), insert=1.0))
    lengths = one.view(some(one, 40).history, rng()).lengths
    assert int(lengths.max()) == LENGTH


def test_the_correlations_are_those_of_the_training_sequences() -> None:
    one = method(CoSeRecConfig())
    expected = by_co_occurrence(one.train_set.sequences, N_ITEMS).items
    assert torch.equal(one.correlation.closest[1:-1], expected)


def test_item_vectors_are_read_from_their_first_epoch_and_anew_in_each() -> None:
    one = method(CoSeRecConfig(vectors_from=3, correlation="embedding"))
    memory = one.correlation.closest.clone()
    for epoch in (1, 2):
        one.begin_epoch(epoch, rng())
        assert torch.equal(one.correlation.closest, memory)
    one.begin_epoch(3, rng())
    first = one.correlation.closest.clone()
    assert torch.equal(first[1:-1], by_embedding(one.encoder.items).items)
    with torch.no_grad():
        one.encoder.items.weight.copy_(torch.randn(N_ITEMS + 2, 8, generator=rng()))
    one.begin_epoch(4, rng())
    assert not torch.equal(one.correlation.closest, first)


def test_the_settings_of_the_correlation_reach_it() -> None:
    config = CoSeRecConfig(correlation="embedding", compare="cosine", vectors_from=1)
    one = method(config)
    other = method(dataclasses.replace(config, correlation="co_occurrence"))
    for each in (one, other):
        each.begin_epoch(1, rng())
    assert torch.equal(one.correlation.closest[1:-1], by_embedding(one.encoder.items, compare="cosine").items)
    assert torch.equal(other.correlation.closest[1:-1], by_co_occurrence(train_set().sequences, N_ITEMS).items)


def test_the_same_generators_give_the_same_terms() -> None:
    def contrast(seed: int) -> Tensor:
        one = method(CoSeRecConfig(), backbone=LIVELY).train()
        torch.manual_seed(1)
        return one.loss(some(one), rng(seed))["contrast"]

    assert torch.equal(contrast(0), contrast(0))
    assert not torch.equal(contrast(0), contrast(1))


def test_a_run_resumed_inside_an_epoch_ends_bit_identical(tmp_path: Path) -> None:
    config = CoSeRecConfig(vectors_from=1, correlation="embedding")
    training = TrainingConfig(epochs=2, batch_size=10, patience=None, instances="whole")

    def trainer(folder: Path | None) -> Trainer:
        torch.manual_seed(6)
        one = method(config, backbone=LIVELY)
        return Trainer(one, training, lambda encoder: {"NDCG@20": 0.0}, folder=folder)

    whole = trainer(None)
    whole.fit()
    stopped = trainer(tmp_path)
    stopped.interrupted = True
    with pytest.raises(Stopped):
        stopped.fit()
    resumed = trainer(tmp_path)
    torch.manual_seed(99)
    assert resumed.resume()
    resumed.fit()
    one, other = whole.method.state_dict(), resumed.method.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["correlation.closest"], method(config).correlation.closest)
