"""What each model gains over SASRec that was trained alike: the difference, with an interval where ranks were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conseq.evaluation.compare import compare_groups
from conseq.evaluation.metrics import parse
from conseq.report.charts import Dot, Dots, Labels, dot_chart
from conseq.report.numbers import NONE, signed_minus
from conseq.report.results import Estimate, History, Result, in_parts, main_metric
from conseq.report.statement import statement
from conseq.report.style import Picture, Value
from conseq.study.specification import Table
from conseq.study.top_ranks import KEY as RANKS
from conseq.study.top_ranks import TOP, unpacked

_MOST_ROWS = 13
_VERBS: Mapping[History, str] = {"keep": "kept", "exclude": "excluded"}


@dataclass(frozen=True, kw_only=True)
class _Chart:
    """What one figure shows.

    Attributes:
        table: The table of the models.
        metric: What is compared.
        models: Which of them.
        baselines: What they are compared with, one for each kind of instances.
        own: The gains under each protocol, by label.
    """

    table: Table
    metric: str
    models: Sequence[Result]
    baselines: Sequence[Result]
    own: Mapping[History, Mapping[str, _Gain]]


@dataclass(frozen=True)
class _Gain:
    """What a model has more than the baseline under one protocol.

    Attributes:
        value: The difference.
        low: End of its interval over users; None: not known.
        high: The other end.
        p_adjusted: Holm's, over the models of the table and protocol that have an interval; None: not known.
        seeds: Of the model and of the baseline, whose runs it is of.
    """

    value: float
    low: float | None
    high: float | None
    p_adjusted: float | None
    seeds: tuple[int, int]


def gains(table: Table, found: Sequence[Result], name: str) -> list[Picture]:
    """Gives what the models of a table gain over SASRec under both protocols.

    A model is compared with SASRec of the same instances. Where runs of both keep their ranks by user, the difference
    is of those runs, with a paired bootstrap interval over users, as ``conseq compare`` gives it; else it is that of
    the means.

    Args:
        table: A table that no paper prints, all of whose models are trained alike.
        found: Our results for its rows, in their order.
        name: Stem of the names of the figures.

    Returns:
        The figures, thirteen models each; none without SASRec, or without a model beside it.
    """
    metric = main_metric(found[0].metrics(table.history), table.metric) if found else None
    baselines = {one.first["instances"]: one for one in found if one.is_sasrec}
    others = [one for one in found if not one.is_sasrec and one.first["instances"] in baselines]
    if metric is None or not others:
        return []
    histories: tuple[History, ...] = ("keep", "exclude")
    own = {history: _gains(others, baselines, metric, history) for history in histories}
    parts = in_parts(others, _MOST_ROWS)
    pictures = []
    for part, some in enumerate(parts, 1):
        chart = _Chart(table=table, metric=metric, models=some, baselines=list(baselines.values()), own=own)
        told = f" ({part} of {len(parts)})" if len(parts) > 1 else ""
        pictures.append(_picture(chart, f"{name}-gains-{part}", told))
    return pictures


def _gains(
    others: Sequence[Result], baselines: Mapping[str, Result], metric: str, history: History
) -> dict[str, _Gain]:
    """Gives the gains by label; models without the metric are left out."""
    found: dict[str, _Gain] = {}
    for instances, baseline in baselines.items():
        beside = [one for one in others if one.first["instances"] == instances]
        before = baseline.estimate(metric, history)
        for one in beside:
            after = one.estimate(metric, history)
            if before and after:
                found[one.label] = _Gain(after.mean - before.mean, None, None, None, (after.n, before.n))
        found |= _by_user(beside, baseline, metric, history)
    return found


def _by_user(others: Sequence[Result], baseline: Result, metric: str, history: History) -> dict[str, _Gain]:
    """Gives the gains of which the ranks by user are kept, on both sides."""
    if (parse(metric).k or TOP + 1) > TOP:
        return {}
    before = [unpacked(one, history) for one in baseline.records if RANKS in one]
    after = {one.label: [unpacked(record, history) for record in one.records if RANKS in record] for one in others}
    known = {label: runs for label, runs in after.items() if before and runs}
    if not known:
        return {}
    compared = compare_groups(before, list(known.values()), [metric])
    return {
        label: _Gain(one.difference.value, one.difference.low, one.difference.high, one.p_adjusted, one.seeds[::-1])
        for label, one in zip(known, compared, strict=True)
    }


def _picture(chart: _Chart, name: str, told: str) -> Picture:
    metric, models, baselines = chart.metric, chart.models, chart.baselines
    seeded = [one for one in baselines if len(one.records) > 1]
    ticks = (*(f"{one.shown}, its seeds" for one in seeded), *(one.shown for one in models))
    kinds, rows = [], list[tuple[Value, ...]]()
    for history, gained in chart.own.items():
        dots = [
            Dot(place, value) for place, one in enumerate(seeded) for value in _about_the_mean(one, metric, history)
        ]
        for place, one in enumerate(models, len(seeded)):
            gain = gained.get(one.label)
            if gain is not None:
                dots.append(Dot(place, gain.value, gain.low, gain.high))
                rows.append((one.label, _VERBS[history], *_numbers(gain)))
        kinds.append(Dots(f"history {_VERBS[history]}", tuple(dots)))
    records = [record for one in (*baselines, *models) for record in one.records]
    return Picture(
        name=name,
        title=f"{metric}: gain over SASRec{told}",
        svg=dot_chart(kinds, Labels(f"difference in {metric} from SASRec, test", "", ticks)),
        alt=f"Dot chart of the difference in {metric} from SASRec. " + ". ".join(map(_told, rows)) + ".",
        caption=(
            f"{chart.table.title}: test {metric} less that of SASRec, trained alike on the same instances. Filled: "
            "runs whose records keep ranks by user, with the 95 % interval of the paired bootstrap over users, of each "
            "difference by itself; open: difference of the means over seeds, no interval."
            + (" First row: each seed of SASRec less their mean." if seeded else "")
        ),
        protocol=statement(records, history="as the marks say"),
        columns=(
            "model", "history", f"gain in {metric}", "low", "high", "Holm's p", "runs", "runs of SASRec",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _about_the_mean(result: Result, metric: str, history: History) -> list[float]:
    found: Estimate | None = result.estimate(metric, history)
    if found is None:
        return []
    return [one["both"][history]["metrics"][metric] - found.mean for one in result.records]


def _numbers(gain: _Gain) -> tuple[Value, ...]:
    return (gain.value, gain.low, gain.high, gain.p_adjusted, *gain.seeds)


def _told(row: Sequence[Value]) -> str:
    model, history, value, low, high, *_ = row
    between = f" ({_signed(low)} to {_signed(high)})" if low is not None else ""
    return f"{model}, history {history}: {_signed(value)}{between}"


def _signed(value: Value) -> str:
    return signed_minus(f"{value:+.4f}") if isinstance(value, float) else NONE
