"""Tables of numbers, each with its protocol: a paper's cells beside ours, what stands beside them, and all runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from conseq.report.numbers import NONE, difference, duration, number, with_spread
from conseq.report.results import Estimate, Result, main_metric
from conseq.report.statement import Statement, listed, paper_statement, statement
from conseq.study.answers import Answer, Verdict
from conseq.study.cuts import cut_names, cut_of
from conseq.study.records import Record, identity
from conseq.study.specification import Row, Table

MARKS = {
    "reached": "≈ reached",
    "above": "▲ above",
    "below": "▼ below",
    "impossible in print": "✗ impossible in print",
    "not run": "○ not run",
    "closed": "□ closed",
    "no number in print": "\N{EN DASH} not printed",
}
"""Verdicts as shown: a sign and words, so that colour is not needed."""

FLOORS = ("popularity", "own history")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it shows.
        kind: Class for its style: empty, or a verdict.
        link: A page of the report; empty: none.
    """

    text: str
    kind: str = ""
    link: str = ""


@dataclass(frozen=True)
class Group:
    """Rows that belong together.

    Attributes:
        heading: Above them; empty: none.
        details: Below the heading, one line each.
        rows: The first cell of each is its heading.
        stale: Why the numbers are stale; empty where they are not.
        link: Where the heading leads; empty: nowhere.
    """

    heading: str
    details: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    stale: str = ""
    link: str = ""


@dataclass(frozen=True)
class NumberTable:
    """A table that cannot be shown without its protocol.

    Attributes:
        title: What it holds.
        protocol: Of its numbers.
        columns: Headings.
        groups: Rows.
        note: Below the table.
    """

    title: str
    protocol: Statement
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    note: str = ""


def against_paper(
    table: Table, answers: Sequence[Answer], own: dict[str, Result], floors: Sequence[Record]
) -> NumberTable | None:
    """Gives the rows of a paper's table that we have numbers for, a verdict for each cell.

    Args:
        table: The paper's table.
        answers: Its cells with what we found.
        own: Our results by :func:`row_key`.
        floors: The records that the cells of floors are of.

    Returns:
        The table, rows in the paper's order; None where no row has a number of ours.
    """
    run = {row_key(one.row) for one in answers if one.n}
    if not run:
        return None
    records = [record for result in own.values() for record in result.records]
    known = {identity(record) for record in records}
    records += [record for record in floors if identity(record) not in known]
    by_row: dict[str, list[Answer]] = {row_key(row): [] for row in table.rows}
    for answer in answers:
        by_row[row_key(answer.row)].append(answer)
    among = list(own.values())
    groups = [
        _paper_row(row, by_row[row_key(row)], own.get(row_key(row)), among) for row in table.rows if row_key(row) in run
    ]
    columns = ("metric", "paper", "ours ± sd", "verdict", "difference", "n")
    note = (
        "n: our runs, one for each seed; sd: standard deviation over them. Within 3 %: the difference is at most 3 % "
        "of the paper's number, or half a unit of its fourth decimal more."
    )
    return NumberTable(
        f"{table.paper}: {table.title}", statement(records, history=table.history), columns, tuple(groups), note
    )


def unanswered(table: Table, answers: Sequence[Answer]) -> NumberTable | None:
    """Gives the rows of a paper's table that we have no number for, with the printed numbers and the reason.

    Args:
        table: The paper's table.
        answers: Its cells.

    Returns:
        The table, rows in the paper's order; None where every row has a number of ours.
    """
    run = {row_key(one.row) for one in answers if one.n}
    rows = [row for row in table.rows if row_key(row) not in run]
    names = list(dict.fromkeys(one.metric for one in answers if one.paper is not None))
    if not rows or not names:
        return None
    groups = []
    for row in rows:
        kind: Verdict = "not run" if row.closed is None else "closed"
        cells = (Cell(number(row.cells.get(name), name)) for name in names)
        groups.append(Group(row.name, tuple(_about(row, None, ())), ((Cell(MARKS[kind]), *cells),)))
    return NumberTable(
        "Printed numbers without a run of ours",
        paper_statement(table.paper, table.dataset, table.history),
        ("row", *names),
        tuple(groups),
    )


