"""Code that is declared to give the same results as earlier code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

EQUAL_CODE = "equal-code.json"
"""The file of the records' folder that declares which code gives the same results."""


def read_equal_code(path: Path) -> dict[str, set[str]]:
    """Gives the code hashes that are declared to give the same results, by the earlier one.

    Args:
        path: A JSON file: a list of objects with ``from``, ``to`` and ``why``; none where there is no such file.

    Returns:
        The later hashes by the earlier one.

    Raises:
        ValueError: if the file is damaged, an entry lacks something, or says no reason.
    """
    found: dict[str, set[str]] = {}
    for entry in entries_of(path):
        found.setdefault(entry["from"], set()).add(entry["to"])
    return found


def entries_of(path: Path) -> list[dict[str, str]]:
    """Gives the entries of the file, as :func:`read_equal_code` reads them."""
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # text that is no UTF-8, or no JSON
        raise ValueError(f"{path}: not a list of declarations: {error}") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list, found {type(entries).__name__}")
    for entry in entries:
        told = entry if isinstance(entry, dict) else {}
        if not all(isinstance(told.get(name), str) and told[name] for name in ("from", "to", "why")):
            raise ValueError(f"{path}: expected from, to and why, each a text, found {entry}")
    return entries


def reached(start: str, links: Mapping[str, set[str]]) -> list[str]:
    """Gives all code that gives the results of ``start``: what is declared equal to it, to that, and so on."""
    found: set[str] = set()
    waiting = {start}
    while waiting:
        later = links.get(waiting.pop(), set()) - found
        found |= later
        waiting |= later
    return sorted(found)
