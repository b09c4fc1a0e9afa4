from __future__ import annotations

from collections import Counter

import pytest
import torch

from conseq.data.sequences import Sequences
from conseq.data.train_set import Instances, TrainSet
from conseq.signals.importance import Importance
from conseq.views.retrieved import RetrieveAlike

N_ITEMS = 20


def made(rows: list[list[int]], instances: Instances = "whole", *, max_length: int = 10) -> tuple[TrainSet, Importance]:
    users = torch.arange(len(rows))
    train = TrainSet(Sequences.from_lists(rows), users, N_ITEMS, instances=instances, max_length=max_length)
    importance = Importance(train)
    importance.put(torch.rand(len(importance.scores), generator=torch.Generator().manual_seed(0)))
    return train, importance


def histories(train: TrainSet) -> list[list[int]]:
    return train.batch(torch.arange(len(train))).history.to_lists()


def utility(ours: list[int], scores: list[float], theirs: list[int]) -> float:
    """The paper's formula, on sets."""
    common = set(ours) & set(theirs)
    jaccard = len(common) / len(set(ours) | set(theirs))
    return jaccard * sum(score for item, score in zip(ours, scores, strict=True) if item in common)


@pytest.mark.parametrize("instances", ["whole", "prefixes"])
def test_utilities_equal_the_papers_formula_on_sets(instances: Instances) -> None:
    rng = torch.Generator().manual_seed(1)
    rows = [torch.randint(1, 7, (int(n),), generator=rng).tolist() for n in torch.randint(2, 9, (40,), generator=rng)]
    train, importance = made(rows, instances, max_length=5)
    view = RetrieveAlike(train, importance)
    batch = train.batch(torch.randperm(len(train), generator=rng)[:25])
    candidates = view.same_target.candidates(batch.rows)
    found = view.utilities(batch, candidates).tolist()
    lists, scores = batch.history.to_lists(), importance.of(batch).double()
    every = histories(train)
    expected = []
    for number, row in enumerate(candidates.to_lists()):
        own = scores[batch.history.offsets[number] : batch.history.offsets[number + 1]].tolist()
        expected += [utility(lists[number], own, every[candidate]) for candidate in row]
    assert len(expected) > 100
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_history_is_drawn_with_probability_proportional_to_its_utility() -> None:
    rows = [[1, 2, 3, 9], [1, 2, 3, 9], [1, 4, 9], [5, 6, 9], [2, 3, 7, 8, 9], [1, 2, 3, 10]]
    train, importance = made(rows)
    importance.put(torch.tensor([0.5, 0.3, 0.2] + [0.1] * (len(importance.scores) - 3)))
    view = RetrieveAlike(train, importance)
    batch = train.batch(torch.zeros(6000, dtype=torch.int64))
    found = Counter(view.draw(batch, torch.Generator().manual_seed(0)).tolist())
    weights = {1: 1.0, 2: 0.25 * 0.5, 4: 0.4 * 0.5}
    total = sum(weights.values())
    assert set(found) == set(weights)
    for candidate, weight in weights.items():
        share = weight / total
        assert abs(found[candidate] / 6000 - share) < 4 * (share * (1 - share) / 6000) ** 0.5


def test_where_no_candidate_shares_an_item_each_is_equally_likely() -> None:
    train, importance = made([[1, 2, 9], [3, 4, 9], [5, 9], [6, 7, 8, 9]])
    view = RetrieveAlike(train, importance)
    found = Counter(
        view.draw(train.batch(torch.zeros(3000, dtype=torch.int64)), torch.Generator().manual_seed(0)).tolist()
    )
    assert set(found) == {1, 2, 3}
    assert all(abs(count - 1000) < 120 for count in found.values())


def test_only_other_users_are_candidates_and_who_has_none_is_its_own_view() -> None:
    # User 0 has met item 9 twice; nobody else ends with it. Users 1 and 2 share the target 5.
    train, importance = made([[1, 9, 2, 9], [3, 5], [4, 3, 5], [6, 7]], "prefixes")
    view = RetrieveAlike(train, importance)
    batch = train.batch(torch.arange(len(train)))
    retrieved = view(batch, torch.Generator().manual_seed(0)).to_lists()
    for user, target, own, found in zip(
        batch.users.tolist(), batch.targets.tolist(), batch.history.to_lists(), retrieved, strict=True
    ):
        if target == 5:
            assert found == ([4, 3] if user == 1 else [3])
        else:
            assert found == own


def test_a_batch_in_which_nobody_has_candidates_is_its_own_view() -> None:
    train, importance = made([[1, 2], [3, 4]])
    batch = train.batch(torch.arange(2))
    assert RetrieveAlike(train, importance)(batch, torch.Generator()).to_lists() == [[1], [3]]


def test_negative_importances_make_no_negative_probabilities() -> None:
    train, importance = made([[1, 2, 9], [1, 9], [2, 9]])
    importance.put(torch.tensor([-0.6, 0.4, 1.0, 1.0]))
    view = RetrieveAlike(train, importance)
    drawn = view.draw(train.batch(torch.zeros(100, dtype=torch.int64)), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {2}


def test_at_most_so_many_candidates_are_weighed_and_each_may_be_among_them() -> None:
    train, importance = made([[1, 2, 9], *[[1, item, 9] for item in range(3, 9)], [1, 10], [2, 10]])
    view = RetrieveAlike(train, importance, most=2)
    rng = torch.Generator().manual_seed(0)
    batch = train.batch(torch.tensor([0, 7] * 500))
    some = view._some(view.same_target.candidates(batch.rows), rng)
    assert some.lengths.tolist() == [2, 1] * 500
    counts = Counter(some.ids.tolist())
    assert set(counts) == {1, 2, 3, 4, 5, 6, 8}
    assert all(abs(counts[candidate] - 1000 / 6) < 60 for candidate in range(1, 7))
    with pytest.raises(ValueError, match="at least 1 candidate"):
        RetrieveAlike(train, importance, most=0)


def test_the_same_generator_gives_the_same_histories_and_the_data_stay_as_they_are() -> None:
    rows = [[1, 2, 3, 9], [1, 2, 3, 9], [1, 4, 9], [5, 6, 9], [2, 3, 7, 8, 9]]
    train, importance = made(rows, "prefixes")
    data = train.sequences.ids.clone()
    view = RetrieveAlike(train, importance)
    batch = train.batch(torch.arange(len(train)))
    first, second = (view(batch, torch.Generator().manual_seed(3)).to_lists() for _ in range(2))
    assert first == second
    assert torch.equal(train.sequences.ids, data)
