"""Intervals and paired tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from conseq.evaluation.compare import (
    bootstrap_means,
    check_comparable,
    compare,
    compare_all,
    compare_groups,
    holm,
    interval,
)
from conseq.evaluation.metrics import Floats
from conseq.evaluation.ranks import Protocol
from conseq.evaluation.result import Evaluation

PROTOCOL = Protocol(split="test", slicing="leave_one_out", history="keep", ties="mean")


def judged(ranks: Floats, *, model: str = "model") -> Evaluation:
    return Evaluation(
        model=model,
        protocol=PROTOCOL,
        users=np.arange(ranks.size),
        ranks=ranks,
        offsets=np.arange(ranks.size + 1),
        n_items=100,
        metrics={},
        seconds=0.0,
        held_out="same",
    )


def ranks(seed: int, *, users: int = 400, worst: int = 60) -> Floats:
    return np.random.default_rng(seed).integers(1, worst + 1, users).astype(np.float64)


def test_drawing_by_value_has_the_distribution_of_drawing_by_user() -> None:
    values = judged(ranks(0)).per_user("NDCG@10")
    assert np.unique(values).size * 16 <= values.size  # drawn by value
    rng = np.random.default_rng(1)
    by_user = values[rng.integers(0, values.size, (20_000, values.size))].mean(1)
    by_value = bootstrap_means(values, resamples=20_000, seed=2)
    assert by_value.mean() == pytest.approx(by_user.mean(), abs=3e-4)
    assert by_value.std() == pytest.approx(by_user.std(), rel=0.03)
    assert stats.ks_2samp(by_user, by_value).pvalue > 0.01


def test_the_spread_of_a_hit_rates_samples_is_that_of_the_binomial() -> None:
    values = np.repeat([0.0, 1.0], [700, 300])
    draws = bootstrap_means(values, resamples=20_000, seed=0)
    assert draws.std() == pytest.approx(np.sqrt(0.3 * 0.7 / 1000), rel=0.03)


def test_samples_are_those_of_the_seed_however_many_values_there_are() -> None:
    many = np.random.default_rng(0).random(50_000)
    first = bootstrap_means(many, resamples=100, seed=3)
    assert first.shape == (100,)
    assert np.array_equal(first, bootstrap_means(many, resamples=100, seed=3))
    assert not np.array_equal(first, bootstrap_means(many, resamples=100, seed=4))
    assert first.std() == pytest.approx(many.std() / np.sqrt(50_000), rel=0.25)


def test_an_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    truth = np.mean(np.arange(1, 61) <= 10)
    held = 0
    for seed in range(200):
        found = interval(judged(ranks(seed, users=200)), "HR@10", confidence=0.9, resamples=500, seed=seed)
        assert found.low <= found.value <= found.high
        held += bool(found.low <= truth <= found.high)
    assert 0.83 * 200 <= held <= 0.96 * 200  # 180 expected, 4.2 one standard deviation


def test_a_model_is_not_different_from_itself() -> None:
    [found] = compare(judged(ranks(0)), judged(ranks(0)), ["NDCG@10"])
    assert found.difference.value == found.difference.low == found.difference.high == 0
    assert (found.p_bootstrap, found.p_t, found.p_adjusted) == (1, 1, 1)


def test_a_clear_difference_is_found_and_signed() -> None:
    before = ranks(0, users=2000)
    better = np.maximum(before - 5, 1)
    [found] = compare(judged(before, model="old"), judged(better, model="new"), ["HR@10"])
    assert (found.first, found.second, found.users) == ("old", "new", 2000)
    assert found.first_value == pytest.approx(np.mean(before <= 10))
    assert found.difference.value == pytest.approx(np.mean(before <= 15) - np.mean(before <= 10))
    assert 0 < found.difference.low < found.difference.value < found.difference.high
    assert found.p_bootstrap == 1 / 10_001
    assert found.p_t < 1e-6


def test_the_t_test_is_scipys_paired_one() -> None:
    first, second = judged(ranks(1)), judged(ranks(2))
    [found] = compare(first, second, ["MRR"])
    expected = stats.ttest_rel(second.per_user("MRR"), first.per_user("MRR")).pvalue
    assert found.p_t == pytest.approx(float(expected), rel=1e-9)


def test_the_bootstrap_and_the_t_test_agree_where_there_are_many_users() -> None:
    [found] = compare(judged(ranks(5, users=3000)), judged(ranks(6, users=3000)), ["NDCG@20"])
    assert found.p_bootstrap == pytest.approx(found.p_t, abs=0.03)


def test_models_that_differ_alike_for_everybody_differ_surely() -> None:
    [found] = compare(judged(np.full(50, 2.0)), judged(np.full(50, 1.0)), ["MRR"])
    assert found.difference.value == 0.5
    assert found.p_t == found.p_bootstrap == 2.0**-49


def test_where_all_change_alike_few_of_them_say_little() -> None:
    for users in (1, 3):
        [found] = compare(judged(np.full(users, 2.0)), judged(np.full(users, 1.0)), ["MRR"])
        assert found.p_t == found.p_bootstrap == 2.0 ** (1 - users)
    [found] = compare(judged(np.full(3, 2.0)), judged(np.full(3, 2.0)), ["MRR"])
    assert found.p_t == found.p_bootstrap == 1.0


def test_seeds_that_do_not_spread_say_nothing_of_their_spread() -> None:
    before, after = ([judged(np.full(9, rank))] * 2 for rank in (2.0, 1.0))
    [found] = compare_groups(before, [after], ["MRR"])
    assert found.p_seeds is None


def test_chance_alone_is_rarely_called_a_difference() -> None:
    called = sum(
        compare(judged(ranks(seed)), judged(ranks(seed + 1000)), ["HR@10"], resamples=300)[0].p_bootstrap < 0.05
        for seed in range(100)
    )
    assert called <= 13  # 5 expected, 2.2 one standard deviation


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == [1, 1]
    assert holm([0.02]).tolist() == [0.02]
    assert holm([]).tolist() == []


def test_all_models_and_metrics_are_corrected_together() -> None:
    base = judged(ranks(0))
    others = [judged(ranks(seed), model=str(seed)) for seed in (1, 2)]
    found = compare_all(base, others, ["HR@10", "NDCG@10"])
    assert [(one.second, one.metric) for one in found] == [
        ("1", "HR@10"),
        ("1", "NDCG@10"),
        ("2", "HR@10"),
        ("2", "NDCG@10"),
    ]
    assert [one.p_adjusted for one in found] == holm([one.p_bootstrap for one in found]).tolist()


def test_comparing_nothing_gives_nothing() -> None:
    assert compare_all(judged(ranks(0)), [], ["HR@10"]) == []


def test_a_confidence_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, found 95"):
        interval(judged(ranks(0)), "HR@10", confidence=95)


def test_evaluations_that_are_not_of_the_same_thing_are_refused() -> None:
    first = judged(ranks(0))
    other = replace(PROTOCOL, history="exclude", ties="pessimistic")
    with pytest.raises(ValueError, match="history 'keep' against 'exclude', ties 'mean' against 'pessimistic'"):
        compare(first, replace(first, protocol=other), ["HR@10"])
    with pytest.raises(ValueError, match="different catalogues: 100 against 99 items"):
        check_comparable(first, replace(first, n_items=99))
    with pytest.raises(ValueError, match="different users: 400 against 300, 300 in common"):
        check_comparable(first, judged(ranks(0, users=300)))
    with pytest.raises(ValueError, match="same users but different histories or targets"):
        check_comparable(first, replace(first, held_out="another"))


@pytest.mark.parametrize("metric", ["Coverage@10", "MeanPopularity@20"])
def test_what_is_of_all_lists_together_is_refused_with_the_metrics_that_can_be_compared(metric: str) -> None:
    message = (
        f"^{metric} is of the lists of all users together and has no value for one user, so it cannot be compared user "
        r"by user; those that can: HR@k, Recall@k, NDCG@k, ComiRecNDCG@k, MRR$"
    )
    with pytest.raises(ValueError, match=message):
        compare(judged(ranks(0)), judged(ranks(1)), ["HR@10", metric])
