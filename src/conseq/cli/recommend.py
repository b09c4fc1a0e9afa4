"""``conseq recommend``: items for histories or for the users of a log, from a bundle."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from conseq.serving.recommender import Recommendations


@dataclass(frozen=True)
class Options:
    """Recommends items for one history, a file of them, or the users of a log."""

    bundle: Annotated[Path, tyro.conf.Positional]
    """A bundle, or a run's folder."""
    history: str | None = None
    """Item ids separated by spaces, oldest first."""
    history_json: str | None = None
    """The same as a JSON array, for ids with spaces."""
    histories: Path | None = None
    """A file with one history per line: ids separated by spaces, or (.jsonl) a JSON array."""
    log: str | None = None
    """A prepared folder, or a log: recommend for its users."""
    users: str | None = None
    """Only these users of the log: ids separated by spaces, a JSON array, or @FILE with one id per line."""
    before: Literal["validation", "test"] | None = None
    """Recommend from what the model's own cut of the log leaves in view before this part is held out, to those who are
    judged on it: lists to be judged, here or elsewhere."""
    out: Path | None = None
    """Write a table to this file: .parquet, .csv or .jsonl."""
    k: Annotated[int, tyro.conf.arg(aliases=("-k",))] = 10
    """Items to recommend."""
    exclude: str = ""
    """Items never recommended: ids separated by spaces, a JSON array, or @FILE with one id per line."""
    candidates: str | None = None
    """Recommend only these, given in the same way; all items where not given."""
    include_seen: bool = False
    """Also recommend what is in the history."""
    unknown: Literal["drop", "error"] = "drop"
    """What to do with unknown items: leave them out (those of histories are counted), or refuse them by name."""
    on_empty: Literal["error", "popular", "blank"] = "error"
    """What to do with a history without a known item."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Runs the command and gives its exit status."""
    options = tyro.cli(Options, prog="conseq recommend", args=argv)
    from conseq.serving.export import check_table
    from conseq.serving.histories import ids_from

    given = {
        "--history": options.history,
        "--history-json": options.history_json,
        "--histories": options.histories,
        "--log": options.log,
    }
    if sum(one is not None for one in given.values()) != 1:
        raise ValueError(f"give one of {', '.join(given)}")
    if options.users is not None and options.log is None:
        raise ValueError("--users are of a log; give it with --log")
    if options.before is not None and options.log is None:
        raise ValueError("--before is of a log; give it with --log")
    if options.out is not None:
        if options.json:
            raise ValueError("give --out, which writes a file, or --json, which prints")
        check_table(options.out)
    asked: dict[str, Any] = {
        "exclude_seen": not options.include_seen,
        "candidates": None if options.candidates is None else ids_from(options.candidates),
        "exclude": ids_from(options.exclude),
        "unknown": options.unknown,
        "on_empty": options.on_empty,
    }
    return _for_users(options, asked) if options.log is not None else _for_histories(options, asked)


def _for_users(options: Options, asked: dict[str, Any]) -> int:
    """Recommends for the users of a log."""
    from conseq.data.readers import read
    from conseq.serving.histories import ids_from, unknown_in
    from conseq.serving.recommender import Recommender

    log = read(options.log or "")
    everybody = log.user_ids.ids
    if options.before is not None:
        from conseq.run.judging import tell_of_other_log
        from conseq.run.lists import in_view, recorded_cut
        from conseq.serving.bundle import read_manifest

        told = read_manifest(options.bundle)
        if told.encoder.name == "matrix_factorization":
            raise ValueError(
                "--before is not of a model with a vector for each user: in serving everybody is a stranger to it, and "
                "`conseq evaluate` judges it with the users' own vectors"
            )
        cut = recorded_cut(told.provenance, source=str(options.bundle))
        tell_of_other_log(told.provenance, cut, log)
        log, everybody = in_view(log, cut, before=options.before)
    # Whoever is named twice gets one answer.
    users = everybody if options.users is None else list(dict.fromkeys(ids_from(options.users)))
    model = Recommender.load(options.bundle)
    _tell_unknown(model.item_ids.ids, asked)
    found = model.recommend_table(log, options.k, users=users, **asked)
    dropped, strangers = unknown_in(log, log.user_ids.encode(users), model.item_ids)
    if not options.json:
        _tell(dropped, len(strangers), options.on_empty)
        return written(found, options.out, "recommendations")
    answers: dict[str, list[dict[str, Any]]] = {user: [] for user in users}
    for row in found.iter_rows(named=True):
        answers[row.pop("user_id")].append(row)
    empty = [users[row] for row in strangers]
    print(json.dumps({"k": options.k, "dropped": dropped, "empty": empty, "recommendations": answers}))
    return 0


