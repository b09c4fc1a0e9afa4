from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conseq.nn.items import ItemTable
from conseq.objectives import next_item
from conseq.objectives.next_item import binary_cross_entropy, cross_entropy, generalized_bce, sampled_softmax

N_ITEMS, WIDTH = 7, 3
Term = Callable[[Tensor, ItemTable], Tensor]


def table(n_items: int = N_ITEMS, width: int = WIDTH, dtype: torch.dtype = torch.float64) -> ItemTable:
    torch.manual_seed(0)
    return ItemTable(n_items, width, std=1.0).to(dtype)


def random_states(m: int, width: int = WIDTH, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(m, width, dtype=dtype, requires_grad=True)


def random_items(*shape: int, n_items: int = N_ITEMS) -> Tensor:
    return torch.randint(1, n_items + 1, shape)


def gradients(loss: Tensor, states: Tensor, items: ItemTable) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, (states, items.weight))


def right_gradient(term: Term, states: Tensor, items: ItemTable) -> bool:
    """Compares the gradients by states and table with finite differences."""

    def of_weights(one: Tensor, weight: Tensor) -> Tensor:
        other = ItemTable(items.n_items, items.width)
        del other.weight
        other.weight = weight  # type: ignore[assignment]
        return term(one, other)

    found: bool = torch.autograd.gradcheck(of_weights, (states, items.weight))
    return found


# Full softmax


def test_full_softmax_by_hand() -> None:
    items = table(2, 1)
    with torch.no_grad():
        items.weight[:, 0] = torch.tensor([50.0, 1.0, 0.0, 50.0])  # padding and mask would dominate the sum
    loss = cross_entropy(torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.tensor([1, 2]), items)
    first, second = math.log(math.e + 1) - 1, math.log(math.e**2 + 1)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-12)


