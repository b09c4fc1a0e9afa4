"""ELECRec: what the discriminator is shown, and both terms against a slow reading of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.encoder import TokenEncoder
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods import elecrec
from conseq.methods.elecrec import ELECRec, ELECRecConfig
from conseq.objectives.detection import fill_in

N_ITEMS = 9
LISTS = [[1, 2, 3, 4], [6, 7, 8, 4], [2, 4, 6], [9, 1, 5, 3], [5, 6]]
both_ways = pytest.mark.parametrize("instances", ["prefixes", "whole"])
shares = pytest.mark.parametrize("share", ["all", "items"])


def make(config: ELECRecConfig, instances: Instances = "whole", dropout: float = 0.0) -> tuple[ELECRec, Batch]:
    train = TrainSet(Sequences.from_lists(LISTS), torch.arange(5), N_ITEMS, instances=instances, max_length=6)
    torch.manual_seed(0)
    backbone = SASRecConfig(width=8, layers=2, heads=2, max_length=6, dropout=dropout, attention_dropout=0.0)
    method = ELECRec(config, train, backbone)
    with torch.no_grad():
        method.encoder.items.weight.mul_(20)
    return method, train.batch(torch.arange(len(train)))


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def states(encoder: object, batch: Batch) -> list[Tensor]:
    """The state before each next item, every history encoded on its own."""
    assert isinstance(encoder, TokenEncoder)
    found = torch.cat([encoder.states(Sequences.from_lists([row])) for row in batch.history.to_lists()])
    return list(found[batch.at].detach())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the generator guessed."""
    found: list[Tensor] = []

    def noted(*arguments: Tensor, **more: Tensor) -> Tensor:
        found.append(fill_in(*arguments, **more))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(elecrec, "fill_in", noted)
    return found


@both_ways
@shares
def test_both_terms_are_the_slow_ones(share: str, instances: Instances, drawn: list[Tensor]) -> None:
    config = ELECRecConfig(generation=0.7, detection=0.3, sample=0.6, share=share)  # type: ignore[arg-type]
    method, batch = make(config, instances)
    found = {name: term.item() for name, term in method.loss(batch, rng()).items()}
    vectors = method.encoder.items.weight.detach()
    chosen = (torch.rand(len(batch.next_ids), generator=rng()) < 0.6).tolist()
    guesses = iter(drawn[0].tolist())
    predicted, told = [], []
    for g, h, item, replaced in zip(
        states(method.generator, batch), states(method.encoder, batch), batch.next_ids.tolist(), chosen, strict=True
    ):
        scores = [float(g @ vectors[one]) for one in range(1, N_ITEMS + 1)]
        predicted.append(math.log(sum(math.exp(s) for s in scores)) - scores[item - 1])
        shown = next(guesses) if replaced else item
        true = 1 / (1 + math.exp(-float(h @ vectors[shown])))
        told.append(-math.log(true if shown == item else 1 - true))
    n = len(chosen)
    assert any(chosen)
    assert found == pytest.approx({"next_item": 0.7 * sum(predicted) / n, "detection": 0.3 * sum(told) / n}, abs=1e-4)


def test_a_power_makes_the_favourites_likelier(drawn: list[Tensor]) -> None:
    for power in (0.01, 1.0, 100.0):
        method, batch = make(ELECRecConfig(sample=1.0, power=power))
        method.loss(batch, rng())
    method, batch = make(ELECRecConfig())
    best = torch.stack(states(method.generator, batch)) @ method.encoder.items.candidates.T.detach()
    ranks = [(best > best.gather(1, one[:, None] - 1)).sum(1).double().mean() for one in drawn]
    assert float(ranks[2]) == 0
    assert ranks[0] > ranks[1] > 0


def test_nothing_is_replaced_where_the_chance_is_nothing() -> None:
    method, batch = make(ELECRecConfig(sample=0.0, detection=1.0))
    scores = (torch.stack(states(method.encoder, batch)) * method.encoder.items.weight[batch.next_ids]).sum(1)
    expected = torch.nn.functional.softplus(-scores).mean().item()
    assert method.loss(batch, rng())["detection"].item() == pytest.approx(expected, abs=1e-5)


def test_the_detection_has_no_gradient_through_the_guesses() -> None:
    method, batch = make(ELECRecConfig(share="items"))
    method.loss(batch, rng())["detection"].backward()  # type: ignore[no-untyped-call]
    assert method.own_generator is not None
    own = [one.grad for name, one in method.own_generator.named_parameters() if name != "items.weight"]
    assert all(one is None for one in own)
    assert method.encoder.items.weight.grad is not None


def test_what_is_shared() -> None:
    both, _ = make(ELECRecConfig())
    assert both.generator is both.encoder
    apart, _ = make(ELECRecConfig(share="items"))
    assert apart.generator is not apart.encoder
    assert apart.generator.items is apart.encoder.items
    shared = sum(one.numel() for one in both.parameters())
    assert sum(one.numel() for one in apart.parameters()) == 2 * shared - both.encoder.items.weight.numel()


def test_without_detection_it_is_the_generator_alone() -> None:
    method, batch = make(ELECRecConfig(detection=0.0))
    assert list(method.loss(batch, rng())) == ["next_item"]
    with pytest.raises(ValueError, match="nothing would train the discriminator, which recommends"):
        make(ELECRecConfig(detection=0.0, share="items"))
