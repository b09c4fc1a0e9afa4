"""A paper's table or figure as something that can be run: read strictly from ``experiments/<paper>/<table>/*.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from conseq.config import parse, settings
from conseq.evaluation.metrics import parse as parse_metric
from conseq.run.config import SECTIONS, RunConfig, from_record, read_experiment
from conseq.run.starting import check_same_encoder
from conseq.study.asked import Asked, asked_for
from conseq.study.logs import Origin

Preset = Literal["paper", "released", "ours"]
Section = dict[str, Any]

SPREAD = " sd"
KS = (5, 10, 20, 50)
"""Lengths of the lists by which runs are judged; the longest where users are held out."""
"""What the name of a cell ends with that holds a printed standard deviation."""
GAP = ""
"""What stands in the cells of a sweep at a value for which nothing is printed: TOML has no null."""


@settings
class _Start:
    """What a row may say of the experiment whose weights it starts from; cut is the log as the row cuts it."""

    experiment: str | None = None
    method: Section = field(default_factory=dict)
    encoder: Section = field(default_factory=dict)
    training: Section = field(default_factory=dict)


@settings
class _Point:
    """What a row may say of its place on a curve over a setting that no single parameter is."""

    curve: Annotated[str, Field(min_length=1)]
    setting: Annotated[str, Field(min_length=1, pattern=r"^[^.]+$")]
    value: float


@settings
class _Entry:
    """What a row and a sweep may say."""

    name: Annotated[str, Field(min_length=1)]
    variant: str = ""
    experiment: str | None = None
    preset: Preset | None = None
    impossible: str | None = None
    note: str | None = None
    closed: str | None = None
    floor: Literal["popularity", "own history"] | None = None
    method: Section = field(default_factory=dict)
    encoder: Section = field(default_factory=dict)
    split: Section = field(default_factory=dict)
    training: Section = field(default_factory=dict)
    start: _Start | None = None
    point: _Point | None = None
    analysis: Section | None = None
    cells: dict[str, Any] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    parameter: str | None = None
    values: tuple[Any, ...] = ()


@settings
class _Head:
    """What a file says before its rows."""

    paper: str
    title: str
    dataset: str
    history: Literal["exclude", "keep"]
    metric: str | None = None
    note: str | None = None
    log: Origin | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table, or a point of a curve.

    Attributes:
        study: The table, such as ``iclrec/table2``.
        dataset: The name of the log's folder.
        history: The protocol under which ``cells`` were measured.
        name: As the paper prints it; of a sweep with the parameter and its value.
        variant: How it differs from its method; empty for the method itself.
        preset: Whose settings: the paper's, those of the authors' code, or ours where both are silent.
        cells: The paper's numbers, by metric.
        shown: The metrics that are shown where nothing is printed, of an analysis those of each share or group; empty:
            the usual ones.
        impossible: Why the printed numbers cannot be right; None where they can.
        note: What a reader should know of it.
        closed: Why it cannot be run; None where it can.
        floor: The floor that answers it, of any run on the log; None for a row that is trained.
        config: The experiment; None where there is nothing to train.
        analysis: What is done with the trained model, by ``name`` and settings; None: it is only judged.
        asked: The same, understood.
        curve: The name of the curve that it is a point of; empty for other rows.
        parameter: The setting along the curve: ``section.key`` of a sweep, else words; empty for other rows.
        value: Its value; None for other rows.
    """

    study: str
    dataset: str
    history: Literal["exclude", "keep"]
    name: str
    variant: str = ""
    preset: Preset | None = None
    cells: dict[str, float] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    impossible: str | None = None
    note: str | None = None
    closed: str | None = None
    floor: str | None = None
    config: RunConfig | None = None
    analysis: dict[str, Any] | None = None
    asked: Asked | None = None
    curve: str = ""
    parameter: str = ""
    value: Any = None

    @property
    def swept(self) -> bool:
        """Whether it is one of many points that a sweep stands for, and has no row of its own."""
        return "." in self.parameter

    def seeded(self, count: int) -> list[RunConfig]:
        """Gives the experiment with the file's seed and the ones that follow it; so have the ones that it starts from.

        Args:
            count: How many.

        Returns:
            The experiments; none where the row has nothing to train.
        """
        return [] if self.config is None else [_later(self.config, number) for number in range(count)]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of one file.

    Attributes:
        path: The file.
        study: The table, such as ``iclrec/table2``.
        paper: The paper.
        title: What the table is about.
        dataset: The name of the log's folder.
        history: The protocol of the printed numbers.
        metric: What the paper's figure shows, and ours by default; None: no figure, or one that does not say.
        note: What a reader must know; None where there is nothing.
        log: What the log is prepared from, and how; None where ``dataset`` lies in the folder of the logs.
        rows: In the paper's order.
    """

    path: Path
    study: str
    paper: str
    title: str
    dataset: str
    history: Literal["exclude", "keep"]
    metric: str | None
    note: str | None
    log: Origin | None
    rows: tuple[Row, ...]


def load_table(path: Path | str) -> Table:
    """Gives the table of a file.

    Args:
        path: ``<experiments>/<paper>/<table>/<dataset>.toml``; bases are found in ``<experiments>``.

    Returns:
        The table.

    Raises:
        ValueError: if the file says something that cannot be; names the file and the row.
        FileNotFoundError: if the file, or one that it names, does not exist.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable table: {error}") from None
    entries = [(kind, one) for kind in ("row", "sweep") for one in _entries(values, kind, path)]
    head = parse(_Head, values, source=str(path))
    _check_metrics([head.metric] if head.metric else [], f"{path}: metric")
    study = f"{path.parent.parent.name}/{path.parent.name}"
    rows: list[Row] = []
    for kind, entry in entries:
        source = f"{path}: {kind} {entry.get('name', '?')!r}"
        one = parse(_Entry, entry, source=source)
        if (kind == "sweep") != (one.parameter is not None):
            raise ValueError(f"{source}: a sweep has a parameter and its values, a row has neither")
        base = Row(study=study, dataset=head.dataset, history=head.history, name=one.name)
        rows += _sweep(base, one, path, source) if kind == "sweep" else [_row(base, one, path, source)]
    names = [row.name + str(row.preset) for row in rows]
    double = sorted({row.name for row in rows if names.count(row.name + str(row.preset)) > 1})
    if double:
        raise ValueError(f"{path}: two rows of one name and preset: {', '.join(double)}")
    return Table(path=path, study=study, rows=tuple(rows), **{name: getattr(head, name) for name in _HEAD})


