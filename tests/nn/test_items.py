from __future__ import annotations

import pytest
import torch

from conseq.nn.items import ItemTable


def test_the_table_has_a_row_for_padding_and_one_for_the_mask() -> None:
    items = ItemTable(3, 4)
    assert items.weight.shape == (5, 4)
    assert items.mask_id == 4
    assert items.width == 4
    assert items.weight[0].tolist() == [0, 0, 0, 0]
    assert bool((items.weight[1:] != 0).all())


def test_candidates_are_the_items_alone() -> None:
    items = ItemTable(3, 4)
    assert torch.equal(items.candidates, items.weight[1:4])


def test_vectors_have_the_shape_of_the_ids() -> None:
    items = ItemTable(3, 4)
    ids = torch.tensor([[1, 3], [0, 4]])
    assert torch.equal(items(ids), items.weight[ids])
    assert items(torch.empty(0, dtype=torch.int64)).shape == (0, 4)


def test_padding_learns_nothing_from_being_looked_up() -> None:
    items = ItemTable(3, 4)
    items(torch.tensor([0, 2, 0])).sum().backward()  # type: ignore[no-untyped-call]
    assert items.weight.grad is not None
    assert items.weight.grad.sum(1).tolist() == [0, 0, 4, 0, 0]


def test_the_initial_spread_is_the_one_asked_for() -> None:
    torch.manual_seed(0)
    assert ItemTable(1000, 64, std=0.5).candidates.std().item() == pytest.approx(0.5, rel=0.02)


def test_a_table_without_items_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one item, found 0"):
        ItemTable(0, 4)
