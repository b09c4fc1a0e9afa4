"""A prepared log on disk: memory-mapped arrays, vocabularies and a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from conseq.data.batches import Times
from conseq.data.files import append, write_parquet
from conseq.data.folders import atomic_folder
from conseq.data.log import InteractionLog
from conseq.data.statistics import Tally
from conseq.data.vocabulary import Vocabulary

FORMAT_VERSION = 1

_MANIFEST = "manifest.json"
_ARRAYS = ("items", "offsets", "times")
_VOCABULARIES = ("user_ids", "item_ids")
_CHUNK = 1 << 20
_IDS_PER_HASH = 1 << 16


class ArrayFile:
    """Writes an array to a ``.npy`` file piece by piece, and knows the hash of its values.

    Args:
        path: The file.
        dtype: Type of the values.
        size: How many values will be written in all.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, size: int) -> None:
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._size = size
        self._hash = hashlib.sha256()
        self._file = path.open("wb")
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (size,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, values: npt.NDArray[Any]) -> None:
        """Writes the next ``values``."""
        data = np.ascontiguousarray(values, self._dtype)
        append(self._file, data)
        self._hash.update(data.data)

    def record(self) -> dict[str, object]:
        """Gives type, size and hash, for the manifest."""
        return {"dtype": self._dtype.name, "size": self._size, "sha256": self._hash.hexdigest()}


def save(log: InteractionLog, folder: Path | str) -> None:
    """Writes ``log`` to ``folder``: the whole folder or nothing.

    A prepared log that stands there is replaced; any other folder with content is left alone.

    Args:
        log: The log, each user with at least one interaction.
        folder: A new or empty folder, or a prepared log.

    Raises:
        FileExistsError: if ``folder`` holds anything else.
        OSError: if it cannot be written; what stood there stays.
    """
    with prepared_folder(folder) as temporary:
        arrays: dict[str, object] = {}
        columns: dict[str, npt.NDArray[Any] | None] = {"items": log.items, "offsets": log.offsets, "times": log.times}
        for name, values in columns.items():
            if values is not None:
                with ArrayFile(temporary / f"{name}.npy", values.dtype, values.size) as file:
                    for start in range(0, values.size, _CHUNK):
                        file.append(values[start : start + _CHUNK])
                arrays[name] = file.record()
        tally = Tally()
        for lengths, items, times in _user_chunks(log):
            tally.add(lengths, items, times)
        manifest = log.manifest | {"counts": tally.counts(log.n_items), "times": tally.times()}
        user_ids, item_ids = (pl.Series(one.ids, dtype=pl.String) for one in (log.user_ids, log.item_ids))
        write_manifest(temporary, manifest, arrays, user_ids, item_ids)


def prepared_folder(folder: Path | str) -> AbstractContextManager[Path]:
    """Gives a temporary folder that becomes the prepared log at ``folder`` and may replace what :func:`save` may."""
    return atomic_folder(folder, replaceable=_is_replaceable)


def write_manifest(
    folder: Path,
    manifest: dict[str, object],
    arrays: dict[str, object],
    user_ids: pl.Series,
    item_ids: pl.Series,
) -> dict[str, object]:
    """Writes the vocabularies and the manifest beside the arrays: the last step of writing a prepared log.

    Args:
        folder: Holds the arrays.
        manifest: Source, filters and counts.
        arrays: By name, the records of :class:`ArrayFile`.
        user_ids: Outside ids of the rows.
        item_ids: Outside ids of the item numbers from 1.

    Returns:
        The manifest, with ``format_version``, ``arrays``, ``vocabularies`` and ``data_hash``.
    """
    vocabularies: dict[str, object] = {}
    for name, ids in zip(_VOCABULARIES, (user_ids, item_ids), strict=True):
        write_parquet(ids.to_frame("id"), folder / f"{name}.parquet")
        vocabularies[name] = {"size": len(ids), "sha256": _hash_of_ids(ids)}
    content = {"arrays": arrays, "vocabularies": vocabularies}
    data_hash = _hash_of_content(arrays, vocabularies)
    whole = {"format_version": FORMAT_VERSION, **manifest, **content, "data_hash": data_hash}
    (folder / _MANIFEST).write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return whole


