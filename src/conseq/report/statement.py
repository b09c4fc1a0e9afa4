"""The protocol of numbers, as a page says it: without one nothing is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

_MOST = 4
"""Different values that are listed; more are counted."""

# The runner judges every test part so: equal scores count against the model.
_TIES = "pessimistic"
_WITH_NUMBERS = frozenset({"data hash", "machine", "versions"})
_HISTORIES = MappingProxyType({"exclude": "excluded", "keep": "kept"})


@dataclass(frozen=True)
class Statement:
    """What a reader must know of numbers to compare them with others.

    Attributes:
        parts: Names and values, in the order in which they are said.
    """

    parts: tuple[tuple[str, str], ...]

    @property
    def brief(self) -> tuple[tuple[str, str], ...]:
        """What stands below a figure; the rest stands with the numbers behind it."""
        return tuple(part for part in self.parts if part[0] not in _WITH_NUMBERS)

    @property
    def line(self) -> str:
        """The protocol in one line."""
        return "; ".join(f"{name}: {value}" for name, value in self.parts)


_FIELDS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("loss", lambda one: str(one["loss"] or "the method's own").replace("_", " ")),
    ("instances", lambda one: str(one["instances"])),
    ("encoder", lambda one: str(one["encoder"])),
    ("preset", lambda one: str(one["preset"] or "not said")),
    ("seeds", lambda one: str(one["seed"])),
    ("commit", lambda one: str(one["commit"] or "not recorded")),
    ("data hash", lambda one: str(one["data_hash"])[:12]),
    ("machine", lambda one: str(one.get("machine") or "not recorded")),
    ("versions", lambda one: ", ".join(f"{name} {one['versions'][name]}" for name in sorted(one["versions"]))),
)


def statement(records: Sequence[Mapping[str, Any]], *, history: str, part: str = "test") -> Statement:
    """Gives the protocol that some records have in common, and where they differ.

    Args:
        records: At least one.
        history: The treatment of the history under which the numbers were measured: ``exclude`` or ``keep``; any
            other text is said as it is.
        part: The held-out part.

    Returns:
        The protocol.

    Raises:
        ValueError: if there are no records: then there is no protocol.
    """
    if not records:
        raise ValueError("a protocol needs at least one record")
    head = [
        ("data", listed(_data(one) for one in records)),
        ("split", f"{listed(one['split'] for one in records)}, {part} part"),
        ("history", _HISTORIES.get(history, history)),
        ("ties", listed(one.get("ties", _TIES) for one in records)),
    ]
    return Statement((*head, *((name, listed(map(say, records))) for name, say in _FIELDS)))


def paper_statement(paper: str, dataset: str, history: str) -> Statement:
    """Gives the protocol of numbers that only a paper has: what its table's file says of them."""
    treated = _HISTORIES[history]
    return Statement((("data", dataset), ("split", "as in print, test part"), ("history", treated), ("source", paper)))


def listed(values: Iterable[object]) -> str:
    """Gives the different values in order of appearance; their number where they are many."""
    found = list(dict.fromkeys(map(str, values)))
    if all(one.lstrip("-").isdigit() for one in found):
        return ", ".join(sorted(found, key=int))
    if len(found) > _MOST:
        return f"{len(found)} different ones, from {found[0]} to {found[-1]}"
    return " / ".join(found)


def _data(record: Mapping[str, Any]) -> str:
    counts = record.get("data")
    if not isinstance(counts, Mapping) or "users" not in counts:
        return str(record["dataset"])
    sizes = ", ".join(f"{counts[name]:,} {name}" for name in ("users", "items", "interactions") if name in counts)
    return f"{record['dataset']} ({sizes})"
