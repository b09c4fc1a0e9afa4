"""Logs whose causes are known: for the demonstration, and as the ground truth of tests.

Every item belongs to one intent. A user follows a few intents, stays in one for a while and then switches. Within
an intent, popularity falls as a power of the rank. Some items are *triggers*: one, two or three interactions after
a trigger comes its successor, always the same item, with probability ``follow``. What is not a successor is drawn
by popularity from the user's present intent or, now and then, from the whole catalogue.

Popularity, intent and the triggers of a history each tell a different share of what comes next; only the triggers
tell the very item.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from conseq.data.files import atomic_path
from conseq.data.log import InteractionLog
from conseq.data.vocabulary import Vocabulary

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

EXPONENT = 0.9  # of popularity over rank
TRIGGERS = 0.4  # share of each intent's items
GAPS = (0.6, 0.25, 0.15)  # probabilities that a successor comes 1, 2, 3 interactions later
STRAY = 0.1  # share of free draws that ignore the intent
INTENTS_PER_USER = 2
SHORTEST = 5
BEGIN, SPAN, PAUSE = 1_577_836_800, 2 * 365 * 86_400, 3 * 86_400  # 2020-01-01; two years; three days


@dataclass(frozen=True, eq=False)
class Truth:
    """Why each interaction of a synthetic log happened.

    Attributes:
        item_intents: int64 ``[V + 1]``, the intent of each item number; -1 for 0, the padding.
        successors: int64 ``[V + 1]``, the item number that follows a trigger; 0 for other items.
        gaps: int64 ``[V + 1]``, how many interactions after the trigger its successor comes; 0 for other items.
        user_intents: bool ``[U, K]``, which intents each user follows.
        intents: int64 ``[N]``, the intent that the user was in at each interaction.
        causes: int64 ``[N]``, the place in the log of the trigger that brought each interaction about; -1 where
            it was drawn freely.
    """

    item_intents: Integers
    successors: Integers
    gaps: Integers
    user_intents: Mask
    intents: Integers
    causes: Integers

    @cached_property
    def important(self) -> Mask:
        """bool ``[N]``: True where the interaction brought about a later one of the same user."""
        important = np.zeros(self.causes.size, dtype=np.bool_)
        important[self.causes[self.causes >= 0]] = True
        return important


def synthetic(
    *,
    n_users: int = 2500,
    n_items: int = 800,
    n_intents: int = 8,
    mean_length: float = 16.0,
    follow: float = 0.9,
    switch: float = 0.1,
    repeats: bool = False,
    seed: int,
) -> tuple[InteractionLog, Truth]:
    """Gives a log and the truth about it.

    Items that happen to occur nowhere are not in the log's catalogue.

    Args:
        n_users: Users, each with at least 5 interactions.
        n_items: Items to draw from, at least 4 for each intent.
        n_intents: ``K``.
        mean_length: Expected interactions of a user, at least 5.
        follow: Probability that a trigger's successor comes.
        switch: Probability, at each interaction, that the user chooses anew among their intents.
        repeats: Whether a user may meet an item again.
        seed: Decides everything that is drawn.

    Returns:
        The log, with strictly increasing times inside a user, and its truth.

    Raises:
        ValueError: if an argument is out of its range.
    """
    _check(n_users, n_items, n_intents, mean_length, follow, switch)
    rng = np.random.default_rng(seed)
    catalogue = _Catalogue.drawn(n_items, n_intents, rng)
    spread = rng.geometric(1 / (mean_length - SHORTEST + 1), size=n_users) - 1
    lengths = np.minimum(SHORTEST + spread, max(SHORTEST, n_items // 4))
    followed = rng.random((n_users, n_intents)).argsort(axis=1)[:, :INTENTS_PER_USER]
    walk = _Walk(catalogue, lengths, followed, follow=follow, switch=switch, repeats=repeats)
    raw, intents, causes = walk.run(rng)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    user_intents = np.zeros((n_users, n_intents), dtype=np.bool_)
    np.put_along_axis(user_intents, followed, True, axis=1)
    numbers, ids = _numbers(raw, catalogue, rng)
    settings = {"n_users": n_users, "n_items": n_items, "n_intents": n_intents, "mean_length": mean_length}
    settings |= {"follow": follow, "switch": switch, "repeats": repeats, "seed": seed}
    log = InteractionLog(
        items=numbers[raw].astype(np.int32),
        offsets=offsets,
        times=_times(offsets, rng),
        user_ids=Vocabulary([f"user{number:05}" for number in range(1, n_users + 1)], start=0),
        item_ids=Vocabulary(ids, start=1),
        manifest={"source": "synthetic", "settings": settings},
    )
    return log, Truth(
        **catalogue.renumbered(numbers, len(ids)), user_intents=user_intents, intents=intents, causes=causes
    )


def cycle_log(n_users: int, n_items: int, length: int) -> InteractionLog:
    """Gives a log whose next item is certain: item ``i`` is followed by ``i + 1``, the last by the first.

    User ``u`` begins at item ``u mod n_items + 1``.

    Args:
        n_users: Users.
        n_items: Items, each of which must occur.
        length: Interactions of each user.

    Returns:
        The log; times count 0, 1, 2, … inside a user.

    Raises:
        ValueError: if the users are too few or too short to meet every item.
    """
    if min(n_users, n_items, length) < 1 or n_users + length - 1 < n_items:
        raise ValueError(
            f"{n_users} users of {length} interactions do not meet {n_items} items; n_users + length - 1 must be "
            "at least n_items"
        )
    items = (np.arange(n_users)[:, None] + np.arange(length)) % n_items + 1
    return InteractionLog(
        items=items.ravel().astype(np.int32),
        offsets=np.arange(n_users + 1) * length,
        times=np.tile(np.arange(length), n_users),
        user_ids=Vocabulary([f"u{number}" for number in range(n_users)], start=0),
        item_ids=Vocabulary([f"i{number}" for number in range(1, n_items + 1)], start=1),
        manifest={"source": "cycle", "settings": {"n_users": n_users, "n_items": n_items, "length": length}},
    )


def write_csv(log: InteractionLog, path: Path | str) -> None:
    """Writes a log as a CSV file with the columns ``user_id``, ``item_id`` and, where it has times, ``timestamp``.

    Args:
        log: The log.
        path: The file, written whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    rows = np.repeat(np.arange(log.n_users), np.diff(log.offsets))
    table = pl.DataFrame(
        {
            "user_id": pl.Series(log.user_ids.ids).gather(rows),
            "item_id": pl.Series(log.item_ids.ids).gather(np.asarray(log.items) - 1),
        }
    )
    if log.times is not None:
        table = table.with_columns(timestamp=np.asarray(log.times))
    with atomic_path(path) as temporary:
        table.write_csv(temporary)


