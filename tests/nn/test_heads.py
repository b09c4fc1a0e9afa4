from __future__ import annotations

import math

import pytest
import torch

from conseq.nn.heads import MLP


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def test_an_mlp_by_hand() -> None:
    mlp = MLP((1, 2, 1))
    weights = [
        torch.tensor([[2.0], [-1.0]]),
        torch.tensor([0.5, 0.0]),
        torch.tensor([[3.0, 4.0]]),
        torch.tensor([-7.0]),
    ]
    with torch.no_grad():
        for parameter, weight in zip(mlp.parameters(), weights, strict=True):
            parameter.copy_(weight)
    expected = 3 * gelu(2 * 1.5 + 0.5) + 4 * gelu(-1.5) - 7
    assert mlp(torch.tensor([[1.5]])).item() == pytest.approx(expected, abs=1e-6)


def test_there_is_a_nonlinearity_after_each_layer_but_the_last() -> None:
    torch.manual_seed(0)
    mlp = MLP((4, 3, 2, 5))
    x = torch.randn(6, 4)
    first, second, third = mlp.layers
    expected = third(torch.nn.functional.gelu(second(torch.nn.functional.gelu(first(x)))))
    torch.testing.assert_close(mlp(x), expected)


def test_two_widths_make_one_linear_layer() -> None:
    mlp = MLP((4, 3))
    x = torch.randn(5, 4)
    (layer,) = mlp.layers
    assert torch.equal(mlp(x), layer(x))
    assert [tuple(one.shape) for one in mlp.parameters()] == [(3, 4), (3,)]


def test_rows_are_transformed_independently_whatever_the_leading_shape() -> None:
    torch.manual_seed(0)
    mlp = MLP((4, 8, 3))
    x = torch.randn(2, 5, 4)
    torch.testing.assert_close(mlp(x)[1, 3], mlp(x[1, 3]))


def test_weights_start_within_one_over_the_root_of_the_input_width() -> None:
    torch.manual_seed(0)
    mlp = MLP((64, 32, 16, 64))
    bounds = [1 / math.sqrt(width) for width in (64, 64, 32, 32, 16, 16)]
    for parameter, bound in zip(mlp.parameters(), bounds, strict=True):
        assert 0.8 * bound < parameter.abs().max().item() <= bound


def test_the_gradient_of_an_mlp_is_right() -> None:
    torch.manual_seed(0)
    mlp = MLP((3, 4, 2)).double()
    assert torch.autograd.gradcheck(mlp, torch.randn(5, 3, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("widths", [(), (4,)])
def test_an_mlp_without_a_layer_is_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="widths of its input and its output, found"):
        MLP(widths)
