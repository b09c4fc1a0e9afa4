from __future__ import annotations

import pytest
import torch

from conseq.nn.products import Products


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("items", [2, 15, 16, 17, 12_101])
def test_products_are_those_of_a_plain_multiplication(items: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    table, vectors = torch.randn(items, 8, dtype=dtype), torch.randn(40, 8, dtype=dtype)
    products = Products(table, 30)
    for some in (vectors[:30], vectors[30:]):  # the last call has fewer rows
        assert torch.equal(products(some), some @ table.T)


def test_products_are_of_the_table_as_it_is_now_and_hold_until_the_next_call() -> None:
    table = torch.ones(3, 2)
    products = Products(table, 2)
    first = products(torch.ones(1, 2))
    assert first.tolist() == [[2.0, 2.0, 2.0]]
    first[0, 1] = -torch.inf
    table.mul_(5)
    assert products(torch.ones(2, 2)).tolist() == [[10.0] * 3] * 2
    assert first.tolist() == [[10.0] * 3]
