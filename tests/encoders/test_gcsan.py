"""GC-SAN: the graphs of histories, and the vectors against a slow reading with adjacency matrices."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.gcsan import GCSAN, GCSANConfig, steps_of
from conseq.nn.items import ItemTable

LISTS = [[3, 1], [2], [5, 2, 6, 5, 2], [7, 7, 1], [1, 2, 1, 3, 4, 5, 6, 2]]


def model(**settings: object) -> GCSAN:
    torch.manual_seed(0)
    config = GCSANConfig(**{"width": 4, "heads": 2, "max_length": 6, **settings})  # type: ignore[arg-type]
    return config(ItemTable(9, 4, std=1)).double().eval()


def slow(one: GCSAN, history: list[int]) -> Tensor:
    """One history, its graph as a matrix, its gate term by term."""
    history = history[-one.config.max_length :]
    names = list(dict.fromkeys(history))
    edges = torch.zeros(len(names), len(names), dtype=torch.float64)
    for a, b in pairwise(history):
        edges[names.index(a), names.index(b)] = 1
    x = one.items.weight[names]
    w, v, bias, more = one.gate.weight_ih, one.gate.weight_hh, one.gate.bias_ih, one.gate.bias_hh
    for _ in range(one.config.steps):
        before = (edges / edges.sum(0).clamp(min=1)).T @ one.incoming(x)
        after = (edges / edges.sum(1).clamp(min=1)[:, None]) @ one.outgoing(x)
        i, h = torch.cat([before, after], 1) @ w.T + bias, x @ v.T + more
        (ir, iz, new), (hr, hz, old) = i.chunk(3, 1), h.chunk(3, 1)
        z = torch.sigmoid(iz + hz)
        x = (1 - z) * torch.tanh(new + torch.sigmoid(ir + hr) * old) + z * x
    tokens = x[[names.index(item) for item in history]]
    read, alone = tokens, Sequences.from_lists([history])
    for block in one.blocks:
        read = block(read, alone, causal=True)
    return one.config.share * read[-1] + (1 - one.config.share) * tokens[-1]


@pytest.mark.parametrize("settings", [{}, {"steps": 3, "layers": 1, "share": 0.25}, {"share": 1.0, "hidden": 5}])
def test_a_user_vector_is_the_slow_one(settings: dict[str, object]) -> None:
    one = model(**settings)
    for name, parameter in one.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(parameter)  # so that each of them shows
    expected = torch.stack([slow(one, row) for row in LISTS])
    torch.testing.assert_close(one(Sequences.from_lists(LISTS)), expected)


def test_a_graph_has_each_item_and_each_step_of_a_history_once() -> None:
    graph = steps_of(Sequences.from_lists([[5, 2, 5, 2, 6], [2], [7, 7]]))
    assert graph.items.tolist() == [2, 5, 6, 2, 7]
    assert graph.items[graph.node_of].tolist() == [5, 2, 5, 2, 6, 2, 7, 7]
    steps = set(zip(graph.source.tolist(), graph.target.tolist(), strict=True))
    assert steps == {(1, 0), (0, 1), (0, 2), (4, 4)}
    assert len(graph.source) == 4
    empty = steps_of(Sequences.from_lists([[], []]))
    assert empty.items.numel() == empty.source.numel() == 0


def test_order_is_read() -> None:
    one = model()
    there, back = one(Sequences.from_lists([[1, 2, 3, 4], [1, 3, 2, 4]]))
    assert not torch.allclose(there, back)


def test_the_table_must_be_as_wide_as_the_encoder() -> None:
    with pytest.raises(ValueError, match="the item table is 5 wide, the encoder 4"):
        GCSANConfig(width=4)(ItemTable(9, 5))
