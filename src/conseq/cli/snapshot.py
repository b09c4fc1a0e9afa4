"""``conseq snapshot``: a bundle before a run is finished."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Options:
    """Writes the bundle of the best epoch so far, of a run that goes on or was stopped; the run is only read."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """The prepared folder, or the log, that it is trained on."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where the bundle goes; an older one there is replaced."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Runs the command and gives its exit status."""
    options = tyro.cli(Options, prog="conseq snapshot", args=argv)
    from conseq.cli.logs import read_log
    from conseq.run.snapshot import snapshot

    found = snapshot(options.run, read_log(options.data, "snapshot"), options.out)
    if options.json:
        print(json.dumps({**asdict(found), "bundle": str(options.out)}))
        return 0
    value = f"{found.metric} {found.value:.4f} on validation"
    print(f"epoch {found.best_epoch}, the best of {found.epochs} so far ({value}): {options.out}")
    return 0
