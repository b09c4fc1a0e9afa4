"""All state of a run in one file that is either whole or not there."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from conseq.data.files import atomic_path

VERSION = 1

# What reading a damaged file may end in.
_UNREADABLE = (
    *(RuntimeError, pickle.UnpicklingError, EOFError, OSError, zipfile.BadZipFile, zlib.error),
    *(ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError),
)


def save(state: dict[str, Any], path: Path) -> None:
    """Writes a state dict of tensors and plain values; an older file survives until the new one is whole.

    Args:
        state: Nothing but tensors, numbers, strings, lists, tuples and dicts.
        path: The file.

    Raises:
        OSError: if the file cannot be written; the older one is untouched.
    """
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save({"version": VERSION, **state}, file)
    except RuntimeError as error:
        # torch's zip writer reports a failed write (a full disk) as a RuntimeError that hides the cause.
        raise OSError(f"{path}: the checkpoint could not be written: {error.__context__ or error}") from error


def load(path: Path) -> dict[str, Any]:
    """Gives the state that :func:`save` wrote, without executing anything in the file.

    Args:
        path: The file.

    Returns:
        The state, on the CPU.

    Raises:
        ValueError: if the file is truncated, is no checkpoint, or is one of another version.
        FileNotFoundError: if there is no file.
    """
    try:
        _check_sums(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise ValueError(
            f"{path}: not a whole checkpoint ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "remove the file to start the run anew"
        ) from None
    if not isinstance(state, dict) or state.get("version") != VERSION:
        found = state.get("version") if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path}: a checkpoint of version {VERSION} is expected, found {found}")
    return dict(state)


def _check_sums(path: Path) -> None:
    """Compares the checksums of the zip file, which torch writes and does not compare itself."""
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} is damaged")
