"""What the metrics of a record can be, whatever the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from conseq.evaluation.inequalities import violations

ROUNDING = 5e-7
"""The most by which rounding moves a number of a record: six decimals are kept."""

_COUNTS = ("MeanPopularity", "cases")
_KINDS: Mapping[str, type[Any]] = MappingProxyType(
    {
        **dict.fromkeys(("method", "encoder", "dataset", "split", "config_hash", "data_hash", "code_hash"), str),
        **dict.fromkeys(("seed", "epochs", "best_epoch"), int),
        "seconds": float,
        **dict.fromkeys(("config", "data", "versions", "metrics", "floors", "both", "analyses"), dict),
        "curve": list,
    }
)
_EXPECTED: Mapping[type[Any], str] = MappingProxyType(
    {str: "a text", int: "a whole number", float: "a number", dict: "a table", list: "a list"}
)
# A longer list holds the shorter one.
_RISING = ("HR", "Recall", "Coverage")


def contradictions(record: Mapping[str, Any]) -> Iterator[str]:
    """Gives what cannot be in a record that has every key; nothing where all can be.

    Args:
        record: The record.

    Yields:
        What is wrong and what was expected, the more basic first.
    """
    if malformed := _mistyped(record) or _malformed(record["both"], record["history"]):
        yield malformed
        return
    single, half_ranks = _single(record), record.get("ties") == "mean"
    for history, found in record["both"].items():
        for part, metrics in _parts(found):
            for fault in faults(metrics, single=single, half_ranks=half_ranks):
                yield f"{record['method']}, history {history}{part}: {fault}"
    for name in ("metrics", "floors"):
        if record[name] != record["both"][record["history"]][name]:
            yield f"{name} are not those of both under history {record['history']}"


def _single(record: Mapping[str, Any]) -> bool:
    """Whether a case has one target."""
    split = record["config"].get("split", {})
    return record["split"] == "leave_one_out" or (record["split"], split.get("targets")) == ("by_time", "first")


def _mistyped(record: Mapping[str, Any]) -> str:
    """Gives what a record holds in the place of a number, a text or a table; empty where nothing is wrong."""
    for name, kind in _KINDS.items():
        wanted = (int, float) if kind is float else kind
        if not isinstance(record[name], wanted) or isinstance(record[name], bool):
            return f"{name} is {record[name]!r:.60}; expected {_EXPECTED[kind]}"
    for number, point in enumerate(record["curve"]):
        if not isinstance(point, Mapping) or not isinstance(point.get("epoch"), int):
            return f"point {number} of the curve (counted from 0) is {point!r:.60}; expected a table with an epoch"
    wrong = [name for name, found in record["analyses"].items() if not isinstance(found, Mapping)]
    if wrong:
        return f"the analysis {wrong[0]!r} is {record['analyses'][wrong[0]]!r:.60}; expected a table"
    lacking = [name for name in ("users", "items", "interactions") if not isinstance(record["data"].get(name), int)]
    return f"data lacks the number of {', '.join(lacking)}" if lacking else ""


def _malformed(both: object, history: object) -> str:
    """Gives what is missing of the two treatments of the history; empty where nothing is."""
    if not isinstance(both, Mapping) or set(both) != {"exclude", "keep"}:
        found = ", ".join(sorted(both)) if isinstance(both, Mapping) and both else "nothing"
        return f"both holds {found}; expected exclude and keep"
    if history not in both:
        return f"history is {history!r}; expected exclude or keep"
    for place, table in _tables(both):
        if not isinstance(table, Mapping):
            return f"{place} is {table!r:.60}; expected a table"
    return ""


def _tables(both: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Gives what must be tables in the two treatments of the history, the outer ones first, each with its place."""
    for history, found in both.items():
        yield f"{history} of both", found
        for name in ("metrics", "floors"):
            yield f"{name} of {history} of both", found.get(name)
        for name, values in found["floors"].items():
            yield f"the floor {name!r} of {history} of both", values


def faults(metrics: Mapping[str, Any], *, single: bool, half_ranks: bool = False) -> list[str]:
    """Gives what cannot be among the metrics of one model on the same cases; empty where all can be.

    Args:
        metrics: Values by name; all but counts (``MeanPopularity@k``, ``cases``) are shares.
        single: Whether a case has one target, so that hit rates bound NDCG and MRR.
        half_ranks: Whether ties took their mean rank.

    Returns:
        The values with their bounds.
    """
    if not metrics:
        return ["there are no metrics"]
    found = [text for name, value in metrics.items() if (text := _out_of_range(name, value))]
    if found:  # the rest compares numbers
        return found
    found = [*_falling(metrics), *_above_hits(metrics)]
    return [*found, *map(str, violations(metrics, rounding=ROUNDING, half_ranks=half_ranks))] if single else found


def _falling(metrics: Mapping[str, Any]) -> Iterator[str]:
    for name in _RISING:
        for (a, less), (b, more) in pairwise(_by_cut(metrics, name)):
            if more < less - 2 * ROUNDING:
                yield f"{name}@{b} = {more:.6g}, but {name}@{a} is {less:.6g} already"


def _above_hits(metrics: Mapping[str, Any]) -> Iterator[str]:
    hits = dict(_by_cut(metrics, "HR"))
    for cut, value in _by_cut(metrics, "Recall"):
        if cut in hits and value > hits[cut] + 2 * ROUNDING:
            yield f"Recall@{cut} = {value:.6g}, but HR@{cut} allows at most {hits[cut]:.6g}"


def _parts(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Gives all metrics under one treatment of the history, each with where it stands."""
    yield "", found["metrics"]
    for name, metrics in found["floors"].items():
        yield f", floor {name}", metrics
    for cut, parts in found.get("slices", {}).items():
        for name, metrics in parts.items():
            yield f", {cut} {name}", metrics


def _out_of_range(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"{name} = {value!r}, expected a number"
    if name.partition("@")[0] in _COUNTS:
        return "" if value >= 0 else f"{name} = {value:.6g}, expected at least 0"
    return "" if 0 <= value <= 1 else f"{name} = {value:.6g}, expected a share from 0 to 1"


def _by_cut(metrics: Mapping[str, Any], name: str) -> list[tuple[int, float]]:
    """Gives a metric by its cut-offs, the shortest list first."""
    parts = ((key.partition("@"), value) for key, value in metrics.items())
    return sorted((int(cut), float(value)) for (head, _, cut), value in parts if head == name and cut.isdigit())
