"""How an experiment cuts its log, as settings."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from conseq.config import settings
from conseq.data.log import InteractionLog
from conseq.data.moments import time_boundaries
from conseq.data.splits import Split, by_time, by_user, leave_one_out

Share = Annotated[float, Field(gt=0, lt=1)]


@settings
class LeaveOneOut:
    """Each user's last item is the test target, the one before it the validation target."""

    @property
    def name(self) -> Literal["leave_one_out"]:
        """The name of the cut in a protocol."""
        return "leave_one_out"

    def cut(self, log: InteractionLog) -> Split:
        """Gives the split of ``log``.

        Args:
            log: The log.

        Returns:
            The split.

        Raises:
            ValueError: if no user has three interactions.
        """
        return leave_one_out(log)


@settings
class ByTime:
    """Two moments, the same for everybody; nothing is learnt from the future."""

    validation_from: float | str | None = None
    """Unix seconds or an ISO date; from `shares` where not given."""
    test_from: float | str | None = None
    """Unix seconds or an ISO date; from `shares` where not given."""
    shares: tuple[Share, Share] = (0.8, 0.9)
    """Shares of the interactions that are before the two moments."""
    targets: Literal["all", "first"] = "all"
    """A user's targets: all later items, or the first."""
    drop_cold: bool = False
    """Leave out targets that never occur in training."""

    @property
    def name(self) -> Literal["by_time"]:
        """The name of the cut in a protocol."""
        return "by_time"

    def cut(self, log: InteractionLog) -> Split:
        """Gives the split of ``log``.

        Args:
            log: The log, with times.

        Returns:
            The split.

        Raises:
            ValueError: if only one of the two moments is given, or the log has no times.
        """
        validation, test = self.validation_from, self.test_from
        if (validation is None) != (test is None):
            raise ValueError("give both validation_from and test_from, or neither (then shares are used)")
        if validation is None or test is None:
            validation, test = time_boundaries(log, self.shares)
        return by_time(log, validation_from=validation, test_from=test, targets=self.targets, drop_cold=self.drop_cold)


@settings
class ByUser:
    """A share of the users is held out whole (ComiRec's protocol, which MCLSR uses)."""

    validation: Share = 0.1
    """Share of the users held out for validation."""
    test: Share = 0.1
    """Share of the users held out for the test."""
    history: Share = 0.8
    """Share of a held-out user's items that is shown."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides who is held out."""

    @property
    def name(self) -> Literal["by_user"]:
        """The name of the cut in a protocol."""
        return "by_user"

    def cut(self, log: InteractionLog) -> Split:
        """Gives the split of ``log``.

        Args:
            log: The log.

        Returns:
            The split.

        Raises:
            ValueError: if the two shares leave no user for training, or a part has no user.
        """
        return by_user(log, validation=self.validation, test=self.test, history=self.history, seed=self.seed)


Splitting: TypeAlias = LeaveOneOut | ByTime | ByUser

SPLITS: dict[str, type[Splitting]] = {"leave_one_out": LeaveOneOut, "by_time": ByTime, "by_user": ByUser}
