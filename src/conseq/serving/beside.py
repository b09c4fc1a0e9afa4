"""Items that are given beside the histories, to be left out or to choose from: for all histories, or for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from conseq.data.log import InteractionLog
from conseq.data.vocabulary import Vocabulary
from conseq.serving.histories import Block, Unknown, as_id, encode_blocks, encode_log, named, rows_of

ByUser = InteractionLog | Mapping[Any, Sequence[object]]
"""Items by user: those of the users of a log, or of the keys of a mapping."""


def items_beside(
    given: Iterable[object], known: Vocabulary, *, unknown: Unknown, what: str
) -> tuple[Tensor, Iterator[Block] | None]:
    """Gives items as numbers: those for all histories, or blocks of those for each.

    Args:
        given: One list of ids for all histories, or one list for each.
        known: The items that the model knows.
        unknown: ``drop`` leaves unknown ids out; ``error`` refuses them.
        what: What the items are, for errors.

    Returns:
        int64, the numbers for all histories; and blocks, not yet read, where there is a list for each.

    Raises:
        UnknownItemsError: if ids for all histories are unknown and must not be. Reading the blocks raises it, too.
        TypeError: if ``given`` is a string, a mapping or a set, or holds neither ids nor lists of them.
        ValueError: if ``unknown`` is neither of the two.
    """
    nothing = torch.zeros(0, dtype=torch.int64)
    rows, for_all = rows_of(given, what=what)
    blocks = encode_blocks(rows, known, unknown=unknown, what=what)
    if for_all:
        return torch.cat([nothing, *(seqs.ids for seqs, _ in blocks)]), None
    first = next(blocks, None)
    return nothing, None if first is None else chain([first], blocks)


def items_by_user(
    given: ByUser, users: Sequence[str], known: Vocabulary, *, unknown: Unknown, what: str
) -> Iterator[Block]:
    """Gives the items of each user as numbers, in blocks.

    Args:
        given: The items by user; may be of more users than those asked for.
        users: The users.
        known: The items that the model knows.
        unknown: ``drop`` leaves unknown ids out; ``error`` refuses them.
        what: What the items are, for errors.

    Returns:
        Blocks, not yet read. Reading them raises UnknownItemsError, or KeyError of a log, where ids are unknown and
        must not be, and TypeError where an id is neither a string nor an integer.

    Raises:
        KeyError: if a user has no entry; the message names the first and counts them.
        TypeError: if a key of a mapping is neither a string nor an integer.
        ValueError: if two keys of a mapping are the same id.
    """
    if isinstance(given, InteractionLog):
        _check_entries(users, given.user_ids, what=what)
        return encode_log(given, given.user_ids.encode(users), known, unknown=unknown, what=what)
    keys = {as_id(one, what="a user id"): one for one in given}
    if len(keys) < len(given):
        raise ValueError(f"{what}: two users have one id, as an integer and as its decimal string; keep one of them")
    _check_entries(users, keys, what=what)
    if not users:
        return iter(())
    return encode_blocks(
        rows_of([given[keys[user]] for user in users], what=what)[0], known, unknown=unknown, what=what
    )


def _check_entries(users: Sequence[str], keys: Mapping[str, object] | Vocabulary, *, what: str) -> None:
    missing = [user for user in users if user not in keys]
    if missing:
        raise KeyError(
            f"{what}: {named(missing)} without an entry, {len(missing)} of {len(users)} users in all; give them one, "
            "which may be empty, or name the users to answer for"
        )
