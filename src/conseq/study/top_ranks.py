"""The ranks by user that a record keeps: those among the first twenty, a few kB, so that it can be compared."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from conseq.evaluation.lists import LIST_LENGTH
from conseq.evaluation.ranks import Protocol
from conseq.evaluation.result import Evaluation
from conseq.run.runner import History

TOP = 20
"""The last rank that is kept; metrics of longer lists cannot be told."""

KEY = "ranks"
"""What a record calls them; records made before they were kept have none."""


def packed(both: Mapping[History, Evaluation]) -> dict[str, Any] | None:
    """Gives what a record keeps of the ranks by user.

    Args:
        both: The evaluations of the test part, by their treatment of the history.

    Returns:
        JSON values; None where users have several targets, whose ranks are many.
    """
    one = next(iter(both.values()))
    if not all(np.array_equal(found.offsets, np.arange(len(found.users) + 1)) for found in both.values()):
        return None
    return {
        "top": TOP,
        "held_out": one.held_out,
        "users": _text(np.diff(one.users, prepend=-1).astype("<i4")),
        **{
            history: _text(np.where(found.ranks <= TOP, found.ranks, 0).astype("u1")) for history, found in both.items()
        },
    }


def unpacked(record: Mapping[str, Any], history: History) -> Evaluation:
    """Gives the evaluation of a record, with its ranks by user as far as they are kept.

    Args:
        record: The record.
        history: The protocol.

    Returns:
        The evaluation, called as the record's row; targets beyond the kept ranks have the rank ``inf``.

    Raises:
        ValueError: if the record keeps no ranks, or they are damaged.
    """
    called, kept = record_name(record), record.get(KEY)
    if kept is None:
        raise ValueError(
            f"{called} keeps no ranks by user: it was made before records kept them, or users have "
            "several targets; run it again, and compare the folders of runs"
        )
    try:
        users = np.cumsum(_array(kept["users"], "<i4"), dtype=np.int64) - 1
        ranks = _array(kept[history], "u1").astype(np.float64)
    except (KeyError, ValueError, TypeError, zlib.error) as error:
        raise ValueError(f"the ranks in {called} are damaged: {error}") from None
    if len(ranks) != len(users):
        raise ValueError(f"{called} has {len(users)} users and {len(ranks)} ranks")
    ranks[ranks == 0] = np.inf
    found = record["both"][history]
    return Evaluation(
        model=record["row"],
        protocol=Protocol(split="test", slicing=record["split"], history=history, ties=record["ties"]),
        users=users,
        ranks=ranks,
        offsets=np.arange(len(users) + 1),
        n_items=record["data"]["items"],
        metrics=dict(found["metrics"]),
        seconds=0.0,
        held_out=kept["held_out"],
        floors=found["floors"],
        counts={LIST_LENGTH: kept["top"]},
    )


def record_name(record: Mapping[str, Any]) -> str:
    """Gives what errors call a record."""
    return f"the record of {record['dataset']}: {record['row']} ({record['preset']}), seed {record['seed']}"


def _text(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()


def _array(text: str, kind: str) -> npt.NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype=kind)
