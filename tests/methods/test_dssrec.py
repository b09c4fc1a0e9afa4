"""DSSRec: its vectors and both losses beside slow sums, the cut, its two stages."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.dssrec import DSSRec, DSSRecConfig, Intents, cut, told_items, told_vectors
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Trainer

N_ITEMS = 9
LISTS = [[1, 2, 3, 4], [6, 7, 8, 4, 9], [2, 4, 6], [9, 1, 5, 3], [5, 6]]
CALM = SASRecConfig(width=8, layers=1, heads=2, max_length=6, dropout=0.0, attention_dropout=0.0, positions="end")


def make(config: DSSRecConfig, instances: Instances = "whole", backbone: SASRecConfig = CALM) -> tuple[DSSRec, Batch]:
    train = TrainSet(Sequences.from_lists(LISTS), torch.arange(5), N_ITEMS, instances=instances, max_length=6)
    torch.manual_seed(0)
    method = DSSRec(config, train, backbone)
    with torch.no_grad():
        for one in method.parameters():
            one.add_(torch.randn_like(one) * 0.3)
    method.begin_epoch(1, rng())
    return method, train.batch(torch.arange(len(train)))


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def norm(layer: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    return (x - x.mean()) / x.var(correction=0).sqrt() * layer.weight + layer.bias


def slow_vectors(intents: Intents, states: Tensor, *, after: bool) -> Tensor:
    """The vectors of one sequence, item by item and intent by intent."""
    k, d = intents.prototypes.shape
    n, longest = len(states), len(intents.positions)
    places = [intents.positions[longest - n + t] for t in range(n)]
    query = norm(intents.of_query, intents.query + intents.positions[-1] + states[-1])
    relevance = []
    for t in range(n):
        key = norm(intents.of_key, states[t] + places[t])
        key = key + torch.relu(intents.key.weight @ key + intents.key.bias)
        relevance.append(math.exp(float(key @ query) / math.sqrt(d)))
    out = (intents.after if after else intents.before).clone()
    for t in range(n):
        likeness = [
            math.exp(float(norm(intents.of_state, states[t]) @ norm(intents.of_prototype, one)) / math.sqrt(d))
            for one in intents.prototypes
        ]
        for intent in range(k):
            out[intent] += likeness[intent] / sum(likeness) * relevance[t] / sum(relevance) * states[t]
    return torch.stack([norm(intents.of_vector, one) for one in out])


def slow_items(vectors: Tensor, items: Tensor) -> float:
    total, scale = 0.0, math.sqrt(items.shape[1])
    for i, of_one in enumerate(vectors):
        own = max(math.exp(float(v @ items[i]) / scale) for v in of_one)
        total -= math.log(own / sum(math.exp(float(v @ item) / scale) for v in of_one for item in items))
    return total


def slow_pairs(vectors: Tensor, others: Tensor) -> list[float]:
    scale = math.sqrt(vectors.shape[2])
    everything = [w for of_one in others for w in of_one]
    return [
        -math.log(math.exp(float(v @ w) / scale) / sum(math.exp(float(v @ one) / scale) for one in everything))
        for of_one, beside in zip(vectors, others, strict=True)
        for v, w in zip(of_one, beside, strict=True)
    ]


@torch.no_grad()
@pytest.mark.parametrize("instances", ["whole", "prefixes"])
def test_both_terms_are_those_of_slow_sums(instances: Instances) -> None:
    method, batch = make(DSSRecConfig(intents=3, item=0.7, sequence=0.4, confident=0.6), instances)
    ((group, found),) = method.updates(batch, rng(5))
    whole = Sequences.from_lists(
        LISTS if instances == "whole" else [row[:n] for row in LISTS for n in range(2, len(row) + 1)]
    )
    before, after = cut(whole, rng(5))
    sides: list[list[Tensor]] = [[], []]
    for side, seqs in enumerate((before, after)):
        for row in seqs.to_lists():
            states = method.encoder.states(Sequences.from_lists([row]))
            sides[side].append(slow_vectors(method.intents, states, after=side == 1))
    vectors, others = (torch.stack(side) for side in sides)
    following = method.encoder.items.weight[torch.tensor([row[-1] for row in after.to_lists()])]
    pairs = sorted(slow_pairs(vectors, others))
    kept = pairs[: math.floor(0.6 * len(pairs))]
    assert group == "pretraining"
    assert {name: term.item() for name, term in found.items()} == pytest.approx(
        {
            "item": 0.7 * slow_items(vectors, following) / len(whole),
            "sequence": 0.4 * sum(kept) / len(whole),
        },
        rel=1e-4,
    )


def test_a_vector_of_an_intent_stays_finite_however_great_the_products() -> None:
    vectors, items = torch.full((3, 2, 4), 30.0), torch.full((3, 4), 30.0)
    assert told_items(vectors, items).item() == pytest.approx(3 * math.log(6), rel=1e-3)
    assert told_vectors(vectors, vectors, 1.0).item() == pytest.approx(6 * math.log(6), rel=1e-3)


def test_one_pair_at_least_learns() -> None:
    vectors = torch.randn(2, 2, 4, generator=rng())
    others = torch.randn(2, 2, 4, generator=rng(4))
    assert told_vectors(vectors, others, 0.01).item() == pytest.approx(min(slow_pairs(vectors, others)), rel=1e-5)


# The cut


def test_a_cut_leaves_an_item_before_it_and_two_after_it_where_there_are_three() -> None:
    lists = [[1, 2], [3, 4, 5], [1, 2, 3, 4, 5, 6]] * 500
    before, after = (part.to_lists() for part in cut(Sequences.from_lists(lists), rng()))
    places: dict[int, Counter[int]] = {2: Counter(), 3: Counter(), 6: Counter()}
    for row, left, right in zip(lists, before, after, strict=True):
        assert left + right[::-1] == row
        places[len(row)][len(left)] += 1
    assert set(places[2]) == {1}
    assert set(places[3]) == {1}
    assert set(places[6]) == {1, 2, 3, 4}
    assert all(90 < count < 160 for count in places[6].values())  # 125 expected, standard deviation 10


@pytest.mark.parametrize("instances", ["whole", "prefixes"])
def test_what_is_cut_is_the_history_with_the_item_after_it(instances: Instances) -> None:
    method, batch = make(DSSRecConfig(), instances)
    seen: list[list[int]] = []

    def noted(before: Sequences, after: Sequences) -> dict[str, Tensor]:
        seen.extend(a + b[::-1] for a, b in zip(before.to_lists(), after.to_lists(), strict=True))
        return {"item": torch.zeros(())}

    method.pretraining_loss = noted  # type: ignore[method-assign]
    list(method.updates(batch, rng()))
    expected = LISTS if instances == "whole" else [row[:n] for row in LISTS for n in range(2, len(row) + 1)]
    assert sorted(seen) == sorted(expected)


# The stages


def test_the_first_epochs_pretrain_and_the_others_learn_the_next_item() -> None:
    method, batch = make(DSSRecConfig(pretrain=2))
    found = []
    for epoch in (1, 2, 3):
        method.begin_epoch(epoch, rng())
        found.append([(group, list(terms)) for group, terms in method.updates(batch, rng())])
    pretrained = [("pretraining", ["item", "sequence"])]
    assert found == [pretrained, pretrained, [("next", ["next_item"])]]


def test_after_pretraining_it_is_next_item_training() -> None:
    method, batch = make(DSSRecConfig(pretrain=1))
    plain = NextItem(NextItemConfig(loss="binary_cross_entropy"), method.train_set, CALM)
    plain.encoder.load_state_dict(method.encoder.state_dict())
    method.begin_epoch(2, rng())
    ((group, found),) = method.updates(batch, rng())
    assert group == "next"
    assert torch.equal(found["next_item"], plain.loss(batch, rng())["next_item"])


def test_the_intents_learn_in_the_first_stage_alone() -> None:
    method, _ = make(DSSRecConfig(pretrain=1))
    trainer = Trainer(method, TrainingConfig(epochs=2, batch_size=3, patience=None), lambda _: {"NDCG@20": 0.0})
    first = {name: one.clone() for name, one in method.intents.state_dict().items()}
    trainer._run_epoch()
    second = {name: one.clone() for name, one in method.intents.state_dict().items()}
    trainer._run_epoch()
    assert all(not torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(second[name], one) for name, one in method.intents.state_dict().items())


@pytest.mark.parametrize("weightless", ["item", "sequence"])
def test_a_task_without_a_weight_is_left_out(weightless: str) -> None:
    method, batch = make(DSSRecConfig(**{weightless: 0.0}))  # type: ignore[arg-type]
    ((_, found),) = method.updates(batch, rng())
    assert list(found) == [name for name in ("item", "sequence") if name != weightless]


def test_there_must_be_something_to_pretrain_by() -> None:
    with pytest.raises(ValueError, match="item and sequence are 0: nothing is pretrained; use method 'next_item'"):
        make(DSSRecConfig(item=0.0, sequence=0.0))


def test_its_constants_are_drawn_and_its_positions_start_at_nothing() -> None:
    torch.manual_seed(0)
    intents = Intents(200, 64, 50)
    assert not intents.positions.any()
    assert not intents.query.any()
    for one in (intents.prototypes, intents.before, intents.after):
        assert one.std().item() == pytest.approx(1 / 8, rel=0.03)
    vectors = intents(torch.randn(5, 64), Sequences.from_lists([[1, 2], [3, 4, 5]]), after=True)
    assert vectors.shape == (2, 200, 64)
    assert torch.allclose(F.layer_norm(vectors, (64,)), vectors, atol=1e-5)
