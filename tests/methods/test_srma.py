"""SRMA: its terms beside slow sums, the layers it drops, the other encoder."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.srma import SRMAConfig as EncoderConfig
from conseq.encoders.srma import SRMAEncoder
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.methods.srma import SRMA, SRMAConfig
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Trainer

N_ITEMS = 30
LENGTH = 8
CALM = EncoderConfig(width=8, layers=1, heads=1, max_length=LENGTH, dropout=0.0, attention_dropout=0.0, appended=3)


def train_set(instances: Instances = "whole") -> TrainSet:
    rng = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 15, (40,), generator=rng).tolist()
    rows = [torch.randint(1, N_ITEMS + 1, (n,), generator=rng).tolist() for n in lengths]
    return TrainSet(Sequences.from_lists(rows), torch.arange(40), N_ITEMS, instances=instances, max_length=LENGTH)


def make(config: SRMAConfig, instances: Instances = "whole", backbone: EncoderConfig = CALM) -> SRMA:
    torch.manual_seed(3)
    made = SRMA(config, train_set(instances), backbone)
    with torch.no_grad():
        for one in made.parameters():
            one.add_(torch.randn_like(one) * 0.2)
    made.begin_epoch(config.complement + 1, rng())
    return made.eval()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(one: SRMA, n: int = 12) -> Batch:
    return one.train_set.batch(torch.arange(n))


def learned(part: torch.nn.Module) -> bool:
    return any(value.grad is not None and bool(value.grad.any()) for value in part.parameters())


class Spied:
    """Notes which layers each reading of a model leaves out."""

    def __init__(self, of: SRMA) -> None:
        self.sets: list[frozenset[int]] = []
        self.of, self.ask = of, of.drawn
        of.drawn = self  # type: ignore[method-assign,assignment]

    def __call__(self, generator: torch.Generator) -> frozenset[int]:
        self.sets.append(self.ask(generator))
        return self.sets[-1]


def read(encoder: SRMAEncoder, rows: list[list[int]], dropped: frozenset[int]) -> list[Tensor]:
    """The states of each sequence on its own."""
    return [encoder.append(encoder.below(Sequences.from_lists([row])), dropped).double() for row in rows]


def slow_contrast(states: list[Tensor], *, tau: float, represent: str) -> float:
    """NT-Xent by its sums; the second half are the positives of the first."""
    if represent == "mean":
        vectors = [each.mean(0) for each in states]
    else:  # from the last position to the first, one after the other, and zeros
        room = [8 * (LENGTH - len(each)) for each in states]
        vectors = [torch.nn.functional.pad(x.flip(0).flatten(), (0, n)) for x, n in zip(states, room, strict=True)]
    n, total = len(vectors), 0.0
    for i, x in enumerate(vectors):
        scores = [math.exp(float(x @ y) / tau) for y in vectors]
        total -= math.log(scores[(i + n // 2) % n] / (sum(scores) - scores[i]))
    return total / n


@torch.no_grad()
@pytest.mark.parametrize(("instances", "represent"), [("whole", "positions"), ("whole", "mean"), ("prefixes", "mean")])
@pytest.mark.parametrize("views_drop", ["same", "apart"])
def test_its_terms_are_those_of_slow_sums(instances: Instances, represent: Any, views_drop: Any) -> None:
    config = SRMAConfig(
        contrast=0.25,
        temperature=2.0,
        represent=represent,
        drop=2,
        views_drop=views_drop,
        complement=1,
        complementing=0.3,
    )
    one = make(config, instances)
    assert one.other is not None
    batch, spy = some(one), Spied(one)
    ((group, found),) = one.updates(batch, rng(7))
    again = rng(7)
    views = [one.view(batch.history, again).to_lists() for _ in range(2)]
    histories = batch.history.to_lists()
    of_next, *of_views = spy.sets
    if views_drop == "same":
        of_views *= 2
    assert len(of_views) == 2
    first, second = (read(one.encoder, view, out) for view, out in zip(views, of_views, strict=True))
    known = read(one.other, histories, frozenset())
    own = torch.cat(read(one.encoder, histories, of_next)).float()[batch.at]
    drawn = one.prediction.sampler.draw(batch.next_users, 1, _after(spy, config, again))  # type: ignore[union-attr]
    weight = one.encoder.items.weight
    right, wrong = ((own * weight[ids]).sum(1) for ids in (batch.next_ids, drawn[:, 0]))
    assert group == "all"
    sums = {"tau": 2.0, "represent": represent}
    assert {name: term.item() for name, term in found.items()} == pytest.approx(
        {
            "next_item": -(right.sigmoid().log() + (1 - wrong.sigmoid()).log()).mean().item(),
            "contrast": 0.25 * slow_contrast(first + second, **sums),
            "complement": 0.25 * 0.3 * sum(slow_contrast(view + known, **sums) for view in (first, second)),
        },
        rel=1e-4,
    )


def _after(spy: Spied, config: SRMAConfig, generator: torch.Generator) -> torch.Generator:
    """The generator as the negatives find it: after the draws of the layers."""
    for _ in range(2 if config.views_drop == "same" else 3):
        spy.ask(generator)
    return generator


def test_a_pass_leaves_out_any_layers_alike() -> None:
    one = make(SRMAConfig(drop=2))
    generator = rng()
    found = Counter(one.drawn(generator) for _ in range(900))
    assert set(found) == {frozenset(pair) for pair in ((0, 1), (0, 2), (1, 2))}
    assert all(250 < count < 350 for count in found.values())  # 300 expected, standard deviation 14


def test_without_dropping_and_contrast_it_is_next_item_training() -> None:
    one = make(SRMAConfig(drop=0, contrast=0.0))
    plain = NextItem(NextItemConfig(loss="binary_cross_entropy"), one.train_set, CALM).eval()
    plain.encoder.load_state_dict(one.encoder.state_dict())
    batch, generator = some(one), rng()
    for _ in range(2):
        one.view(batch.history, generator)
    for _ in range(2):
        one.drawn(generator)
    found = one.loss(batch, rng())["next_item"]
    assert torch.allclose(found, plain.loss(batch, generator)["next_item"], atol=1e-6)


def test_the_next_item_may_learn_below_the_appended_layers() -> None:
    one = make(SRMAConfig(next_item_reads="below", contrast=0.0))
    terms = one.loss(some(one), rng())
    torch.autograd.backward(terms["next_item"] + terms["contrast"])
    assert learned(one.encoder.blocks)
    assert not learned(one.encoder.appended)


def test_views_are_drawn_from_the_operators_of_the_settings() -> None:
    one = make(SRMAConfig(operators=("mask",), mask=1.0))
    assert set(one.view(some(one).history, rng()).ids.tolist()) == {N_ITEMS + 1}
    one = make(SRMAConfig(operators=("crop",), crop=0.5))
    lengths = some(one).history.lengths
    assert torch.equal(one.view(some(one).history, rng()).lengths, (lengths // 2).clamp(min=1))


# The other encoder


def test_the_other_encoder_learns_first_and_then_stays_as_it_is() -> None:
    one = make(SRMAConfig(complement=2))
    assert one.other is not None
    training = TrainingConfig(epochs=4, batch_size=10, patience=None, instances="whole")
    trainer = Trainer(one, training, lambda _: {"NDCG@20": 0.0})

    def copy(of: torch.nn.Module) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in of.named_parameters()}

    other, own = copy(one.other), copy(one.encoder)
    for epoch in range(1, 5):
        trainer._run_epoch()
        moved = {name for name, value in one.other.named_parameters() if not torch.equal(value, other[name])}
        mine = {name for name, value in one.encoder.named_parameters() if not torch.equal(value, own[name])}
        assert bool(moved) == (epoch <= 2)
        assert bool(mine) == (epoch > 2)
        other, own = copy(one.other), copy(one.encoder)


def test_the_other_encoder_is_trained_as_the_encoder_is_without_one() -> None:
    one, alone = make(SRMAConfig(complement=1)), make(SRMAConfig())
    assert one.other is not None
    alone.encoder.load_state_dict(one.other.state_dict())
    one.begin_epoch(1, rng())
    ((group, found),) = one.updates(some(one), rng())
    assert group == "complement"
    assert {name: term.item() for name, term in found.items()} == {
        name: term.item() for name, term in alone.loss(some(alone), rng()).items()
    }


def test_the_complement_has_no_gradient_for_the_other_encoder() -> None:
    one = make(SRMAConfig(complement=1))
    assert one.other is not None
    torch.autograd.backward(one.loss(some(one), rng())["complement"])
    assert not learned(one.other)
    assert learned(one.encoder.appended)


def test_no_more_layers_are_dropped_than_there_are() -> None:
    with pytest.raises(ValueError, match="drop is 4, but the encoder has 3 appended layers"):
        make(SRMAConfig(drop=4))


def test_layers_that_nothing_trains_are_refused() -> None:
    with pytest.raises(ValueError, match="drop is 3, which is all appended layers"):
        make(SRMAConfig(drop=3))
