"""Evaluations and comparisons as tables, the protocol always in the title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conseq.evaluation.compare import Comparison
from conseq.evaluation.ranks import Protocol
from conseq.evaluation.result import Evaluation

LEFT_OUT = {
    "users_too_short": "users too short to be judged",
    "users_without_history": "users without a history, who are not judged",
    "users_with_only_cold_targets": "users not judged for want of targets known from training",
    "cold_targets_dropped": "targets left out that training never met",
    "cold_targets": "targets that training never met",
    "users_without_list": "users without a list, whose targets are misses",
    "short_lists": "lists shorter than the last cut-off",
}
"""What a cut of a log leaves out, or cannot reach, or what lists lack, and the words for it."""


def metrics_table(evaluation: Evaluation) -> Table:
    """Gives the metrics of a model, one per line, with its floors beside it."""
    table = _titled(f"{evaluation.model}: {evaluation.protocol}", caption=_caption(evaluation))
    table.add_column("metric")
    models: Mapping[str, Mapping[str, float]] = {evaluation.model: evaluation.metrics} | evaluation.floors
    for model in models:
        table.add_column(model, justify="right")
    for name in evaluation.metrics:
        table.add_row(name, *(_number(metrics.get(name), name) for metrics in models.values()))
    return table


def slices_table(evaluation: Evaluation, metrics: Sequence[str] = ()) -> Table:
    """Gives ``metrics`` for every part of the users or targets.

    They are those of the evaluation; where none is named HR and NDCG at 10, or at the last cut-off where 10 is none.
    """
    if not metrics:
        ks = {int(name.removeprefix("HR@")) for name in evaluation.metrics if name.startswith("HR@")}
        k = 10 if 10 in ks else max(ks)
        metrics = (f"HR@{k}", f"NDCG@{k}")
    table = _titled(f"{evaluation.model}, in parts: {evaluation.protocol}")
    for name in ("cut", "part", "cases", *metrics):
        table.add_column(name, justify="left" if name in {"cut", "part"} else "right")
    for cut, parts in evaluation.slices.items():
        for number, (part, values) in enumerate(parts.items()):
            cells = (_number(values[name], name) for name in metrics)
            table.add_row("" if number else cut, part, f"{values['cases']:,.0f}", *cells)
        table.add_section()
    return table


def comparison_table(comparisons: Sequence[Comparison], protocol: Protocol, *, among: str | None = None) -> Table:
    """Gives paired comparisons, one per line; ``protocol`` is the one that all were judged under.

    What all are compared with stands in the title, and not in every line; and so does the part of the users, if it was
    one.
    """
    references = list(dict.fromkeys(one.first for one in comparisons))
    one_reference = len(references) == 1
    part = f", {comparisons[0].users:,} users of {escape(among)}" if among and comparisons else ""
    table = _titled(f"Paired comparison{f' with {references[0]}' if one_reference else ''}: {protocol}{part}")
    headings: tuple[str, ...] = (
        "metric",
        *(() if one_reference else ("compared with",)),
        "model",
        "its value",
        "beside",
        "difference",
        " / ".join(dict.fromkeys(f"{100 * one.difference.confidence:g} % interval" for one in comparisons)),
        "p (bootstrap)",
        "p (t)",
        "p (Holm)",
    )
    several = any(max(one.seeds) > 1 for one in comparisons)
    headings += ("seeds", "p (seeds)") if several else ()
    for heading in headings:
        table.add_column(heading, justify="left" if heading in {"metric", "compared with", "model"} else "right")
    for one in comparisons:
        change = one.difference
        table.add_row(
            one.metric,
            *(() if one_reference else (escape(one.first),)),
            escape(one.second),
            f"{one.second_value:.4f}",
            f"{one.first_value:.4f}",
            f"{change.value:+.4f}",
            f"{change.low:+.4f} … {change.high:+.4f}",
            *(f"{p:.4f}" for p in (one.p_bootstrap, one.p_t, one.p_adjusted)),
            *([f"{one.seeds[1]}, {one.seeds[0]}", _number(one.p_seeds, "p")] if several else []),
        )
    return table


def as_text(table: Table, *, width: int = 160) -> str:
    """Gives the table as plain text without colours, at most ``width`` columns wide."""
    console = Console(file=StringIO(), width=width, no_color=True, highlight=False, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def _titled(title: str, *, caption: str | None = None) -> Table:
    """Gives an empty table that is as wide as its title, so that the protocol stands in one line."""
    return Table(title=escape(title), caption=caption, min_width=max(len(title), len(caption or "")))


def _number(value: float | None, name: str) -> str:
    if value is None:
        return ""
    return f"{value:,.1f}" if name.startswith("MeanPopularity") else f"{value:.4f}"


def _caption(evaluation: Evaluation) -> str:
    counts = evaluation.counts
    parts = [f"{counts['users']:,} users", f"{counts['items']:,} items"]
    if counts["targets"] != counts["users"]:
        parts.insert(1, f"{counts['targets']:,} targets")
    if counts["unreachable"]:
        parts.append(f"{counts['unreachable']:,} targets out of reach")
    if counts["score_tied"]:
        parts.append(f"{counts['score_tied']:,} ranks decided by the tie rule")
    parts += [f"{counts[name]:,} {words}" for name, words in LEFT_OUT.items() if name in counts]
    return ", ".join([*parts, f"{evaluation.seconds:.1f} s"])
