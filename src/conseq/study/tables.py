"""Plans and answers for a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table as Grid

from conseq.evaluation.tables import as_text
from conseq.study.answers import SEEDS, Answer, answers, splits_of
from conseq.study.plan import Job
from conseq.study.records import Record
from conseq.study.specification import Row, Table

PRINTED = ("row", "preset", "metric", "paper", "ours ± sd", "difference", "n", "verdict")
"""The headings of what stands beside printed numbers."""

UNPRINTED = "No number in print; history kept / excluded:"
"""What stands above the rest."""

_ORDER = ("recorded", "stale", "finished", "begun", "to run", "no data")


def plan_text(jobs: Sequence[Job], processes: int) -> str:
    """Gives what a plan will run, with an estimate of the time.

    Args:
        jobs: The plan.
        processes: Runs side by side.

    Returns:
        Lines of text.
    """
    # Of rows that one run answers the one with most to do tells of it, such as that whose analysis trains models.
    most: dict[tuple[Path, str], Job] = {}
    for job in sorted(jobs, key=lambda one: (one.to_do, one.seconds or 0.0), reverse=True):
        most.setdefault((job.folder, job.row.dataset), job)
    once = sorted(most.values(), key=lambda one: (one.seconds is None, one.seconds or 0.0))
    states = Counter[str](job.state for job in once)
    lines = ["runs: " + (", ".join(f"{states[one]} {one}" for one in _ORDER if states[one]) or "none to train")]
    absent = sorted({job.origin.of if job.origin else job.row.dataset for job in once if job.state == "no data"})
    if absent:
        lines.append(f"no data found for: {', '.join(absent)} (see --data)")
    to_do = [job for job in once if job.to_do]
    for job in to_do:
        seed = job.config.training.seed
        lines.append(
            f"  {job.row.dataset}: {job.row.name} ({job.row.preset}), seed {seed}: {job.state}, {_time(job.seconds)}"
        )
    starts = {job.start: job.start_seconds for job in to_do if job.seconds is not None}
    own = sum(job.seconds - job.start_seconds for job in to_do if job.seconds is not None)
    known = (own + sum(starts.values())) / processes  # rows that start from one run share it
    unknown = sum(job.seconds is None for job in to_do)
    if to_do:
        more = f", and {unknown} runs of methods that have no record to estimate from" if unknown else ""
        lines.append(f"estimate: {_time(known)} with {processes} at a time{more}")
    return "\n".join(lines)


def answers_text(table: Table, records: Sequence[Record], *, seeds: int = SEEDS) -> str:
    """Gives a paper's table beside ours; what has no number in print stands below, under both protocols.

    Args:
        table: The table.
        records: All records.
        seeds: How many seeds are looked for.

    Returns:
        Text: the protocol above the rows, what a reader should know of them below.
    """
    title = f"{table.paper}, {table.title}\n{protocol(table)}"
    found = answers(table, records, seeds=seeds)
    aside = unprinted(found)
    long = _grid(PRINTED, right=range(3, 7))
    for row in table.rows:
        lines = [] if aside.has(row) else _lines(row, [one for one in found if one.row is row])
        if len(lines) > 1:
            long.add_section()
        for line in lines:
            long.add_row(*map(escape, line))
    wide = _grid(aside.head, right=range(4, len(aside.head)))
    for cells_of in aside.lines:
        wide.add_row(*map(escape, cells_of))
    parts = [title]
    if long.row_count:
        parts.append(as_text(long, width=180).rstrip("\n"))
    if wide.row_count:
        parts += [UNPRINTED, as_text(wide, width=180).rstrip("\n")]
    below = [f"note: {table.note}"] if table.note else []
    below += [f"note on {one}" for one in notes(table)]
    return "\n".join([*parts, *below, ""])


@dataclass(frozen=True)
class Unprinted:
    """Rows that were run and that no paper prints, a line for each.

    Attributes:
        rows: The rows.
        head: The headings.
        lines: The cells of each.
    """

    rows: tuple[Row, ...]
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    def has(self, row: Row) -> bool:
        """Whether ``row`` is one of them."""
        return any(row is one for one in self.rows)


def unprinted(found: Sequence[Answer]) -> Unprinted:
    """Gives the rows of a table that have metrics under both protocols, and no number in print to stand beside.

    Args:
        found: The table's cells.

    Returns:
        The rows with every metric of any of them.
    """
    of_rows = {id(one.row): [each for each in found if each.row is one.row] for one in found}
    own = [each for each in of_rows.values() if all(one.paper is None and one.elsewhere is not None for one in each)]
    metrics = list(dict.fromkeys(one.metric for each in own for one in each))
    lines = []
    for each in own:
        first, values = each[0], {one.metric: _of_both(one) for one in each}
        epochs = ", ".join(f"{best} of {trained}" for best, trained in first.epochs)
        name = first.row.name + (f" (stale: {first.stale})" if first.stale else "")
        cells_of = (values.get(metric, "") for metric in metrics)
        lines.append((name, first.row.preset or "", str(first.n), epochs, *cells_of))
    head = ("row", "preset", "n", "best epoch", *metrics)
    return Unprinted(tuple(each[0].row for each in own), head, tuple(lines))


def _of_both(one: Answer) -> str:
    here, there = (
        _with_spread(value, spread) for value, spread in ((one.ours, one.spread), (one.elsewhere, one.elsewhere_spread))
    )
    return f"{here} / {there}" if one.row.history == "keep" else f"{there} / {here}"


def _grid(headings: Sequence[str], *, right: range) -> Grid:
    grid = Grid()
    for number, heading in enumerate(headings):
        grid.add_column(heading, justify="right" if number in right else "left", overflow="fold")
    return grid


def _lines(row: Row, found: Sequence[Answer]) -> list[tuple[str, ...]]:
    """Gives the lines of a row; its name and its reasons stand in the first."""
    if not found:
        return [(row.name, row.preset or "", "", "", "", "", "", f"not run: {row.closed}")] if row.closed else []
    if all(one.paper is None and not one.n for one in found):
        return [(row.name, row.preset or "", "", "", "", "", "", words(found[0]))]
    return [
        (
            *(("", "") if number else (row.name, row.preset or "")),
            one.metric,
            *cells(one),
            words(one, reasons=not number),
        )
        for number, one in enumerate(found)
    ]


def notes(table: Table) -> list[str]:
    """Gives what a reader should know of a table's rows: the rows and the note, each note once."""
    found: dict[str, list[str]] = {}
    for row in table.rows:
        if row.note is not None:
            found.setdefault(row.note, []).append(named(row))
    return [f"{', '.join(names)}: {note}" for note, names in found.items()]


