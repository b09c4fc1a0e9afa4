"""How much a model loses when random items stand between those of a test history.

ICLRec Fig. 4 (shares up to 20 %, NDCG@5 and its relative loss) and MCLRec Fig. 7 (up to 30 %). Both add noise to test
histories only, of models trained without it, and neither replaces an item: what a user met stays, in its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from conseq.analyses.subject import Subject
from conseq.config import settings, to_json
from conseq.data.negatives import UniformNegatives
from conseq.data.sequences import Sequences, offsets_of
from conseq.data.splits import HeldOut, Split
from conseq.encoders.encoder import Scorer
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.ranks import Protocol
from conseq.run.runner import History, protocol

Counting = Literal["proportion", "released"]
Share = Annotated[float, Field(ge=0, le=1)]

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2)

# What a user's random numbers are for; each use has a stream of its own.
_COUNT, _PLACE, _ITEM = 0, 1, 2


@settings
class NoiseConfig:
    """How histories are made noisy."""

    shares: tuple[Share, ...] = SHARES
    """Items inserted per item of the history (ICLRec Fig. 4; MCLRec Fig. 7 also has 0.3)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the noise."""
    counting: Counting = "proportion"
    """proportion: the share itself, on average over users; released: rounded down per user, as ICLRec's code does."""


@dataclass(frozen=True)
class NoisePoint:
    """A model's metrics at one share of noise.

    Attributes:
        share: What was asked for.
        inserted: Items inserted, in all.
        realised: Inserted items per item of the histories.
        users: Share of the users with at least one inserted item.
        metrics: Means over users.
        loss: By metric, what is lost of its value without noise, as a share; None where that value is 0.
    """

    share: float
    inserted: int
    realised: float
    users: float
    metrics: dict[str, float]
    loss: dict[str, float | None]


@dataclass(frozen=True)
class Noise:
    """A model's robustness to noise in test histories.

    Attributes:
        protocol: How it was judged.
        seed: Of the noise.
        counting: How many items were inserted.
        clean: The metrics without noise.
        floors: The metrics of models that learn nothing, without noise.
        points: One per share, in the order asked for.
    """

    protocol: Protocol
    seed: int
    counting: Counting
    clean: dict[str, float]
    floors: dict[str, dict[str, float]]
    points: tuple[NoisePoint, ...]

    def record(self) -> dict[str, Any]:
        """Gives everything as JSON values."""
        return {
            "protocol": to_json(self.protocol),
            "seed": self.seed,
            "counting": self.counting,
            "clean": self.clean,
            "floors": self.floors,
            "points": [dict(vars(point)) for point in self.points],
        }


def of_subject(subject: Subject, config: NoiseConfig, history: History) -> Noise:
    """Gives :func:`noise` for a stored model's test part."""
    return noise(
        subject.encoder,
        subject.split,
        history=history,
        shares=config.shares,
        seed=config.seed,
        counting=config.counting,
    )


def noise(
    scorer: Scorer,
    split: Split,
    *,
    history: History,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    counting: Counting = "proportion",
    part: Literal["validation", "test"] = "test",
) -> Noise:
    """Gives the metrics of a model whose histories have random items inserted.

    The ranking is that of the history without noise: with the history excluded, what the user met is no candidate,
    and what was inserted is one. The noise of a smaller share is part of that of a larger one.

    Args:
        scorer: The model.
        split: The log as it was cut.
        history: Whether items of the user's history are candidates.
        shares: Inserted items per item of a history, each in [0, 1].
        seed: Of the noise.
        counting: As in :func:`noisy`.
        part: The held-out part.

    Returns:
        The metrics at each share.

    Raises:
        ValueError: if there is no share, or one is out of range, or a user has met the whole catalogue.
    """
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"shares of noise must be numbers from 0 to 1, at least one; found {list(shares)}")
    held_out = split.validation if part == "validation" else split.test
    how = protocol(split, history=history, part=part)
    clean = evaluate(scorer, held_out, how, train=split.train)
    points = []
    for share in shares:
        histories = noisy(held_out, share, n_items=split.n_items, seed=seed, counting=counting)
        added = histories.lengths - held_out.histories.lengths
        inserted = int(added.sum())
        metrics = clean.metrics
        if inserted:
            metrics = evaluate(Misled(scorer, held_out.users, histories), held_out, how).metrics
        points.append(
            NoisePoint(
                share=float(share),
                inserted=inserted,
                realised=inserted / held_out.histories.ids.numel(),
                users=float((added > 0).double().mean()),
                metrics=metrics,
                loss={name: _loss(value, clean.metrics[name]) for name, value in metrics.items()},
            )
        )
    return Noise(how, seed, counting, clean.metrics, clean.floors, tuple(points))


