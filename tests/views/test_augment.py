"""Crop, mask, reorder and the draws among them, by property and by distribution."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, TrainSet
from conseq.views.augment import (
    Crop,
    Mask,
    OfHistory,
    OneOf,
    Operator,
    Reorder,
    TwoOf,
    floor_share,
    pick,
    random_below,
)

MASK = 10_001
RATIOS = [0.0, 0.1, 0.29, 0.3, 0.5, 0.6, 0.7, 1.0]
LENGTHS = [1, 2, 3, 4, 5, 10, 17, 50, 100]
ratios = pytest.mark.parametrize("ratio", RATIOS)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def histories(lengths: list[int] = LENGTHS) -> Sequences:
    """Items that tell their sequence and their place: 101, 102, ... in the second."""
    return Sequences.from_lists([[100 * row + step + 1 for step in range(n)] for row, n in enumerate(lengths)])


def share(ratio: float, n: int) -> int:
    """floor(ratio * n), the ratio as the decimal that is written."""
    return math.floor(Fraction(str(ratio)) * n)


def pairs(before: Sequences, after: Sequences) -> list[tuple[list[int], list[int]]]:
    return list(zip(before.to_lists(), after.to_lists(), strict=True))


def operators(ratio: float = 0.5) -> tuple[Operator, Operator, Operator]:
    return Crop(ratio), Mask(ratio, MASK), Reorder(ratio)


def made_by(before: list[int], after: list[int]) -> str:
    """Tells which operator of ratio 0.5 made a view of a history of at least 8 different items."""
    if len(after) < len(before):
        return "crop"
    return "mask" if MASK in after else "reorder"


# Counts


@ratios
@pytest.mark.parametrize("seed", range(5))
def test_a_crop_keeps_a_contiguous_stretch_of_exactly_its_share(ratio: float, seed: int) -> None:
    seqs = histories()
    for before, after in pairs(seqs, Crop(ratio)(seqs, rng(seed))):
        assert len(after) == max(1, share(ratio, len(before)))
        start = before.index(after[0])
        assert after == before[start : start + len(after)]


@ratios
@pytest.mark.parametrize("seed", range(5))
def test_a_mask_hides_exactly_its_share_and_leaves_the_rest_in_place(ratio: float, seed: int) -> None:
    seqs = histories()
    for before, after in pairs(seqs, Mask(ratio, MASK)(seqs, rng(seed))):
        assert len(after) == len(before)
        assert after.count(MASK) == share(ratio, len(before))
        assert all(now in {was, MASK} for was, now in zip(before, after, strict=True))


@ratios
@pytest.mark.parametrize("seed", range(5))
def test_a_reorder_permutes_one_stretch_of_at_most_its_share(ratio: float, seed: int) -> None:
    seqs = histories()
    for before, after in pairs(seqs, Reorder(ratio)(seqs, rng(seed))):
        assert sorted(after) == before
        moved = [i for i, (was, now) in enumerate(zip(before, after, strict=True)) if was != now]
        assert not moved or moved[-1] - moved[0] + 1 <= share(ratio, len(before))


@given(st.integers(0, 1000), st.integers(0, 100))
def test_a_share_is_that_of_the_decimal_that_was_written(n: int, percent: int) -> None:
    assert floor_share(torch.tensor([n]), percent / 100).item() == n * percent // 100


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=8), st.sampled_from(RATIOS))
def test_no_view_is_empty_or_holds_what_was_not_there(lists: list[list[int]], ratio: float) -> None:
    seqs = Sequences.from_lists(lists)
    ops = operators(ratio)
    for view in (*(op(seqs, rng()) for op in ops), OneOf(ops)(seqs, rng()), *TwoOf(ops)(seqs, rng())):
        assert len(view) == len(seqs)
        for before, after in pairs(seqs, view):
            assert after
            left = Counter(after)
            left.pop(MASK, None)
            assert left <= Counter(before)


def test_an_empty_sequence_stays_empty() -> None:
    seqs = Sequences.from_lists([[], [1, 2], []])
    for op in operators():
        assert op(seqs, rng()).lengths[0] == 0
        assert op(seqs, rng()).lengths[2] == 0


def test_a_single_item_is_its_own_view_under_every_operator() -> None:
    seqs = Sequences.from_lists([[5]] * 20)
    for op in operators(0.9):
        assert op(seqs, rng()).to_lists() == [[5]] * 20


# Distribution


def frequencies(op: Operator, history: list[int], draws: int = 6000) -> Counter[tuple[int, ...]]:
    seqs = Sequences.from_lists([history] * draws)
    return Counter(tuple(row) for row in op(seqs, rng(1)).to_lists())


def uniform(found: Counter[tuple[int, ...]], expected: set[tuple[int, ...]]) -> bool:
    assert set(found) == expected
    return float(stats.chisquare([found[one] for one in sorted(expected)]).pvalue) > 1e-3


def test_every_start_of_a_crop_is_equally_likely() -> None:
    assert uniform(frequencies(Crop(0.5), [1, 2, 3, 4, 5]), {(i, i + 1) for i in range(1, 5)})


@pytest.mark.parametrize(("n", "ratio", "starts"), [(10, 0.2, 8), (5, 0.7, 2), (4, 0.2, 4), (3, 1.0, 1), (1, 0.5, 1)])
def test_a_crop_that_spares_the_last_item_holds_it_only_where_its_share_is_none(
    n: int, ratio: float, starts: int
) -> None:
    rows = Sequences.from_lists([list(range(1, n + 1))] * 4000)
    found = Counter(tuple(row) for row in Crop(ratio, spare_last=True)(rows, rng(0)).to_lists())
    kept = max(1, math.floor(ratio * n + 1e-9))
    assert set(found) == {tuple(range(first + 1, first + 1 + kept)) for first in range(starts)}
    assert max(found.values()) - min(found.values()) < 5 * math.sqrt(4000 / starts) + 1


def test_a_stretch_that_spares_the_last_item_leaves_it_in_place() -> None:
    rows = Sequences.from_lists([[1, 2, 3, 4, 5]] * 2000)
    spared = Counter(tuple(row) for row in Reorder(0.4, spare_last=True)(rows, rng(0)).to_lists())
    assert set(spared) == {(1, 2, 3, 4, 5), (2, 1, 3, 4, 5), (1, 3, 2, 4, 5), (1, 2, 4, 3, 5)}
    whole = Reorder(1.0, spare_last=True)(Sequences.from_lists([[1, 2, 3]] * 50), rng(0)).to_lists()
    assert {tuple(sorted(row)) for row in whole} == {(1, 2, 3)}


def test_every_set_of_masked_positions_is_equally_likely() -> None:
    sets = itertools.combinations(range(5), 2)
    expected = {tuple(MASK if i in chosen else i + 1 for i in range(5)) for chosen in sets}
    assert uniform(frequencies(Mask(0.4, MASK), [1, 2, 3, 4, 5]), expected)


def test_every_order_of_the_whole_history_is_equally_likely() -> None:
    assert uniform(frequencies(Reorder(1.0), [1, 2, 3, 4]), set(itertools.permutations([1, 2, 3, 4])))


def test_every_stretch_is_equally_likely_to_be_reordered() -> None:
    found = frequencies(Reorder(0.5), [1, 2, 3, 4])
    assert found[1, 2, 3, 4] == pytest.approx(3000, abs=150)  # a stretch of two keeps its order half of the time
    del found[1, 2, 3, 4]
    assert uniform(found, {(2, 1, 3, 4), (1, 3, 2, 4), (1, 2, 4, 3)})


def test_random_integers_are_below_their_count_and_uniform() -> None:
    counts = torch.tensor([1, 2, 3, 7]).repeat(5000)
    drawn = random_below(counts, rng())
    assert bool((drawn >= 0).all() & (drawn < counts).all())
    for n in (2, 3, 7):
        assert stats.chisquare(torch.bincount(drawn[counts == n], minlength=n).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("op", operators(0.4), ids=repr)
def test_what_happens_to_a_history_does_not_depend_on_its_neighbours(op: Operator) -> None:
    history, draws = [1, 2, 3, 4, 5], 4000
    alone = frequencies(op, history, draws)
    crowd = Sequences.from_lists(
        [row for step in range(draws) for row in (history, list(range(1, 2 + 5 * (step % 9))))]
    )
    among = Counter(tuple(row) for row in op(crowd, rng(2)).to_lists()[::2])
    outcomes = sorted(set(alone) | set(among))
    table = [[alone[one] + 1 for one in outcomes], [among[one] + 1 for one in outcomes]]
    assert stats.chi2_contingency(table).pvalue > 1e-3


# Draws among operators


def test_one_operator_is_drawn_for_each_history_on_its_own() -> None:
    seqs = histories([10] * 3000)
    found = Counter(made_by(before, after) for before, after in pairs(seqs, OneOf(operators())(seqs, rng())))
    assert stats.chisquare(list(found.values())).pvalue > 1e-3
    assert set(found) == {"crop", "mask", "reorder"}


def test_two_views_are_made_by_two_different_operators_in_every_order() -> None:
    seqs = histories([10] * 3000)
    first, second = TwoOf(operators())(seqs, rng())
    kinds = zip(pairs(seqs, first), pairs(seqs, second), strict=True)
    found = Counter((made_by(*one), made_by(*other)) for one, other in kinds)
    assert set(found) == set(itertools.permutations(["crop", "mask", "reorder"], 2))
    assert stats.chisquare(list(found.values())).pvalue > 1e-3


def test_an_operator_given_twice_makes_both_views_by_draws_of_its_own() -> None:
    seqs = histories([20] * 50)
    first, second = TwoOf((Mask(0.5, MASK), Mask(0.5, MASK)))(seqs, rng())
    same = sum(a == b for a, b in zip(first.to_lists(), second.to_lists(), strict=True))
    assert same == 0  # one in 184,756 for each


def test_a_pick_takes_each_sequence_from_the_part_that_is_chosen_for_it() -> None:
    parts = [Sequences.from_lists(rows) for rows in ([[1], [2, 2], []], [[3, 3], [4], [5, 5, 5]])]
    assert pick(parts, torch.tensor([1, 0, 1])).to_lists() == [[3, 3], [2, 2], [5, 5, 5]]
    assert pick(parts, torch.tensor([0, 1, 0])).to_lists() == [[1], [4], []]


def batch_of(lists: list[list[int]]) -> Batch:
    train = TrainSet(Sequences.from_lists(lists), torch.arange(len(lists)), 2000, instances="prefixes", max_length=50)
    return train.batch(torch.arange(len(train)))


def test_operators_are_views_of_a_batchs_histories() -> None:
    batch = batch_of([[1, 2, 3, 4, 5, 6, 7], [8, 9, 10]])
    view = OfHistory(Mask(0.5, MASK))
    assert torch.equal(view(batch, rng(3)).ids, Mask(0.5, MASK)(batch.history, rng(3)).ids)
    mixed = TwoOf((view, OfHistory(Crop(0.5))))
    first, second = mixed(batch, rng())
    assert len(first) == len(second) == len(batch)


# Neither state nor side effects


@pytest.mark.parametrize("op", [*operators(), OneOf(operators())], ids=repr)
def test_the_same_generator_gives_the_same_view_and_the_data_stay_as_they_are(op: Operator) -> None:
    seqs = histories()
    kept = seqs.ids.clone(), seqs.offsets.clone()
    one, again, other = op(seqs, rng(3)), op(seqs, rng(3)), op(seqs, rng(4))
    assert one.to_lists() == again.to_lists()
    assert one.to_lists() != other.to_lists()
    one.ids.fill_(7)
    assert torch.equal(seqs.ids, kept[0])
    assert torch.equal(seqs.offsets, kept[1])


def test_no_random_number_comes_from_elsewhere() -> None:
    seqs = histories()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for op in (*operators(), OneOf(operators()), TwoOf(operators())):
        op(seqs, rng())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_repr_is_the_record_of_an_experiment() -> None:
    expected = (
        "TwoOf(operators=(Crop(ratio=0.6, spare_last=False), Mask(ratio=0.3, mask_id=9), "
        "Reorder(ratio=0.6, spare_last=True)))"
    )
    assert repr(TwoOf((Crop(0.6), Mask(0.3, 9), Reorder(0.6, spare_last=True)))) == expected


# Errors


@pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan])
def test_a_ratio_outside_its_range_is_refused_by_name(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"the crop ratio must be in \[0, 1\], found"):
        Crop(ratio)
    with pytest.raises(ValueError, match="the mask ratio"):
        Mask(ratio, MASK)
    with pytest.raises(ValueError, match="the reorder ratio"):
        Reorder(ratio)


def test_a_draw_needs_enough_operators() -> None:
    with pytest.raises(ValueError, match="at least 1 operators to draw from, found 0"):
        OneOf(())
    with pytest.raises(ValueError, match="at least 2 operators to draw from, found 1"):
        TwoOf((Crop(0.5),))


def test_parts_of_another_size_are_refused() -> None:
    parts = [Sequences.from_lists([[1], [2]]), Sequences.from_lists([[1]])]
    with pytest.raises(ValueError, match="expected parts of 2 sequences, found 2, 1"):
        pick(parts, torch.tensor([0, 0]))