def named(row: Row) -> str:
    """Gives the name of a row with its preset."""
    return f"{row.name} ({row.preset})" if row.preset else row.name


def protocol(table: Table) -> str:
    """Gives the protocol under which a table's numbers stand."""
    splits = {split["name"] for split in splits_of(table)} or {"leave_one_out"}
    kept = "kept among the candidates" if table.history == "keep" else "excluded from the candidates"
    return (
        f"{table.dataset}, test, {' / '.join(sorted(splits))}, whole catalogue, history {kept}, ties against the model"
    )


def cells(one: Answer) -> tuple[str, str, str, str]:
    """Gives the printed number, ours, the difference and the number of runs as text."""
    paper, ours = _with_spread(one.paper, one.paper_spread), _with_spread(one.ours, one.spread)
    change = one.difference
    difference = ""
    if change is not None and one.paper:
        difference = f"{change:+{_digits(change)}} ({change / abs(one.paper):+.1%})"
    return paper, ours, difference, str(one.n or "")


def _with_spread(value: float | None, spread: float | None) -> str:
    if value is None:
        return ""
    return f"{value:{_digits(value)}}" + ("" if spread is None else f" ± {spread:{_digits(value)}}")


def _digits(value: float) -> str:
    """Gives how a number is printed: shares with four digits, counts and times without."""
    return ".4f" if abs(value) < 10 else ",.0f"


def words(one: Answer, *, reasons: bool = True) -> str:
    """Gives the verdict, whether a printed number cannot be right, and why ours may be out of date.

    Args:
        one: The cell.
        reasons: Whether it says why the row is not run and why its numbers cannot be right; the same for every cell.

    Returns:
        Text.
    """
    row = one.row
    parts = [one.verdict if row.closed is None else "not run" + (f": {row.closed}" if reasons else "")]
    if row.impossible is not None and one.paper is not None:
        own = [] if one.verdict == "impossible in print" else parts
        parts = [*own, "impossible in print" + (f": {row.impossible}" if reasons else "")]
    if one.stale:
        parts.append(f"stale: {one.stale}")
    return "; ".join(parts)


def as_json(tables: Sequence[Table], records: Sequence[Record], *, seeds: int = SEEDS) -> dict[str, Any]:
    """Gives the answers of some tables as plain values.

    Args:
        tables: The tables.
        records: All records.
        seeds: How many seeds are looked for.

    Returns:
        By table: its protocol and its cells.
    """
    found = []
    for table in tables:
        lines = [
            {
                **{name: value for name, value in asdict(one).items() if name not in {"row"}},
                "row": one.row.name,
                "preset": one.row.preset,
                "difference": one.difference,
                "impossible": one.row.impossible,
                "note": one.row.note,
            }
            for one in answers(table, records, seeds=seeds)
        ]
        head = {name: getattr(table, name) for name in ("study", "paper", "title", "dataset", "note")}
        closed = {row.name: row.closed for row in table.rows if row.closed is not None}
        found.append({**head, "history": table.history, "protocol": protocol(table), "cells": lines, "closed": closed})
    return {"tables": found}


def _time(value: float | None) -> str:
    if value is None:
        return "time unknown"
    minutes = value / 60
    if minutes < 1:
        return f"{value:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
