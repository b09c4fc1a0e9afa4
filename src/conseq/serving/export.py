"""Vectors and recommendations in files that other programs read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import safetensors.numpy

from conseq.data.files import atomic_path, atomic_write, write_parquet

Format = Literal["npz", "parquet", "safetensors"]
TABLES = (".parquet", ".csv", ".jsonl")
MOST_NPZ_IDS = 2**30
"""Bytes that the ids in an ``npz`` file may take."""
FORMATS: tuple[Format, ...] = ("npz", "parquet", "safetensors")


def export_vectors(
    ids: Sequence[str], vectors: npt.NDArray[np.float32], path: Path | str, *, form: Format | None = None
) -> Path:
    """Writes ids and their vectors to one file, whole or not at all.

    ``parquet``
        columns ``id`` (string) and ``vector`` (array of D float32);
    ``npz``
        arrays ``ids`` (strings) and ``vectors`` (float32 ``[n, D]``), read without ``allow_pickle``;
    ``safetensors``
        tensors ``vectors`` and ``ids_json``, the bytes of a JSON array of the ids.

    Args:
        ids: The ids.
        vectors: float32 ``[n, D]``.
        path: The file to write.
        form: How to write; told from the file's suffix where None.

    Returns:
        The file.

    Raises:
        ValueError: if the suffix tells nothing, or an id cannot be written in this form.
        OSError: if the file cannot be written; what stood there stays.
    """
    path = Path(path)
    form = form or format_of(path)
    if form == "parquet":
        _write_parquet(ids, vectors, path)
    elif form == "npz":
        _write_npz(ids, vectors, path)
    else:
        text = np.frombuffer(json.dumps(list(ids), separators=(",", ":")).encode("ascii"), dtype=np.uint8)
        tensors: dict[str, npt.NDArray[Any]] = {"vectors": np.ascontiguousarray(vectors), "ids_json": text}
        atomic_write(path, safetensors.numpy.save(tensors))
    return path


def format_of(path: Path) -> Format:
    """Gives the format that a file's suffix stands for.

    Args:
        path: The file.

    Returns:
        The format.

    Raises:
        ValueError: if the suffix stands for none.
    """
    for form in FORMATS:
        if path.suffix == f".{form}":
            return form
    raise ValueError(f"{path}: cannot tell the format from the name; use --format with one of {', '.join(FORMATS)}")


def export_table(table: pl.DataFrame, path: Path | str) -> Path:
    """Writes a table of recommendations to one file, whole or not at all.

    Args:
        table: What :meth:`conseq.Recommender.recommend_table` gives, or any other of plain columns.
        path: The file to write: ``.parquet``, ``.csv``, or ``.jsonl`` (an object a row).

    Returns:
        The file.

    Raises:
        ValueError: if the name tells none of these formats.
        OSError: if the file cannot be written; what stood there stays.
    """
    path = Path(path)
    check_table(path)
    try:
        with atomic_path(path) as temporary:
            if path.suffix == ".parquet":
                table.write_parquet(temporary)
            elif path.suffix == ".csv":
                table.write_csv(temporary)
            else:
                table.write_ndjson(temporary)
    except (pl.exceptions.PolarsError, OSError) as error:  # Polars names the temporary file, or none
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise OSError(f"{path}: cannot be written: {reason}") from None
    return path


def check_table(path: Path) -> None:
    """Does nothing if a table can be written to a file of this name.

    Args:
        path: The file.

    Raises:
        ValueError: if the name tells no format.
        IsADirectoryError: if it is a folder.
    """
    if path.suffix not in TABLES:
        raise ValueError(f"{path}: cannot tell the format from the name; known: {', '.join(TABLES)}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file")


def _write_parquet(ids: Sequence[str], vectors: npt.NDArray[np.float32], path: Path) -> None:
    shape = pl.Array(pl.Float32, vectors.shape[1])
    try:
        names = pl.Series("id", list(ids), dtype=pl.String)
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}: id {error.object!r} is not valid Unicode; use another format") from None
    frame = pl.DataFrame([names, pl.Series("vector", vectors, dtype=shape)])
    with atomic_path(path) as temporary:
        write_parquet(frame, temporary)


def _write_npz(ids: Sequence[str], vectors: npt.NDArray[np.float32], path: Path) -> None:
    cut = next((one for one in ids if one.endswith("\0")), None)
    if cut is not None:
        raise ValueError(f"{path}: NumPy drops the last character of id {cut!r}; use another format")
    size = 4 * len(ids) * max(map(len, ids), default=0)
    if size > MOST_NPZ_IDS:
        longest = max(ids, key=len)
        raise ValueError(
            f"{path}: ids of up to {len(longest):,} characters, such as {longest[:20]!r}…, would take "
            f"{size / 2**30:,.1f} GiB, because NumPy gives each the room of the longest; use another format"
        )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, ids=np.array(ids, dtype=np.str_), vectors=vectors)
