"""``conseq export``: item vectors for an index of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Options:
    """Writes the item ids and item vectors of a bundle to a file."""

    bundle: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE")]
    """A bundle, or a run's folder."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The file to write."""
    format: Literal["npz", "parquet", "safetensors"] | None = None
    """How to write; told from the file's suffix where not given."""


def run(argv: list[str]) -> int:
    """Runs the command and gives its exit status."""
    options = tyro.cli(Options, prog="conseq export", args=argv)
    from conseq.cli.models import manifest_of
    from conseq.serving.export import export_vectors
    from conseq.serving.recommender import Recommender

    manifest_of(options.bundle)
    ids, vectors = Recommender.load(options.bundle).item_vectors()
    export_vectors(ids, vectors, options.out, form=options.format)
    print(f"{len(ids)} item vectors of width {vectors.shape[1]} written to {options.out}")
    return 0
