"""Folders that one process at a time writes to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder for this process; the system lets go of it when the process ends, however it ends.

    Where the system or the file system knows no such locks, nothing is held.

    Args:
        folder: It is created.

    Yields:
        Nothing; the folder is held until the block ends.

    Raises:
        BlockingIOError: if a process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The file stays: were it removed, a process that has opened it already would lock what nobody else can find.
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        if not _lock(file.fileno()):
            file.seek(0)
            raise BlockingIOError(
                f"{folder}: process {file.read().strip() or '(unknown)'} is at work in this folder; wait until it "
                "ends, stop it, or choose another folder"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _lock(descriptor: int) -> bool:
    """Gives False where another process has the lock."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # some network file systems have no locks, and a run there is better than none
            return True
    return True
