"""Results beside each other as bars: ablations, and whole tables of a paper."""

from __future__ import annotations

from collections.abc import Sequence

from conseq.report.charts import Bars, Labels, bar_chart
from conseq.report.numbers import number, with_spread
from conseq.report.results import Estimate, Result, in_parts, main_metric
from conseq.report.statement import statement
from conseq.report.style import Picture
from conseq.report.tables import FLOORS, floor_value
from conseq.study.answers import Answer
from conseq.study.specification import Table

_MOST_ROWS = 14


def ablation(table: Table, answers: Sequence[Answer], own: Sequence[Result], name: str) -> list[Picture]:
    """Gives bars of our results for the rows of a paper's table, with the paper's numbers as diamonds.

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
    records = [record for one in own for record in one.records]
    floors = [(floor, value) for floor in FLOORS if (value := floor_value(own, floor, metric, table.history))]
    pictures = []
    for part, some in enumerate(in_parts(shown, _MOST_ROWS)):
        labels = tuple(_label(one, shown) for one in some)
        bars = Bars("ours", tuple(one.ours for one in some), tuple(one.spread for one in some))
        printed = [one.paper for one in some]
        told = (f"{label}: {_told(one)}" for label, one in zip(labels, some, strict=True))
        pictures.append(
            Picture(
                name=f"{name}-bars-{part + 1}",
                title=f"{metric}: {table.title}",
                svg=bar_chart([bars], Labels(f"{metric}, test", "", labels), printed=printed, floors=floors),
                alt=f"Bar chart of {metric}. " + ". ".join(told) + ".",
                caption=(
                    f"Test {metric}, history {'excluded' if table.history == 'exclude' else 'kept'}. Bars: mean of our "
                    "runs; whiskers: standard deviation over seeds, none where there is one seed; vertical lines: what "
                    f"learns nothing.{' Diamonds: the numbers that the paper prints.' if any(printed) else ''}"
                ),
                protocol=statement(records, history=table.history),
                columns=("row", "preset", f"paper {metric}", f"our mean {metric}", "standard deviation", "runs"),
                rows=tuple((one.row.name, one.row.preset, one.paper, one.ours, one.spread, one.n) for one in some),
            )
        )
    return pictures


def _label(answer: Answer, shown: Sequence[Answer]) -> str:
    same = [one for one in shown if one.row.name == answer.row.name]
    name = f"{answer.row.name} ({answer.row.preset})" if len(same) > 1 else answer.row.name
    return f"{name} [stale]" if answer.stale else name


def _told(answer: Answer) -> str:
    found = None if answer.ours is None else Estimate(answer.ours, answer.spread, answer.n)
    return f"ours {with_spread(found)}, paper {number(answer.paper)}"
