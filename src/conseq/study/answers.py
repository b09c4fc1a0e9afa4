"""A paper's cells beside ours."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from conseq.run.config import RunConfig
from conseq.run.runner import History
from conseq.study import analysed
from conseq.study.asked import outdated
from conseq.study.records import Record, but_seed, metrics_shown, stale
from conseq.study.specification import SPREAD, Row, Table, load_table

Verdict = Literal["reached", "above", "below", "impossible in print", "not run", "closed", "no number in print"]

SEEDS = 20
"""How many seeds of a row are looked for, from the experiment's own on."""

_OTHER: dict[str, History] = {"exclude": "keep", "keep": "exclude"}

CLOSE = 0.03
"""Relative difference within which a published number counts as reached."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One cell.

    Attributes:
        row: The row that it stands in.
        metric: Its metric.
        paper: The printed number; None where the paper prints none.
        ours: Mean over our runs; None where there is none.
        spread: Standard deviation over seeds; None for fewer than two.
        paper_spread: What the paper prints after its ±; None where it prints none.
        elsewhere: Mean over our runs with the history treated in the other way; None for what has no such number.
        elsewhere_spread: Its standard deviation over seeds; None for fewer than two.
        epochs: For each run the picked epoch and how many were trained.
        n: Our runs, one for each seed.
        verdict: How ours stands to the paper's.
        stale: Why our number may no longer be what the code gives; empty where it is.
        commits: The commits of our runs.
    """

    row: Row
    metric: str
    paper: float | None
    ours: float | None
    spread: float | None
    n: int
    verdict: Verdict
    stale: str
    commits: tuple[str, ...] = ()
    paper_spread: float | None = None
    elsewhere: float | None = None
    elsewhere_spread: float | None = None
    epochs: tuple[tuple[int, int], ...] = ()

    @property
    def difference(self) -> float | None:
        """Ours less the paper's; None where one is missing."""
        return None if self.paper is None or self.ours is None else self.ours - self.paper


def answers(table: Table, records: Sequence[Record], *, seeds: int = SEEDS) -> list[Answer]:
    """Gives every cell of a table with what we found.

    Args:
        table: The table.
        records: All records; of several versions of a log, the last one's are shown.
        seeds: How many seeds are looked for, from the experiment's own on.

    Returns:
        The cells, in the table's order.
    """
    recorded = [of_row(row, records, seeds=seeds) for row in table.rows]
    beside = [record for pairs in recorded for _, record in pairs]
    found: list[Answer] = []
    for row, pairs in zip(table.rows, recorded, strict=True):
        found += _of_row(row, pairs) if row.floor is None else _of_floor(row, table, records, beside)
    return found


def newest_last(records: Sequence[Record], logs: Mapping[str, Mapping[str, Any] | None]) -> list[Record]:
    """Gives records in the order in which :func:`answers` takes the last as the newest.

    Args:
        records: Records in the order of the files' names and lines.
        logs: Of each data set what identifies the log at hand (``hash``); None where none is.

    Returns:
        The same records, those of the logs at hand behind all others.
    """
    hashes = {name: None if facts is None else facts["hash"] for name, facts in logs.items()}
    return sorted(records, key=lambda one: one["data_hash"] == hashes.get(one["dataset"]))


def of_row(row: Row, records: Sequence[Record], *, seeds: int = SEEDS) -> list[tuple[RunConfig, Record]]:
    """Gives the experiments of a row that are recorded, each with its record, one for each seed.

    Args:
        row: The row.
        records: All records.
        seeds: How many seeds are looked for.

    Returns:
        Experiments and records, all of one version of the log, that of the last record. Where the row's experiment is
        not recorded, the last earlier one of the row, which is stale.
    """
    if row.config is None:
        return []
    of_method = [one for one in records if one["method"] == row.config.method_name]
    if of_method:  # most rows are not run yet, and hashing their experiments takes time
        pairs = _recorded(row, of_method, seeds)
        if pairs:
            return pairs
    return [(row.config, record) for record in _earlier(row, records)]


def splits_of(table: Table) -> list[dict[str, Any]]:
    """Gives the splits of a table's experiments as records tell them, each once."""
    rows = table.rows
    if all(row.config is None for row in rows):  # a part of a table does not say how the whole is judged
        rows = load_table(table.path).rows
    found: list[dict[str, Any]] = []
    for row in rows:
        split = None if row.config is None else row.config.record()["split"]
        if split is not None and split not in found:
            found.append(split)
    return found


def _recorded(row: Row, records: Sequence[Record], seeds: int) -> list[tuple[RunConfig, Record]]:
    """Gives what is recorded of a row on the log of the newest of its records: of those of one file, the last."""
    own = {config.digest: config for config in row.seeded(seeds)}
    alike = [one for one in records if one["dataset"] == row.dataset and one["config_hash"] in own]
    latest = {one["config_hash"]: one for one in alike if one["data_hash"] == alike[-1]["data_hash"]}
    return [(config, latest[digest]) for digest, config in own.items() if digest in latest]