def _entries(values: Section, kind: str, path: Path) -> list[Section]:
    """Takes the rows or the sweeps out of what a file says."""
    found = values.pop(kind, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"{path}: each {kind} stands under a heading [[{kind}]] of its own, found {kind} = {found!r}")
    return found


def _check_metrics(names: Iterable[str], source: str) -> None:
    """Refuses names that are no metrics."""
    for name in names:
        try:
            parse_metric(name)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None


_HEAD = ("paper", "title", "dataset", "history", "metric", "note", "log")


def find_tables(root: Path | str, study: str) -> list[Table]:
    """Gives the tables of a study.

    Args:
        root: The folder of the experiments.
        study: ``iclrec/table1``, or ``iclrec`` for all of a paper, or ``all``.

    Returns:
        One for each dataset, by name.

    Raises:
        ValueError: if there is no such study; names those there are.
    """
    root = Path(root)
    files = sorted(root.glob("*/*/*.toml"))
    wanted = [file for file in files if study in ("all", file.parent.parent.name, _study(file))]
    if not wanted:
        known = ", ".join(sorted({_study(file) for file in files})) or f"none under {root}"
        raise ValueError(f"unknown study {study!r}; known: {known}")
    return [load_table(file) for file in wanted]


def _study(file: Path) -> str:
    return f"{file.parent.parent.name}/{file.parent.name}"


def _row(base: Row, entry: _Entry, path: Path, source: str) -> Row:
    told = sum(one is not None for one in (entry.closed, entry.floor))
    trains = entry.experiment is not None or bool(entry.method)
    if told + trains != 1:
        raise ValueError(f"{source}: expected one of experiment or method, closed, or floor")
    if trains and entry.preset is None:
        raise ValueError(f"{source}: expected a preset (paper, released or ours)")
    if entry.start is not None and not trains:
        raise ValueError(f"{source}: a start is one of a training, and this row has none")
    if entry.analysis is not None and not trains:
        raise ValueError(f"{source}: an analysis is of a model, and this row trains none")
    _check_metrics(entry.shown, f"{source}: shown")
    return replace(
        base,
        variant=entry.variant,
        preset=entry.preset,
        cells=_cells(entry.cells, source, of_ranks=entry.analysis is None and entry.closed is None),
        shown=entry.shown,
        impossible=entry.impossible,
        note=entry.note,
        closed=entry.closed,
        floor=entry.floor,
        config=_config(entry, path, source) if trains else None,
        analysis=entry.analysis,
        **_place(entry, source),
        asked=None if entry.analysis is None else asked_for(entry.analysis, base.history, source=source),
    )


