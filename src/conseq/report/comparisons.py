"""Results beside each other as bars: ablations, and whole tables of a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conseq.report.charts import Bars, Labels, bar_chart
from conseq.report.numbers import number, with_spread
from conseq.report.results import Estimate, History, Result, in_parts, main_metric
from conseq.report.statement import statement
from conseq.report.style import Picture
from conseq.report.tables import FLOORS, floor_value, row_key
from conseq.study.answers import Answer
from conseq.study.specification import Table

_MOST_ROWS = 14
_VERBS: Mapping[History, str] = {"exclude": "excluded", "keep": "kept"}


def ablation(table: Table, answers: Sequence[Answer], own: Sequence[Result], name: str) -> list[Picture]:
    """Gives bars of our results for the rows of a paper's table, with the paper's numbers as diamonds.

    Where nothing is printed, nobody's protocol is the right one, and both have their bars.

    Args:
        table: The paper's table.
        answers: Its cells; points of sweeps, and rows that ask for an analysis, are left out.
        own: Our results for its rows: the protocol.
        name: Stem of the names of the figures.

    Returns:
        One figure for every fourteen rows; none where fewer than two rows were run.
    """
    rows = [one for one in answers if not (one.row.parameter or one.row.floor or one.row.analysis)]
    metric = main_metric((one.metric for one in rows if one.ours is not None), table.metric)
    shown = [one for one in rows if one.metric == metric and one.ours is not None]
    if metric is None or len(shown) < 2:
        return []
    # Nobody's protocol is the right one for a table of which nothing is printed.
    protocols = _protocols(table) if all(one.paper is None for one in answers) else _protocols(table)[:1]
    floors = _floors(own, metric, protocols)
    labels = {row_key(one.row): _label(one, shown) for one in shown}
    parts = in_parts(shown, _MOST_ROWS)
    return [
        _picture(table, {labels[row_key(one.row)]: one for one in some}, own, protocols, floors, f"{name}-bars-{part}")
        for part, some in enumerate(parts, start=1)
    ]


def _protocols(table: Table) -> tuple[History, ...]:
    """Gives the table's own treatment of the history, then the other."""
    return ("exclude", "keep") if table.history == "exclude" else ("keep", "exclude")


def _floors(found: Sequence[Result], metric: str, protocols: Sequence[History]) -> list[tuple[str, float]]:
    return [
        (f"{floor}, history {_VERBS[history]}" if len(protocols) > 1 else floor, value)
        for floor in FLOORS
        for history in protocols
        if (value := floor_value(found, floor, metric, history))
    ]


def _picture(
    table: Table,
    shown: Mapping[str, Answer],
    own: Sequence[Result],
    protocols: Sequence[History],
    floors: Sequence[tuple[str, float]],
    name: str,
) -> Picture:
    labels, some = tuple(shown), list(shown.values())
    metric = some[0].metric
    found = [[_estimate(one, here=number == 0) for one in some] for number in range(len(protocols))]
    told = [f"history {_VERBS[history]}" if len(protocols) > 1 else "ours" for history in protocols]
    bars = [
        Bars(kind, tuple(map(_mean, values)), tuple(map(_spread, values)))
        for kind, values in zip(told, found, strict=True)
    ]
    printed = [one.paper for one in some]
    said = (
        f"{label}: {', '.join(f'{kind} {with_spread(value)}' for kind, value in zip(told, values, strict=True))}, "
        f"paper {number(one.paper)}"
        for label, one, values in zip(labels, some, zip(*found, strict=True), strict=True)
    )
    verbs = " and ".join(_VERBS[history] for history in protocols)
    return Picture(
        name=name,
        title=f"{metric}: {table.title}",
        svg=bar_chart(bars, Labels(f"{metric}, test", "", labels), printed=printed, floors=floors),
        alt=f"Bar chart of {metric}. " + ". ".join(said) + ".",
        caption=(
            f"Test {metric}, history {verbs}. Bars: mean of our runs; whiskers: standard deviation over seeds, none "
            "where there is one seed; vertical lines: what learns nothing."
            f"{' Diamonds: the numbers that the paper prints.' if any(printed) else ''}"
        ),
        protocol=statement(
            [record for one in own for record in one.records],
            history="as the marks say" if len(protocols) > 1 else table.history,
        ),
        columns=("row", "preset", "history", f"paper {metric}", f"our mean {metric}", "standard deviation", "runs"),
        rows=tuple(
            (
                one.row.name, one.row.preset, _VERBS[history], one.paper, _mean(value), _spread(value),
                one.n,
            )
            for history, values in zip(protocols, found, strict=True)
            for one, value in zip(some, values, strict=True)
        ),
    )  # fmt: skip


def _estimate(answer: Answer, *, here: bool) -> Estimate | None:
    """Gives our number under the table's protocol or the other one."""
    mean, spread = (answer.ours, answer.spread) if here else (answer.elsewhere, answer.elsewhere_spread)
    return None if mean is None else Estimate(mean, spread, answer.n)


def _mean(found: Estimate | None) -> float | None:
    return None if found is None else found.mean


def _spread(found: Estimate | None) -> float | None:
    return None if found is None else found.spread


def _label(answer: Answer, shown: Sequence[Answer]) -> str:
    same = [one for one in shown if one.row.name == answer.row.name]
    name = f"{answer.row.name} ({answer.row.preset})" if len(same) > 1 else answer.row.name
    return f"{name} [stale]" if answer.stale else name
