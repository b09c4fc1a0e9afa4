"""``conseq report [RUNS_OR_RECORDS ...] --out site``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Options:
    """Write static pages with tables, figures and maps of records and runs; they need no server and no network."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[INPUT ...]")] = ()
    """Records (.jsonl), run folders, bundles, or folders that hold any of them; results where none is named."""
    out: Path = Path("site")
    """The folder of the report; an older report there is replaced."""
    experiments: Path | None = None
    """The folder of the papers' tables; experiments where there is one."""
    data: Path | None = None
    """The folder of the logs, one folder per data set by its name, for maps of users and importances; data where there
    is one."""
    pictures: bool = True
    """Draw maps and importances of the runs and bundles that are named."""


def run(argv: list[str]) -> int:
    """Writes the report and says where it is."""
    options = tyro.cli(Options, prog="conseq report", args=argv)
    from conseq.report import report

    first = report(
        options.inputs or (Path("results"),),
        options.out,
        experiments=options.experiments or _here("experiments"),
        data=options.data or _here("data"),
        pictures=options.pictures,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(f"report: {first}")
    return 0


def _here(name: str) -> Path | None:
    return Path(name) if Path(name).is_dir() else None
