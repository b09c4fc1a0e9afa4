"""SASRec's states where one item is occluded, at half the cost of as many histories and less.

The *variant* of an item is the history in which its vector is zero. A variant differs from the history in the states
of its item and of what comes after it; only those are computed, and the rest is read from the history's own.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.data.sequences import Sequences, offsets_of
from conseq.encoders.sasrec import Block, SASRec
from conseq.signals.questions import Questions

# Share of a token's attention above which an occluded item's is not subtracted: one digit is lost below it.
_HEAVY = 0.9
# Difference of two scores above which a weight is not compared with the weights of the other.
_FAR = 15.0


def occluded_states(encoder: SASRec, questions: Questions) -> tuple[Tensor, Tensor]:
    """Gives the states that questions ask about, in the histories and in their variants.

    Args:
        encoder: In evaluation mode.
        questions: Several about one history only where the encoder counts positions from the first item.

    Returns:
        float ``[Q, D]`` and float ``[A, D]``.
    """
    rows = _Rows(questions)
    seqs = questions.seqs
    vectors = encoder.items(seqs.ids)
    base, hidden = _embedded(encoder, vectors, seqs), _embedded(encoder, torch.zeros_like(vectors), seqs)
    x = base.index_select(0, rows.token).index_copy_(0, rows.own, hidden)
    *lower, top = [cast("Block", block) for block in encoder.blocks]
    for depth, layer in enumerate(lower):
        x = _transformed(layer, x, _read(layer, x, rows) if depth else _read_first(layer, base, hidden, rows))
    x = _transformed(top, x.index_select(0, rows.asked), _read_last(top, x, rows))
    x = encoder.norm(x) if encoder.config.block == "kang" else x
    return x[: len(questions.at)], x[len(questions.at) :]


class _Rows:
    """Histories and their variants as rows of items, of which those are named whose states are computed.

    Args:
        questions: Gives ``P`` histories of ``N`` items in all.

    Attributes:
        seqs: The histories.
        token: int64 ``[M]``, the items whose states are computed: all N of the histories, then variant by variant
            the occluded item and those after it.
        variant: int64 ``[M - N]``, the occluded item of each of the latter.
        own: int64 ``[N]``, which of the ``M`` are the occluded items themselves.
        asked: int64 ``[Q + A]``, which of the ``M`` are asked about.
        width: ``T``, columns of a block that has a row for each history and each variant, ``R`` = P + N.
        columns: int64 ``[R, T]``, the item in each column of a row (any, beyond its end).
        slot: int64 ``[M]``, the places of the ``M`` in a block, row by row.
        readable: bool ``[R, 1, 1, T]``, the columns that hold an item.
        only_last: Whether each row is asked about its last item alone, one question for each history.
    """

    def __init__(self, questions: Questions) -> None:
        seqs = self.seqs = questions.seqs
        n, device = len(seqs.ids), seqs.device
        items = torch.arange(n, device=device)
        count = seqs.lengths[seqs.rows] - seqs.positions
        begin = n + offsets_of(count)
        self.own, self.variant = begin[:-1], torch.repeat_interleave(items, count)
        after = torch.arange(len(self.variant), device=device) + n - self.own[self.variant]
        self.token = torch.cat([items, self.variant + after])
        self.asked = torch.cat([questions.at, (self.own - items)[questions.items] + questions.at[questions.rows]])
        self.only_last = questions.only_last
        self.width = seqs.max_length
        history = torch.cat([torch.arange(len(seqs), device=device), seqs.rows])
        across = torch.arange(self.width, device=device)
        self.columns = (seqs.offsets[history][:, None] + across).clamp(max=n - 1)
        self.readable = (across < seqs.lengths[history][:, None])[:, None, None, :]
        row = torch.cat([seqs.rows, len(seqs) + self.variant])
        self.slot = row * self.width + seqs.positions[self.token]


def _embedded(encoder: SASRec, x: Tensor, seqs: Sequences) -> Tensor:
    """Gives what the first layer reads, float ``[N, D]``."""
    first = 0 if encoder.config.positions == "start" else (encoder.max_length - seqs.lengths)[seqs.rows]
    x = x + encoder.positions(seqs.positions + first)
    return encoder.norm(x) if encoder.config.block == "bert" else x


def _transformed(layer: Block, x: Tensor, read: Tensor) -> Tensor:
    """Gives a layer's output for states whose attention has read ``read``."""
    x = x + layer.attention.out(read)
    if layer.pre:
        out: Tensor = x + layer.feed_forward(layer.norm2(x))
    else:
        x = layer.norm1(x)
        out = layer.norm2(x + layer.feed_forward(x))
    return out


def _projected(layer: Block, x: Tensor, *maps: nn.Linear) -> Tensor:
    """Gives what linear maps make of a layer's input, side by side, float ``[m, maps D]``."""
    x = layer.norm1(x) if layer.pre else x
    return F.linear(x, torch.cat([one.weight for one in maps]), torch.cat([one.bias for one in maps]))


def _read(layer: Block, x: Tensor, rows: _Rows) -> Tensor:
    """Gives what a layer's attention reads, float ``[M, D]``."""
    one = layer.attention
    q, k, v = _block(_projected(layer, x, one.query, one.key, one.value), 3, one.heads, rows)
    read = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return read.transpose(1, 2).flatten(0, 1).flatten(1).index_select(0, rows.slot)


