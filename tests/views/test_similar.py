"""Substitute and insert, by property: counts, places, order, chance, and what they leave alone."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.views.augment import Crop, Operator
from conseq.views.similar import ByLength, Insert, Substitute

LENGTHS = [1, 2, 3, 5, 10, 17, 40]


def shifted(ids: Tensor) -> Tensor:
    """A stand-in that tells what it stands for: item i is like item i + 1000."""
    return ids + 1000


def histories(lengths: list[int] = LENGTHS) -> Sequences:
    return Sequences.from_lists([[100 * row + step + 1 for step in range(n)] for row, n in enumerate(lengths)])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def expected_count(ratio: float, n: int) -> int:
    return max(1, math.floor(ratio * n + 1e-9))


OPERATORS: list[Operator] = [Substitute(0.4, shifted), Insert(0.4, shifted, 100)]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.7, 1.0])
def test_exactly_the_share_of_items_is_substituted_in_place(ratio: float) -> None:
    seqs = histories()
    for before, after in zip(seqs.to_lists(), Substitute(ratio, shifted)(seqs, rng()).to_lists(), strict=True):
        changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        assert len(changed) == expected_count(ratio, len(before))
        assert all(after[i] == before[i] + 1000 for i in changed)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.7, 1.0])
def test_exactly_the_share_of_items_gets_a_companion_before_it(ratio: float) -> None:
    seqs = histories()
    for before, after in zip(seqs.to_lists(), Insert(ratio, shifted, 100)(seqs, rng()).to_lists(), strict=True):
        assert [item for item in after if item < 1000] == before
        new = [i for i, item in enumerate(after) if item >= 1000]
        assert len(new) == expected_count(ratio, len(before))
        assert all(after[i] == after[i + 1] + 1000 for i in new)


def test_an_insertion_that_is_too_long_keeps_the_last_items() -> None:
    seqs = histories()
    whole = Insert(0.7, shifted, 1000)(seqs, rng(3)).to_lists()
    cut = Insert(0.7, shifted, 12)(seqs, rng(3)).to_lists()
    assert cut == [row[-12:] for row in whole]
    assert max(len(row) for row in whole) > 12


@pytest.mark.parametrize("operator", OPERATORS, ids=["substitute", "insert"])
def test_the_data_stay_as_they_are_and_the_generator_decides(operator: Operator) -> None:
    seqs = histories()
    ids, offsets = seqs.ids.clone(), seqs.offsets.clone()
    one, again, other = (operator(seqs, rng(seed)).to_lists() for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert torch.equal(seqs.ids, ids)
    assert torch.equal(seqs.offsets, offsets)


@pytest.mark.parametrize("operator", OPERATORS, ids=["substitute", "insert"])
def test_no_sequence_becomes_empty_and_an_empty_one_stays_so(operator: Operator) -> None:
    lists = operator(Sequences.from_lists([[], [7], []]), rng()).to_lists()
    assert [len(row) > 0 for row in lists] == [False, True, False]
    assert len(operator(Sequences.from_lists([]), rng())) == 0


@pytest.mark.parametrize("operator", OPERATORS, ids=["substitute", "insert"])
def test_every_set_of_positions_is_equally_likely_whatever_shares_the_batch(operator: Operator) -> None:
    """Two of five positions: ten sets, each with chance 1/10, beside batch-mates of any length."""
    n = 6000
    others = torch.randint(1, 9, (n,), generator=rng(9)).tolist()
    lists = [row for k in others for row in ([1, 2, 3, 4, 5], [50] * k)]
    made = operator(Sequences.from_lists(lists), rng(5)).to_lists()[::2]
    drawn = Counter(tuple(sorted(item - 1000 for item in row if item > 1000)) for row in made)
    assert set(drawn) == set(combinations(range(1, 6), 2))
    chi_square = sum((count - n / 10) ** 2 / (n / 10) for count in drawn.values())
    assert chi_square < 27.9  # the 99.9 % point for 9 degrees of freedom


def test_the_length_picks_the_operator_and_places_are_kept() -> None:
    seqs = histories()
    keep_all, keep_one = Crop(1.0), Crop(0.0)
    made = ByLength(keep_all, keep_one, 5)(seqs, rng()).to_lists()
    for before, after in zip(seqs.to_lists(), made, strict=True):
        if len(before) <= 5:
            assert after == before
        else:
            assert len(after) == 1
            assert after[0] in before


@pytest.mark.parametrize("threshold", [0, 100])
def test_all_sequences_may_be_long_or_all_short(threshold: int) -> None:
    seqs = histories()
    made = ByLength(Crop(0.0), Crop(1.0), threshold)(seqs, rng())
    assert made.lengths.tolist() == (LENGTHS if threshold == 0 else [1] * len(LENGTHS))


@pytest.mark.parametrize("make", [lambda r: Substitute(r, shifted), lambda r: Insert(r, shifted, 5)])
@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_a_ratio_that_is_no_share_is_refused(make: object, ratio: float) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\], found"):
        make(ratio)