def without_paper(table: Table, own: dict[str, Result], history: str) -> NumberTable | None:
    """Gives our results for a table of which no number is printed, a line each; None where there are none.

    Args:
        table: The table.
        own: Our results by :func:`row_key`.
        history: The protocol.

    Returns:
        The table, rows in the order of the specification.
    """
    if not own:
        return None
    found = list(own.values())
    names = _ranked(found[0].metrics(history))
    groups = [*floor_groups(found, history, names)]
    groups += [result_group(one, history, names, found) for one in found]
    missing = [row.name for row in table.rows if row_key(row) not in own and row.closed is None and row.floor is None]
    closed = [f"{row.name} ({row.closed})" for row in table.rows if row.closed is not None]
    note = "No number of it is printed; ours alone. ± is the standard deviation over seeds."
    if history == table.history:  # the other protocol's table stands below this one's
        note += f" Not run yet: {', '.join(missing)}." if missing else ""
        note += f" Closed: {'; '.join(closed)}." if closed else ""
    records = [record for one in found for record in one.records]
    return NumberTable(
        f"{table.paper}: {table.title}, history {'kept' if history == 'keep' else 'excluded'}",
        statement(records, history=history),
        ("model", *names),
        tuple(groups),
        note,
    )


def row_key(row: Row) -> str:
    """Gives what tells the rows of one table apart."""
    return f"{row.name}\n{row.preset}"


def _paper_row(row: Row, answers: Sequence[Answer], result: Result | None, among: Sequence[Result]) -> Group:
    rows = tuple(
        (
            Cell(one.metric),
            Cell(_printed(one)),
            Cell(_ours(one)),
            Cell(MARKS[one.verdict], one.verdict.replace(" ", "-")),
            Cell(difference(one.paper, one.ours)),
            Cell(str(one.n) if one.n else NONE),
        )
        for one in answers
    )
    return Group(
        row.name, tuple(_about(row, result, among)), rows, next((one.stale for one in answers if one.stale), "")
    )


def _printed(answer: Answer) -> str:
    found = None if answer.paper is None else Estimate(answer.paper, answer.paper_spread, 0)
    return with_spread(found, answer.metric)


def _ours(answer: Answer) -> str:
    found = None if answer.ours is None else Estimate(answer.ours, answer.spread, answer.n)
    return with_spread(found, answer.metric)


def _about(row: Row, result: Result | None, among: Sequence[Result]) -> Iterable[str]:
    """Gives what must be said of a row: how it was run, or why it was not."""
    if row.variant:
        yield row.variant
    if result is not None:
        yield about(result, among)
    elif row.preset and row.closed is None:
        yield f"preset {row.preset}"
    if row.floor:
        yield f"the floor “{row.floor}” of our evaluation"
    if row.closed:
        yield f"closed: {row.closed}"
    if row.impossible:
        yield f"the printed numbers cannot be right: {row.impossible}"
    if row.note:
        yield row.note


_SETTINGS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("preset", lambda one: str(one.first["preset"])),
    ("encoder", lambda one: str(one.first["encoder"])),
    ("loss", lambda one: str(one.first["loss"]).replace("_", " ")),
    ("instances", lambda one: str(one.first["instances"])),
    ("seeds", lambda one: listed(one.seeds)),
    ("commit", lambda one: listed(record["commit"] or "not recorded" for record in one.records)),
)


def about(result: Result, among: Sequence[Result]) -> str:
    """Gives what sets a result apart from the others of its table, and what its runs took.

    Args:
        result: The result.
        among: All results of the table; what all of them share stands in the table's protocol.

    Returns:
        One line.
    """
    parts = [f"{name} {say(result)}" for name, say in _SETTINGS if say(result) and len({say(one) for one in among}) > 1]
    seconds = sum(one["seconds"] for one in result.records) / len(result.records)
    parts.append(f"epochs {listed(one['epochs'] for one in result.records)}")
    return "; ".join([*parts, f"{duration(seconds)} of training each"])