def _earlier(row: Row, records: Sequence[Record]) -> list[Record]:
    """Gives what was recorded of a row before its experiment changed: all seeds of the newest that there is."""
    keys = ("study", "row", "preset", "dataset")
    asked = [row.study, row.name, str(row.preset), row.dataset]
    own = [one for one in records if [one.get(key) for key in keys] == asked and _is_analysed(row, one)]
    if not own:
        return []
    newest = own[-1]
    settings = but_seed(newest["config"])
    alike = [one for one in own if one["data_hash"] == newest["data_hash"] and but_seed(one["config"]) == settings]
    return list({one["seed"]: one for one in alike}.values())


def _of_row(row: Row, recorded: Sequence[tuple[RunConfig, Record]]) -> list[Answer]:
    pairs = [(config, one) for config, one in recorded if _is_analysed(row, one)]
    own = [record for _, record in pairs]
    found = [_found(row, one) for one in own]
    other = [one["both"][_OTHER[row.history]]["metrics"] for one in own] if row.asked is None else []
    why = next((reason for config, one in pairs if (reason := _why_stale(row, config, one))), "")
    metrics = _metrics(row) or (_default_metrics(row, found) if row.config is not None else [])
    return [_answer(row, metric, found, why, own, other) for metric in metrics]


def _of_floor(row: Row, table: Table, records: Sequence[Record], beside: Sequence[Record]) -> list[Answer]:
    """Gives the cells of a floor, from the newest run on the log under the table's split.

    Args:
        row: The floor's row.
        table: Its table.
        records: All records.
        beside: Records that answer other rows of the table: where they are of several versions of the log, the floor
            is of theirs.

    Returns:
        The answers, one for each metric.
    """
    splits = splits_of(table)
    own = [
        one
        for one in records
        if one["dataset"] == row.dataset
        and one["config"]["split"] in splits
        and row.floor in one["both"][row.history]["floors"]
    ]
    of_log = {one["data_hash"] for one in beside}
    own = [one for one in own if one["data_hash"] in of_log] or own
    found, other = (
        [one["both"][history]["floors"][row.floor] for one in own[-1:]]
        for history in (row.history, _OTHER[row.history])
    )
    metrics = _metrics(row) or _shown(found, several=any(one["name"] == "by_user" for one in splits))
    return [_answer(row, metric, found, "", own[-1:], other) for metric in metrics]


def _metrics(row: Row) -> list[str]:
    printed = [name for name in row.cells if not name.endswith(SPREAD)]
    return printed or ([] if row.asked is not None or row.config is None else list(row.shown))


def _is_analysed(row: Row, record: Record) -> bool:
    return row.asked is None or row.asked.of(record) is not None


def _why_stale(row: Row, config: RunConfig, record: Record) -> str:
    found = None if row.asked is None else row.asked.of(record)
    return stale(record, config) or ("" if found is None else outdated(found, record, config))


def _default_metrics(row: Row, found: Sequence[Mapping[str, float]]) -> list[str]:
    if row.asked is not None:
        return analysed.shown(row.asked.name, found[0], row.shown) if found else [row.asked.name]
    return _shown(found, several=row.config is not None and row.config.split.name == "by_user")


def _shown(found: Sequence[Mapping[str, float]], *, several: bool) -> list[str]:
    return [name for name in metrics_shown(several=several) if not found or name in found[0]]


def _found(row: Row, record: Record) -> dict[str, float]:
    """Gives what a record found, by the names of cells; of an analysis without printed numbers its numbers alone."""
    metrics: dict[str, float] = record["both"][row.history]["metrics"]
    if row.asked is None:
        return metrics
    numbers = analysed.numbers(row.asked.name, row.asked.of(record) or {})
    return {**metrics, **numbers} if row.cells else numbers


def _answer(
    row: Row,
    metric: str,
    found: Sequence[Mapping[str, float]],
    why: str,
    own: Sequence[Record],
    other: Sequence[Mapping[str, float]],
) -> Answer:
    values = [one[metric] for one in found if metric in one]
    ours, spread = _mean_and_spread(values)
    elsewhere, elsewhere_spread = _mean_and_spread([one[metric] for one in other if metric in one])
    paper = row.cells.get(metric)
    return Answer(
        row=row,
        metric=metric,
        paper=paper,
        ours=ours,
        spread=spread,
        n=len(values),
        verdict=_verdict(row, paper, ours),
        stale=why,
        commits=tuple(sorted({one["commit"] for one in own})),
        paper_spread=row.cells.get(metric + SPREAD),
        elsewhere=elsewhere,
        elsewhere_spread=elsewhere_spread,
        epochs=() if row.floor is not None else tuple((one["best_epoch"], one["epochs"]) for one in own),
    )


def _mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Gives mean and standard deviation; None where there are too few values for it."""
    return statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None


def _verdict(row: Row, paper: float | None, ours: float | None) -> Verdict:
    if row.closed is not None:
        return "closed"
    if ours is None:
        return "not run"
    if paper is None or math.isnan(paper):
        return "no number in print"
    if row.impossible is not None:
        return "impossible in print"
    # The paper rounds to its printed digits; half a unit of the fourth is no difference.
    if abs(ours - paper) <= CLOSE * abs(paper) + 5e-5:
        return "reached"
    return "above" if ours > paper else "below"
