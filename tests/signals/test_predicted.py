from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conseq.nn.items import ItemTable
from conseq.signals.predicted import Differenced, Predicted

CHOICES: list[Differenced] = ["probability", "predicted_probability", "logit", "top_logit"]


def table(n_items: int, width: int, std: float = 0.5) -> ItemTable:
    torch.manual_seed(0)
    return ItemTable(n_items, width, std=std).double().requires_grad_(False)


def states(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_probability_is_that_of_a_softmax_over_the_items_alone() -> None:
    items = ItemTable(3, 2)
    with torch.no_grad():
        items.weight.copy_(torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [9.0, 9.0]]))
    value = Predicted(items, "probability").values(torch.tensor([[1.0, 2.0]]), torch.tensor([2]))
    assert float(value) == pytest.approx(math.exp(2) / (math.e + math.exp(2) + 1))


@pytest.mark.parametrize("differenced", CHOICES)
def test_values_equal_those_of_the_whole_matrix_of_scores(differenced: Differenced) -> None:
    items, h = table(40, 8), states(300, 8)
    targets = torch.arange(300) % 40 + 1
    predicted = Predicted(items, differenced)
    scores = h @ items.candidates.T
    chances = scores.softmax(1)
    columns = scores.argmax(1) if differenced == "predicted_probability" else targets - 1
    expected = {
        "probability": chances,
        "predicted_probability": chances,
        "logit": scores,
        "top_logit": scores.max(1, keepdim=True).values.expand_as(scores),
    }[differenced].gather(1, columns[:, None])[:, 0]
    assert torch.allclose(predicted.values(h, predicted.targets(h, targets)), expected, rtol=1e-10)


def test_a_catalogue_larger_than_a_block_is_summed_whole_and_its_best_item_found() -> None:
    items, h = table(5000, 4), states(300, 4)
    scores = h @ items.candidates.T
    assert torch.allclose(Predicted(items, "probability").log_normalizers(h), scores.logsumexp(1), rtol=1e-12)
    predicted = Predicted(items, "predicted_probability")
    assert torch.equal(predicted.targets(h, torch.ones(300, dtype=torch.int64)), scores.argmax(1) + 1)


@pytest.mark.parametrize("differenced", CHOICES)
def test_gradients_equal_those_of_autograd(differenced: Differenced) -> None:
    items, h = table(30, 6), states(150, 6).requires_grad_()
    targets = torch.arange(150) % 30 + 1
    predicted = Predicted(items, differenced)
    targets = predicted.targets(h.detach(), targets)
    scores = h @ items.candidates.T
    if differenced == "top_logit":
        value = scores.max(1).values
    else:
        table_of = scores if differenced == "logit" else scores.softmax(1)
        value = table_of.gather(1, targets[:, None] - 1)[:, 0]
    (expected,) = torch.autograd.grad(value.sum(), h)
    assert torch.allclose(predicted.gradients(h.detach(), targets), expected, atol=1e-12)


def test_scores_whose_exponentials_overflow_still_have_probabilities() -> None:
    items = table(20, 8, std=6.0).float()
    h = states(10, 8).float() * 10
    scores = h @ items.candidates.T
    assert float(scores.max()) > 200
    targets = scores.argmax(1) + 1
    found = Predicted(items, "probability").values(h, targets)
    # A score of hundreds has an error of about 1e-4 in float32.
    assert torch.allclose(found, scores.softmax(1).max(1).values, rtol=0, atol=1e-3)


def test_no_states_give_no_values() -> None:
    items = table(20, 8)
    for differenced in CHOICES:
        assert Predicted(items, differenced).values(states(0, 8), torch.empty(0, dtype=torch.int64)).shape == (0,)
