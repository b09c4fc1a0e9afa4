"""Reads the log that a command is given; one that only `conseq prepare` has the options for is sent there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conseq.data.log import InteractionLog

_VALUES = {"user": "COLUMN", "item": "COLUMN", "time": "COLUMN", "format": "FORMAT", "time-unit": "UNIT"}


def read_log(source: str | Path, command: str, *, time: str | None = None) -> InteractionLog:
    """Gives the log that a command is given.

    Args:
        source: A prepared folder, or a log.
        command: The command, which has no options of how a log is read.
        time: The time column, as for :func:`conseq.read`; where None, that function's own default.

    Returns:
        The log.

    Raises:
        ValueError: as in :func:`conseq.read`; where an option of `conseq prepare` helps, the message says how.
    """
    from conseq.data.prepared import is_prepared
    from conseq.data.readers import read

    try:
        return read(source) if time is None or is_prepared(source) else read(source, time=time)
    except ValueError as error:
        raise ValueError(f"{error}{_prepared_first(str(error), str(source), command)}") from error


def reading_options() -> list[str]:
    """Gives the options of how a log is read, without their dashes."""
    from conseq.data.reading import Reading

    return [one.name.replace("_", "-") for one in fields(Reading)]


def _prepared_first(message: str, source: str, command: str) -> str:
    """Gives what to do where a message names options that the command does not have; empty where it names none."""
    told = [name for name in reading_options() if re.search(rf"--{name}(?![\w-])", message)]
    if not told:
        return ""
    options = " ".join(f"--{name} {_VALUES.get(name, '...')}" for name in told)
    return (
        f"; `conseq {command}` does not read logs otherwise: run `conseq prepare {source} FOLDER {options}`, and give "
        f"FOLDER in the place of {source}"
    )
