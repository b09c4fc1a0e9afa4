"""A stored model judged on a log that may number its items otherwise."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from conseq.config import parse
from conseq.data.log import InteractionLog
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.matrix_factorization import MatrixFactorization
from conseq.evaluation.result import Evaluation
from conseq.run.config import one_of
from conseq.run.runner import History, data_record, judge, resolve_device
from conseq.run.splitting import SPLITS, ByTime, Splitting
from conseq.serving.bundle import Bundle, load_bundle

OTHER_CUT_NOTE = (
    "note: the model was trained under the cut {trained} and is judged under {judged}: training may have seen what is "
    "held out here, so the numbers may be too good; without a slicing the model's own cut is used"
)
OTHER_LOG_NOTE = (
    "note: the model was trained on another log, of which the cut {cut} may have held out something else: training may "
    "have seen what is held out here, so the numbers may be too good"
)
OTHER_USERS_NOTE = (
    "note: the model has a vector for each user of the log it was trained on, and this log is another one: every user "
    "is a stranger, whose vector is made of the history"
)


def judge_bundle(
    path: Path,
    log: InteractionLog,
    *,
    history: History,
    part: Literal["validation", "test"] = "test",
    slicing: Literal["leave_one_out", "by_time", "by_user"] | None = None,
    unknown: Literal["error", "drop"] = "error",
    device: str = "auto",
    ks: Sequence[int] = (),
) -> Evaluation:
    """Gives how a stored model ranks the held-out items of ``log``.

    Args:
        path: A run's folder, or a bundle.
        log: The log, in its own numbering.
        history: Whether items of the user's history are candidates.
        part: The held-out part.
        slicing: How the log is cut; None: as the bundle's record says, leave-one-out where it says nothing.
        unknown: What to do with items that the bundle does not know.
        device: Where to compute.
        ks: Cut-offs of the metrics; none: 5, 10 and 20, and 50 too where users are held out.

    Returns:
        The evaluation.

    Raises:
        ValueError: if the log has items that the bundle does not know and ``unknown`` is ``error``, or an argument has
            a value that it cannot have.
    """
    bundle = load_bundle(path, resolve_device(device))
    forget_other_users(bundle, log)
    cut = cut_of(bundle, slicing)
    tell_of_other_log(bundle.provenance, cut, log)
    split = cut.cut(renumber(log, bundle.item_ids, unknown=unknown))
    found = judge(bundle.encoder, split, history=history, part=part, ks=ks)
    return replace(found, model=type(bundle.encoder).__name__)


def forget_other_users(bundle: Bundle, log: InteractionLog) -> None:
    """Makes strangers of the users of ``log`` where the model has vectors of the users of another one.

    Standard error says so.

    Args:
        bundle: The model, and the record of what it was trained on.
        log: The log that it is to be judged on.
    """
    if not isinstance(bundle.encoder, MatrixFactorization):
        return
    trained_on = bundle.provenance.get("data")
    if isinstance(trained_on, dict) and trained_on.get("hash") == data_record(log)["hash"]:
        return
    print(OTHER_USERS_NOTE, file=sys.stderr)
    bundle.encoder.forget_users()


def tell_of_other_log(provenance: Mapping[str, object], cut: Splitting, log: InteractionLog) -> None:
    """Says on standard error where who or what is held out depends on the log, and this one is not the model's.

    Two moments that the settings name hold out the same of every log.

    Args:
        provenance: The bundle's record of what the model was trained on.
        cut: How the log is cut.
        log: The log.
    """
    trained_on = provenance.get("data")
    if not isinstance(trained_on, dict) or trained_on.get("hash") == data_record(log)["hash"]:
        return
    if not isinstance(cut, ByTime) or cut.validation_from is None:
        print(OTHER_LOG_NOTE.format(cut=cut.name), file=sys.stderr)


def cut_of(bundle: Bundle, slicing: str | None) -> Splitting:
    """Gives the cut called ``slicing``, with the settings of the bundle's own record where that is the same cut.

    Where the record tells of another cut, training may have seen what this one holds out: standard error says so.

    Args:
        bundle: Tells under which cut it was trained.
        slicing: The cut; None: the bundle's own, leave-one-out where it tells of none.

    Returns:
        The cut.

    Raises:
        ValueError: if there is no such cut.
    """
    if slicing is not None:
        one_of(SPLITS, slicing, name="slicing")
    recorded = bundle.provenance.get("split")
    table = dict(recorded) if isinstance(recorded, dict) else {}
    name = str(table.pop("name", "leave_one_out"))
    if slicing is not None and slicing != name:
        if isinstance(recorded, dict):
            print(OTHER_CUT_NOTE.format(trained=name, judged=slicing), file=sys.stderr)
        name, table = slicing, {}
    return parse(SPLITS[name], table, source="the bundle's record of its split")


def renumber(
    log: InteractionLog, item_ids: Vocabulary, *, unknown: Literal["error", "drop"] = "error"
) -> InteractionLog:
    """Gives ``log`` with the item numbers of another vocabulary.

    Args:
        log: The log.
        item_ids: The numbering wanted.
        unknown: ``drop`` leaves out interactions with items that are not in it; standard error says how many.

    Returns:
        The log; its users keep their rows.

    Raises:
        ValueError: if items are unknown and may not be; names one. Also if ``unknown`` is neither of the two.
    """
    one_of(("error", "drop"), unknown, name="unknown")
    if log.item_ids == item_ids:
        return log
    numbers = np.array([0] + [item_ids.number(one) or 0 for one in log.item_ids.ids], dtype=np.int32)
    missing = np.flatnonzero(numbers[1:] == 0)
    if missing.size and unknown == "error":
        raise ValueError(
            f"{missing.size} of the log's {log.n_items} items are unknown to the model, such as "
            f"{log.item_ids.ids[missing[0]]!r}; judge it on the data it was trained on, or leave them out with "
            "--unknown drop"
        )
    items = numbers[log.items]
    kept = items > 0
    if not kept.all():
        _say_left_out(log, kept, missing.size)
    offsets = np.concatenate([[0], np.cumsum(kept)])[log.offsets]
    times = None if log.times is None else log.times[kept]
    return InteractionLog(items[kept], offsets, times, log.user_ids, item_ids, log.manifest)


def _say_left_out(log: InteractionLog, kept: npt.NDArray[np.bool_], items: int) -> None:
    """Says what is left out of a log, where ``kept`` is false, and that what is held out may be another item for it."""
    ends = log.offsets[1:][np.diff(log.offsets) > 0] - 1
    print(
        f"note: {np.count_nonzero(~kept):,} of {len(log):,} interactions are left out, those with the {items:,} items "
        f"that the model does not know; of {np.count_nonzero(~kept[ends]):,} of {ends.size:,} users it is the last "
        "one, so that an earlier item may be the one that is held out",
        file=sys.stderr,
    )
