"""Convolutions over the last items of a history, seen as an image (Tang and Wang, WSDM 2018).

Departures from the paper: no user embedding beside the convolutions' output, so that a new user is served as
any other is; the item table that is read also scores (the paper learns a second table, and a bias per item);
a target is one next item (the paper's T = 1).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from conseq.config import settings
from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Encoder
from conseq.nn.dropout import Dropout
from conseq.nn.items import ItemTable

Activation = Literal["identity", "relu", "sigmoid", "tanh"]


@settings
class CaserConfig:
    """Settings of Caser. The defaults are those of the authors' code, but for the width (theirs: 50)."""

    width: Annotated[int, Field(ge=1)] = 64
    """D, width of item and user vectors (the paper's d)."""
    max_length: Annotated[int, Field(ge=1)] = 5
    """L, the most recent items of a history that are read: the height of the image."""
    horizontal_filters: Annotated[int, Field(ge=1)] = 16
    """n_h, filters for each of the heights 1..L."""
    vertical_filters: Annotated[int, Field(ge=1)] = 4
    """n_v, weighted sums of the L item vectors."""
    convolution_activation: Activation = "relu"
    """phi_c, of the horizontal convolutions."""
    output_activation: Activation = "relu"
    """phi_a, of the user vector."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout of the convolutions' output."""

    def __call__(self, items: ItemTable) -> Caser:
        """Gives a new encoder over ``items``."""
        return Caser(self, items)


class Caser(Encoder):
    """Horizontal and vertical convolutions over the ``L`` most recent items, and one dense layer.

    A history of fewer items stands at the end of the image, with zeros before it.

    Args:
        config: The settings.
        items: The item table, shared by input and output.

    Raises:
        ValueError: if the table's width is not the encoder's.
    """

    def __init__(self, config: CaserConfig, items: ItemTable) -> None:
        super().__init__(items)
        if items.width != config.width:
            raise ValueError(f"the item table is {items.width} wide, the encoder {config.width}")
        self.config = config
        length, filters = config.max_length, config.horizontal_filters
        heights = range(1, length + 1)
        self.horizontal = nn.ModuleList(nn.Conv1d(config.width, filters, height) for height in heights)
        self.vertical = nn.Linear(length, config.vertical_filters)
        self.dense = nn.Linear(length * filters + config.vertical_filters * config.width, config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, histories: Sequences) -> Tensor:
        """Gives user vectors, float ``[B, D]`` (the paper's z), from the last ``max_length`` items."""
        recent = histories.tail(self.config.max_length)
        image = recent.pad(self.items(recent.ids), side="left", width=self.config.max_length)
        columns = image.transpose(1, 2)  # [B, D, L]
        found = [_activate(layer(columns), self.config.convolution_activation).amax(2) for layer in self.horizontal]
        features = torch.cat([*found, self.vertical(columns).flatten(1)], 1)
        return _activate(self.dense(self.dropout(features)), self.config.output_activation)


def _activate(x: Tensor, kind: Activation) -> Tensor:
    """Gives ``x`` after the activation ``kind``, of the same shape."""
    if kind == "relu":
        return x.relu()
    if kind == "tanh":
        return x.tanh()
    return x.sigmoid() if kind == "sigmoid" else x
