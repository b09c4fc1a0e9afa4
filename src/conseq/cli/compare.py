"""``conseq compare RUN RUN ... --history exclude|keep``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Options:
    """Compare runs with the first: paired over users, bootstrap and t-test, Holm's correction; seeds are averaged."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN ...")]
    """Folders of finished runs, or files of records (.jsonl). What differs in the seed alone is one experiment."""
    history: Literal["exclude", "keep"]
    """Whether items of the user's history are candidates."""
    metrics: tuple[str, ...] = ("HR@10", "NDCG@10", "HR@20", "NDCG@20")
    """What is compared."""
    confidence: float = 0.95
    """Of the intervals."""
    resamples: int = 10_000
    """Bootstrap samples of the users."""
    among: str | None = None
    """A part of the users, as the tables of `conseq evaluate` name it: 'time tie=no', 'history=<=5', 'repeat=yes'."""
    data: str | None = None
    """The log that the runs were judged on; needed for a part of the users."""
    dataset: str | None = None
    """Of files of records: the log."""
    rows: tuple[str, ...] = ()
    """Of files of records: their rows, the first one to compare with; where none is named, all that keep ranks."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Compares runs and prints a table."""
    options = tyro.cli(Options, prog="conseq compare", args=argv)
    for one in options.metrics:
        if "/" in one or Path(one).is_dir():
            raise ValueError(f"--metrics takes all that follows it, {one} too: name the runs first, then the options")
    if options.among is None and options.data is not None:
        raise ValueError("--data is the log that tells who is in a part of the users; name the part with --among")
    from conseq.cli.logs import read_log
    from conseq.evaluation.tables import as_text, comparison_table
    from conseq.study.comparison import chosen_records, compare_runs

    files = [one for one in options.runs if one.suffix == ".jsonl"]
    if not files and (options.rows or options.dataset is not None):
        raise ValueError(
            "--rows and --dataset choose among records: name their file, such as results/honest/main.jsonl"
        )
    found, evaluations = compare_runs(
        [one for one in options.runs if one not in files],
        options.metrics,
        history=options.history,
        confidence=options.confidence,
        resamples=options.resamples,
        part=options.among,
        log=None if options.data is None else read_log(options.data, "compare"),
        records=chosen_records(files, options.dataset, options.rows) if files else (),
    )
    protocol = evaluations[0].protocol
    if options.json:
        told = {"protocol": asdict(protocol), "among": options.among, "comparisons": [asdict(one) for one in found]}
        print(json.dumps(told))
    else:
        print(as_text(comparison_table(found, protocol, among=options.among)))
    return 0
