"""How the logs of some records were cut, told apart by more than the cut's name where that is not enough."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def cut_of(record: Mapping[str, Any]) -> str:
    """Gives a text that is equal for records of the same cut.

    Args:
        record: A record.

    Returns:
        The cut's settings, its name among them.
    """
    return json.dumps({"name": record["split"], **record["config"].get("split", {})}, sort_keys=True)


def cut_names(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Gives what each cut is called: its name and, where several have that name, the settings in which they differ.

    Args:
        records: The records.

    Returns:
        Names by what :func:`cut_of` gives; different cuts have different names.
    """
    cuts: dict[str, dict[str, Any]] = {key: json.loads(key) for key in sorted({cut_of(one) for one in records})}
    names = {}
    for key, own in cuts.items():
        alike = [other for other in cuts.values() if other["name"] == own["name"]]
        settings = {name for other in alike for name in other}
        differing = [name for name in sorted(settings) if len({json.dumps(one.get(name)) for one in alike}) > 1]
        told = ", ".join(f"{name} {_short(own.get(name))}" for name in differing)
        names[key] = f"{own['name']} ({told})" if told else str(own["name"])
    return names


def _short(value: object) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)
