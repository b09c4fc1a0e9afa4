"""What commands look at first of a model that they are given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conseq.serving.bundle import Manifest


def manifest_of(path: Path, *, option: str = "") -> Manifest:
    """Gives the manifest of a model; what was given in a model's place is told before a log or weights are read.

    Args:
        path: A bundle, or a run's folder.
        option: The option that named it; none: an argument before the log.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: if there is no bundle.
        ValueError: if what is there is none, or one of a newer version.
    """
    from conseq.data.prepared import is_prepared
    from conseq.serving.bundle import read_manifest

    if is_prepared(path) or path.is_file():
        what = "a file" if path.is_file() else "a prepared log"
        where = f"{option} takes a model" if option else "the model comes first, then the log"
        raise ValueError(f"{path} is {what}, not a run or a bundle: {where}")
    return read_manifest(path)


def tell_of_strangers(path: Path) -> None:
    """Says on standard error that a model with a vector for each of its users answers without them.

    Args:
        path: A bundle, or a run's folder.
    """
    from safetensors import safe_open

    from conseq.serving.bundle import WEIGHTS, bundle_in

    if manifest_of(path).encoder.name != "matrix_factorization":
        return
    with safe_open(bundle_in(path) / WEIGHTS, framework="np") as stored:
        users = stored.get_slice("users").get_shape()[0]
    if users:
        print(
            "note: the model has a vector for each user that it was trained on, by which `conseq evaluate` judges it; "
            "here everybody is a stranger to it, whose scores are computed from the items of the history alone",
            file=sys.stderr,
        )
