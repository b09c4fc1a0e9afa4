from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from math import floor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, TrainSet
from conseq.signals.importance import Importance
from conseq.views.augment import View
from conseq.views.explained import (
    CropImportant,
    CropUnimportant,
    MaskImportant,
    MaskUnimportant,
    ReorderImportant,
    ReorderUnimportant,
    ranks,
)

N_ITEMS = 50
MASK = N_ITEMS + 1

MAKE: dict[str, Callable[..., Any]] = {
    "ecrop+": lambda of, share, style="paper": CropUnimportant(of, share, style),
    "emask+": lambda of, share, style="paper": MaskUnimportant(of, share, MASK, style),
    "erord+": lambda of, share, style="paper": ReorderUnimportant(of, share, style),
    "ecrop-": lambda of, share, style="paper": CropImportant(of, share, MASK, style),
    "emask-": lambda of, share, style="paper": MaskImportant(of, share, MASK, style),
    "erord-": lambda of, share, style="paper": ReorderImportant(of, share, MASK, style),
}

# Histories of different items, so that a view shows which of them it took.
histories = st.lists(
    st.integers(1, 9).flatmap(lambda n: st.lists(st.integers(1, N_ITEMS), min_size=n, max_size=n, unique=True)),
    min_size=1,
    max_size=6,
)
shares = st.sampled_from([0.0, 0.1, 0.29, 0.3, 0.5, 0.7, 0.9, 1.0])


def batch_of(lists: list[list[int]]) -> tuple[Batch, Importance]:
    """The histories as whole examples (a next item is added), with an importance for each of their items."""
    rows = Sequences.from_lists([[*row, 1] for row in lists])
    train = TrainSet(rows, torch.arange(len(lists)), N_ITEMS, instances="whole", max_length=20)
    return train.batch(torch.arange(len(lists))), Importance(train)


def scored(lists: list[list[int]], seed: int) -> tuple[Batch, Importance, list[list[float]]]:
    batch, importance = batch_of(lists)
    scores = torch.randperm(len(importance.scores), generator=torch.Generator().manual_seed(seed)).float()
    importance.put(scores)
    return batch, importance, [scores[a:b].tolist() for a, b in itertools.pairwise(batch.history.offsets.tolist())]


def by_importance(row: list[int], scores: list[float]) -> list[int]:
    return [item for _, item in sorted(zip(scores, row, strict=True))]


def draw(view: View, batch: Batch, seed: int = 0) -> list[list[int]]:
    return view(batch, torch.Generator().manual_seed(seed)).to_lists()


@settings(deadline=None, max_examples=30)
@given(lists=histories, share=shares, seed=st.integers(0, 99))
def test_a_positive_crop_drops_the_least_important_items_and_keeps_the_order(
    lists: list[list[int]], share: float, seed: int
) -> None:
    batch, importance, scores = scored(lists, seed)
    for row, values, view in zip(lists, scores, draw(MAKE["ecrop+"](importance, share), batch), strict=True):
        k = min(floor(share * len(row) + 1e-9), len(row) - 1)
        dropped = set(by_importance(row, values)[:k])
        assert view == [item for item in row if item not in dropped]


@settings(deadline=None, max_examples=30)
@given(lists=histories, share=shares, seed=st.integers(0, 99))
def test_a_positive_mask_hits_the_least_important_items(lists: list[list[int]], share: float, seed: int) -> None:
    batch, importance, scores = scored(lists, seed)
    for row, values, view in zip(lists, scores, draw(MAKE["emask+"](importance, share), batch), strict=True):
        hidden = set(by_importance(row, values)[: floor(share * len(row) + 1e-9)])
        assert view == [MASK if item in hidden else item for item in row]


@settings(deadline=None, max_examples=30)
@given(lists=histories, share=shares, seed=st.integers(0, 99))
def test_a_positive_reorder_moves_the_least_important_items_among_their_places(
    lists: list[list[int]], share: float, seed: int
) -> None:
    batch, importance, scores = scored(lists, seed)
    for row, values, view in zip(lists, scores, draw(MAKE["erord+"](importance, share), batch), strict=True):
        moved = set(by_importance(row, values)[: floor(share * len(row) + 1e-9)])
        assert sorted(view) == sorted(row)
        assert all(old == new for old, new in zip(row, view, strict=True) if old not in moved)


@settings(deadline=None, max_examples=30)
@given(lists=histories, share=shares, seed=st.integers(0, 99))
def test_a_negative_crop_keeps_the_least_important_items_alone(lists: list[list[int]], share: float, seed: int) -> None:
    batch, importance, scores = scored(lists, seed)
    for row, values, view in zip(lists, scores, draw(MAKE["ecrop-"](importance, share), batch), strict=True):
        kept = set(by_importance(row, values)[: max(1, floor(share * len(row) + 1e-9))])
        assert view == ([item for item in row if item in kept] if len(row) > 1 else [MASK])


@settings(deadline=None, max_examples=30)
@given(lists=histories, share=shares, seed=st.integers(0, 99))
def test_a_negative_mask_hits_the_most_important_items_and_at_least_one(
    lists: list[list[int]], share: float, seed: int
) -> None:
    batch, importance, scores = scored(lists, seed)
    for row, values, view in zip(lists, scores, draw(MAKE["emask-"](importance, share), batch), strict=True):
        hidden = set(by_importance(row, values)[-max(1, floor(share * len(row) + 1e-9)) :])
        assert view == [MASK if item in hidden else item for item in row]


