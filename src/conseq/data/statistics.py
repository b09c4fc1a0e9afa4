"""Counts of a log, and how much of its order is decided by something other than time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conseq.data.batches import Times

SHORTEST_JUDGED = 3


@dataclass
class Tally:
    """Adds up the statistics of a log, some users at a time.

    Attributes:
        users: Users so far.
        interactions: Interactions so far.
        shortest: The least number of interactions of a user.
        longest: The greatest.
        single: Users with one interaction.
        repeats: Interactions with an item that the user had met before.
        equal_times: Adjacent interactions of a user with equal times.
        judged: Users with the three interactions that leave-one-out asks for, of a log with times.
        tied_last: Those of them whose last two interactions have equal times, so that a tie rule decides which is last.
        duplicates: Interactions that another one equals in user, item and time; the first of them is not counted.
        duplicated_last: Users judged whose last two interactions are such: what is asked for is what came before it.
        first_time: The earliest time.
        last_time: The latest time.
    """

    users: int = 0
    interactions: int = 0
    shortest: int = 0
    longest: int = 0
    single: int = 0
    repeats: int = 0
    equal_times: int = 0
    judged: int = 0
    tied_last: int = 0
    duplicates: int = 0
    duplicated_last: int = 0
    first_time: float | None = None
    last_time: float | None = None

    def add(self, lengths: npt.NDArray[np.int64], items: npt.NDArray[np.int32], times: Times | None) -> None:
        """Adds the interactions of whole users.

        Args:
            lengths: int64 ``[U]``, each at least 1.
            items: int32 ``[N]``, user after user.
            times: ``[N]``, non-decreasing inside a user, or None.
        """
        self.shortest = min(self.shortest or int(lengths.min()), int(lengths.min()))
        self.longest = max(self.longest, int(lengths.max()))
        self.users += lengths.size
        self.interactions += items.size
        self.single += int(np.count_nonzero(lengths == 1))
        rows = np.repeat(np.arange(lengths.size), lengths)
        pairs = rows * (int(items.max()) + 1) + items
        pairs.sort()
        self.repeats += int(np.count_nonzero(pairs[1:] == pairs[:-1]))
        if times is not None:
            self._add_times(lengths, rows, items, times)

    def _add_times(
        self,
        lengths: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        items: npt.NDArray[np.int32],
        times: Times,
    ) -> None:
        tied = (times[1:] == times[:-1]) & (rows[1:] == rows[:-1])
        self.equal_times += int(np.count_nonzero(tied))
        ends = np.cumsum(lengths) - 1
        judged = ends[lengths >= SHORTEST_JUDGED]
        self.judged += judged.size
        self.tied_last += int(np.count_nonzero(tied[judged - 1]))
        self.duplicated_last += int(np.count_nonzero(tied[judged - 1] & (items[judged - 1] == items[judged])))
        among = np.flatnonzero(np.append(tied, False) | np.insert(tied, 0, False))
        runs = np.cumsum(np.insert(~tied, 0, True))[among]
        within = np.sort(runs * (int(items.max()) + 1) + items[among])
        self.duplicates += int(np.count_nonzero(within[1:] == within[:-1]))
        first, last = times.min().item(), times.max().item()
        self.first_time = first if self.first_time is None else min(first, self.first_time)
        self.last_time = last if self.last_time is None else max(last, self.last_time)

    def counts(self, n_items: int) -> dict[str, object]:
        """Gives the counts as JSON values.

        Args:
            n_items: Different items in the log.

        Returns:
            Users, items, interactions, lengths, users with one interaction, repeats.
        """
        return {
            "users": self.users,
            "items": n_items,
            "interactions": self.interactions,
            "min_length": self.shortest,
            "mean_length": self.interactions / self.users,
            "max_length": self.longest,
            "users_with_one_interaction": self.single,
            "repeats": self.repeats,
        }

    def times(self) -> dict[str, object] | None:
        """Gives the first and last time and the shares that ties decide, as JSON values; None without times.

        ``adjacent_equal`` is the share of adjacent interactions of a user with equal times (0 where there are none),
        ``last_decided_by_tie`` the share of users whose last interaction, the test item of leave-one-out, is last only
        by the tie rule; of the users that it judges, who have three interactions and more (0 where there are none).
        ``duplicates`` are the interactions that repeat another one's user, item and time, ``last_is_duplicate`` the
        share of the judged users whose last interaction repeats the one before it.
        """
        if self.first_time is None:
            return None
        return {
            "first": self.first_time,
            "last": self.last_time,
            "adjacent_equal": self.equal_times / max(1, self.interactions - self.users),
            "last_decided_by_tie": self.tied_last / max(1, self.judged),
            "duplicates": self.duplicates,
            "last_is_duplicate": self.duplicated_last / max(1, self.judged),
        }