@dataclass(frozen=True)
class _Catalogue:
    """Items ``0..n-1``: item ``i`` has intent ``i % K`` and popularity rank ``i // K`` there.

    Attributes:
        successors: int64 ``[n]``; -1 where the item is no trigger.
        gaps: int64 ``[n]``; 0 where the item is no trigger.
        chances: float64 ``[n]``, of the items sorted by intent and rank, cumulated; intent ``z`` ends at ``z + 1``.
        order: int64 ``[n]``, those items.
        n_intents: ``K``.
    """

    successors: Integers
    gaps: Integers
    chances: npt.NDArray[np.float64]
    order: Integers
    n_intents: int

    @classmethod
    def drawn(cls, n_items: int, n_intents: int, rng: np.random.Generator) -> _Catalogue:
        """Gives a catalogue with random triggers."""
        successors = np.full(n_items, -1)
        gaps = np.zeros(n_items, dtype=np.int64)
        chances = []
        for intent in range(n_intents):
            members = np.arange(intent, n_items, n_intents)
            mixed = rng.permutation(members)
            triggers, others = np.split(mixed, [max(1, int(TRIGGERS * members.size))])
            # There are more others than triggers, so each trigger has a successor of its own.
            successors[triggers] = others[: triggers.size]
            gaps[triggers] = rng.choice(len(GAPS), size=triggers.size, p=GAPS) + 1
            weights = np.arange(1, members.size + 1) ** -EXPONENT
            chances.append(intent + np.cumsum(weights) / weights.sum())
        order = np.argsort(np.arange(n_items) % n_intents, kind="stable")
        return cls(successors, gaps, np.concatenate(chances), order, n_intents)

    def draw(self, intents: Integers, rng: np.random.Generator) -> Integers:
        """Gives one item for each of ``intents`` (int64 ``[B]``), by popularity there."""
        places = np.searchsorted(self.chances, intents + rng.random(intents.size), side="right")
        return self.order[np.minimum(places, self.order.size - 1)]

    def renumbered(self, numbers: Integers, n_items: int) -> dict[str, Integers]:
        """Gives the facts by item number: ``numbers`` (int64 ``[n]``) are those of the items, 0 where unused."""
        used = np.flatnonzero(numbers)
        item_intents = np.full(n_items + 1, -1)
        item_intents[numbers[used]] = used % self.n_intents
        triggers = used[self.gaps[used] > 0]
        triggers = triggers[numbers[self.successors[triggers]] > 0]
        successors, gaps = np.zeros((2, n_items + 1), dtype=np.int64)
        successors[numbers[triggers]] = numbers[self.successors[triggers]]
        gaps[numbers[triggers]] = self.gaps[triggers]
        return {"item_intents": item_intents, "successors": successors, "gaps": gaps}


