"""Which items of a history a model's prediction rests on, as heat-maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from conseq.data.sequences import Sequences
from conseq.encoders.encoder import TokenEncoder
from conseq.evaluation.ranks import target_ranks
from conseq.report.models import Model
from conseq.report.statement import Statement
from conseq.report.style import Picture, draw, wrapped
from conseq.signals.importance import Explainer, Explanation, explain

USERS = 4
SHORTEST, LONGEST = 5, 12
_SHORT = {
    "occlusion": "occlusion",
    "saliency": "saliency",
    "integrated_gradients": "integrated\ngradients",
    "attention": "attention",
}
_SEED = 0


@dataclass(frozen=True, eq=False)
class Explained:
    """A user whose next item is explained.

    Attributes:
        user: Outside id.
        history: Titles, oldest first.
        target: The title of the item that came next.
        rank: Its rank in the catalogue.
        importance: By explanation, one number for each item of the history; they sum to 1.
    """

    user: str
    history: list[str]
    target: str
    rank: float
    importance: dict[str, npt.NDArray[np.float64]]


def importances(model: Model, name: str, *, users: int = USERS) -> list[Picture]:
    """Gives heat-maps of the importances of the items of some users' test histories.

    Args:
        model: The model; without its log there are no histories, and of several vectors none is explained.
        name: Stem of the names of the figures.
        users: How many, drawn at random among those with histories of 5 to 12 items.

    Returns:
        One figure for each.
    """
    if model.subject is None or model.interests > 1:
        return []
    held_out = model.subject.split.test
    most = min(LONGEST, model.bundle.encoder.max_length) if isinstance(model.bundle.encoder, TokenEncoder) else LONGEST
    fitting = ((held_out.histories.lengths >= SHORTEST) & (held_out.histories.lengths <= most)).nonzero()[:, 0]
    rng = torch.Generator().manual_seed(_SEED)
    chosen = fitting[torch.randperm(len(fitting), generator=rng)[:users]].sort().values
    if not len(chosen):
        return []
    statement = model.statement(history="excluded", part="test part")
    return [
        _picture(model, one, f"{name}-importance-{place + 1}", statement)
        for place, one in enumerate(_explained(model, chosen))
    ]


def _explained(model: Model, rows: torch.Tensor) -> list[Explained]:
    assert model.subject is not None
    held_out = model.subject.split.test
    encoder = model.bundle.encoder
    histories = held_out.histories.select(rows)
    targets = held_out.targets.select(rows)
    firsts = targets.ids[targets.offsets[:-1]]
    asked = Sequences(firsts, torch.arange(len(rows) + 1))
    with torch.no_grad():
        scores = encoder.scores(held_out.users[rows], histories)
    ranks = target_ranks(scores, asked, excluded=histories, ties="pessimistic").rank
    found = {
        kind: values
        for kind in get_args(Explanation)
        if (values := _importance(model, histories, firsts, kind)) is not None
    }
    titles = [model.facts.title(one) for one in model.bundle.item_ids.ids]
    users = [model.subject.log.user_ids.ids[row] for row in held_out.users[rows].tolist()]
    out = []
    for place, (user, items) in enumerate(zip(users, histories.to_lists(), strict=True)):
        cut = slice(int(histories.offsets[place]), int(histories.offsets[place + 1]))
        out.append(
            Explained(
                user,
                [titles[item - 1] for item in items],
                titles[int(firsts[place]) - 1],
                float(ranks[place]),
                {kind: values[cut] for kind, values in found.items()},
            )
        )
    return out


def _importance(
    model: Model, histories: Sequences, targets: torch.Tensor, kind: Explanation
) -> npt.NDArray[np.float64] | None:
    """Gives the importances, None where this explanation cannot explain this encoder."""
    try:
        found = explain(model.bundle.encoder, histories, targets, Explainer(explanation=kind))
    except ValueError:
        return None
    return found.double().numpy()


def _picture(model: Model, one: Explained, name: str, statement: Statement) -> Picture:
    kinds = list(one.importance)
    best = {kind: one.history[int(values.argmax())] for kind, values in one.importance.items()}
    rank = (
        "it cannot be recommended"
        if np.isinf(one.rank)
        else f"rank {one.rank:,.0f} of {model.bundle.encoder.n_items:,}"
    )
    told = "; ".join(f"most by {kind.replace('_', ' ')}: {title}" for kind, title in best.items())
    return Picture(
        name=name,
        title=f"{model.name}, user {one.user}: why “{one.target}”?",
        svg=_drawn(one),
        alt=f"Heat-map of {len(one.history)} items by {len(kinds)} explanations of “{one.target}”; {told}.",
        caption=(
            f"How much each item of the test history of user {one.user}, oldest at the top, counts for the item that "
            f"came next: {one.target} ({rank}, items of the history excluded). Each column sums to 1 (shares, no unit; "
            "EC4SRec eq. 5); the darker, the more. Explanations that the encoder does not allow are left out."
        ),
        protocol=statement,
        columns=("place", "item", *(f"share by {kind.replace('_', ' ')}" for kind in kinds)),
        rows=tuple(
            (place + 1, title, *(round(float(one.importance[kind][place]), 4) for kind in kinds))
            for place, title in enumerate(one.history)
        ),
    )


def _drawn(one: Explained) -> str:
    kinds = list(one.importance)
    shares = np.stack([one.importance[kind] for kind in kinds], axis=1)

    def paint(figure: Figure, axes: Axes) -> None:
        axes.imshow(shares, cmap="cividis_r", vmin=0, vmax=max(0.5, float(shares.max())), aspect="auto")
        for row, column in np.ndindex(*shares.shape):
            share = shares[row, column]
            axes.text(
                column, row, f"{share:.2f}", ha="center", va="center", fontsize=9,
                color="white" if share > 0.5 * max(0.5, float(shares.max())) else "black",
            )  # fmt: skip
        axes.set_xticks(range(len(kinds)), [_SHORT[kind] for kind in kinds], fontsize=8)
        axes.set_yticks(range(len(one.history)), [wrapped(title, 24) for title in one.history], fontsize=8)
        axes.set_xlabel("explanation")
        axes.set_ylabel("history, oldest first")
        axes.grid(visible=False)

    return draw(0.9 + 0.36 * len(one.history), paint)
