"""How much one request may ask for, and how much may wait."""

from __future__ import annotations

from dataclasses import dataclass, fields

from conseq.serving.arguments import whole


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a service refuses, so that one request costs the others little.

    Raises:
        TypeError: if a limit is no number of its kind.
        ValueError: if a limit is less than 1, or ``seconds`` not above 0.
    """

    histories: int = 1000
    """Histories, users or items of one request; more are refused with status 422."""
    ids: int = 100_000
    """Ids of one request: of histories, candidates and what is excluded; more are refused with status 422."""
    k: int = 1000
    """Items given for each history; more are refused with status 422."""
    answer: int = 100_000
    """Items of one answer, ``k`` for each history; more are refused with status 422."""
    body: int = 2**22
    """Bytes of one request; more are refused with status 413."""
    waiting: int = 10_000
    """Histories that wait for the model; whatever comes beside them is refused with status 503."""
    seconds: float = 30.0
    """How long a body may take to come (status 408) and a request may wait for the model (503)."""

    def __post_init__(self) -> None:
        """Refuses limits that would refuse everything."""
        for field in fields(self):
            if field.name != "seconds":
                whole(field.name, getattr(self, field.name))
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float):
            raise TypeError(f"seconds is {self.seconds!r:.60}; it must be a number")
        if not self.seconds > 0:
            raise ValueError(f"seconds is {self.seconds}; it must be above 0")
