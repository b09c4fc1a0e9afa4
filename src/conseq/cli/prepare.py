"""``conseq prepare SOURCE OUT``."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from conseq.data.reading import Reading


@dataclass(frozen=True)
class Options:
    """Read a log, filter it, and store it as a folder that opens at once, with a manifest of what was done."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """The log: CSV, TSV, JSON lines, Parquet, RecBole's .inter, or "user item item ..." text; gzip or not. Several
    files, a folder of them, and a pattern ('logs/*.parquet') are read as one log."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The folder to write: new, empty, or a prepared log, which is replaced."""
    reading: tyro.conf.OmitArgPrefixes[Reading] = field(default_factory=Reading)
    json: bool = False
    """Print one JSON object, the manifest."""


def run(argv: list[str]) -> int:
    """Prepares a log and prints what was read, guessed and filtered."""
    options, more = tyro.cli(Options, prog="conseq prepare", args=argv, return_unknown_args=True)
    if any(one.startswith("-") for one in more):
        tyro.cli(Options, prog="conseq prepare", args=argv)  # names the options that it does not know
    paths = [options.source, options.out, *map(Path, more)]
    source, out = paths[:-1] if more else options.source, paths[-1]
    folder = next((one for one in paths[:-1] if more and not one.is_file()), None)
    if folder is not None:
        raise ValueError(f"{folder}: of a log in several places each is a file; a folder, or a pattern, is given alone")
    from conseq.data.readers import prepare
    from conseq.data.summary import summary

    manifest = prepare(source, out, options.reading)
    if options.json:
        print(jsonlib.dumps(manifest))
    else:
        print(summary(manifest))
        print(f"\nwritten to {out}; next: conseq train next_item {out}")
    return 0
