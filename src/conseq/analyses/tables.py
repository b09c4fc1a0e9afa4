"""Analyses as tables for the eye, from their records (also those that were stored)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.markup import escape
from rich.table import Table

from conseq.config import parse
from conseq.evaluation.ranks import Protocol

Record = Mapping[str, Any]

METRICS = ("HR@5", "NDCG@5", "HR@20", "NDCG@20")


def table_of(record: Record) -> Table:
    """Gives the table of an analysis.

    Args:
        record: What :func:`conseq.analyses.analyse` gave.

    Returns:
        The table; where anything was judged, the protocol stands in its title.
    """
    return _TABLES[record["analysis"]](record)


def _noise(record: Record) -> Table:
    names = _metrics(record["clean"])
    table = _table(f"noise in test histories: {_protocol(record)}", ["share", "inserted", "users with any", *names])
    table.caption = "in brackets: what is lost of the value without noise"
    for point in record["points"]:
        cells = [f"{point['metrics'][name]:.4f} ({_share(point['loss'][name])})" for name in names]
        table.add_row(_share(point["share"]), f"{point['inserted']:,}", _share(point["users"]), *cells)
    return table


def _groups(record: Record) -> Table:
    judged = [group["metrics"] for group in record["groups"] if group["metrics"]]
    names = _metrics(judged[0]) if judged else []
    how = "a model for each group" if record["apart"] else "one model for all"
    headings = ["length", "users", "interactions", "judged", *names, *(f"{name}, popularity" for name in names[-1:])]
    table = _table(f"groups of users, {how}: {_protocol(record)}", headings)
    for group in record["groups"]:
        values = [group["metrics"].get(name) for name in names]
        values += [group["floors"].get("popularity", {}).get(name) for name in names[-1:]]
        counts = [f"{group[name]:,}" for name in ("users", "interactions", "judged")]
        table.add_row(group["name"], *counts, *("" if value is None else f"{value:.4f}" for value in values))
    return table


def _complexity(record: Record) -> Table:
    speed, epochs, trained = record["speed"], record["epochs"], record["trained_parameters"]
    rows = [
        ("parameters of the encoder", f"{record['encoder_parameters']:,}"),
        ("of these in the item table", f"{record['item_parameters']:,}"),
        ("parameters that training moves", "" if trained is None else f"{trained:,}"),
        ("seconds per epoch", "" if epochs is None else f"{epochs['mean']:.2f} (mean of {epochs['count']})"),
        ("users ranked per second", f"{speed['users_per_second']:,.0f} ({speed['batch_size']} at a time)"),
        ("memory of ranking a batch", _bytes(record["ranking_bytes"])),
        ("memory of training a batch", _bytes(record["training_bytes"])),
    ]
    return _pairs(f"complexity, on {record['device']} with {record['threads']} threads", rows)


def _representations(record: Record) -> Table:
    table = _table("representations", ["measure", "items", "users"])
    both = (record["items"], record["users"])
    table.add_row("vectors", *(f"{one['vectors']:,} of width {one['width']}" for one in both))
    for name in ("uniformity", "effective_rank", "mean_cosine", "mean_norm"):
        table.add_row(name.replace("_", " "), *(f"{one[name]:.4f}" for one in both))
    for place in (2, 10):
        cells = ([f"{value:.4f}" for value in one["singular_values"][place - 1 : place]] for one in both)
        table.add_row(f"singular value {place}, over the largest", *("".join(cell) for cell in cells))
    for kind, one in record["alignment"].items():
        value = "" if one["value"] is None else f"{one['value']:.4f} ({one['pairs']:,} pairs)"
        table.add_row(f"alignment, {kind.replace('_', ' ')}", "", value)
    return table


def _views(record: Record) -> Table:
    title = f"views of {record['histories']:,} training histories, weights of epoch {record['epoch']}"
    table = _table(title, ["measure", *record["kinds"]])
    for name in ("uniformity", "effective_rank", "mean_cosine", "mean_norm"):
        table.add_row(name.replace("_", " "), *(f"{one[name]:.4f}" for one in record["kinds"].values()))
    for kind in list(record["kinds"])[:-1]:  # each pair once
        pairs = (record["pairs"].get(f"{kind}, {other}") for other in record["kinds"])
        table.add_row(
            f"to {kind}", *("" if one is None else f"{one['value']:.3f} ({one['others']:.3f})" for one in pairs)
        )
    table.caption = "to: squared distance of two views of one history (of different ones)"
    return table


def _purity(record: Record) -> Table:
    found, chance = record["agreement"], record["chance"]
    title = f"{len(record['clusters'])} clusters of {record['users']:,} users in {record['categories']:,} categories: "
    title += f"purity {found['purity']:.4f} (chance {chance['purity']:.4f}), NMI {found['nmi']:.4f} "
    title += f"(chance {chance['nmi']:.4f})"
    table = _table(title, [])
    table.add_column("users", justify="right")
    table.add_column("categories: share of the cluster (times everybody's)")
    for cluster in record["clusters"][:10]:
        told = (f"{escape(one['name'])}: {_share(one['share'])} ({one['lift']:.1f})" for one in cluster["top"])
        table.add_row(f"{cluster['users']:,}", "; ".join(told))
    notes = ["the ten largest clusters"] if len(record["clusters"]) > 10 else []
    if without := record.get("without_category", 0):
        every = record["users"] + without
        notes.append(f"{without:,} of {every:,} users are left out, for no item of theirs has a category that counts")
    table.caption = "; ".join(notes) or None
    return table


_TABLES: Mapping[str, Callable[[Record], Table]] = MappingProxyType(
    {
        "noise": _noise,
        "groups": _groups,
        "groups_apart": _groups,
        "complexity": _complexity,
        "representations": _representations,
        "views": _views,
        "purity": _purity,
    }
)


def _table(title: str, headings: Sequence[str]) -> Table:
    """Gives an empty table, as wide as its title at least; its first column is text, the others are numbers."""
    table = Table(title=title, min_width=len(title))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def _pairs(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    table = _table(title, ["", "value"])
    for row in rows:
        table.add_row(*row)
    return table


def _metrics(found: Mapping[str, float]) -> list[str]:
    """Gives the metrics that are shown: those of the papers' figures, as far as they were computed."""
    return [name for name in METRICS if name in found]


def _protocol(record: Record) -> str:
    return str(parse(Protocol, record["protocol"], source="the record's protocol"))


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _bytes(value: int | None) -> str:
    return "" if value is None else f"{value / 2**20:,.1f} MiB"
