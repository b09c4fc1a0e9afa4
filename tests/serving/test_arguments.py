"""Arguments of a request that cannot be meant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conseq.serving.recommender import Recommender


@pytest.mark.parametrize("wrong", [2.5, 3.0, "3", None, True, np.float64(3), np.True_])
def test_a_count_that_is_no_integer_is_refused(line: Recommender, wrong: Any) -> None:
    for ask in (
        lambda: line.recommend(["a"], wrong),
        lambda: line.recommend_table({"u": ["a"]}, wrong),
        lambda: line.similar_items("a", wrong),
        lambda: line.recommend(["a"], batch_size=wrong),
    ):
        with pytest.raises(TypeError, match=r"(k|batch_size) is .* of type \w+; it must be an integer, at least 1"):
            ask()


def test_an_integer_of_numpy_is_a_count(line: Recommender) -> None:
    k: Any = np.int64(2)
    assert line.recommend(["a"], k, batch_size=k).ids.tolist() == ["d", "c"]


def test_far_more_items_than_there_are_are_refused_before_memory_is_asked_for(line: Recommender) -> None:
    for ask in (
        lambda: line.recommend(["a"], 10**12),
        lambda: line.recommend_table({"u": ["a"]}, 10**12),
        lambda: line.similar_items("a", 10**12),
    ):
        with pytest.raises(ValueError, match="k is 1000000000000, but there are 5 items; ask for 5 to get all"):
            ask()
    ids, scores = line.recommend(["a"], 2**20)
    assert ids[:5].tolist() == ["d", "c", "b", "e", None]
    assert scores.shape == ids.shape == (2**20,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unknown": "raise"}, "unknown is 'raise'; known values: 'drop', 'error'"),
        ({"unknown": "errors"}, r"unknown is 'errors'; did you mean 'error'\? known values"),
        ({"unknown": True}, "unknown is True; known values"),
        ({"on_empty": "popul"}, r"on_empty is 'popul'; did you mean 'popular'\? known values: 'error', 'popular', 'b"),
        ({"on_empty": None}, "on_empty is None; known values"),
    ],
)
@pytest.mark.parametrize("histories", [[], [["a"]]])
def test_a_way_to_treat_what_is_unknown_that_does_not_exist_is_refused(
    line: Recommender, options: dict[str, Any], message: str, histories: list[list[str]]
) -> None:
    with pytest.raises(ValueError, match=message):
        line.recommend(histories, **options)
    with pytest.raises(ValueError, match=message):
        line.recommend_table(dict(enumerate(histories)), **options)
    if "unknown" in options:
        with pytest.raises(ValueError, match=message):
            line.user_vectors(histories, **options)
