"""How well a model serves users with short and with long histories.

ICLRec Fig. 3, MCLRec Fig. 8 and Table 5: three groups by the length of a user's whole sequence, 5, 6 to 8, and more.
The papers train and judge each group by itself, with the catalogue of the whole log (:func:`groups_apart`). A model
trained on everybody, judged by group, is :func:`groups`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from conseq.analyses.subject import Subject
from conseq.config import settings, to_json
from conseq.data.log import InteractionLog
from conseq.data.splits import Split
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Scorer
from conseq.encoders.floors import OwnHistory, Popularity
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.metrics import means
from conseq.evaluation.ranks import Protocol
from conseq.evaluation.result import Evaluation
from conseq.run.config import RunConfig
from conseq.run.runner import History, Show, data_record, protocol, run

EDGES = (5, 8)
Mask = npt.NDArray[np.bool_]


@settings
class GroupsConfig:
    """How users are grouped."""

    edges: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = EDGES
    """The greatest length of a user's sequence (targets included) in each group but the last (MCLRec Table 5)."""


@dataclass(frozen=True)
class Group:
    """The users whose sequences have a length in a range, and how a model serves them.

    Attributes:
        name: The range, such as ``6-8``.
        users: Users of the log.
        items: Different items among their interactions.
        interactions: Their interactions.
        sparsity: 1 - interactions / (users · catalogue), as in MCLRec Table 5.
        judged: Users of the held-out part.
        metrics: Means over them; empty where there are none.
        floors: The same of models that learn nothing, by model.
        epochs: Epochs trained; None where all groups were trained together.
        best_epoch: The epoch that validation picked; None likewise.
    """

    name: str
    users: int
    items: int
    interactions: int
    sparsity: float
    judged: int
    metrics: dict[str, float]
    floors: dict[str, dict[str, float]]
    epochs: int | None = None
    best_epoch: int | None = None


@dataclass(frozen=True)
class Groups:
    """A method's metrics by group of users.

    Attributes:
        protocol: How it was judged.
        edges: The greatest length in each group but the last.
        apart: True where a model was trained for each group; False where one was trained for all.
        groups: Shortest sequences first; groups without users are left out.
    """

    protocol: Protocol
    edges: tuple[int, ...]
    apart: bool
    groups: tuple[Group, ...]

    def record(self) -> dict[str, Any]:
        """Gives everything as JSON values."""
        return {
            "protocol": to_json(self.protocol),
            "edges": list(self.edges),
            "apart": self.apart,
            "groups": [dict(vars(group)) for group in self.groups],
        }


def of_subject(subject: Subject, config: GroupsConfig, history: History) -> Groups:
    """Gives :func:`groups` for a stored model's test part."""
    return groups(subject.encoder, subject.split, subject.log, history=history, edges=config.edges)


def apart_of_subject(subject: Subject, config: GroupsConfig, history: History, show: Show = "nothing") -> Groups:
    """Gives :func:`groups_apart` for the experiment that made a stored model.

    The groups' runs stand in the folder ``groups`` of the run's, and are gone on with where they are; those of a bundle
    by itself are not kept.

    Args:
        subject: The model.
        config: How users are grouped.
        history: Whether items of the user's history are candidates.
        show: Progress on standard error.

    Returns:
        The metrics by group.

    Raises:
        ValueError: if nothing tells of the experiment, or it starts from other weights.
    """
    experiment = subject.experiment
    if experiment is None:
        raise ValueError(
            f"{subject.path} does not say what experiment made it, so there is none to train by group; "
            "name a run's folder"
        )
    if experiment.start is not None:
        # Those have seen everybody, so that what begins from them is not trained on one group alone.
        raise ValueError(
            f"{subject.path} began from the weights of another run, which was trained on all users: groups_apart needs "
            "an experiment without a start"
        )
    folder = None if subject.folder is None else subject.folder / "groups"
    return groups_apart(experiment, subject.log, history=history, edges=config.edges, folder=folder, show=show)


def groups(
    scorer: Scorer,
    split: Split,
    log: InteractionLog,
    *,
    history: History,
    edges: Sequence[int] = EDGES,
    part: Literal["validation", "test"] = "test",
) -> Groups:
    """Gives the metrics of one model for each group of users.

    Args:
        scorer: The model, trained on everybody.
        split: ``log`` as it was cut.
        log: The log; gives the lengths of whole sequences.
        history: Whether items of the user's history are candidates.
        edges: The greatest length in each group but the last, ascending.
        part: The held-out part.

    Returns:
        The metrics by group.

    Raises:
        ValueError: if the edges do not ascend.
    """
    held_out = split.validation if part == "validation" else split.test
    how = protocol(split, history=history, part=part)
    judged = evaluate(scorer, held_out, how)
    floors = {
        "popularity": evaluate(Popularity.from_train(split.train, split.n_items), held_out, how),
        "own history": evaluate(OwnHistory(split.n_items), held_out, how),
    }
    names = list(judged.metrics)
    found = []
    for name, members in members_of(log, edges).items():
        mask = members[judged.users]
        some = bool(mask.any())
        found.append(
            Group(
                **statistics(log, members, name),
                judged=int(mask.sum()),
                metrics=_means(judged, mask, names) if some else {},
                floors={floor: _means(one, mask, names) for floor, one in floors.items()} if some else {},
            )
        )
    return Groups(how, tuple(edges), apart=False, groups=tuple(found))


