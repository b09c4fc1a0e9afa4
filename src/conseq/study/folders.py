"""Folders of runs: which log and which code they are of, and how those that are no longer asked for make room."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conseq.data.locks import locked
from conseq.run.config import RunConfig
from conseq.run.folder import CONFIG, read_config
from conseq.run.provenance import code_hash
from conseq.study.equal_code import reached

ASIDE, LOGS = "aside", "logs"
"""Folders beside those of runs: of runs that made room, and of what the processes wrote."""


def is_of_log(folder: Path, data_hash: str | None) -> bool:
    """Whether a run's folder is of the log with this hash; one in which no run was begun is of any.

    Args:
        folder: The run's folder, which need not be there.
        data_hash: The log's hash; None where the log is not there, which no folder contradicts.

    Returns:
        False where the run read another log.

    Raises:
        ValueError: if the run's configuration is damaged; names the file.
    """
    if data_hash is None or not (folder / CONFIG).exists():
        return True
    return _hash_of(read_config(folder)) == data_hash


def is_of_code(folder: Path, config: RunConfig, equal: Mapping[str, set[str]]) -> bool:
    """Whether the code as it is, or code that is declared to give the same results, made all of a run.

    Args:
        folder: The run's folder, which need not be there.
        config: Its experiment.
        equal: What is declared equal, by the earlier code.

    Returns:
        False where other code made it, or a part of it.

    Raises:
        ValueError: if the run's configuration is damaged; names the file.
    """
    if not (folder / CONFIG).exists():
        return True
    now = code_hash(config)
    return all(now in {one, *reached(one, equal)} for one in _codes(folder)) and bool(_codes(folder))


def put_aside(folder: Path) -> None:
    """Moves a run's folder into the folder ``aside`` beside it, where it keeps its files.

    Args:
        folder: The run's folder; nothing happens where no run was begun in it.

    Raises:
        BlockingIOError: if a process is at work in it.
        ValueError: if the run's configuration is damaged; names the file.
    """
    if not (folder / CONFIG).exists():
        return
    codes = _codes(folder)
    aside = folder.parent / ASIDE
    with locked(folder):
        aside.mkdir(exist_ok=True)
        stem = f"{folder.name}.{codes[-1] if codes else 'old'}"
        names = (stem if number == 1 else f"{stem}.{number}" for number in itertools.count(1))
        folder.rename(next(aside / name for name in names if not (aside / name).exists()))


def _codes(folder: Path) -> list[str]:
    found = read_config(folder).get("code")
    return [str(one["hash"]) for one in found] if isinstance(found, list) else []


def _hash_of(config: Mapping[str, Any]) -> object:
    data = config.get("data")
    return data.get("hash") if isinstance(data, Mapping) else None
