"""Purity and mutual information against scikit-learn; categories of users by hand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from conseq.analyses.purity import (
    intent_purity,
    normalised_mutual_information,
    purity,
    user_categories,
)
from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Encoder
from conseq.signals.categories import ItemCategories

Make = Callable[..., Encoder]


@pytest.mark.parametrize("seed", range(8))
def test_purity_and_mutual_information_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clusters, labels = rng.integers(1, 2 + seed, size=200), rng.integers(1, 9 - seed, size=200) * 7
    clusters = np.where(rng.random(200) < 0.3, labels, clusters)  # some agreement
    assert normalised_mutual_information(clusters, labels) == pytest.approx(
        normalized_mutual_info_score(labels, clusters), abs=1e-12
    )
    by_loop = sum(max(Counter(labels[clusters == one].tolist()).values()) for one in set(clusters.tolist())) / 200
    assert purity(clusters, labels) == pytest.approx(by_loop)


def test_equal_partitions_agree_and_one_cluster_is_as_pure_as_the_majority() -> None:
    labels = np.array([3, 3, 3, 1, 1, 2])
    assert purity(labels + 5, labels) == 1
    assert normalised_mutual_information(labels * 2, labels) == pytest.approx(1)
    one = np.zeros(6, dtype=np.int64)
    assert purity(one, labels) == pytest.approx(3 / 6)
    assert normalised_mutual_information(one, labels) == 0
    assert normalised_mutual_information(one, one) == 1


def categories_of(lists: list[list[int]], names: list[str]) -> ItemCategories:
    """Categories of the items 1 .. n."""
    return ItemCategories(Sequences.from_lists([[], *lists, []]), names)


def test_a_users_category_is_that_of_most_items_and_of_equals_the_rarest() -> None:
    # Items 1-3: makeup and nails; 4: makeup; 5: hair; 6: none.
    found = categories_of([[0, 1], [0, 1], [0, 1], [0], [2], []], ["makeup", "nails", "hair"])
    histories = Sequences.from_lists([[1, 2], [1, 4], [5, 6, 6], [6], [5, 5, 1], [5, 4]])
    #   nails (3 items) before makeup (4); makeup twice; hair; none; hair twice; hair (1 item) before makeup
    assert user_categories(histories, found).tolist() == [1, 0, 2, -1, 2, 2]


def test_categories_of_too_many_items_do_not_count() -> None:
    found = categories_of([[0, 1], [0], [0, 1], [0], []], ["all", "some"])
    histories = Sequences.from_lists([[1, 2], [2, 4]])
    assert user_categories(histories, found).tolist() == [0, 0]
    assert user_categories(histories, found, common=0.9).tolist() == [1, -1]
    assert user_categories(histories, found, common=0.4).tolist() == [-1, -1]


def test_users_categories_agree_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    lists = [sorted(set(rng.integers(6, size=rng.integers(4)).tolist())) for _ in range(20)]
    histories = [rng.integers(1, 21, size=rng.integers(1, 8)).tolist() for _ in range(60)]
    sizes = Counter(one for row in lists for one in row)
    expected = []
    for history in histories:
        counts = Counter(one for item in history for one in lists[item - 1])
        expected.append(min(counts, key=lambda one: (-counts[one], sizes[one], one)) if counts else -1)
    names = [f"c{n}" for n in range(6)]
    assert user_categories(Sequences.from_lists(histories), categories_of(lists, names)).tolist() == expected


def clustered(mean: Make, kinds: list[int]) -> Encoder:
    """An encoder whose item vectors are their kind, so that users of a kind coincide."""
    return mean(torch.eye(max(kinds) + 1)[torch.tensor(kinds)])


def test_clusters_of_users_of_one_category_each_are_pure(mean: Make) -> None:
    kinds = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    rng = np.random.default_rng(0)
    histories = [(rng.integers(3, size=4) + 3 * (user % 3) + 1).tolist() for user in range(90)]
    categories = categories_of([[kind] for kind in kinds], ["a", "b", "c"])
    found = intent_purity(clustered(mean, kinds), Sequences.from_lists(histories), categories, clusters=3)
    assert found.agreement.purity == 1
    assert found.agreement.nmi == pytest.approx(1)
    assert found.chance.purity < 0.6
    assert found.chance.nmi < 0.2
    assert found.majority == pytest.approx(1 / 3)
    assert [one.users for one in found.clusters] == [30, 30, 30]
    assert sorted(one.top[0].name for one in found.clusters) == ["a", "b", "c"]
    assert all(len(one.top) == 1 and one.top[0].share == 1 for one in found.clusters)
    assert all(one.top[0].lift == pytest.approx(3) for one in found.clusters)


def test_vectors_that_know_nothing_of_categories_are_no_better_than_chance(mean: Make) -> None:
    rng = np.random.default_rng(1)
    encoder = mean(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)))
    categories = categories_of([[kind] for kind in rng.permutation(np.arange(40) % 4).tolist()], list("abcd"))
    histories = Sequences.from_lists([[int(one)] for one in np.arange(400) % 40 + 1])
    found = intent_purity(encoder, histories, categories, clusters=5)
    assert found.agreement.purity < 0.6  # 40 different users in five clusters: some agreement comes by itself
    assert 1 / 4 < found.chance.purity < found.agreement.purity + 0.1


def test_users_without_a_category_are_counted_and_left_out(mean: Make) -> None:
    categories = categories_of([[0], [1], []], ["a", "b"])
    histories = Sequences.from_lists([[1], [1], [2], [3], [3]])
    found = intent_purity(mean(torch.eye(3)), histories, categories, clusters=50, common=1.0)
    assert (found.users, found.without_category, found.categories) == (3, 2, 2)
    assert sum(one.users for one in found.clusters) == 3
    record = json.loads(json.dumps(found.record()))
    assert record["agreement"]["purity"] == found.agreement.purity
    with pytest.raises(ValueError, match="no item of any history has a category"):
        intent_purity(mean(torch.eye(3)), Sequences.from_lists([[3]]), categories, clusters=1)