def groups_apart(
    config: RunConfig,
    log: InteractionLog,
    *,
    history: History,
    edges: Sequence[int] = EDGES,
    folder: Path | None = None,
    show: Show = "nothing",
) -> Groups:
    """Gives the metrics of one model per group of users, each trained on its group alone.

    Every group is ranked in the catalogue of the whole log, as the papers do: MCLRec's Table 5 counts items by their
    greatest number, and its code makes a row for each. Validation picks the epoch in each group.

    Args:
        config: The experiment, the same for every group.
        log: Everybody's log.
        history: Whether items of the user's history are candidates.
        edges: The greatest length in each group but the last, ascending.
        folder: Holds a run's folder per group; None: nothing is written.
        show: Progress on standard error.

    Returns:
        The metrics by group, on the test part.

    Raises:
        ValueError: if the edges do not ascend, or a group cannot be trained or judged.
    """
    found, how = [], None
    for name, members in members_of(log, edges).items():
        place = None if folder is None else folder / _slug(name)
        own = log_of_users(log, members, note=f"users of {name} interactions")
        try:
            outcome = run(config, own, folder=place, show=show)
        except ValueError as error:
            raise ValueError(f"the group of users of {name} interactions: {error}") from error
        judged = outcome.evaluations[history]
        how = judged.protocol
        found.append(
            Group(
                **statistics(log, members, name),
                judged=judged.counts["users"],
                metrics=judged.metrics,
                floors=judged.floors,
                epochs=outcome.epochs,
                best_epoch=outcome.best_epoch,
            )
        )
    if how is None:
        raise ValueError("the log has no users")
    return Groups(how, tuple(edges), apart=True, groups=tuple(found))


def members_of(log: InteractionLog, edges: Sequence[int]) -> dict[str, Mask]:
    """Gives who is in each group, bool ``[U]``, by the group's name; groups without users are left out.

    Args:
        log: The log.
        edges: The greatest length in each group but the last, ascending.

    Returns:
        The groups, shortest sequences first.

    Raises:
        ValueError: if the edges do not ascend.
    """
    if not edges or any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"edges of groups must ascend, such as 5 8; found {list(edges)}")
    lengths = np.diff(log.offsets)
    bins = np.searchsorted(np.asarray(edges), lengths)
    lows = [0, *(edge + 1 for edge in edges)]
    names = [_range(low, high) for low, high in zip(lows, edges, strict=False)] + [f">{edges[-1]}"]
    known = lengths > 0
    return {name: (bins == n) & known for n, name in enumerate(names) if bool(((bins == n) & known).any())}


def log_of_users(log: InteractionLog, members: Mask, *, note: str) -> InteractionLog:
    """Gives the log of some users, with the catalogue of the whole log.

    Args:
        log: Everybody's log.
        members: bool ``[U]``, who is kept.
        note: What the users have in common, for the manifest.

    Returns:
        The log; it is another one than everybody's, so it has no recorded hash.
    """
    lengths = np.diff(log.offsets)
    tokens = np.repeat(members, lengths)
    rows = np.flatnonzero(members)
    return InteractionLog(
        items=np.asarray(log.items)[tokens],
        offsets=np.concatenate([[0], np.cumsum(lengths[members])]).astype(np.int64),
        times=None if log.times is None else log.times[tokens],
        user_ids=Vocabulary([log.user_ids.ids[row] for row in rows.tolist()], start=0),
        item_ids=log.item_ids,
        manifest={"source": log.manifest.get("source"), "part": note, "whole": data_record(log)},
    )


def statistics(log: InteractionLog, members: Mask, name: str) -> dict[str, Any]:
    """Gives a group's name and counts, as :class:`Group` names them (MCLRec Table 5).

    Args:
        log: The log.
        members: bool ``[U]``, who is in the group; at least one user.
        name: The group's name.

    Returns:
        ``name``, ``users``, ``items``, ``interactions``, ``sparsity``.
    """
    lengths = np.diff(log.offsets)
    tokens = np.repeat(members, lengths)
    users, interactions = int(members.sum()), int(tokens.sum())
    return {
        "name": name,
        "users": users,
        "items": int(np.unique(np.asarray(log.items)[tokens]).size),
        "interactions": interactions,
        "sparsity": 1 - interactions / (users * log.n_items),
    }


def _means(judged: Evaluation, mask: Mask, names: list[str]) -> dict[str, float]:
    """Gives the metrics of the users in ``mask``, bool ``[B]``."""
    sizes = np.diff(judged.offsets)
    offsets = np.concatenate([[0], np.cumsum(sizes[mask])]).astype(np.int64)
    return means(names, judged.ranks[np.repeat(mask, sizes)], offsets)


def _range(low: int, high: int) -> str:
    if low == 0:
        return f"<={high}"
    return str(high) if low == high else f"{low}-{high}"


def _slug(name: str) -> str:
    """Gives a group's name as the name of a folder on any system."""
    return name.replace("<=", "up-to-").replace(">", "over-")
