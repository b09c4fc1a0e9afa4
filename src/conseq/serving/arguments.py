"""Arguments of a request, checked where it enters."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence

import numpy as np

MOST_PADDED = 2**20


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Does nothing if ``value`` is among the known ones.

    Args:
        name: The argument's name, for errors.
        value: What was given.
        known: What may be given.

    Raises:
        ValueError: on anything else; the message names the known values, and the nearest where one is near.
    """
    if isinstance(value, str) and value in known:
        return
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{name} is {value!r:.60}; {hint}known values: {', '.join(map(repr, known))}")


def whole(name: str, value: object) -> int:
    """Gives a number of things as a Python integer.

    Args:
        name: The argument's name, for errors.
        value: What was given: an integer of Python or NumPy.

    Returns:
        The number.

    Raises:
        TypeError: if it is no integer; True and 3.0 are none.
        ValueError: if it is less than 1.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name} is {value!r:.60} of type {type(value).__name__}; it must be an integer, at least 1"
        ) from None
    if number < 1:
        raise ValueError(f"{name} is {number}; it must be at least 1")
    return number


def number_of_items(k: object, n_items: int) -> int:
    """Gives how many items are asked for. More than there are may be: the rest is padding, but not without a limit.

    Args:
        k: What was given.
        n_items: Items in the catalogue.

    Returns:
        The number.

    Raises:
        TypeError: if ``k`` is no integer.
        ValueError: if it is less than 1, or beyond the catalogue and beyond a million.
    """
    number = whole("k", k)
    if number > max(n_items, MOST_PADDED):
        raise ValueError(f"k is {number}, but there are {n_items} items; ask for {n_items} to get all of them")
    return number
