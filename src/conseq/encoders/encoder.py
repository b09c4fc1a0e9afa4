"""What every backbone gives: scores for evaluation and serving, user vectors, and (some) token states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, TypeGuard, TypeVar

from torch import Tensor, nn

from conseq.data.sequences import Sequences
from conseq.nn.items import ItemTable


class Scorer(nn.Module, ABC):
    """All that evaluation and serving ask of a model.

    Attributes:
        n_items: Items in the catalogue; item numbers are ``1..n_items``.
    """

    n_items: int

    @abstractmethod
    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        """Gives the score of every item for every history; higher is better.

        Args:
            users: int64 ``[B]``, rows in the log; -1 for a user who is not in it. Most models ignore them.
            histories: ``B`` sequences of at least one item.

        Returns:
            float ``[B, V]``; column ``j`` is item number ``j + 1``. Padding and mask have no column.
        """


class Encoder(Scorer):
    """Turns a history into one vector that is compared with the item table by inner product.

    Args:
        items: The item table, which may be shared with other modules.
    """

    def __init__(self, items: ItemTable) -> None:
        super().__init__()
        self.items = items
        self.n_items = items.n_items

    @abstractmethod
    def forward(self, histories: Sequences) -> Tensor:
        """Gives user vectors, float ``[B, D]``."""

    def __call__(self, histories: Sequences) -> Tensor:
        """Gives user vectors, float ``[B, D]``."""
        out: Tensor = super().__call__(histories)
        return out

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        """Gives the inner product of the user vectors with every item, float ``[B, V]``."""
        return self(histories) @ self.items.candidates.T


def scores_are_products(scorer: Scorer) -> TypeGuard[Encoder]:
    """Gives whether scores are what :class:`Encoder` makes them: inner products of user vectors with the items'."""
    return isinstance(scorer, Encoder) and type(scorer).scores is Encoder.scores


class TokenEncoder(Encoder):
    """An encoder that also gives one state per token."""

    max_length: int

    def states(self, seqs: Sequences) -> Tensor:
        """Gives the state of each token, float ``[N, D]``.

        ``seqs`` must not be longer than ``max_length``.
        """
        return self.contextualize(self.items(seqs.ids), seqs)

    @abstractmethod
    def contextualize(self, x: Tensor, seqs: Sequences, *, causal: bool = True) -> Tensor:
        """Gives token states from token inputs.

        Args:
            x: float ``[N, D]``, what stands in the place of the item vectors of ``seqs``.
            seqs: Gives the lengths; its ids are not read.
            causal: A token reads itself and what came before; False: the whole sequence.

        Returns:
            float ``[N, D]``.
        """

    def forward(self, histories: Sequences) -> Tensor:
        """Gives the last state of each history, float ``[B, D]``, reading its last ``max_length`` items."""
        histories = histories.tail(self.max_length)
        return self.states(histories)[histories.last]


E_co = TypeVar("E_co", bound=Encoder, covariant=True)


class Backbone(Protocol[E_co]):
    """An encoder's settings: called on an item table, they build the encoder."""

    @property
    def width(self) -> int:
        """``D``, the width of the item table that the encoder reads."""
        ...

    @property
    def max_length(self) -> int:
        """The most recent items of a history that the encoder reads."""
        ...

    def __call__(self, items: ItemTable) -> E_co:
        """Gives a new encoder over ``items``."""
        ...
