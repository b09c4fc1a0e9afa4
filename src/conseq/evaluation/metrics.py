"""Metrics as functions of ranks, per user; and what the recommended lists say about the catalogue."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Offsets = npt.NDArray[np.int64]


def hit_rate(ranks: Floats, offsets: Offsets, k: float) -> Floats:
    """Gives 1 for a user with any target among the best ``k``, else 0 (HR@k).

    Args:
        ranks: ``[N]``, 1 is the best, ``inf`` is unreachable.
        offsets: ``[B + 1]``; user ``i`` has the targets ``offsets[i]:offsets[i + 1]``, at least one.
        k: Length of the list.

    Returns:
        ``[B]``, in [0, 1].
    """
    return (_best(ranks, offsets) <= k).astype(np.float64)


def recall(ranks: Floats, offsets: Offsets, k: float) -> Floats:
    """Gives the share of a user's targets among the best ``k`` (Recall@k); HR@k where there is one target.

    Args:
        ranks: As in :func:`hit_rate`.
        offsets: As in :func:`hit_rate`.
        k: Length of the list.

    Returns:
        ``[B]``, in [0, 1].
    """
    return _sums((ranks <= k).astype(np.float64), offsets) / np.diff(offsets)


def ndcg(ranks: Floats, offsets: Offsets, k: float) -> Floats:
    r"""Gives the discounted gain of the targets among the best ``k`` over the greatest achievable (NDCG@k).

    .. math:: \sum_{r \le k} \frac{1}{\log_2(r + 1)} \Big/ \sum_{i=1}^{\min(k, n)} \frac{1}{\log_2(i + 1)}

    Args:
        ranks: As in :func:`hit_rate`.
        offsets: As in :func:`hit_rate`; n is the user's number of targets.
        k: Length of the list.

    Returns:
        ``[B]``, in [0, 1].
    """
    return _gains(ranks, offsets, k) / _ideal(np.minimum(np.diff(offsets), k))


def comirec_ndcg(ranks: Floats, offsets: Offsets, k: float) -> Floats:
    """Gives NDCG as ComiRec's code has it: the ideal is over the targets that were hit, not over all.

    A user with one of ten targets at rank 1 and the others missed scores 1. With a single target it is NDCG@k.

    Args:
        ranks: As in :func:`hit_rate`.
        offsets: As in :func:`hit_rate`.
        k: Length of the list.

    Returns:
        ``[B]``, in [0, 1]; 0 without a hit.
    """
    hits = _sums((ranks <= k).astype(np.float64), offsets)
    return _gains(ranks, offsets, k) / _ideal(np.maximum(hits, 1).astype(np.int64))


def mrr(ranks: Floats, offsets: Offsets, k: float = np.inf) -> Floats:
    """Gives one over the rank of a user's best target, 0 beyond ``k`` (MRR, or MRR@k).

    Args:
        ranks: As in :func:`hit_rate`.
        offsets: As in :func:`hit_rate`.
        k: Length of the list; infinite: the whole catalogue.

    Returns:
        ``[B]``, in [0, 1].
    """
    best = _best(ranks, offsets)
    return np.where(best <= k, 1 / best, 0.0)


RANK_METRICS: Mapping[str, Callable[[Floats, Offsets, float], Floats]] = MappingProxyType(
    {"HR": hit_rate, "Recall": recall, "NDCG": ndcg, "ComiRecNDCG": comirec_ndcg, "MRR": mrr}
)


@dataclass(frozen=True)
class Metric:
    """A metric of ranks at a cut-off.

    Attributes:
        name: A key of ``RANK_METRICS``.
        k: Length of the list; None: the whole catalogue (MRR alone).
    """

    name: str
    k: int | None

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"

    def per_user(self, ranks: Floats, offsets: Offsets) -> Floats:
        """Gives the value of every user, float64 ``[B]``."""
        return RANK_METRICS[self.name](ranks, offsets, np.inf if self.k is None else self.k)


def parse(text: str) -> Metric:
    """Gives the metric that ``text`` names: ``HR@5``, ``NDCG@20``, ``Recall@50``, ``MRR``, ``MRR@10``, …

    Args:
        text: The name, with its cut-off.

    Returns:
        The metric.

    Raises:
        ValueError: if there is no such metric; the message names the nearest one.
    """
    name, at, cut = text.partition("@")
    known = name in RANK_METRICS
    if known and re.fullmatch("[1-9][0-9]*", cut):
        return Metric(name, int(cut))
    if text == "MRR":
        return Metric("MRR", None)
    if known:
        problem = f"cut-off {cut!r} is no positive whole number" if at else "it has no cut-off"
        raise ValueError(f"metric {text!r}: {problem}; write for example {name}@10")
    places = {"hit": "HR", "hitrate": "HR", "hit_rate": "HR"} | {one.lower(): one for one in RANK_METRICS}
    near = difflib.get_close_matches(name.lower(), list(places), n=1, cutoff=0.5)
    digits = re.fullmatch("[1-9][0-9]*", cut)
    hint = f"; did you mean '{places[near[0]]}@{cut if digits else 10}'?" if near else ""
    raise ValueError(f"unknown metric {text!r}{hint} Known: {', '.join(f'{one}@k' for one in RANK_METRICS)}, MRR")


def means(names: list[str], ranks: Floats, offsets: Offsets) -> dict[str, float]:
    """Gives the mean over users of each metric in ``names``."""
    return {name: float(parse(name).per_user(ranks, offsets).mean()) for name in names}


def coverage(lists: npt.NDArray[np.int64], n_items: int, k: int) -> float:
    """Gives the share of the catalogue that stands among the best ``k`` of anyone (Coverage@k).

    Args:
        lists: ``[B, K]`` item numbers, best first, ``K >= k``; 0 where a list ends early.
        n_items: Items in the catalogue.
        k: Length of the list.

    Returns:
        A share in [0, 1].
    """
    shown = np.unique(lists[:, :k])
    return float((shown > 0).sum() / n_items)


def mean_popularity(lists: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], k: int) -> float:
    """Gives the mean training count of the items recommended at the best ``k`` places (MeanPopularity@k).

    Args:
        lists: As in :func:`coverage`.
        counts: ``[V]``, the training interactions of item ``j + 1``.
        k: Length of the list.

    Returns:
        Interactions per recommended item; 0 where nothing is recommended.
    """
    shown = lists[:, :k]
    shown = shown[shown > 0]
    return float(counts[shown - 1].mean()) if shown.size else 0.0


def _sums(values: Floats, offsets: Offsets) -> Floats:
    if offsets.size < 2 or np.any(np.diff(offsets) < 1):
        raise ValueError("metrics need at least one user, and at least one target of every user")
    return np.add.reduceat(values, offsets[:-1])


def _best(ranks: Floats, offsets: Offsets) -> Floats:
    if offsets.size < 2 or np.any(np.diff(offsets) < 1):
        raise ValueError("metrics need at least one user, and at least one target of every user")
    return np.minimum.reduceat(ranks, offsets[:-1])


def _gains(ranks: Floats, offsets: Offsets, k: float) -> Floats:
    return _sums(np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0), offsets)


def _ideal(targets: npt.NDArray[np.int64]) -> Floats:
    """Gives the discounted gain of the places 1 to ``targets``."""
    gains = np.cumsum(1 / np.log2(np.arange(int(targets.max())) + 2))
    return gains[np.asarray(targets, dtype=np.int64) - 1]
