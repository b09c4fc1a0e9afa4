"""``conseq reproduce STUDY``."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

_DATA, _RESULTS = Path("data"), Path("results")
INTERRUPTED = 130
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Options:
    """Run what a paper's table still lacks, and print the paper's numbers beside ours."""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """A table or figure, such as iclrec/table1; a paper, such as iclrec; or all."""
    data: Path = _DATA
    """The folder of the logs: one folder (or file) per data set, by its name."""
    dataset: tuple[str, ...] = ()
    """Only these data sets."""
    row: str | None = None
    """Only the row of this name; where there is none, rows whose name holds this text."""
    preset: Literal["paper", "released", "ours"] | None = None
    """Only rows of this preset."""
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Runs of each row; the first has the seed of its file, the others the ones after it."""
    budget: str | None = None
    """Stop after this time, such as 90m or 2h; what was begun goes on the next time."""
    processes: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Runs side by side."""
    again: bool = False
    """Run again what was recorded by other code."""
    dry_run: bool = False
    """Show what would run, and what is recorded; run nothing."""
    experiments: Path = Path("experiments")
    """The folder of the tables."""
    runs: Path = Path("runs")
    """The folder of the runs."""
    results: Path = _RESULTS
    """The folder of the records."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Runs a study and prints its tables."""
    options = tyro.cli(Options, prog="conseq reproduce", args=argv)
    budget = None if options.budget is None else seconds(options.budget)
    if min(options.seeds, options.processes) < 1:
        raise ValueError("--seeds and --processes must be at least 1")
    _check_folders(options)
    from conseq.study import tables as show
    from conseq.study.answers import SEEDS, newest_last
    from conseq.study.choosing import chosen
    from conseq.study.execution import execute
    from conseq.study.logs import Logs, origins
    from conseq.study.plan import plan
    from conseq.study.records import read_records
    from conseq.study.specification import find_tables

    tables = chosen(
        find_tables(options.experiments, options.study), options.dataset, row=options.row, preset=options.preset
    )
    records = read_records(options.results) if options.results.exists() else []
    logs = Logs(options.data, origins(tables))
    jobs = plan(tables, logs, records, seeds=options.seeds, runs=options.runs, again=options.again)
    print(show.plan_text(jobs, options.processes), file=sys.stderr)
    failed, interrupted = False, False
    if not options.dry_run:
        done = execute(
            jobs,
            options.results,
            processes=options.processes,
            budget=budget,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        failed, interrupted = bool(done.failed), done.interrupted
        if done.stopped:
            print(f"{len(done.stopped)} runs are not finished; the same command goes on", file=sys.stderr)
        records = read_records(options.results) if options.results.exists() else []
    records = newest_last(records, {one.dataset: logs.facts(one.dataset) for one in tables})
    looked_for = max(SEEDS, options.seeds)
    if options.json:
        print(json.dumps(show.as_json(tables, records, seeds=looked_for)))
    else:
        print("\n".join(show.answers_text(table, records, seeds=looked_for) for table in tables))
    return INTERRUPTED if interrupted else int(failed)


def _check_folders(options: Options) -> None:
    """Tells of folders that were named and are not there: taken as empty, they would make everything run anew."""
    # Where nothing was named, the plan tells which logs are missing, and the first records make their folder.
    if options.data != _DATA and not options.data.is_dir():
        raise FileNotFoundError(f"--data: {options.data} is no folder; expected the folder of the logs")
    if options.results.exists() and not options.results.is_dir():
        raise NotADirectoryError(f"--results: {options.results} is no folder; expected the folder of the records")
    if options.results != _RESULTS and not options.results.exists():
        print(f"note: --results: no folder {options.results} yet; nothing counts as recorded", file=sys.stderr)


def seconds(text: str) -> float:
    """Gives the seconds of a time such as ``90m``.

    Args:
        text: A number and one of s, m, h, d.

    Returns:
        The seconds.

    Raises:
        ValueError: if it is not such a time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise ValueError(f"--budget: expected a time such as 90m or 2h, found {text!r}")
    return float(found[1]) * _UNITS[found[2]]
