"""``conseq data list`` and ``conseq data fetch NAME``."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class List:
    """Show the public logs that conseq can fetch."""

    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Fetch:
    """Download a public log, check it, and write it as interactions.parquet."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """As `conseq data list` shows it."""
    to: Path | None = None
    """Folder for the archive and the result; where not given, NAME in $CONSEQ_DATA or in the user's cache."""
    archive: Path | None = None
    """Your own copy of the archive, in place of a download."""
    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """Runs the sub-command and gives its exit status."""
    commands: dict[str, Callable[..., List | Fetch]] = {"list": List, "fetch": Fetch}
    options = tyro.extras.subcommand_cli_from_dict(commands, prog="conseq data", args=argv)
    if isinstance(options, Fetch):
        _fetch(options)
    else:
        _list(options)
    return 0


def _list(options: List) -> None:
    from conseq.data.sources import SOURCES

    if options.json:
        print(jsonlib.dumps({"sources": [source.to_json() for source in SOURCES.values()]}))
        return
    width = max(map(len, SOURCES))
    for one in SOURCES.values():
        count = f"{one.interactions:,}" if one.interactions else ""
        print(f"{one.name:<{width}} {count:>11}  {one.checksum.algorithm if one.checksum else '-':<6}  {one.title}")
    print(
        "\nThe columns: name, interactions, checksum that was published ('-': the first download records its "
        "own), title.\nNext: conseq data fetch NAME"
    )


def _fetch(options: Fetch) -> None:
    from conseq.data.sources import fetch

    fetched = fetch(options.name, options.to, archive=options.archive)
    if options.json:
        print(jsonlib.dumps(fetched.to_json()))
        return
    parsed = fetched.parsed
    print(f"{fetched.path}: {parsed.rows:,} interactions of {parsed.users:,} users and {parsed.items:,} items")
    if parsed.left_out:
        print(f"left out: {parsed.left_out:,} rows without a user, an item or a readable time")
    print(f"archive: {fetched.archive}, sha256 {fetched.sha256}")
    print(f"checked against: {fetched.verified_by or 'nothing, for no published checksum is known'}")
    if fetched.recorded_in:
        print(f"its own checksum is recorded in {fetched.recorded_in}; later downloads must have the same")
    print(f"terms: {fetched.licence}")
    print(f"Next: conseq prepare {fetched.path} {fetched.name}")
