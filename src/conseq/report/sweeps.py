"""Curves over a setting or over noise: sensitivity and robustness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from conseq.report.charts import LOG_FROM, POPULARITY, Labels, Series, line_chart
from conseq.report.numbers import number, with_spread
from conseq.report.parts import in_figures
from conseq.report.results import Estimate, Result, estimate, main_metric
from conseq.report.statement import listed, statement
from conseq.report.style import MOST_SERIES, Picture
from conseq.report.tables import floor_value
from conseq.study.answers import Answer
from conseq.study.specification import Table


def sensitivity(table: Table, answers: Sequence[Answer], own: Sequence[Result], name: str) -> list[Picture]:
    """Gives a curve of a metric over each setting that a paper's figure varies.

    Args:
        table: The figure's specification.
        answers: Its cells.
        own: Our results for its rows: the protocol.
        name: Stem of the names of the figures.

    Returns:
        A figure for every setting of which at least two values were run; several where one cannot hold all curves.
    """
    swept = [one for one in answers if one.row.parameter and one.ours is not None]
    pictures = []
    for place, parameter in enumerate(dict.fromkeys(one.row.parameter for one in swept)):
        cells = [one for one in swept if one.row.parameter == parameter]
        metric = main_metric((one.metric for one in cells), table.metric)
        cells = [one for one in cells if one.metric == metric]
        if len({str(one.row.value) for one in cells}) > 1:
            draw = partial(_sensitivity, table, _axis(cells), own, f"{name}-sweep-{place + 1}")
            pictures += in_figures(_curves(cells), MOST_SERIES, draw)
    return pictures


@dataclass(frozen=True)
class _Curve:
    """A curve over a setting.

    Attributes:
        label: As it is called beside others.
        points: Its points, of one metric.
    """

    label: str
    points: tuple[Answer, ...]

    @property
    def is_sasrec(self) -> bool:
        """Whether it is the baseline, over a setting that it has too."""
        return all(
            one.row.config is not None
            and (one.row.config.method_name, one.row.config.encoder_name) == ("next_item", "sasrec")
            for one in self.points
        )


def _curves(cells: Sequence[Answer]) -> list[_Curve]:
    presets = {one.row.preset for one in cells}
    found: dict[str, list[Answer]] = {}
    for one in cells:
        label = f"{one.row.curve} ({one.row.preset})" if len(presets) > 1 else one.row.curve
        found.setdefault(label, []).append(one)
    return [_Curve(label, tuple(points)) for label, points in found.items()]


@dataclass(frozen=True)
class _Axis:
    """The values of a setting, the same for all figures that share its curves.

    Attributes:
        places: Where each value stands, as it is shown.
        numeric: Whether the places are the values themselves.
    """

    places: Mapping[str, float]
    numeric: bool


def _axis(cells: Sequence[Answer]) -> _Axis:
    values = {_shown(one.row.value): _number(one.row.value) for one in cells}
    numbers = {shown: value for shown, value in values.items() if value is not None}
    if len(numbers) < len(values):
        return _Axis({shown: float(place) for place, shown in enumerate(values)}, numeric=False)
    above = [value for value in numbers.values() if value > 0]
    if min(numbers.values()) == 0 and max(above) >= LOG_FROM * min(above):
        # No logarithm is that of 0: the values stand side by side.
        ordered = sorted(numbers, key=lambda shown: numbers[shown])
        return _Axis({shown: float(place) for place, shown in enumerate(ordered)}, numeric=False)
    return _Axis(numbers, numeric=True)


def _sensitivity(
    table: Table, axis: _Axis, own: Sequence[Result], stem: str, curves: Sequence[_Curve], part: int
) -> list[Picture]:
    first = curves[0].points[0]
    metric, parameter = first.metric, first.row.parameter
    setting = parameter.partition(".")[2].replace("_", " ") or parameter
    series: list[Series] = []
    for place, curve in enumerate(curves):
        old = " [some stale]" if any(one.stale for one in curve.points) else ""
        at = [axis.places[_shown(one.row.value)] for one in curve.points]
        series += _with_printed(curve.label + old, curve.points, at, place)
    records = [record for one in own for record in one.records]
    lines = _lines(own, curves, metric, table.history)
    verb = "excluded" if table.history == "exclude" else "kept"
    points = [(curve.label, one) for curve in curves for one in curve.points]
    told = (f"{label}, {_shown(one.row.value)}: {number(one.ours)}" for label, one in points)
    labels = Labels(
        f"{setting} ({parameter})" if setting != parameter else setting,
        f"{metric}, test",
        ticks=() if axis.numeric else tuple(axis.places),
        places=tuple(sorted(axis.places.values())) if axis.numeric else (),
    )
    picture = Picture(
        name=f"{stem}-{part}",
        title=f"{metric} by {setting}",
        svg=line_chart(series, labels, lines=lines),
        alt=f"Line chart of {metric} by {setting}. " + "; ".join(told) + ".",
        caption=(
            f"{table.paper}, {table.title}: test {metric}, history {verb}, for values of {setting}; the other settings "
            "as in the row. Points: mean of our runs; whiskers: standard deviation over seeds, none where there is one "
            "seed; dotted with open markers: the paper's numbers, where it prints them."
        ),
        protocol=statement(records, history=table.history),
        columns=("model", setting, f"paper {metric}", f"our mean {metric}", "standard deviation", "runs", "stale"),
        rows=tuple(
            (label, _shown(one.row.value), one.paper, one.ours, one.spread, one.n, one.stale) for label, one in points
        ),
    )
    return [picture]


def _lines(found: Sequence[Result], curves: Sequence[_Curve], metric: str, history: str) -> list[tuple[str, float]]:
    """Gives what the curves are seen against: SASRec where it is a row and no curve, else popularity.

    Popularity lies so far below that beside SASRec it would only press the curves together.
    """
    own = [(one.shown, one.estimate(metric, history)) for one in found if one.is_sasrec]
    if lines := [
        (name, value.mean) for name, value in own if value is not None and not any(c.is_sasrec for c in curves)
    ]:
        return lines
    floor = floor_value(found, "popularity", metric, history)
    return [] if floor is None else [(POPULARITY, floor)]


def _with_printed(curve: str, points: Sequence[Answer], at: Sequence[float], place: int) -> list[Series]:
    order = sorted(range(len(points)), key=lambda number_: at[number_])
    ours = Series(
        curve,
        tuple(at[one] for one in order),
        tuple(float(points[one].ours or 0.0) for one in order),
        tuple(points[one].spread for one in order),
        look=place,
    )
    known = [one for one in order if points[one].paper is not None]
    if not known:
        return [ours]
    printed = tuple(float(points[one].paper or 0.0) for one in known)
    return [ours, Series(f"{curve}, paper", tuple(at[one] for one in known), printed, look=place, faint=True)]


def _number(value: Any) -> float | None:
    """Gives a value of a setting as a number, also one that is alone in a list; None for anything else."""
    if isinstance(value, list | tuple) and len(value) == 1:
        return _number(value[0])
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def robustness(found: Sequence[Result], name: str) -> list[Picture]:
    """Gives a metric by the share of random items inserted into test histories, and its relative loss.

    Args:
        found: Results on one data set; those without the analysis ``noise`` are left out.
        name: Stem of the names of the figures.

    Returns:
        Two figures for as many results as fit into one, and each protocol.
    """
    pictures = []
    for history in ("exclude", "keep"):
        noisy = [one for one in found if all(_history(record) == history for record in one.records)]
        metric = main_metric(key for one in noisy for key in _points(one.first)[0]["metrics"])
        if metric is not None:
            stem = f"{name}-noise-{history}"
            pictures += in_figures(noisy, MOST_SERIES, partial(_both, metric=metric, history=history, stem=stem))
    return pictures


def _both(found: Sequence[Result], part: int, *, metric: str, history: str, stem: str) -> list[Picture]:
    drawn = [_robustness(found, metric, history, f"{stem}-{part}", lost=lost) for lost in (False, True)]
    return [one for one in drawn if one.rows]  # of a metric that is 0, nothing can be lost


def _points(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(record["analyses"].get("noise", {}).get("points", []))


def _history(record: Mapping[str, Any]) -> str | None:
    noise = record["analyses"].get("noise")
    return str(noise["protocol"]["history"]) if noise and noise["points"] else None


def _robustness(found: Sequence[Result], metric: str, history: str, name: str, *, lost: bool) -> Picture:
    def at(point: Mapping[str, Any]) -> float | None:
        share = point["loss"].get(metric) if lost else point["metrics"].get(metric)
        return None if share is None else float(share) * (100 if lost else 1)

    curves = {one.shown: _curve(one, at) for one in found}
    series = [
        Series(
            label,
            tuple(100 * share for share in points),
            tuple(value.mean for value in points.values()),
            tuple(value.spread for value in points.values()),
            look=place,
        )
        for place, (label, points) in enumerate(curves.items())
        if points
    ]
    records = [record for one in found for record in one.records]
    verb = "excluded" if history == "exclude" else "kept"
    quantity = f"loss of {metric}, %" if lost else f"{metric}, test"
    settings = {(one["analyses"]["noise"]["seed"], one["analyses"]["noise"]["counting"]) for one in records}
    noise = "; ".join(f"seed {seed} of the noise, counting {counting}" for seed, counting in sorted(settings))
    told = (
        f"{label}: " + ", ".join(f"{100 * share:g} % {with_spread(value)}" for share, value in points.items())
        for label, points in curves.items()
    )
    return Picture(
        name=f"{name}-{'loss' if lost else 'value'}",
        title=f"{'Relative loss of' if lost else ''} {metric} by noise in test histories".strip(),
        svg=line_chart(series, Labels("random items inserted, % of the history", quantity)),
        alt=f"Line chart of {quantity} by share of inserted items. " + ". ".join(told) + ".",
        caption=(
            f"Random items inserted into test histories of models trained without noise, history {verb}; {noise}. "
            f"{'Loss: share of the value without noise. ' if lost else ''}Whiskers: standard deviation over the seeds "
            f"of training (seeds {listed(one['seed'] for one in records)}), none where there is one seed."
        ),
        protocol=statement(records, history=history),
        columns=("model", "share inserted", f"mean {quantity}", "standard deviation", "runs"),
        rows=tuple(
            (label, share, value.mean, value.spread, value.n)
            for label, points in curves.items()
            for share, value in points.items()
        ),
    )


def _curve(result: Result, at: Callable[[Mapping[str, Any]], float | None]) -> dict[float, Estimate]:
    """Gives the mean over seeds at every share that all seeds have."""
    found: dict[float, Estimate] = {}
    own = [{float(point["share"]): at(point) for point in _points(record)} for record in result.records]
    for share in own[0]:
        value = estimate([one.get(share) for one in own])
        if value is not None:
            found[share] = value
    return dict(sorted(found.items()))
