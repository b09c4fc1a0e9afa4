"""Whether clusters of users are users who met one category of items.

ICLRec's case study (section 5.6 and Appendix E, Fig. 7) holds intents against item categories that training never saw:
it shows that users of one category lie together, as a t-SNE map of 100 users, and prints no number. Purity and
normalised mutual information say the same of all users, beside what a random assignment reaches, because both grow
with the number of clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from conseq.analyses.subject import Subject
from conseq.analyses.vectors import user_vectors
from conseq.config import settings
from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Encoder
from conseq.signals.categories import ItemCategories, read_categories
from conseq.signals.clusters import k_means, nearest

Integers = npt.NDArray[np.int64]

_SHUFFLES = 10


@settings
class PurityConfig:
    """How users are clustered, and which categories they are held against."""

    items: Path
    """A table of items: Parquet, or CSV where its name says so."""
    id_column: str = "item_id"
    """Its column of outside item ids."""
    column: str = "categories"
    """Its column of lists of categories, or of one category each."""
    clusters: Annotated[int, Field(ge=1)] = 512
    """K of K-means (ICLRec's K)."""
    common: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Categories of more than this share of the items are left out: everybody's tells nobody's."""
    top: Annotated[int, Field(ge=1)] = 3
    """Categories named for each cluster."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of K-means and of the random assignments."""


@dataclass(frozen=True)
class Agreement:
    """How well an assignment of users to clusters agrees with their categories.

    Attributes:
        purity: As in :func:`purity`.
        nmi: As in :func:`normalised_mutual_information`.
    """

    purity: float
    nmi: float


@dataclass(frozen=True)
class TopCategory:
    """A category of a cluster's users.

    Attributes:
        name: The category.
        share: Of the cluster's users.
        lift: That share over the share of all users.
    """

    name: str
    share: float
    lift: float


@dataclass(frozen=True)
class Cluster:
    """A cluster of users.

    Attributes:
        users: How many (those with a category).
        top: Their most frequent categories, best first.
    """

    users: int
    top: tuple[TopCategory, ...]


@dataclass(frozen=True)
class Purity:
    """Clusters of users against categories of items.

    Attributes:
        users: Users with a category, on whom everything below rests.
        without_category: Users of whose items none has a category that counts.
        categories: Different categories of users.
        agreement: Of the clusters.
        chance: Of random assignments with the same sizes, their mean.
        majority: Share of the users that are in the most frequent category: the purity of one cluster.
        clusters: Largest first; empty ones are left out.
    """

    users: int
    without_category: int
    categories: int
    agreement: Agreement
    chance: Agreement
    majority: float
    clusters: tuple[Cluster, ...]

    def record(self) -> dict[str, Any]:
        """Gives everything as JSON values."""
        clusters = [{"users": one.users, "top": [dict(vars(top)) for top in one.top]} for one in self.clusters]
        return {
            **vars(self),
            "agreement": dict(vars(self.agreement)),
            "chance": dict(vars(self.chance)),
            "clusters": clusters,
        }


def of_subject(subject: Subject, config: PurityConfig) -> Purity:
    """Gives :func:`intent_purity` of a stored model's test histories."""
    categories = read_categories(
        config.items, subject.bundle.item_ids, id_column=config.id_column, column=config.column
    )
    return intent_purity(
        subject.encoder,
        subject.split.test.histories,
        categories,
        clusters=config.clusters,
        common=config.common,
        top=config.top,
        seed=config.seed,
    )


def intent_purity(
    encoder: Encoder,
    histories: Sequences,
    categories: ItemCategories,
    *,
    clusters: int,
    common: float = 0.5,
    top: int = 3,
    seed: int = 0,
) -> Purity:
    """Gives how well K-means over user vectors finds the users' categories.

    Args:
        encoder: The model.
        histories: ``B`` sequences, one per user.
        categories: Of the items.
        clusters: K; as many as there are users where that is less.
        common: As in :func:`user_categories`.
        top: Categories named for each cluster.
        seed: Of K-means and of the random assignments.

    Returns:
        The agreement, and each cluster's categories.

    Raises:
        ValueError: if no user has a category.
    """
    labels = user_categories(histories, categories, common=common)
    known = labels >= 0
    if not known.any():
        raise ValueError("no item of any history has a category that counts; name another column, or a higher --common")
    points = user_vectors(encoder, histories)
    assigned = nearest(points, k_means(points, min(clusters, len(points)), seed=seed)).numpy()[known]
    labels = labels[known]
    shuffle = np.random.default_rng(seed)
    random = [agreement(shuffle.permutation(assigned), labels) for _ in range(_SHUFFLES)]
    return Purity(
        users=int(known.sum()),
        without_category=int((~known).sum()),
        categories=len(np.unique(labels)),
        agreement=agreement(assigned, labels),
        chance=Agreement(float(np.mean([one.purity for one in random])), float(np.mean([one.nmi for one in random]))),
        majority=float(np.bincount(labels).max() / labels.size),
        clusters=_described(assigned, labels, categories.names, top),
    )


def user_categories(histories: Sequences, categories: ItemCategories, *, common: float = 1.0) -> Integers:
    """Gives each user's category: that of most items of the history.

    Of equally frequent ones it is the category that fewest items are in (*Nail Polish* before *Makeup*), then the
    first by name. A repeated item counts each time.

    Args:
        histories: ``B`` sequences.
        categories: Of the items.
        common: Categories of more than this share of the items that have any are left out.

    Returns:
        int64 ``[B]``, numbers of categories; -1 where no item has a category that counts.
    """
    of_item = categories.of_item
    sizes = np.bincount(of_item.ids.numpy(), minlength=len(categories.names))
    counted = sizes <= common * int((of_item.lengths > 0).sum())
    found = categories.of_histories(histories.to("cpu"))
    rows, ids = found.rows.numpy(), found.ids.numpy()
    keep = counted[ids]
    pairs, counts = np.unique(rows[keep] * len(sizes) + ids[keep], return_counts=True)
    users, kinds = pairs // len(sizes), pairs % len(sizes)
    order = np.lexsort((kinds, sizes[kinds], -counts, users))
    owners, first = np.unique(users[order], return_index=True)
    labels = np.full(len(histories), -1, dtype=np.int64)
    labels[owners] = kinds[order][first]
    return labels


def agreement(clusters: Integers, labels: Integers) -> Agreement:
    """Gives purity and normalised mutual information of ``clusters`` and ``labels`` (int64 ``[n]``, n at least 1)."""
    return Agreement(purity(clusters, labels), normalised_mutual_information(clusters, labels))


def purity(clusters: Integers, labels: Integers) -> float:
    r"""Gives the share of users that are in the most frequent category of their cluster.

    .. math:: \frac{1}{n} \sum_k \max_c n_{kc}

    Args:
        clusters: int64 ``[n]``, n at least 1.
        labels: int64 ``[n]``.

    Returns:
        Above 0, at most 1.
    """
    table = _Contingency.of(clusters, labels)
    most = np.zeros(table.clusters.size, dtype=np.int64)
    np.maximum.at(most, table.cluster, table.count)
    return float(most.sum() / clusters.size)


def normalised_mutual_information(clusters: Integers, labels: Integers) -> float:
    r"""Gives the mutual information of two partitions over the mean of their entropies.

    .. math:: \frac{2 I(K; C)}{H(K) + H(C)}

    Args:
        clusters: int64 ``[n]``, n at least 1.
        labels: int64 ``[n]``.

    Returns:
        In [0, 1]; 1 where both are one single part.
    """
    table, n = _Contingency.of(clusters, labels), clusters.size
    shares = table.count / n
    expected = table.clusters[table.cluster] / n * (table.labels[table.label] / n)
    information = float((shares * np.log(shares / expected)).sum())
    entropies = _entropy(table.clusters / n) + _entropy(table.labels / n)
    if entropies == 0:
        return 1.0
    return min(1.0, max(0.0, 2 * information / entropies))


@dataclass(frozen=True)
class _Contingency:
    """The cells of the table of two partitions that hold anybody, and its margins.

    Attributes:
        cluster: int64, each cell's row.
        label: int64, each cell's column.
        count: int64, users in the cell.
        clusters: int64, users per row.
        labels: int64, users per column.
    """

    cluster: Integers
    label: Integers
    count: Integers
    clusters: Integers
    labels: Integers

    @classmethod
    def of(cls, clusters: Integers, labels: Integers) -> _Contingency:
        _, rows, per_row = np.unique(clusters, return_inverse=True, return_counts=True)
        _, columns, per_column = np.unique(labels, return_inverse=True, return_counts=True)
        cells, count = np.unique(rows * per_column.size + columns, return_counts=True)
        return cls(cells // per_column.size, cells % per_column.size, count, per_row, per_column)


def _entropy(shares: npt.NDArray[np.float64]) -> float:
    return float(-(shares * np.log(shares)).sum())


def _described(assigned: Integers, labels: Integers, names: Sequence[str], top: int) -> tuple[Cluster, ...]:
    """Gives every cluster with its most frequent categories."""
    overall = np.bincount(labels, minlength=len(names)) / labels.size
    found = []
    for cluster in np.unique(assigned):
        own = np.bincount(labels[assigned == cluster], minlength=len(names))
        best = [one for one in np.argsort(-own, kind="stable")[:top].tolist() if own[one]]
        share = own / own.sum()
        tops = tuple(TopCategory(names[one], float(share[one]), float(share[one] / overall[one])) for one in best)
        found.append(Cluster(int(own.sum()), tops))
    return tuple(sorted(found, key=lambda one: -one.users))
