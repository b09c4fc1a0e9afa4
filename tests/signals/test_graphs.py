from __future__ import annotations

import tracemalloc
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.signals import graphs
from conseq.signals.graphs import Graph, Matrix

LISTS = [[3, 1, 3], [2], [5, 1, 2, 3], [4, 5], [3, 5, 3, 3]]
N_ITEMS = 6  # item 6 is met by nobody

logs = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=9), min_size=1, max_size=12)


def met(lists: list[list[int]], n_items: int = N_ITEMS) -> Matrix:
    return graphs.interactions(Sequences.from_lists(lists), n_items)


def in_common(rows: list[set[int]], neighbours: int) -> dict[tuple[int, int], int]:
    """Gives the edges that either end keeps, with the number in common, by counting pair by pair."""
    n = len(rows)
    kept = {}
    for i in range(n):
        others = [(len(rows[i] & rows[j]), (j - i) % n, j) for j in range(n) if j != i and rows[i] & rows[j]]
        for count, _, j in sorted(others, key=lambda one: (-one[0], one[1]))[:neighbours]:
            kept[i, j] = kept[j, i] = count
    return kept


def entries(matrix: Matrix) -> dict[tuple[int, int], int]:
    triples = matrix.tocoo()
    return {(int(i), int(j)): int(w) for i, j, w in zip(triples.row, triples.col, triples.data, strict=True)}


def dense(adjacency: Matrix) -> Tensor:
    """Gives the normalised adjacency by its definition, entry by entry."""
    a = torch.from_numpy(adjacency.toarray())
    degrees = a.sum(1)
    out = torch.zeros_like(a)
    for i, j in product(range(len(a)), repeat=2):
        if a[i, j]:
            out[i, j] = a[i, j] / (degrees[i].sqrt() * degrees[j].sqrt())
    return out