@settings(deadline=None, max_examples=30)
@given(lists=histories, share=shares, seed=st.integers(0, 99))
def test_the_authors_counts_and_order(lists: list[list[int]], share: float, seed: int) -> None:
    batch, importance, scores = scored(lists, seed)
    views = {name: draw(make(importance, share, "released"), batch) for name, make in MAKE.items()}
    for number, (row, values) in enumerate(zip(lists, scores, strict=True)):
        n, rising = len(row), by_importance(row, values)
        most = max(1, floor((1 - share) * n + 1e-9))
        least = min(max(1, floor(share * n + 1e-9)), n - 1)
        assert views["ecrop+"][number] == rising[-most:]
        assert views["emask+"][number] == [MASK if item in rising[:least] else item for item in row]
        assert views["emask-"][number] == [MASK if item in rising[-most:] else item for item in row]
        still = zip(row, views["erord+"][number], strict=True)
        assert all(old == new for old, new in still if old not in rising[:least])
        still = zip(row, views["erord-"][number], strict=True)
        assert all(old == new for old, new in still if old not in rising[-most:])
        if n > 1:
            assert views["ecrop-"][number] == rising[: max(1, floor(share * n + 1e-9))]


@pytest.mark.parametrize("style", ["paper", "released"])
@pytest.mark.parametrize("name", ["ecrop-", "emask-", "erord-"])
def test_a_negative_view_of_one_item_is_the_mask_and_not_the_history(name: str, style: str) -> None:
    batch, importance, _ = scored([[7], [3, 4, 5]], 0)
    assert draw(MAKE[name](importance, 0.5, style), batch)[0] == [MASK]


@pytest.mark.parametrize("style", ["paper", "released"])
@pytest.mark.parametrize("name", MAKE)
@settings(deadline=None, max_examples=30)
@given(lists=histories, share=shares)
def test_no_view_is_empty_and_none_writes_into_the_data(
    name: str, style: str, lists: list[list[int]], share: float
) -> None:
    batch, importance, _ = scored(lists, 3)
    data, scores = batch.history.ids.clone(), importance.scores.clone()
    view = MAKE[name](importance, share, style)(batch, torch.Generator().manual_seed(0))
    assert int(view.lengths.min()) >= 1
    assert len(view) == len(lists)
    assert torch.equal(batch.history.ids, data)
    assert torch.equal(importance.scores, scores)


@pytest.mark.parametrize("name", MAKE)
def test_the_same_generator_gives_the_same_view(name: str) -> None:
    batch, importance, _ = scored([[1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11]], 0)
    importance.put(torch.zeros(len(importance.scores)))  # every choice is random
    view = MAKE[name](importance, 0.5)
    assert draw(view, batch, 5) == draw(view, batch, 5)
    assert len({str(draw(view, batch, seed)) for seed in range(20)}) > 10


def test_the_view_of_a_history_has_one_distribution_whatever_shares_its_batch() -> None:
    row, counts = [1, 2, 3, 4], []
    for others in ([], [[5, 6, 7, 8, 9], [10]]):
        once, importance = batch_of([row, *others])
        importance.put(torch.tensor([0.0, 0.0, 0.0, 1.0] + [0.5] * 6)[: len(importance.scores)])
        batch = importance.train_set.batch(once.rows.repeat(3000))
        views = draw(CropUnimportant(importance, 0.5), batch)
        counts.append(Counter(tuple(view) for view in views[:: len(once)]))
    assert set(counts[0]) == set(counts[1]) == {(1, 4), (2, 4), (3, 4)}
    for kept in counts[0]:
        assert abs(counts[0][kept] - 1000) < 120
        assert abs(counts[1][kept] - 1000) < 120


def test_items_of_equal_importance_stand_in_random_order() -> None:
    seqs = Sequences.from_lists([[1, 2, 3]])
    rng = torch.Generator().manual_seed(0)
    found = Counter(tuple(ranks(seqs, torch.tensor([0.5, 0.1, 0.5]), rng).tolist()) for _ in range(2000))
    assert set(found) == {(1, 0, 2), (2, 0, 1)}
    assert abs(found[1, 0, 2] - 1000) < 120


def test_a_reorder_gives_every_order_equally_often() -> None:
    once, importance = batch_of([[1, 2, 3, 4]])
    importance.put(torch.tensor([0.1, 0.9, 0.2, 0.3]))
    batch = importance.train_set.batch(once.rows.repeat(6000))
    found = Counter(tuple(view) for view in draw(ReorderUnimportant(importance, 0.75), batch))
    assert len(found) == 6
    assert all(order[1] == 2 for order in found)
    assert all(abs(count - 1000) < 120 for count in found.values())


@pytest.mark.parametrize("name", MAKE)
def test_a_share_outside_its_range_is_refused(name: str) -> None:
    _, importance = batch_of([[1, 2]])
    with pytest.raises(ValueError, match=r"in \[0, 1\], found 1\.5"):
        MAKE[name](importance, 1.5)
