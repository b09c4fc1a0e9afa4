"""The records as a page of the documentation."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from conseq.study.answers import Answer, answers
from conseq.study.cuts import cut_names, cut_of
from conseq.study.records import Record, but_seed, metrics_shown, stale
from conseq.study.specification import Table
from conseq.study.tables import PRINTED, UNPRINTED, cells, named, notes, protocol, unprinted, words

_HEAD = """# Results

<!-- Made by `make results` from the records under results/ and the tables under experiments/. Do not edit. -->

Every number below was measured by a run whose record is in `results/`: dataset, split, history protocol, preset, seeds,
commit and machine are in it. Metrics rank the whole catalogue, without sampling; equal scores count against the model.
*Stale* marks a result whose code or experiment has changed since. `sd` is over seeds; without it there is one run.

"""


def results_page(tables: Sequence[Table], records: Sequence[Record]) -> str:
    """Gives the page.

    Args:
        tables: All tables.
        records: All records.

    Returns:
        Markdown.
    """
    parts = [_HEAD]
    for dataset in sorted({one["dataset"] for one in records}):
        parts.append(_of_dataset(dataset, [one for one in records if one["dataset"] == dataset]))
    parts.append("## The papers' tables\n\nOnly tables with at least one run; the rest is in `experiments/`.\n")
    answered = [(table, answers(table, records)) for table in tables]
    parts.append(_verdicts([one for _, found in answered for one in found if one.n]))
    parts += [
        _of_table(table, found) for table, found in answered if any(one.row.floor is None and one.n for one in found)
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


def _of_dataset(dataset: str, records: Sequence[Record]) -> str:
    lines = [f"## {dataset}: all runs", ""]
    several = len({one["data_hash"] for one in records}) > 1
    splits = cut_names(records)
    for split, version in sorted({(splits[cut_of(one)], one["data_hash"]) for one in records}):
        own = [one for one in records if (splits[cut_of(one)], one["data_hash"]) == (split, version)]
        log_name = f"{dataset} (data {version[:8]})" if several else dataset
        for history in ("keep", "exclude"):
            lines += [_runs(log_name, split, history, own), ""]
    return "\n".join(lines)


def _runs(dataset: str, split: str, history: str, records: Sequence[Record]) -> str:
    first = records[0]["both"][history]["metrics"]
    metrics = [name for name in metrics_shown(several="Recall@20" in first) if name in first]
    kept = "kept among the candidates" if history == "keep" else "excluded from the candidates"
    head = ["method", "preset", "loss, instances", "runs", *metrics, "epochs", "code"]
    floors = records[0]["both"][history]["floors"]
    rows = [
        [f"*{name}*", "", "floor", "", *(f"{values[one]:.4f}" for one in metrics), "", ""]
        for name, values in floors.items()
    ]
    groups = sorted(_groups(records), key=lambda own: _mean(own, history, metrics[-1]))
    for own in groups:
        first = own[0]
        name = f"{first['method']}, {first['variant']}" if first["variant"] else first["method"]
        encoder = "" if first["encoder"] == "sasrec" else f", {first['encoder']}"
        code = ", ".join(sorted({one["commit"] for one in own})) + (" (stale)" if any(map(stale, own)) else "")
        epochs = ", ".join(f"{one['best_epoch']} of {one['epochs']}" for one in own)
        values = [_value(own, history, one) for one in metrics]
        trained = f"{first['loss']}, {first['instances']}"
        rows.append([name + encoder, first["preset"], trained, str(len(own)), *values, epochs, code])
    return "\n".join([f"**{dataset}, test, {split}, history {kept}**", "", *_grid(head, rows)])


def _groups(records: Sequence[Record]) -> Iterable[list[Record]]:
    """Gives the records of one experiment together, the last of each seed."""
    found: dict[str, dict[int, Record]] = {}
    for one in records:
        found.setdefault(but_seed(one["config"]), {})[one["seed"]] = one
    return [list(own.values()) for own in found.values()]


def _mean(own: Sequence[Record], history: str, metric: str) -> float:
    return statistics.fmean(one["both"][history]["metrics"][metric] for one in own)


def _value(own: Sequence[Record], history: str, metric: str) -> str:
    values = [one["both"][history]["metrics"][metric] for one in own]
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def _verdicts(found: Sequence[Answer]) -> str:
    counts = Counter[str](one.verdict for one in found if one.row.floor is None)
    order = ("reached", "above", "below", "impossible in print", "no number in print")
    told = ", ".join(f"{counts[one]} {one}" for one in order if counts[one])
    return f"Cells answered so far: {told or 'none'} (reached: within 3 % of the printed number).\n"


def _of_table(table: Table, found: Sequence[Answer]) -> str:
    lines = [f"### {table.paper}: {table.title}, {table.dataset}", "", f"*{protocol(table)}*", ""]
    if table.note:
        lines += [table.note, ""]
    missing = [row for row in table.rows if not any(one.row is row and one.n for one in found)]
    lines += _ours([one for one in found if one.n])
    lines += _printed([one for one in found if one.row in missing and one.paper is not None])
    silent = [row for row in missing if not row.cells]
    closed = [f"{row.name} ({row.closed})" for row in silent if row.closed is not None]
    waiting = [named(row) for row in silent if row.closed is None]
    if waiting:
        lines += ["", "Not run yet: " + "; ".join(waiting) + "."]
    if closed:
        lines += ["", "Cannot be run: " + "; ".join(closed) + "."]
    if told := notes(table):
        lines += ["", "Of single rows: " + "; ".join(told) + "."]
    return "\n".join([*lines, ""])


def _ours(found: Sequence[Answer]) -> list[str]:
    """Gives what was run: a line for each number that stands beside a printed one, a line for each other row."""
    aside, long, last = unprinted(found), [], None
    for one in found:
        if not aside.has(one.row):
            verdict = words(one, reasons=one.row is not last)
            long.append([one.row.name, one.row.preset or "", one.metric, *cells(one), verdict])
            last = one.row
    lines = []
    if long:
        lines += _grid(PRINTED, long)
    if aside.lines:
        lines += [*([""] if long else []), UNPRINTED, "", *_grid(aside.head, aside.lines)]
    return lines


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _printed(found: Sequence[Answer]) -> list[str]:
    """Gives the printed numbers of rows without a run, a line for each row; one of several presets has one line."""
    if not found:
        return []
    metrics = list(dict.fromkeys(one.metric for one in found))
    head = ["printed", "preset", *metrics, "verdict"]
    rows: dict[tuple[str, ...], list[str]] = {}
    for row in {id(one.row): one.row for one in found}.values():
        own = {one.metric: one for one in found if one.row is row}
        values = (cells(own[name])[0] if name in own else "" for name in metrics)
        key = (row.name, *values, words(next(iter(own.values()))))
        rows.setdefault(key, []).append(row.preset or "")
    return ["", *_grid(head, ([name, ", ".join(presets), *rest] for (name, *rest), presets in rows.items()))]


def _line(values: Sequence[str]) -> str:
    return "| " + " | ".join(one.replace("|", "\\|") for one in values) + " |"
