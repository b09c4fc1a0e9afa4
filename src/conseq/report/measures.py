"""Analyses that are numbers and no curves: costs, views, and whether clusters of users have a meaning."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from conseq.report.numbers import NONE, with_spread
from conseq.report.results import Result, estimate
from conseq.report.spectrum import spread_table
from conseq.report.statement import listed, statement
from conseq.report.tables import Cell, Group, NumberTable, about

_MEGA = 2**20


def measures(found: Sequence[Result], asked: Collection[str]) -> list[NumberTable]:
    """Gives the tables of the analyses that some results have: spread of vectors and of views, costs, agreement with
    categories.

    Args:
        found: Results on one data set.
        asked: Names of analyses.

    Returns:
        The tables, those without a row left out.
    """
    makers = {"representations": spread_table, "views": views, "complexity": costs, "purity": agreement}
    tables = (make(found) for name, make in makers.items() if name in asked)
    return [table for table in tables if table is not None]


def costs(found: Sequence[Result]) -> NumberTable | None:
    """Gives parameters, time, speed and memory of models; None where none was measured."""
    some = _with(found, "complexity")
    if not some:
        return None
    records = [record for one in some for record in one.records]
    own = [record["analyses"]["complexity"] for record in records]
    places = listed(f"{one['device']}, {one['threads']} threads" for one in own)
    trained = listed(one.get("machine") or "not recorded" for one in records)
    ranked = listed(f"{one['speed']['k']} items for batches of {one['speed']['batch_size']} users" for one in own)
    columns = (
        ("parameters served", lambda one: one["encoder_parameters"], "{:,.0f}"),
        ("parameters trained", lambda one: one["trained_parameters"], "{:,.0f}"),
        ("epoch, median s", lambda one: (one["epochs"] or {}).get("median"), "{:,.2f}"),
        ("users ranked / s", lambda one: one["speed"]["users_per_second"], "{:,.0f}"),
        ("ranking, MiB", lambda one: one["ranking_bytes"] / _MEGA, "{:,.0f}"),
        ("training, MiB", lambda one: _over_mega(one["training_bytes"]), "{:,.0f}"),
    )
    return NumberTable(
        "What models cost",
        statement(records, history="excluded from what is ranked"),
        ("", *(name for name, _, _ in columns)),
        _rows(some, "complexity", [(say, how) for _, say, how in columns]),
        f"Epochs: as the runs took them in training, each on its own machine ({trained}). Ranking and memory: measured "
        f"later, on {places}; ranked: {ranked}. Memory: most that tensors of a batch hold at once. Means over seeds.",
    )


def views(found: Sequence[Result]) -> NumberTable | None:
    """Gives how near the views of a history are, for every two kinds of views; None where it was not measured."""
    some = _with(found, "views")
    if not some:
        return None
    records = [record for one in some for record in one.records]
    pairs = dict.fromkeys(name for record in records for name in record["analyses"]["views"]["pairs"])
    groups = []
    for result in some:
        own = [record["analyses"]["views"]["pairs"] for record in result.records]
        rows = []
        for name in pairs:
            near, apart = (estimate([one.get(name, {}).get(key) for one in own]) for key in ("value", "others"))
            if near is not None:
                rows.append((Cell(name), Cell(with_spread(near)), Cell(with_spread(apart)), Cell(str(near.n))))
        groups.append(Group(result.label, (about(result, some),), tuple(rows), result.stale))
    return NumberTable(
        "Views of one history and of different ones",
        statement(records, history="read as the model reads it", part="training"),
        ("kinds of views", "of one history", "of different ones", "n"),
        tuple(groups),
        "Mean squared distance on the unit sphere, from 0 to 4, of the vectors of two views; without dropout, weights "
        "of the best epoch. What a contrast teaches is to make the first smaller than the second.",
    )


def agreement(found: Sequence[Result]) -> NumberTable | None:
    """Gives how well clusters of users agree with the categories of their items; None where none was measured."""
    some = _with(found, "purity")
    if not some:
        return None
    records = [record for one in some for record in one.records]
    columns = (
        ("purity", lambda one: one["agreement"]["purity"], "{:.4f}"),
        ("of random clusters", lambda one: one["chance"]["purity"], "{:.4f}"),
        ("of one cluster", lambda one: one["majority"], "{:.4f}"),
        ("normalised mutual information", lambda one: one["agreement"]["nmi"], "{:.4f}"),
        ("of random clusters", lambda one: one["chance"]["nmi"], "{:.4f}"),
        ("clusters", lambda one: len(one["clusters"]), "{:,.0f}"),
        ("users", lambda one: one["users"], "{:,.0f}"),
    )
    return NumberTable(
        "Clusters of users against categories of items",
        statement(records, history="read as the model reads it"),
        ("", *(name for name, _, _ in columns)),
        _rows(some, "purity", [(say, how) for _, say, how in columns]),
        "Purity: share of the users that are in the most frequent category of their cluster. Means over seeds.",
    )


def _with(found: Sequence[Result], name: str) -> list[Result]:
    return [one for one in found if all(name in record["analyses"] for record in one.records)]


def _rows(
    found: Sequence[Result], name: str, columns: Sequence[tuple[Callable[[Mapping[str, Any]], Any], str]]
) -> tuple[Group, ...]:
    groups = []
    for result in found:
        cells = []
        for say, how in columns:
            value = estimate([say(record["analyses"][name]) for record in result.records])
            cells.append(Cell(NONE if value is None else how.format(value.mean)))
        row = (Cell(f"n = {len(result.records)}"), *cells)
        groups.append(Group(result.label, (about(result, found),), (row,), result.stale))
    return tuple(groups)


def _over_mega(size: float | None) -> float | None:
    return None if size is None else size / _MEGA
