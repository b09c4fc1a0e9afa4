"""``conseq tune SPACE DATA``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from conseq.tuning import Tuned


@dataclass(frozen=True)
class Options:
    """Search for settings: trials are compared on validation, and the winner alone is judged on the test part."""

    space: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SPACE")]
    """An experiment file in which settings may be lists of values, or ranges { low = 0.1, high = 1.0 }."""
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A prepared folder, or a log."""
    out: Path = Path("tuned")
    """The folder of the search (given again: go on)."""
    trials: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """How many, with those that are there already; where not given, 20, and of a grid all combinations."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe: learn from the trials before; random; grid: all combinations."""
    seed: int = 0
    """Of the sampler; that of the training is a setting."""
    budget: str | None = None
    """Begin no trial after this time, such as 90m or 2h; the same command goes on."""
    judge: bool = True
    """Judge the winner on the test part, and write its bundle, when all trials are done."""
    epochs: bool = False
    """Show every epoch of every trial."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Searches, and prints the trials by their value and what the winner does on the test part."""
    options = tyro.cli(Options, prog="conseq tune", args=argv)
    from conseq.cli.logs import read_log
    from conseq.cli.reproduce import seconds
    from conseq.run import runner
    from conseq.tuning import read_space, tune

    budget = None if options.budget is None else seconds(options.budget)
    space = read_space(options.space)
    log = read_log(options.data, "tune")
    try:
        found = tune(
            space,
            log,
            options.out,
            trials=options.trials,
            sampler=options.sampler,
            seed=options.seed,
            budget=budget,
            judge=options.judge,
            show="lines" if options.epochs else "nothing",
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except runner.Stopped as stopped:
        print(f"{stopped}; the state is in {options.out}. To go on, give the same command", file=sys.stderr)
        return 130
    print(json.dumps(_record(found)) if options.json else _report(found, options.out))
    return 0


def _record(found: Tuned) -> dict[str, object]:
    evaluations = [] if found.outcome is None else [one.record() for one in found.outcome.evaluations.values()]
    return {
        "metric": found.metric,
        "complete": found.complete,
        "best": asdict(found.best),
        **found.config.record(),
        "trials": [asdict(one) for one in found.trials],
        "evaluations": evaluations,
    }


def _report(found: Tuned, out: Path) -> str:
    from conseq.evaluation.tables import as_text, metrics_table
    from conseq.tuning.table import trials_table

    tables = [trials_table(found)]
    if found.outcome is not None:
        tables += [metrics_table(one) for one in found.outcome.evaluations.values()]
    lines = [*map(as_text, tables)]
    if not found.complete:
        lines.append("the search is not complete: the same command goes on")
    lines.append(f"trials: {out / 'trials.jsonl'}")
    if found.outcome is not None:
        lines.append(f"bundle: {found.outcome.folder}/bundle")
    return "\n".join(lines)