def _for_histories(options: Options, asked: dict[str, Any]) -> int:
    """Recommends for histories that the command or a file of them gives."""
    from conseq.serving.histories import UnknownItemsError, history_from_json, read_histories, words
    from conseq.serving.ranking import NO_ITEM, EmptyHistoryError
    from conseq.serving.recommender import Recommender

    histories: Any
    if options.histories is not None:
        histories = read_histories(options.histories)
    elif options.history_json is not None:
        histories = [history_from_json(options.history_json, source="--history-json")]
    else:
        histories = [words(options.history or "")]
    model = Recommender.load(options.bundle)
    _tell_unknown(model.item_ids.ids, asked)
    try:
        found = model.recommend(histories, options.k, **asked)
    except (EmptyHistoryError, UnknownItemsError) as error:
        # Lists to exclude, and candidates, are in no file; their errors name them.
        if options.histories is None or (isinstance(error, UnknownItemsError) and error.what != "histories"):
            raise
        reason = NO_ITEM if isinstance(error, EmptyHistoryError) else error.which
        raise ValueError(f"{options.histories}, line {error.row + 1}: {reason}") from None
    answers = found.to_dicts() if options.histories is not None else found.to_dicts()[0]
    if options.json:
        empty = found.empty.tolist()
        print(json.dumps({"k": options.k, "dropped": found.dropped, "empty": empty, "recommendations": answers}))
        return 0
    _tell(found.dropped, len(found.empty), options.on_empty)
    if options.histories is not None or options.out is not None:
        return written(_table(found), options.out, "recommendations")
    for one in answers:
        print(f"{one['rank']:>4}  {one['score']:>10.4f}  {one['item_id']}")
    return 0


def _tell(dropped: int, empty: int, on_empty: str) -> None:
    if dropped:
        print(f"unknown items left out of the histories: {dropped}", file=sys.stderr)
    if empty:
        what = "answered with what is popular" if on_empty == "popular" else "left without an answer"
        print(f"histories without a known item: {empty}, {what}", file=sys.stderr)


def _tell_unknown(known: Sequence[str], asked: Mapping[str, Any]) -> None:
    """Says which items to exclude, or to choose from, the model does not know: they have no effect."""
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


def _table(found: Recommendations) -> pl.DataFrame:
    """Gives recommendations with the number of each history, from 1, as the lines of a file are counted."""
    import polars as pl

    rows = [{"history": line, **one} for line, answer in enumerate(found.to_dicts(), 1) for one in answer]
    return pl.DataFrame(rows, schema={"history": pl.Int64, "item_id": pl.String, "score": pl.Float32, "rank": pl.Int64})


def written(table: pl.DataFrame, out: Path | None, what: str) -> int:
    """Writes a table to the file that is asked for, or prints it.

    Args:
        table: Rows of plain columns.
        out: The file; None: standard output, as CSV.
        what: What its rows are.

    Returns:
        The exit status.
    """
    from conseq.serving.export import export_table

    if out is not None:
        export_table(table, out)
        print(f"{table.height} {what} written to {out}", file=sys.stderr)
        return 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.iter_rows())
    return 0
