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


def of_a_search(argv: Sequence[str], message: str) -> str:
    """Gives what may help with an error about a folder that is that of a search, where a model was expected.

    Args:
        argv: The command's arguments.
        message: The error.

    Returns:
        The bundle of the search's winner, in words to add to the message; nothing where no argument is such a folder.
    """
    paths = [Path(value) for one in argv if (value := one.rpartition("=")[2])]
    folder = next((one for one in paths if str(one) in message and (one / "search.json").is_file()), None)
    if folder is None:
        return ""
    from conseq.tuning.search import winner

    told = f"; {folder} is the folder of a search"
    try:
        best = winner(folder)
    except ValueError:  # damaged, of which `conseq tune` tells
        return told
    if best is None:
        return f"{told}, none of whose trials has a value"
    if (best / "bundle").is_dir():
        return f"{told}: the bundle of its winner is {best / 'bundle'}"
    return (
        f"{told} whose winner has no bundle yet (the best trial so far is {best}): the same `conseq tune` command goes "
        f"on, and writes one when all trials are done; `conseq snapshot {best} DATA` writes one now"
    )


def _reading_options(command: str) -> list[str]:
    from conseq.cli.logs import reading_options

    # A weight of S3-Rec is called --item, too, --user of `recommend` is --users misspelt, and lists have both columns.
    others = {"item", "user"} if command in {"recommend", "evaluate-lists"} else {"item"}
    return [f"--{name}" for name in reading_options() if name not in others]


def _are_files_of_one_log(one: str, other: str) -> bool:
    return Path(one).suffix == Path(other).suffix != ".toml" and Path(one).is_file() and Path(other).is_file()