def _place(entry: _Entry, source: str) -> dict[str, Any]:
    """Gives the place of a row on a curve; nothing where it says none."""
    if entry.point is None:
        return {}
    if entry.closed is not None or entry.floor is not None:
        raise ValueError(f"{source}: a point of a curve is trained, and this row is not")
    return {"curve": entry.point.curve, "parameter": entry.point.setting, "value": entry.point.value}


def _sweep(base: Row, entry: _Entry, path: Path, source: str) -> list[Row]:
    if not entry.values:
        raise ValueError(f"{source}: a sweep needs values")
    if entry.point is not None:
        raise ValueError(f"{source}: a sweep has its parameter and values, a point is said of a row")
    section, _, key = str(entry.parameter).partition(".")
    if section not in (*SECTIONS, "analysis") or not key:
        raise ValueError(f"{source}: parameter must be section.key, found {entry.parameter!r}")
    # A value without a printed number is shown by the metrics of the others: a curve is of one metric.
    shown = entry.shown or tuple(name for name in entry.cells if not name.endswith(SPREAD))
    rows = []
    for number, value in enumerate(entry.values):
        changed = {**(getattr(entry, section) or {}), key: value}
        all_cells = {name: _of_sweep(numbers, number, entry, source) for name, numbers in entry.cells.items()}
        cells = {name: one for name, one in all_cells.items() if one != GAP}
        told = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        one = replace(entry, parameter=None, values=(), cells=cells, shown=shown, **cast("Any", {section: changed}))
        row = _row(replace(base, name=f"{entry.name}, {key} = {told}"), one, path, source)
        rows.append(replace(row, curve=entry.name, parameter=str(entry.parameter), value=value))
    return rows


def _of_sweep(numbers: object, number: int, entry: _Entry, source: str) -> object:
    if not isinstance(numbers, list | tuple) or len(numbers) != len(entry.values):
        raise ValueError(
            f"{source}: cells of a sweep are lists of {len(entry.values)} numbers ({GAP!r}: none), found {numbers!r}"
        )
    return numbers[number]


def _cells(cells: Mapping[str, object], source: str, *, of_ranks: bool) -> dict[str, float]:
    """Gives printed numbers; where no analysis has names of its own, each must be of a metric that records hold."""
    for name, value in cells.items():
        if of_ranks:
            _check_metric(name.removesuffix(SPREAD), source)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{source}: cell {name!r} must be a number, found {value!r}")
    return {name: float(cast("float", value)) for name, value in cells.items()}


def _check_metric(name: str, source: str) -> None:
    try:
        metric = parse_metric(name)
    except ValueError as error:
        raise ValueError(f"{source}: cell {name!r}: {error}") from None
    if metric.k not in (*KS, None):
        raise ValueError(f"{source}: cell {name!r}: runs are judged at {', '.join(map(str, KS))}, not at {metric.k}")


def _later(config: RunConfig, number: int) -> RunConfig:
    """Gives an experiment with a later seed; one that it starts from has a later seed, too."""
    start = _later(config.start, number) if isinstance(config.start, RunConfig) else config.start
    training = replace(config.training, seed=config.training.seed + number)
    return replace(config, training=training, start=start)


def _config(entry: _Entry, path: Path, source: str) -> RunConfig:
    """Gives the experiment of an entry: its base with what the entry says instead."""
    config = from_record(_tables(entry, path, source), source=source)
    if entry.start is None:
        return config
    of_start = f"{source}: start"
    told = {**_tables(entry.start, path, of_start), "split": config.record()["split"]}
    start = from_record(told, source=of_start)
    check_same_encoder(config.encoder, start.encoder, source=of_start)
    return replace(config, start=start)


def _tables(entry: _Entry | _Start, path: Path, source: str) -> dict[str, Section]:
    tables: dict[str, Section] = {}
    if entry.experiment is not None:
        base = path.parent.parent.parent / entry.experiment
        if not base.is_file():
            raise FileNotFoundError(f"{source}: the experiment {base} does not exist")
        tables = read_experiment(base)
    for section in SECTIONS:
        own: Section = getattr(entry, section, {})
        inherited = tables.get(section, {})
        # Settings of one method (or encoder) are not those of another.
        if "name" in own and own["name"] != inherited.get("name"):
            inherited = {}
        tables[section] = {**inherited, **own}
    return tables
