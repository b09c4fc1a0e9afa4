"""``conseq evaluate-lists LISTS DATA --history exclude|keep``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from conseq.run.splitting import Splitting


@dataclass(frozen=True)
class Options:
    """Judge recommendations that something else made, as a model is: the same users, targets, floors and protocol."""

    lists: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="LISTS")]
    """A table with a row for each recommended item: CSV, TSV, JSON lines, Parquet. Made from what the cut shows of each
    user: for the test part of leave-one-out from all but the last item."""
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A prepared folder, or a log."""
    history: Literal["exclude", "keep"]
    """Whether items of the user's history are candidates."""
    split: Literal["validation", "test"] = "test"
    """The held-out part."""
    slicing: Literal["leave_one_out", "by_time", "by_user"] = "leave_one_out"
    """How the log is cut."""
    like: Path | None = None
    """Cut the log as this run did, or what this bundle is of; instead of slicing."""
    user: str | None = None
    """The user column of the lists; guessed from its name where not given."""
    item: str | None = None
    """The item column of the lists; guessed from its name where not given."""
    rank: str | None = None
    """A column of ranks, the smallest first. Where neither this nor score is given: a column called rank or position,
    else score or prediction, else the rows as they stand."""
    score: str | None = None
    """A column of scores, the largest first."""
    unknown: Literal["error", "drop"] = "error"
    """Listed items that the log does not have: refuse the lists, or take the items out."""
    name: str | None = None
    """What the lists are called; the name of the file where not given."""
    out: Path | None = None
    """A folder to write the evaluation into, with every user's ranks, for conseq compare."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Judges lists and prints their metrics."""
    options = tyro.cli(Options, prog="conseq evaluate-lists", args=argv)
    from conseq.cli.logs import read_log
    from conseq.evaluation.lists import read_lists
    from conseq.evaluation.tables import as_text, metrics_table, slices_table
    from conseq.run.lists import check_out, judge_lists

    name = options.name or Path(options.lists).stem
    lists = read_lists(options.lists, user=options.user, item=options.item, rank=options.rank, score=options.score)
    by = f"column {lists.column!r}, a {lists.order}" if lists.column else "rows as they stand"
    print(
        f"{len(lists.user_ids):,} lists, {len(lists.item_ids):,} items, in the order of the {by}",
        file=sys.stderr,
    )
    if options.out is not None:
        check_out(options.out, name)
    judged = judge_lists(
        lists,
        read_log(options.data, "evaluate-lists"),
        history=options.history,
        name=name,
        part=options.split,
        cut=_cut(options),
        unknown=options.unknown,
    )
    if options.out is not None:
        judged.save(options.out)
        print(f"written to {options.out}", file=sys.stderr)
    if options.json:
        print(json.dumps(judged.record()))
        return 0
    print(as_text(metrics_table(judged)))
    print(as_text(slices_table(judged)))
    return 0


def _cut(options: Options) -> Splitting:
    from conseq.cli.models import manifest_of
    from conseq.run.lists import recorded_cut
    from conseq.run.splitting import SPLITS

    if options.like is None:
        return SPLITS[options.slicing]()
    if options.slicing != "leave_one_out":
        raise ValueError("--like and --slicing both say how the log is cut; give one of them")
    return recorded_cut(manifest_of(options.like, option="--like").provenance, source=str(options.like))
