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
    from collections.abc import Iterable, Sequence

    import polars as pl

    from conseq.data.log import InteractionLog
    from conseq.data.vocabulary import Vocabulary
    from conseq.serving.recommendations import Recommendations


@dataclass(frozen=True)
class Options:
    """Recommends items for one history, a file of them, or the users of a log."""

    bundle: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE")]
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
    candidates_by_user: str | None = None
    """A table of users and items (a file as `conseq prepare` reads it): to each of its users recommend only these. With
    --log, whose other users are not answered."""
    include_seen: bool = False
    """Also recommend what is in the history."""
    unknown: Literal["drop", "error"] | None = None
    """What to do with unknown items: leave them out (those of histories are counted), or refuse them by name. Where not
    given, they are left out, but refused in a table of candidates by user."""
    on_empty: Literal["error", "popular", "blank"] = "error"
    """What to do with a history without a known item: refuse it, answer it with what is popular, whose scores are
    counts (a table then has a column `source` that tells), or leave it out."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Runs the command and gives its exit status."""
    options = tyro.cli(Options, prog="conseq recommend", args=argv)
    from conseq.cli.models import tell_of_strangers
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
    if options.candidates_by_user is not None and (options.log is None or options.candidates is not None):
        raise ValueError("--candidates-by-user is of the users of a log, given with --log, and takes no --candidates")
    if options.out is not None:
        if options.json:
            raise ValueError("give --out, which writes a file, or --json, which prints")
        check_table(options.out)
    tell_of_strangers(options.bundle)
    asked: dict[str, Any] = {
        "exclude_seen": not options.include_seen,
        "candidates": None if options.candidates is None else ids_from(options.candidates),
        "exclude": ids_from(options.exclude),
        "unknown": options.unknown or "drop",
        "on_empty": options.on_empty,
    }
    return _for_users(options, asked) if options.log is not None else _for_histories(options, asked)


def _for_users(options: Options, asked: dict[str, Any]) -> int:
    """Recommends for the users of a log."""
    import numpy as np

    from conseq.cli.recommend_notes import tell_empty, tell_short, tell_unknown
    from conseq.serving.histories import ids_from, unknown_in
    from conseq.serving.recommender import Recommender

    log, everybody = _log_of(options)
    # Whoever is named twice gets one answer.
    users = everybody if options.users is None else list(dict.fromkeys(ids_from(options.users)))
    model = Recommender.load(options.bundle)
    tell_unknown(model.item_ids.ids, asked)
    if options.candidates_by_user is not None:
        own = _own_candidates(options.candidates_by_user, model.item_ids, drop=options.unknown == "drop")
        asked["candidates"] = own
        users = users if options.users is not None else _with_candidates(everybody, own, options.candidates_by_user)
    found = model.recommend_table(log, options.k, users=users, **asked)
    dropped, strangers = unknown_in(log, log.user_ids.encode(users), model.item_ids)
    counts = dict(found.group_by("user_id").len().iter_rows())
    lengths = np.array([counts.get(user, 0) for user in users], dtype=np.int64)
    if not options.json:
        tell_empty(dropped, len(strangers), options.on_empty)
    tell_short(lengths, strangers, "users", asked, k=options.k, n_items=len(model.item_ids))
    if not options.json:
        return written(found, options.out, "recommendations")
    answers: dict[str, list[dict[str, Any]]] = {user: [] for user in users}
    for row in found.iter_rows(named=True):
        answers[row.pop("user_id")].append(row)
    empty = [users[row] for row in strangers]
    print(json.dumps({"k": options.k, "dropped": dropped, "empty": empty, "recommendations": answers}))
    return 0


def _log_of(options: Options) -> tuple[InteractionLog, list[str]]:
    """Gives the log whose users' histories are answered, and whose of its users are."""
    from conseq.cli.logs import read_log

    log = read_log(options.log or "", "recommend")
    if options.before is None:
        return log, log.user_ids.ids
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
    return in_view(log, cut, before=options.before)


