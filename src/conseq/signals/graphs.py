r"""Graphs of who met what in training, and the propagation of vectors along their edges (MCLSR eqs. 1, 4, 9).

Three undirected graphs come from one matrix of interactions: users with the items they met, users with users
who met the same items, items with items that the same users met. A graph sees training sequences and nothing
else. Item nodes are numbered as the rows of an :class:`~conseq.nn.items.ItemTable`, so that its weight is
their vectors: padding and mask are nodes without edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy  # which loads scipy.sparse where it is first used: that takes a tenth of the start of a process
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from conseq.data.sequences import Sequences, offsets_of

if TYPE_CHECKING:
    import scipy.sparse

Matrix: TypeAlias = "scipy.sparse.csr_array[np.float64, tuple[int, int]]"
Counts: TypeAlias = "scipy.sparse.csr_array[np.int64, tuple[int, int]]"
Integers = npt.NDArray[np.int64]

# Pairs of things in common that are held at once while they are counted.
_PAIRS = 1 << 20


def interactions(sequences: Sequences, n_items: int) -> Matrix:
    """Gives how often each sequence holds each item.

    Args:
        sequences: Of item numbers ``1..n_items``, one per user.
        n_items: Items in the catalogue.

    Returns:
        Sparse ``[U, V + 2]``, row ``i`` for sequence ``i``; the columns are those of an item table.

    Raises:
        ValueError: if an item number is outside the range.
    """
    ids = sequences.ids.cpu().numpy()
    if ids.size and (ids.min() < 1 or ids.max() > n_items):
        raise ValueError(f"item numbers lie in {ids.min()}..{ids.max()}; expected 1..{n_items}")
    rows = sequences.rows.cpu().numpy()
    # Entries of the same place are added up.
    return scipy.sparse.csr_array((np.ones(ids.size), (rows, ids)), shape=(len(sequences), n_items + 2))


def user_item(met: Matrix, *, weighted: bool) -> Matrix:
    """Gives the graph whose edges join users and the items they met.

    Args:
        met: From :func:`interactions`, ``[U, V + 2]``.
        weighted: An edge weighs the number of interactions; False: 1.

    Returns:
        Symmetric ``[U + V + 2, U + V + 2]``: the users, then the rows of the item table.
    """
    edges = met if weighted else _binary(met)
    return scipy.sparse.csr_array(scipy.sparse.block_array([[None, edges], [edges.T, None]], format="csr"))


def co_interaction(met: Matrix, *, neighbours: int, weighted: bool) -> Matrix:
    """Gives the graph whose edges join rows of ``met`` that have columns in common.

    Of a row's many others with something in common, those with the most in common are kept. Where that does not
    decide, the rows that follow it come first, going on at row 0 after the last: any fixed order does, and in
    this one no row is everybody's neighbour. An edge is in the graph if either of its ends keeps the other, so a
    row may have more than ``neighbours`` edges.

    The matrix of things in common is made and cut some rows at a time: memory grows with the edges that are kept.

    Args:
        met: ``[R, C]``. As :func:`interactions` gives it for the graph of users, transposed for that of items.
        neighbours: Others that each row keeps, at least 1.
        weighted: An edge weighs the number of columns in common; False: 1.

    Returns:
        Symmetric ``[R, R]``, with an empty diagonal.

    Raises:
        ValueError: if ``neighbours`` is less than 1.
    """
    if neighbours < 1:
        raise ValueError(f"a row must keep at least 1 neighbour, found {neighbours}")
    has = _binary(met).astype(np.int64)
    of = scipy.sparse.csr_array(has.T)
    kept = [_strongest(has[begin:end] @ of, begin, neighbours) for begin, end in _blocks(has, _PAIRS)]
    rows, columns, common = (np.concatenate(part) for part in zip(*kept, strict=True))
    weights = common.astype(np.float64) if weighted else np.ones(common.size)
    chosen: Matrix = scipy.sparse.csr_array((weights, (rows, columns)), shape=(met.shape[0], met.shape[0]))
    return scipy.sparse.csr_array(chosen.maximum(chosen.T))


class Graph(nn.Module):
    r"""An undirected graph with normalised edges :math:`D^{-1/2} A D^{-1/2}`, D the diagonal of A's row sums.

    Its edges are buffers that no checkpoint holds: whoever builds the graph builds it again from the same log.

    Args:
        adjacency: A, symmetric ``[n, n]``, non-negative.

    Raises:
        ValueError: if the adjacency is not square and symmetric, or has negative entries.
    """

    offsets: Tensor
    neighbours: Tensor
    weights: Tensor

    def __init__(self, adjacency: Matrix) -> None:
        super().__init__()
        if adjacency.shape[0] != adjacency.shape[1] or scipy.sparse.csr_array(adjacency - adjacency.T).count_nonzero():
            raise ValueError(f"the adjacency of an undirected graph is symmetric; found {adjacency.shape}, not so")
        if adjacency.nnz and adjacency.data.min() < 0:
            raise ValueError(f"the weight of an edge must not be negative, found {adjacency.data.min()}")
        degrees = np.asarray(adjacency.sum(1), dtype=np.float64)
        scale = np.divide(1.0, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
        rows = np.repeat(np.arange(degrees.size), np.diff(adjacency.indptr))
        weights = scale[rows] * adjacency.data * scale[adjacency.indices]
        self.register_buffer("offsets", torch.from_numpy(adjacency.indptr.astype(np.int64)), persistent=False)
        self.register_buffer("neighbours", torch.from_numpy(adjacency.indices.astype(np.int64)), persistent=False)
        self.register_buffer("weights", torch.from_numpy(weights).float(), persistent=False)

    def __len__(self) -> int:
        """Nodes of the graph."""
        return self.offsets.numel() - 1

    def __call__(self, x: Tensor, *, depth: int, rows: Tensor) -> Tensor:
        """Gives the propagated vectors of the nodes ``rows``, float ``[M, D]``."""
        out: Tensor = super().__call__(x, depth=depth, rows=rows)
        return out

    def forward(self, x: Tensor, *, depth: int, rows: Tensor) -> Tensor:
        r"""Gives the last of :math:`X^{(l)} = D^{-1/2} A D^{-1/2} X^{(l-1)}` (MCLSR eq. 1) for some nodes.

        No weight, no nonlinearity, no mean over layers. A node without edges has the zero vector from the first
        layer on.

        Args:
            x: float ``[n, D]``, the vectors of all nodes.
            depth: l, the number of layers; with 0 the vectors are given as they are.
            rows: int64 ``[M]``, the nodes whose vectors are asked for; the last layer computes no others.

        Returns:
            float ``[M, D]``.

        Raises:
            ValueError: if ``x`` has not one row per node, or ``depth`` is negative.
        """
        if len(x) != len(self):
            raise ValueError(f"the graph has {len(self)} nodes, found {len(x)} vectors")
        if depth < 0:
            raise ValueError(f"depth must not be negative, found {depth}")
        if depth == 0:
            return x[rows]
        edges = (self.offsets, self.neighbours, self.weights)
        for _ in range(depth - 1):
            x = _Product.apply(x, *edges, None)  # type: ignore[no-untyped-call]
        out: Tensor = _Product.apply(x, *edges, rows)  # type: ignore[no-untyped-call]
        return out

    def extra_repr(self) -> str:
        """Gives what the module's ``repr`` shows."""
        return f"{len(self)} nodes, {self.neighbours.numel() // 2} edges"


