"""What arithmetic demands of metrics."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conseq.evaluation.inequalities import violations
from conseq.evaluation.metrics import means

CUTS = (1, 3, 5, 10, 20)
NAMES = [f"{kind}@{k}" for kind in ("HR", "NDCG", "MRR") for k in CUTS]

IMPOSSIBLE = {
    ("EC4SRec", "Beauty", "SASRec"),
    ("EC4SRec", "Beauty", "GRU4Rec"),
    ("EC4SRec", "Clothing", "BPR-MF"),
    ("EC4SRec", "Clothing", "S3Rec_MIP"),
    ("ECL-SR", "ML-1m", "Caser"),
    ("ECL-SR", "Sports", "CoSeRec"),
    ("ECL-SR", "Toys", "DuoRec"),
    ("MCLRec", "Sports", "Caser"),
    ("MCLRec", "Beauty", "Caser"),
    ("MCLRec", "Sports", "SASRec"),
    ("MCLRec", "Beauty", "SASRec"),
    ("MCLRec", "Sports", "GRU4Rec"),
    ("MCLRec", "Yelp", "GRU4Rec"),
    ("ICLRec", "Beauty", "GRU4Rec"),
    ("ICLRec", "Beauty", "Caser"),
    ("ICLRec", "Toys", "S3Rec_ISP"),
}


@given(ranks=st.lists(st.integers(1, 30) | st.just(10**9), min_size=1, max_size=30))
def test_metrics_of_any_ranks_are_possible(ranks: list[int]) -> None:
    flat = np.array([np.inf if rank == 10**9 else rank for rank in ranks], dtype=np.float64)
    assert violations(means(NAMES, flat, np.arange(flat.size + 1))) == []


@given(ranks=st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_printed_metrics_are_possible_when_rounding_is_granted(ranks: list[int]) -> None:
    flat = np.array(ranks, dtype=np.float64)
    printed = {name: round(value, 2) for name, value in means(NAMES, flat, np.arange(flat.size + 1)).items()}
    assert violations(printed, rounding=0.005) == []


@given(ranks=st.lists(st.integers(2, 60), min_size=1, max_size=30))
def test_metrics_of_mean_ties_are_possible_when_half_ranks_are_granted(ranks: list[int]) -> None:
    flat = np.array(ranks, dtype=np.float64) / 2
    assert violations(means(NAMES, flat, np.arange(flat.size + 1)), half_ranks=True) == []


def test_a_half_rank_is_impossible_among_whole_ranks() -> None:
    one = means(["HR@5", "HR@10", "NDCG@5", "NDCG@10"], np.array([5.5]), np.array([0, 1]))
    assert [problem.what for problem in violations(one)] == ["NDCG@10 - NDCG@5"]
    assert violations(one, half_ranks=True) == []


@pytest.mark.parametrize(
    ("metrics", "what"),
    [
        ({"HR@5": 0.1, "NDCG@5": 0.11}, "NDCG@5"),  # more than every hit at rank 1
        ({"HR@5": 0.1, "NDCG@5": 0.038}, "NDCG@5"),  # less than every hit at rank 5: 0.1 / log2(6) = 0.0387
        ({"HR@5": 0.1, "NDCG@5": 0.06, "HR@10": 0.2, "NDCG@10": 0.088}, "NDCG@10 - NDCG@5"),  # 0.1 / log2(11) = 0.0289
        ({"HR@5": 0.1, "NDCG@5": 0.06, "HR@10": 0.2, "NDCG@10": 0.096}, "NDCG@10 - NDCG@5"),  # 0.1 / log2(7) = 0.0356
        ({"HR@5": 0.1, "NDCG@5": 0.06, "HR@10": 0.09, "NDCG@10": 0.06}, "NDCG@10 - NDCG@5"),  # hits do not vanish
        ({"HR@5": 0.1, "MRR@5": 0.019}, "MRR@5"),  # less than every hit at rank 5: 0.1 / 5
        ({"HR@5": 0.1, "MRR@5": 0.06, "HR@10": 0.2, "MRR@10": 0.077}, "MRR@10 - MRR@5"),  # more than 0.1 / 6
    ],
)
def test_an_impossible_value_is_found_and_named(metrics: dict[str, float], what: str) -> None:
    found = violations(metrics, rounding=0.00005)
    assert [problem.what for problem in found] == [what]
    assert str(found[0]).startswith(f"{what} = ")


def test_rounding_excuses_what_it_can_explain_and_no_more() -> None:
    metrics = {"HR@1": 0.1001, "NDCG@1": 0.1002}
    assert violations(metrics)
    assert violations(metrics, rounding=0.00005) == []
    assert violations(metrics, rounding=0.00004)


def test_names_that_are_no_gain_or_stand_alone_are_not_looked_at() -> None:
    assert violations({"HR@5": 0.1, "NDCG@10": 0.9, "MRR": 0.9, "Coverage@5": 3.0, "Recall@10": 0.0}) == []


def test_a_hit_rate_may_be_called_recall() -> None:
    assert violations({"Recall@5": 0.1, "NDCG@5": 0.2}, hits="Recall")


@pytest.mark.real_data
def test_exactly_sixteen_rows_of_the_papers_tables_are_impossible(shared: Path) -> None:
    rows: dict[tuple[str, str, str, str], dict[str, float]] = defaultdict(dict)
    with (shared / "facts" / "paper_numbers.csv").open() as lines:
        for line in csv.DictReader(lines):
            # Recall with one target is the hit rate; the tables in percent have several targets.
            metric = line["metric"].replace("Recall@", "HR@")
            if re.fullmatch(r"(HR|NDCG)@\d+", metric) and re.fullmatch(r"0?\.\d+", line["value"]):
                key = (line["paper"], line["table"], line["dataset"], line["method"])
                rows[key][metric] = float(line["value"])
    bad = [(paper, data, method) for (paper, _, data, method), row in rows.items() if violations(row, rounding=0.00005)]
    assert len(rows) > 250
    assert len(bad) == 16
    assert set(bad) == IMPOSSIBLE
