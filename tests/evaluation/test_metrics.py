"""Metrics as functions of ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conseq.evaluation.metrics import (
    Floats,
    Offsets,
    comirec_ndcg,
    coverage,
    hit_rate,
    mean_popularity,
    means,
    mrr,
    ndcg,
    parse,
    recall,
)

INF = math.inf
# Four users: a hit at 1 and at 4 of three targets; one at 3; a miss; two out of reach.
RANKS = np.array([1.0, 4.0, 30.0, 3.0, 12.0, INF, INF])
OFFSETS = np.array([0, 3, 4, 5, 7])
GAIN_3 = 1 / 2  # 1 / log2(4)
GAIN_4 = 1 / math.log2(5)
IDEAL_3 = 1 + 1 / math.log2(3) + 1 / 2


def test_a_user_is_hit_by_any_of_the_targets() -> None:
    assert hit_rate(RANKS, OFFSETS, 5).tolist() == [1, 1, 0, 0]
    assert hit_rate(RANKS, OFFSETS, 2).tolist() == [1, 0, 0, 0]


def test_recall_is_the_share_of_the_targets() -> None:
    assert recall(RANKS, OFFSETS, 5).tolist() == [2 / 3, 1, 0, 0]


def test_ndcg_is_divided_by_the_achievable_ideal() -> None:
    assert ndcg(RANKS, OFFSETS, 5) == pytest.approx([(1 + GAIN_4) / IDEAL_3, GAIN_3, 0, 0], abs=1e-15)


def test_the_ideal_of_ndcg_is_no_longer_than_the_list() -> None:
    two = 1 + 1 / math.log2(3)
    assert ndcg(RANKS, OFFSETS, 2) == pytest.approx([1 / two, 0, 0, 0], abs=1e-15)


def test_comirecs_ndcg_is_divided_by_the_ideal_of_the_hits() -> None:
    two = 1 + 1 / math.log2(3)
    assert comirec_ndcg(RANKS, OFFSETS, 5) == pytest.approx([(1 + GAIN_4) / two, GAIN_3, 0, 0], abs=1e-15)
    assert comirec_ndcg(RANKS, OFFSETS, 1).tolist() == [1, 0, 0, 0]


def test_mrr_is_one_over_the_best_rank() -> None:
    assert mrr(RANKS, OFFSETS).tolist() == [1, 1 / 3, 1 / 12, 0]
    assert mrr(RANKS, OFFSETS, 10).tolist() == [1, 1 / 3, 0, 0]


def test_a_mean_rank_beyond_the_cut_off_is_a_miss() -> None:
    assert hit_rate(np.array([5.5]), np.array([0, 1]), 5).tolist() == [0]
    assert hit_rate(np.array([5.5]), np.array([0, 1]), 6).tolist() == [1]


def test_means_are_over_users_not_over_targets() -> None:
    assert means(["HR@5", "Recall@5", "MRR"], RANKS, OFFSETS) == pytest.approx(
        {"HR@5": 0.5, "Recall@5": (2 / 3 + 1) / 4, "MRR": (1 + 1 / 3 + 1 / 12) / 4}
    )


users = st.lists(
    st.lists(st.integers(1, 40) | st.just(10**9), min_size=1, max_size=6, unique=True), min_size=1, max_size=6
)


def arrays(lists: list[list[int]]) -> tuple[Floats, Offsets]:
    flat = np.array([INF if rank == 10**9 else rank for ranks in lists for rank in ranks], dtype=np.float64)
    return flat, np.cumsum([0, *(len(ranks) for ranks in lists)])


@given(lists=users, k=st.integers(1, 45))
def test_metrics_are_those_of_a_list_walked_place_by_place(lists: list[list[int]], k: int) -> None:
    ranks, offsets = arrays(lists)
    for user, own in enumerate(lists):
        shown = [place in own for place in range(1, k + 1)]
        gained = sum(1 / math.log2(place + 1) for place, hit in enumerate(shown, 1) if hit)
        achievable = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(own)) + 1))
        of_hits = sum(1 / math.log2(place + 1) for place in range(1, sum(shown) + 1))
        first = shown.index(True) + 1 if any(shown) else INF
        assert hit_rate(ranks, offsets, k)[user] == float(any(shown))
        assert recall(ranks, offsets, k)[user] == pytest.approx(sum(shown) / len(own))
        assert ndcg(ranks, offsets, k)[user] == pytest.approx(gained / achievable)
        assert comirec_ndcg(ranks, offsets, k)[user] == pytest.approx(gained / of_hits if of_hits else 0)
        assert mrr(ranks, offsets, k)[user] == pytest.approx(1 / first)


@given(ranks=st.lists(st.integers(1, 40), min_size=1, max_size=8), k=st.integers(1, 45))
def test_with_one_target_recall_is_the_hit_rate_and_both_ndcgs_agree(ranks: list[int], k: int) -> None:
    flat, offsets = arrays([[rank] for rank in ranks])
    assert np.array_equal(recall(flat, offsets, k), hit_rate(flat, offsets, k))
    assert np.array_equal(comirec_ndcg(flat, offsets, k), ndcg(flat, offsets, k))


@pytest.mark.parametrize("name", ["HR@5", "Recall@50", "NDCG@20", "ComiRecNDCG@10", "MRR@10", "MRR"])
def test_a_name_that_is_read_is_written_the_same(name: str) -> None:
    assert str(parse(name)) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NDGC@10", "did you mean 'NDCG@10'"),
        ("ndcg@5", "did you mean 'NDCG@5'"),
        ("hit@20", "did you mean 'HR@20'"),
        ("Recalls", "did you mean 'Recall@10'"),
        ("HR", "'HR': it has no cut-off; write for example HR@10"),
        ("HR@", "cut-off '' is no positive whole number"),
        ("HR@0", "cut-off '0' is no positive whole number"),
        ("MRR@ten", "cut-off 'ten' is no positive whole number"),
        ("AUC@5", "Known: HR@k, Recall@k, NDCG@k, ComiRecNDCG@k, MRR@k, MRR"),
        ("", "unknown metric ''"),
    ],
)
def test_a_misspelt_metric_is_refused_with_the_right_name(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse(text)


@pytest.mark.parametrize("offsets", [[0], [0, 1, 1]])
def test_a_mean_over_nobody_or_over_no_target_is_refused(offsets: list[int]) -> None:
    for metric in (hit_rate, recall, ndcg, mrr):
        with pytest.raises(ValueError, match="at least one"):
            metric(np.ones(offsets[-1]), np.array(offsets), 5)


def test_coverage_counts_every_item_once_and_no_empty_place() -> None:
    lists = np.array([[1, 2, 0], [2, 3, 4]])
    assert coverage(lists, 8, 1) == 2 / 8
    assert coverage(lists, 8, 3) == 4 / 8


def test_the_mean_popularity_is_over_the_places_that_hold_an_item() -> None:
    lists, counts = np.array([[1, 2, 0], [2, 3, 0]]), np.array([10, 4, 1])
    assert mean_popularity(lists, counts, 1) == 7
    assert mean_popularity(lists, counts, 3) == (10 + 4 + 4 + 1) / 4
    assert mean_popularity(np.zeros((2, 3), dtype=np.int64), counts, 3) == 0
