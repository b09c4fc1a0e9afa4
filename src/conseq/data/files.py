"""Files that are either whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Gives a temporary path that takes the place of ``path`` when the block ends without an error.

    What stood at ``path`` stays untouched until then, and stays for good where the block fails.

    Args:
        path: The file to write. Its folder is created.

    Yields:
        A path in the same folder, to be written as a file.

    Raises:
        OSError: if the folder cannot be written or the disk is full, with a path; the temporary file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def atomic_write(path: Path | str, data: bytes | str) -> None:
    """Writes ``data`` (text as UTF-8) to ``path``, whole or not at all.

    Args:
        path: The file to write.
        data: Its content.

    Raises:
        OSError: if it cannot be written.
    """
    content = data.encode() if isinstance(data, str) else data
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def append(file: BufferedWriter, values: npt.NDArray[Any]) -> None:
    """Writes the bytes of ``values`` to an open file, where it stands.

    ``ndarray.tofile`` would say of a full disk neither that it is full nor where.

    Args:
        file: A file opened by its path.
        values: An array of any type and shape.

    Raises:
        OSError: if the disk is full; the file is named.
    """
    with naming(file.name):
        try:
            file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
            file.flush()
        except OSError:
            # What is left in the buffer would fail once more when the file is closed, and hide this error.
            file.raw.close()
            raise


def write_parquet(frame: pl.DataFrame | pl.LazyFrame, path: Path) -> None:
    """Writes a table as Parquet.

    Args:
        frame: The table; a lazy one is computed as a stream.
        path: The file.

    Raises:
        OSError: if it cannot be written; the file is named.
    """
    try:
        if isinstance(frame, pl.LazyFrame):
            frame.sink_parquet(path)
        else:
            frame.write_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise OSError(f"{path}: cannot be written: {str(error).partition(chr(10))[0]}") from None


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Adds a path to the errors of the system, which names none where an open file is read or written.

    Args:
        path: What is read or written in the block.

    Yields:
        Nothing.

    Raises:
        OSError: as in the block.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` survive a power cut, where the system can open folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
