"""Which epoch was best on validation, and when to give up waiting for a better one."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class EarlyStop:
    """Keeps the best value of a metric that is better when higher.

    Attributes:
        patience: Validations without a better value before stopping; None: never stop.
        not_before: First epoch at which it may stop.
        best: The best value so far.
        best_epoch: Its epoch; 0 before the first validation.
        waited: Validations since then.
    """

    patience: int | None
    not_before: int
    best: float = -math.inf
    best_epoch: int = 0
    waited: int = 0

    def update(self, epoch: int, value: float) -> bool:
        """Gives True where ``value`` is the best so far; the first of equal values stays the best."""
        if value > self.best:
            self.best, self.best_epoch, self.waited = value, epoch, 0
            return True
        self.waited += 1
        return False

    def should_stop(self, epoch: int) -> bool:
        """Gives True where patience has run out and the epoch allows a stop."""
        return self.patience is not None and self.waited >= self.patience and epoch >= self.not_before

    def state(self) -> dict[str, float | int]:
        """Gives what a checkpoint holds."""
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}

    def restore(self, state: dict[str, float | int]) -> None:
        """Takes over what :meth:`state` gave."""
        self.best = float(state["best"])
        self.best_epoch, self.waited = int(state["best_epoch"]), int(state["waited"])
