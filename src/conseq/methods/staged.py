"""Methods whose first epochs train something else than the later ones."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from conseq.data.train_set import TrainSet
from conseq.encoders.encoder import Backbone, Encoder
from conseq.methods.method import Method

E = TypeVar("E", bound=Encoder)

# The default of TrainingConfig, which methods know nothing of; a test holds the two together.
_USUAL_EPOCHS = 100


def epochs_after(first: int) -> dict[str, Any]:
    """Gives defaults of a training in which a second stage has as many epochs as other methods have in all.

    Args:
        first: The epochs of the first stage.

    Returns:
        The setting ``epochs``; nothing where there is no first stage.
    """
    return {"epochs": first + _USUAL_EPOCHS} if first else {}


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
        return self._first > 0 and int(self.epoch) <= self._first

    def begin_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Notes the epoch, which tells the stage."""
        self.epoch.fill_(epoch)
