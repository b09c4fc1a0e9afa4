"""Histories as users have them, turned into item numbers."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal, TypeGuard, cast, get_args

import numpy as np
import numpy.typing as npt
import torch

from conseq.data.blocks import opened
from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences, offsets_of
from conseq.data.vocabulary import Vocabulary
from conseq.serving.arguments import check_choice

Unknown = Literal["drop", "error"]
Block = tuple[Sequences, int]
"""Sequences of item numbers, and the number of ids that were left out of them."""

ROWS_AT_ONCE = 4096
NAMED_IN_ERRORS = 5


def as_id(one: object, *, what: str = "an item id") -> str:
    """Gives an outside id as the string that it is in the vocabulary.

    Args:
        one: A string, unchanged, or an integer, written in decimal.
        what: What it is, for errors.

    Returns:
        The id.

    Raises:
        TypeError: on anything else: a float, for instance, has no one way of being written.
    """
    if isinstance(one, str):
        return str(one)
    if isinstance(one, (int, np.integer)) and not isinstance(one, bool):
        return str(int(one))
    raise TypeError(f"{what} is a string or an integer; found {one!r:.60} of type {type(one).__name__}")


def rows_of(given: Iterable[object], *, what: str) -> tuple[Iterator[Iterable[object]], bool]:
    """Gives the rows of ``given``, and whether it was one row by itself.

    Args:
        given: Item ids (one row), or rows of item ids; any iterable, read once.
        what: What ``given`` is, for errors.

    Returns:
        The rows, not yet read, and True where ``given`` was one row of ids. Nothing at all is no rows.

    Raises:
        TypeError: if ``given`` is a string, a mapping or a set, or holds neither ids nor rows.
    """
    if isinstance(given, (str, bytes, Mapping, AbstractSet)) or not isinstance(given, Iterable):
        raise TypeError(f"{what}: expected a list of item ids or a list of such lists, found {_shown(given)}")
    rest = iter(given)
    first = list(itertools.islice(rest, 1))
    both = itertools.chain(first, rest)
    if first and not _is_row(first[0]):
        as_id(first[0])
        return iter([both]), True
    return _checked_rows(both, what), False


class UnknownItemsError(KeyError):
    """Items are unknown, and may not be.

    Args:
        what: What they stand in: ``histories``, ``candidates`` or ``exclude``.
        which: Which they are, and to whom they are unknown.
        row: The first row that has one, counted from 0.
        of_several: Whether there are other rows.

    Attributes:
        what: The same.
        which: The same.
        row: The same.
    """

    def __init__(self, what: str, which: str, row: int, *, of_several: bool) -> None:
        self.what, self.which, self.row = what, which, row
        where = f" (the first in row {row}, counted from 0)" if of_several else ""
        super().__init__(f"{what}: {which}{where}")


def encode(
    rows: Iterable[Iterable[object]], vocabulary: Vocabulary, *, unknown: Unknown, what: str, first: int = 0
) -> Block:
    """Gives rows of outside ids as sequences of the known item numbers.

    Args:
        rows: Rows of item ids.
        vocabulary: The known items.
        unknown: ``drop`` leaves unknown ids out; ``error`` refuses them.
        what: What the rows are, for errors.
        first: The number of the first row, for errors.

    Returns:
        One sequence per row, possibly empty, and the number of ids that were left out.

    Raises:
        UnknownItemsError: if ids are unknown and must not be; the message, of a KeyError, names them.
        TypeError: if an id is neither a string nor an integer.
        ValueError: if ``unknown`` is neither of the two.
    """
    check_choice("unknown", unknown, get_args(Unknown))
    flat: list[int] = []
    lengths: list[int] = []
    strangers: list[str] = []
    strange = -1
    for row in rows:
        ids = list(row)
        found = _looked_up(ids, vocabulary)
        if None in found:
            strange = len(lengths) if strange < 0 else strange
            strangers += [as_id(one) for one, number in zip(ids, found, strict=True) if number is None]
            found = [number for number in found if number is not None]
        flat += cast("list[int]", found)
        lengths.append(len(found))
    if strangers and unknown == "error":
        which = f"{named(strangers)} not among the {len(vocabulary)} known items"
        raise UnknownItemsError(what, which, first + strange, of_several=first + len(lengths) > 1)
    offsets = offsets_of(torch.tensor(lengths, dtype=torch.int64))
    return Sequences(torch.tensor(flat, dtype=torch.int64), offsets), len(strangers)


def encode_blocks(
    rows: Iterator[Iterable[object]], vocabulary: Vocabulary, *, unknown: Unknown, what: str
) -> Iterator[Block]:
    """Gives rows of outside ids in blocks, as :func:`encode` does, reading no further than asked.

    Args:
        rows: Rows of item ids.
        vocabulary: The known items.
        unknown: ``drop`` leaves unknown ids out; ``error`` refuses them.
        what: What the rows are, for errors.

    Returns:
        Blocks of at most ``ROWS_AT_ONCE`` rows, not yet read. Reading them raises the errors of :func:`encode`.

    Raises:
        ValueError: if ``unknown`` is neither of the two.
    """
    check_choice("unknown", unknown, get_args(Unknown))
    some = iter(lambda: list(itertools.islice(rows, ROWS_AT_ONCE)), [])
    return (
        encode(block, vocabulary, unknown=unknown, what=what, first=number * ROWS_AT_ONCE)
        for number, block in enumerate(some)
    )


def histories_of(
    by_user: Mapping[Any, Sequence[object]], users: Iterable[object] | None
) -> tuple[list[str], Iterator[Iterable[object]]]:
    """Gives the chosen users' ids and their histories.

    Args:
        by_user: The history of each user.
        users: The users to choose; all where None.

    Returns:
        User ids as strings, and their histories, not yet checked.

    Raises:
        KeyError: if a user is not among them.
        TypeError: if ``by_user`` is no mapping, ``users`` no list, or a user's id neither a string nor an integer.
        ValueError: if two users have the same id, once as a string and once as an integer.
    """
    if not isinstance(by_user, Mapping):
        raise TypeError(
            "histories: expected a log or a mapping from user ids to lists of item ids, found "
            f"{_shown(by_user)}; histories without users go to recommend()"
        )
    keys: dict[str, object] = {}
    for user in by_user:
        other = keys.setdefault(as_id(user, what="a user id"), user)
        if other is not user:
            raise ValueError(
                f"histories: {other!r} and {user!r} are the same user id {as_id(user)!r}; an integer stands for its "
                "decimal string, so keep one of them"
            )
    chosen = list(keys) if users is None else chosen_users(users, keys)
    return chosen, _checked_rows((by_user[keys[user]] for user in chosen), "histories")


def chosen_users(users: Iterable[object], known: Mapping[str, object] | Vocabulary) -> list[str]:
    """Gives the ids of the chosen users as strings.

    Args:
        users: The users to choose.
        known: Those who have a history, by id.

    Returns:
        The ids, in the order asked for.

    Raises:
        KeyError: if a user is not among them.
        TypeError: if ``users`` is no list of strings and integers.
    """
    if isinstance(users, (str, bytes)) or not isinstance(users, Iterable):
        raise TypeError(f"users: expected a list of user ids, found {_shown(users)}")
    chosen = [as_id(user, what="a user id") for user in users]
    missing = [user for user in chosen if user not in known]
    if missing:
        raise KeyError(f"users: {named(missing)} not among the {len(known)} users with a history")
    return chosen


def encode_log(
    log: InteractionLog, users: npt.NDArray[np.int64], known: Vocabulary, *, unknown: Unknown, what: str = "log"
) -> Iterator[Block]:
    """Gives the histories of a log's users, in blocks, in the item numbers of another vocabulary.

    Args:
        log: The log.
        users: int64, rows of the log.
        known: The vocabulary to number the items in.
        unknown: ``drop`` leaves items out that ``known`` lacks; ``error`` refuses them.
        what: What the log is, for errors.

    Yields:
        Blocks of at most ``ROWS_AT_ONCE`` users, and the number of interactions left out.

    Raises:
        KeyError: if items are unknown and must not be; the message names them.
        ValueError: if ``unknown`` is neither of the two.
    """
    check_choice("unknown", unknown, get_args(Unknown))
    renumbered = torch.tensor([0, *(known.number(one) or 0 for one in log.item_ids.ids)], dtype=torch.int64)
    for start in range(0, len(users), ROWS_AT_ONCE):
        rows = users[start : start + ROWS_AT_ONCE]
        parts = [log.items[log.offsets[row] : log.offsets[row + 1]] for row in rows]
        own = torch.from_numpy(np.concatenate(parts).astype(np.int64))
        lengths = torch.from_numpy(log.offsets[rows + 1] - log.offsets[rows])
        ids = renumbered[own]
        if unknown == "error" and not bool(ids.all()):
            strangers = log.item_ids.decode(np.unique(own[ids == 0].numpy()))
            raise KeyError(f"{what}: {named(strangers)} not among the {len(known)} known items")
        histories = Sequences(ids, offsets_of(lengths)).keep(ids > 0)
        yield histories, own.numel() - histories.ids.numel()


def unknown_in(log: InteractionLog, users: npt.NDArray[np.int64], known: Vocabulary) -> tuple[int, list[int]]:
    """Gives how many interactions of a log's users are with items that a vocabulary lacks, and who has no other.

    Args:
        log: The log.
        users: int64, rows of the log.
        known: The vocabulary.

    Returns:
        Their number, and the places in ``users`` of those whose history has no known item.
    """
    strangers = np.array([False, *(one not in known for one in log.item_ids.ids)])
    begins, ends = log.offsets[users], log.offsets[users + 1]
    before = np.concatenate([[0], np.cumsum(strangers[log.items])])
    unknown = before[ends] - before[begins]
    return int(unknown.sum()), np.flatnonzero(unknown == ends - begins).tolist()


def read_histories(path: Path) -> Iterator[list[str]]:
    """Gives the histories in a text file, one per line, oldest item first.

    A line of a ``.jsonl`` file is a JSON array of ids; in any other file ids are separated by white space.
    A file that is gzip is unpacked. A blank line is an empty history.

    Args:
        path: The file.

    Yields:
        The ids of each line.

    Raises:
        ValueError: if a line is not UTF-8, or one of a ``.jsonl`` file not an array of ids (file and line are named);
            or if the name ends in ``.gz`` and the file is not whole gzip data.
        OSError: if the file cannot be read.
    """
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    for number, line in enumerate(_lines(path), 1):
        if plain.suffix == ".jsonl":
            yield history_from_json(line, source=f"{path}, line {number}") if line.strip() else []
        else:
            yield words(line)


def ids_from(text: str) -> list[str]:
    """Gives the ids in a command-line value.

    Args:
        text: Ids separated by white space; or a JSON array; or ``@FILE``, a file with one id per line.

    Returns:
        The ids.

    Raises:
        ValueError: if an array is not one of ids, or a line of a file is not UTF-8; its line is named.
        OSError: if the file cannot be read.
    """
    if text.startswith("@"):
        return [one for line in _lines(Path(text[1:])) if (one := line.removesuffix("\n"))]
    if text.lstrip().startswith("["):
        return history_from_json(text, source="item ids")
    return words(text)


def _lines(path: Path) -> Iterator[str]:
    """Gives the lines of a text file, gzip or not, without a byte order mark; each but the last ends in a newline."""
    with opened(path) as file:
        if path.suffix == ".gz" and not isinstance(cast("object", file), gzip.GzipFile):
            raise ValueError(f"{path}: the name says gzip, but this is not gzip data; rename the file or get it again")
        # Bytes that are not UTF-8 become surrogates first, because the decoder of a stream cannot tell their line.
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape")
        for number, line in enumerate(text, 1):
            try:
                line.encode()
            except UnicodeEncodeError as error:
                byte = ord(line[error.start]) - 0xDC00
                raise ValueError(
                    f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8; convert the file to UTF-8"
                ) from None
            yield line


def words(text: str) -> list[str]:
    """Gives the ids in ``text``, separated by ASCII white space; other spaces are part of an id."""
    return re.findall(r"[^ \t\r\n\v\f]+", text)


def history_from_json(text: str, *, source: str) -> list[str]:
    """Gives the ids in a JSON array of strings or integers.

    Args:
        text: The JSON text.
        source: Where it came from, for errors.

    Returns:
        The ids.

    Raises:
        ValueError: if it is anything else.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f'{source}: not JSON ({error}); expected an array of item ids like ["a", "b"]') from None
    if not isinstance(values, list):
        raise ValueError(f'{source}: expected an array of item ids like ["a", "b"], found {_shown(values)}')
    try:
        return [as_id(one) for one in values]
    except TypeError as error:
        raise ValueError(f"{source}: {error}") from None


