"""How a log is read and filtered: the settings of ``conseq.read`` and ``conseq prepare``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from conseq.config import settings

Format = Literal["csv", "tsv", "inter", "jsonl", "parquet", "s3rec"]
Repeats = Literal["keep", "distinct", "first", "last"]
TimeUnit = Literal["s", "ms", "us", "ns"]
Ties = Literal["file_order", "item_id", "random"]


@settings
class Reading:
    """How a log is read and filtered. The defaults keep every interaction."""

    user: str | None = None
    """The user column. Where not given, it is guessed from its name, and shown."""
    item: str | None = None
    """The item column. Where not given, it is guessed from its name, and shown."""
    time: str | None = None
    """The time column: Unix seconds or ISO dates. Where not given, it is guessed; - takes the order of the source."""
    time_unit: TimeUnit = "s"
    """What times that are numbers count: seconds, milliseconds, microseconds or nanoseconds since 1970."""
    format: Format | None = None
    """How the file is written. Where not given, its name tells: .csv, .tsv, .inter, .jsonl, .parquet, .txt (s3rec)."""
    k_core: int | tuple[int, int] = 0
    """The fewest interactions of every user and item, or of users and of items; what has fewer goes, repeatedly."""
    repeats: Repeats = "keep"
    """Of a user's interactions with the same item keep all, those at different times (distinct: a row that is there
    twice counts once), the first or the last. Applied before k_core."""
    ties: Ties = "file_order"
    """The order of a user's interactions at equal times: as they stand in the source, by item id (as text), or random
    for each user, to see what the order decides."""
    tie_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random order of ties."""

    @property
    def least(self) -> tuple[int, int]:
        """The fewest interactions of a user and of an item; ValueError where ``k_core`` is negative."""
        least = (self.k_core, self.k_core) if isinstance(self.k_core, int) else self.k_core
        if min(least) < 0:
            raise ValueError(f"k_core (--k-core) is a number of interactions, at least 0; found {self.k_core}")
        return least
