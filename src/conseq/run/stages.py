"""Whether the epochs of a run are enough for what its method does in them, and which of its settings do nothing."""

from __future__ import annotations

import difflib
import sys
from dataclasses import fields, is_dataclass
from typing import Any, get_args

from conseq.methods.method import Method
from conseq.methods.prediction import Loss
from conseq.training.config import TrainingConfig

_CALLED = ("loss", "updates", "groups", "begin_epoch", "first_epochs", "later", "training_defaults")
"""What a method may define for the trainer."""

_OF_LOSSES = {
    "negatives": {"binary_cross_entropy", "sampled_softmax", "gbce"},
    "calibration": {"gbce"},
    "log_q": {"sampled_softmax"},
}
"""Settings that methods share, with the losses that read them."""


def say_before_training(method: Method[Any], settings: object, training: TrainingConfig) -> None:
    """Says on standard error what of an experiment takes no part in its training.

    Args:
        method: The method.
        settings: Its settings.
        training: How it is trained.
    """
    say_what_has_no_effect(settings, training)
    say_a_warmup_without_end(training, method.train_set.n_batches(training.batch_size))
    say_what_is_never_called(method)
    say_what_never_begins(method, training)


def say_what_has_no_effect(method: object, training: TrainingConfig) -> None:
    """Says on standard error which settings differ from their default and change nothing beside the others.

    Args:
        method: The method's settings.
        training: How it is trained.
    """
    loss = getattr(method, "loss", None)
    defaults: dict[str, object] = {}
    if loss in get_args(Loss) and is_dataclass(method):  # a method of one's own may have losses of its own
        defaults = {one.name: one.default for one in fields(method)}
    for name, losses in _OF_LOSSES.items():
        found = getattr(method, name, None)
        if name in defaults and loss not in losses and found != defaults[name]:
            others = " and ".join(sorted(losses))
            print(f"note: {name} = {found} has no effect with the loss {loss}; it is of {others}", file=sys.stderr)
    if training.instances == "prefixes" and training.windows is not True:
        print(
            f"note: windows = {str(training.windows).lower()} has no effect with instances prefixes, each of which "
            "ends with the item before its next one; it is of whole histories",
            file=sys.stderr,
        )


def say_a_warmup_without_end(training: TrainingConfig, n_batches: int) -> None:
    """Says on standard error that the step size still rises when the training ends.

    Args:
        training: How the method is trained.
        n_batches: Batches of an epoch.
    """
    total = training.epochs * n_batches
    if training.warmup <= total:
        return
    highest = training.learning_rate * total / training.warmup
    scheduled = "" if training.schedule == "constant" else f", and schedule = {training.schedule} has no effect"
    print(
        f"note: warmup = {training.warmup} is longer than the whole training, {total} batches ({training.epochs} "
        f"epochs of {n_batches}): the step size ends at {highest:.3g} of {training.learning_rate:g}{scheduled}",
        file=sys.stderr,
    )


def say_what_is_never_called(method: Method[Any]) -> None:
    """Says on standard error which functions of a method are called almost like one that the trainer calls.

    Args:
        method: The method, maybe of the user's own.
    """
    kinds = [kind for kind in type(method).__mro__ if not kind.__module__.startswith(("conseq.", "torch.", "builtins"))]
    for name in sorted({name for kind in kinds for name, one in vars(kind).items() if callable(one)}):
        near = difflib.get_close_matches(name, _CALLED, n=1, cutoff=0.85)
        if near and not name.startswith("_") and name not in _CALLED and not hasattr(Method, name):
            print(
                f"note: {type(method).__name__}.{name} is never called by the trainer; it calls {near[0]}",
                file=sys.stderr,
            )


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
    if 0 < method.first_epochs >= epochs:
        # Said before the training, too, which may be hours ago.
        name = type(method).__name__
        print(
            f"note: what is kept is what the first stage of {name} left: the next item was not trained (epochs "
            f"{epochs}, of which the first stage has {method.first_epochs})",
            file=sys.stderr,
        )
    for what, epoch in method.later.items():
        if 0 < best_epoch < epoch <= epochs:
            print(
                f"note: the weights are those of epoch {best_epoch}, and {what} of {type(method).__name__} begin in "
                f"epoch {epoch}: they have no part in them; where patience ended the training too soon, set not_before",
                file=sys.stderr,
            )