@pytest.mark.parametrize("m", [1, 5, 64, 65, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_softmax_equals_torchs_on_whole_logits(m: int, dtype: torch.dtype) -> None:
    items, states, targets = table(30, 8, dtype), random_states(m, 8, dtype), random_items(m, n_items=30)
    loss = cross_entropy(states, targets, items)
    expected = F.cross_entropy(states @ items.weight[1:31].T, targets - 1)
    torch.testing.assert_close(loss, expected)
    assert loss.dtype == dtype
    for ours, theirs in zip(gradients(loss, states, items), gradients(expected, states, items), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_the_number_of_rows_held_at_once_does_not_show(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items, states, targets = table(), random_states(7), random_items(7)
    whole = cross_entropy(states, targets, items)
    monkeypatch.setattr(next_item, "_CPU_ROWS", rows)
    chunked = cross_entropy(states, targets, items)
    torch.testing.assert_close(chunked, whole)
    for a, b in zip(gradients(chunked, states, items), gradients(whole, states, items), strict=True):
        torch.testing.assert_close(a, b)


def test_the_gradient_of_full_softmax_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_item, "_CPU_ROWS", 2)
    targets = torch.tensor([1, 7, 3, 3, 1])
    assert right_gradient(lambda states, items: cross_entropy(states, targets, items) * 3, random_states(5), table())


def test_padding_and_mask_get_no_gradient_from_the_softmax() -> None:
    items, states = table(), random_states(4)
    _, by_table = gradients(cross_entropy(states, random_items(4), items), states, items)
    assert by_table[0].abs().sum() == 0
    assert by_table[N_ITEMS + 1].abs().sum() == 0
    assert bool((by_table[1 : N_ITEMS + 1].abs().sum(1) > 0).all())


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_large_logits_stay_finite(scale: float) -> None:
    items, states, targets = table(dtype=torch.float32), random_states(4, dtype=torch.float32), random_items(4)
    loss = cross_entropy(states * scale, targets, items)
    assert bool(loss.isfinite())
    assert all(bool(one.isfinite().all()) for one in gradients(loss, states, items))


@pytest.mark.parametrize(("by_states", "by_table"), [(True, False), (False, True)])
def test_a_frozen_side_gets_no_gradient(*, by_states: bool, by_table: bool) -> None:
    items = table()
    states = random_states(4).detach().requires_grad_(by_states)
    items.weight.requires_grad_(by_table)
    torch.autograd.backward(cross_entropy(states, random_items(4), items))
    assert (states.grad is not None) == by_states
    assert (items.weight.grad is not None) == by_table


def test_full_softmax_writes_into_neither_states_nor_table() -> None:
    items, states = table(), random_states(4)
    before = states.detach().clone(), items.weight.detach().clone()
    torch.autograd.backward(cross_entropy(states, random_items(4), items))
    assert torch.equal(states, before[0])
    assert torch.equal(items.weight, before[1])


def test_under_autocast_the_loss_is_close_and_its_gradients_keep_their_type() -> None:
    items, states, targets = table(50, 16, torch.float32), random_states(70, 16, torch.float32), random_items(70)
    exact = cross_entropy(states, targets, items)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(states, targets, items)
    assert loss.item() == pytest.approx(exact.item(), rel=0.01)
    for low, high in zip(gradients(loss, states, items), gradients(exact, states, items), strict=True):
        assert low.dtype == torch.float32
        assert F.cosine_similarity(low.flatten(), high.flatten(), dim=0) > 0.999


def test_a_loss_without_targets_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one target, found none"):
        cross_entropy(torch.empty(0, WIDTH), torch.empty(0, dtype=torch.int64), table())


# Losses over sampled items


def scores_of(states: Tensor, items: ItemTable, m: int, item: int) -> float:
    return (states[m] @ items.weight[item]).item()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("n", [1, 4])
def test_binary_cross_entropy_is_the_papers_sum(n: int) -> None:
    items, states, targets, negatives = table(), random_states(5), random_items(5), random_items(5, n)
    total = 0.0
    for m in range(5):
        total -= math.log(sigmoid(scores_of(states, items, m, int(targets[m]))))
        for negative in negatives[m].tolist():
            total -= math.log(1 - sigmoid(scores_of(states, items, m, negative)))
    assert binary_cross_entropy(states, targets, negatives, items).item() == pytest.approx(total / 5, abs=1e-12)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("calibration", [0.0, 0.25, 1.0])
def test_gbce_is_the_papers_sum(n: int, calibration: float) -> None:
    items, states, targets, negatives = table(), random_states(5), random_items(5), random_items(5, n)
    alpha = n / (N_ITEMS - 1)
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    total = 0.0
    for m in range(5):
        total -= math.log(sigmoid(scores_of(states, items, m, int(targets[m]))) ** beta)
        for negative in negatives[m].tolist():
            total -= math.log(1 - sigmoid(scores_of(states, items, m, negative)))
    loss = generalized_bce(states, targets, negatives, items, calibration=calibration)
    assert loss.item() == pytest.approx(total / 5, abs=1e-12)


def test_gbce_without_calibration_is_binary_cross_entropy() -> None:
    items, states, targets, negatives = table(), random_states(5), random_items(5), random_items(5, 2)
    ours = generalized_bce(states, targets, negatives, items, calibration=0.0)
    torch.testing.assert_close(ours, binary_cross_entropy(states, targets, negatives, items))


def test_gbce_over_every_other_item_is_binary_cross_entropy_whatever_the_calibration() -> None:
    items, states, targets = table(), random_states(2), torch.tensor([1, 4])
    others = torch.tensor([[2, 3, 4, 5, 6, 7], [1, 2, 3, 5, 6, 7]])
    ours = generalized_bce(states, targets, others, items, calibration=1.0)
    torch.testing.assert_close(ours, binary_cross_entropy(states, targets, others, items))


@pytest.mark.parametrize("calibration", [-0.1, 1.1])
def test_a_calibration_outside_its_range_is_refused(calibration: float) -> None:
    with pytest.raises(ValueError, match=r"calibration must be in \[0, 1\], found"):
        generalized_bce(random_states(1), random_items(1), random_items(1, 1), table(), calibration=calibration)


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_sampled_softmax_is_the_papers_sum(*, corrected: bool, shared: bool) -> None:
    items, states, targets = table(), random_states(5), random_items(5)
    negatives = random_items(4) if shared else random_items(5, 4)
    log_q = torch.randn(negatives.shape, dtype=torch.float64) if corrected else None
    total = 0.0
    for m in range(5):
        row = negatives if shared else negatives[m]
        target = math.exp(scores_of(states, items, m, int(targets[m])))
        norm = target
        for n, negative in enumerate(row.tolist()):
            if negative != int(targets[m]):
                value = math.exp(scores_of(states, items, m, negative))
                if log_q is not None:
                    value /= 4 * math.exp(float(log_q[n] if shared else log_q[m, n]))
                norm += value
        total -= math.log(target / norm)
    loss = sampled_softmax(states, targets, negatives, items, log_q=log_q)
    assert loss.item() == pytest.approx(total / 5, abs=1e-12)


@pytest.mark.parametrize("target", [1, 3])
def test_the_corrected_sum_over_the_sample_expects_the_sum_over_the_catalogue(target: int) -> None:
    items, state = table(4), random_states(1).detach()
    chance = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    score = math.exp(scores_of(state, items, 0, target))
    expected = 0.0
    for drawn in itertools.product(range(4), repeat=3):  # every sample of three, with its probability
        negatives = torch.tensor(drawn) + 1
        loss = sampled_softmax(state, torch.tensor([target]), negatives, items, log_q=chance[list(drawn)].log())
        expected += float(chance[list(drawn)].prod()) * score * math.exp(loss.item())
    catalogue = sum(math.exp(scores_of(state, items, 0, item)) for item in range(1, 5))
    assert expected == pytest.approx(catalogue, rel=1e-12)


def test_all_other_items_once_and_uncorrected_make_the_full_softmax() -> None:
    items, states, targets = table(), random_states(6), random_items(6)
    everything = torch.arange(1, N_ITEMS + 1)  # the target among them is left out of the sample
    sampled = sampled_softmax(states, targets, everything, items, log_q=None)
    torch.testing.assert_close(sampled, cross_entropy(states, targets, items))


def test_a_sample_of_nothing_but_the_target_costs_nothing() -> None:
    items, states = table(), random_states(2)
    loss = sampled_softmax(states, torch.tensor([2, 5]), torch.tensor([[2, 2], [5, 5]]), items, log_q=None)
    assert loss.item() == 0
    assert all(one.abs().sum() == 0 for one in gradients(loss, states, items))


SAMPLED: dict[str, Callable[[Tensor, Tensor, Tensor, ItemTable], Tensor]] = {
    "binary_cross_entropy": binary_cross_entropy,
    "gbce": lambda s, t, n, i: generalized_bce(s, t, n, i, calibration=0.75),
    "sampled_softmax": lambda s, t, n, i: sampled_softmax(s, t, n, i, log_q=None),
    "sampled_softmax_corrected": lambda s, t, n, i: sampled_softmax(s, t, n, i, log_q=torch.tensor(-1.5)),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_gradients_of_the_sampled_losses_are_right(name: str) -> None:
    targets, negatives = torch.tensor([1, 7, 3]), torch.tensor([[2, 2], [7, 1], [6, 3]])
    assert right_gradient(lambda s, items: SAMPLED[name](s, targets, negatives, items), random_states(3), table())


@pytest.mark.parametrize("name", SAMPLED)
def test_items_neither_target_nor_sampled_get_no_gradient(name: str) -> None:
    items, states = table(), random_states(2)
    loss = SAMPLED[name](states, torch.tensor([1, 2]), torch.tensor([[4, 5], [5, 4]]), items)
    _, by_table = gradients(loss, states, items)
    assert by_table.abs().sum(1).nonzero().flatten().tolist() == [1, 2, 4, 5]


@pytest.mark.parametrize("name", SAMPLED)
def test_the_sampled_losses_stay_finite_at_large_scores(name: str) -> None:
    items, states = table(dtype=torch.float32), random_states(5, dtype=torch.float32)
    loss = SAMPLED[name](states * 1e4, random_items(5), random_items(5, 3), items)
    assert bool(loss.isfinite())
    assert all(bool(one.isfinite().all()) for one in gradients(loss, states, items))


def test_full_softmax_has_no_gradient_of_its_gradient_and_says_so() -> None:
    states = torch.randn(3, 4, requires_grad=True)
    loss = cross_entropy(states, torch.tensor([1, 2, 3]), ItemTable(5, 4))
    with pytest.raises(RuntimeError, match="cross_entropy can be differentiated once"):
        torch.autograd.grad(loss, states, create_graph=True)
