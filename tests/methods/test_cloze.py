"""The cloze task: what it masks, and that its loss is the softmax of what stood there."""

from __future__ import annotations

import math

import pytest
import torch

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.bert4rec import BERT4RecConfig
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.cloze import Cloze, ClozeConfig

N_ITEMS = 9
LISTS = [[1, 2, 3, 4], [6, 7, 8, 4], [2, 4, 6], [9, 1, 5, 3], [5, 6]]
both_ways = pytest.mark.parametrize("instances", ["prefixes", "whole"])


def make(config: ClozeConfig, instances: Instances = "whole") -> tuple[Cloze, Batch]:
    train = TrainSet(Sequences.from_lists(LISTS), torch.arange(5), N_ITEMS, instances=instances, max_length=6)
    torch.manual_seed(0)
    method = Cloze(config, train, BERT4RecConfig(width=8, layers=2, max_length=6, dropout=0.0, attention_dropout=0.0))
    with torch.no_grad():
        method.encoder.items.weight.mul_(20)
    return method, train.batch(torch.arange(len(train)))


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ends(seqs: Sequences) -> torch.Tensor:
    return torch.zeros(seqs.ids.numel(), dtype=torch.bool).index_fill(0, seqs.last, True)


@both_ways
def test_the_loss_is_the_softmax_at_the_masks_of_the_history_and_its_next_item(instances: Instances) -> None:
    method, batch = make(ClozeConfig(mask=0.4), instances)
    found = method.loss(batch, rng())
    rows = LISTS if instances == "whole" else [row[:n] for row in LISTS for n in range(2, len(row) + 1)]
    chosen = method.chosen(Sequences.from_lists(rows), rng()).tolist()
    losses, place = [], 0
    for row in rows:
        hidden = chosen[place : place + len(row)]
        place += len(row)
        read = [N_ITEMS + 1 if one else item for item, one in zip(row, hidden, strict=True)]
        states = method.encoder.states(Sequences.from_lists([read])).detach()
        for state, item, one in zip(states, row, hidden, strict=True):
            scores = [float(state @ vector) for vector in method.encoder.items.candidates.detach()]
            losses += [math.log(sum(math.exp(s) for s in scores)) - scores[item - 1]] if one else []
    assert losses
    assert {name: term.item() for name, term in found.items()} == pytest.approx(
        {"cloze": sum(losses) / len(losses)}, abs=1e-5
    )


@pytest.mark.parametrize(
    ("share", "counts"),
    [(0.0, [1, 1, 1, 1, 1]), (0.3, [1, 1, 2, 2, 3]), (0.5, [1, 2, 3, 3, 5]), (1.0, [1, 3, 5, 6, 10])],
)
def test_a_count_is_the_rounded_share_and_at_least_one(share: float, counts: list[int]) -> None:
    lengths = [1, 3, 5, 6, 10]
    method, _ = make(ClozeConfig(mask=share, last=0.0))
    chosen = method.chosen(Sequences.from_lists([[1] * n for n in lengths]), rng())
    assert [int(part.sum()) for part in torch.split(chosen, lengths)] == counts


def test_every_place_is_as_likely() -> None:
    method, _ = make(ClozeConfig(mask=0.4, last=0.0))
    seqs = Sequences.from_lists([[1, 2, 3, 4, 5]] * 4000)
    share = method.chosen(seqs, rng()).view(-1, 5).double().mean(0)
    assert torch.allclose(share, torch.full((5,), 0.4, dtype=torch.float64), atol=0.03)


def test_a_chance_is_each_items_own_and_the_last_is_masked_where_it_took_none() -> None:
    method, _ = make(ClozeConfig(mask=0.2, draw="chance", last=0.0))
    chosen = method.chosen(Sequences.from_lists([[1, 2, 3]] * 6000), rng()).view(-1, 3)
    assert bool(chosen.any(1).all())
    none = 0.8**3
    expected = torch.tensor([0.2, 0.2, 0.2 + none], dtype=torch.float64)
    assert torch.allclose(chosen.double().mean(0), expected, atol=0.03)
    assert set(chosen.sum(1).tolist()) == {1, 2, 3}


@pytest.mark.parametrize("draw", ["count", "chance"])
def test_a_share_of_sequences_has_its_last_item_masked_alone(draw: str) -> None:
    seqs = Sequences.from_lists([[1, 2, 3, 4]] * 4000)
    of_all, _ = make(ClozeConfig(mask=0.5, draw=draw, last=1.0))  # type: ignore[arg-type]
    assert torch.equal(of_all.chosen(seqs, rng()), ends(seqs))
    of_some, _ = make(ClozeConfig(mask=1.0, draw=draw, last=0.25))  # type: ignore[arg-type]
    alone = of_some.chosen(seqs, rng()).view(-1, 4).sum(1) == 1
    assert float(alone.double().mean()) == pytest.approx(0.25, abs=0.03)


def test_a_full_history_and_its_next_item_fit_the_encoder() -> None:
    train = TrainSet(
        Sequences.from_lists([[1, 2, 3, 4, 5, 6, 7, 8]]), torch.tensor([0]), N_ITEMS, instances="whole", max_length=3
    )
    method = Cloze(ClozeConfig(), train, BERT4RecConfig(width=8, max_length=3))
    assert method.loss(train.batch(torch.arange(len(train))), rng())["cloze"].isfinite()


def test_another_encoder_is_refused() -> None:
    train = TrainSet(Sequences.from_lists(LISTS), torch.arange(5), N_ITEMS, instances="whole", max_length=6)
    with pytest.raises(ValueError, match="Cloze trains encoders of class BERT4Rec, found SASRec"):
        Cloze(ClozeConfig(), train, SASRecConfig(width=8, max_length=6))  # type: ignore[arg-type]
