"""Whether a difference between models is more than chance over the users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from conseq.config import to_json
from conseq.evaluation.metrics import RANK_METRICS, Floats
from conseq.evaluation.result import Evaluation

_DRAWS_AT_ONCE = 2**22
_OF_ALL_LISTS = frozenset({"Coverage", "MeanPopularity"})


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        value: The mean over the users.
        low: Lower end.
        high: Upper end.
        confidence: Share of such intervals that hold the true mean.
    """

    value: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two models on the same users.

    Attributes:
        metric: What was compared.
        first: Name of the first model.
        second: Name of the second.
        first_value: Mean of the first model.
        second_value: Mean of the second.
        difference: ``second_value - first_value`` with its bootstrap interval.
        p_bootstrap: Two-sided, from the bootstrap distribution of the mean difference moved to zero.
        p_t: Two-sided, of the paired t-test.
        p_adjusted: ``p_bootstrap`` after Holm's correction for all comparisons that were made together.
        users: Users compared.
        seeds: Runs of the first and of the second model; a user's value is the mean over them.
        p_seeds: Two-sided, of Welch's t-test between the runs' means; None with fewer than two runs of either. The
            others tell whether the users could be chance, this whether the seeds could.
    """

    metric: str
    first: str
    second: str
    first_value: float
    second_value: float
    difference: Interval
    p_bootstrap: float
    p_t: float
    p_adjusted: float
    users: int
    seeds: tuple[int, int] = (1, 1)
    p_seeds: float | None = None


def interval(
    evaluation: Evaluation, metric: str, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Gives the percentile bootstrap interval of a metric, users resampled with replacement.

    Args:
        evaluation: The evaluation.
        metric: A metric of ranks, such as ``NDCG@10``.
        confidence: In (0, 1).
        resamples: Bootstrap samples.
        seed: Of the samples.

    Returns:
        The mean and its interval.
    """
    values = evaluation.per_user(metric)
    return _interval(values, bootstrap_means(values, resamples=resamples, seed=seed), confidence)


