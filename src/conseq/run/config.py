"""An experiment: method, encoder, split and training, read strictly from TOML or JSON."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conseq.config import parse, to_json
from conseq.encoders import ENCODERS
from conseq.encoders.encoder import Backbone, Encoder
from conseq.methods import METHODS
from conseq.methods.method import Method
from conseq.run.splitting import SPLITS, LeaveOneOut, Splitting
from conseq.run.unfit import check_moments, check_own_encoder, short
from conseq.training.config import TrainingConfig

SECTIONS = ("method", "encoder", "split", "training")
START = "start"
"""The section of a run that did not begin at random; no section of an experiment file, whose rows in a table may have
one."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's result, but the data and the machine.

    Attributes:
        method_name: A name in ``METHODS`` or ``package.module:Class``.
        method: Its settings.
        encoder_name: A name in ``ENCODERS`` or ``package.module:Class``.
        encoder: Its settings.
        split: How the log is cut.
        training: The loop's settings.
        start: What the encoder begins with: the weights of this experiment, run on the same log, or the stored weights
            of this SHA-256; None: it begins at random.
    """

    method_name: str
    method: Any
    encoder_name: str
    encoder: Backbone[Encoder]
    split: Splitting
    training: TrainingConfig
    start: RunConfig | str | None = None

    def __post_init__(self) -> None:
        """Refuses settings of the cut that do nothing."""
        check_moments(self.split, "split")

    def record(self) -> dict[str, dict[str, Any]]:
        """Gives the experiment as plain values by section; :func:`from_record` gives it back."""
        start = {"weights": self.start} if isinstance(self.start, str) else self.start and self.start.record()
        return {
            "method": {"name": self.method_name, **to_json(self.method)},
            "encoder": {"name": self.encoder_name, **to_json(self.encoder)},
            "split": {"name": self.split.name, **to_json(self.split)},
            "training": to_json(self.training),
            **({START: start} if start else {}),
        }

    @property
    def digest(self) -> str:
        """The first 12 digits of the SHA-256 of the record: equal for equal experiments."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()[:12]


OWN_ENCODERS = {
    "bpr": "matrix_factorization",
    "cloze": "bert4rec",
    "comirec": "comirec",
    "mclsr": "attentive",
    "srma": "srma",
}
"""Encoders that methods are made for."""


def own_encoder(method_name: str) -> str:
    """Gives the encoder of a method where none is named: the one that it is made for, else ``sasrec``."""
    return OWN_ENCODERS.get(method_name, "sasrec")


def training_defaults(method_name: str, settings: Any) -> dict[str, Any]:
    """Gives what the training of a method has where nothing else is said, if it is not what all others have.

    It is the method's own to say: :meth:`conseq.methods.method.Method.training_defaults`.

    Args:
        method_name: A name in ``METHODS`` or ``package.module:Class``.
        settings: The method's settings.

    Returns:
        Settings of the training by name.

    Raises:
        ValueError: if a method of the user's own gives something other than settings of the training.
    """
    found: object = method_class(method_name)[0].training_defaults(settings)
    source = f"method {method_name!r}: training_defaults"
    if not isinstance(found, Mapping):
        raise ValueError(
            f"{source}: expected settings of the training by name, such as {{'epochs': 200}}, found {short(found)}"
        )
    parse(TrainingConfig, found, source=source)
    return dict(found)


def from_record(values: Mapping[str, object], *, source: str) -> RunConfig:
    """Gives the experiment that ``values`` describe.

    Args:
        values: Tables by section (``method``, ``encoder``, ``split``, ``training``); the first three hold a
            ``name``. What is left out has its default. The record of a run that did not begin at random has a section
            ``start``, too: ``weights``, a SHA-256, or the tables of the experiment whose weights it began with.
        source: What the values came from, named in errors.

    Returns:
        The experiment.

    Raises:
        ValueError: on an unknown section, name or key, or a value of the wrong type; names it.
    """
    _check_sections(values, source)
    tables = {section: dict(typing.cast("Mapping[str, Any]", values.get(section, {}))) for section in SECTIONS}
    method_name = _name(tables["method"], "next_item", f"{source}: method")
    encoder_name = _name(tables["encoder"], own_encoder(method_name), f"{source}: encoder")
    split_name = _name(tables["split"], LeaveOneOut().name, f"{source}: split")
    if split_name not in SPLITS:
        raise ValueError(f"{source}: {_unknown('split', split_name, SPLITS)}")
    split = parse(SPLITS[split_name], tables["split"], source=f"{source}: split")
    check_moments(split, f"{source}: split")
    method = parse(method_class(method_name)[1], tables["method"], source=f"{source}: method")
    tables["training"] = {**training_defaults(method_name, method), **tables["training"]}
    encoder = parse(encoder_class(encoder_name), tables["encoder"], source=f"{source}: encoder")
    if encoder_name not in ENCODERS:
        check_own_encoder(encoder_name, encoder)
    return RunConfig(
        method_name=method_name,
        method=method,
        encoder_name=encoder_name,
        encoder=encoder,
        split=split,
        training=parse(TrainingConfig, tables["training"], source=f"{source}: training"),
        start=_start(values, source),
    )