def beside(found: Sequence[Result], history: str, dataset: str) -> NumberTable | None:
    """Gives the floors and SASRec on a data set, to stand beside a paper's table.

    Args:
        found: All results on the data set that were judged as the table's.
        history: The protocol.
        dataset: Its name.

    Returns:
        The table; None where there are no runs. Its floors are of the runs that its protocol is of.
    """
    if not found:
        return None
    baselines = [one for one in found if one.is_sasrec]
    told = baselines or found[:1]
    records = [record for one in told for record in one.records]
    names = _ranked(told[0].metrics(history))
    groups = [
        *floor_groups(told, history, names),
        *(result_group(one, history, names, baselines) for one in baselines),
    ]
    title = f"Floors and SASRec on {dataset}" if baselines else f"Floors on {dataset}; SASRec was not run"
    return NumberTable(title, statement(records, history=history), ("model", *names), tuple(groups))


def all_runs(found: Sequence[Result], history: str, dataset: str) -> NumberTable:
    """Gives every result on a data set under one protocol, the best first.

    Args:
        found: The results, at least one.
        history: The protocol.
        dataset: Its name.

    Returns:
        The table, floors first.
    """
    names = _ranked(found[0].metrics(history))
    metric = main_metric(names) or ""

    def worst_last(result: Result) -> tuple[float, str]:
        value = result.estimate(metric, history)
        return (-value.mean if value else 0.0), result.label

    groups = [*floor_groups(found, history, names)]
    groups += [result_group(one, history, names, found) for one in sorted(found, key=worst_last)]
    records = [record for one in found for record in one.records]
    verb = {"exclude": "excluded", "keep": "kept"}[history]
    note = f"Sorted by {metric}. ± is the standard deviation over seeds; a number without it is of one seed."
    return NumberTable(
        f"Every run on {dataset}, history {verb}",
        statement(records, history=history),
        ("model", *names),
        tuple(groups),
        note,
    )


def result_group(result: Result, history: str, names: Sequence[str], among: Sequence[Result]) -> Group:
    """Gives a result as a row of metrics with its settings."""
    cells = (Cell(with_spread(result.estimate(name, history), name)) for name in names)
    return Group(result.label, (about(result, among),), ((Cell(f"n = {len(result.records)}"), *cells),), result.stale)


def floor_groups(found: Sequence[Result], history: str, names: Sequence[str]) -> list[Group]:
    """Gives the floors of some results' data, each a row of metrics; those of each log and split by themselves."""
    groups = []
    for told, alike in _by_log(found).items():
        for floor in FLOORS:
            values = {name: floor_value(alike, floor, name, history) for name in names}
            if any(value is not None for value in values.values()):
                cells = (Cell(number(value, name)) for name, value in values.items())
                heading = f"{floor} (floor){told}"
                groups.append(Group(heading, ("learns nothing",), ((Cell("all seeds alike"), *cells),)))
    return groups


def _by_log(found: Sequence[Result]) -> dict[str, list[Result]]:
    """Gives results by the log and the split that they are of, as far as these differ."""
    splits = cut_names(one.first for one in found)
    logs = len({one.first["data_hash"] for one in found}) > 1
    alike: dict[str, list[Result]] = {}
    for one in found:
        split, log = splits[cut_of(one.first)], one.first["data_hash"][:8]
        told = f"{f', {split}' if len(splits) > 1 else ''}{f', data {log}' if logs else ''}"
        alike.setdefault(told, []).append(one)
    return alike


def floor_value(found: Sequence[Result], floor: str, metric: str, history: str) -> float | None:
    """Gives a floor's metric, of the first record that has it."""
    for result in found:
        for record in result.records:
            value = record["both"].get(history, {}).get("floors", {}).get(floor, {}).get(metric)
            if value is not None:
                return float(value)
    return None


def _ranked(names: Sequence[str]) -> list[str]:
    """Gives the metrics of ranks: lists' coverage and popularity would make the table too wide to read."""
    return [name for name in names if not name.startswith(("Coverage", "MeanPopularity"))]
