"""The numbers of an analysis that stand in a table, by the names that cells have there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

_SHOWN = ("NDCG@20",)
_BY_METRIC = frozenset({"noise", "groups", "groups_apart"})
_COUNTS = ("users", "items", "interactions", "sparsity")


def numbers(analysis: str, found: Mapping[str, Any]) -> dict[str, float]:
    """Gives the numbers of an analysis by name.

    Args:
        analysis: Its name, such as ``noise``.
        found: What a record holds of it.

    Returns:
        For robustness and for groups every metric of each share and group, for groups also how many users, items and
        interactions there are; for costs, representations, views and clusters their measures.
    """
    return _KINDS[analysis](found)


def shown(analysis: str, names: Iterable[str], metrics: Sequence[str] = ()) -> list[str]:
    """Gives those names of an analysis's numbers that a table shows where the paper's cells do not decide it.

    Args:
        analysis: Its name.
        names: All names.
        metrics: The metrics that are shown of each share and group; empty: NDCG@20.

    Returns:
        Names, in their order.
    """
    wanted = metrics or _SHOWN
    return [name for name in names if analysis not in _BY_METRIC or name.partition(", ")[0] in wanted]


def _noise(found: Mapping[str, Any]) -> dict[str, float]:
    points = found["points"]
    metrics = {metric: None for one in points for metric in one["metrics"]}
    return {
        f"{metric}, {100 * one['share']:g}% noise": float(one["metrics"][metric])
        for metric in metrics
        for one in points
        if metric in one["metrics"]
    }


def _groups(found: Mapping[str, Any]) -> dict[str, float]:
    groups = [(one["name"], {**one["metrics"], **{name: one[name] for name in _COUNTS}}) for one in found["groups"]]
    kinds = {kind: None for _, numbers in groups for kind in numbers}
    return {
        f"{kind}, length {name}": float(numbers[kind]) for kind in kinds for name, numbers in groups if kind in numbers
    }


def _complexity(found: Mapping[str, Any]) -> dict[str, float]:
    trained = found["trained_parameters"]
    cells = {
        "parameters": float(found["encoder_parameters"] if trained is None else trained),
        "users per second": float(found["speed"]["users_per_second"]),
    }
    epochs = found["epochs"]
    return cells if epochs is None else {**cells, "seconds per epoch": float(epochs["mean"])}


def _representations(found: Mapping[str, Any]) -> dict[str, float]:
    aligned = {f"alignment, {name}": float(one["value"]) for name, one in found["alignment"].items()}
    spread = {f"uniformity, {name}": float(found[name]["uniformity"]) for name in ("users", "items")}
    ranks = {f"effective rank, {name}": float(found[name]["effective_rank"]) for name in ("users", "items")}
    return {**aligned, **spread, **ranks}


def _views(found: Mapping[str, Any]) -> dict[str, float]:
    near = {f"alignment, {name}": float(one["value"]) for name, one in found["pairs"].items()}
    apart = {f"distance of others, {name}": float(one["others"]) for name, one in found["pairs"].items()}
    spread = {f"uniformity, {name}": float(one["uniformity"]) for name, one in found["kinds"].items()}
    return {**near, **apart, **spread}


def _purity(found: Mapping[str, Any]) -> dict[str, float]:
    parts = (("", found["agreement"]), (", by chance", found["chance"]))
    return {f"{name}{end}": float(value) for end, part in parts for name, value in part.items()}


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, float]]] = {
    "noise": _noise,
    "groups": _groups,
    "groups_apart": _groups,
    "complexity": _complexity,
    "representations": _representations,
    "views": _views,
    "purity": _purity,
}
