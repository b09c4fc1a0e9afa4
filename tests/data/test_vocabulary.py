from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conseq.data.vocabulary import Vocabulary


@settings(deadline=None)
@given(st.lists(st.text("a0 é\u0301\n", max_size=3), unique=True, max_size=9), st.integers(0, 5), st.data())
def test_ids_go_in_and_come_out_unchanged(ids: list[str], start: int, data: st.DataObject) -> None:
    vocabulary = Vocabulary(ids, start=start)
    asked = data.draw(st.lists(st.sampled_from(ids), max_size=5)) if ids else []
    assert vocabulary.decode(vocabulary.encode(asked)) == asked
    assert [vocabulary.number(one) for one in ids] == list(range(start, start + len(ids)))
    assert len(vocabulary) == len(ids)


def test_ids_are_strings_never_numbers_and_never_trimmed() -> None:
    ids = ["1", "01", "1.0", " 1", "1 ", "", "è", "e\u0300"]
    vocabulary = Vocabulary(ids, start=1)
    assert vocabulary.encode(ids).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert vocabulary.decode([2, 1]) == ["01", "1"]


def test_items_are_numbered_from_one_and_users_from_zero() -> None:
    assert Vocabulary(["a", "b"], start=1).number("a") == 1
    assert Vocabulary(["a", "b"], start=0).number("b") == 1


def test_a_doubled_id_is_named() -> None:
    with pytest.raises(ValueError, match="id 'b' occurs twice"):
        Vocabulary(["a", "b", "c", "b"], start=1)


def test_an_unknown_id_has_no_number_and_cannot_be_encoded() -> None:
    vocabulary = Vocabulary(["a"], start=1)
    assert vocabulary.number("z") is None
    assert "z" not in vocabulary
    assert "a" in vocabulary
    with pytest.raises(KeyError, match="unknown id 'z': not among the 1 known ids"):
        vocabulary.encode(["a", "z"])


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_number_outside_the_range_is_refused(number: int) -> None:
    vocabulary = Vocabulary(["a", "b"], start=1)
    with pytest.raises(IndexError, match=rf"number {number} is outside 1\.\.2"):
        vocabulary.decode([1, number])


def test_nothing_decodes_to_nothing() -> None:
    assert Vocabulary(["a"], start=1).decode([]) == []
    assert Vocabulary([], start=1).encode([]).dtype.name == "int64"


def test_equal_means_same_ids_in_the_same_order_from_the_same_start() -> None:
    assert Vocabulary(["a", "b"], start=1) == Vocabulary(["a", "b"], start=1)
    assert Vocabulary(["a", "b"], start=1) != Vocabulary(["b", "a"], start=1)
    assert Vocabulary(["a", "b"], start=1) != Vocabulary(["a", "b"], start=0)
    assert Vocabulary(["a"], start=1) != ["a"]


def test_the_callers_list_may_change_afterwards() -> None:
    ids = ["a", "b"]
    vocabulary = Vocabulary(ids, start=1)
    ids[0] = "z"
    assert vocabulary.decode([1]) == ["a"]
    assert repr(vocabulary) == "Vocabulary(2 ids from 1)"
