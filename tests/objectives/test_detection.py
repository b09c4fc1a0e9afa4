from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conseq.nn.items import ItemTable
from conseq.objectives import detection
from conseq.objectives.detection import fill_in, masked_item, replaced_item_detection


def table(n_items: int, width: int = 6) -> ItemTable:
    torch.manual_seed(1)
    return ItemTable(n_items, width, std=0.7).double()


def problem(n_items: int, m: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Gives states, targets and weights."""
    rng = torch.Generator().manual_seed(seed)
    states = torch.randn(m, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(1, n_items + 1, (m,), generator=rng)
    return states, targets, torch.rand(m, generator=rng, dtype=torch.float64)


def masked_item_twin(states: Tensor, targets: Tensor, items: ItemTable, weights: list[float]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for g, y, w in zip(states, targets.tolist(), weights, strict=True):
        norm = sum(torch.exp(g @ items.weight[j]) for j in range(1, items.n_items + 1))
        total = total - w * torch.log(torch.exp(g @ items.weight[y]) / norm)
    return total


def test_detection_is_the_papers_sum() -> None:
    rng = torch.Generator().manual_seed(0)
    verdicts = torch.randn(20, generator=rng, dtype=torch.float64)
    changed = torch.rand(20, generator=rng) < 0.3
    total = 0.0
    for z, y in zip(verdicts.tolist(), changed.tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        total -= math.log(p) if y else math.log(1 - p)
    assert float(replaced_item_detection(verdicts, changed)) == pytest.approx(total / 20, abs=1e-12)


def test_a_certain_right_verdict_costs_nothing_and_a_certain_wrong_one_its_odds() -> None:
    verdicts = torch.tensor([200.0, -200.0])
    assert float(replaced_item_detection(verdicts, torch.tensor([True, False]))) == 0
    assert float(replaced_item_detection(verdicts, torch.tensor([False, True]))) == pytest.approx(200)


def test_no_token_to_judge_costs_nothing_and_can_be_differentiated() -> None:
    verdicts = torch.zeros(0, requires_grad=True)
    loss = replaced_item_detection(verdicts, torch.zeros(0, dtype=torch.bool))
    assert float(loss.detach()) == 0
    torch.autograd.backward(loss)


def test_detections_gradient_is_that_of_the_formula() -> None:
    verdicts = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    changed = torch.tensor([True, False, False, True, False, True, True])
    assert torch.autograd.gradcheck(lambda z: replaced_item_detection(z, changed), (verdicts,))


def test_the_masked_item_loss_and_its_gradient_are_the_papers_sum() -> None:
    items = table(11)
    states, targets, weights = problem(11, 9)
    loss, _ = masked_item(states, targets, items, weights=weights)
    expected = masked_item_twin(states, targets, items, weights.tolist())
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-10)
    ours = torch.autograd.grad(2.5 * loss, [states, items.weight])
    theirs = torch.autograd.grad(2.5 * expected, [states, items.weight])
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours, theirs, strict=True))


def test_masked_items_weigh_the_same_where_no_weights_are_given() -> None:
    items = table(11)
    states, targets, _ = problem(11, 9)
    loss, _ = masked_item(states, targets, items)
    expected = masked_item_twin(states, targets, items, [1 / 9] * 9)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-10)


def test_the_masked_item_loss_does_not_depend_on_how_many_rows_are_made_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = table(150)
    states, targets, weights = problem(150, 70)
    results = []
    for rows in (1, 7, 64, 4096):
        monkeypatch.setattr(detection, "_CPU_ROWS", rows)
        loss, found = masked_item(states, targets, items, weights=weights)
        results.append((loss.detach(), found, *torch.autograd.grad(loss, [states, items.weight])))
    for other in results[1:]:
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(results[0], other, strict=True))


def test_the_masked_item_losss_gradient_passes_gradcheck() -> None:
    items = table(5)
    states, targets, weights = problem(5, 4)

    def loss(g: Tensor, weight: Tensor) -> Tensor:
        other = ItemTable(5, 6).double()
        del other.weight
        other.weight = weight  # type: ignore[assignment]
        return masked_item(g, targets, other, weights=weights)[0]

    assert torch.autograd.gradcheck(loss, (states, items.weight.detach().clone().requires_grad_()))


@pytest.mark.parametrize("n_items", [1, 5, 127, 128, 129, 256, 300, 1000])
def test_the_item_filled_in_is_the_most_likely(n_items: int) -> None:
    items = table(n_items)
    states, targets, weights = problem(n_items, 80)
    expected = (states @ items.weight[1 : n_items + 1].T).argmax(1) + 1
    assert torch.equal(masked_item(states, targets, items, weights=weights)[1], expected)
    assert torch.equal(fill_in(states, items), expected)


@pytest.mark.parametrize("uniform", [None, torch.linspace(0, 1, 80)])
def test_padding_and_mask_are_never_filled_in_and_in_no_sum(uniform: Tensor | None) -> None:
    items = table(9)
    states, targets, weights = problem(9, 80)
    before, _ = masked_item(states, targets, items, weights=weights, uniform=uniform)
    with torch.no_grad():
        items.weight[0] = 1000 * states[0]
        items.weight[items.mask_id] = 1000 * states[1]
    after, found = masked_item(states, targets, items, weights=weights, uniform=uniform)
    assert torch.equal(before, after)
    assert int(found.min()) >= 1
    assert int(found.max()) <= 9


def test_items_are_drawn_from_the_softmax() -> None:
    items = table(6)
    state = torch.randn(1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    m = 60_000
    uniform = torch.rand(m, generator=torch.Generator().manual_seed(4))
    found = fill_in(state.expand(m, 6), items, uniform=uniform)
    expected = (state @ items.weight[1:7].T).softmax(1)[0].detach()
    seen = torch.bincount(found - 1, minlength=6) / m
    assert float((seen - expected).abs().max()) < 4 * math.sqrt(0.25 / m)


def test_the_same_numbers_draw_the_same_items_with_and_without_the_loss() -> None:
    items = table(40)
    states, targets, weights = problem(40, 80)
    uniform = torch.rand(80, generator=torch.Generator().manual_seed(5))
    _, found = masked_item(states, targets, items, weights=weights, uniform=uniform)
    assert torch.equal(found, fill_in(states, items, uniform=uniform))
    assert not torch.equal(found, fill_in(states, items))


def test_nothing_masked_costs_nothing_and_can_be_differentiated() -> None:
    items = table(5)
    states = torch.zeros(0, 6, dtype=torch.float64, requires_grad=True)
    loss, found = masked_item(states, torch.zeros(0, dtype=torch.int64), items)
    assert float(loss.detach()) == 0
    assert found.shape == (0,)
    torch.autograd.backward(loss)
    assert fill_in(states, items).shape == (0,)


def test_products_are_made_in_the_precision_of_autocast_and_summed_in_float32() -> None:
    items = table(50).float()
    states, targets, weights = problem(50, 20)
    low = states.detach().float().requires_grad_()
    exact, _ = masked_item(low, targets, items, weights=weights.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = masked_item(low, targets, items, weights=weights.float())
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=1e-2)
    gradients = [torch.autograd.grad(one, [low, items.weight]) for one in (exact, loss)]
    for a, b in zip(*gradients, strict=True):
        assert b.dtype == torch.float32
        assert float((a - b).norm() / a.norm()) < 2e-2


def test_the_masked_item_loss_has_no_gradient_of_its_gradient_and_says_so() -> None:
    states = torch.randn(3, 4, requires_grad=True)
    loss, _ = masked_item(states, torch.tensor([1, 2, 3]), ItemTable(5, 4))
    with pytest.raises(RuntimeError, match="masked_item can be differentiated once"):
        torch.autograd.grad(loss, states, create_graph=True)
