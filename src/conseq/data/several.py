"""A log in several files: a folder of them, a pattern of names, or a list, read one behind the other."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from conseq.data.batches import Batch, Source
from conseq.data.reading import Format

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".inter": "inter",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "s3rec",
}


def format_of(path: Path) -> Format:
    """Gives the format that a file's name tells, with or without ``.gz``; ValueError where it tells none."""
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise ValueError(
            f"{path}: the suffix {suffix!r} does not tell the format; known: {known}; or say format= (--format in a "
            "shell)"
        )
    return SUFFIXES[suffix]


def found_files(source: str | os.PathLike[str], *, any_suffix: bool) -> list[Path]:
    """Gives the files of a log that is named by a path: one file, those of a folder, or those that a pattern names.

    Args:
        source: A file, a folder, or a pattern with ``*``, ``?`` or ``[...]`` (``**`` for folders in folders). What is
            there under that very name is no pattern.
        any_suffix: Take every file of a folder, whatever its suffix: the caller says the format.

    Returns:
        The files, in the order of their paths. Of a folder, those in folders inside it, too, but none whose name, or
        that of a folder inside, begins with a dot or an underscore (``_SUCCESS``).

    Raises:
        FileNotFoundError: if there is nothing of that name.
        ValueError: if the folder holds no file that can be a log.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = (one for one in path.rglob("*") if one.is_file() and not _hidden(one.relative_to(path)))
        files = sorted(one for one in inside if any_suffix or _suffix(one) in SUFFIXES)
        if not files:
            known = "of any name" if any_suffix else f"of a log ({', '.join(SUFFIXES)})"
            raise ValueError(f"{path} is a folder that holds neither a prepared log (manifest.json) nor files {known}")
        return files
    if glob.has_magic(os.fspath(path)):
        files = sorted(one for one in map(Path, glob.glob(os.fspath(path), recursive=True)) if one.is_file())
        if files:
            return files
        raise FileNotFoundError(f"{path}: no file is called like this")
    raise FileNotFoundError(f"{path}: there is no such file")


def one_format(files: Sequence[Path], name: str) -> Format:
    """Gives the format of all files of a log.

    Args:
        files: At least one.
        name: What the user called them, for the error.

    Returns:
        The format.

    Raises:
        ValueError: if a suffix tells none, or two tell different ones.
    """
    first = format_of(files[0])
    other = next((one for one in files if format_of(one) != first), None)
    if other is not None:
        raise ValueError(
            f"{name}: {files[0]} is read as {first}, {other} as {format_of(other)}; all files of a log have one "
            "format: name those that belong to it, such as 'folder/*.parquet'"
        )
    return first


def joined(sources: Sequence[Source], name: str) -> Source:
    """Gives several opened files as one log, whose interactions are theirs, one file behind the other.

    Args:
        sources: The files, at least one, each with its path and hash.
        name: What the user called them.

    Returns:
        The source. Its hash is of the files' names and hashes.

    Raises:
        ValueError: if a file has other columns than the first.
    """
    first = sources[0]
    for one in sources:
        if (one.columns and one.columns.names) != (first.columns and first.columns.names):
            raise ValueError(
                f"{one.name} has the columns {_names(one)}, {first.name} has {_names(first)} (user, item, time); "
                "all files of a log have the same"
            )
    files = tuple(file for one in sources for file in one.files)
    return Source(
        name=f"{name} ({len(files)} files)",
        format=first.format,
        columns=first.columns,
        batches=_batches(sources),
        separator=first.separator if len({one.separator for one in sources}) == 1 else None,
        files=files,
        sha256=hashlib.sha256("".join(f"{one.sha256}  {one.name}\n" for one in files).encode()).hexdigest(),
    )


def _batches(sources: Sequence[Source]) -> Iterator[Batch]:
    for source in sources:
        for batch in source.batches:
            yield replace(batch, place=_in_file(source.name, batch.place))


def _in_file(name: str, place: Callable[[int], str]) -> Callable[[int], str]:
    def named(row: int) -> str:
        return f"{name}, {place(row)}"

    return named


def _names(source: Source) -> str:
    return "none" if source.columns is None else ", ".join(map(repr, source.columns.names))


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)
