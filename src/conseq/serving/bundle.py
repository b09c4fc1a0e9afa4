"""A trained encoder on disk: all that serving needs, and no pickle.

A bundle is a folder of three files:

``weights.safetensors``
    the encoder's state dict;
``items.json``
    the outside ids of the items in the order of their numbers, and how often each was met, if known;
``manifest.json``
    the format, the encoder's name and settings, size and SHA-256 of the other two, and free-form provenance.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError

from conseq.config import parse, settings, to_json
from conseq.data.folders import atomic_folder
from conseq.data.vocabulary import Vocabulary
from conseq.encoders import ENCODERS
from conseq.encoders.encoder import Backbone, Encoder
from conseq.nn.items import ItemTable

FORMAT = "conseq-bundle"
VERSION = 1

_TRIES = 20
_A_SWAP = 0.05
"""Seconds, far more than a save has no folder in place."""
WEIGHTS, ITEMS, MANIFEST = "weights.safetensors", "items.json", "manifest.json"


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a bundle holds.

    Attributes:
        encoder: In evaluation mode, without gradients.
        settings: The encoder's settings.
        item_ids: Outside ids of the items ``1..n_items``.
        counts: int64 ``[V]``, how often each item was met; None where that was not stored.
        provenance: Where the weights came from (JSON values).
    """

    encoder: Encoder
    settings: Backbone[Encoder]
    item_ids: Vocabulary
    counts: npt.NDArray[np.int64] | None
    provenance: dict[str, Any]


@settings
class EncoderRecord:
    """Which encoder the weights belong to."""

    name: str
    settings: dict[str, Any]


@settings
class FileRecord:
    """What a file of the bundle must be."""

    bytes: int
    sha256: str


@settings
class Manifest:
    """The content of ``manifest.json``."""

    format: str
    version: int
    encoder: EncoderRecord
    n_items: int
    files: dict[str, FileRecord]
    provenance: dict[str, Any]


def save_bundle(
    encoder: Encoder,
    encoder_settings: Backbone[Encoder],
    item_ids: Vocabulary,
    folder: Path | str,
    provenance: Mapping[str, object],
    *,
    counts: npt.ArrayLike | None = None,
) -> None:
    """Writes a bundle, whole or not at all; a bundle that stood there is replaced.

    Args:
        encoder: The trained encoder, on any device.
        encoder_settings: The settings that built it.
        item_ids: Outside ids of the items ``1..n_items``.
        folder: Where to write.
        provenance: Where the weights came from: method, settings, data, metrics (JSON values). The version
            of conseq is added.
        counts: How often each item was met in the whole log, held-out parts included, int ``[V]``; lets the bundle
            recommend what is popular to a user without a history.

    Raises:
        ValueError: if the vocabulary or the counts do not fit the encoder, or the provenance is not JSON.
        FileExistsError: if ``folder`` is a file, or holds anything besides a bundle.
        OSError: if it cannot be written, with the folder or the file; an older bundle stays as it was.
    """
    folder = Path(folder)
    if len(item_ids) != encoder.n_items or item_ids.start != 1:
        raise ValueError(
            f"the encoder has items 1..{encoder.n_items}, the vocabulary numbers "
            f"{item_ids.start}..{item_ids.start + len(item_ids) - 1}"
        )
    name = encoder_name(encoder_settings)
    plain = _plain({"conseq": version("conseq"), **provenance})
    with atomic_folder(folder, replaceable=_is_replaceable) as new:
        (new / ITEMS).write_text(_items_json(item_ids, counts), encoding="utf-8")
        try:
            _write_weights(encoder, new / WEIGHTS)
        except SafetensorError as error:
            raise OSError(f"{folder / WEIGHTS}: cannot be written: {error}") from None
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            encoder=EncoderRecord(name=name, settings=to_json(encoder_settings)),
            n_items=encoder.n_items,
            files={file: _record(new / file) for file in (WEIGHTS, ITEMS)},
            provenance=plain,
        )
        (new / MANIFEST).write_text(json.dumps(to_json(manifest), indent=1, allow_nan=False), encoding="utf-8")


def bundle_in(path: Path) -> Path:
    """Gives the bundle meant by ``path``: itself, or the one in it where it is the folder of a finished run."""
    inside = path / "bundle"
    return inside if not (path / MANIFEST).is_file() and (inside / MANIFEST).is_file() else path