class _Product(torch.autograd.Function):
    """Some rows of a symmetric sparse matrix, or all, times a dense one.

    Of torch's sparse products ``embedding_bag`` is the fastest on a CPU, by a factor of 2.5 to 4. Its own gradient
    is slow; that of a product with a fixed matrix is the product with the transposed one.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, offsets: Tensor, neighbours: Tensor, weights: Tensor, rows: Tensor | None
    ) -> Tensor:
        ctx.some = rows is not None
        ctx.size = len(x)
        if rows is not None:
            starts = offsets[rows]
            part = offsets_of(offsets[rows + 1] - starts)
            total = int(part[-1])
            shift = torch.repeat_interleave(starts - part[:-1], part.diff(), output_size=total)
            places = torch.arange(total, device=x.device) + shift
            offsets, neighbours, weights = part, neighbours[places], weights[places]
        ctx.save_for_backward(offsets, neighbours, weights)
        return _weighted_sums(x.detach(), offsets, neighbours, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        offsets, columns, weights = ctx.saved_tensors
        if ctx.some:  # all rows together are their own transpose
            offsets, columns, weights = _transposed(offsets, columns, weights, ctx.size)
        return _weighted_sums(gradient.contiguous(), offsets, columns, weights), None, None, None, None


def _weighted_sums(x: Tensor, offsets: Tensor, neighbours: Tensor, weights: Tensor) -> Tensor:
    """Gives, for each stretch of ``neighbours``, the sum of their vectors times their weights."""
    return F.embedding_bag(
        neighbours, x, offsets, mode="sum", per_sample_weights=weights.to(x.dtype), include_last_offset=True
    )


def _transposed(offsets: Tensor, columns: Tensor, weights: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the same three of the transpose of a sparse matrix with ``n`` columns."""
    rows = torch.repeat_interleave(
        torch.arange(offsets.numel() - 1, device=columns.device), offsets.diff(), output_size=columns.numel()
    )
    order = torch.argsort(columns, stable=True)
    ends = torch.bincount(columns, minlength=n)
    return offsets_of(ends), rows[order], weights[order]


