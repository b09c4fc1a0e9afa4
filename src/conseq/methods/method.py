"""The whole contract between a paper's method and the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, Encoder
from conseq.nn.items import ItemTable

Terms: TypeAlias = dict[str, Tensor]
"""The named, weighted scalar terms whose sum is minimised: what is read here is what the gradient sees."""

E = TypeVar("E", bound=Encoder)


class Method(nn.Module, Generic[E]):
    """A way to train an encoder.

    A method is constructed as ``Method(config, train, backbone)``. State that must survive an epoch (centroids,
    importances) is a buffer, so that a checkpoint holds it.

    Args:
        train: What is trained on; kept for methods that compute signals from it.
        backbone: The encoder's settings.

    Attributes:
        encoder: What evaluation and serving use.
    """

    encoder: E

    def __init__(self, train: TrainSet, backbone: Backbone[E]) -> None:
        super().__init__()
        self.train_set = train
        self.encoder = backbone(ItemTable(train.n_items, backbone.width))

    def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
        """Gives the terms of the loss of a batch.

        Args:
            batch: Training examples.
            rng: The source of every random number but dropout's; on the CPU.

        Returns:
            Scalars by name.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither loss nor updates")

    def groups(self) -> dict[str, nn.Module]:
        """Gives the parts that are trained together, by name; each has an optimizer of its own."""
        return {"all": self}

    def updates(self, batch: Batch, rng: torch.Generator) -> Iterator[tuple[str, Terms]]:
        """Gives the updates of a batch in order: a group's name and the terms that it descends.

        The trainer steps the group before it asks for the next update, so a later loss is computed with the
        parameters that the earlier update left. Must be read to the end.
        """
        yield "all", self.loss(batch, rng)

    def begin_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Recomputes what is constant during an epoch; called in evaluation mode, without gradients.

        Args:
            epoch: From 1.
            rng: On the CPU.
        """
