r"""Losses of a generator that fills masked items in, and of a discriminator that finds what was changed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from conseq.nn.items import ItemTable

# Rows of the catalogue's logits that are held at once: they stay in a CPU's cache between the operations.
_CPU_ROWS = 64
_DEVICE_ROWS = 4096


def replaced_item_detection(verdicts: Tensor, changed: Tensor) -> Tensor:
    r"""Gives the loss of telling which tokens were changed (ECL-SR eq. 15; ELECTRA).

    .. math:: -\frac{1}{N} \sum_t \big[ y_t \log \sigma(z_t) + (1 - y_t) \log (1 - \sigma(z_t)) \big]

    Args:
        verdicts: float ``[N]``, z: the log-odds that a token was changed. (The paper's are those that it was
            not: the same model with the head's sign turned.)
        changed: bool ``[N]``, y.

    Returns:
        Scalar, mean over the tokens; 0 where there is none.
    """
    if not len(verdicts):
        return verdicts.sum()
    return F.binary_cross_entropy_with_logits(verdicts, changed.to(verdicts.dtype))


def masked_item(
    states: Tensor, targets: Tensor, items: ItemTable, *, weights: Tensor | None = None, uniform: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Gives the loss of recovering masked items and, from the same logits, an item for each (ECL-SR eq. 14).

    .. math:: -\sum_m w_m \log \frac{e^{g_m \cdot v_{y_m}}}{\sum_{j=1}^{V} e^{g_m \cdot v_j}}

    Padding and mask are in no sum, and are never the item given. The items are those of the parameters before
    the step; the loss's gradient is made along with them, so that no product is computed twice.

    Args:
        states: float ``[M, D]``, g: the generator's states at the masked places.
        targets: int64 ``[M]``, y: the items that stood there, ``1..V``.
        items: The item table.
        weights: float ``[M]``, w; 1/M each where None. Eq. 14 weighs a history's masked items by one over their
            number.
        uniform: float ``[M]`` in ``[0, 1)``, one random number for each item to draw from the softmax; the most
            likely item where None.

    Returns:
        Scalar (0 where there is nothing to recover), and int64 ``[M]`` of ``1..V``.
    """
    if not len(states):
        return states.sum(), targets
    if weights is None:
        weights = states.new_full((len(states),), 1 / len(states))
    loss, found = _MaskedItem.apply(states, items.weight, targets, weights, uniform)  # type: ignore[no-untyped-call]
    return loss, found


def fill_in(states: Tensor, items: ItemTable, *, uniform: Tensor | None = None) -> Tensor:
    """Gives the items that :func:`masked_item` gives, without the loss, as a frozen generator needs.

    Args:
        states: float ``[M, D]``.
        items: The item table.
        uniform: As in :func:`masked_item`.

    Returns:
        int64 ``[M]`` of ``1..V``.
    """
    found = torch.empty(len(states), dtype=torch.int64, device=states.device)
    with torch.no_grad():
        for some in _slices(states):
            logits = items.candidates @ states[some].T
            if uniform is None:
                found[some] = _greatest(logits)
            else:
                found[some] = _drawn(_powers(logits, logits.amax(0)), uniform[some])
    return found + 1


class _MaskedItem(torch.autograd.Function):
    """Weighted softmax loss with its gradient, and an item of each row, some rows of logits at a time.

    Under autocast the products are made in its precision and summed in float32.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, table: Tensor, targets: Tensor, weights: Tensor, uniform: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        device = states.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else table.dtype
        states, weights = states.to(table.dtype), weights.to(table.dtype)
        # The whole table and not its slice of candidates: the gradient of a slice is one more table to fill.
        states_grad, table_grad = torch.empty_like(states), torch.zeros_like(table)
        with torch.autocast(device, enabled=False):
            total, found = _sums(states, table[1:-1], weights, uniform, low, (states_grad, table_grad[1:-1]))
        scaled = states * weights[:, None]
        total -= (scaled * table[targets]).sum(dtype=torch.float64)
        states_grad -= table[targets] * weights[:, None]
        table_grad.index_add_(0, targets, scaled, alpha=-1)
        ctx.save_for_backward(states_grad, table_grad)
        ctx.mark_non_differentiable(found)
        return total.to(states.dtype), found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("masked_item can be differentiated once; it has no gradient of its gradient")
        states_grad, table_grad = ctx.saved_tensors
        return states_grad * gradient, table_grad * gradient, None, None, None


def _sums(
    states: Tensor,
    table: Tensor,
    weights: Tensor,
    uniform: Tensor | None,
    low: torch.dtype,
    gradients: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Gives the weighted sum of log-normalisers and an item of each row; writes the sum's gradients."""
    found = torch.empty(len(states), dtype=torch.int64, device=states.device)
    states_grad, table_grad = gradients
    products = table.to(low)
    # Items by states, not states by items: a CPU makes this product a fifth faster.
    logits = products.new_empty(len(table) * min(len(states), _rows(states)))
    # Sums of thousands of terms are made in float64: that costs nothing, and their order does not show.
    total = states.new_zeros((), dtype=torch.float64)
    for some in _slices(states):
        part, weight = states[some], weights[some]
        block = logits[: len(table) * len(part)].view(len(table), len(part))
        torch.mm(products, part.T.to(low), out=block)
        if uniform is None:
            found[some] = place = _greatest(block)
            top = block.gather(0, place[None])[0]
            share = _powers(block, top)
        else:
            top = block.amax(0)
            share = _powers(block, top)
            found[some] = _drawn(share, uniform[some])
        norm = share.sum(0, dtype=states.dtype)
        total += ((norm.log() + top) * weight).sum(dtype=torch.float64)
        scale = (weight / norm)[:, None]
        states_grad[some] = (share.T @ products) * scale
        if low == table_grad.dtype:
            table_grad.addmm_(share, part * scale)
        else:
            table_grad += share @ (part * scale).to(low)
    return total, found + 1


def _powers(logits: Tensor, top: Tensor) -> Tensor:
    """Gives ``exp(logits - top)``, in the place of ``logits``.

    On a CPU powers of two take a third of the time of powers of e; in less than float32 the change of base would
    cost a digit.
    """
    logits.sub_(top)
    if logits.dtype.itemsize < 4:
        return logits.exp_()
    return logits.mul_(math.log2(math.e)).exp2_()


def _greatest(values: Tensor) -> Tensor:
    """Gives the row of the greatest value of each column of float ``[V, r]``.

    Maxima of stretches come first, because they are found many values at a time and places are not.
    """
    stretch = 128
    whole = len(values) // stretch * stretch
    if not whole:
        return values.argmax(0)
    parts = values[:whole].view(-1, stretch, values.shape[1])
    tops = parts.amax(1)
    part = tops.argmax(0)
    columns = torch.arange(values.shape[1], device=values.device)
    place: Tensor = part * stretch + parts[part, :, columns].argmax(1)
    if whole == len(values):
        return place
    rest = values[whole:]
    return torch.where(rest.amax(0) > tops.amax(0), whole + rest.argmax(0), place)


def _drawn(share: Tensor, uniform: Tensor) -> Tensor:
    """Gives a row for each column of ``share`` (float ``[V, r]``, at least 0), drawn in proportion to it."""
    total = share.T.contiguous().cumsum(1, dtype=torch.float64)
    place = torch.searchsorted(total, uniform[:, None].double() * total[:, -1:], right=True)
    return place[:, 0].clamp(max=len(share) - 1)


def _rows(states: Tensor) -> int:
    return _CPU_ROWS if states.device.type == "cpu" else _DEVICE_ROWS


def _slices(states: Tensor) -> list[slice]:
    rows = _rows(states)
    return [slice(a, a + rows) for a in range(0, len(states), rows)]