def read_experiment(path: Path | str) -> dict[str, dict[str, Any]]:
    """Gives the tables of an experiment file.

    Args:
        path: A TOML file, or the ``config.json`` of a run.

    Returns:
        Tables by section; tables of other names (``data``, ``paper``) are left out.

    Raises:
        ValueError: if the file is not TOML (or JSON, where its name says so), or holds something other than the
            tables of an experiment.
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable experiment: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected the tables {', '.join(SECTIONS)}, found {short(values)}")
    tables = {name: table for name, table in values.items() if name not in {"data", "paper", "versions", "code"}}
    _check_sections(tables, str(path))
    return tables


def method_class(name: str) -> tuple[type[Method[Any]], type[Any]]:
    """Gives a method's class and its settings class.

    Args:
        name: A name in ``METHODS``, or ``package.module:Class`` for a class of the user's own, whose ``__init__``
            annotates its first argument with the settings class.

    Returns:
        Both classes.

    Raises:
        ValueError: if there is no such method.
    """
    if name in METHODS:
        return METHODS[name]
    found = _imported(name, "method", METHODS)
    hints = typing.get_type_hints(found.__init__) if issubclass(found, Method) else {}
    if "config" not in hints:
        raise ValueError(
            f"method {name!r}: expected a Method whose __init__ takes `config: <its settings class>`, annotated so"
        )
    if not hasattr(hints["config"], "__pydantic_fields__"):
        raise ValueError(
            f"method {name!r}: its settings class {getattr(hints['config'], '__name__', hints['config'])} must be made "
            "with @conseq.config.settings"
        )
    return found, hints["config"]


def encoder_class(name: str) -> type[Any]:
    """Gives an encoder's settings class.

    Args:
        name: A name in ``ENCODERS``, or ``package.module:Class`` for settings of the user's own.

    Returns:
        The settings class.

    Raises:
        ValueError: if there is no such encoder.
    """
    if name in ENCODERS:
        return ENCODERS[name]
    found = _imported(name, "encoder", ENCODERS)
    if not hasattr(found, "__pydantic_fields__"):
        raise ValueError(f"encoder {name!r}: expected the encoder's settings class, made with conseq.config.settings")
    return found


def shown_name(method_name: str, encoder: str) -> str:
    """Gives what tables call a trained model: the class of its method, and that of its encoder.

    The baseline is called by its encoder alone, as papers do.

    Args:
        method_name: A name in ``METHODS`` or ``package.module:Class``, which is not imported.
        encoder: The name of the encoder's class.

    Returns:
        Such as ``SASRec`` or ``CL4SRec (SASRec)``.
    """
    if method_name == "next_item":
        return encoder
    own = METHODS[method_name][0].__name__ if method_name in METHODS else method_name.rpartition(":")[2]
    return f"{own} ({encoder})"


def name_of(settings: object) -> str | None:
    """Gives the name under which the class of a settings object is found; None for the training settings.

    Args:
        settings: Settings of a method, an encoder, a split or the training.

    Returns:
        The name, or ``package.module:Class`` for an encoder of the user's own. Settings of a method of the user's own
        do not tell its class, so they have no name.

    Raises:
        TypeError: if the class belongs to nothing, or is given itself; says what to write.
    """
    if isinstance(settings, TrainingConfig):
        return None
    if isinstance(settings, type):
        own = issubclass(settings, Method)
        how = f'{{"name": "{settings.__module__}:{settings.__name__}", ...}}' if own else f"{settings.__name__}(...)"
        raise TypeError(f"expected a name, a mapping or a settings object, found the class {settings!r}; write {how}")
    names: dict[type[Any], str] = {one[1]: name for name, one in METHODS.items()}
    names |= {one: name for name, one in [*ENCODERS.items(), *SPLITS.items()]}
    kind = type(settings)
    if kind in names:
        return names[kind]
    if not hasattr(kind, "__pydantic_fields__"):
        raise TypeError(f"expected a name, a mapping or a settings object, found {short(settings)}")
    if callable(settings):
        return f"{kind.__module__}:{kind.__qualname__}"
    raise TypeError(
        f"a {kind.__name__} does not tell which method it is for; name the class of the method, and its settings "
        f'beside it: {{"name": "{kind.__module__}:Class", ...}}'
    )


def one_of(known: Iterable[str], value: object, *, name: str) -> None:
    """Refuses a value of an argument that has only these.

    Args:
        known: The values it may have.
        value: The value it has.
        name: The argument.

    Raises:
        ValueError: if it is none of them.
    """
    values = list(known)
    if value not in values:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, values))}, found {value!r}")


def _imported(name: str, kind: str, known: Mapping[str, object]) -> type[Any]:
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(f"{_unknown(kind, name, known)} (or give your own as package.module:Class)")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{kind} {name!r} cannot be imported: {error}") from None
    if not isinstance(found, type):
        raise ValueError(f"{kind} {name!r} is not a class")
    return found


def _name(table: dict[str, Any], default: str, source: str) -> str:
    name = table.pop("name", default)
    if not isinstance(name, str):
        raise ValueError(f"{source}: name must be a string, found {name!r}")
    return name


def _start(values: Mapping[str, object], source: str) -> RunConfig | str | None:
    if START not in values:
        return None
    table = values[START]
    weights = table.get("weights") if isinstance(table, Mapping) else None
    if isinstance(table, Mapping) and isinstance(weights, str) and set(table) == {"weights"}:
        return weights
    if not isinstance(table, Mapping) or "method" not in table:
        raise ValueError(
            f"{source}: section {START!r} holds the SHA-256 of weights alone, or the tables of an experiment, found "
            f"{short(table)}"
        )
    return from_record(table, source=f"{source}: {START}")


def _check_sections(values: Mapping[str, object], source: str) -> None:
    for section, table in values.items():
        if section not in (*SECTIONS, START):
            raise ValueError(f"{source}: {_unknown('section', section, SECTIONS)}")
        if not isinstance(table, Mapping):
            named = isinstance(table, str) and section not in {"training", START}
            how = f"; write [{section}] and below it name = {table!r}" if named else ""
            raise ValueError(f"{source}: section {section!r} must be a table, found {table!r}{how}")


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return f"unknown {kind} {name!r}; {hint}"