def _binary(met: Matrix) -> Matrix:
    return scipy.sparse.csr_array((np.ones(met.nnz), met.indices, met.indptr), shape=met.shape)


def _blocks(has: Counts, most: int) -> Iterator[tuple[int, int]]:
    """Gives stretches of rows of ``has`` with at most ``most`` pairs in common to count, at least one row each."""
    n = has.shape[0]
    per_column = np.bincount(has.indices, minlength=has.shape[1]).astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(per_column[has.indices])])[has.indptr]  # pairs up to each row
    # A pair is sorted as one integer of row, number in common and column.
    longest = int(np.diff(has.indptr).max(initial=0)) + 1
    most_rows = max(1, (1 << 62) // (longest * max(n, 1)))
    begin = 0
    while begin < n:
        end = int(np.searchsorted(ends, ends[begin] + most, side="right")) - 1
        end = min(max(end, begin + 1), begin + most_rows, n)
        yield begin, end
        begin = end


def _strongest(common: Counts, begin: int, neighbours: int) -> tuple[Integers, Integers, Integers]:
    """Gives row, column and number in common of the pairs that the rows of a block keep.

    Args:
        common: ``[rows, n]``, the number of things in common with each other row.
        begin: The block's first row.
        neighbours: Pairs to keep of each row.

    Returns:
        int64, three of equal length.
    """
    n = common.shape[1]
    rows = np.repeat(np.arange(common.shape[0], dtype=np.int64), np.diff(common.indptr))
    ahead = (common.indices - (rows + begin)) % n
    other = ahead > 0
    rows, ahead, counts = rows[other], ahead[other], common.data[other].astype(np.int64)
    top = int(counts.max(initial=0))
    # One integer holds row, number in common (most first) and distance, so that one plain sort ranks them all.
    keys = np.sort((rows * (top + 1) + (top - counts)) * n + ahead)
    rows, ahead = keys // (n * (top + 1)), keys % n
    counts = top - keys // n % (top + 1)
    first = np.searchsorted(rows, np.arange(common.shape[0]))
    kept = np.arange(rows.size) - first[rows] < neighbours
    rows = rows[kept] + begin
    return rows, (rows + ahead[kept]) % n, counts[kept]
