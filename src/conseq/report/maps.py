"""Maps: t-SNE of the vectors of users, items and views, marked by intent, by category or by the kind of view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from openTSNE import TSNE
from torch import Tensor
from torch.nn import functional as F

from conseq.analyses.vectors import user_vectors
from conseq.analyses.views import makes_views, trained_method, view_vectors
from conseq.report.models import OTHER, Model
from conseq.report.style import GREY, Picture, Value, draw, labelled, legend, look, plain
from conseq.signals.clusters import k_means, nearest

POINTS = 1500
FEWEST = 4
"""Vectors of a map: with fewer, every point has every other for a neighbour, and places say nothing."""
INTENTS = 7
PERPLEXITY = 30
_SEED = 0


@dataclass(frozen=True, eq=False)
class _Map:
    """What a map shows.

    Attributes:
        of: ``users``, ``items`` or ``views``.
        by: ``intent``, ``category`` or ``kind``.
        place: float64 ``[n, 2]``.
        ids: Outside ids.
        kinds: What each point is marked as.
        whole: How many there are of which some are drawn, and what they are.
        source: Where the kinds come from.
        part: The part of the log that is read; empty: none.
    """

    of: str
    by: str
    place: npt.NDArray[np.float64]
    ids: Sequence[str]
    kinds: Sequence[str]
    whole: str
    source: str
    part: str


def maps(model: Model, name: str, *, points: int = POINTS) -> list[Picture]:
    """Gives the maps of a model: users by intent, items by intent and by category, views by kind, as far as known.

    Args:
        model: The model; without its log there are no users, and users of several vectors have no place.
        name: Stem of the names of the figures.
        points: Most vectors on a map, drawn at random where there are more.

    Returns:
        The figures; none of fewer than four vectors.
    """
    return [_picture(model, name, one) for one in _all(model, points)]


def _all(model: Model, points: int) -> list[_Map]:
    return [*_of_users(model, points), *_of_items(model, points), *_of_views(model, points)]


def _of_users(model: Model, points: int) -> list[_Map]:
    if model.subject is None or model.interests > 1:
        return []
    held_out = model.subject.split.test
    chosen = _some(len(held_out.users), points)
    if len(chosen) < FEWEST:
        return []
    vectors = user_vectors(model.bundle.encoder, held_out.histories.select(chosen))
    users = model.subject.log.user_ids.ids
    ids = [users[row] for row in held_out.users[chosen].tolist()]
    whole = f"{len(held_out.users):,} users (test histories)"
    intents = _intents(vectors)
    return [_Map("users", "intent", embedded(vectors), ids, intents, whole, _clustered(intents), "test part")]


def _of_items(model: Model, points: int) -> list[_Map]:
    table = model.bundle.encoder.items.candidates.detach().float().cpu()
    chosen = _some(len(table), points)
    if len(chosen) < FEWEST:
        return []
    ids = [model.bundle.item_ids.ids[one] for one in chosen.tolist()]
    place, whole, intents = embedded(table[chosen]), f"{len(table):,} items of the item table", _intents(table[chosen])
    found = [_Map("items", "intent", place, ids, intents, whole, _clustered(intents), "")]
    categories = model.facts.main_categories(ids, INTENTS)
    shown = {one for one in categories if one != OTHER}
    if len(set(categories)) < 2:
        return found
    source = (
        f"column “{model.facts.column}” of the items' table, the {len(shown)} largest; grey crosses: {_rest(shown)}"
    )
    return [*found, _Map("items", "category", place, ids, categories, whole, source, "")]


def _of_views(model: Model, points: int) -> list[_Map]:
    """Gives the map of the views that a run contrasts: MCLRec's Figures 2 and 5."""
    if model.subject is None or not makes_views(model.subject):
        return []
    method, _ = trained_method(model.subject)
    found = view_vectors(method, histories=points // 4, seed=_SEED)
    vectors = torch.cat(list(found.values()))
    if len(vectors) < FEWEST:
        return []
    each = len(next(iter(found.values())))
    kinds = [kind for kind in found for _ in range(each)]
    ids = [f"history {number + 1}" for _ in found for number in range(each)]
    whole = f"{len(found) * len(method.train_set):,} views of training histories, {len(found)} of each history"
    source = (
        "which view of its history it is; random ones are encoded, learned ones are what an augmenter makes of these"
    )
    return [_Map("views", "kind", embedded(vectors), ids, kinds, whole, source, "training part")]


def embedded(vectors: Tensor) -> npt.NDArray[np.float64]:
    """Gives places in the plane such that near vectors are near (t-SNE; van der Maaten and Hinton, 2008).

    Args:
        vectors: float ``[n, D]``, at least four, compared by their angle.

    Returns:
        float64 ``[n, 2]``, the same for the same vectors.
    """
    rows = F.normalize(vectors.double(), dim=1).numpy()
    fitted = TSNE(
        perplexity=_perplexity(len(rows)),
        neighbors="exact",
        negative_gradient_method="bh",
        n_jobs=1,  # several threads add in another order each time
        random_state=_SEED,
    ).fit(rows)
    return np.asarray(fitted, dtype=np.float64)


def _perplexity(points: int) -> int:
    """Gives how many neighbours count as near: fewer where there are few points at all."""
    return max(1, min(PERPLEXITY, (points - 1) // 3))


def _some(count: int, most: int) -> Tensor:
    rng = torch.Generator().manual_seed(_SEED)
    return torch.randperm(count, generator=rng)[:most].sort().values


def _intents(vectors: Tensor) -> list[str]:
    """Gives the cluster of each vector, numbered from the largest."""
    unit = F.normalize(vectors, dim=1)
    ids = nearest(unit, k_means(unit, min(INTENTS, len(unit)), restarts=5, seed=_SEED)).tolist()
    order = {one: place for place, (one, _) in enumerate(sorted(Counter(ids).items(), key=lambda it: (-it[1], it[0])))}
    return [f"intent {order[one] + 1}" for one in ids]


def _picture(model: Model, name: str, one: _Map) -> Picture:
    of, by = one.of, one.by
    sizes = dict(sorted(Counter(one.kinds).items(), key=lambda pair: (-pair[1], pair[0])))
    shown = [kind for kind in sizes if kind != OTHER]
    rest = _rest(shown)
    kinds = [kind or rest for kind in one.kinds]
    rows: list[tuple[Value, ...]] = [
        (outside, model.facts.title(outside) if of == "items" else "", kind, round(float(x), 2), round(float(y), 2))
        for outside, kind, (x, y) in zip(one.ids, kinds, one.place, strict=True)
    ]
    counted = ", ".join(f"{plain(kind or rest, 40)} {count:,}" for kind, count in sizes.items())
    return Picture(
        name=f"{name}-{of}-by-{by}",
        title=f"{model.name}: map of {of} by {by}",
        svg=_drawn(one, shown, rest),
        alt=f"Scatter plot of {len(kinds):,} {of} in the plane, marked by {by}: {counted}.",
        caption=(
            f"t-SNE (openTSNE, perplexity {_perplexity(len(kinds))}, angle between vectors, seed {_SEED}) of "
            f"{len(kinds):,} of {one.whole}, drawn at random. Colour and marker: {one.source}. The axes have no unit: "
            "near points have similar vectors; distances between groups and their sizes mean little."
        ),
        protocol=(
            model.statement(history="read as the model reads it", part=one.part)
            if one.part
            else model.statement(history="none is read", part="item vectors as trained")
        ),
        columns=("id", "title", by, "x", "y"),
        rows=tuple(rows),
    )


def _clustered(intents: Sequence[str]) -> str:
    return f"K-means with K = {len(set(intents))} of the unit vectors on the map"


def _rest(shown: Collection[str]) -> str:
    """Gives what points are called that are in none of the categories that are shown: as none of these is called."""
    rest = "other"
    while rest in shown:
        rest = f"any {rest}"
    return rest


def _drawn(one: _Map, shown: Sequence[str], rest: str) -> str:
    def paint(figure: Figure, axes: Axes) -> None:
        others = np.array([kind == OTHER for kind in one.kinds])
        if others.any():
            x, y = one.place[others].T
            axes.scatter(x, y, s=10, marker="x", color=GREY, linewidths=0.5, alpha=0.6, label=labelled(rest))
        for number, kind in enumerate(shown):
            style = look(number)
            x, y = one.place[[other == kind for other in one.kinds]].T
            axes.scatter(
                x, y, s=12, marker=style.marker, color=style.colour, linewidths=0, alpha=0.75, label=labelled(kind)
            )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("t-SNE 1, no unit")
        axes.set_ylabel("t-SNE 2, no unit")
        axes.set_aspect("equal", adjustable="datalim")
        legend(figure, axes, columns=2, scale=2.0)

    return draw(3.6, paint)
