"""The one kind of settings object: a frozen, strict, keyword-only pydantic dataclass.

A misspelt or mistyped key is refused by name, together with the nearest right one, because a setting
that is silently ignored is silently another experiment.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast, dataclass_transform, get_args

import numpy as np
import pydantic
import pydantic.dataclasses

T = TypeVar("T")


class Later:
    """Marks a setting, ``Annotated[..., Later()]``, that was added when there were records of its experiments already.

    At its default, which is what was done before, it is not among the plain values of :func:`to_json`: experiments that
    say nothing of it are the ones that were recorded, with the same hash.
    """


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[T]) -> type[T]:
    """Gives ``cls`` as a frozen, keyword-only dataclass whose values are checked strictly.

    Attribute docstrings become the help of the command line. What does not fit is a ``ValueError`` that names the key,
    as in :func:`parse`.

    Args:
        cls: A class with annotated attributes.

    Returns:
        The dataclass.
    """
    options = pydantic.ConfigDict(
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,  # JSON, in which runs keep their settings, has neither
    )
    decorate = cast(
        "Callable[[type[T]], type[T]]",
        pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=options),
    )
    return _explained(decorate(cls))


def parse(cls: type[T], values: Mapping[str, object], *, source: str) -> T:
    """Gives settings of type ``cls`` from plain values (of a TOML or JSON document).

    Lists are accepted where a tuple is declared, and NumPy's numbers for Python's; nothing else is converted.

    Args:
        cls: A class made with :func:`settings`.
        values: The values by name; tables within tables for nested settings.
        source: What the values came from, named in errors.

    Returns:
        The settings.

    Raises:
        ValueError: on an unknown key (with the nearest known one) or a value of the wrong type or range.
    """
    try:
        return pydantic.TypeAdapter(cls).validate_json(_document(values, source), strict=True)
    except pydantic.ValidationError as error:
        raise ValueError(f"{source}: {explain(error, cls)}") from None


def to_json(value: object) -> dict[str, Any]:
    """Gives the settings as plain JSON values, such that :func:`parse` gives them back; see :class:`Later`."""
    found = cast("dict[str, Any]", pydantic.TypeAdapter(type(value)).dump_python(value, mode="json"))
    fields = getattr(type(value), "__pydantic_fields__", {})
    later = {name: one.default for name, one in fields.items() if any(isinstance(mark, Later) for mark in one.metadata)}
    return {name: one for name, one in found.items() if name not in later or getattr(value, name) != later[name]}


def explain(error: pydantic.ValidationError, cls: type[object]) -> str:
    """Gives one line per problem: the key, what was found, what was expected, the nearest right key."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            known = _keys_at(cls, problem["loc"][:-1])
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
            lines.append(f"unknown key {key!r}; {hint}")
        elif problem["type"] in {"missing", "missing_keyword_only_argument"}:
            lines.append(f"missing key {key!r}")
        elif problem["type"] == "unexpected_positional_argument":
            lines.append(f"found {problem['input']!r} without a key; write key=value")
        else:
            lines.append(f"key {key!r}: {problem['msg']}, found {problem['input']!r}")
    return "; ".join(lines)


def _explained(cls: type[T]) -> type[T]:
    """Gives ``cls``, which now says what :func:`parse` would say where it is made of values that do not fit."""
    checked = cast("Callable[..., None]", cls.__init__)

    @functools.wraps(checked)
    def init(self: T, *values: object, **named: object) -> None:
        try:
            checked(self, *values, **{name: _plain(value) for name, value in named.items()})
        except pydantic.ValidationError as error:
            raise ValueError(f"{cls.__name__}: {explain(error, cls)}") from None

    cls.__init__ = init  # type: ignore[assignment]
    return cls


def _document(values: Mapping[str, object], source: str) -> str:
    try:
        return json.dumps(values, default=plain)
    except TypeError:
        pass
    for key, value in values.items():
        try:
            json.dumps(value, default=plain)
        except TypeError as error:  # a date, which TOML has and no setting is
            known = "a setting is a number, a string, a boolean, a list or a table"
            raise ValueError(f"{source}: key {key!r}: {error}; {known}, found {value!r}") from None
    raise ValueError(f"{source}: keys must be strings, found {list(values)!r}")


def plain(value: object) -> object:
    """Gives what JSON writes for a value that it does not know: one of NumPy's numbers as Python's.

    Args:
        value: Any value.

    Returns:
        A number or a boolean.

    Raises:
        TypeError: if it is anything else.
    """
    found = _plain(value)
    if found is value:
        raise TypeError(f"Object of type {type(value).__name__} cannot be a setting")
    return found


def _plain(value: object) -> object:
    """Gives one of NumPy's numbers (which come of a grid of settings) as Python's; any other value as it is."""
    return value.item() if isinstance(value, np.integer | np.floating | np.bool_) else value


def _keys_at(cls: type[object], path: tuple[int | str, ...]) -> list[str]:
    """Gives the names of the fields of the settings class that ``path`` leads to."""
    for part in path:
        fields = getattr(cls, "__pydantic_fields__", {})
        if part in fields:
            cls = next(_settings_within(fields[part].annotation), object)
    return list(getattr(cls, "__pydantic_fields__", {}))


def _settings_within(annotation: object) -> Iterator[type[object]]:
    """Gives the settings classes that an annotation speaks of: itself, or inside ``| None`` or a container."""
    if isinstance(annotation, type) and hasattr(annotation, "__pydantic_fields__"):
        yield annotation
    for part in get_args(annotation):
        yield from _settings_within(part)
