"""Recommendations that something else made, judged as a model is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from conseq.config import parse
from conseq.data.log import InteractionLog
from conseq.evaluation.lists import LIST_LENGTH, SHORTEST_LIST, Listed, Lists, Numbered, numbered
from conseq.evaluation.ranks import contained, distinct
from conseq.evaluation.result import Evaluation
from conseq.run.config import one_of
from conseq.run.folder import CONFIG
from conseq.run.runner import History, judge
from conseq.run.splitting import SPLITS, LeaveOneOut, Splitting

CUTOFFS = (5, 10, 20, 50, 100)


def judge_lists(
    lists: Lists,
    log: InteractionLog,
    *,
    history: History,
    name: str = "lists",
    part: Literal["validation", "test"] = "test",
    cut: Splitting | None = None,
    unknown: Literal["error", "drop"] = "error",
) -> Evaluation:
    """Gives how lists of recommended items stand on the held-out items of ``log``, with the floors beside them.

    The lists must have been made from what the cut shows of each user: for the test part of leave-one-out from all but
    the last item. Nothing here can know. A judged user without a list has a miss, and so has a target that is not
    listed. Metrics are cut off at 5, 10, 20 and so on, as far as the longest list reaches; there is no MRR, which would
    need the rank of what is not listed. Standard error tells of users without a list, of lists that are too short, and
    of what the protocol changes.

    Args:
        lists: The lists.
        log: The log.
        history: Whether items of the user's history are candidates; excluded ones are taken out of the lists, and what
            follows moves up.
        name: What the lists are called in tables.
        part: The held-out part.
        cut: How the log is cut; None: leave-one-out.
        unknown: What to do with listed items that the log does not have: refuse them, or take them out.

    Returns:
        The evaluation. Its ``counts`` also tell of ``list_length`` and ``shortest_list``, ``users_without_list`` and
        ``short_lists``.

    Raises:
        ValueError: if the log has none of the lists' users, or no list is of a judged user; if listed items are not in
            the log and may not be taken out; if an argument has a value that it cannot have.
    """
    _check_arguments(history, part, unknown)
    split = (LeaveOneOut() if cut is None else cut).cut(log)
    listed = numbered(lists, log.user_ids, log.item_ids, unknown=unknown)
    held = split.validation if part == "validation" else split.test
    own = listed.lists.select(held.users)
    if not own.ids.numel():
        raise ValueError(
            f"none of the {len(lists.user_ids):,} lists is of one of the {len(held.users):,} users who are judged"
        )
    seen = contained(own, held.histories)
    lengths = own.lengths if history == "keep" else own.keep(~seen).lengths
    longest = int(lengths.max())
    ks = tuple(k for k in CUTOFFS if k <= longest) or (longest,)
    if not longest:
        raise ValueError("every listed item is in its user's history: with the history excluded nothing is recommended")
    _say_what_is_left_out(listed, of=len(lists.user_ids))
    lacks = _lacks(lists, lengths=lengths, without=int((own.lengths == 0).sum()), last=max(ks))
    _say_what_the_protocol_does(history, int(seen.sum()))
    found = judge(Listed(listed.lists, log.n_items), split, history=history, part=part, ks=ks)
    _say_if_no_target_is_listed(found, part)
    hidden = contained(distinct(held.targets), held.histories) if history == "exclude" else lengths[:0]
    told = {"unreachable": int(hidden.sum()), LIST_LENGTH: longest, SHORTEST_LIST: int(lengths[own.lengths > 0].min())}
    counts = {**found.counts, **told, **lacks}
    return replace(_but_mrr(found), model=name, counts=counts)


def _check_arguments(history: str, part: str, unknown: str) -> None:
    one_of(("exclude", "keep"), history, name="history")
    one_of(("validation", "test"), part, name="part")
    one_of(("error", "drop"), unknown, name="unknown")


def check_out(folder: Path, name: str) -> None:
    """Refuses a folder for an evaluation of lists that holds anything but an earlier one of the same lists.

    Args:
        folder: The folder; it need not be there.
        name: What the lists are called.

    Raises:
        FileExistsError: if it is a file, or holds a run, the evaluation of other lists, or anything else.
    """
    if not folder.exists():
        return
    found = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    other = next((one.name for one in found if not one.name.startswith(("evaluation-", "."))), None)
    if other is not None or (folder / CONFIG).exists():
        what = "a run" if (folder / CONFIG).exists() else other
        raise FileExistsError(f"{folder} holds {what}: an evaluation of lists needs a folder of its own")
    for file in folder.glob("evaluation-*.safetensors"):
        model = Evaluation.load(file).model
        if model != name:
            raise FileExistsError(f"{folder} holds the evaluation of {model!r}, not of {name!r}; give each its folder")


def in_view(
    log: InteractionLog, cut: Splitting, *, before: Literal["validation", "test"]
) -> tuple[InteractionLog, list[str]]:
    """Gives what a cut of a log shows of each user who is judged: what lists may be made from.

    Args:
        log: The log.
        cut: How it is cut.
        before: The held-out part that is not shown.

    Returns:
        A log of those histories, without times, in which all others are empty; and the outside ids of who is judged.
    """
    split = cut.cut(log)
    held = split.validation if before == "validation" else split.test
    rows = held.users.numpy()
    lengths = np.zeros(log.n_users, dtype=np.int64)
    lengths[rows] = held.histories.lengths.numpy()
    order = torch.argsort(held.users)
    items = held.histories.select(order).ids.numpy().astype(log.items.dtype)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shown = InteractionLog(items, offsets, None, log.user_ids, log.item_ids, log.manifest)
    return shown, log.user_ids.decode(rows)


def recorded_cut(provenance: Mapping[str, object], *, source: str) -> Splitting:
    """Gives the cut that a bundle's record tells of.

    Args:
        provenance: The bundle's record.
        source: What it is of, for errors.

    Returns:
        The cut.

    Raises:
        ValueError: if it tells of none.
    """
    recorded = provenance.get("split")
    if not isinstance(recorded, dict) or recorded.get("name") not in SPLITS:
        raise ValueError(f"{source}: its record does not say how the log was cut; name a cut instead")
    table = {key: value for key, value in recorded.items() if key != "name"}
    return parse(SPLITS[recorded["name"]], table, source=f"{source}: split")


def _say_if_no_target_is_listed(found: Evaluation, part: str) -> None:
    if not np.isfinite(found.ranks).any():
        _say(
            f"no list holds the item that its user is judged by. Were they made from whole histories? For the {part} "
            f"part they must not have seen it (conseq recommend --before {part} makes such lists)"
        )


def _say_what_is_left_out(listed: Numbered, *, of: int) -> None:
    if listed.unknown_users:
        _say(f"{listed.unknown_users:,} of the {of:,} lists are of users whom the log does not have")
    if listed.unknown_items:
        _say(f"{listed.unknown_items:,} listed items are not in the log: they are taken out, and what follows moves up")


def _lacks(lists: Lists, *, lengths: Tensor, without: int, last: int) -> dict[str, int]:
    """Gives how many lists are missing or short, where any are, and says it."""
    short = int((lengths < last).sum()) - without
    if lists.equal_scores:
        _say(f"{lists.equal_scores:,} items have the score of the one before them: their order is that of the rows")
    if without:
        _say(f"{without:,} of the {len(lengths):,} users who are judged have no list; their targets count as misses")
    if short:
        _say(f"{short:,} users have fewer than {last} items; what their lists lack is no hit")
    return {name: count for name, count in (("users_without_list", without), ("short_lists", short)) if count}


def _say_what_the_protocol_does(history: History, seen: int) -> None:
    if history == "exclude" and seen:
        _say(f"{seen:,} listed items are in their user's history: they are taken out, and what follows moves up")
    if history == "keep" and not seen:
        _say(
            "no list holds an item of its user's history. If such items were left out on purpose, judge with the "
            "history excluded: kept, they are candidates of the models beside it"
        )


def _say(what: str) -> None:
    print(f"note: {what}", file=sys.stderr)


def _but_mrr(found: Evaluation) -> Evaluation:
    """Gives an evaluation without the metric that needs the rank of every target."""

    def rest(metrics: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if name != "MRR"}

    parts = {cut: {part: rest(values) for part, values in one.items()} for cut, one in found.slices.items()}
    floors = {name: rest(values) for name, values in found.floors.items()}
    return replace(found, metrics=rest(found.metrics), floors=floors, slices=parts)
