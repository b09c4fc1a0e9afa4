"""Whether the epochs of a run are enough for what its method does in them."""

from __future__ import annotations

import sys
from typing import Any

from conseq.methods.method import Method
from conseq.training.config import TrainingConfig


def say_what_never_begins(method: Method[Any], training: TrainingConfig) -> None:
    """Says on standard error what of a method never begins with these settings.

    Args:
        method: The method.
        training: How it is trained.
    """
    first = method.first_epochs
    if first and first >= training.epochs:
        print(
            f"note: all {training.epochs} epochs belong to the first stage of {type(method).__name__}, which has "
            f"{first}: the next item is not trained",
            file=sys.stderr,
        )
    for what, epoch in method.later.items():
        if epoch > training.epochs:
            print(
                f"note: {what} of {type(method).__name__} begin in epoch {epoch}: with {training.epochs} epochs they "
                "take no part",
                file=sys.stderr,
            )


def say_what_the_pick_lacks(method: Method[Any], best_epoch: int, epochs: int) -> None:
    """Says on standard error what began only after the weights that are kept were trained.

    Args:
        method: The method.
        best_epoch: The epoch whose weights are kept; 0: the last.
        epochs: Epochs that there may be.
    """
    for what, epoch in method.later.items():
        if 0 < best_epoch < epoch <= epochs:
            print(
                f"note: the weights are those of epoch {best_epoch}, and {what} of {type(method).__name__} begin in "
                f"epoch {epoch}: they have no part in them; where patience ended the training too soon, set not_before",
                file=sys.stderr,
            )