def named(ids: Sequence[str]) -> str:
    """Gives the first few of ``ids`` in quotes, with the number of the rest and the right verb."""
    shown = ", ".join(repr(one) for one in ids[:NAMED_IN_ERRORS])
    more = len(ids) - NAMED_IN_ERRORS
    verb = "is" if len(ids) == 1 else "are"
    return f"{shown} and {more} more {verb}" if more > 0 else f"{shown} {verb}"


def _looked_up(ids: list[object], vocabulary: Vocabulary) -> list[int | None]:
    if set(map(type, ids)) <= {str}:
        return list(map(vocabulary.number, ids))  # type: ignore[arg-type]
    return [vocabulary.number(as_id(one)) for one in ids]


def _checked_rows(rows: Iterable[object], what: str) -> Iterator[Iterable[object]]:
    for number, row in enumerate(rows):
        if not _is_row(row):
            raise TypeError(f"{what}: row {number} is {_shown(row)}; expected a list of item ids")
        yield row


def _is_row(one: object) -> TypeGuard[Iterable[object]]:
    return type(one) is list or (isinstance(one, Iterable) and not isinstance(one, (str, bytes, Mapping, AbstractSet)))


def _shown(one: object) -> str:
    if isinstance(one, (Mapping, AbstractSet)):
        return f"a {type(one).__name__}"
    return f"{type(one).__name__} {one!r:.60}"
