r"""Losses of the next item: full softmax, sampled softmax, binary cross-entropy, gBCE.

Everywhere ``states`` are float ``[M, D]``, ``targets`` int64 ``[M]`` item numbers from 1, and the score of an
item is the inner product of the state with its vector. Padding and mask are in no sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from conseq.nn.items import ItemTable

_LOWERED: ContextVar[torch.dtype | None] = ContextVar("softmax_dtype", default=None)

# Rows of the catalogue's logits that are held at once. 64 rows of 12,000 items are 3 MB: they stay in the
# cache between the product, the exponential and the two products of the gradient.
_CPU_ROWS = 64
_DEVICE_ROWS = 4096
# e^60 summed over 10^12 items still fits into float32.
_SAFE_LOGIT = 60.0


def cross_entropy(states: Tensor, targets: Tensor, items: ItemTable) -> Tensor:
    r"""Gives the full softmax loss, over every item of the catalogue (EC4SRec eq. 2; MCLRec eq. 3).

    .. math:: -\frac{1}{M} \sum_m \log \frac{e^{h_m \cdot v_{y_m}}}{\sum_{j=1}^{V} e^{h_m \cdot v_j}}

    The logits are made, used and dropped a few rows at a time, in the forward pass, together with the
    gradient: memory does not grow with ``M`` x ``V`` and no product is computed twice.

    Args:
        states: float ``[M, D]``.
        targets: int64 ``[M]``, ``1..V``.
        items: The item table.

    Returns:
        Scalar, mean over the ``M`` targets. It can be differentiated once.

    Raises:
        ValueError: if ``M`` is 0.
    """
    if len(states) == 0:
        raise ValueError("a loss needs at least one target, found none")
    loss: Tensor = _FullSoftmax.apply(states, items.candidates, targets - 1)  # type: ignore[no-untyped-call]
    return loss


def binary_cross_entropy(states: Tensor, targets: Tensor, negatives: Tensor, items: ItemTable) -> Tensor:
    r"""Gives the loss that tells the next item from sampled ones (SASRec eq. 6; ICLRec eq. 2).

    .. math:: -\frac{1}{M} \sum_m \Big[ \log \sigma(s_m^+) + \sum_n \log (1 - \sigma(s_{mn}^-)) \Big]

    Args:
        states: float ``[M, D]``.
        targets: int64 ``[M]``.
        negatives: int64 ``[M, n]``; the papers use n = 1.
        items: The item table.

    Returns:
        Scalar, mean over the targets, summed over each one's negatives.
    """
    positive, negative = _pair_scores(states, targets, negatives, items)
    return F.softplus(-positive).mean() + F.softplus(negative).sum(1).mean()


def generalized_bce(
    states: Tensor, targets: Tensor, negatives: Tensor, items: ItemTable, *, calibration: float
) -> Tensor:
    r"""Gives gBCE, binary cross-entropy corrected for the share of negatives seen (Petrov and Macdonald,
    RecSys 2023, eqs. 8-9).

    The positive's likelihood is raised to :math:`\beta = \alpha (t (1 - 1/\alpha) + 1/\alpha)`, where
    :math:`\alpha = n / (V - 1)` is the sampling rate; t = 0 is plain binary cross-entropy, t = 1 makes the
    scores converge to calibrated probabilities.

    Args:
        states: float ``[M, D]``.
        targets: int64 ``[M]``.
        negatives: int64 ``[M, n]``, drawn uniformly.
        items: The item table.
        calibration: t in ``[0, 1]``.

    Returns:
        Scalar, mean over the targets, summed over each one's negatives.

    Raises:
        ValueError: if ``calibration`` is outside its range.
    """
    if not 0 <= calibration <= 1:
        raise ValueError(f"calibration must be in [0, 1], found {calibration}")
    positive, negative = _pair_scores(states, targets, negatives, items)
    rate = negatives.shape[1] / max(1, items.n_items - 1)
    power = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    return power * F.softplus(-positive).mean() + F.softplus(negative).sum(1).mean()


def sampled_softmax(
    states: Tensor, targets: Tensor, negatives: Tensor, items: ItemTable, *, log_q: Tensor | None
) -> Tensor:
    r"""Gives the softmax loss over the target and sampled items, corrected for how they were drawn.

    The correction (Bengio and Senécal, 2008; Yi et al., RecSys 2019, eq. 3) subtracts from each negative's
    score the logarithm of its expected count in the sample, which makes the sum over the sample an unbiased
    estimate of the sum over the catalogue. Negatives equal to the target are left out.

    Args:
        states: float ``[M, D]``.
        targets: int64 ``[M]``.
        negatives: int64 ``[M, n]`` for each target, or ``[n]`` shared by all.
        items: The item table.
        log_q: float, broadcastable to ``negatives``: the log-probability with which a draw gives each of them;
            None: no correction.

    Returns:
        Scalar, mean over the targets.
    """
    shared = negatives.dim() == 1
    vectors = items(negatives)
    negative = states @ vectors.T if shared else torch.einsum("md,mnd->mn", states, vectors)
    positive = (states * items(targets)).sum(1)
    if log_q is not None:
        negative = negative - (log_q + math.log(negatives.shape[-1]))
    negative = negative.masked_fill(negatives == targets[:, None], -math.inf)
    return (torch.logsumexp(torch.cat([positive[:, None], negative], 1), 1) - positive).mean()


def _pair_scores(states: Tensor, targets: Tensor, negatives: Tensor, items: ItemTable) -> tuple[Tensor, Tensor]:
    """Gives the scores of targets ``[M]`` and negatives ``[M, n]``."""
    positive = (states * items(targets)).sum(1)
    negative = torch.einsum("md,mnd->mn", states, items(negatives))
    return positive, negative


@contextmanager
def lowered_softmax(dtype: torch.dtype) -> Iterator[None]:
    """Makes the products of :func:`cross_entropy`, and of nothing else, in ``dtype`` inside the block.

    On a CPU with bfloat16 instructions this takes a third off the full softmax, while autocast makes the small
    products of an encoder slower than they are in float32.

    Args:
        dtype: Such as ``torch.bfloat16``.

    Yields:
        Nothing.
    """
    token = _LOWERED.set(dtype)
    try:
        yield
    finally:
        _LOWERED.reset(token)


class _FullSoftmax(torch.autograd.Function):
    """Mean softmax loss with its gradient, some rows of logits at a time.

    Under autocast, or inside :func:`lowered_softmax`, the products are made in that precision.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, columns: Tensor) -> Tensor:
        device = states.device.type
        low = _LOWERED.get() or table.dtype
        if torch.is_autocast_enabled(device):
            low = torch.get_autocast_dtype(device)
        states = states.to(table.dtype)
        with torch.autocast(device, enabled=False):
            total, states_grad, table_grad = _softmax_sums(states, table, low, ctx.needs_input_grad)
        m = len(states)
        total -= (states * table[columns]).sum(dtype=torch.float64)
        if states_grad is not None:
            states_grad = states_grad.sub_(table[columns]).div_(m)
        if table_grad is not None:
            table_grad = table_grad.index_add_(0, columns, states, alpha=-1).div_(m)
        ctx.save_for_backward(states_grad, table_grad)
        return (total / m).to(states.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("cross_entropy can be differentiated once; it has no gradient of its gradient")
        states_grad, table_grad = ctx.saved_tensors
        scaled = [None if one is None else one * gradient for one in (states_grad, table_grad)]
        return scaled[0], scaled[1], None


def _softmax_sums(
    states: Tensor, table: Tensor, low: torch.dtype, keep: tuple[bool, ...]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gives the sum of log-normalisers and, where kept, its gradient by states and table.

    Products are made in ``low``; where that is the table's own type, without a copy.
    """
    m, v = len(states), len(table)
    rows = min(m, _CPU_ROWS if states.device.type == "cpu" else _DEVICE_ROWS)
    states_grad = torch.empty_like(states) if keep[0] else None
    table_grad = torch.zeros_like(table) if keep[1] else None
    shifted = _needs_shift(states, table)
    # Powers of two take a third of the time of powers of e on a CPU; the states carry the change of base.
    binary = (states * math.log2(math.e)).to(low)
    table = table.to(low)
    logits = table.new_empty(v * rows)
    # Sums of thousands of terms are made in float64: that costs nothing, and their order does not show.
    total = states.new_zeros((), dtype=torch.float64)
    for a in range(0, m, rows):
        some = states[a : a + rows]
        # Items stand in rows: in this layout the three products take about a tenth less time on a CPU.
        block = logits[: v * len(some)].view(v, len(some))
        torch.mm(table, binary[a : a + rows].T, out=block)
        if shifted:
            top = block.amax(0)
            block.sub_(top)
            total += top.sum(dtype=torch.float64) * math.log(2)
        weight = block.exp2_()
        norm = weight.sum(0, dtype=states.dtype)[:, None]
        total += norm.log().sum(dtype=torch.float64)
        if states_grad is not None:
            states_grad[a : a + rows] = (weight.T @ table) / norm
        if table_grad is not None and low == table_grad.dtype:
            table_grad.addmm_(weight, some / norm)
        elif table_grad is not None:
            table_grad += weight @ (some / norm).to(low)
    return total, states_grad, table_grad


def _needs_shift(states: Tensor, table: Tensor) -> bool:
    """Gives False where no logit can be so large that its exponential, or their sum, overflows float32."""
    if states.device.type != "cpu":
        return True  # finding out would wait for the device, and the shift costs little there
    bound = states.norm(dim=1).max() * table.norm(dim=1).max()
    return not float(bound) < _SAFE_LOGIT
