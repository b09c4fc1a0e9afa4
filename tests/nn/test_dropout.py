from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from conseq.nn.dropout import Dropout, keep_mask

LEVELS = 65536


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_the_share_dropped_is_p(p: float) -> None:
    torch.manual_seed(1)
    n = 200_000
    dropped = int((keep_mask(torch.empty(n), p) == 0).sum())
    assert abs(dropped - n * p) <= 4 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("p", [0.1, 0.5, 1 / 3, 0.99999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scale_keeps_the_mean_under_the_rounded_rate(p: float, dtype: torch.dtype) -> None:
    mask = keep_mask(torch.empty(300_000, dtype=dtype), p)
    kept = LEVELS - min(round(p * LEVELS), LEVELS - 1)
    scale = torch.tensor(LEVELS / kept, dtype=dtype)  # times the share kept, kept / LEVELS, this is 1
    assert set(mask.tolist()) == {0.0, scale.item()}


def test_the_elements_that_share_a_draw_are_independent() -> None:
    torch.manual_seed(2)
    n = 100_000
    lanes = (keep_mask(torch.empty(n, 4, dtype=torch.float64), 0.5) == 0).double()
    correlation = torch.corrcoef(lanes.T)
    assert (lanes.mean(0) - 0.5).abs().max() < 4 * 0.5 / math.sqrt(n)
    assert (correlation - torch.eye(4)).abs().max() < 4.5 / math.sqrt(n)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (2, 3, 5), (0, 4)])
def test_any_number_of_elements_can_be_masked(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    mask = keep_mask(x, 0.5)
    assert mask.shape == x.shape
    assert set(mask.flatten().tolist()) <= {0.0, 2.0}


def test_the_gradient_is_the_mask() -> None:
    torch.manual_seed(3)
    x = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    out = Dropout(0.4)(x)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    torch.manual_seed(3)
    _ = torch.randn(9, 5, dtype=torch.float64)
    mask = keep_mask(x, 0.4)
    assert x.grad is not None
    assert torch.equal(out, x * mask)
    assert torch.equal(x.grad, upstream * mask)
    assert 0 < int((mask == 0).sum()) < mask.numel()


def test_a_transposed_input_is_dropped_alike() -> None:
    x = torch.randn(6, 4)
    torch.manual_seed(4)
    straight = Dropout(0.5)(x.T.contiguous())
    torch.manual_seed(4)
    assert torch.equal(Dropout(0.5)(x.T), straight)


def test_nothing_is_dropped_in_evaluation_or_with_probability_zero() -> None:
    x = torch.randn(4, 3)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_the_input_is_not_written_to() -> None:
    x = torch.randn(50)
    before = x.clone()
    Dropout(0.5)(x)
    assert torch.equal(x, before)


def test_two_calls_differ_and_a_seed_repeats_them() -> None:
    x = torch.ones(100)
    drop = Dropout(0.5)
    torch.manual_seed(5)
    first, second = drop(x), drop(x)
    torch.manual_seed(5)
    assert torch.equal(drop(x), first)
    assert torch.equal(drop(x), second)
    assert not torch.equal(first, second)


def test_evaluation_draws_no_random_number() -> None:
    torch.manual_seed(6)
    expected = torch.rand(1)
    torch.manual_seed(6)
    Dropout(0.5).eval()(torch.ones(10))
    assert torch.equal(torch.rand(1), expected)


def test_the_spread_of_what_is_kept_is_that_of_torchs_dropout() -> None:
    torch.manual_seed(7)
    x = torch.randn(400, 500)
    ours, theirs = Dropout(0.3)(x), F.dropout(x, 0.3)
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.01)
    assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.01)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan])
def test_a_probability_outside_its_range_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), found"):
        Dropout(p)


def test_the_probability_shows() -> None:
    assert repr(Dropout(0.25)) == "Dropout(p=0.25)"
