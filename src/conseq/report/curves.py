"""Learning curves: the validation metric by epoch, and by seconds of training (time to quality)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from conseq.report.charts import Labels, Series, line_chart
from conseq.report.numbers import duration, number
from conseq.report.parts import in_figures
from conseq.report.results import Result, main_metric
from conseq.report.statement import listed, statement
from conseq.report.style import MOST_SERIES, Picture, Value


def learning_curves(found: Sequence[Result], name: str) -> list[Picture]:
    """Gives two figures for as many results as fit into one: the validation metric by epoch and by seconds.

    Results that were validated under another metric or protocol stand in figures of their own.

    Args:
        found: Results; those without a curve are left out.
        name: Stem of the names of the figures.

    Returns:
        The figures.
    """
    pictures = []
    for number_, (metric, history) in enumerate(sorted({key for one in found if (key := _key(one))})):
        alike = [one for one in found if _key(one) == (metric, history)]
        stem = f"{name}-{number_ + 1}"
        pictures += in_figures(alike, MOST_SERIES, partial(_pictures, metric=metric, history=history, stem=stem))
    return pictures


def _pictures(found: Sequence[Result], part: int, *, metric: str, history: str, stem: str) -> list[Picture]:
    return [_picture(found, metric, history, f"{stem}-{part}", by=by) for by in ("epoch", "seconds")]


def _key(result: Result) -> tuple[str, str] | None:
    metric = main_metric(name for point in result.first["curve"] for name in point["metrics"])
    return None if metric is None else (metric, str(result.first["config"]["training"]["history"]))


def _picture(found: Sequence[Result], metric: str, history: str, stem: str, *, by: str) -> Picture:
    lines = [(one, record, _points(record, metric)) for one in found for record in one.records]
    place = 0 if by == "epoch" else 1
    series = [
        Series(
            one.shown,
            tuple(float(point[place]) for point in points),
            tuple(point[2] for point in points),
            look=found.index(one),
        )
        for one, _, points in lines
    ]
    unit = "epoch" if by == "epoch" else "training time in seconds"
    rows: list[tuple[Value, ...]] = [
        (one.shown, record["seed"], *point) for one, record, points in lines for point in points
    ]
    records = [record for one in found for record in one.records]
    return Picture(
        name=f"{stem}-by-{by}",
        title=f"Validation {metric} by {'epoch' if by == 'epoch' else 'time: how long to what quality'}",
        svg=line_chart(series, Labels(unit, f"{metric}, validation", wide=by == "seconds")),
        alt=f"Line chart of validation {metric} by {unit}. " + " ".join(_best(one, metric) for one in found),
        caption=_caption(metric, history, records, by),
        protocol=statement(records, history=history, part="validation"),
        columns=("model", "seed", "epoch", "seconds of training", f"validation {metric}"),
        rows=tuple(rows),
    )


def _points(record: dict[str, Any], metric: str) -> list[tuple[int, float, float]]:
    """Gives epoch, seconds of training until then, and metric, of every validation."""
    curve = record["curve"]
    spent = accumulate(float(point["seconds"]) for point in curve)
    return [
        (point["epoch"], round(seconds, 1), point["metrics"][metric])
        for point, seconds in zip(curve, spent, strict=True)
        if metric in point["metrics"]
    ]


def _best(result: Result, metric: str) -> str:
    best = [max(_points(one, metric), key=lambda point: point[2]) for one in result.records if _points(one, metric)]
    told = [f"{number(value)} at epoch {epoch} after {duration(seconds)}" for epoch, seconds, value in best]
    return f"{result.shown}: best {', '.join(told)}."


def _caption(metric: str, history: str, records: Sequence[dict[str, Any]], by: str) -> str:
    verb = {"exclude": "excluded from", "keep": "kept among"}[history]
    text = (
        f"{metric} on the validation part, items of the history {verb} the candidates; one line for each seed "
        f"(seeds {listed(one['seed'] for one in records)}), the first with markers at some of its validations."
    )
    if by == "epoch":
        return text
    machines = {one.get("machine") for one in records}
    note = " These runs were made on different machines: their times cannot be compared." if len(machines) > 1 else ""
    return f"{text} Wall time of training, validation not counted.{note}"
