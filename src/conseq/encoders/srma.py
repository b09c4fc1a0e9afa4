r"""SASRec with layers after it that training drops by chance (SRMA).

Zhiwei Liu, Yongjun Chen, Jia Li, Man Luo, Philip S. Yu, Caiming Xiong: *Improving Contrastive Learning with Model
Augmentation*, 2022. M layers are appended to the encoder; a pass of the training leaves out some of them, so that two
views are read by two networks. All of them are kept when recommending.

.. math:: h \leftarrow \text{LayerNorm}(h + \text{Dropout}(\text{GELU}(W h + b)))
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from conseq.config import settings
from conseq.data.sequences import Sequences
from conseq.encoders.sasrec import FeedForward, SASRec, SASRecConfig
from conseq.nn.activation import gelu
from conseq.nn.dropout import Dropout
from conseq.nn.items import ItemTable

Appended = Literal["dense", "feed_forward"]


@settings
class SRMAConfig(SASRecConfig):
    """Settings of SASRec with appended layers. The defaults are those of the authors' script."""

    positions: Literal["start", "end"] = "end"
    """Count positions from the first item read or back from max_length."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout of the attention probabilities."""
    appended: Annotated[int, Field(ge=1)] = 2
    """M, layers after the blocks."""
    kind: Appended = "dense"
    """An appended layer: dense, one linear layer; feed_forward, two, with four times the width between them."""

    def __call__(self, items: ItemTable) -> SRMAEncoder:
        """Gives a new encoder over ``items``."""
        return SRMAEncoder(self, items)


class SRMAEncoder(SASRec):
    """SASRec and layers after it, each the same for every token.

    Args:
        config: The settings.
        items: The item table, shared by input and output.

    Raises:
        ValueError: if the table's width is not the encoder's.
    """

    def __init__(self, config: SRMAConfig, items: ItemTable) -> None:
        super().__init__(config, items)
        self.appended = nn.ModuleList(_Layer(config) for _ in range(config.appended))

    def contextualize(self, x: Tensor, seqs: Sequences, *, causal: bool = True) -> Tensor:
        """Gives token states from token inputs, float ``[N, D]``, with all appended layers."""
        return self.append(super().contextualize(x, seqs, causal=causal))

    def forward(self, histories: Sequences) -> Tensor:
        """Gives the last state of each history, float ``[B, D]``, reading its last ``max_length`` items."""
        return self.append(super().forward(histories))

    def below(self, seqs: Sequences) -> Tensor:
        """Gives SASRec's states, below all appended layers, float ``[N, D]``."""
        return super().contextualize(self.items(seqs.ids), seqs)

    def append(self, states: Tensor, dropped: frozenset[int] = frozenset()) -> Tensor:
        """Gives what the appended layers make of SASRec's states.

        Args:
            states: float ``[N, D]``.
            dropped: The layers that are left out, from 0.

        Returns:
            float ``[N, D]``.
        """
        for n, layer in enumerate(self.appended):
            if n not in dropped:
                states = layer(states)
        return states


class _Layer(nn.Module):
    """An appended layer, with dropout, a residual and a normalisation."""

    def __init__(self, config: SRMAConfig) -> None:
        super().__init__()
        width = config.width
        self.inner: nn.Module = (
            FeedForward(width, 4 * width, relu=False, dropout=0.0)
            if config.kind == "feed_forward"
            else nn.Linear(width, width)
        )
        self.dense = config.kind == "dense"
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        for module in self.inner.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Gives float ``[N, D]``."""
        inner = self.inner(x)
        out: Tensor = self.norm(x + self.dropout(gelu(inner) if self.dense else inner))
        return out