def load_bundle(folder: Path | str, device: torch.device | str = "cpu") -> Bundle:
    """Gives what a bundle holds, after checking its files against their checksums.

    A bundle that another process replaces meanwhile is read again: ids and weights are of one save.

    Args:
        folder: The bundle, or the folder of a finished run.
        device: Where the encoder is to compute.

    Returns:
        The bundle's content.

    Raises:
        FileNotFoundError: if there is no bundle, or one of its files is missing.
        ValueError: if a file is damaged, of another format or a newer version, or the encoder is unknown; the
            message names the file.
        BlockingIOError: if it is replaced again and again.
    """
    folder = Path(folder)
    for _ in range(_TRIES):
        before = _stamp(folder)
        try:
            found = _load(bundle_in(folder), device)
        except (OSError, ValueError):
            time.sleep(_A_SWAP)  # a save moves the older folder away before it puts the new one there
            if _stamp(folder) == before:
                raise
            continue
        if _stamp(folder) == before:
            return found
    raise BlockingIOError(f"{folder}: the bundle was replaced {_TRIES} times while it was read; try again later")


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Gives what differs between two saves of a bundle; None where there is none."""
    try:
        found = (bundle_in(folder) / MANIFEST).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _load(folder: Path, device: torch.device | str) -> Bundle:
    manifest = read_manifest(folder)
    for name in (WEIGHTS, ITEMS):
        _check(folder / name, manifest)
    item_ids, counts = _read_items(folder / ITEMS, manifest.n_items)
    record, source = manifest.encoder, str(folder / MANIFEST)
    backbone = parse(settings_class(record.name, source=source), record.settings, source=f"{source}: encoder")
    try:
        # The random initial weights are overwritten, so they must not move the caller's random stream.
        with torch.random.fork_rng(devices=[]):
            encoder = backbone(ItemTable(manifest.n_items, backbone.width))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: encoder {record.name!r} cannot be made of its settings: {error}") from error
    try:
        encoder.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder / WEIGHTS}: does not fit encoder {record.name!r}: {error}") from None
    encoder = encoder.to(device).eval().requires_grad_(False)
    return Bundle(encoder, backbone, item_ids, counts, manifest.provenance)


def read_manifest(folder: Path | str) -> Manifest:
    """Gives a bundle's manifest without reading its weights.

    Args:
        folder: The bundle, or the folder of a finished run.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not a manifest of a bundle, or of a newer version.
    """
    path = bundle_in(Path(folder)) / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{folder} is not a bundle: it has no {MANIFEST}{_elsewhere(Path(folder))}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error}); the bundle must be saved again") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{path}: not the manifest of a bundle (its format is not {FORMAT!r})")
    if values.get("version") != VERSION:
        found = values.get("version")
        raise ValueError(f"{path}: version {found!r}, expected {VERSION}; a newer conseq may be needed to read it")
    return parse(Manifest, values, source=str(path))


def encoder_name(encoder_settings: Backbone[Encoder]) -> str:
    """Gives the name that finds the class of ``encoder_settings`` again.

    Args:
        encoder_settings: Settings of one of our encoders, or of a user's own.

    Returns:
        A name in ``ENCODERS``, or ``"package.module:Class"``.

    Raises:
        ValueError: if the class cannot be imported by a program that loads the bundle.
    """
    cls = type(encoder_settings)
    for name, known in ENCODERS.items():
        if known is cls:
            return name
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise ValueError(
            f"the settings class {cls.__qualname__} stands in {cls.__module__}, where a program that loads the bundle "
            "cannot import it from; move it to the top level of a module"
        )
    return f"{cls.__module__}:{cls.__qualname__}"


def settings_class(name: str, *, source: str) -> type[Backbone[Encoder]]:
    """Gives the settings class of an encoder.

    A path is imported from what is installed: the bundle carries no code, but names the module to import.

    Args:
        name: A name in ``ENCODERS``, or ``"package.module:Class"``.
        source: Where the name came from, for errors.

    Returns:
        The class.

    Raises:
        ValueError: if there is no such class.
    """
    if name in ENCODERS:
        return ENCODERS[name]
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(
            f"{source}: unknown encoder {name!r}; known: {', '.join(sorted(ENCODERS))}, or package.module:Class"
        )
    try:
        found: object = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{source}: encoder {name!r} cannot be imported: {error}") from None
    if not isinstance(found, type) or not hasattr(found, "__pydantic_fields__"):
        raise ValueError(f"{source}: {name!r} is not a settings class of an encoder")
    return cast("type[Backbone[Encoder]]", found)


def is_bundle(folder: Path) -> bool:
    """Gives whether ``folder`` holds a bundle and nothing else, so that replacing it loses nothing else."""
    try:
        read_manifest(folder)
    except (FileNotFoundError, ValueError):
        return False
    return {path.name for path in folder.iterdir()} <= {WEIGHTS, ITEMS, MANIFEST}


def _is_replaceable(folder: Path) -> bool:
    """Whether a folder holds a bundle, whole or with a damaged manifest, and nothing else."""
    found = {path.name for path in folder.iterdir()}
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {WEIGHTS, ITEMS} <= found <= {WEIGHTS, ITEMS, MANIFEST}
    ours = isinstance(told, dict) and told.get("format") == FORMAT
    return ours and found <= {WEIGHTS, ITEMS, MANIFEST}


def _elsewhere(folder: Path) -> str:
    """Gives why there may be none: the run is not finished, or a save was interrupted and left the older one aside."""
    folder = folder.resolve()
    run = folder.parent if folder.name == "bundle" else folder
    if (run / "config.json").is_file() and (run / "checkpoint.pt").is_file():
        how = "give its `conseq train` command again to go on, or take the best epoch so far (`conseq snapshot`)"
        return f"; the run in {run} is not finished: {how}"
    asides = sorted(folder.parent.glob(f".{glob.escape(folder.name)}.*.replaced")) if folder.parent.is_dir() else []
    found = [aside for aside in asides if is_bundle(aside)]
    if found:
        return f"; a save that was interrupted left the older bundle at {found[-1]}"
    return "" if folder.exists() else "; there is no such folder"


def _items_json(item_ids: Vocabulary, counts: npt.ArrayLike | None) -> str:
    listed = None
    if counts is not None:
        listed = np.asarray(counts, dtype=np.int64).tolist()
        if len(listed) != len(item_ids):
            raise ValueError(f"counts of {len(listed)} items given for {len(item_ids)} items")
    # ASCII with escapes, so that no program's idea of an encoding or of a line end can change an id.
    return json.dumps({"ids": item_ids.ids, "counts": listed}, separators=(",", ":"))


def _read_items(path: Path, n_items: int) -> tuple[Vocabulary, npt.NDArray[np.int64] | None]:
    again = "the bundle must be saved again"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error}); {again}") from None
    if not isinstance(values, dict) or not {"ids", "counts"} <= values.keys():
        raise ValueError(f"{path}: expected an object with 'ids' and 'counts'; {again}")
    ids, counts = values["ids"], values["counts"]
    if not _all_of(str, ids):
        raise ValueError(f"{path}: 'ids' is not a list of texts; {again}")
    if len(ids) != n_items:
        raise ValueError(f"{path}: {len(ids)} ids, but {MANIFEST} says {n_items} items")
    if counts is not None and not (_all_of(int, counts) and len(counts) == n_items):
        raise ValueError(f"{path}: 'counts' is not a list of {n_items} whole numbers; {again}")
    try:
        return Vocabulary(ids, start=1), None if counts is None else np.asarray(counts, dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}; {again}") from None


def _all_of(kind: type, values: object) -> bool:
    return isinstance(values, list) and set(map(type, values)) <= {kind}


def _write_weights(encoder: Encoder, path: Path) -> None:
    # Copies, because safetensors refuses tensors that share memory (tied parameters do).
    state = {name: value.detach().cpu().contiguous().clone() for name, value in encoder.state_dict().items()}
    safetensors.torch.save_file(state, path)


def _plain(provenance: Mapping[str, object]) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(json.dumps(dict(provenance), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"provenance must consist of finite JSON values: {error}") from None


def _record(path: Path) -> FileRecord:
    with path.open("rb") as content:
        return FileRecord(bytes=path.stat().st_size, sha256=hashlib.file_digest(content, "sha256").hexdigest())


def _check(path: Path, manifest: Manifest) -> None:
    expected = manifest.files.get(path.name)
    if expected is None:
        raise ValueError(f"{path.parent / MANIFEST}: says nothing about {path.name}; the bundle must be saved again")
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; the bundle must be copied or saved again") from None
    if size != expected.bytes:
        raise ValueError(f"{path}: {size} bytes, expected {expected.bytes}; the bundle must be copied or saved again")
    if _record(path) != expected:
        raise ValueError(f"{path}: its SHA-256 differs from the manifest's; the bundle must be copied or saved again")
