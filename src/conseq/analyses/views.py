"""How the views lie that a run contrasts, and those that MCLRec's augmenters have learned to make of them.

MCLRec (Qin et al., SIGIR 2023) maps the vectors of its learned views with and without the regulariser (Fig. 2), and
those of the random views after joint and after two-stage training (Fig. 5). The paper shows maps alone. Here stand the
numbers that such maps are read for: how far the two views of a history lie from each other, how far from those of
others, and how many dimensions each kind of view fills.

A bundle serves the encoder alone. Augmenters are in the checkpoint of a run's folder, as they were in its best epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from conseq.analyses.representations import Spread, alignment, spread
from conseq.analyses.subject import Subject
from conseq.config import settings
from conseq.data.sequences import concatenate
from conseq.data.train_set import Batch
from conseq.methods.cl4srec import CL4SRec
from conseq.methods.mclrec import MCLRec
from conseq.methods.method import Method
from conseq.run.runner import build
from conseq.training import checkpoint
from conseq.training.trainer import evaluating
from conseq.views.augment import TwoOf

CHECKPOINT = "checkpoint.pt"
_AT_ONCE = 256


@settings
class ViewsConfig:
    """What is measured of the views."""

    histories: Annotated[int, Field(ge=2)] = 2_000
    """Most training histories, drawn at random where there are more."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the histories and of the random views."""


@dataclass(frozen=True)
class Pair:
    """How near two kinds of views of one history are.

    Attributes:
        value: Mean squared distance on the unit sphere of the two views of one history, from 0 to 4
            (:func:`~conseq.analyses.representations.alignment`).
        others: The same of views of two different histories. What a contrast learns is to make ``value`` the smaller.
    """

    value: float
    others: float


@dataclass(frozen=True)
class Views:
    """How the views of some training histories lie.

    Attributes:
        kinds: ``random 1`` and ``random 2``; of a model with augmenters also ``learned 1`` and ``learned 2``.
        pairs: Of every two kinds, ``random 1, random 2``.
        histories: How many.
        epoch: Whose weights they are; counted from 1.
        seed: Of the histories and of the random views.
    """

    kinds: dict[str, Spread]
    pairs: dict[str, Pair]
    histories: int
    epoch: int
    seed: int

    def record(self) -> dict[str, Any]:
        """Gives everything as JSON values."""
        return {
            "kinds": {
                name: {**vars(one), "singular_values": list(one.singular_values)} for name, one in self.kinds.items()
            },
            "pairs": {name: dict(vars(one)) for name, one in self.pairs.items()},
            "histories": self.histories,
            "epoch": self.epoch,
            "seed": self.seed,
        }


def of_subject(subject: Subject, config: ViewsConfig) -> Views:
    """Gives how the views of a run lie.

    Args:
        subject: The run and its log.
        config: What is measured.

    Returns:
        The measures.

    Raises:
        ValueError: if it is no run's folder, its method makes no two random views of a history, or no epoch was done.
    """
    method, epoch = trained_method(subject)
    vectors = view_vectors(method, histories=config.histories, seed=config.seed)
    rng = torch.Generator().manual_seed(config.seed)
    count = len(next(iter(vectors.values())))
    return Views(
        {name: spread(one, points=count, rng=rng) for name, one in vectors.items()},
        {f"{a}, {b}": pair(vectors[a], vectors[b]) for a, b in combinations(vectors, 2)},
        count,
        epoch,
        config.seed,
    )


def makes_views(subject: Subject) -> bool:
    """Gives whether a subject is a run's folder with a checkpoint, whose method makes views that can be looked at."""
    if subject.folder is None or not (subject.folder / CHECKPOINT).is_file():
        return False
    experiment = subject.experiment
    return experiment is not None and experiment.method_name in {"cl4srec", "mclrec"}


def trained_method(subject: Subject) -> tuple[Method[Any], int]:
    """Gives the method of a run with all its weights, and the epoch that they are of, counted from 1.

    Args:
        subject: The run and its log.

    Returns:
        The method, on the subject's device.

    Raises:
        ValueError: if it is no run's folder, or no epoch was judged.
    """
    experiment = subject.experiment
    if subject.folder is None or experiment is None:
        raise ValueError(
            f"{subject.path} is a bundle, which keeps the encoder alone; views are the method's: name the run's folder"
        )
    file = subject.folder / CHECKPOINT
    if not file.is_file():
        raise ValueError(f"{subject.folder} has no {file.name}, which holds what is learned beside the encoder")
    state = checkpoint.load(file)
    if not state["best"]:
        raise ValueError(f"{file}: no epoch was judged, so there are no best weights")
    with torch.random.fork_rng([subject.device] if subject.device.type == "cuda" else []):
        method = build(experiment, subject.split, subject.device, item_ids=subject.log.item_ids)
    try:
        method.load_state_dict(state["best"])
    except RuntimeError as error:
        raise ValueError(f"{file}: not of this experiment and log: {str(error).splitlines()[0]}") from None
    return method, int(state["stopping"]["best_epoch"])


@torch.no_grad()
def view_vectors(method: Method[Any], *, histories: int, seed: int) -> dict[str, Tensor]:
    """Gives the vectors of the views of some training histories, as in evaluation: without dropout.

    Args:
        method: One that makes two random views of a history.
        histories: Most histories, drawn at random where there are more.
        seed: Of the histories and of the views.

    Returns:
        float32 ``[n, D]`` on the CPU by kind, row by row of one history: ``random 1`` and ``random 2``, and where
        augmenters were trained what they make of these (MCLRec eq. 5), ``learned 1`` and ``learned 2``.

    Raises:
        ValueError: if the method makes no such views.
    """
    if not isinstance(method, CL4SRec | MCLRec) or not isinstance(method.views, TwoOf):
        raise ValueError(f"{type(method).__name__} makes no two random views of a history; cl4srec and mclrec do")
    train = method.train_set
    rng = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(train), generator=rng)[:histories].sort().values
    found: dict[str, list[Tensor]] = {}
    with evaluating(method):
        for rows in torch.split(chosen, _AT_ONCE):
            for name, vectors in _of_batch(method, train.batch(rows.to(train.start.device)), rng).items():
                found.setdefault(name, []).append(vectors.float().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def _of_batch(method: CL4SRec | MCLRec, batch: Batch, rng: torch.Generator) -> Mapping[str, Tensor]:
    first, second = method.encoder(concatenate(method.views(batch.history, rng))).chunk(2)
    random = {"random 1": first, "random 2": second}
    if not isinstance(method, MCLRec) or not len(method.augmenters):
        return random
    learned = {"learned 1": method.augmenters[0](first), "learned 2": method.augmenters[-1](second)}
    return random | (_unit(learned) if method.config.normalise else learned)


def _unit(vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: F.normalize(one, dim=1) for name, one in vectors.items()}


def pair(a: Tensor, b: Tensor) -> Pair:
    """Gives how near two kinds of views are.

    Args:
        a: float ``[n, D]``, n at least 2.
        b: float ``[n, D]``; ``b[i]`` is a view of the same history as ``a[i]``.

    Returns:
        The measures.
    """
    n, value = len(a), alignment(a, b)
    # |x - y|² = 2 - 2 x·y on the sphere, and the sum of all cosines is the product of the sums.
    first, second = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)
    cosines = float(first.sum(0) @ second.sum(0)) - n * (1 - value / 2)
    return Pair(value, 2 - 2 * cosines / (n * (n - 1)))
