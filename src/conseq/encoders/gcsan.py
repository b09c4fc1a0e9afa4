r"""A graph of the history below self-attention: GC-SAN (Xu et al., IJCAI 2019), a baseline of MCLSR.

The nodes of a history's graph are its distinct items, its edges the steps from one item to the next. In each of
``steps`` rounds a node reads the mean of what leads to it and of what it leads to, by a gate:

.. math:: a_v = \Big[ \underset{u \to v}{\text{mean}} (W_{in} x_u + b_{in}) ;\;
    \underset{v \to u}{\text{mean}} (W_{out} x_u + b_{out}) \Big], \qquad x_v \leftarrow \text{GRU}(a_v, x_v)

The tokens then take their nodes' states through self-attention, and the last token's output :math:`E_n` is mixed with
what it read, :math:`\omega E_n + (1 - \omega) x_n`. The graph is of the whole history, so that no token's state is
free of what comes after it: this is no ``TokenEncoder``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from conseq.config import settings
from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Encoder
from conseq.encoders.sasrec import Block, SASRecConfig
from conseq.nn.items import ItemTable


@settings
class GCSANConfig:
    """Settings of GC-SAN. The defaults are those of RecBole's, whose loss has a penalty on the item table besides, of
    weight 5e-5. It is a matter of training, and there is none here."""

    width: Annotated[int, Field(ge=1)] = 64
    """D, width of item vectors and states."""
    steps: Annotated[int, Field(ge=1)] = 1
    """Rounds in which nodes read their neighbours."""
    layers: Annotated[int, Field(ge=1)] = 2
    """Blocks of self-attention."""
    heads: Annotated[int, Field(ge=1)] = 2
    """Attention heads."""
    hidden: Annotated[int, Field(ge=1)] | None = None
    """Inner width of the feed-forward; 4 D where not given."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.6
    """omega, the share of the attention's output; the rest is of the last item's node."""
    max_length: Annotated[int, Field(ge=1)] = 50
    """The most recent items of a history that are read."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout of each sublayer's output."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout of the attention probabilities."""

    def __call__(self, items: ItemTable) -> GCSAN:
        """Gives a new encoder over ``items``."""
        return GCSAN(self, items)


class GCSAN(Encoder):
    """A gated graph network over each history, and self-attention over its tokens, without positions.

    Args:
        config: The settings.
        items: The item table, shared by input and output.

    Raises:
        ValueError: if the table's width is not the encoder's.
    """

    def __init__(self, config: GCSANConfig, items: ItemTable) -> None:
        super().__init__(items)
        if items.width != config.width:
            raise ValueError(f"the item table is {items.width} wide, the encoder {config.width}")
        self.config = config
        width = config.width
        self.incoming = nn.Linear(width, width)
        self.outgoing = nn.Linear(width, width)
        self.gate = nn.GRUCell(2 * width, width)
        block = SASRecConfig(
            width=width,
            heads=config.heads,
            hidden=config.hidden,
            block="bert",
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
        )
        self.blocks = nn.ModuleList(Block(block) for _ in range(config.layers))
        for name, parameter in self.named_parameters():
            if name.startswith(("incoming", "outgoing", "gate")):
                # As in SR-GNN, from which the graph network is.
                nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)
            elif name.startswith("blocks") and parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.startswith("blocks") and "norm" not in name:
                nn.init.zeros_(parameter)

    def forward(self, histories: Sequences) -> Tensor:
        """Gives user vectors, float ``[B, D]``, from the last ``max_length`` items."""
        seqs = histories.tail(self.config.max_length)
        graph = steps_of(seqs)
        nodes = self.items(graph.items)
        for _ in range(self.config.steps):
            nodes = self._read_neighbours(nodes, graph)
        x = nodes[graph.node_of]
        last = x[seqs.last]
        *lower, top = (block for block in self.blocks if isinstance(block, Block))
        for block in lower:
            x = block(x, seqs, causal=True)
        share = self.config.share
        return share * top.last(x, seqs) + (1 - share) * last

    def _read_neighbours(self, nodes: Tensor, graph: Graph) -> Tensor:
        before = _mean(self.incoming(nodes)[graph.source], graph.target, len(nodes))
        after = _mean(self.outgoing(nodes)[graph.target], graph.source, len(nodes))
        out: Tensor = self.gate(torch.cat([before, after], 1), nodes)
        return out


@dataclass(frozen=True, eq=False)
class Graph:
    """The graphs of several histories side by side, no edge between two of them.

    Attributes:
        items: int64 ``[K]``, the item of each node: the distinct items of each history.
        node_of: int64 ``[N]``, the node of each token.
        source: int64 ``[E]``, the node that a step leads from; a step that is made twice is one edge.
        target: int64 ``[E]``, the node that it leads to.
    """

    items: Tensor
    node_of: Tensor
    source: Tensor
    target: Tensor


def steps_of(seqs: Sequences) -> Graph:
    """Gives the graphs of the steps from one item of a sequence to the next.

    Args:
        seqs: Histories.

    Returns:
        The graphs.
    """
    size = int(seqs.ids.max()) + 1 if seqs.ids.numel() else 1
    nodes, node_of = torch.unique(seqs.rows * size + seqs.ids, return_inverse=True)
    inside = seqs.positions[1:] > 0
    pairs = torch.unique(node_of[:-1][inside] * len(nodes) + node_of[1:][inside])
    return Graph(nodes % size, node_of, pairs // max(1, len(nodes)), pairs % max(1, len(nodes)))


def _mean(values: Tensor, of: Tensor, count: int) -> Tensor:
    """Gives the mean of the ``values`` float ``[E, D]`` of each of ``count`` nodes; zeros where it has none."""
    degree = torch.bincount(of, minlength=count).clamp(min=1)
    return values.new_zeros(count, values.shape[1]).index_add(0, of, values) / degree[:, None]
