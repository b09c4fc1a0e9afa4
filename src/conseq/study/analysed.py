"""The numbers of an analysis that stand in a table, by the names that cells have there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_SHOWN = "NDCG@20"


def numbers(analysis: str, found: Mapping[str, Any]) -> dict[str, float]:
    """Gives the numbers of an analysis by name.

    Args:
        analysis: Its name, such as ``noise``.
        found: What a record holds of it.

    Returns:
        For robustness and for groups the metric of each share and group; for costs, representations and clusters
        their measures.
    """
    return _KINDS[analysis](found)


def _noise(found: Mapping[str, Any]) -> dict[str, float]:
    return {f"{_SHOWN}, {one['share']:.0%} noise": float(one["metrics"][_SHOWN]) for one in found["points"]}


def _groups(found: Mapping[str, Any]) -> dict[str, float]:
    return {f"{_SHOWN}, length {one['name']}": float(one["metrics"][_SHOWN]) for one in found["groups"]}


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


def _purity(found: Mapping[str, Any]) -> dict[str, float]:
    parts = (("", found["agreement"]), (", by chance", found["chance"]))
    return {f"{name}{end}": float(value) for end, part in parts for name, value in part.items()}


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, float]]] = {
    "noise": _noise,
    "groups": _groups,
    "groups_apart": _groups,
    "complexity": _complexity,
    "representations": _representations,
    "purity": _purity,
}
