from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.train_set import TrainSet
from conseq.encoders.attentive import Attentive, AttentiveConfig, attend
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.nn.items import ItemTable

LISTS = [[3, 1], [2], [5, 9, 2, 6, 5], [7, 7, 1], [5, 9, 2, 6, 5, 1, 2, 3]]


def model(**settings: object) -> Attentive:
    torch.manual_seed(0)
    config = AttentiveConfig(**{"width": 4, "max_length": 6, **settings})  # type: ignore[arg-type]
    one = config(ItemTable(12, 4, std=1)).double().eval()
    torch.nn.init.normal_(one.positions.weight)  # as large as the items, so that positions show
    torch.nn.init.normal_(one.hidden.weight)
    return one


def interest(one: Attentive, history: list[int], first_position: int) -> Tensor:
    """Gives eqs. 2-3 of the paper, item by item."""
    w1, w2 = one.hidden.weight, one.logit.weight
    items = [one.items.weight[item] for item in history]
    logits = [
        (w2 @ torch.tanh(w1 @ (item + one.positions.weight[first_position + t]))).item() for t, item in enumerate(items)
    ]
    norm = math.fsum(math.exp(logit) for logit in logits)
    total = torch.zeros(4, dtype=torch.float64)
    for logit, item in zip(logits, items, strict=True):
        total += math.exp(logit) / norm * item
    return total


@pytest.mark.parametrize("hidden", [None, 3])
def test_a_user_vector_is_the_papers_sum(hidden: int | None) -> None:
    one = model(hidden=hidden)
    assert one.hidden.weight.shape == (16 if hidden is None else 3, 4)
    expected = [interest(one, row[-6:], 0) for row in LISTS]
    torch.testing.assert_close(one(Sequences.from_lists(LISTS)), torch.stack(expected))


def test_positions_may_count_back_from_the_end() -> None:
    one = model(positions="end")
    expected = [interest(one, row[-6:], 6 - len(row[-6:])) for row in LISTS]
    torch.testing.assert_close(one(Sequences.from_lists(LISTS)), torch.stack(expected))


def test_positions_are_in_the_weights_and_not_in_the_mean() -> None:
    one = model()
    same = one(Sequences.from_lists([[4, 4, 4], [4]]))
    torch.testing.assert_close(same, one.items.weight[[4, 4]])
    swapped = one(Sequences.from_lists([[1, 2], [2, 1]]))
    assert not torch.allclose(swapped[0], swapped[1])


def test_one_item_is_its_own_interest() -> None:
    one = model()
    assert torch.equal(one(Sequences.from_lists([[5]]))[0], one.items.weight[5])


def test_dropout_disturbs_the_weights_alone() -> None:
    one = model(dropout=0.9).train()
    same = one(Sequences.from_lists([[4, 4, 4], [4]]))
    torch.testing.assert_close(same, one.items.weight[[4, 4]])
    history = Sequences.from_lists([[1, 2, 3]])
    assert not torch.allclose(one(history), one(history))


def test_the_weighted_mean_is_a_softmax_worked_out_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3), 5.0])
    values = torch.tensor([[4.0, 0.0], [0.0, 4.0], [7.0, 8.0]])
    pooled = attend(logits, values, Sequences.from_lists([[1, 1], [], [1]]))
    torch.testing.assert_close(pooled, torch.tensor([[1.0, 3.0], [0.0, 0.0], [7.0, 8.0]]))


def test_great_logits_of_one_sequence_neither_overflow_nor_reach_another() -> None:
    logits = torch.tensor([900.0, 900.0, -900.0, -900.0 + math.log(3)])
    values = torch.tensor([[2.0], [4.0], [4.0], [8.0]])
    pooled = attend(logits, values, Sequences.from_lists([[1, 1], [1, 1]]))
    torch.testing.assert_close(pooled, torch.tensor([[3.0], [7.0]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_less_precise_logits_sum_to_one(dtype: torch.dtype) -> None:
    seqs = Sequences.from_lists([[1] * n for n in range(1, 50)])
    logits = torch.randn(seqs.ids.numel(), generator=torch.Generator().manual_seed(0))
    ones = torch.ones(len(logits), 1)
    for values in (ones, ones.to(dtype)):
        sums = attend(logits.to(dtype), values, seqs)
        assert sums.dtype == torch.float32
        torch.testing.assert_close(sums, torch.ones(len(seqs), 1), rtol=0, atol=1e-6)


def test_full_precision_is_kept_as_it_is() -> None:
    seqs = Sequences.from_lists([[1, 1, 1], [1, 1]])
    for dtype in (torch.float32, torch.float64):
        logits = torch.randn(5, dtype=dtype, generator=torch.Generator().manual_seed(0))
        values = torch.eye(5, dtype=dtype)
        weights = attend(logits, values, seqs)
        assert weights.dtype == dtype
        a, b = (logits[some] - logits[some].max() for some in (slice(3), slice(3, 5)))
        assert torch.equal(weights[0, :3], a.exp() / a.exp().sum())
        assert torch.equal(weights[1, 3:], b.exp() / b.exp().sum())


def test_the_gradient_of_the_weighted_mean_is_right() -> None:
    seqs = Sequences.from_lists([[1, 1, 1], [1], [1, 1]])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, dtype=torch.float64, generator=generator).requires_grad_()
    values = torch.randn(6, 3, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: attend(a, b, seqs), (logits, values))


def test_a_table_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="the item table is 8 wide, the encoder 4"):
        AttentiveConfig(width=4)(ItemTable(12, 8))


def test_it_has_no_token_states_and_says_how_to_train_it() -> None:
    rows = Sequences.from_lists([[1, 2, 3], [2, 3]])
    train = TrainSet(rows, torch.arange(2), 4, instances="whole", max_length=5)
    one = NextItem(NextItemConfig(), train, AttentiveConfig(width=4, max_length=5))
    with pytest.raises(ValueError, match="Attentive has no token states; train it with instances 'prefixes'"):
        one.loss(train.batch(torch.arange(2)), torch.Generator())
