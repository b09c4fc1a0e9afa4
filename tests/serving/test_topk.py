"""The grouped top-k against torch's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conseq.serving.topk import GROUP, top_k


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), columns=st.integers(1, 2000), k=st.integers(1, 40), seed=st.integers(0, 9999))
def test_values_are_those_of_torch_and_stand_at_the_columns_given(rows: int, columns: int, k: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, columns, generator=rng)
    scores[torch.rand(rows, columns, generator=rng) < 0.3] = -torch.inf
    k = min(k, columns)
    values, at = top_k(scores, k)
    assert torch.equal(values, scores.topk(k).values)
    assert torch.equal(scores.gather(1, at), values)
    assert all(row.unique().numel() == k for row in at)


@pytest.mark.parametrize("columns", [4 * GROUP, 4 * GROUP + 1, 5 * GROUP - 1])
def test_the_last_column_is_found_where_the_columns_do_not_fill_the_groups(columns: int) -> None:
    scores = torch.zeros(2, columns)
    scores[0, -1] = 1.0
    scores[1, 0] = 1.0
    assert top_k(scores, 1)[1].flatten().tolist() == [columns - 1, 0]


def test_equal_scores_are_each_given_once() -> None:
    values, at = top_k(torch.ones(1, 1000), 10)
    assert values.tolist() == [[1.0] * 10]
    assert len(set(at[0].tolist())) == 10


def test_a_score_that_is_no_number_is_not_hidden() -> None:
    scores = torch.zeros(1, 1000)
    scores[0, 700] = torch.nan
    assert bool(top_k(scores, 3)[0].isnan().any())