def symmetric(n: int, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    half = sparse.csr_array(sparse.random_array((n, n), density=0.2, rng=rng))
    return sparse.csr_array(half + half.T)


def test_interactions_are_counted_with_repeats() -> None:
    expected = np.zeros((5, N_ITEMS + 2))
    for user, items in enumerate(LISTS):
        for item in items:
            expected[user, item] += 1
    assert np.array_equal(met(LISTS).toarray(), expected)


@pytest.mark.parametrize("item", [0, N_ITEMS + 1])
def test_padding_and_mask_are_no_interactions(item: int) -> None:
    with pytest.raises(ValueError, match=r"expected 1\.\.6"):
        met([[1, item]])


@pytest.mark.parametrize("weighted", [True, False])
def test_the_graph_of_users_and_items_has_an_edge_for_every_pair_that_met(weighted: bool) -> None:
    found = entries(graphs.user_item(met(LISTS), weighted=weighted))
    expected = {}
    for user, items in enumerate(LISTS):
        for item in items:
            weight = items.count(item) if weighted else 1
            expected[user, 5 + item] = expected[5 + item, user] = weight
    assert found == expected


@given(logs, st.integers(1, 5), st.booleans())
def test_things_in_common_are_those_counted_pair_by_pair(lists: list[list[int]], neighbours: int, flip: bool) -> None:
    matrix = met(lists, 7)
    rows = [set(row) for row in lists]
    if flip:  # the graph of items
        matrix = sparse.csr_array(matrix.T)
        rows = [{user for user, row in enumerate(lists) if item in row} for item in range(9)]
    expected = in_common(rows, neighbours)
    assert entries(graphs.co_interaction(matrix, neighbours=neighbours, weighted=True)) == expected
    binary = entries(graphs.co_interaction(matrix, neighbours=neighbours, weighted=False))
    assert binary == dict.fromkeys(expected, 1)


@pytest.mark.parametrize("pairs", [1, 7, 100])
def test_the_number_of_rows_that_are_counted_at_once_does_not_show(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    matrix = met([list(rng.integers(1, 20, size=rng.integers(1, 9))) for _ in range(60)], 20)
    at_once = graphs.co_interaction(matrix, neighbours=4, weighted=True)
    monkeypatch.setattr(graphs, "_PAIRS", pairs)
    assert entries(graphs.co_interaction(matrix, neighbours=4, weighted=True)) == entries(at_once)


def test_the_pairs_that_are_counted_at_once_are_bounded() -> None:
    # 100 users of one item: 100 pairs a row.
    has = sparse.csr_array(np.ones((100, 1), dtype=np.int64))
    assert list(graphs._blocks(has, 1000)) == [(begin, begin + 10) for begin in range(0, 100, 10)]
    assert list(graphs._blocks(has, 50)) == [(row, row + 1) for row in range(100)]


def test_among_equals_no_row_is_everybodys_neighbour() -> None:
    # Everybody met the same item: 200 rows with one thing in common each.
    graph = graphs.co_interaction(met([[1]] * 200), neighbours=5, weighted=True)
    assert set(np.diff(graph.indptr)) == {10}  # the 5 that follow, and the 5 before, which keep it


def test_most_in_common_comes_first_and_an_edge_needs_one_end_only() -> None:
    lists = [[1, 2, 3], [1], [1, 2], [3, 4], [4]]
    assert entries(graphs.co_interaction(met(lists), neighbours=1, weighted=True)) == {
        (0, 2): 2,  # each other's most
        (2, 0): 2,
        (1, 2): 1,  # 1 has one item in common with 0 and 2: the next of them is 2
        (2, 1): 1,
        (3, 4): 1,  # 3 has one in common with 4 and 0: the next is 4
        (4, 3): 1,
    }


def test_nobody_is_a_neighbour_of_himself_or_of_someone_with_nothing_in_common() -> None:
    assert graphs.co_interaction(met([[1, 2], [3], [4]]), neighbours=3, weighted=True).nnz == 0


def test_a_row_must_keep_a_neighbour() -> None:
    with pytest.raises(ValueError, match="at least 1 neighbour, found 0"):
        graphs.co_interaction(met(LISTS), neighbours=0, weighted=True)


def test_many_users_of_one_item_need_no_dense_matrix() -> None:
    # 10,000 users, of whom 2,000 met item 1: 4 million pairs, of which 10 a user are kept.
    users, rng = 10_000, np.random.default_rng(0)
    lists = [[1] if user % 5 == 0 else [int(rng.integers(2, 5000))] for user in range(users)]
    tracemalloc.start()
    graph = graphs.co_interaction(met(lists, 5000), neighbours=10, weighted=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * users * users / 4  # a quarter of the dense matrix
    assert graph.nnz <= 2 * 10 * users
    assert np.diff(graph.indptr)[0] == 20


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("rows", [list(range(30)), [7, 3, 3, 29], []])
def test_propagation_is_that_of_the_dense_matrix(depth: int, rows: list[int]) -> None:
    adjacency = symmetric(30, seed=1)
    graph = Graph(adjacency).double()
    graph.weights.copy_(_exact_weights(adjacency))
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    where = torch.tensor(rows, dtype=torch.int64)
    found = graph(x, depth=depth, rows=where)
    expected = (torch.linalg.matrix_power(dense(adjacency), depth) @ x)[where]
    torch.testing.assert_close(found, expected)
    weight = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((one * weight).sum(), x)[0] for one in (found, expected)]
    torch.testing.assert_close(*gradients)


def _exact_weights(adjacency: Matrix) -> Tensor:
    """Gives the normalised weights in float64; a graph keeps them in float32."""
    triples = adjacency.tocoo()
    return dense(adjacency)[torch.from_numpy(triples.row).long(), torch.from_numpy(triples.col).long()]


def test_the_gradient_of_propagation_is_right() -> None:
    graph = Graph(symmetric(8, seed=2)).double()
    x = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows = torch.tensor([5, 0, 5, 2])
    for depth in (1, 2, 3):
        assert torch.autograd.gradcheck(lambda one, layers=depth: graph(one, depth=layers, rows=rows), (x,))


def test_a_path_of_three_worked_out_by_hand() -> None:
    # a - b - c: degrees 1, 2, 1, so that both edges weigh 1 / sqrt(2).
    graph = Graph(sparse.csr_array(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=float)))
    x = torch.tensor([[1.0], [10.0], [100.0]])
    everyone = torch.arange(3)
    once = torch.tensor([[10.0], [101.0], [10.0]]) / 2**0.5
    twice = torch.tensor([[101.0 / 2], [10.0], [101.0 / 2]])
    torch.testing.assert_close(graph(x, depth=1, rows=everyone), once)
    torch.testing.assert_close(graph(x, depth=2, rows=everyone), twice)
    assert torch.equal(graph(x, depth=0, rows=torch.tensor([2, 0])), torch.tensor([[100.0], [1.0]]))


def test_a_node_without_edges_has_nothing_to_hand_on() -> None:
    graph = Graph(graphs.user_item(met(LISTS), weighted=True))
    x = torch.ones(len(graph), 2)
    alone = torch.tensor([5, 5 + 6, 5 + 7])  # padding, the item that nobody met, mask
    assert torch.equal(graph(x, depth=1, rows=alone), torch.zeros(3, 2))
    assert bool((graph(x, depth=1, rows=torch.arange(5)) > 0).all())


def test_a_graph_without_edges_propagates_to_zero() -> None:
    graph = Graph(sparse.csr_array((4, 4), dtype=np.float64))
    x = torch.ones(4, 2, requires_grad=True)
    out = graph(x, depth=2, rows=torch.tensor([1, 3]))
    assert torch.equal(out, torch.zeros(2, 2))
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], torch.zeros(4, 2))


def test_a_graph_moves_with_its_module_and_is_in_no_checkpoint() -> None:
    graph = Graph(symmetric(6, seed=0))
    assert graph.state_dict() == {}
    assert {name for name, _ in graph.named_buffers()} == {"offsets", "neighbours", "weights"}
    moved = Graph(symmetric(6, seed=0)).to("meta")
    assert all(one.device.type == "meta" for _, one in moved.named_buffers())


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0, 1], [0, 0]], "symmetric"),
        ([[0, 1, 0], [1, 0, 0]], "symmetric"),
        ([[0, -1], [-1, 0]], "must not be negative, found -1"),
    ],
)
def test_what_is_no_undirected_graph_is_refused(matrix: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Graph(sparse.csr_array(np.array(matrix, dtype=float)))


def test_vectors_that_do_not_fit_and_negative_depths_are_refused() -> None:
    graph = Graph(symmetric(6, seed=0))
    with pytest.raises(ValueError, match="the graph has 6 nodes, found 5 vectors"):
        graph(torch.zeros(5, 2), depth=1, rows=torch.tensor([0]))
    with pytest.raises(ValueError, match="depth must not be negative, found -1"):
        graph(torch.zeros(6, 2), depth=-1, rows=torch.tensor([0]))


@settings(max_examples=20)
@given(logs)
def test_every_entry_of_a_normalised_graph_is_at_most_one(lists: list[list[int]]) -> None:
    """The largest eigenvalue is 1, so that vectors do not grow with depth."""
    adjacency = graphs.user_item(met(lists, 7), weighted=True)
    values = torch.linalg.eigvalsh(dense(adjacency))
    assert float(values.abs().max()) <= 1 + 1e-9
    assert float(Graph(adjacency).weights.max()) <= 1 + 1e-6