class Misled(Scorer):
    """A scorer that reads other histories than it is shown.

    Args:
        scorer: The model.
        users: int64 ``[B]``, rows in the log, each once.
        histories: ``B`` sequences: what is read for each of them.
    """

    def __init__(self, scorer: Scorer, users: Tensor, histories: Sequences) -> None:
        super().__init__()
        self.scorer = scorer
        self.n_items = scorer.n_items
        self.histories = histories
        self.row_of = torch.full((int(users.max()) + 1,), -1)
        self.row_of[users.cpu()] = torch.arange(len(users))

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        """Gives the model's scores for the other histories of ``users``, float ``[B, V]``."""
        read = self.histories.select(self.row_of[users.cpu()])
        return self.scorer.scores(users, read.to(histories.device))


def noisy(held_out: HeldOut, share: float, *, n_items: int, seed: int, counting: Counting = "proportion") -> Sequences:
    """Gives the histories with random items inserted.

    Their places are drawn uniformly, those before the first item and after the last one among them; the items of the
    history keep their order. An inserted item is drawn uniformly from those that are neither in the user's history nor
    among the targets. A user's noise depends on the seed and the user's row in the log, and on no other user.

    ``proportion`` inserts ``floor(share · n + v)`` items into a history of n, with v uniform in [0, 1), drawn once per
    user: the share itself on average, however short the histories are. ``released`` does what ICLRec's code does:
    ``floor(share · (n + targets))`` draws of a place, of which equal ones count once. At 5 %, only histories of 19
    items and more then get any noise.

    Args:
        held_out: Histories and targets, on the CPU.
        share: Inserted items per item of a history, at least 0.
        n_items: Items in the catalogue.
        seed: Of the noise, at least 0.
        counting: ``proportion`` or ``released``.

    Returns:
        The noisy histories, in the order of the held-out part.

    Raises:
        ValueError: if a user's history and targets hold the whole catalogue.
    """
    histories = held_out.histories
    users = held_out.users.numpy().astype(np.uint64)
    lengths = histories.lengths
    if counting == "released":
        counts = torch.floor(share * (lengths + held_out.targets.lengths).double()).long()
    else:
        chance = torch.from_numpy(_uniform(seed, users, np.zeros_like(users), _COUNT))
        counts = torch.floor(share * lengths.double() + chance).long()
    added = Sequences(torch.zeros(int(counts.sum()), dtype=torch.int64), offsets_of(counts))
    who, nth = users[added.rows.numpy()], added.positions.numpy().astype(np.uint64)
    place = _below(_uniform(seed, who, nth, _PLACE), lengths[added.rows] + 1)
    added = added.replace(_unmet(held_out, added.rows, _uniform(seed, who, nth, _ITEM), n_items))
    if counting == "released":
        first = _first_of_each(added.rows * (histories.max_length + 1) + place)
        added, place = added.keep(first), place[first]
    return _merged(histories, added, place)


def _merged(histories: Sequences, added: Sequences, place: Tensor) -> Sequences:
    """Gives the histories with each added item before the item at its ``place`` (int64 ``[M]``)."""
    width = histories.max_length + 1
    # A stable order leaves what is added before the item whose place it has.
    keys = torch.cat([added.rows * width + place, histories.rows * width + histories.positions])
    order = torch.argsort(keys, stable=True)
    return Sequences(torch.cat([added.ids, histories.ids])[order], histories.offsets + added.offsets)


def _unmet(held_out: HeldOut, rows: Tensor, chance: npt.NDArray[np.float64], n_items: int) -> Tensor:
    """Gives the item that each ``chance`` in [0, 1) picks among those that the user at ``rows`` has not met."""
    both = [held_out.histories, held_out.targets]
    ids, owner = torch.cat([one.ids for one in both]), torch.cat([one.rows for one in both])
    order = torch.argsort(owner, stable=True)
    met = Sequences(ids[order], held_out.histories.offsets + held_out.targets.offsets)
    free = UniformNegatives(met, torch.arange(len(met)), n_items)
    # The sampler's own draw takes from one stream of numbers for all users; here each user has one.
    rank = _below(chance, n_items - free.met[rows])
    before = torch.searchsorted(free.skips, rows * (n_items + 1) + rank, right=True) - free.begin[rows]
    return rank + before + 1


def _first_of_each(keys: Tensor) -> Tensor:
    """Gives bool: whether no earlier key is the same."""
    ordered, order = torch.sort(keys, stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[order[1:]] = ordered[1:] != ordered[:-1]
    return first


def _below(chance: npt.NDArray[np.float64], bound: Tensor) -> Tensor:
    """Gives an integer of ``0 .. bound - 1`` for each chance in [0, 1)."""
    return (torch.from_numpy(chance) * bound).long().minimum(bound - 1)


def _uniform(
    seed: int, users: npt.NDArray[np.uint64], nth: npt.NDArray[np.uint64], stream: int
) -> npt.NDArray[np.float64]:
    """Gives numbers in [0, 1) that depend on nothing but the four arguments: splitmix64 (Steele et al., 2014)."""
    state = _mixed(np.full(users.shape, seed, dtype=np.uint64))
    for part in (users, nth, np.full(users.shape, stream, dtype=np.uint64)):
        state = _mixed(state ^ _mixed(part))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _loss(value: float, clean: float) -> float | None:
    return 1 - value / clean if clean else None
