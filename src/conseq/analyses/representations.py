"""How a model's vectors lie in space: alignment, uniformity, and how fast the singular values fall.

DuoRec (Qiu et al., WSDM 2022) shows that the item vectors of a sequential model degenerate into a narrow cone with few
large singular values, and that a contrastive term spreads them. Alignment and uniformity are Wang and Isola's (ICML
2020); the effective rank is Roy and Vetterli's (EUSIPCO 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from conseq.analyses.subject import Subject
from conseq.analyses.vectors import user_vectors
from conseq.config import settings
from conseq.data.sequences import slices
from conseq.data.splits import Split
from conseq.data.train_set import TrainSet
from conseq.encoders.encoder import Encoder
from conseq.views.same_target import SameTarget

Positives = Literal["same_target", "dropout"]

_ROWS = 256


@settings
class RepresentationsConfig:
    """What is measured of the vectors."""

    positives: tuple[Positives, ...] = ("same_target", "dropout")
    """Pairs to be aligned: training histories of two users with one next item; a history under two dropout masks."""
    pairs: Annotated[int, Field(ge=1)] = 10_000
    """Most pairs of each kind."""
    points: Annotated[int, Field(ge=2)] = 20_000
    """Most vectors for the uniformity, whose cost is quadratic; drawn at random where there are more."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of pairs, points and dropout."""


@dataclass(frozen=True)
class Spread:
    """How some vectors lie in space.

    Attributes:
        vectors: How many.
        width: ``D``.
        singular_values: Of the matrix of vectors, not centred, over the largest: from 1 down, ``min(vectors, D)``.
        effective_rank: The exponential of their entropy, from 1 to ``D``.
        mean_cosine: Over all pairs of different vectors; near 1 in a narrow cone.
        mean_norm: Mean length.
        uniformity: As in :func:`uniformity`.
        points: Vectors that the uniformity was computed from.
    """

    vectors: int
    width: int
    singular_values: tuple[float, ...]
    effective_rank: float
    mean_cosine: float
    mean_norm: float
    uniformity: float
    points: int


@dataclass(frozen=True)
class Alignment:
    """How near positive pairs are.

    Attributes:
        value: As in :func:`alignment`; None where there are no pairs.
        pairs: How many.
    """

    value: float | None
    pairs: int


@dataclass(frozen=True)
class Representations:
    """How the vectors of items and users lie.

    Attributes:
        items: Of the item table, without padding and mask.
        users: Of the test histories.
        alignment: Of user vectors, by what makes two of them a positive pair.
        seed: Of pairs, points and dropout.
    """

    items: Spread
    users: Spread
    alignment: dict[Positives, Alignment]
    seed: int

    def record(self) -> dict[str, Any]:
        """Gives everything as JSON values."""
        spreads = {"items": self.items, "users": self.users}
        return {
            **{name: {**vars(one), "singular_values": list(one.singular_values)} for name, one in spreads.items()},
            "alignment": {name: dict(vars(one)) for name, one in self.alignment.items()},
            "seed": self.seed,
        }


def of_subject(subject: Subject, config: RepresentationsConfig) -> Representations:
    """Gives :func:`representations` for a stored model."""
    return representations(subject.encoder, subject.split, config)


def representations(encoder: Encoder, split: Split, config: RepresentationsConfig | None = None) -> Representations:
    """Gives how the vectors of a model lie in space.

    Args:
        encoder: The model.
        split: The log as it was cut. The users are those of its test part, with their test histories; the pairs
            of ``same_target`` are training histories.
        config: What is measured; its defaults where not given.

    Returns:
        The measures.
    """
    config = config or RepresentationsConfig()
    rng = torch.Generator().manual_seed(config.seed)
    histories = split.test.histories.to("cpu")
    items = encoder.items.candidates.detach().float().cpu()
    spreads = [spread(one, points=config.points, rng=rng) for one in (items, user_vectors(encoder, histories))]
    found: dict[Positives, Alignment] = {}
    for kind in config.positives:
        pairs = (
            _same_target_pairs(encoder, split, config.pairs, rng)
            if kind == "same_target"
            else _dropout_pairs(encoder, split, config, rng)
        )
        found[kind] = Alignment(alignment(*pairs) if len(pairs[0]) else None, len(pairs[0]))
    return Representations(spreads[0], spreads[1], found, config.seed)


