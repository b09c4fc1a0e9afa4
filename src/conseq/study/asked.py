"""An analysis as a row asks for it: what tells it from others, and whether a record has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from conseq.analyses import analysis, told_settings
from conseq.config import parse
from conseq.run.config import RunConfig
from conseq.run.provenance import analysis_hash

ANALYSIS_CHANGED = "the analysis's code changed"


@dataclass(frozen=True)
class Asked:
    """An analysis of a run's model.

    Attributes:
        name: Such as ``noise``.
        given: The settings as a row says them; a file is named as it lies beside the log.
        settings: All settings, those that the row leaves out too; a file by its name alone.
        history: The protocol; None where nothing is judged.
    """

    name: str
    given: Mapping[str, Any]
    settings: Mapping[str, Any]
    history: Literal["exclude", "keep"] | None

    @property
    def key(self) -> str:
        """What it is recorded under, such as ``groups, keep, edges=[5, 8]``: equal for what gives the same result."""
        settings = (f"{name}={json.dumps(value, sort_keys=True)}" for name, value in sorted(self.settings.items()))
        return ", ".join([self.name, *([self.history] if self.history else []), *settings])

    def of(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """Gives what a record holds of it; None where it was not made."""
        found: dict[str, Any] | None = record["analyses"].get(self.key)
        return found

    def stamped(self, found: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
        """Gives a result as it is recorded: with the protocol, and a hash of the code that made it.

        Args:
            found: The result, with its name and settings.
            config: The experiment whose run was analysed.

        Returns:
            JSON values.
        """
        return {**found, "history": self.history, "code_hash": analysis_hash(analysis(self.name).module, config)}


def asked_for(section: Mapping[str, Any], history: Literal["exclude", "keep"], *, source: str) -> Asked:
    """Gives what an ``analysis`` of a file asks for.

    Args:
        section: ``name`` and settings.
        history: The protocol of the file; it counts where the analysis judges.
        source: The file and the row, named in errors.

    Returns:
        The analysis.

    Raises:
        ValueError: if there is no such analysis, or its settings cannot be.
    """
    given = {**section}
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"{source}: an analysis needs a name, found {dict(section)}")
    try:
        known = analysis(name)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    settings = parse(known.settings, given, source=f"{source}: analysis {name!r}")
    return Asked(name, given, told_settings(settings), history if known.judges else None)


def outdated(found: Mapping[str, Any], record: Mapping[str, Any], config: RunConfig) -> str:
    """Gives why an analysis no longer tells what the code would find; empty where it does.

    Args:
        found: What the record holds of it.
        record: The record; whether the run itself is stale is not asked.
        config: The experiment of the run.

    Returns:
        The reason, or an empty string.
    """
    now = analysis_hash(analysis(str(found["analysis"])).module, config)
    return "" if now in {found.get("code_hash"), *record.get("equal_code", ())} else ANALYSIS_CHANGED
