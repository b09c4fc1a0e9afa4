r"""The number that an explanation is about: how strongly an encoder predicts the next item.

Everywhere ``states`` are float ``[M, D]``, ``targets`` int64 ``[M]`` item numbers from 1, and the score of an
item is the inner product of the state with its vector. Padding and mask are in no sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from conseq.nn.items import ItemTable

Differenced = Literal["probability", "predicted_probability", "logit", "top_logit"]

# On a CPU a block of scores stays in a core's cache between product, exponential and sum.
_CPU_BLOCK = (256, 2048)
_DEVICE_BLOCK = (4096, 1 << 31)
_ROWS = 64
# Neither 2 to this power nor the sum of that of all items overflows or vanishes in float32.
_SAFE_POWER = 100.0


class Predicted:
    """How strongly the next item is predicted, and its gradient.

    - ``probability``: of the item that came next, under the softmax over the whole catalogue (EC4SRec's
      :math:`y_u`). A row costs one product with the item table.
    - ``predicted_probability``: the same, of the item that the encoder ranks first for the unaltered history.
    - ``logit``: the score of the item that came next. Costs next to nothing, but a change that moves all scores
      alike counts as one.
    - ``top_logit``: the highest score of any item, whichever it is after an alteration (EC4SRec's code). Costs
      about as much as a probability.

    Args:
        items: The item table.
        differenced: Which of the numbers.
    """

    def __init__(self, items: ItemTable, differenced: Differenced) -> None:
        self.items = items
        self.differenced = differenced
        self.table = items.candidates.detach()
        # The states carry the change of base: a power of two costs a third of a power of e on a CPU.
        self.largest = float(self.table.norm(dim=1).max()) * math.log2(math.e)
        height, width = _CPU_BLOCK if self.table.device.type == "cpu" else _DEVICE_BLOCK
        self.block = height, min(width, self.table.shape[0])
        starts = range(0, self.table.shape[0], self.block[1])
        self.parts = [(first, self.table[first : first + self.block[1]]) for first in starts]

    def targets(self, states: Tensor, targets: Tensor) -> Tensor:
        """Gives the items that the explanation is about.

        Args:
            states: Of the unaltered histories.
            targets: What came next.

        Returns:
            int64 ``[M]``; ``targets``, but for ``predicted_probability``.
        """
        if self.differenced != "predicted_probability":
            return targets
        return self._best(states) + 1

    def values(self, states: Tensor, targets: Tensor) -> Tensor:
        """Gives the number that is explained, float ``[M]``."""
        if self.differenced == "top_logit":
            highest = states.new_full((states.shape[0],), -math.inf)
            for rows, _, block in self._blocks(states):
                highest[rows] = torch.maximum(highest[rows], block.amax(0))
            return highest
        scores = (states * self.table.index_select(0, targets - 1)).sum(1)
        return scores if self.differenced == "logit" else (scores - self.log_normalizers(states)).exp()

    def gradients(self, states: Tensor, targets: Tensor) -> Tensor:
        """Gives the gradient of each value by its own state, float ``[M, D]``."""
        if self.differenced == "top_logit":
            return self.table[self._best(states)]
        own = self.table.index_select(0, targets - 1)
        if self.differenced == "logit":
            return own
        mean = torch.empty_like(states)
        chance = states.new_empty(len(states))
        for rows in _stretches(len(states), _ROWS):
            some = states[rows]
            shares = (some @ self.table.T).softmax(1)
            mean[rows] = shares @ self.table
            chance[rows] = shares.gather(1, (targets[rows] - 1)[:, None])[:, 0]
        return chance[:, None] * (own - mean)

    def log_normalizers(self, states: Tensor) -> Tensor:
        r"""Gives :math:`\log \sum_j e^{h \cdot v_j}` over the items, float ``[M]``."""
        if not states.shape[0] or not float(states.norm(dim=1).max()) * self.largest < _SAFE_POWER:
            found = [(states[rows] @ self.table.T).logsumexp(1) for rows in _stretches(len(states), _ROWS)]
            return torch.cat(found) if found else states.new_empty(0)
        total = states.new_zeros(len(states))
        for rows, _, block in self._blocks(states * math.log2(math.e)):
            total[rows] += block.exp2_().sum(0)
        return total.log()

    def _best(self, states: Tensor) -> Tensor:
        """Gives the place of the highest score of each state, int64 ``[M]``, from 0."""
        scores = states.new_full((states.shape[0],), -math.inf)
        places = torch.zeros_like(scores, dtype=torch.int64)
        for rows, first, block in self._blocks(states):
            score, place = block.max(0)
            higher = score > scores[rows]
            scores[rows] = torch.where(higher, score, scores[rows])
            places[rows] = torch.where(higher, place + first, places[rows])
        return places

    def _blocks(self, states: Tensor) -> Iterator[tuple[slice, int, Tensor]]:
        """Gives the scores block by block: which states, the first item, and float ``[items, states]``.

        A block is overwritten by the next.
        """
        count, (height, width) = states.shape[0], self.block
        buffer = states.new_empty(width * min(height, count))
        for rows in _stretches(count, height):
            some = states[rows].T.contiguous()
            across = some.shape[1]
            for first, part in self.parts:
                # Items stand in rows: in this layout the product is quicker on a CPU.
                block = torch.mm(part, some, out=buffer[: part.shape[0] * across].view(-1, across))
                yield rows, first, block


def _stretches(total: int, length: int) -> Iterator[slice]:
    """Gives the rows ``0 .. total`` in stretches of at most ``length``."""
    for begin in range(0, total, length):
        yield slice(begin, min(begin + length, total))
