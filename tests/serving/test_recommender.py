"""Recommendations against answers worked out by hand and against a slow twin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Encoder
from conseq.encoders.floors import Popularity
from conseq.serving.histories import ROWS_AT_ONCE, UnknownItemsError
from conseq.serving.recommender import Recommender

Build = Callable[..., Encoder]


def test_the_best_unseen_items_come_first(line: Recommender) -> None:
    ids, scores = line.recommend(["a", "b"], k=2)
    assert ids.tolist() == ["d", "c"]
    assert scores.tolist() == [6.0, 4.5]  # the user is (1 + 2) / 2
    assert scores.dtype == np.float32


def test_many_histories_give_a_row_each(line: Recommender) -> None:
    ids, scores = line.recommend([["a"], ["e"]], k=2)
    assert ids.tolist() == [["d", "c"], ["a", "b"]]
    assert scores.tolist() == [[4.0, 3.0], [-1.0, -2.0]]


def test_seen_items_are_left_out_however_far_back_they_are(line: Recommender) -> None:
    ids, _ = line.recommend(["d", "a", "a", "a"], k=4)  # the encoder reads three items
    assert ids.tolist() == ["c", "b", "e", None]


def test_seen_items_are_recommended_on_request(line: Recommender) -> None:
    assert line.recommend(["d"], k=2, exclude_seen=False).ids.tolist() == ["d", "c"]


def test_excluded_items_are_left_out_for_all_or_for_each(line: Recommender) -> None:
    histories = [["a"], ["b"]]
    assert line.recommend(histories, 1, exclude=["d", "stranger"]).ids.tolist() == [["c"], ["c"]]
    assert line.recommend(histories, 1, exclude=[["d"], []]).ids.tolist() == [["c"], ["d"]]
    assert line.recommend(histories, 1, exclude=[]).ids.tolist() == [["d"], ["d"]]


@pytest.mark.parametrize("lists", [[["d"]], [["d"], [], []], [[]]])
def test_one_list_of_excluded_items_is_needed_per_history(line: Recommender, lists: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="one list of items per history"):
        line.recommend([["a"], ["b"]], exclude=lists)


def test_only_candidates_are_recommended(line: Recommender) -> None:
    ids, scores = line.recommend(["a"], 4, candidates=["e", "b", "stranger", "a", "b"])
    assert ids.tolist() == ["b", "e", None, None]
    assert scores.tolist() == [2.0, -1.0, -np.inf, -np.inf]


def test_a_candidate_that_is_excluded_is_not_recommended(line: Recommender) -> None:
    assert line.recommend(["a"], 2, candidates=["b", "d"], exclude=["d", "c"]).ids.tolist() == ["b", None]


def test_candidates_that_are_all_unknown_are_an_error(line: Recommender) -> None:
    for none in (["x"], []):
        with pytest.raises(ValueError, match="candidates: none of them is a known item"):
            line.recommend(["a"], candidates=none)
    with pytest.raises(KeyError, match="candidates: 'x' is not among"):
        line.recommend(["a"], candidates=["a", "x"], unknown="error")


def test_each_history_may_have_its_own_candidates(line: Recommender) -> None:
    own = [["e", "b", "stranger", "b"], ["c"], [], ["a", "d"]]
    ids, scores = line.recommend([["a"], ["b"], ["c"], ["a"]], 2, candidates=own)
    assert ids.tolist() == [["b", "e"], ["c", None], [None, None], ["d", None]]
    assert scores.tolist() == [[2.0, -1.0], [6.0, -np.inf], [-np.inf] * 2, [4.0, -np.inf]]
    assert line.recommend(["a"], 2, candidates=[["b"]]).ids.tolist() == ["b", None]
    found = line.recommend([[], ["a"]], 2, candidates=[["c", "d"], ["c"]], on_empty="popular")
    assert found.ids.tolist() == [["d", "c"], ["c", None]]
    with pytest.raises(KeyError, match=r"candidates: 'x' is not among .* \(the first in row 1, counted from 0\)"):
        line.recommend([["a"], ["b"]], candidates=[["a"], ["x"]], unknown="error")


@pytest.mark.parametrize("lists", [[["b"]], [["b"]] * 3])
def test_lists_of_candidates_are_one_for_each_history(line: Recommender, lists: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="candidates: there must be one list of items per history"):
        line.recommend([["a"], ["b"]], candidates=lists)


def test_answers_among_each_historys_own_candidates_are_those_of_a_slow_twin(random_model: Recommender) -> None:
    histories, excluded = _histories(60, seed=1), _histories(60, seed=2)
    rng = np.random.default_rng(0)
    own = [[str(one) for one in rng.permutation(900)[: rng.integers(1, 40)]] for _ in histories]
    ids, scores = random_model.recommend(histories, 7, candidates=own, exclude=excluded, batch_size=16)
    for row, history in enumerate(histories):
        best, values = _twin(random_model, history, 7, set(own[row]), set(excluded[row]))
        assert ids[row].tolist() == best + [None] * (7 - len(best))
        np.testing.assert_allclose(scores[row, : len(best)], values, rtol=1e-5, atol=1e-5)


def test_more_items_than_there_are_leave_the_row_padded(line: Recommender) -> None:
    ids, scores = line.recommend([["a"], ["a", "b", "c", "d", "e"]], k=7)
    assert ids.tolist() == [["d", "c", "b", "e", None, None, None], [None] * 7]
    assert scores[0, 4:].tolist() == [-np.inf] * 3


def test_unknown_items_are_dropped_with_a_count(line: Recommender) -> None:
    found = line.recommend([["x", "a"], ["b"], ["y", "z", "a"]], k=1)
    assert found.ids.tolist() == [["d"], ["d"], ["d"]]
    assert found.dropped == 3
    assert found.empty.tolist() == []


def test_unknown_items_are_an_error_on_request(line: Recommender) -> None:
    with pytest.raises(KeyError, match="histories: 'x' is not among the 5 known items"):
        line.recommend(["a", "x"], unknown="error")


def test_a_history_without_a_known_item_is_an_error_that_names_it(line: Recommender) -> None:
    with pytest.raises(ValueError, match=r"history 1 \(counted from 0\) has no known item"):
        line.recommend([["a"], ["x"]])
    many = (["a"] if n != ROWS_AT_ONCE + 3 else [] for n in range(ROWS_AT_ONCE + 9))
    with pytest.raises(ValueError, match=rf"history {ROWS_AT_ONCE + 3} \(counted from 0\) has no known item"):
        line.recommend(many)


def test_a_history_without_a_known_item_can_get_what_is_popular(line: Recommender) -> None:
    found = line.recommend([["a"], ["x"], []], k=2, on_empty="popular", exclude=["e"])
    assert found.ids.tolist() == [["d", "c"], ["b", "a"], ["b", "a"]]
    assert found.scores[1].tolist() == [9.0, 5.0]
    assert found.empty.tolist() == [1, 2]


def test_a_history_without_a_known_item_can_be_left_blank(line: Recommender) -> None:
    found = line.recommend([["x"], ["a"]], k=1, on_empty="blank")
    assert found.ids.tolist() == [[None], ["d"]]
    assert found.scores.tolist() == [[-np.inf], [4.0]]


def test_what_is_popular_must_be_known(mean_of: Build) -> None:
    model = Recommender(mean_of(torch.ones(2, 1)), Vocabulary(["a", "b"], start=1))
    with pytest.raises(ValueError, match="needs item counts"):
        model.recommend(["a"], on_empty="popular")


def test_an_unknown_item_to_exclude_is_refused_where_unknown_ones_are(line: Recommender) -> None:
    with pytest.raises(KeyError, match="exclude: 'typo' is not among"):
        line.recommend(["a"], exclude=["typo"], unknown="error")
    assert line.recommend(["a"], exclude=["typo"], k=1).ids.shape == (1,)


def test_the_first_history_with_an_unknown_item_is_told(line: Recommender) -> None:
    with pytest.raises(UnknownItemsError, match=r"'x' is not among the 5 known items \(the first in row 4097, cou"):
        line.recommend([["a"]] * 4097 + [["x"]], unknown="error")


def test_no_histories_give_no_rows(line: Recommender) -> None:
    found = line.recommend([], k=3)
    assert found.ids.shape == found.scores.shape == (0, 3)


def test_integers_stand_for_their_decimal_strings(random_model: Recommender) -> None:
    as_text = random_model.recommend([["3", "14"]], k=5)
    as_numbers = random_model.recommend(np.array([[3, 14]]), k=5)
    assert as_text.ids.tolist() == as_numbers.ids.tolist()
    assert as_text.scores.tolist() == as_numbers.scores.tolist()


@pytest.mark.parametrize(("k", "batch_size"), [(0, 8), (-1, 8), (3, 0)])
def test_counts_below_one_are_refused(line: Recommender, k: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        line.recommend(["a"], k, batch_size=batch_size)


def test_weights_that_are_no_numbers_are_an_error(mean_of: Build) -> None:
    model = Recommender(mean_of(torch.tensor([[1.0], [torch.nan]])), Vocabulary(["a", "b"], start=1))
    with pytest.raises(ValueError, match="scores are not numbers"):
        model.recommend(["a"], k=1)


def test_a_vocabulary_or_counts_of_another_size_are_refused(mean_of: Build) -> None:
    encoder = mean_of(torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"items 1\.\.2"):
        Recommender(encoder, Vocabulary(["a"], start=1))
    with pytest.raises(ValueError, match="counts of 3 items given for 2 items"):
        Recommender(encoder, Vocabulary(["a", "b"], start=1), counts=[1, 2, 3])


def _histories(n: int, *, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[str(one) for one in rng.integers(0, 900, rng.integers(1, 9))] for _ in range(n)]


def _twin(
    model: Recommender, history: list[str], k: int, candidates: set[str], excluded: set[str]
) -> tuple[list[str], list[float]]:
    vectors = dict(zip(*model.item_vectors(), strict=True))
    user = sum(vectors[one] for one in history[-3:]) / len(history[-3:])
    scores = {one: float(user @ vectors[one]) for one in candidates - excluded - set(history)}
    best = sorted(scores, key=lambda one: -scores[one])[:k]
    return best, [scores[one] for one in best]


@pytest.mark.parametrize("limited", [False, True])
def test_answers_are_those_of_a_slow_twin(random_model: Recommender, *, limited: bool) -> None:
    histories = _histories(60, seed=1)
    candidates = [str(one) for one in range(0, 900, 2)] if limited else None
    excluded = _histories(60, seed=2)
    ids, scores = random_model.recommend(histories, 7, candidates=candidates, exclude=excluded, batch_size=16)
    for row, history in enumerate(histories):
        among = set(candidates or random_model.item_ids.ids)
        best, values = _twin(random_model, history, 7, among, set(excluded[row]))
        assert ids[row].tolist() == best
        np.testing.assert_allclose(scores[row], values, rtol=1e-5, atol=1e-5)


def test_a_history_is_answered_alike_whatever_else_is_asked(random_model: Recommender) -> None:
    histories = _histories(40, seed=3)
    together = random_model.recommend((row for row in histories), k=6)
    for row, history in enumerate(histories):
        alone = random_model.recommend(history, k=6)
        assert alone.ids.tolist() == together.ids[row].tolist()
        np.testing.assert_allclose(alone.scores, together.scores[row], rtol=1e-5)


def test_a_stream_longer_than_a_block_keeps_its_order(random_model: Recommender) -> None:
    histories = _histories(ROWS_AT_ONCE + 50, seed=4)
    excluded = [[row[0]] for row in _histories(ROWS_AT_ONCE + 50, seed=5)]
    ids, _ = random_model.recommend(iter(histories), k=3, exclude=iter(excluded))
    for row in (0, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 49):
        assert ids[row].tolist() == random_model.recommend(histories[row], k=3, exclude=excluded[row]).ids.tolist()


class _Nearest(Encoder):
    """Scores items by nearness, not by inner product: what a multi-interest encoder would do."""

    def forward(self, histories: Sequences) -> Tensor:
        vectors: Tensor = self.items(histories.ids[histories.last])
        return vectors

    def scores(self, users: Tensor, histories: Sequences) -> Tensor:
        assert users.tolist() == [-1] * len(histories)
        return -torch.cdist(self(histories), self.items.candidates)


def test_scores_of_an_encoders_own_are_obeyed(mean_of: Build) -> None:
    items = mean_of(torch.tensor([[1.0], [2.0], [9.0]])).items
    model = Recommender(_Nearest(items), Vocabulary(["a", "b", "c"], start=1))
    assert model.recommend(["a"], k=2).ids.tolist() == ["b", "c"]
    assert model.recommend(["a"], k=2, candidates=["c", "b"]).ids.tolist() == ["b", "c"]


def test_a_scorer_without_vectors_is_served_and_its_memory_left_alone() -> None:
    counts = torch.tensor([3.0, 2.0, 1.0])
    model = Recommender(Popularity(counts), Vocabulary(["a", "b", "c"], start=1))
    assert model.recommend(["a"], k=2).ids.tolist() == ["b", "c"]
    assert model.recommend([["b"], ["a"]], k=1).ids.tolist() == [["a"], ["b"]]
    assert model.recommend(["c"], k=1).ids.tolist() == ["a"]
    for ask in (model.item_vectors, lambda: model.similar_items("a"), lambda: model.user_vectors(["a"])):
        with pytest.raises(TypeError, match="Popularity has no vectors"):
            ask()


def test_the_answer_as_plain_values_has_no_entry_for_what_is_not_there(line: Recommender) -> None:
    one = line.recommend(["a", "b", "c"], k=3)
    assert one.to_dicts() == [
        {"item_id": "d", "score": 8.0, "rank": 1},
        {"item_id": "e", "score": -2.0, "rank": 2},
    ]
    assert line.recommend([["a", "b", "c"]], k=3).to_dicts() == [one.to_dicts()]


def test_similar_items_are_ordered_by_angle_not_length(mean_of: Build) -> None:
    vectors = torch.tensor([[2.0, 0.0], [0.1, 0.1], [0.0, 5.0], [-1.0, 0.0], [0.0, 0.0]])
    model = Recommender(mean_of(vectors), Vocabulary(list("abcde"), start=1))
    ids, cosines = model.similar_items("a", k=5)
    assert ids.tolist()[0] == "b"
    assert sorted(ids.tolist()[1:3]) == ["c", "e"]
    assert ids.tolist()[3:] == ["d", None]
    np.testing.assert_allclose(cosines[:4], [2**-0.5, 0, 0, -1], atol=1e-6)
    assert model.similar_items(["c", "a"], k=1).ids.tolist() == [["b"], ["b"]]


def test_an_unknown_item_has_no_similar_items(line: Recommender) -> None:
    with pytest.raises(KeyError, match="unknown id 'x'"):
        line.similar_items(["a", "x"])


def test_inner_products_of_the_vectors_are_the_scores(random_model: Recommender) -> None:
    histories = _histories(700, seed=6)
    ids, items = random_model.item_vectors()
    users = random_model.user_vectors(histories)
    assert users.shape == (700, 6)
    found = random_model.recommend(histories, k=1, exclude_seen=False)
    products = users @ items.T
    assert [ids[at] for at in products.argmax(1)] == found.ids[:, 0].tolist()
    np.testing.assert_allclose(products.max(1), found.scores[:, 0], rtol=1e-4)
    np.testing.assert_allclose(random_model.user_vectors(histories[5]), users[5], rtol=1e-5)


def test_item_vectors_are_a_copy(random_model: Recommender) -> None:
    random_model.item_vectors()[1][:] = 0.0
    assert float(np.abs(random_model.item_vectors()[1]).sum()) > 1.0


def test_a_history_without_a_known_item_has_no_vector(line: Recommender) -> None:
    with pytest.raises(ValueError, match="history 1 has no known item, so it has no vector"):
        line.user_vectors([["a"], ["x"]])


def test_several_threads_may_ask_at_once(random_model: Recommender) -> None:
    histories = _histories(200, seed=7)
    expected = random_model.recommend(histories, k=5).ids.tolist()
    answers: list[object] = []

    def ask() -> Iterator[None]:
        answers.append(random_model.recommend(histories, k=5).ids.tolist())
        return iter(())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 4
