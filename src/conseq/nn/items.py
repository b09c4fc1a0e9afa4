"""The item table, shared by input and output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ItemTable(nn.Module):
    """Vectors of padding (row 0), the items (rows ``1..n_items``) and the mask (row ``n_items + 1``).

    Args:
        n_items: Items in the catalogue.
        width: ``D``.
        std: Standard deviation of the initial normal distribution. The padding row starts at zero.

    Raises:
        ValueError: if there are no items.
    """

    def __init__(self, n_items: int, width: int, *, std: float = 0.02) -> None:
        super().__init__()
        if n_items < 1:
            raise ValueError(f"an item table needs at least one item, found {n_items}")
        self.n_items = n_items
        self.mask_id = n_items + 1
        self.weight = nn.Parameter(torch.randn(n_items + 2, width) * std)
        with torch.no_grad():
            self.weight[0].zero_()

    @property
    def width(self) -> int:
        """``D``."""
        return self.weight.shape[1]

    @property
    def candidates(self) -> Tensor:
        """float ``[V, D]``: the items alone, without padding and mask."""
        return self.weight[1 : self.n_items + 1]

    def __call__(self, ids: Tensor) -> Tensor:
        """Gives the vectors of ``ids`` (int64, any shape), float ``[..., D]``."""
        out: Tensor = super().__call__(ids)
        return out

    def forward(self, ids: Tensor) -> Tensor:
        """Gives the vectors of ``ids`` (int64, any shape), float ``[..., D]``; that of padding does not learn."""
        return F.embedding(ids, self.weight, padding_idx=0)
