"""What is said besides the usage where a command was given what another one takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

_OF_LOGS = {"train", "tune", "evaluate", "evaluate-lists", "recommend", "serve", "analyse", "snapshot"}
"""Commands that read a log and have no options of how it is written."""


def hints(command: str, argv: Sequence[str]) -> Iterator[str]:
    """Gives what may help with arguments that a command refused.

    Args:
        command: The command's name.
        argv: Its arguments.

    Yields:
        A line for each thing that was found.
    """
    if command not in _OF_LOGS:
        return
    given = {one.split("=")[0].replace("_", "-") for one in argv}
    reading = [option for option in _reading_options(command) if option in given]
    if reading:
        has = "is an option" if len(reading) == 1 else "are options"
        how = "prepare the log with it, and give the folder that it writes"
        yield f"{', '.join(reading)} {has} of `conseq prepare`: {how} to `conseq {command}`"
    if any(_are_files_of_one_log(a, b) for a, b in pairwise(argv)):
        yield "several files of one log: name their folder, or a pattern in quotes, which the shell then leaves alone"


def _reading_options(command: str) -> list[str]:
    from conseq.cli.logs import reading_options

    # A weight of S3-Rec is called --item, too, --user of `recommend` is --users misspelt, and lists have both columns.
    others = {"item", "user"} if command in {"recommend", "evaluate-lists"} else {"item"}
    return [f"--{name}" for name in reading_options() if name not in others]


def _are_files_of_one_log(one: str, other: str) -> bool:
    return Path(one).suffix == Path(other).suffix != ".toml" and Path(one).is_file() and Path(other).is_file()
