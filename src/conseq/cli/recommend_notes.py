"""What ``conseq recommend`` says on standard error beside its answers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def tell_empty(dropped: int, empty: int, on_empty: str) -> None:
    """Says how many unknown items were left out of the histories, and how many histories have no other.

    Args:
        dropped: The items.
        empty: The histories.
        on_empty: What such histories get.
    """
    if dropped:
        print(f"unknown items left out of the histories: {dropped}", file=sys.stderr)
    if empty:
        what = "answered with what is popular" if on_empty == "popular" else "left without an answer"
        print(f"histories without a known item: {empty}, {what}", file=sys.stderr)


def tell_short(
    lengths: npt.NDArray[np.int64], empty: Sequence[int], who: str, asked: Mapping[str, Any], *, k: int, n_items: int
) -> None:
    """Says how many got fewer items than asked, and why; those without a known item are told elsewhere.

    Args:
        lengths: int64 ``[B]``, how many items each got.
        empty: Places of those without a known item.
        who: What they are.
        asked: The arguments of the recommender.
        k: How many items were asked for.
        n_items: How many there are.
    """
    short = lengths < k
    if asked["on_empty"] == "blank":
        short[list(empty)] = False
    if not short.any():
        return
    left_out = ["those of the history"] if asked["exclude_seen"] else []
    left_out += ["those of --exclude"] if asked["exclude"] else []
    left_out += ["all but the candidates"] if asked["candidates"] is not None else []
    why = f"the model has {n_items:,} items"
    why = f"of the {n_items:,} items of the model, {' and '.join(left_out)} are left out" if left_out else why
    none = int((short & (lengths == 0)).sum())
    told = f"{int(short.sum()):,} of {lengths.size:,} {who} got fewer than {k:,} items, {none:,} of them none"
    print(f"note: {told}: {why}", file=sys.stderr)


def tell_unknown(known: Sequence[str], asked: Mapping[str, Any]) -> None:
    """Says which items to exclude, or to choose from, the model does not know: they have no effect.

    Args:
        known: The model's items.
        asked: The arguments of the recommender.
    """
    for option in ("exclude", "candidates"):
        ids = asked[option] or []
        unknown = sorted(set(ids).difference(known)) if ids else []
        if unknown and asked["unknown"] == "drop":
            shown = ", ".join(map(repr, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
            print(
                f"note: the model does not know {len(unknown)} of the {len(set(ids))} items of --{option}: {shown} "
                "(ids are separated by spaces; @FILE reads a file, one id a line)",
                file=sys.stderr,
            )
