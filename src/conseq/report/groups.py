"""How good models are for parts of the users or of the targets, as grouped bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conseq.report.charts import Bars, Labels, bar_chart
from conseq.report.numbers import with_spread
from conseq.report.parts import in_figures
from conseq.report.results import Estimate, Result, estimate, main_metric, ordered_parts
from conseq.report.statement import listed, statement
from conseq.report.style import Picture, Value
from conseq.report.tables import Cell, Group, NumberTable, about

_MOST_MODELS = 4
_CUTS = {
    "history": "length of the history, items",
    "popularity": "training interactions of the target",
    "time tie": "target picked by the tie rule",
    "repeat": "target already in the history",
}
_SLICED = "Parts of the cases of one evaluation; every model was trained on all users together."
_NOTES = {"time tie": " yes: several interactions of the user have the target's time, and the rule for ties picked it."}


@dataclass(frozen=True, kw_only=True)
class _Chart:
    """What grouped bars show, whatever they are groups of.

    Attributes:
        name: Stem of the figure's files.
        metric: What is measured.
        by: What the groups are groups by.
        history: The protocol.
        note: What a reader must know of the groups.
        counted: What the numbers in brackets count.
        cases: By group, their number.
        values: By result, by group.
    """

    name: str
    metric: str
    by: str
    history: str
    note: str
    counted: str
    cases: Mapping[str, int]
    values: Mapping[str, Mapping[str, Estimate | None]]


def slices(found: Sequence[Result], cut: str, history: str, name: str) -> list[Picture]:
    """Gives bars of a metric for parts of the test cases, four models at a time.

    Args:
        found: Results on one data set.
        cut: ``history``, ``popularity``, ``time tie`` or ``repeat``.
        history: The protocol.
        name: Stem of the names of the figures.

    Returns:
        The figures; none where no result has at least two parts.
    """
    some = [one for one in found if len(_parts(one.first, cut, history)) > 1]
    metric = _sliced_metric(some, cut, history)
    if metric is None:
        return []

    def drawn(models: Sequence[Result], number: int) -> list[Picture]:
        cases = {part: int(values["cases"]) for part, values in _parts(models[0].first, cut, history).items()}
        chart = _Chart(
            name=f"{name}-{cut.replace(' ', '-')}-{history}-{number}",
            metric=metric,
            by=_CUTS.get(cut, cut),
            history=history,
            note=_SLICED + _NOTES.get(cut, ""),
            counted="cases",
            cases=cases,
            values={one.shown: {part: _part(one, cut, part, metric, history) for part in cases} for one in models},
        )
        return [_picture(chart, models)]

    return in_figures(some, _MOST_MODELS, drawn)


def representatives(found: Sequence[Result]) -> list[Result]:
    """Gives one result of each method and encoder, the one with most seeds: as many as figures can show.

    Args:
        found: Results on one data set.

    Returns:
        Some of them; what the code finds is preferred to what is stale, then the method itself to its variants.
    """

    def rank(one: Result) -> tuple[bool, bool, int]:
        return not one.stale, one.first["variant"] in {"", one.first["instances"]}, len(one.records)

    chosen: dict[tuple[str, str], Result] = {}
    for one in found:
        key = (one.first["method"], one.first["encoder"])
        if key not in chosen or rank(one) > rank(chosen[key]):
            chosen[key] = one
    return list(chosen.values())


def slice_table(found: Sequence[Result], cut: str, history: str) -> NumberTable | None:
    """Gives a metric of all results for the parts of a cut; None where no result has at least two parts.

    Args:
        found: Results on one data set.
        cut: As in :func:`slices`.
        history: The protocol.

    Returns:
        The table.
    """
    some = [one for one in found if len(_parts(one.first, cut, history)) > 1]
    metric = _sliced_metric(some, cut, history)
    if metric is None:
        return None
    parts = {part: int(values["cases"]) for part, values in _parts(some[0].first, cut, history).items()}
    groups = []
    for one in some:
        cells = (Cell(with_spread(_part(one, cut, part, metric, history), metric)) for part in parts)
        groups.append(Group(one.label, (about(one, some),), ((Cell(f"n = {len(one.records)}"), *cells),), one.stale))
    verb = "excluded" if history == "exclude" else "kept"
    return NumberTable(
        f"{metric} by {_CUTS.get(cut, cut)}, history {verb}",
        statement([record for one in some for record in one.records], history=history),
        ("model", *(f"{part} ({cases:,} cases)" for part, cases in parts.items())),
        tuple(groups),
        _SLICED + _NOTES.get(cut, ""),
    )


def _sliced_metric(found: Sequence[Result], cut: str, history: str) -> str | None:
    names = [key for one in found for part in _parts(one.first, cut, history).values() for key in part]
    return main_metric(key for key in names if key != "cases")


def _part(result: Result, cut: str, part: str, metric: str, history: str) -> Estimate | None:
    return estimate([_parts(record, cut, history).get(part, {}).get(metric) for record in result.records])


def user_groups(found: Sequence[Result], key: str, name: str) -> list[Picture]:
    """Gives bars of a metric for groups of users by the length of their sequences.

    Args:
        found: Results on one data set; those without the analysis are left out.
        key: The analysis: ``groups`` (one model for all) or ``groups_apart`` (a model for each group).
        name: Stem of the names of the figures.

    Returns:
        The figures; none where the analysis is not one by groups. Each is of one version of the log: it counts users.
    """
    logs = sorted({one.first["data_hash"] for one in found})
    pictures = []
    for log in logs:
        own = [one for one in found if one.first["data_hash"] == log]
        stem = f"{name}-{key.replace('_', '-')}{f'-{log[:8]}' if len(logs) > 1 else ''}"
        kinds = sorted({kind for one in own if (kind := _kind(one.first["analyses"].get(key)))})
        for history, apart in kinds:
            pictures += _user_groups(own, key, history, stem, apart=apart)
    return pictures


def _kind(analysis: object) -> tuple[str, bool] | None:
    """Gives the protocol of an analysis by groups, and whether they were trained apart; None for another analysis."""
    if not isinstance(analysis, dict) or not analysis.get("groups") or "apart" not in analysis:
        return None
    return str(analysis["protocol"]["history"]), bool(analysis["apart"])


def _user_groups(found: Sequence[Result], key: str, history: str, name: str, *, apart: bool) -> list[Picture]:
    some = [
        one for one in found if all(_kind(record["analyses"].get(key)) == (history, apart) for record in one.records)
    ]
    metric = main_metric(
        metric for one in some for group in _groups(one.first, key).values() for metric in group["metrics"]
    )
    if metric is None:
        return []
    trained = "A model of its own was trained for each group." if apart else "One model was trained for all users."

    def drawn(models: Sequence[Result], number: int) -> list[Picture]:
        chart = _Chart(
            name=f"{name}-{history}-{number}",
            metric=metric,
            by="length of the user's sequence, items",
            history=history,
            note=trained,
            counted="judged users",
            cases={group: int(value["judged"]) for group, value in _groups(models[0].first, key).items()},
            values={one.shown: _means(one, key, metric) for one in models},
        )
        return [_picture(chart, models)]

    return in_figures(some, _MOST_MODELS, drawn)


def _groups(record: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for group in record["analyses"].get(key, {}).get("groups", [])}


def _means(result: Result, key: str, metric: str) -> dict[str, Estimate | None]:
    own = [_groups(record, key) for record in result.records]
    return {name: estimate([one.get(name, {}).get("metrics", {}).get(metric) for one in own]) for name in own[0]}


def _picture(chart: _Chart, models: Sequence[Result]) -> Picture:
    verb = "excluded" if chart.history == "exclude" else "kept"
    records = [record for one in models for record in one.records]
    own = {label: [values.get(group) for group in chart.cases] for label, values in chart.values.items()}
    bars = [
        Bars(
            label,
            tuple(value.mean if value else None for value in values),
            tuple(value.spread if value else None for value in values),
        )
        for label, values in own.items()
    ]
    ticks = tuple(f"{group} ({count:,})" for group, count in chart.cases.items())
    told = (
        f"{label}: "
        + ", ".join(f"{group} {with_spread(value)}" for group, value in zip(chart.cases, values, strict=True))
        for label, values in own.items()
    )
    return Picture(
        name=chart.name,
        title=f"{chart.metric} by {chart.by}, history {verb}",
        svg=bar_chart(bars, Labels(f"{chart.metric}, test, history {verb}", chart.by, ticks)),
        alt=f"Bar chart of {chart.metric} by {chart.by}. " + ". ".join(told) + ".",
        caption=(
            f"Test {chart.metric} by {chart.by}, history {verb}; in brackets the number of {chart.counted}. "
            f"{chart.note} Whiskers: standard deviation over seeds (seeds {listed(one['seed'] for one in records)}), "
            "none where there is one seed."
        ),
        protocol=statement(records, history=chart.history),
        columns=("model", chart.by, chart.counted, f"mean {chart.metric}", "standard deviation", "runs"),
        rows=tuple(
            (label, group, chart.cases[group], *_numbers(value))
            for label, values in own.items()
            for group, value in zip(chart.cases, values, strict=True)
        ),
    )


def _numbers(value: Estimate | None) -> tuple[Value, Value, Value]:
    return (None, None, 0) if value is None else (value.mean, value.spread, value.n)


def _parts(record: Mapping[str, Any], cut: str, history: str) -> dict[str, dict[str, float]]:
    found = record["both"].get(history, {}).get("slices", {}).get(cut, {})
    return {part: found[part] for part in ordered_parts(found)}