class _Walk:
    """All users' histories, grown side by side, one interaction at a time.

    Users are held from the longest to the shortest, so that those who are still going are always the first ones.

    Args:
        catalogue: The items.
        lengths: int64 ``[U]``.
        followed: int64 ``[U, P]``, each user's intents.
        follow: Probability that a trigger's successor comes.
        switch: Probability that the user chooses an intent anew.
        repeats: Whether a user may meet an item again.
    """

    def __init__(
        self,
        catalogue: _Catalogue,
        lengths: Integers,
        followed: Integers,
        *,
        follow: float,
        switch: float,
        repeats: bool,
    ) -> None:
        self.catalogue = catalogue
        self.order = np.argsort(-lengths, kind="stable")
        self.lengths = lengths[self.order]
        self.followed = followed[self.order]
        self.follow, self.switch, self.repeats = follow, switch, repeats
        shape = (lengths.size, int(self.lengths[0]) + len(GAPS))
        self.items, self.intents = np.zeros((2, *shape), dtype=np.int64)
        self.due, self.causes = np.full((2, *shape), -1)
        self.seen = np.zeros((lengths.size, catalogue.order.size), dtype=np.bool_)

    def run(self, rng: np.random.Generator) -> tuple[Integers, Integers, Integers]:
        """Gives items, intents and causes, int64 ``[N]``, user after user in their first order."""
        present = self.followed[:, 0]
        for step in range(int(self.lengths[0])):
            active = int(np.searchsorted(-self.lengths, -step))
            moves = rng.random(active) < self.switch
            choice = rng.integers(self.followed.shape[1], size=active)
            present = np.where(moves, self.followed[np.arange(active), choice], present[:active])
            self._step(step, present, rng)
        back = np.argsort(self.order)
        taken = np.arange(self.items.shape[1]) < self.lengths[back, None]
        starts = np.concatenate([[0], np.cumsum(self.lengths[back])[:-1]])
        causes = self.causes[back]
        causes = np.where(causes >= 0, causes + starts[:, None], -1)
        return self.items[back][taken], self.intents[back][taken], causes[taken]

    def _step(self, step: int, present: Integers, rng: np.random.Generator) -> None:
        """Gives every active user the next item: the successor that is due, or a free draw."""
        rows = np.arange(present.size)
        items = self.due[rows, step]
        if not self.repeats:
            items[(items >= 0) & self.seen[rows, items]] = -1
        free = items < 0
        items[free] = self._free(rows[free], present[free], rng)
        self.causes[rows[free], step] = -1
        self.items[rows, step], self.intents[rows, step] = items, present
        self.seen[rows, items] = True
        places = step + self.catalogue.gaps[items]
        called = (places > step) & (rng.random(rows.size) < self.follow) & (self.due[rows, places] < 0)
        self.due[rows[called], places[called]] = self.catalogue.successors[items[called]]
        self.causes[rows[called], places[called]] = step

    def _free(self, rows: Integers, present: Integers, rng: np.random.Generator) -> Integers:
        """Gives one item for each of ``rows``, by popularity, and unseen where items may not repeat."""
        anywhere = rng.integers(self.catalogue.n_intents, size=rows.size)
        intents = np.where(rng.random(rows.size) < STRAY, anywhere, present)
        items = self.catalogue.draw(intents, rng)
        if self.repeats:
            return items
        for _ in range(20):
            again = np.flatnonzero(self.seen[rows, items])
            if not again.size:
                return items
            items[again] = self.catalogue.draw(intents[again], rng)
        # Whoever has met nearly all of an intent gets any item they have not met.
        again = np.flatnonzero(self.seen[rows, items])
        lots = rng.random((again.size, self.seen.shape[1]))
        items[again] = np.where(self.seen[rows[again]], -1.0, lots).argmax(axis=1)
        return items


def _numbers(raw: Integers, catalogue: _Catalogue, rng: np.random.Generator) -> tuple[Integers, list[str]]:
    """Gives item numbers, int64 ``[n]`` (0 where the item does not occur), and the ids of the numbers 1, 2, …"""
    used = rng.permutation(np.unique(raw))
    numbers = np.zeros(catalogue.order.size, dtype=np.int64)
    numbers[used] = np.arange(1, used.size + 1)
    kinds, ranks = used % catalogue.n_intents + 1, used // catalogue.n_intents + 1
    return numbers, [f"intent{kind}-item{rank:03}" for kind, rank in zip(kinds, ranks, strict=True)]


def _times(offsets: Integers, rng: np.random.Generator) -> Integers:
    """Gives strictly increasing times inside each user, int64 ``[N]``."""
    total = np.cumsum(1 + rng.exponential(PAUSE, size=int(offsets[-1])).astype(np.int64))
    starts = BEGIN + rng.integers(SPAN, size=offsets.size - 1)
    lengths = np.diff(offsets)
    times: Integers = total + np.repeat(starts - total[offsets[:-1]], lengths)
    return times


def _check(n_users: int, n_items: int, n_intents: int, mean_length: float, follow: float, switch: float) -> None:
    if n_users < 1 or n_intents < 1:
        raise ValueError(f"n_users and n_intents must be at least 1, found {n_users} and {n_intents}")
    if n_items < max(4 * n_intents, 4 * SHORTEST):
        raise ValueError(
            f"n_items must be at least {max(4 * n_intents, 4 * SHORTEST)} for {n_intents} intents, found {n_items}"
        )
    if mean_length < SHORTEST:
        raise ValueError(f"mean_length must be at least {SHORTEST}, found {mean_length}")
    for name, chance in (("follow", follow), ("switch", switch)):
        if not 0 <= chance <= 1:
            raise ValueError(f"{name} must be between 0 and 1, found {chance}")
