"""``conseq import-weights``: a bundle from the weights that research code published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Options:
    """Turns published weights into a bundle, without executing anything that the file holds."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """A state dict, or a checkpoint that holds one under "state_dict"."""
    layout: Literal["s3rec", "recbole"]
    """Whose code wrote it: s3rec (S3Rec, CoSeRec, ICLRec, ELECRec, ...) or recbole (RecBole and its forks)."""
    data: str
    """The log that they were trained on (a prepared folder or a file): an item's row is its integer id in it."""
    out: Path
    """The bundle to write."""
    heads: int = 2
    """Attention heads, which the weights do not tell."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Runs the command and gives its exit status."""
    options = tyro.cli(Options, prog="conseq import-weights", args=argv)
    from conseq.cli.logs import read_log
    from conseq.serving.import_weights import import_bundle

    report = import_bundle(
        options.file, read_log(options.data, "import-weights"), options.out, layout=options.layout, heads=options.heads
    )
    if options.json:
        print(json.dumps(report))
        return 0
    print(f"{report['bundle']}: SASRec, block bert, from {report['file']} (layout {report['layout']})")
    for key in ("n_items", "width", "layers", "heads", "hidden", "max_length", "positions", "unused_rows"):
        note = f"  ({report['heads_note']})" if key == "heads" else ""
        print(f"  {key}: {report[key]}{note}")
    for name, owner in report["ignored_tensors"].items():
        print(f"  ignored: {name} ({owner})")
    return 0
