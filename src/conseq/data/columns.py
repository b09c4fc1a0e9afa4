"""Which columns of a table hold the users, the items and the times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

USER_NAMES = frozenset(
    "user user_id userid uid user_name username reviewer_id visitor_id customer_id member_id account_id steam_id "
    "session session_id".replace("_", "").split()
)
ITEM_NAMES = frozenset(
    "item item_id itemid iid asin parent_asin product product_id sku movie_id business_id track_id song_id artist_id "
    "video_id book_id article_id news_id game_id app_id venue_id location_id poi_id recipe_id".replace("_", "").split()
)
TIME_NAMES = frozenset(
    "time timestamp ts unix_time unix_timestamp unix_review_time date datetime event_time event_date event_timestamp "
    "created_at".replace("_", "").split()
)
NO_COLUMN = "-"

# Too vague to be taken unasked (a release date is no time of an interaction), enough to be named in a warning.
_TIME_END = re.compile(
    r"((^|[\s_\-.])(at|on|when|ts|t|time|times|date|day|timestamp|datetime)|[a-z](At|Ts|TS|Time|Date|Day|Timestamp|DateTime))$"
    r"|timestamp$|datetime$",
)
_ATOMIC_TYPE = re.compile(r":(token|float|token_seq|float_seq)$")


@dataclass(frozen=True)
class Column:
    """A column and how it was found.

    Attributes:
        name: The column's name as the source writes it.
        guessed: False where the caller named it.
    """

    name: str
    guessed: bool


@dataclass(frozen=True)
class Columns:
    """The three columns of a log.

    Attributes:
        user: Of the users' ids.
        item: Of the items' ids.
        time: Of the times; None where the order of the source is the order of the log.
        passed_over: Where no column was taken for the time and the caller did not say that there is none: the columns
            that are not read, those that sound like times first.
        every: All columns of the source, as it writes them.
    """

    user: Column
    item: Column
    time: Column | None
    passed_over: tuple[str, ...] = ()
    every: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the columns to read: user, item and, where there is one, time."""
        return [column.name for column in (self.user, self.item, self.time) if column is not None]


def choose(names: Sequence[str], source: str, *, user: str | None, item: str | None, time: str | None) -> Columns:
    """Gives the columns of a log: those that the caller names, and guesses for the others.

    A guess is made from the usual names (``user_id``, ``reviewerID``, ``asin``, ``unixReviewTime`` and so on), whatever
    their capitals, underscores and RecBole type suffix (``user_id:token``).

    Args:
        names: The columns of the source, in order.
        source: Its name, for errors.
        user: Name of the user column, or None to guess it.
        item: Name of the item column, or None to guess it.
        time: Name of the time column, None to guess it (there may be none), or ``"-"`` to take no times.

    Returns:
        The three columns.

    Raises:
        ValueError: if a column is missing or occurs twice, or if several columns fit.
    """
    chosen_user = _column(names, source, "user", user, USER_NAMES)
    chosen_item = _column(names, source, "item", item, ITEM_NAMES)
    chosen_time = None if time == NO_COLUMN else _column(names, source, "time", time, TIME_NAMES)
    if chosen_user is None or chosen_item is None:
        roles = [role for role, found in (("user", chosen_user), ("item", chosen_item)) if found is None]
        how = f"name {'it' if len(roles) == 1 else 'them'} with {' and '.join(f'{role}=' for role in roles)} "
        how += f"({', '.join(f'--{role}' for role in roles)} in a shell)"
        raise ValueError(f"{source}: no column looks like the {' or the '.join(roles)}; {_found(names)}; {how}")
    passed_over: tuple[str, ...] = ()
    if chosen_time is None and time != NO_COLUMN:
        rest = [name for name in names if name not in {chosen_user.name, chosen_item.name}]
        passed_over = tuple(sorted(rest, key=lambda name: not sounds_like_time(name)))
    columns = Columns(chosen_user, chosen_item, chosen_time, passed_over, tuple(names))
    twice = next((name for name in columns.names if columns.names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{source}: column {twice!r} is taken twice among user, item and time; {_found(names)}")
    return columns


def called(names: Sequence[str], usual: frozenset[str]) -> list[str]:
    """Gives the columns whose names are usual ones, whatever their capitals, underscores and RecBole type suffix."""
    return [name for name in names if _plain(name) in usual]


def looks_like_time(name: str) -> bool:
    """Gives whether ``name`` is one of the usual names of a time column."""
    return _plain(name) in TIME_NAMES


def sounds_like_time(name: str) -> bool:
    """Gives whether a column may hold times, by the end of its name: ``purchased_at``, ``orderDate``, ``start.ts``."""
    return _TIME_END.search(_ATOMIC_TYPE.sub("", name.strip())) is not None


def _column(names: Sequence[str], source: str, role: str, asked: str | None, usual: frozenset[str]) -> Column | None:
    """Gives the column of one role; None where the caller named none and none looks like it."""
    if asked is None:
        fitting = called(names, usual)
    else:
        fitting = [name for name in names if name == asked] or [
            name for name in names if _ATOMIC_TYPE.sub("", name) == asked
        ]
        if not fitting:
            raise ValueError(f"{source}: no column {asked!r} for the {role}; {_found(names)}")
    if len(set(fitting)) > 1:
        candidates = ", ".join(map(repr, fitting))
        raise ValueError(
            f"{source}: several columns may be the {role}: {candidates}; choose one with {role}= (--{role} in a shell)"
        )
    if len(fitting) > 1:
        raise ValueError(f"{source}: column {fitting[0]!r} occurs {len(fitting)} times; columns need different names")
    return Column(fitting[0], guessed=asked is None) if fitting else None


def _plain(name: str) -> str:
    """Gives ``name`` without what differs among spellings of the same word."""
    return re.sub(r"[\s_\-.]", "", _ATOMIC_TYPE.sub("", name.strip())).lower()


def _found(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:20]))
    return f"found {shown}" + (f" and {len(names) - 20} more" if len(names) > 20 else "")