def spread(vectors: Tensor, *, points: int, rng: torch.Generator) -> Spread:
    """Gives how ``vectors`` lie.

    Args:
        vectors: float ``[n, D]``, n at least 2.
        points: Most vectors for the uniformity.
        rng: Draws them where there are more.

    Returns:
        The measures.
    """
    values = singular_values(vectors)
    some = vectors if len(vectors) <= points else vectors[_some(len(vectors), points, rng)]
    return Spread(
        vectors=len(vectors),
        width=vectors.shape[1],
        singular_values=tuple((values / values[0].clamp(min=torch.finfo(values.dtype).tiny)).tolist()),
        effective_rank=effective_rank(values),
        mean_cosine=mean_cosine(vectors),
        mean_norm=float(vectors.double().norm(dim=1).mean()),
        uniformity=uniformity(some),
        points=len(some),
    )


def alignment(a: Tensor, b: Tensor) -> float:
    r"""Gives the mean squared distance of positive pairs on the unit sphere (Wang and Isola, with α = 2).

    .. math:: \frac{1}{n} \sum_i \| \hat a_i - \hat b_i \|^2, \qquad \hat x = x / \|x\|

    Args:
        a: float ``[n, D]``, n at least 1.
        b: float ``[n, D]``; ``b[i]`` is the positive of ``a[i]``.

    Returns:
        From 0 (all pairs point alike) to 4.
    """
    return float((_unit(a) - _unit(b)).square().sum(1).mean())


def uniformity(x: Tensor, *, t: float = 2.0) -> float:
    r"""Gives the logarithm of the mean Gaussian potential of pairs on the unit sphere (Wang and Isola, with t = 2).

    .. math:: \log \frac{2}{n (n - 1)} \sum_{i < j} e^{-t \| \hat x_i - \hat x_j \|^2}

    Args:
        x: float ``[n, D]``, n at least 2.
        t: Scale of the potential.

    Returns:
        At most 0, which says that all vectors point alike; the lower, the more evenly they are spread.

    Raises:
        ValueError: if there are fewer than two vectors.
    """
    n = len(x)
    if n < 2:
        raise ValueError(f"uniformity is of pairs of vectors; found {n} vectors")
    unit = _unit(x)
    total = 0.0
    for first in range(0, n, _ROWS):
        rows = unit[first : first + _ROWS]
        # |a - b|² = 2 - 2 a·b on the sphere; the upper triangle holds each pair once.
        potential = (2 * t * (rows @ unit[first:].T - 1)).exp()
        total += float(potential.triu(1).sum())
    return float(torch.tensor(2 * total / (n * (n - 1)), dtype=torch.float64).log())


def singular_values(x: Tensor) -> Tensor:
    """Gives the singular values of ``x`` (float ``[n, D]``, not centred), float64 ``[min(n, D)]``, largest first."""
    values: Tensor = torch.linalg.svdvals(x.double())
    return values


def effective_rank(values: Tensor) -> float:
    r"""Gives how many dimensions singular values fill: :math:`\exp(-\sum_i p_i \log p_i)`, p their shares of the sum.

    Args:
        values: Not negative, ``[r]``.

    Returns:
        From 1 to r; 0 where all values are 0.
    """
    if not float(values.sum()):
        return 0.0
    shares = values.double() / values.double().sum()
    return float(torch.special.entr(shares).sum().exp())


def mean_cosine(x: Tensor) -> float:
    """Gives the mean cosine of all pairs of different rows of ``x`` (float ``[n, D]``, n at least 2), in [-1, 1]."""
    unit, n = _unit(x), len(x)
    return float((unit.sum(0).square().sum() - unit.square().sum()) / (n * (n - 1)))


def _same_target_pairs(encoder: Encoder, split: Split, most: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Gives the vectors of training histories of different users that lead to one item, ``[n, D]`` twice."""
    train = TrainSet(
        split.train, split.train_users, split.n_items, instances="prefixes", max_length=max(1, split.train.max_length)
    )
    same_target = SameTarget(train, other_users=True)
    rows = torch.arange(len(train))
    partners = same_target.draw(rows, rng)
    rows = rows[partners != rows]
    rows = rows[_some(len(rows), most, rng)]
    both = [slices(split.train.ids, train.start[one], (train.end - train.start)[one]) for one in (rows, partners[rows])]
    return user_vectors(encoder, both[0]), user_vectors(encoder, both[1])


def _dropout_pairs(
    encoder: Encoder, split: Split, config: RepresentationsConfig, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Gives the vectors of test histories under two dropout masks, ``[n, D]`` twice."""
    histories = split.test.histories.to("cpu")
    some = histories.select(_some(len(histories), config.pairs, rng))
    seeds: Sequence[int] = torch.randint(2**31 - 1, (2,), generator=rng).tolist()
    return user_vectors(encoder, some, dropout_seed=seeds[0]), user_vectors(encoder, some, dropout_seed=seeds[1])


def _some(count: int, most: int, rng: torch.Generator) -> Tensor:
    """Gives up to ``most`` of the numbers below ``count``, drawn without replacement, ascending."""
    return torch.randperm(count, generator=rng)[:most].sort().values


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.double(), dim=1)
