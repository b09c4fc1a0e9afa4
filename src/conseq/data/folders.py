"""Folders that are either whole or not there."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conseq.data.files import naming


@contextmanager
def atomic_folder(folder: Path | str, *, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """Gives a temporary folder that takes the place of ``folder`` when the block ends without an error.

    What stood at ``folder`` stays untouched until then, and stays for good where the block fails.

    Args:
        folder: The folder to write. Its parent is created.
        replaceable: Whether a folder with content may be replaced.

    Yields:
        An empty folder beside ``folder``.

    Raises:
        FileExistsError: if ``folder`` is a file, or a folder with content that may not be replaced.
        OSError: if it cannot be written or the disk is full, with a path; the temporary folder is removed.
    """
    check_place(folder, replaceable=replaceable)
    folder = Path(folder).resolve()
    if os.path.ismount(folder):
        raise OSError(f"{folder} is a mount point, which no other folder can take the place of; choose a folder in it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    temporary = folder.with_name(f".{folder.name}.{token}.partial")
    temporary.mkdir()
    try:
        with naming(folder):
            yield temporary
            _sync(temporary)
            _check(folder, replaceable)  # something may have come there meanwhile
            _swap(temporary, folder, folder.with_name(f".{folder.name}.{token}.replaced"))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_place(folder: Path | str, *, replaceable: Callable[[Path], bool]) -> None:
    """Does nothing if :func:`atomic_folder` may write there: what asks early, long before there is something to write.

    Args:
        folder: The folder to write.
        replaceable: Whether a folder with content may be replaced.

    Raises:
        FileExistsError: if ``folder`` is a file, or a folder with content that may not be replaced.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; choose another place for the folder")
    _check(folder, replaceable)


def _swap(temporary: Path, folder: Path, aside: Path) -> None:
    """Puts ``temporary`` in the place of ``folder``; puts the old one back where that fails."""
    with suppress(FileNotFoundError):  # there is none, or another process is putting its own in its place
        folder.rename(aside)
    try:
        temporary.rename(folder)
    except BaseException as error:  # Ctrl-C, too, leaves the older one in its place
        if isinstance(error, OSError) and folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
            raise FileExistsError(f"another process has just written {folder}; its folder stays") from error
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _check(folder: Path, replaceable: Callable[[Path], bool]) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not replaceable(folder):
        raise FileExistsError(f"{folder} holds other files; choose a new or an empty folder")


def _sync(folder: Path) -> None:
    """Makes the files of ``folder`` survive a power cut."""
    for path in (*folder.iterdir(), folder):
        with suppress(PermissionError):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
