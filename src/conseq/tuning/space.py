"""What a search for settings varies, read from an experiment file in which some settings have several values."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conseq.config import plain
from conseq.run.config import RunConfig, from_record, read_experiment

_CUT = "split"
"""The section in which nothing is varied, so that a list is one setting's value."""
_RANGE_KEYS = ("low", "high", "step", "log")
_NOT_VARIED = {
    "training.metric": "trials are compared by it",
    "training.history": "trials are compared under it",
    "training.seed": "the best of several seeds is luck, and no setting",
    "training.device": "it is no setting of the model",
}


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        options: The values.
    """

    options: tuple[Any, ...]

    def values(self) -> tuple[Any, ...]:
        """Gives all values."""
        return self.options

    def some(self) -> tuple[Any, ...]:
        """Gives values that show whether all of them fit the setting."""
        return self.options


@dataclass(frozen=True)
class Range:
    """A number between two others, both of them included.

    Attributes:
        low: The lowest.
        high: The highest.
        step: Distance of neighbours, from ``low`` on; None: whole numbers one apart where both ends are whole numbers
            without a decimal point, else any number between them.
        log: Whether the logarithm is searched evenly.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether the values are integers."""
        return all(isinstance(one, int) for one in (self.low, self.high, self.step) if one is not None)

    def values(self) -> tuple[Any, ...] | None:
        """Gives all values; None where they are too many to count, or no distance says which of them are meant."""
        step = self.step or (1 if self.whole and not self.log else None)
        if step is None:
            return None
        # Half a step of slack: a sum of steps such as .1 misses the end by a rounding error.
        count = int((self.high - self.low) / step + 1e-9) + 1
        return tuple(self.low + step * k if self.whole else round(self.low + step * k, 12) for k in range(count))

    def some(self) -> tuple[Any, ...]:
        """Gives values that show whether all of them fit the setting."""
        between = () if self.whole else (self.low + (self.step or (self.high - self.low) / 2),)
        return self.low, *between, self.high


@dataclass(frozen=True)
class Space:
    """The experiments among which is searched.

    Attributes:
        fixed: The settings that all of them have, by section.
        varied: The others, by their name with the section's before it (``method.temperature``).
        source: Where it was read from, named in errors.
    """

    fixed: Mapping[str, Mapping[str, Any]]
    varied: Mapping[str, Choice | Range]
    source: str

    def config(self, values: Mapping[str, Any]) -> RunConfig:
        """Gives the experiment with these values.

        Args:
            values: One for each of ``varied``.

        Returns:
            The experiment.

        Raises:
            ValueError: if there is no such setting, or the value is none that it can have.
        """
        tables = {section: dict(table) for section, table in self.fixed.items()}
        for name, value in values.items():
            section, _, key = name.partition(".")
            tables.setdefault(section, {})[key] = value
        return from_record(tables, source=self.source)

    def grid(self) -> Iterator[dict[str, Any]]:
        """Gives all combinations, the last setting's values changing first.

        Yields:
            A value for each of ``varied``.

        Raises:
            ValueError: if the values of a range cannot be counted.
        """
        counted = self._counted()
        for combination in itertools.product(*counted.values()):
            yield dict(zip(counted, combination, strict=True))

    def combinations(self) -> int:
        """Gives how many combinations :meth:`grid` has.

        Returns:
            At least 1.

        Raises:
            ValueError: as :meth:`grid`.
        """
        return math.prod(map(len, self._counted().values()))

    def _counted(self) -> dict[str, tuple[Any, ...]]:
        counted = {}
        for name, one in self.varied.items():
            values = one.values()
            if values is None:
                raise ValueError(
                    f"{self.source}: {name}: a grid needs a list of values, or a step between low and high without log"
                )
            counted[name] = values
        return counted

    def record(self) -> dict[str, Any]:
        """Gives the space as plain values."""
        varied = {
            name: list(one.options) if isinstance(one, Choice) else {key: getattr(one, key) for key in _RANGE_KEYS}
            for name, one in self.varied.items()
        }
        return {"fixed": {section: dict(table) for section, table in self.fixed.items()}, "varied": varied}


def read_space(path: Path | str) -> Space:
    """Reads a space of experiments.

    It is an experiment file in which a setting may be a list, of which one value is chosen, or a table
    ``{ low = 0.1, high = 1.0 }``, with ``step`` or ``log = true``. (A setting that is a list itself stands in a list:
    ``betas = [[0.9, 0.999]]``.)

    Args:
        path: A TOML file, or JSON where its name ends so.

    Returns:
        The space.

    Raises:
        ValueError: if it varies nothing, a range is none, or a setting does not exist or cannot have one of its values.
        FileNotFoundError: if there is no such file.
    """
    return space_of(read_experiment(path), source=str(path))


def space_of(tables: Mapping[str, Mapping[str, Any]], *, source: str) -> Space:
    """Gives the space that tables describe, as a file of :func:`read_space` does.

    Args:
        tables: Settings by section.
        source: What they came from, named in errors.

    Returns:
        The space.

    Raises:
        ValueError: as :func:`read_space`.
    """
    fixed: dict[str, dict[str, Any]] = {section: {} for section in tables}
    varied: dict[str, Choice | Range] = {}
    for section, key, value in ((section, *one) for section, table in tables.items() for one in table.items()):
        name = f"{section}.{key}"
        if key == "name" and not isinstance(value, str):
            raise ValueError(f"{source}: {name}: one name, on which the other settings depend; found {value!r}")
        if isinstance(value, list | tuple) and section != _CUT:
            varied[name] = _choice(value, f"{source}: {name}")
        elif isinstance(value, Mapping):
            varied[name] = _range(value, f"{source}: {name}")
        else:
            fixed[section][key] = value
    _check_names(varied, source)
    space = Space(fixed, varied, source)
    _check_values(space)
    return space


def _check_names(varied: Mapping[str, object], source: str) -> None:
    """Refuses a search of nothing, and of what would make the trials incomparable."""
    for name in varied:
        why = "trials are compared on one cut of the log" if name.startswith(f"{_CUT}.") else _NOT_VARIED.get(name)
        if why:
            raise ValueError(f"{source}: {name} cannot be searched for: {why}; give it one value")
    if not varied:
        raise ValueError(
            f"{source}: nothing to search for: no setting is a list of values or a table with low and high"
        )


def _choice(value: list[Any] | tuple[Any, ...], where: str) -> Choice:
    if not value:
        raise ValueError(f"{where}: an empty list; expected the values to choose from")
    return Choice(tuple(map(_as_recorded, value)))


def _as_recorded(option: Any) -> Any:
    """Gives an option as the record of a trial gives it back, where a tuple is a list."""
    try:
        return json.loads(json.dumps(option, default=plain))
    except TypeError:  # what it cannot be is said by the setting, which knows its name
        return option


def _range(value: Mapping[str, Any], where: str) -> Range:
    unknown = sorted(set(value) - set(_RANGE_KEYS))
    if unknown or not {"low", "high"} <= set(value):
        raise ValueError(f"{where}: expected a table with low and high, and step or log; found {dict(value)!r}")
    numbers = [value[key] for key in ("low", "high", "step") if value.get(key) is not None]
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in numbers):
        raise ValueError(f"{where}: low, high and step are numbers; found {dict(value)!r}")
    log, step = value.get("log", False), value.get("step")
    if not isinstance(log, bool) or (log and step is not None):
        raise ValueError(f"{where}: log is true or false, and no range has both log and step; found {dict(value)!r}")
    found = Range(value["low"], value["high"], step, log)
    if found.low >= found.high or (step is not None and step <= 0) or (log and found.low <= 0):
        raise ValueError(
            f"{where}: low must be below high, step above 0, and with log also low above 0; found {dict(value)!r}"
        )
    return found


def _check_values(space: Space) -> None:
    """Refuses a value that its setting cannot have, whatever the others are."""
    first = {name: one.some()[0] for name, one in space.varied.items()}
    for name, one in space.varied.items():
        for value in one.some():
            space.config({**first, name: value})
