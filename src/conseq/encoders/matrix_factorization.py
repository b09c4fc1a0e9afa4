r"""A vector for each user of the training log: matrix factorization, which knows users and no order.

.. math:: \hat x_{ui} = w_u \cdot h_i

(Rendle et al., UAI 2009, section 4.3.1, there without biases.) All other encoders read a history; this one looks the
user up. A user who was not trained on gets what the history says, whatever its order:

.. math:: w = \frac{1}{n} \sum_{t=1}^{n} h_{i_t} - \frac{1}{V} \sum_{j=1}^{V} h_j

This is the direction of the first step that BPR takes from a user at zero, where every pair of an item met and an
item drawn weighs the same; its length does not change a ranking.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from conseq.config import settings
from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Encoder
from conseq.nn import pooling
from conseq.nn.items import ItemTable


@settings
class MatrixFactorizationConfig:
    """Settings of matrix factorization."""

    width: Annotated[int, Field(ge=1)] = 64
    """D, width of the vectors of users and items."""
    max_length: Annotated[int, Field(ge=1)] = 50
    """The most recent items that the vector of a stranger is made of; the users trained on have one for all theirs."""

    def __call__(self, items: ItemTable) -> MatrixFactorization:
        """Gives a new encoder over ``items``."""
        return MatrixFactorization(self, items)


class MatrixFactorization(Encoder):
    """The user's vector, where the user was trained on; otherwise one made of the history.

    Args:
        config: The settings.
        items: The item table.

    Attributes:
        users: float ``[U, D]``, by row in the log; empty until :meth:`add_users`.
        known: bool ``[U]``, whether a user of this row is trained on.

    Raises:
        ValueError: if the table's width is not the encoder's.
    """

    known: Tensor

    def __init__(self, config: MatrixFactorizationConfig, items: ItemTable) -> None:
        super().__init__(items)
        if items.width != config.width:
            raise ValueError(f"the item table is {items.width} wide, the encoder {config.width}")
        self.config = config
        self.users = nn.Parameter(torch.empty(0, config.width))
        self.register_buffer("known", torch.zeros(0, dtype=torch.bool))

    def add_users(self, rows: Tensor) -> None:
        """Gives each of ``rows`` (int64, rows in the log) a vector to be trained; those there were are replaced."""
        rows = rows.cpu()
        size = int(rows.max()) + 1
        self.users = nn.Parameter(torch.randn(size, self.config.width) * 0.02)
        self.known = torch.zeros(size, dtype=torch.bool).index_fill_(0, rows, value=True)

    def forget_users(self) -> None:
        """Makes everybody a stranger: in another log the same row is another user."""
        self.known = torch.zeros_like(self.known)

    def forward(self, histories: Sequences) -> Tensor:
        """Gives vectors of strangers, float ``[B, D]``, from the last ``max_length`` items."""
        recent = histories.tail(self.config.max_length)
        return pooling.mean(self.items(recent.ids), recent) - self.items.candidates.mean(0)

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        """Gives the inner product of every item with the user's vector, float ``[B, V]``.

        Args:
            users: int64 ``[B]``, rows in the log that was trained on; -1 for a stranger.
            histories: ``B`` sequences; those of the users trained on are not read.

        Returns:
            float ``[B, V]``.
        """
        vectors = self(histories)
        inside = ((users >= 0) & (users < len(self.known))).nonzero().squeeze(1)
        trained = inside[self.known[users[inside]]]
        vectors = vectors.index_copy(0, trained, self.users[users[trained]])
        return vectors @ self.items.candidates.T

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        # The settings do not tell how many users there are; what is loaded does.
        users = state_dict.get(f"{prefix}users")
        if users is not None and users.ndim == 2 and len(users) != len(self.users):
            self.users = nn.Parameter(self.users.new_empty(len(users), self.config.width))
            self.known = self.known.new_zeros(len(users))
        super()._load_from_state_dict(state_dict, prefix, *arguments)
