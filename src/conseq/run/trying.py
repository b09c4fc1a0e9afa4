"""What is wrong with settings, or with an encoder or a method of the user's own, told before the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Encoder, TokenEncoder, scores_are_products
from conseq.methods.method import Method
from conseq.training.trainer import evaluating


class SettingsError(ValueError):
    """Settings that fit neither each other nor the log: with them there is no model to train."""


@contextmanager
def of_the_settings() -> Iterator[None]:
    """Makes what a method refuses, when it is made or in a batch, an error of the settings.

    Yields:
        Nothing.

    Raises:
        SettingsError: in the place of another ``ValueError``.
    """
    try:
        yield
    except ValueError as error:
        raise SettingsError(str(error)) from error


def check_own_parts(method: Method[Any]) -> None:
    """Refuses a method or an encoder of the user's own that cannot be trained; ours are not looked at.

    The encoder is asked about two histories, in evaluation mode and without gradients. The states of torch's random
    generators are those of before.

    Args:
        method: The method, on its device.

    Raises:
        ValueError: if the encoder gives something other than it must, or nothing of the method would be trained; says
            what was found and what was expected.
    """
    encoder = method.encoder
    own = [part for part in (method, encoder) if type(part).__module__.partition(".")[0] != "conseq"]
    device = encoder.items.weight.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if encoder in own:
            _check_encoder(encoder)
        if own:
            _check_groups(method)


def _check_encoder(encoder: Encoder) -> None:
    name, device = type(encoder).__name__, encoder.items.weight.device
    if isinstance(encoder, TokenEncoder) and not isinstance(getattr(encoder, "max_length", None), int):
        raise ValueError(
            f"{name} has no max_length; expected a whole number, the most items of which it gives states, set in "
            "its __init__: self.max_length = ..."
        )
    histories = Sequences.from_lists([[1], [1, 2]]).to(device)
    rows, width = len(histories), encoder.items.width
    with evaluating(encoder):
        if scores_are_products(encoder):
            _check_shape(encoder(histories), [rows, width], encoder, "vectors of 2 histories")
        else:
            strangers = torch.full((rows,), -1, device=device)
            scores = encoder.scores(strangers, histories)
            _check_shape(scores, [rows, encoder.n_items], encoder, "scores of all items for 2 histories")
        if isinstance(encoder, TokenEncoder):
            seqs = histories.tail(encoder.max_length)
            _check_shape(encoder.states(seqs), [len(seqs.ids), width], encoder, f"states of {len(seqs.ids)} items")


def _check_shape(found: object, shape: list[int], encoder: Encoder, what: str) -> None:
    table = encoder.items.weight
    expected = _described(shape, table.dtype, table.device)
    shown = f"a {type(found).__name__}"
    if isinstance(found, Tensor):
        shown = _described(list(found.shape), found.dtype, found.device)
    if shown != expected:
        raise ValueError(f"{type(encoder).__name__} gives as {what} {shown}; expected {expected}")


def _described(shape: list[int], dtype: torch.dtype, device: torch.device) -> str:
    return f"a tensor of shape {shape} of {dtype} on {device}"


def _check_groups(method: Method[Any]) -> None:
    for group, part in method.groups().items():
        if not any(one.requires_grad for one in part.parameters()):
            raise ValueError(
                f"{type(method).__name__}: the group {group!r} has no parameter that requires a gradient, so that "
                "nothing of it would be trained"
            )
