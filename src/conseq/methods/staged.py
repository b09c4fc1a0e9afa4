"""Methods whose first epochs train something else than the later ones."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from conseq.data.train_set import TrainSet
from conseq.encoders.encoder import Backbone, Encoder
from conseq.methods.method import Method

E = TypeVar("E", bound=Encoder)


class Staged(Method[E]):
    """A method with a first stage, of some epochs, and a second.

    The epoch is part of the state, so that a resumed run goes on in the stage in which it was stopped.

    Args:
        train: What is trained on.
        backbone: The encoder's settings.
        first: The epochs of the first stage, at least 0.
    """

    epoch: Tensor

    def __init__(self, train: TrainSet, backbone: Backbone[E], first: int) -> None:
        super().__init__(train, backbone)
        self._first = first
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    @property
    def first_epochs(self) -> int:
        """The epochs of the first stage."""
        return self._first

    @property
    def in_first_stage(self) -> bool:
        """Whether this epoch belongs to the first stage."""
        return int(self.epoch) <= self._first

    def begin_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Notes the epoch, which tells the stage."""
        self.epoch.fill_(epoch)
