"""ELECRec: what the discriminator is shown, and both terms against a slow reading of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conseq.config import parse
from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.encoder import TokenEncoder
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.sasrec import SASRec, SASRecConfig
from conseq.methods import elecrec
from conseq.methods.elecrec import ELECRec, ELECRecConfig, _followers
from conseq.objectives.detection import fill_in

N_ITEMS = 9
LISTS = [[1, 2, 3, 4], [6, 7, 8, 4], [2, 4, 6], [9, 1, 5, 3], [5, 6]]
both_ways = pytest.mark.parametrize("instances", ["prefixes", "whole"])
shares = pytest.mark.parametrize("share", ["all", "embeddings"])


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
    with torch.no_grad():
        method.verdict.weight.mul_(50)
    found = {name: term.item() for name, term in method.loss(batch, rng()).items()}
    vectors = method.encoder.items.weight.detach()
    chosen = (torch.rand(len(batch.next_ids), generator=rng()) < 0.6).tolist()
    guesses = iter(drawn[0].tolist())
    shown = [
        next(guesses) if replaced else item for item, replaced in zip(batch.next_ids.tolist(), chosen, strict=True)
    ]
    # Place by place: what the generator expects after a history, and what the discriminator makes of that history
    # moved on by one item, the last of which may be a guess; earlier guesses are in it where they were asked for.
    predicted, told = [], []
    rows = batch.history.rows[batch.at].tolist()
    histories = batch.history.to_lists()
    asked = {
        (row, int(place)): n for n, (row, place) in enumerate(zip(rows, batch.history.positions[batch.at], strict=True))
    }
    for (row, place), n in asked.items():
        true = [*histories[row], batch.next_ids.tolist()[max(asked[one] for one in asked if one[0] == row)]]
        read = [shown[asked[row, t]] if (row, t) in asked else true[t + 1] for t in range(place + 1)]
        g = method.generator.states(Sequences.from_lists([true[: place + 1]]))[-1].detach()
        h = method.encoder.states(Sequences.from_lists([read]))[-1].detach()
        item = batch.next_ids[n].item()
        scores = [float(g @ vectors[one]) for one in range(1, N_ITEMS + 1)]
        predicted.append(math.log(sum(math.exp(s) for s in scores)) - scores[int(item) - 1])
        sure = 1 / (1 + math.exp(-float(method.verdict(h).detach())))
        told.append(-math.log(sure if shown[n] == item else 1 - sure))
    n = len(chosen)
    assert any(chosen)
    assert any(one != item for one, item in zip(shown, batch.next_ids.tolist(), strict=True))
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
    # The discriminator then reads the true sequence, from its second item on.
    moved = Sequences.from_lists(
        [[*row[1:], last] for row, last in zip(batch.history.to_lists(), batch.targets.tolist(), strict=True)]
    )
    assert torch.equal(moved.ids, batch.next_ids)
    expected = torch.nn.functional.softplus(-method.verdict(method.encoder.states(moved))).mean().item()
    assert method.loss(batch, rng())["detection"].item() == pytest.approx(expected, abs=1e-6)


def test_a_guess_is_read_by_the_verdicts_after_it() -> None:
    method, batch = make(ELECRecConfig(sample=0.0))
    true = method.encoder.states(batch.history.replace(_followers(batch, batch.next_ids)))
    changed = batch.next_ids.clone()
    changed[0] = 1 + changed[0] % N_ITEMS
    other = method.encoder.states(batch.history.replace(_followers(batch, changed)))
    differ = (true != other).any(1)
    assert differ.tolist() == (batch.history.rows == 0).tolist()


def test_the_detection_has_no_gradient_through_the_guesses() -> None:
    method, batch = make(ELECRecConfig(share="embeddings"))
    method.loss(batch, rng())["detection"].backward()  # type: ignore[no-untyped-call]
    shared = {id(one) for one in method.encoder.parameters()}
    own = [one.grad for one in method.generator.parameters() if id(one) not in shared]
    assert own
    assert all(one is None for one in own)
    assert method.encoder.items.weight.grad is not None


def test_what_is_shared() -> None:
    def size(module: torch.nn.Module) -> int:
        return sum(one.numel() for one in module.parameters())

    whole, _ = make(ELECRecConfig())
    apart, _ = make(ELECRecConfig(share="embeddings"))
    for method in (whole, apart):
        assert isinstance(method.encoder, SASRec)
        assert isinstance(method.generator, SASRec)
        assert method.generator.items is method.encoder.items
        assert method.generator.positions is method.encoder.positions
        assert method.generator.norm is not method.encoder.norm
        assert (method.generator.blocks is method.encoder.blocks) == (method is whole)
    width = 8
    # Beside one encoder: the generator's normalisation (2 D), and the verdict (D + 1).
    assert size(whole) == size(whole.encoder) + 2 * width + width + 1
    assert isinstance(apart.encoder, SASRec)
    assert size(apart) == size(whole) + size(apart.encoder.blocks)


@both_ways
@shares
def test_other_encoders_can_be_trained(share: str, instances: Instances) -> None:
    train = TrainSet(Sequences.from_lists(LISTS), torch.arange(5), N_ITEMS, instances=instances, max_length=6)
    method = ELECRec(ELECRecConfig(share=share), train, GRU4RecConfig(width=8, max_length=6))  # type: ignore[arg-type]
    assert (method.generator is method.encoder) == (share == "all")
    sum(method.loss(train.batch(torch.arange(len(train))), rng()).values()).backward()  # type: ignore[union-attr]
    assert all(one.grad is not None for one in method.parameters())


def test_a_weight_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match="detection"):
        parse(ELECRecConfig, {"detection": 0.0}, source="a test")