def compare(
    first: Evaluation,
    second: Evaluation,
    metrics: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Gives a paired comparison of two models for each metric, Holm's correction over all of them.

    Evaluations that are not comparable are refused (:func:`check_comparable`).

    Args:
        first: The baseline.
        second: What is compared with it.
        metrics: Metrics of ranks, such as ``NDCG@10``.
        confidence: Of the intervals, in (0, 1).
        resamples: Bootstrap samples of the users.
        seed: Of the samples.

    Returns:
        One comparison per metric, in order.
    """
    return compare_all(first, [second], metrics, confidence=confidence, resamples=resamples, seed=seed)


def compare_all(
    baseline: Evaluation,
    others: Sequence[Evaluation],
    metrics: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Gives paired comparisons of several models with one, Holm's correction over all models and metrics.

    Evaluations that are not comparable are refused (:func:`check_comparable`).

    Args:
        baseline: What all are compared with.
        others: The models.
        metrics: Metrics of ranks, such as ``NDCG@10``.
        confidence: Of the intervals, in (0, 1).
        resamples: Bootstrap samples of the users.
        seed: Of the samples.

    Returns:
        One comparison per model and metric, models in order.
    """
    return compare_groups(
        [baseline],
        [[other] for other in others],
        metrics,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def compare_groups(
    baseline: Sequence[Evaluation],
    others: Sequence[Sequence[Evaluation]],
    metrics: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Gives paired comparisons of several models with one, each judged after training with one or more seeds.

    Evaluations that are not comparable are refused (:func:`check_comparable`).

    Args:
        baseline: The runs of the model that all are compared with.
        others: The runs of each other model.
        metrics: Metrics of ranks, such as ``NDCG@10``.
        confidence: Of the intervals, in (0, 1).
        resamples: Bootstrap samples of the users.
        seed: Of the samples.

    Returns:
        One comparison per model and metric, models in order; Holm's correction is over all of them.

    Raises:
        ValueError: if a model has no run, or a metric no value for one user.
    """
    if not all([baseline, *others]):
        raise ValueError("every model that is compared needs at least one evaluation")
    check_by_user(metrics)
    found = []
    for other in others:
        for one in [*baseline[1:], *other]:
            check_comparable(baseline[0], one)
        for metric in metrics:
            before = np.stack([one.per_user(metric) for one in baseline])
            after = np.stack([one.per_user(metric) for one in other])
            change = after.mean(0) - before.mean(0)
            draws = bootstrap_means(change, resamples=resamples, seed=seed)
            found.append(
                Comparison(
                    metric=metric,
                    first=baseline[0].model,
                    second=other[0].model,
                    first_value=float(before.mean()),
                    second_value=float(after.mean()),
                    difference=_interval(change, draws, confidence),
                    p_bootstrap=_p_bootstrap(change, draws),
                    p_t=_p_t(change),
                    p_adjusted=1.0,
                    users=change.size,
                    seeds=(len(baseline), len(other)),
                    p_seeds=_p_seeds(before.mean(1), after.mean(1)),
                )
            )
    adjusted = holm([one.p_bootstrap for one in found])
    return [replace(one, p_adjusted=float(p)) for one, p in zip(found, adjusted, strict=True)]


def among(evaluation: Evaluation, chosen: npt.NDArray[np.bool_]) -> Evaluation:
    """Gives the evaluation of some of the users, to be compared with that of the same ones by another model.

    Args:
        evaluation: The evaluation.
        chosen: bool ``[B]``, in the order of its users.

    Returns:
        Ranks of those users alone; without metrics, floors, slices and counts, which are of all.

    Raises:
        ValueError: if nobody is chosen, or ``chosen`` is of another number of users.
    """
    if chosen.shape != evaluation.users.shape:
        raise ValueError(f"chosen among {chosen.size} users, the evaluation has {evaluation.users.size}")
    if not chosen.any():
        raise ValueError("no user is among those chosen; there is nothing to compare")
    sizes = np.diff(evaluation.offsets)
    offsets = np.concatenate([[0], np.cumsum(sizes[chosen])]).astype(np.int64)
    return replace(
        evaluation,
        users=evaluation.users[chosen],
        ranks=evaluation.ranks[np.repeat(chosen, sizes)],
        offsets=offsets,
        metrics={},
        floors={},
        slices={},
        counts={},
    )


def check_by_user(metrics: Sequence[str]) -> None:
    """Refuses metrics that are of all lists together: paired comparisons are made user by user.

    Args:
        metrics: Their names.

    Raises:
        ValueError: naming the metric and those that can be compared.
    """
    for metric in metrics:
        if metric.partition("@")[0] in _OF_ALL_LISTS:
            known = ", ".join("MRR" if one == "MRR" else f"{one}@k" for one in RANK_METRICS)
            raise ValueError(
                f"{metric} is of the lists of all users together and has no value for one user, so it cannot be "
                f"compared user by user; those that can: {known}"
            )


def check_comparable(first: Evaluation, second: Evaluation) -> None:
    """Refuses a comparison that would mean nothing.

    Args:
        first: One evaluation.
        second: Another.

    Raises:
        ValueError: naming what differs: protocol, catalogue, users, or histories and targets.
    """
    left, right = to_json(first.protocol), to_json(second.protocol)
    different = [f"{key} {left[key]!r} against {right[key]!r}" for key in left if left[key] != right[key]]
    pair = f"{first.model} and {second.model}"
    if different:
        raise ValueError(f"{pair} were judged under different protocols: {', '.join(different)}")
    if first.n_items != second.n_items:
        raise ValueError(f"{pair} ranked different catalogues: {first.n_items} against {second.n_items} items")
    if not np.array_equal(first.users, second.users):
        common = np.intersect1d(first.users, second.users).size
        raise ValueError(
            f"{pair} were judged on different users: {first.users.size} against {second.users.size}, "
            f"{common} in common; evaluate both on one split"
        )
    if first.held_out != second.held_out:
        raise ValueError(
            f"{pair} were judged on the same users but different histories or targets; "
            "evaluate both on one prepared log"
        )


def bootstrap_means(values: Floats, *, resamples: int, seed: int) -> Floats:
    """Gives the means of samples of the users, drawn with replacement.

    How often each *different* value is drawn is multinomial, so with the few values that HR@k or NDCG@k can take the
    samples are drawn by value: exactly the same distribution as by user, and far less work.

    Args:
        values: ``[B]``, one per user.
        resamples: Number of samples.
        seed: Of the draws.

    Returns:
        float64 ``[resamples]``.

    Raises:
        ValueError: if no sample is asked for.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, found {resamples}")
    rng = np.random.default_rng(seed)
    kinds, counts = np.unique(values, return_counts=True)
    # A binomial draw costs about as much as drawing sixteen users.
    by_value = kinds.size * 16 <= values.size
    at_once = max(1, _DRAWS_AT_ONCE // (kinds.size if by_value else values.size))
    parts = []
    for start in range(0, resamples, at_once):
        samples = min(at_once, resamples - start)
        if by_value:
            drawn = rng.multinomial(values.size, counts / values.size, size=samples)
            parts.append(drawn @ kinds / values.size)
        else:
            users = rng.integers(0, values.size, (samples, values.size), dtype=np.int32)
            parts.append(values[users].mean(1))
    return np.concatenate(parts)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Gives p-values adjusted for being several (Holm, 1979), in their order.

    Args:
        p_values: In [0, 1].

    Returns:
        float64, each at least its own p-value and at most 1.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    scaled = raw[order] * np.arange(raw.size, 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def _interval(values: Floats, draws: Floats, confidence: float) -> Interval:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, found {confidence}")
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high), confidence)


def _p_bootstrap(change: Floats, draws: Floats) -> float:
    """Gives the share of samples, moved to mean zero, that lie as far out as the observed mean."""
    if np.ptp(change) == 0:
        return _p_alike(change)
    observed = float(change.mean())
    # Rounding must not decide whether a draw that equals the observed mean counts.
    far = np.abs(draws - observed) >= abs(observed) * (1 - 1e-9)
    return float((1 + far.sum()) / (1 + draws.size))


def _p_t(change: Floats) -> float:
    """Gives the two-sided p of the paired t-test."""
    if np.ptp(change) == 0:
        return _p_alike(change)
    from scipy import stats  # noqa: PLC0415  (slow to import, and most who read this module compare nothing)

    return float(stats.ttest_1samp(change, 0.0).pvalue)


def _p_alike(change: Floats) -> float:
    """Gives the p of the sign test where all changed alike, of which neither resampling nor a t-test can tell."""
    return 1.0 if change[0] == 0 else 2.0 ** (1 - change.size)


def _p_seeds(before: Floats, after: Floats) -> float | None:
    """Gives the two-sided p of Welch's t-test between the means of runs; None for a single run, or without spread."""
    if min(before.size, after.size) < 2 or (np.ptp(before) == 0 and np.ptp(after) == 0):
        return None
    from scipy import stats  # noqa: PLC0415

    return float(stats.ttest_ind(before, after, equal_var=False).pvalue)
