"""The whole contract between a paper's method and the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeAlias, TypeVar, get_args, get_origin

import torch
from torch import Tensor, nn

from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, Encoder, TokenEncoder
from conseq.nn.items import ItemTable

Terms: TypeAlias = dict[str, Tensor]
"""The named, weighted scalar terms whose sum is minimised: what is read here is what the gradient sees."""

E = TypeVar("E", bound=Encoder)


class Method(nn.Module, Generic[E]):
    """A way to train an encoder.

    A method is constructed as ``Method(config, train, backbone)``. State that must survive an epoch (centroids,
    importances) is a buffer, so that a checkpoint holds it.

    A method declares what encoders it can train: ``Method[Encoder]`` all, ``Method[TokenEncoder]`` those whose states
    see nothing of what comes after them. Any other encoder is refused.

    Args:
        train: What is trained on; kept for methods that compute signals from it.
        backbone: The encoder's settings.

    Attributes:
        encoder: What evaluation and serving use.

    Raises:
        ValueError: if the encoder is not of the class that the method is declared for.
    """

    encoder: E

    def __init__(self, train: TrainSet, backbone: Backbone[E]) -> None:
        super().__init__()
        self.train_set = train
        self.encoder = backbone(ItemTable(train.n_items, backbone.width))
        _check_encoder(self.encoder, type(self))

    @staticmethod
    def training_defaults(config: Any) -> dict[str, Any]:
        """Gives what the training has where nobody says otherwise, if it is not what all others have.

        Args:
            config: The method's settings.

        Returns:
            Settings of the training by name, such as ``{"instances": "prefixes"}``.
        """
        del config
        return {}

    @property
    def first_epochs(self) -> int:
        """Epochs of a first stage that trains something else than the next item; 0 where there is none."""
        return 0

    @property
    def later(self) -> dict[str, int]:
        """First epoch, from 1, of what does not take part in training from its beginning, by what it is."""
        return {}

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


def _check_encoder(encoder: Encoder, method: type[Method[Any]]) -> None:
    needed, name = _declared(method), type(encoder).__name__
    if isinstance(encoder, needed):
        return
    if needed is TokenEncoder:
        # Some others have states as well, but of those that read both ways each has seen the item it is to predict.
        raise ValueError(
            f"{method.__name__} needs a state of each item that sees nothing after it, and {name} has no token states; "
            "use encoder 'sasrec' or 'gru4rec', or one of your own that is a TokenEncoder"
        )
    raise ValueError(
        f"{method.__name__} trains encoders of class {needed.__name__}, found {name}; choose another encoder"
    )


def _declared(method: type[Method[Any]]) -> type[Encoder]:
    """Gives the class of the encoders that a method, or the nearest class above it, is declared for."""
    for kind in method.__mro__:
        for base in kind.__dict__.get("__orig_bases__", ()):
            above = get_origin(base)
            if not (isinstance(above, type) and issubclass(above, Method)):
                continue
            for argument in get_args(base):
                found = argument.__bound__ if isinstance(argument, TypeVar) else argument
                if isinstance(found, type) and issubclass(found, Encoder) and found is not Encoder:
                    return found
    return Encoder
