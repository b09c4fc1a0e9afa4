"""How the vectors of models lie in space: the fall of their singular values, and their spread in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from conseq.report.charts import Labels, Series, line_chart
from conseq.report.numbers import with_spread
from conseq.report.parts import in_figures
from conseq.report.results import Result, estimate
from conseq.report.statement import listed, statement
from conseq.report.style import MOST_SERIES, Picture
from conseq.report.tables import Cell, Group, NumberTable, about

_KINDS = {"items": "item vectors", "users": "user vectors (test histories)"}
_MEASURES = (
    ("effective_rank", "effective rank"),
    ("mean_cosine", "mean cosine"),
    ("uniformity", "uniformity"),
    ("mean_norm", "mean length"),
)
_POSITIVES = {"same_target": "alignment, same next item", "dropout": "alignment, two dropout masks"}


def spectra(found: Sequence[Result], name: str) -> list[Picture]:
    """Gives the singular values of item and user vectors.

    Args:
        found: Results on one data set; those without the analysis ``representations`` are left out.
        name: Stem of the names of the figures.

    Returns:
        The figures.
    """
    some = _measured(found)
    return [
        picture
        for kind in _KINDS
        for picture in in_figures(some, MOST_SERIES, partial(_pictures, kind=kind, stem=f"{name}-spectrum-{kind}"))
    ]


def _pictures(found: Sequence[Result], part: int, *, kind: str, stem: str) -> list[Picture]:
    return [_picture(found, kind, f"{stem}-{part}")]


def spread_table(found: Sequence[Result]) -> NumberTable | None:
    """Gives effective rank, cosine, uniformity and alignment of models.

    Args:
        found: Results on one data set.

    Returns:
        The table; None where none was measured.
    """
    some = _measured(found)
    if not some:
        return None
    records = [record for one in some for record in one.records]
    measured = {pair for record in records for pair in _analysis(record)["alignment"]}
    positives = [one for one in _POSITIVES if one in measured]
    columns = ("of", *(label for _, label in _MEASURES), *(_POSITIVES[one] for one in positives))
    groups = tuple(
        Group(one.label, (about(one, some),), tuple(_spread(one, kind, positives) for kind in _KINDS), one.stale)
        for one in some
    )
    note = (
        "Effective rank: dimensions that the singular values fill. Uniformity: the lower, the more evenly spread on "
        "the sphere. Alignment: mean squared distance of positive pairs on the sphere, 0 to 4; of user vectors alone."
    )
    history = records[0]["history"]
    return NumberTable("Spread of the vectors", statement(records, history=history), columns, groups, note)


def _measured(found: Sequence[Result]) -> list[Result]:
    return [one for one in found if all(_analysis(record) for record in one.records)]


def _analysis(record: Mapping[str, Any]) -> dict[str, Any]:
    return dict(record["analyses"].get("representations", {}))


def _spread(result: Result, kind: str, positives: Sequence[str]) -> tuple[Cell, ...]:
    own = [_analysis(record) for record in result.records]
    cells = [Cell(kind), *(Cell(with_spread(estimate([one[kind][key] for one in own]))) for key, _ in _MEASURES)]
    for pair in positives:
        found = [one["alignment"].get(pair, {}).get("value") for one in own] if kind == "users" else []
        cells.append(Cell(with_spread(estimate(found))))
    return tuple(cells)


def _picture(found: Sequence[Result], kind: str, name: str) -> Picture:
    lines = [
        (place, one, record, _analysis(record)[kind]["singular_values"])
        for place, one in enumerate(found)
        for record in one.records
    ]
    series = [
        Series(one.shown, tuple(float(rank) for rank in range(1, len(values) + 1)), tuple(values), look=place)
        for place, one, _, values in lines
    ]
    records = [record for one in found for record in one.records]
    ranks = [estimate([_analysis(record)[kind]["effective_rank"] for record in one.records]) for one in found]
    told = (f"{one.shown}: effective rank {with_spread(rank)}" for one, rank in zip(found, ranks, strict=True))
    return Picture(
        name=name,
        title=f"Singular values of {_KINDS[kind]}",
        svg=line_chart(series, Labels("place of the singular value", "value / the largest")),
        alt=f"Line chart of the singular values of {_KINDS[kind]}, falling from 1. " + ". ".join(told) + ".",
        caption=(
            f"Singular values of the matrix of {_KINDS[kind]}, not centred, over the largest (no unit); a curve that "
            "falls at once says that the vectors lie in a narrow cone. One line for each seed "
            f"(seeds {listed(one['seed'] for one in records)})."
        ),
        protocol=statement(records, history=records[0]["history"]),
        columns=("model", "seed", "place", "value / the largest"),
        rows=tuple(
            (one.shown, record["seed"], rank, value)
            for _, one, record, values in lines
            for rank, value in enumerate(values, 1)
        ),
    )
