"""``conseq evaluate RUN_OR_BUNDLE DATA --history exclude|keep``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Options:
    """Judge a run or a bundle on held-out items of a log, in the full catalogue, with the floors beside it."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run's folder, or a bundle."""
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A prepared folder, or a log."""
    history: Literal["exclude", "keep"]
    """Whether items of the user's history are candidates."""
    split: Literal["validation", "test"] = "test"
    """The held-out part."""
    slicing: Literal["leave_one_out", "by_time", "by_user"] | None = None
    """How the log is cut; where not given, as the model's own record says, else leave_one_out."""
    ks: tuple[int, ...] = ()
    """Cut-offs of the metrics; where not given 5, 10 and 20, and 50 too where users are held out."""
    unknown: Literal["error", "drop"] = "error"
    """Items of the log that the model does not know: refuse the log, or leave them out."""
    device: str = "auto"
    """cpu, cuda, ...; auto: a GPU where there is one."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Judges a model and prints its metrics."""
    options = tyro.cli(Options, prog="conseq evaluate", args=argv)
    from conseq.cli.logs import read_log
    from conseq.cli.models import manifest_of
    from conseq.evaluation.tables import as_text, metrics_table, slices_table
    from conseq.run import judging
    from conseq.run.config import shown_name

    method = manifest_of(options.model).provenance.get("method")
    judged = judging.judge_bundle(
        options.model,
        read_log(options.data, "evaluate"),
        history=options.history,
        part=options.split,
        slicing=options.slicing,
        ks=options.ks,
        unknown=options.unknown,
        device=options.device,
    )
    if isinstance(method, dict) and "name" in method:  # published weights have none
        judged = replace(judged, model=shown_name(str(method["name"]), judged.model))
    if options.json:
        print(json.dumps(judged.record()))
    else:
        print(as_text(metrics_table(judged)))
        print(as_text(slices_table(judged)))
    return 0