def _read_last(layer: Block, x: Tensor, rows: _Rows) -> Tensor:
    """Gives what the last layer's attention reads for the states that are asked about, float ``[Q + A, D]``."""
    if not rows.only_last:
        return _read(layer, x, rows).index_select(0, rows.asked)
    one = layer.attention
    k, v = _block(_projected(layer, x, one.key, one.value), 2, one.heads, rows)
    q = _projected(layer, x.index_select(0, rows.asked), one.query).view(len(k), 1, one.heads, -1).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=rows.readable).flatten(1)


def _block(projected: Tensor, maps: int, heads: int, rows: _Rows) -> list[Tensor]:
    """Gives projections ``[M, maps D]`` as whole rows, float ``[R, heads, T, D / heads]`` for each map."""
    n = len(rows.seqs.ids)
    block = projected[:n].index_select(0, rows.columns.flatten())
    block.index_copy_(0, rows.slot[n:], projected[n:])
    return list(block.view(*rows.columns.shape, maps, heads, -1).permute(2, 0, 3, 1, 4))


def _read_first(layer: Block, base: Tensor, hidden: Tensor, rows: _Rows) -> Tensor:
    r"""Gives what the first layer's attention reads, float ``[M, D]``, from one score matrix for each history.

    There a variant differs in one key and one value, those of its occluded item i. With the weights
    :math:`w_{ts} = e^{q_t \cdot k_s}`, a token t after i reads

    .. math:: \frac{\sum_s w_{ts} v_s - w_{ti} v_i + w'_{ti} v'_i}{\sum_s w_{ts} - w_{ti} + w'_{ti}}
    """
    seqs, one, n = rows.seqs, layer.attention, len(base)
    both = _projected(layer, torch.cat([base, hidden]), one.query, one.key, one.value).view(2 * n, 3, one.heads, -1)
    q, k, v = (seqs.pad(both[:n, part]).transpose(1, 2) for part in range(3))
    q2, k2, v2 = (seqs.pad(both[n:, part]).transpose(1, 2) for part in range(3))
    scale = 1 / math.sqrt(q.shape[3])
    future = torch.ones(rows.width, rows.width, dtype=torch.bool, device=base.device).triu(1)
    known, changed, asked = (
        (a @ b.transpose(2, 3) * scale).masked_fill(future, -math.inf) for a, b in ((q, k), (q, k2), (q2, k))
    )
    # An occluded item reads what came before it, and itself, by a query of its own.
    asked.diagonal(dim1=2, dim2=3).copy_((q2 * k2).sum(3) * scale)
    share = asked.softmax(3)
    own = share @ v + share.diagonal(dim1=2, dim2=3)[..., None] * (v2 - v)
    most = known.amax(3, keepdim=True)
    weight, weight2 = (known - most).exp(), (changed - most).clamp(max=_FAR).exp()
    cells = seqs.rows * rows.width + seqs.positions
    total, amount, own = (_of_cells(block, cells) for block in (weight @ v, weight.sum(3), own))
    after = rows.token[n:]
    pairs = cells.index_select(0, after) * rows.width + seqs.positions.index_select(0, rows.variant)
    w, w2 = (block.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, pairs) for block in (weight, weight2))
    before = amount.index_select(0, after)
    read = total.index_select(0, after)
    read.addcmul_(w[..., None], both[:n, 2].index_select(0, rows.variant), value=-1)
    read.addcmul_(w2[..., None], both[n:, 2].index_select(0, rows.variant)).div_((before - w + w2)[..., None])
    # Where the occluded item had most of the weight, the differences are small and their rounding errors are not;
    # where it gets far more than any item had, its weight is not a float32.
    heavy, head = ((w > _HEAVY * before) | (w2 >= math.exp(_FAR - 1))).nonzero(as_tuple=True)
    if len(heavy):
        read[heavy, head] = _summed_anew(known, changed, (v, v2), pairs[heavy], head)
    return torch.cat([total / amount[..., None], read]).index_copy_(0, rows.own, own).flatten(1)


def _summed_anew(known: Tensor, changed: Tensor, values: tuple[Tensor, Tensor], pairs: Tensor, head: Tensor) -> Tensor:
    """Gives what tokens read after an item is occluded, float ``[K, D / heads]``, by a softmax of their own.

    Args:
        known: float ``[P, heads, T, T]``, scores of the histories.
        changed: The same with the keys of occluded items.
        values: float ``[P, heads, T, D / heads]``, of the items and of the occluded items.
        pairs: int64 ``[K]``, which token and which occluded item, as a place in ``[P, T, T]``.
        head: int64 ``[K]``.

    Returns:
        Their rows, in the order of ``pairs``.
    """
    width = known.shape[3]
    history, token, item = pairs // width**2, pairs // width % width, pairs % width
    scores = known[history, head, token]
    each = torch.arange(len(pairs), device=pairs.device)
    scores[each, item] = changed[history, head, token, item]
    share = scores.softmax(1)
    old, new = values
    mean = (share[:, None] @ old[history, head])[:, 0]
    return mean + share[each, item][:, None] * (new - old)[history, head, item]


def _of_cells(block: Tensor, cells: Tensor) -> Tensor:
    """Gives the cells of a block ``[P, heads, T, ...]``, ``[N, heads, ...]``."""
    return block.transpose(1, 2).flatten(0, 1).index_select(0, cells)
