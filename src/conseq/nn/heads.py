"""Small networks that transform an encoder's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from conseq.nn.activation import gelu


class MLP(nn.Module):
    """Linear layers with GELU after each but the last.

    Weights and biases start as torch draws them, uniform within one over the root of a layer's input width.

    Args:
        widths: Of the input, of every hidden layer and of the output; two or more.

    Raises:
        ValueError: if there are fewer than two widths.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"an MLP needs the widths of its input and its output, found {list(widths)}")
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def __call__(self, x: Tensor) -> Tensor:
        """Gives float ``[..., widths[-1]]`` from float ``[..., widths[0]]``."""
        out: Tensor = super().__call__(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Gives float ``[..., widths[-1]]`` from float ``[..., widths[0]]``."""
        first, *others = self.layers
        x = first(x)
        for layer in others:
            x = layer(gelu(x))
        return x
