"""A run's folder: of one experiment on one log, and of one process at a time."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conseq.data.files import atomic_write
from conseq.data.locks import LOCK, locked
from conseq.run.config import RunConfig
from conseq.run.provenance import code_hash, commit, machine, versions

CONFIG = "config.json"
_HOW = "put back a copy of it, or remove the folder and train again"


@contextmanager
def claimed(folder: Path, config: RunConfig, data: Mapping[str, Any], *, gpu: str = "") -> Iterator[None]:
    """Holds the folder for this process, with the run's configuration written, or found to be the same.

    Args:
        folder: The run's folder. It is created.
        config: The experiment.
        data: What identifies the log.
        gpu: The name of the GPU that computes; empty: the processor does.

    Yields:
        Nothing; the folder is held until the block ends.

    Raises:
        ValueError: if the folder holds another run, something that is no run, or a damaged configuration.
        BlockingIOError: if a process is at work in it.
    """
    if not (folder / CONFIG).exists() and folder.exists() and not all(map(_is_ours, folder.iterdir())):
        raise ValueError(f"{folder} is not empty and holds no run; choose another folder")
    with locked(folder):
        for left in folder.glob(".*.partial"):  # of a process that was killed while it saved
            if left.is_file():
                left.unlink(missing_ok=True)
        files = files_of(config)
        told = {**config.record(), "data": {**data, **({"files": files} if files else {})}}
        _write_or_compare(folder, told, code_hash(config), gpu)
        yield


def files_of(config: RunConfig) -> dict[str, str]:
    """Gives the SHA-256 of each file that the settings name, such as a table of categories.

    Args:
        config: The experiment.

    Returns:
        The 64 hexadecimal digits by the setting's name.
    """
    named = {key: value for part in (config.method, config.encoder) for key, value in vars(part).items()}
    paths = {key: value for key, value in named.items() if isinstance(value, Path) and value.is_file()}
    return {key: hashlib.sha256(value.read_bytes()).hexdigest() for key, value in paths.items()}


def _is_ours(path: Path) -> bool:
    """Whether a process that was killed before it had written the configuration may have left the file."""
    return path.name == LOCK or path.name.startswith(f".{CONFIG}.")


def _write_or_compare(folder: Path, record: dict[str, Any], code: str, gpu: str) -> None:
    path = folder / CONFIG
    device = gpu or "cpu"
    made_by = {"commit": commit(), "hash": code, "machine": machine(gpu), "device": device, "versions": versions()}
    begun = json.dumps({**record, "versions": versions(), "code": [made_by]}, indent=1) + "\n"
    if not path.exists():
        atomic_write(path, begun)
        return
    found = read_config(folder)
    earlier = {name: found.pop(name, None) for name in ("versions", "code")}
    # The hash tells which log it is, whatever its file is called.
    changed = _told(dict(_differences(_but_source(found), _but_source(json.loads(json.dumps(record))))))
    if changed and not _holds_results(folder):
        # Nothing was computed with the settings that stand there: the first batch may have refused them.
        atomic_write(path, begun)
        return
    if changed:
        raise ValueError(
            f"{folder} holds another run; it differs in {', '.join(changed)}. Choose another folder, or remove it"
        )
    codes = (earlier["code"] or []) if _holds_results(folder) else []
    if codes and codes[-1]["hash"] != code:
        note = "note: the code that decides results changed since this run began; its record will say so"
        print(note, file=sys.stderr)
    before = codes[-1].get("device", device) if codes else device
    if before != device:
        note = f"note: this run computed on {before} so far and goes on on {device}, which rounds otherwise"
        print(f"{note}; its record will say so", file=sys.stderr)
    if not codes or codes[-1] != made_by:
        earlier["code"] = [*codes, made_by]
        atomic_write(path, json.dumps({**record, **earlier}, indent=1) + "\n")


def _holds_results(folder: Path) -> bool:
    """Whether anything is there that the code before this has computed: else a run begins anew, whoever began it."""
    return (folder / "checkpoint.pt").exists() or any(folder.glob("evaluation-*")) or (folder / "bundle").exists()


def read_config(folder: Path) -> dict[str, Any]:
    """Gives what a run's folder says of its configuration.

    Args:
        folder: The run's folder.

    Returns:
        The tables of the experiment, with ``data``, ``versions`` and ``code``.

    Raises:
        ValueError: if the file is damaged; names it.
        FileNotFoundError: if there is none.
    """
    path = folder / CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); {_HOW}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (expected the settings of a run, found {type(found).__name__}); {_HOW}")
    return found


def _but_source(record: dict[str, Any]) -> dict[str, Any]:
    data = record.get("data")
    return {**record, "data": {key: one for key, one in data.items() if key != "source"}} if data else record


def _told(changed: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Gives what differs, with both values; of a section of another name, the name alone."""
    renamed = {key.rpartition(".")[0] for key in changed if key.endswith(".name")}
    kept = {
        key: both
        for key, both in sorted(changed.items())
        if key.endswith(".name") or key.rpartition(".")[0] not in renamed
    }
    return [f"{key} ({there!r:.40} there, {here!r:.40} here)" for key, (there, here) in kept.items()]


def _differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Gives the keys at which two JSON values differ, with both."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {**a, **b}:
            yield from _differences(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
    elif a != b:
        yield path, (a, b)
