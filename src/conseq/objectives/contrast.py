r"""Contrastive losses: things are to resemble their positive more than everything else in the batch.

The similarity everywhere is the inner product. For the cosine, give vectors of length 1
(``torch.nn.functional.normalize``): then every vector that a term reads is normalised, or just those that a
paper normalises. Sums are made in float32 (float64 for float64 vectors), under autocast too: at temperatures
near 0.05 a similarity in bfloat16 is wrong by whole units.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(a: Tensor, b: Tensor, *, temperature: float, same: Tensor | None = None) -> Tensor:
    r"""Gives NT-Xent between two views of the same ``B`` things (SimCLR eq. 1; CL4SRec eq. 3).

    .. math:: -\frac{1}{2B} \sum_{i=1}^{2B} \log
        \frac{e^{z_i \cdot z_i^+ / \tau}}{\sum_{j \ne i} e^{z_i \cdot z_j / \tau}}

    where the :math:`z` are both views, and :math:`z_i^+` is the other view of the thing of :math:`z_i`. Every
    thing but its own, in both views, is a negative: 2 (B - 1) of them. MCLRec eq. 8 adds the two directions, which
    is twice this mean over both; its code, like that of the other papers, takes the mean.

    Args:
        a: float ``[B, D]``, the first view.
        b: float ``[B, D]``, the second; ``b[i]`` is the positive of ``a[i]``.
        temperature: τ > 0.
        same: bool ``[B, B]``; True at ``[i, j]`` where ``j`` must not be a negative of ``i``, in either view. Its
            diagonal is not read. A thing that is left without negatives adds nothing to the sum.

    Returns:
        Scalar, mean over the 2B anchors. It can be differentiated once.

    Raises:
        ValueError: if ``B`` is less than 2, a shape does not fit, or the temperature is not positive.
    """
    _check_pairs(a, b, temperature)
    _check_same(same, len(a))
    a, b = _in_full_precision(a, b)
    loss: Tensor = _BothWays.apply(a, b, temperature, same)  # type: ignore[no-untyped-call]
    return loss


def one_way_info_nce(
    anchors: Tensor,
    positives: Tensor,
    *,
    temperature: float,
    inter: bool = True,
    intra: bool = False,
    same: Tensor | None = None,
) -> Tensor:
    r"""Gives InfoNCE from one view to the other, with the negatives of either view or of both.

    .. math:: -\frac{1}{B} \sum_{i=1}^{B} \log \frac{e^{x_i \cdot y_i / \tau}}{e^{x_i \cdot y_i / \tau}
        + \sum_{j \ne i} e^{x_i \cdot y_j / \tau} + \sum_{j \ne i} e^{x_i \cdot x_j / \tau}}

    where the first sum of the denominator is there for ``inter`` and the second for ``intra``. Both: MCLSR
    eqs. 8 and 11. ``intra`` alone: ECL-SR eq. 13 as printed. ``inter`` alone: ECL-SR's code.

    Args:
        anchors: float ``[B, D]``, x.
        positives: float ``[B, D]``, y; ``positives[i]`` belongs to ``anchors[i]``.
        temperature: τ > 0.
        inter: Whether the other positives are negatives (B - 1 of them).
        intra: Whether the other anchors are negatives (B - 1 of them).
        same: bool ``[B, B]``; True at ``[i, j]`` where ``j`` must not be a negative of ``i``. Its diagonal is
            not read.

    Returns:
        Scalar, mean over the anchors.

    Raises:
        ValueError: if ``B`` is less than 2, a shape does not fit, the temperature is not positive, or there are
            no negatives of either kind.
    """
    _check_pairs(anchors, positives, temperature)
    _check_same(same, len(anchors))
    if not (inter or intra):
        raise ValueError("a contrast needs negatives: set inter, intra or both")
    anchors, positives = _in_full_precision(anchors, positives)
    hidden = torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
    if same is not None:
        hidden = hidden | same
    with torch.autocast(anchors.device.type, enabled=False):
        positive = (anchors * positives).sum(1, keepdim=True) / temperature
        others = [view for view, wanted in ((positives, inter), (anchors, intra)) if wanted]
        negative = [(anchors @ view.T / temperature).masked_fill(hidden, -math.inf) for view in others]
        return (torch.logsumexp(torch.cat([positive, *negative], 1), 1) - positive[:, 0]).mean()


def negative_view_contrast(negatives: Tensor, positives: Tensor, *, temperature: float, crowd: bool = False) -> Tensor:
    r"""Gives the loss that gathers negative views and keeps them away from positive ones (EC4SRec, L_cl-).

    .. math:: -\frac{1}{B} \sum_{u} \frac{1}{B - 1} \sum_{v \ne u} \log \frac{e^{n_u \cdot n_v / \tau}}
        {e^{n_u \cdot n_v / \tau} + \sum_p e^{n_u \cdot p / \tau}}

    In the paper, a denominator holds one negative view beside all positive views. With ``crowd`` it holds every
    negative view but the anchor's own, :math:`\sum_{w \ne u} e^{n_u \cdot n_w / \tau}`: the authors' code.

    Args:
        negatives: float ``[B, D]``, one negative view for each history, n.
        positives: float ``[P, D]``, all positive views, p; the papers use P = 2B.
        temperature: τ > 0; the paper's equation has none, its code 0.1.
        crowd: Whether the other negative views share the denominator.

    Returns:
        Scalar, mean over the anchors and, for each, over the other negative views.

    Raises:
        ValueError: if ``B`` is less than 2, there are no positives, widths differ, or the temperature is not
            positive.
    """
    if negatives.dim() != 2 or positives.dim() != 2 or negatives.shape[1] != positives.shape[1] or not len(positives):
        raise ValueError(
            f"expected negatives [B, D] and at least one positive [P, D], found {_shape(negatives)} and "
            f"{_shape(positives)}"
        )
    _check_size(len(negatives), temperature)
    negatives, positives = _in_full_precision(negatives, positives)
    with torch.autocast(negatives.device.type, enabled=False):
        gathered = negatives @ negatives.T / temperature
        own = torch.eye(len(negatives), dtype=torch.bool, device=negatives.device)
        apart = torch.logsumexp(negatives @ positives.T / temperature, 1, keepdim=True)
        if crowd:
            # The anchor itself is in no sum: at -inf it adds exp(-inf) = 0, with no gradient.
            others = torch.logsumexp(gathered.masked_fill(own, -math.inf), 1, keepdim=True)
            terms = torch.logaddexp(others, apart) - gathered
        else:
            terms = F.softplus(apart - gathered)
        return terms.masked_fill(own, 0.0).sum() / (len(negatives) * (len(negatives) - 1))


def margin_regularizer(a: Tensor, b: Tensor, *, per_row: bool = False) -> Tensor:
    r"""Gives the regulariser that keeps positive and negative scores from drifting apart (MCLRec eqs. 11-13).

    .. math:: \frac{1}{|\sigma^+|} \sum [\sigma^+ - o_{min}]_+ + \frac{1}{|\sigma^-|} \sum [o_{max} - \sigma^-]_+

    with :math:`o_{min}` and :math:`o_{max}` the smaller and the larger of :math:`\min \sigma^+` and
    :math:`\max \sigma^-`. No positive is below the one and no negative above the other, so this is

    .. math:: \overline{\sigma^+} - \overline{\sigma^-} + |\min \sigma^+ - \max \sigma^-|

    and only the largest negative has to be looked for. In the paper the scores are those between the two views:
    B positives on the diagonal of :math:`a b^T`, B (B - 1) negatives beside it, one pair of bounds for all. With
    ``per_row``, as in the authors' code, each of the 2B vectors has one positive, 2 (B - 1) negatives from both
    views, and bounds of its own.

    Args:
        a: float ``[B, D]``, the first view.
        b: float ``[B, D]``, the second.
        per_row: Whether every anchor has bounds of its own.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: if ``B`` is less than 2 or the shapes differ.
    """
    _check_pairs(a, b, 1.0)
    a, b = _in_full_precision(a, b)
    n = len(a)
    with torch.autocast(a.device.type, enabled=False):
        positive = (a * b).sum(1)
        if per_row:
            both = torch.cat([a, b])
            least, most = positive.repeat(2), (both * both[_most_similar(both, both, (-n, 0, n))]).sum(1)
            total = both.sum(0).square().sum() - both.square().sum() - 2 * positive.sum()
            negative = total / (4 * n * (n - 1))
        else:
            nearest = _most_similar(a, b, (0,))
            least, most = positive.min(), (a * b[nearest]).sum(1).max()
            negative = (a.sum(0) @ b.sum(0) - positive.sum()) / (n * (n - 1))
        return positive.mean() - negative + (least - most).abs().mean()


@torch.no_grad()
def _most_similar(a: Tensor, b: Tensor, hidden: tuple[int, ...]) -> Tensor:
    """Gives for each row of ``a`` the row of ``b`` with the largest product, but for those on ``hidden`` diagonals."""
    scores = a @ b.T
    for diagonal in hidden:
        scores.diagonal(diagonal).fill_(-math.inf)
    return scores.argmax(1)


class _BothWays(torch.autograd.Function):
    """NT-Xent: one square of similarities, turned in place into its own gradient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, temperature: float, same: Tensor | None) -> Tensor:
        n = len(a)
        both = torch.cat([a, b])
        with torch.autocast(a.device.type, enabled=False):
            # Powers of two take less than half the time of powers of e on a CPU; one factor carries the change of base.
            square = (both * (math.log2(math.e) / temperature)) @ both.T
        positive = torch.cat([square.diagonal(n), square.diagonal(-n)])
        if same is None:
            square.fill_diagonal_(-math.inf)
        else:
            square.masked_fill_(same.repeat(2, 2).logical_or_(_own_pairs(n, a.device)), -math.inf)
            square.diagonal(n).copy_(positive[:n])
            square.diagonal(-n).copy_(positive[n:])
        top = square.amax(1, keepdim=True)
        weight = square.sub_(top).exp2_()
        norm = weight.sum(1, keepdim=True)
        if any(ctx.needs_input_grad):
            # The gradient by the similarities, times 2B: the softmax, less 1 at the positive.
            weight.div_(norm)
            weight.diagonal(n).sub_(1)
            weight.diagonal(-n).sub_(1)
            ctx.save_for_backward(both, weight)
            ctx.scale = 1 / (2 * n * temperature)
        return (norm.log2() + top).sub_(positive[:, None]).mean() * math.log(2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("info_nce can be differentiated once; it has no gradient of its gradient")
        both, weight = ctx.saved_tensors
        with torch.autocast(both.device.type, enabled=False):
            # Two vectors meet in two of the similarities, one the mirror of the other.
            out = (weight @ both).addmm_(weight.T, both).mul_(gradient * ctx.scale)
        n = len(both) // 2
        return out[:n], out[n:], None, None


def _own_pairs(n: int, device: torch.device) -> Tensor:
    """Gives bool ``[2n, 2n]``: True where two of ``2n`` vectors belong to the same thing."""
    return torch.eye(n, dtype=torch.bool, device=device).repeat(2, 2)


def _in_full_precision(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Gives both in the wider of their types, float32 at least."""
    kind = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return a.to(kind), b.to(kind)


def _check_pairs(a: Tensor, b: Tensor, temperature: float) -> None:
    if a.dim() != 2 or a.shape != b.shape:
        raise ValueError(f"expected two views of one shape [B, D], found {_shape(a)} and {_shape(b)}")
    _check_size(len(a), temperature)


def _check_size(size: int, temperature: float) -> None:
    if size < 2:
        raise ValueError(f"a contrast needs at least 2 things to tell apart, found {size}; use a larger batch")
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, found {temperature}")


def _check_same(same: Tensor | None, size: int) -> None:
    if same is not None and (same.shape != (size, size) or same.dtype != torch.bool):
        raise ValueError(f"same must be bool [{size}, {size}], found {same.dtype} {_shape(same)}")


def _shape(of: Tensor) -> list[int]:
    return list(of.shape)
