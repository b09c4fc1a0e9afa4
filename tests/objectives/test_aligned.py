"""The contrast by positions: beside its sums, beside InfoNCE of the flattened states, and its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences, concatenate
from conseq.nn import pooling
from conseq.objectives.aligned import aligned_info_nce
from conseq.objectives.contrast import info_nce


def views(lengths: list[int], width: int = 4, scale: float = 0.7) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    states = scale * torch.randn(sum(lengths), width, generator=rng, dtype=torch.float64)
    return states, torch.tensor(lengths)


def by_loop(states: Tensor, lengths: list[int], temperature: float) -> float:
    rows = [part.flip(0) for part in torch.split(states, lengths)]  # the last token first
    m = len(rows)

    def similarity(i: int, j: int) -> float:
        return sum(float(x @ y) for x, y in zip(rows[i], rows[j], strict=False)) / temperature

    total = 0.0
    for i in range(m):
        positive = similarity(i, (i + m // 2) % m)
        total -= positive - math.log(sum(math.exp(similarity(i, j)) for j in range(m) if j != i))
    return total / m


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_loss_is_that_of_its_sums(temperature: float) -> None:
    lengths = [3, 1, 7, 2, 14, 1, 1, 30]
    states, sizes = views(lengths, scale=0.3)
    found = float(aligned_info_nce(states, sizes, temperature=temperature))
    assert found == pytest.approx(by_loop(states, lengths, temperature), abs=1e-6)


@pytest.mark.parametrize("longest", [1, 5, 6, 7, 24, 60, 900])
def test_the_loss_is_info_nce_of_the_concatenated_states(longest: int) -> None:
    rng = torch.Generator().manual_seed(longest)
    lengths = torch.randint(1, longest + 1, (12,), generator=rng)
    lengths[3] = longest
    states, _ = views(lengths.tolist(), scale=0.2)
    flat = states.clone().requires_grad_()
    states.requires_grad_()
    seqs = Sequences.from_lists([[1] * n for n in lengths.tolist()])
    a, b = pooling.flatten(flat, seqs, longest, side="left").chunk(2)
    twin = info_nce(a, b, temperature=0.8)
    found = aligned_info_nce(states, lengths, temperature=0.8)
    assert torch.allclose(found, twin, atol=1e-10)
    for loss in (twin, found):
        torch.autograd.backward(3 * loss)
    assert flat.grad is not None
    assert states.grad is not None
    assert torch.allclose(states.grad, flat.grad, atol=1e-10)


def test_by_hand_with_one_token_each() -> None:
    """Similarities of 1 with the positive and 0 with the two others: log(e + 2) - 1."""
    states = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    found = aligned_info_nce(states, torch.ones(4, dtype=torch.int64), temperature=1.0)
    assert float(found) == pytest.approx(math.log(math.e + 2) - 1)


def test_the_gradient_is_right() -> None:
    states, lengths = views([2, 9, 1, 1, 3, 8], width=3)
    states.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: aligned_info_nce(x, lengths, temperature=0.7), (states,))


def test_a_state_in_low_precision_is_summed_in_float32() -> None:
    states, lengths = views([2, 9, 1, 1, 3, 8])
    low = states.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = aligned_info_nce(low, lengths, temperature=1.0)
    assert found.dtype == torch.float32
    assert torch.allclose(found, aligned_info_nce(low.float(), lengths, temperature=1.0))


def test_a_sequence_is_compared_alike_whatever_shares_its_batch() -> None:
    """Adding a pair that is orthogonal to all others adds the same two candidates of score 0 to every anchor."""
    seqs = Sequences.from_lists([[1] * n for n in (2, 9, 3, 8)])
    more = concatenate([seqs.select(torch.tensor([0, 1])), Sequences.from_lists([[1] * 20])])
    states = torch.zeros(22, 3, dtype=torch.float64)
    states[:, :2] = views([22], width=2)[0]
    alone, lengths = states, seqs.lengths
    extra = torch.zeros(20, 3, dtype=torch.float64)
    extra[:, 2] = 1.0
    together = torch.cat([alone[:11], extra, alone[11:], extra])
    sizes = torch.cat([more.lengths, lengths[2:], torch.tensor([20])])
    rows = [part.flip(0) for part in torch.split(alone, lengths.tolist())]
    scores = torch.tensor([[sum(float(x @ y) for x, y in zip(p, q, strict=False)) for q in rows] for p in rows])
    expected = sum(
        math.log(sum(math.exp(scores[i, j]) for j in range(4) if j != i) + 2) - float(scores[i, (i + 2) % 4])
        for i in range(4)
    )
    expected += 2 * (math.log(math.exp(20) + 4) - 20)
    assert float(aligned_info_nce(together, sizes, temperature=1.0)) == pytest.approx(expected / 6, rel=1e-5)


@pytest.mark.parametrize("lengths", [[2, 3], [1, 1, 1]])
def test_too_few_sequences_are_refused(lengths: list[int]) -> None:
    states, sizes = views(lengths)
    with pytest.raises(ValueError, match=f"at least 2 sequences each, found {len(lengths)} sequences"):
        aligned_info_nce(states, sizes, temperature=1.0)


def test_lengths_that_do_not_fit_the_states_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to 8 tokens, the states are 7"):
        aligned_info_nce(torch.ones(7, 2), torch.tensor([2, 2, 2, 2]), temperature=1.0)


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0, found 0"):
        aligned_info_nce(torch.ones(8, 2), torch.tensor([2, 2, 2, 2]), temperature=0.0)
