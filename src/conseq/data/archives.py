"""One file out of an archive or a folder, as a stream: nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from conseq.data.blocks import opened


@contextmanager
def opened_member(path: Path, members: tuple[str, ...]) -> Iterator[BinaryIO]:
    """Gives the bytes of the first of ``members`` that is found in ``path``.

    Args:
        path: A folder, a zip, a tar (compressed or not), a zip that holds such a tar, a gzipped file or the
            file itself.
        members: Names, of which the last parts must agree; ignored where ``path`` is the file itself.

    Yields:
        A binary stream, to be read once from its beginning.

    Raises:
        ValueError: if there is no such member, or the archive is damaged.
        FileNotFoundError: if there is no ``path``.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        if path.is_dir():
            with _in_folder(path, members) as stream:
                yield stream
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive, _in_zip(path, archive, members) as stream:
                yield stream
        elif tarfile.is_tarfile(path):
            with tarfile.open(path, "r|*") as tar:
                yield _in_tar(path, tar, members)
        else:
            with opened(path) as file:
                yield file
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is cut or damaged ({error}); delete it and fetch it again") from None


def _in_folder(folder: Path, members: tuple[str, ...]) -> BinaryIO:
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    name = _find(files, members)
    if name is None:
        raise _missing(folder, files, members)
    return files[name].open("rb")


@contextmanager
def _in_zip(path: Path, archive: zipfile.ZipFile, members: tuple[str, ...]) -> Iterator[BinaryIO]:
    names = archive.namelist()
    tars = [name for name in names if name.endswith((".tar", ".tgz", ".tar.gz"))]
    name = _find(names, members)
    if name is not None:
        with archive.open(name) as stream:
            yield cast("BinaryIO", stream)
    elif tars:
        with archive.open(tars[0]) as inner, tarfile.open(fileobj=inner, mode="r|*") as tar:
            yield _in_tar(path, tar, members)
    else:
        raise _missing(path, names, members)


def _in_tar(path: Path, tar: tarfile.TarFile, members: tuple[str, ...]) -> BinaryIO:
    seen = []
    for entry in tar:
        seen.append(entry.name)
        stream = tar.extractfile(entry) if _find([entry.name], members) else None
        if stream is not None:
            return cast("BinaryIO", stream)
    raise _missing(path, seen, members)


def _missing(path: Path, names: Iterable[str], members: tuple[str, ...]) -> ValueError:
    shown = ", ".join(sorted(names)[:8]) or "nothing"
    return ValueError(f"{path} has no {' or '.join(members)}; it holds {shown}; is it the right archive?")


def _find(names: Iterable[str], members: tuple[str, ...]) -> str | None:
    ordered = sorted(names, key=len)
    for member in members:
        for name in ordered:
            if f"/{name}".endswith(f"/{member}"):
                return name
    return None
