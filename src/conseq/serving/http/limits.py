"""How much one request may ask for, and how much may wait."""

from __future__ import annotations

from dataclasses import dataclass, fields

from conseq.serving.arguments import whole


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a service refuses, so that one client cannot take it from the others.

    Raises:
        TypeError: if a limit is no integer.
        ValueError: if a limit is less than 1.
    """

    histories: int = 1000
    """Histories, or items, of one request; more are refused with status 422."""
    k: int = 1000
    """Items recommended for each; more are refused with status 422."""
    body: int = 2**24
    """Bytes of one request; more are refused with status 413."""
    waiting: int = 1000
    """Requests that wait for the model; more are refused with status 503."""

    def __post_init__(self) -> None:
        """Refuses limits that would refuse everything."""
        for field in fields(self):
            whole(field.name, getattr(self, field.name))
