from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.caser import Activation, Caser, CaserConfig
from conseq.encoders.encoder import TokenEncoder
from conseq.nn.items import ItemTable

LISTS = [[3, 1], [2], [5, 9, 2, 6, 5, 8, 9], [7, 7, 1], [], [5, 9, 2, 6]]
FUNCTIONS = {
    "identity": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
}


def model(convolution: Activation = "relu", output: Activation = "relu", *, length: int = 4) -> Caser:
    """Gives an encoder in float64 with every weight moved away from its initial value."""
    torch.manual_seed(0)
    config = CaserConfig(
        width=3,
        max_length=length,
        horizontal_filters=2,
        vertical_filters=2,
        convolution_activation=convolution,
        output_activation=output,
    )
    made = config(ItemTable(12, 3)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def by_sums(one: Caser, history: list[int]) -> list[float]:
    """Gives the user vector by the paper's sums, filter by filter."""
    length, width = one.config.max_length, one.config.width
    weights = {name: value.tolist() for name, value in one.state_dict().items()}
    image = [[0.0] * width] * length + [weights["items.weight"][item] for item in history]
    image = image[-length:]
    features = []
    for height in range(1, length + 1):
        kernels, biases = weights[f"horizontal.{height - 1}.weight"], weights[f"horizontal.{height - 1}.bias"]
        for kernel, bias in zip(kernels, biases, strict=True):  # kernel[d][row]
            sums = [
                bias + sum(kernel[d][row] * image[top + row][d] for d in range(width) for row in range(height))
                for top in range(length - height + 1)
            ]
            features.append(max(FUNCTIONS[one.config.convolution_activation](value) for value in sums))
    for d in range(width):
        for filter_, bias in zip(weights["vertical.weight"], weights["vertical.bias"], strict=True):
            features.append(bias + sum(filter_[row] * image[row][d] for row in range(length)))
    return [
        FUNCTIONS[one.config.output_activation](bias + sum(w * f for w, f in zip(row, features, strict=True)))
        for row, bias in zip(weights["dense.weight"], weights["dense.bias"], strict=True)
    ]


@pytest.mark.parametrize(
    ("convolution", "output"), [("relu", "identity"), ("tanh", "tanh"), ("identity", "sigmoid"), ("sigmoid", "relu")]
)
def test_vectors_are_the_papers_sums(convolution: Activation, output: Activation) -> None:
    one = model(convolution, output)
    expected = torch.tensor([by_sums(one, history) for history in LISTS], dtype=torch.float64)
    torch.testing.assert_close(one(Sequences.from_lists(LISTS)), expected)


def test_what_is_missing_before_a_short_history_counts_as_zeros() -> None:
    one = model(output="identity")
    with torch.no_grad():
        one.items.weight[0] = 0
    padded = Sequences.from_lists([[0, 0, 0, 2], [0, 0, 3, 1]])
    torch.testing.assert_close(one(Sequences.from_lists([[2], [3, 1]])), one(padded))


def test_the_padding_row_is_never_read() -> None:
    one, histories = model(), Sequences.from_lists([[2], [3, 1]])
    before = one(histories)
    with torch.no_grad():
        one.items.weight[0] = 100.0
    torch.testing.assert_close(one(histories), before)


def test_a_window_of_one_item_is_enough() -> None:
    one = model(length=1)
    torch.testing.assert_close(one(Sequences.from_lists([[2, 3], [3]])), one(Sequences.from_lists([[3], [3]])))


def test_gradients_pass_through_both_convolutions() -> None:
    one, histories = model("tanh", "tanh"), Sequences.from_lists([[3, 1], [5, 9, 2, 6, 5]])
    names = [name for name, _ in one.named_parameters()]

    def run(*weights: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(one, dict(zip(names, weights, strict=True)), (histories,))
        return found

    assert torch.autograd.gradcheck(run, tuple(one.parameters()))


def test_caser_has_no_token_states() -> None:
    assert not isinstance(model(), TokenEncoder)


def test_the_defaults_are_the_papers_symbols() -> None:
    weights = CaserConfig()(ItemTable(3, 64)).state_dict()
    shapes = [tuple(weights[f"horizontal.{i}.weight"].shape) for i in range(5)]
    assert shapes == [(16, 64, height) for height in (1, 2, 3, 4, 5)]
    assert weights["vertical.weight"].shape == (4, 5)
    assert weights["dense.weight"].shape == (64, 5 * 16 + 4 * 64)
