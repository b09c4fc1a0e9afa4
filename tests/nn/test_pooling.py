from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.nn import pooling

SEQS = Sequences.from_lists([[3, 1, 4, 1, 5], [2], [5, 9, 2], [7, 7]])


def states(width: int = 4) -> Tensor:
    return torch.randn(SEQS.ids.numel(), width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def by_sequence(values: Tensor) -> list[Tensor]:
    return list(torch.split(values, SEQS.lengths.tolist()))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_a_window_is_the_mean_of_the_last_k_states_and_never_reaches_before_the_beginning(k: int) -> None:
    values = states()
    expected = torch.stack([rows[-k:].sum(0) / min(k, len(rows)) for rows in by_sequence(values)])
    assert torch.allclose(pooling.window(values, SEQS, k), expected, atol=1e-12)


def test_a_window_of_one_is_the_last_state() -> None:
    values = states()
    expected = torch.stack([rows[-1] for rows in by_sequence(values)])
    assert torch.equal(pooling.last(values, SEQS), expected)
    assert torch.equal(pooling.window(values, SEQS, 1), expected)


def test_a_mean_is_that_of_the_sequence_alone() -> None:
    values = states()
    expected = torch.stack([rows.sum(0) / len(rows) for rows in by_sequence(values)])
    assert torch.allclose(pooling.mean(values, SEQS), expected, atol=1e-12)
    assert torch.allclose(pooling.window(values, SEQS, 5), expected, atol=1e-12)


def test_a_sequence_without_tokens_has_mean_zero() -> None:
    seqs = Sequences.from_lists([[1, 2], [], [3]])
    values = torch.ones(3, 2)
    assert pooling.mean(values, seqs).tolist() == [[1, 1], [0, 0], [1, 1]]
    assert pooling.window(values, seqs, 2).tolist() == [[1, 1], [0, 0], [1, 1]]


def test_states_stand_at_the_chosen_side_of_a_flat_vector() -> None:
    values = torch.arange(1.0, 12.0)[:, None]
    right = pooling.flatten(values, SEQS, 6, side="right").tolist()
    assert right[0] == [1, 2, 3, 4, 5, 0]
    assert right[1] == [6, 0, 0, 0, 0, 0]
    left = pooling.flatten(values, SEQS, 6, side="left").tolist()
    assert left[0] == [0, 1, 2, 3, 4, 5]
    assert left[3] == [0, 0, 0, 0, 10, 11]
    assert pooling.flatten(states(3), SEQS, 5, side="left").shape == (4, 15)


def test_a_vector_too_short_for_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="width 4 is less than the longest sequence's 5 tokens"):
        pooling.flatten(states(), SEQS, 4, side="left")


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 state, found 0"):
        pooling.window(states(), SEQS, 0)


@pytest.mark.parametrize(
    "pool",
    [
        pooling.last,
        pooling.mean,
        lambda values, seqs: pooling.window(values, seqs, 3),
        lambda values, seqs: pooling.flatten(values, seqs, 6, side="left"),
    ],
)
def test_gradients_are_those_of_the_formula(pool: Callable[[Tensor, Sequences], Tensor]) -> None:
    values = states().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pool(x, SEQS), (values,))


def test_only_the_window_receives_a_gradient() -> None:
    values = states().requires_grad_()
    torch.autograd.backward(pooling.window(values, SEQS, 2).sum())
    assert values.grad is not None
    expected = [[0, 0, 0, 0.5, 0.5], [1], [0, 0.5, 0.5], [0.5, 0.5]]
    assert [rows[:, 0].tolist() for rows in by_sequence(values.grad)] == expected
