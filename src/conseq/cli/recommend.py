"""``conseq recommend``: items for histories, from a bundle."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


@dataclass(frozen=True)
class Options:
    """Recommends items for one history or a file of them."""

    bundle: Annotated[Path, tyro.conf.Positional]
    """The bundle's folder."""
    history: str | None = None
    """Item ids separated by spaces, oldest first."""
    history_json: str | None = None
    """The same as a JSON array, for ids with spaces."""
    histories: Path | None = None
    """A file with one history per line: ids separated by spaces, or (.jsonl) a JSON array."""
    k: Annotated[int, tyro.conf.arg(aliases=("-k",))] = 10
    """Items to recommend."""
    exclude: str = ""
    """Items never recommended: ids separated by spaces, a JSON array, or @FILE with one id per line."""
    candidates: str | None = None
    """Recommend only these, given in the same way; all items where not given."""
    include_seen: bool = False
    """Also recommend what is in the history."""
    unknown: Literal["drop", "error"] = "drop"
    """What to do with unknown items in a history."""
    on_empty: Literal["error", "popular", "blank"] = "error"
    """What to do with a history without a known item."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Runs the command and gives its exit status."""
    options = tyro.cli(Options, prog="conseq recommend", args=argv)
    from conseq.serving.histories import history_from_json, ids_from, read_histories, words
    from conseq.serving.recommender import Recommender

    given = (options.history, options.history_json, options.histories)
    if sum(one is not None for one in given) != 1:
        raise ValueError("give one of --history, --history-json and --histories")
    histories: Any
    if options.histories is not None:
        histories = read_histories(options.histories)
    elif options.history_json is not None:
        histories = [history_from_json(options.history_json, source="--history-json")]
    else:
        histories = [words(options.history or "")]
    found = Recommender.load(options.bundle).recommend(
        histories,
        options.k,
        exclude_seen=not options.include_seen,
        candidates=None if options.candidates is None else ids_from(options.candidates),
        exclude=ids_from(options.exclude),
        unknown=options.unknown,
        on_empty=options.on_empty,
    )
    answers = found.to_dicts() if options.histories is not None else found.to_dicts()[0]
    if options.json:
        print(json.dumps({"k": options.k, "dropped": found.dropped, "recommendations": answers}))
        return 0
    if found.dropped:
        print(f"unknown items left out of the histories: {found.dropped}", file=sys.stderr)
    if options.histories is None:
        for one in answers:
            print(f"{one['rank']:>4}  {one['score']:>10.4f}  {one['item_id']}")
        return 0
    table = csv.DictWriter(sys.stdout, ["history", "item_id", "score", "rank"], lineterminator="\n")
    table.writeheader()
    table.writerows({"history": line, **one} for line, answer in enumerate(answers, 1) for one in answer)
    return 0
