"""Which item is most like an item: by who met both, by their vectors, or by the stronger of the two.

The item correlations of CoSeRec (Liu et al., arXiv 2108.06479), computed from training histories only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # which loads scipy.sparse where it is first used
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conseq.data.sequences import Sequences
from conseq.nn.items import ItemTable

if TYPE_CHECKING:
    import scipy.sparse

Kind = Literal["hybrid", "co_occurrence", "embedding"]
Compare = Literal["dot", "cosine"]

# Of the item-item matrix as many rows are held at once as make no more than this many numbers (100 MB), and 2,048.
_NUMBERS, _ROWS = 25_000_000, 2048


class Closest(NamedTuple):
    """The most similar other item of each item, and how similar it is.

    Attributes:
        items: int64 ``[V]``, item numbers; row ``j`` is that of item ``j + 1``. An item without any other is its own.
        scores: float32 ``[V]`` in ``[0, 1]``, min-max normalised; 0 for an item that is its own.
    """

    items: Tensor
    scores: Tensor


class ItemCorrelation(nn.Module):
    """The most correlated item of each item, as of the last refresh.

    It starts with co-occurrence (with inverse user frequency), which needs no training. :meth:`refresh` brings in
    the item vectors of the moment.

    Args:
        sequences: Training sequences, one per user.
        n_items: Items in the catalogue.
        kind: What a refresh takes: the vectors, the co-occurrence, or for each item the one of the two whose
            normalised score is larger (co-occurrence where they are equal).
        compare: How vectors are compared.
    """

    closest: Tensor
    _co_items: Tensor
    _co_scores: Tensor

    def __init__(self, sequences: Sequences, n_items: int, *, kind: Kind = "hybrid", compare: Compare = "dot") -> None:
        super().__init__()
        self.kind = kind
        self.compare: Compare = compare
        found = by_co_occurrence(sequences, n_items)
        # The log gives these again, the vectors of an earlier epoch do not give `closest` again.
        self.register_buffer("_co_items", found.items, persistent=False)
        self.register_buffer("_co_scores", found.scores, persistent=False)
        self.register_buffer("closest", _with_ends(found.items))

    def __call__(self, ids: Tensor) -> Tensor:
        """Gives the most correlated item of each of ``ids`` (int64, any shape; padding and mask give themselves)."""
        out: Tensor = super().__call__(ids)
        return out

    def forward(self, ids: Tensor) -> Tensor:
        """Gives the most correlated item of each of ``ids`` (int64, any shape; padding and mask give themselves)."""
        return self.closest[ids]

    def refresh(self, items: ItemTable) -> None:
        """Computes the correlations anew, with the vectors that ``items`` holds now."""
        if self.kind == "co_occurrence":
            return
        found = by_embedding(items, compare=self.compare)
        if self.kind == "hybrid":
            stronger = found.scores > self._co_scores
            self.closest.copy_(_with_ends(torch.where(stronger, found.items, self._co_items)))
        else:
            self.closest.copy_(_with_ends(found.items))


def by_co_occurrence(sequences: Sequences, n_items: int, *, inverse_user_frequency: bool = True) -> Closest:
    r"""Gives each item's closest item by who met both: ItemCF, with IUF where asked.

    .. math:: s_{ij} = \frac{1}{\sqrt{|U_i| |U_j|}} \sum_{u \in U_i \cap U_j} \frac{1}{\log(1 + |I_u|)}

    where :math:`U_i` are the users who met item i and :math:`I_u` the different items that user u met; without
    IUF each common user counts 1. Normalised by the least and the largest score of any pair of different items
    with a common user. Of equally similar items the one with the smallest number is taken. Sparse: some rows of
    the item-item matrix are held at a time.

    Args:
        sequences: Training sequences, one per user.
        n_items: Items in the catalogue.
        inverse_user_frequency: Whether a user with many items counts less.

    Returns:
        The closest items, on the device of ``sequences``.
    """
    met = _met(sequences, n_items)
    sizes = np.asarray(met.sum(1)).ravel()
    weights = 1 / np.log1p(np.maximum(sizes, 1)) if inverse_user_frequency else np.ones_like(sizes)
    users_of = np.asarray(met.sum(0)).ravel()
    root = np.sqrt(np.maximum(users_of, 1))
    scaled = (met @ scipy.sparse.diags_array(1 / root)).tocsr()
    weighted = (scipy.sparse.diags_array(weights) @ scaled).T.tocsr()
    items = np.arange(1, n_items + 1)
    best = np.zeros(n_items)
    least, most = np.inf, 0.0
    step = _rows(n_items)
    for first in range(0, n_items, step):
        block = (weighted[first : first + step] @ scaled).tocsr()
        highest, scores = _highest(block, first)
        items[first + highest.owner] = highest.column + 1
        best[first + highest.owner] = highest.score
        if scores.size:
            least, most = min(least, float(scores.min())), max(most, float(scores.max()))
    alone = best == 0
    score = np.where(alone, 0.0, (best - least) / (most - least) if most > least else 1.0)
    device = sequences.device
    return Closest(torch.from_numpy(items).to(device), torch.from_numpy(score).float().to(device))


@torch.no_grad()
def by_embedding(items: ItemTable, *, compare: Compare = "dot") -> Closest:
    """Gives each item's closest item by the inner product or the cosine of their vectors.

    Normalised by the least and the largest value of any pair of different items. Padding, mask and the item
    itself are no candidates. Some rows of the item-item matrix are held at a time.

    Args:
        items: The item table.
        compare: ``dot`` or ``cosine``.

    Returns:
        The closest items, on the device of the table.
    """
    vectors = items.candidates.float()
    if compare == "cosine":
        vectors = F.normalize(vectors, dim=-1)
    n = len(vectors)
    closest = torch.arange(1, n + 1, device=vectors.device)
    if n == 1:
        return Closest(closest, vectors.new_zeros(1))
    best = vectors.new_empty(n)
    least = vectors.new_full((), torch.inf)
    step = _rows(n)
    for first in range(0, n, step):
        rows = slice(first, first + step)
        scores = vectors[rows] @ vectors.T
        own = scores.diagonal(first)
        own.fill_(torch.inf)
        least = torch.minimum(least, scores.min())
        own.fill_(-torch.inf)
        best[rows], column = scores.max(1)
        closest[rows] = column + 1
    span = best.max() - least
    # Where all pairs are equally similar, each is the most similar.
    score = torch.where(span > 0, (best - least) / span.clamp(min=torch.finfo(span.dtype).tiny), torch.ones_like(best))
    return Closest(closest, score)


def _rows(n_items: int) -> int:
    return max(1, min(_ROWS, _NUMBERS // n_items))


class _Highest(NamedTuple):
    """The highest entry of each row that has one."""

    owner: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]


def _met(sequences: Sequences, n_items: int) -> scipy.sparse.csr_array:
    """Gives float64 ``[U, V]``: 1 where a user met an item, once or more."""
    rows, columns = sequences.rows.cpu().numpy(), sequences.ids.cpu().numpy() - 1
    shape = (len(sequences), n_items)
    met = scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=shape).tocsr()
    met.data[:] = 1.0
    return met


def _highest(block: scipy.sparse.csr_array, first: int) -> tuple[_Highest, npt.NDArray[np.float64]]:
    """Gives the highest entry of each row and all entries, without those of the diagonal (row r is item first + r)."""
    entries = block.tocoo()
    owner, column, score = entries.row, entries.col, entries.data
    other = column != owner + first
    owner, column, score = owner[other], column[other], score[other]
    # Rows together, in each the highest score first, among equal ones the smallest number.
    order = np.lexsort((column, -score, owner))
    owner, column, ordered = owner[order], column[order], score[order]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    return _Highest(owner[starts], column[starts], ordered[starts]), score


def _with_ends(items: Tensor) -> Tensor:
    """Gives int64 ``[V + 2]`` by item number: 0 for padding and V + 1 for the mask."""
    n = len(items)
    return torch.cat([items.new_zeros(1), items, items.new_full((1,), n + 1)])
