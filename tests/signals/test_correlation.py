"""Item correlations: beside their sums by hand and by loop, and what a refresh changes."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.nn.items import ItemTable
from conseq.signals import correlation
from conseq.signals.correlation import Closest, Compare, ItemCorrelation, by_co_occurrence, by_embedding

Scores = dict[tuple[int, int], float]


def log(n_users: int = 60, n_items: int = 25, seed: int = 0) -> Sequences:
    """Histories with repeats; the last item is met by nobody."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (n_users,), generator=rng).tolist()
    return Sequences.from_lists([torch.randint(1, n_items, (n,), generator=rng).tolist() for n in lengths])


def by_loop(sequences: Sequences, *, inverse_user_frequency: bool) -> Scores:
    users = [set(row) for row in sequences.to_lists()]
    met_by = {item: {u for u, met in enumerate(users) if item in met} for item in set().union(*users)}
    scores: Scores = {}
    for i, j in itertools.permutations(met_by, 2):
        common = met_by[i] & met_by[j]
        total = sum(1 / math.log(1 + len(users[u])) if inverse_user_frequency else 1.0 for u in common)
        if common:
            scores[i, j] = total / math.sqrt(len(met_by[i]) * len(met_by[j]))
    return scores


def check(found: Closest, scores: Scores, n_items: int) -> None:
    """Compares with the best pairs of ``scores``: which item only where the best is clear."""
    least, most = min(scores.values()), max(scores.values())
    for item in range(1, n_items + 1):
        own = {j: score for (i, j), score in scores.items() if i == item}
        got, value = int(found.items[item - 1]), float(found.scores[item - 1])
        if own:
            assert own[got] == pytest.approx(max(own.values()))
            assert value == pytest.approx((own[got] - least) / (most - least), abs=1e-6)
        else:
            assert (got, value) == (item, 0.0)


@pytest.mark.parametrize("inverse_user_frequency", [True, False])
@pytest.mark.parametrize("rows", [2048, 7])
def test_co_occurrence_is_that_of_its_sums(
    rows: int, inverse_user_frequency: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correlation, "_ROWS", rows)
    found = by_co_occurrence(log(), 25, inverse_user_frequency=inverse_user_frequency)
    check(found, by_loop(log(), inverse_user_frequency=inverse_user_frequency), 25)


def test_co_occurrence_by_hand() -> None:
    """Users {1, 2}, {1, 2, 3}, {3, 4}: s12 = (1/log 3 + 1/log 4) / 2, s34 = (1/log 3) / sqrt 2, s13 = (1/log 4) / 2."""
    found = by_co_occurrence(Sequences.from_lists([[1, 2], [3, 1, 2, 2], [3, 4]]), 5)
    assert found.items.tolist() == [2, 1, 4, 3, 5]
    least, most = 0.5 / math.log(4), 0.5 / math.log(3) + 0.5 / math.log(4)
    middle = (1 / math.log(3) / math.sqrt(2) - least) / (most - least)
    assert found.scores.tolist() == pytest.approx([1.0, 1.0, middle, middle, 0.0])


def test_a_repeat_in_a_history_counts_once() -> None:
    once = by_co_occurrence(Sequences.from_lists([[1, 2, 3], [1, 3], [2, 4]]), 4)
    often = by_co_occurrence(Sequences.from_lists([[1, 2, 3, 3, 3, 1], [1, 3, 1], [2, 2, 4]]), 4)
    assert torch.equal(once.items, often.items)
    assert torch.equal(once.scores, often.scores)


def test_equally_similar_items_are_told_by_their_number() -> None:
    assert by_co_occurrence(Sequences.from_lists([[4, 2, 3, 1]]), 4).items.tolist() == [2, 1, 1, 1]


@pytest.mark.parametrize("compare", get_args(Compare))
@pytest.mark.parametrize("rows", [2048, 7])
def test_similarity_of_vectors_is_that_of_its_loop(
    rows: int, compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correlation, "_ROWS", rows)
    torch.manual_seed(0)
    table = ItemTable(20, 6, std=1.0)
    with torch.no_grad():
        table.weight[21] = 100.0
    vectors = table.weight.detach().double()
    if compare == "cosine":
        vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)
    pairs = itertools.permutations(range(1, 21), 2)
    check(by_embedding(table, compare=compare), {(i, j): float(vectors[i] @ vectors[j]) for i, j in pairs}, 20)


def test_the_cosine_does_not_see_lengths() -> None:
    table = ItemTable(3, 2)
    with torch.no_grad():
        table.weight[1:4] = torch.tensor([[1.0, 0.0], [1.0, 0.1], [50.0, 50.0]])
    assert by_embedding(table, compare="dot").items.tolist() == [3, 3, 2]
    assert by_embedding(table, compare="cosine").items.tolist() == [2, 1, 2]


def test_the_only_item_is_its_own() -> None:
    found = by_embedding(ItemTable(1, 4))
    assert (found.items.tolist(), found.scores.tolist()) == ([1], [0.0])


def closest(signal: ItemCorrelation) -> Tensor:
    return signal.closest[1:-1]


def test_before_a_refresh_every_kind_is_co_occurrence() -> None:
    for kind in ("hybrid", "co_occurrence", "embedding"):
        signal = ItemCorrelation(log(), 25, kind=kind)
        assert torch.equal(closest(signal), by_co_occurrence(log(), 25).items)


def test_the_hybrid_takes_the_larger_normalised_score() -> None:
    torch.manual_seed(1)
    table = ItemTable(25, 4, std=1.0)
    signal = ItemCorrelation(log(), 25, kind="hybrid")
    signal.refresh(table)
    memory, model = by_co_occurrence(log(), 25), by_embedding(table)
    taken = []
    for row in range(25):
        use_model = float(model.scores[row]) > float(memory.scores[row])
        assert int(closest(signal)[row]) == int((model if use_model else memory).items[row])
        taken.append(use_model)
    assert 0 < sum(taken) < 25


def test_a_refresh_of_one_kind_alone_takes_that_one() -> None:
    torch.manual_seed(1)
    table = ItemTable(25, 4, std=1.0)
    memory, model = (ItemCorrelation(log(), 25, kind=kind) for kind in ("co_occurrence", "embedding"))
    for signal in (memory, model):
        signal.refresh(table)
    assert torch.equal(closest(memory), by_co_occurrence(log(), 25).items)
    assert torch.equal(closest(model), by_embedding(table).items)


def test_padding_and_mask_are_their_own() -> None:
    signal = ItemCorrelation(log(), 25)
    ids = torch.tensor([[0, 26], [25, 1]])
    assert signal(ids).tolist() == [[0, 26], [25, int(signal.closest[1])]]


def test_a_restored_state_holds_the_last_refresh() -> None:
    torch.manual_seed(2)
    one, other = ItemCorrelation(log(), 25), ItemCorrelation(log(), 25)
    one.refresh(ItemTable(25, 4, std=1.0))
    assert not torch.equal(one.closest, other.closest)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.closest, other.closest)
    assert set(one.state_dict()) == {"closest"}


def test_item_vectors_get_no_gradient_and_stay_as_they_are() -> None:
    table = ItemTable(25, 4)
    before = table.weight.detach().clone()
    signal = ItemCorrelation(log(), 25, compare="cosine")
    signal.refresh(table)
    assert not signal.closest.requires_grad
    assert torch.equal(table.weight, before)