def _own_candidates(source: str, known: Vocabulary, *, drop: bool) -> InteractionLog:
    """Gives the table of each user's candidates, as a log of them."""
    from conseq.cli.logs import read_log

    own = read_log(source, "recommend", time="-")
    unknown = [one for one in own.item_ids.ids if one not in known]
    if len(unknown) == own.n_items:
        raise ValueError(
            f"{source}: the model knows none of its {own.n_items:,} items, such as {unknown[0]!r}; its columns are the "
            "users and the items, in ids of the log"
        )
    if unknown:
        what = f"{len(unknown):,} of the {own.n_items:,} items in {source}, such as {unknown[0]!r}"
        if not drop:
            raise ValueError(f"--candidates-by-user: the model does not know {what}; --unknown drop leaves them out")
        print(f"note: the model does not know {what}: they are left out", file=sys.stderr)
    return own


def _with_candidates(everybody: Sequence[str], own: InteractionLog, source: str) -> list[str]:
    """Gives who has candidates; says how many of the table's users are passed over."""
    users = [user for user in everybody if user in own.user_ids]
    other = f"{own.n_users - len(users):,} of the {own.n_users:,} users in {source} are not among those of the log"
    if not users:
        raise ValueError(f"--candidates-by-user: {other}: there is nobody to recommend to")
    if len(users) < own.n_users:
        print(f"note: {other}, and are passed over", file=sys.stderr)
    return users


def _for_histories(options: Options, asked: dict[str, Any]) -> int:
    """Recommends for histories that the command or a file of them gives."""
    import numpy as np

    from conseq.cli.recommend_notes import tell_empty, tell_short, tell_unknown
    from conseq.serving.histories import UnknownItemsError
    from conseq.serving.ranking import NO_ITEM, EmptyHistoryError
    from conseq.serving.recommender import Recommender

    model = Recommender.load(options.bundle)
    tell_unknown(model.item_ids.ids, asked)
    try:
        found = model.recommend(_histories(options), options.k, **asked)
    except (EmptyHistoryError, UnknownItemsError) as error:
        # Lists to exclude, and candidates, are in no file; their errors name them.
        if options.histories is None or (isinstance(error, UnknownItemsError) and error.what != "histories"):
            raise
        reason = NO_ITEM if isinstance(error, EmptyHistoryError) else error.which
        raise ValueError(f"{options.histories}, line {error.row + 1}: {reason}") from None
    answers = found.to_dicts() if options.histories is not None else found.to_dicts()[0]
    lengths = (found.scores > -np.inf).sum(1)
    empty = found.empty.tolist()
    if not options.json:
        tell_empty(found.dropped, len(empty), options.on_empty)
    tell_short(lengths, empty, "histories", asked, k=options.k, n_items=len(model.item_ids))
    if options.json:
        print(json.dumps({"k": options.k, "dropped": found.dropped, "empty": empty, "recommendations": answers}))
        return 0
    if options.histories is not None or options.out is not None:
        table = _table(found, sources=options.on_empty == "popular")
        return written(table, options.out, "recommendations")
    for one in answers:
        print(f"{one['rank']:>4}  {one['score']:>10.4f}  {one['item_id']}")
    return 0


def _histories(options: Options) -> Iterable[list[str]]:
    from conseq.serving.histories import history_from_json, read_histories, words

    if options.histories is not None:
        return read_histories(options.histories)
    if options.history_json is not None:
        return [history_from_json(options.history_json, source="--history-json")]
    return [words(options.history or "")]


def _table(found: Recommendations, *, sources: bool) -> pl.DataFrame:
    """Gives recommendations with the number of each history, from 1, as the lines of a file are counted."""
    import polars as pl

    from conseq.serving.recommendations import with_sources

    rows = [{"history": line, **one} for line, answer in enumerate(found.to_dicts(), 1) for one in answer]
    table = pl.DataFrame(
        rows, schema={"history": pl.Int64, "item_id": pl.String, "score": pl.Float32, "rank": pl.Int64}
    )
    return with_sources(table, table["history"].is_in((found.empty + 1).tolist()).to_numpy()) if sources else table


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
