"""ComiRec's interests against a slow reading of both extractions, and the score of several vectors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.comirec import ComiRecConfig, MultiInterest
from conseq.nn.items import ItemTable

LISTS = [[3, 1], [2], [5, 2, 6, 5, 2], [7, 7, 1], [1, 2, 1, 3, 4, 5, 6, 2]]


def model(**settings: object) -> MultiInterest:
    torch.manual_seed(0)
    config = ComiRecConfig(**{"width": 4, "interests": 3, "max_length": 6, **settings})  # type: ignore[arg-type]
    one = config(ItemTable(9, 4, std=1)).double().eval()
    with torch.no_grad():
        for parameter in one.extraction.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return one


def places(one: MultiInterest, n: int) -> list[int]:
    first = 0 if one.config.positions == "start" else one.config.max_length - n
    return list(range(first, first + n))


def squash(x: Tensor) -> Tensor:
    length = x.norm()
    out: Tensor = length**2 / (1 + length**2) * x / length
    return out


def attention(one: MultiInterest, history: list[int]) -> Tensor:
    parts = dict(one.extraction.named_parameters())
    e = one.items.weight[history]
    p = parts["positions.weight"][places(one, len(history))]
    hidden = torch.tanh((e + p) @ parts["hidden.weight"].T + parts["hidden.bias"])
    weights = torch.softmax(hidden @ parts["logits.weight"].T, 0)  # over the items, for each interest
    interests: Tensor = weights.T @ e
    return interests


def routing(one: MultiInterest, history: list[int]) -> Tensor:
    c, maps = one.config, dict(one.extraction.named_parameters())["maps"]
    u = [
        (maps[place] @ one.items.weight[item]).view(c.interests, c.width)
        for item, place in zip(history, places(one, len(history)), strict=True)
    ]
    b = torch.zeros(len(history), c.interests, dtype=torch.float64)
    for number in range(c.iterations):
        share = b.softmax(1)
        capsules = torch.stack(
            [squash(sum((share[t, k] * u[t][k] for t in range(len(u))), torch.zeros(4))) for k in range(c.interests)]
        )
        if number < c.iterations - 1:
            b = b + torch.stack([(one_u * capsules).sum(1) for one_u in u])
    return capsules


SLOW = {"attention": attention, "routing": routing}


@pytest.mark.parametrize("extraction", SLOW)
@pytest.mark.parametrize("settings", [{}, {"positions": "end"}, {"interests": 1}, {"interests": 5, "iterations": 2}])
def test_the_interests_are_the_slow_ones(extraction: str, settings: dict[str, object]) -> None:
    one = model(extraction=extraction, **settings)
    expected = torch.stack([SLOW[extraction](one, row[-one.config.max_length :]) for row in LISTS])
    torch.testing.assert_close(one.interests(Sequences.from_lists(LISTS)), expected)


@pytest.mark.parametrize("extraction", SLOW)
def test_an_item_s_score_is_that_of_the_interest_that_likes_it_best(extraction: str) -> None:
    one = model(extraction=extraction)
    histories = Sequences.from_lists(LISTS)
    found = one.scores(torch.full((5,), -1), histories)
    for row, interests in enumerate(one.interests(histories).tolist()):
        for item in range(1, 10):
            vector = one.items.weight[item].tolist()
            products = [sum(a * b for a, b in zip(interest, vector, strict=True)) for interest in interests]
            assert found[row, item - 1].item() == pytest.approx(max(products))
    # Different interests like different items best: the greatest is not always the same one's.
    best = torch.einsum("bkd,vd->bkv", one.interests(histories), one.items.candidates).argmax(1)
    assert len(set(best.flatten().tolist())) > 1


def test_only_the_last_round_of_the_routing_learns() -> None:
    one = model(extraction="routing", iterations=1)
    histories = Sequences.from_lists(LISTS)
    users = torch.randn(5, 3, 4, dtype=torch.float64)

    def gradient(iterations: int) -> Tensor:
        torch.manual_seed(0)
        two = model(extraction="routing", iterations=iterations)
        two.load_state_dict(one.state_dict())
        torch.autograd.backward((two.interests(histories) * users).sum())
        found = dict(two.extraction.named_parameters())["maps"].grad
        assert found is not None
        return found

    # With the shares of the third round given as constants, its gradient is that of one round with those shares.
    assert not torch.allclose(gradient(1), gradient(3))
    three = model(extraction="routing", iterations=3)
    three.load_state_dict(one.state_dict())
    maps = dict(three.extraction.named_parameters())["maps"]
    x = three.items(histories.tail(6).ids)
    recent = histories.tail(6)
    u = torch.einsum("nkd,nd->nk", maps[recent.positions], x).view(-1, 3, 4)
    with torch.no_grad():
        b = torch.zeros(len(x), 3, dtype=torch.float64)
        for _ in range(2):
            sums = torch.zeros(5, 3, 4, dtype=torch.float64).index_add(0, recent.rows, b.softmax(1)[:, :, None] * u)
            square = sums.square().sum(-1, keepdim=True)
            b = b + (u * (sums * square / (1 + square) / square.sqrt())[recent.rows]).sum(2)
    last = torch.zeros(5, 3, 4, dtype=torch.float64).index_add(0, recent.rows, b.softmax(1)[:, :, None] * u)
    square = last.square().sum(-1, keepdim=True)
    (expected,) = torch.autograd.grad(((last * square / (1 + square) / square.sqrt()) * users).sum(), maps)
    torch.testing.assert_close(gradient(3), expected)


def test_several_interests_are_not_one_vector() -> None:
    with pytest.raises(ValueError, match="a history has 3 vectors here, not one: train this encoder with the method"):
        model()(Sequences.from_lists(LISTS))
    one = model(interests=1)
    histories = Sequences.from_lists(LISTS)
    torch.testing.assert_close(one(histories), one.interests(histories)[:, 0])