def is_prepared(folder: Path | str) -> bool:
    """True where ``folder`` holds a manifest of a prepared log, of any version."""
    try:
        manifest = json.loads((Path(folder) / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and {"format_version", "data_hash", "arrays"} <= manifest.keys()


def _is_replaceable(folder: Path) -> bool:
    """Whether a folder holds the files of a prepared log, whole or damaged, and nothing else."""
    files = {f"{name}.npy" for name in _ARRAYS} | {f"{name}.parquet" for name in _VOCABULARIES}
    found = {path.name for path in folder.iterdir()}
    return found <= {_MANIFEST, *files} and (is_prepared(folder) or {_MANIFEST, "items.npy"} <= found)


def load(folder: Path | str, *, mapped: bool = True, verify: bool = True) -> InteractionLog:
    """Gives the prepared log in ``folder``.

    Args:
        folder: Written by :func:`save` or ``conseq prepare``.
        mapped: The arrays stay on disk and are read where they are used; False: they are read into memory.
        verify: Hash every file and compare. False saves one reading of the files; sizes and types are still compared.

    Returns:
        The log. Its arrays cannot be written to.

    Raises:
        FileNotFoundError: if the folder or a file of it is missing.
        ValueError: if a file is truncated or changed, or was written by a later version.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    arrays = {
        name: _load_array(folder / f"{name}.npy", manifest["arrays"][name], mapped=mapped, verify=verify)
        for name in manifest["arrays"]
    }
    users, items = (
        _load_ids(folder / f"{name}.parquet", manifest["vocabularies"][name], verify=verify) for name in _VOCABULARIES
    )
    offsets = arrays["offsets"]
    times = arrays.get("times")
    if offsets.size != len(users) + 1 or int(offsets[-1]) != arrays["items"].size:
        raise ValueError(
            f"{folder}: offsets.npy, items.npy and user_ids.parquet do not belong together; prepare it again"
        )
    return InteractionLog(
        arrays["items"], offsets, times, Vocabulary(users, start=0), Vocabulary(items, start=1), manifest
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a prepared log: it has no {_MANIFEST}; write one with `conseq prepare`"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is truncated or not JSON ({error}); prepare the log again") from None
    if not is_prepared(folder):
        raise ValueError(f"{path} is not the manifest of a prepared log; prepare the log again")
    if manifest["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {manifest['format_version']}, this conseq reads {FORMAT_VERSION}; "
            "prepare the log again or update conseq"
        )
    _check_content(manifest, path)
    return cast("dict[str, Any]", manifest)


def _check_content(manifest: dict[str, Any], path: Path) -> None:
    """Refuses a manifest that lacks what reading needs, or whose hash is not that of what it says of the files."""
    arrays, vocabularies = manifest["arrays"], manifest.get("vocabularies")
    for name, section, needed in (
        ("arrays", arrays, ("items", "offsets")),
        ("vocabularies", vocabularies, _VOCABULARIES),
    ):
        told = section if isinstance(section, dict) else {}
        keys = ("size", "sha256", "dtype") if name == "arrays" else ("size", "sha256")
        whole = all(isinstance(told.get(one), dict) and set(keys) <= told[one].keys() for one in {*needed, *told})
        if not whole or not set(told) <= {*_ARRAYS, *_VOCABULARIES}:
            raise ValueError(
                f"{path}: {name} must tell {', '.join(keys)} of {', '.join(needed)}; prepare the log again"
            )
    if _hash_of_content(arrays, vocabularies) != manifest["data_hash"]:
        raise ValueError(f"{path} was changed: its data_hash is not that of its arrays; prepare the log again")


def _hash_of_content(arrays: object, vocabularies: object) -> str:
    content = {"arrays": arrays, "vocabularies": vocabularies}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _load_array(path: Path, record: dict[str, Any], *, mapped: bool, verify: bool) -> npt.NDArray[Any]:
    try:
        values = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is truncated or corrupt ({error}); prepare the log again") from None
    if values.dtype.name != record["dtype"] or values.shape != (record["size"],):
        raise ValueError(
            f"{path} holds {values.dtype.name} {list(values.shape)}, the manifest says {record['dtype']} "
            f"[{record['size']}]; prepare the log again"
        )
    if verify and _hash_of_file(path, values.nbytes) != record["sha256"]:
        raise ValueError(f"{path} is corrupt: its hash differs from the manifest's; prepare the log again")
    values.flags.writeable = False
    return cast("npt.NDArray[Any]", values)


def _load_ids(path: Path, record: dict[str, Any], *, verify: bool) -> list[str]:
    try:
        with path.open("rb") as file:  # of a path, polars would read [ ] and * as a pattern
            ids = pl.read_parquet(file, columns=["id"])["id"]
    except pl.exceptions.PolarsError as error:
        raise ValueError(
            f"{path} is truncated or corrupt ({str(error).splitlines()[0]}); prepare the log again"
        ) from None
    if len(ids) != record["size"] or (verify and _hash_of_ids(ids) != record["sha256"]):
        raise ValueError(f"{path} is corrupt: its ids differ from the manifest's; prepare the log again")
    return cast("list[str]", ids.to_list())


def _hash_of_file(path: Path, n_bytes: int) -> str:
    """Gives the hash of the last ``n_bytes`` of a file: of its values, without the header."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(-n_bytes, 2)
        while piece := file.read(_CHUNK):
            found.update(piece)
    return found.hexdigest()


def _hash_of_ids(ids: pl.Series) -> str:
    """Gives the hash of the lengths and the UTF-8 bytes of ids, some at a time."""
    found = hashlib.sha256()
    for part in ids.to_frame("id").iter_slices(_IDS_PER_HASH):
        found.update(part["id"].str.len_bytes().to_numpy().astype("<u4").data)
        found.update("".join(part["id"].to_list()).encode())
    return found.hexdigest()


def _user_chunks(
    log: InteractionLog,
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], Times | None]]:
    """Gives lengths, items and times of whole users, about a million interactions at a time."""
    offsets = np.asarray(log.offsets)
    first = 0
    while first < log.n_users:
        last = int(np.searchsorted(offsets, offsets[first] + _CHUNK, side="right")) - 1
        last = min(max(last, first + 1), log.n_users)
        cut = slice(int(offsets[first]), int(offsets[last]))
        yield np.diff(offsets[first : last + 1]), log.items[cut], None if log.times is None else log.times[cut]
        first = last
