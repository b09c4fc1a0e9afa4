from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from conseq.data.negatives import UniformNegatives
from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, TrainSet
from conseq.views.invasive import (
    Choice,
    Cropping,
    Deletion,
    Edit,
    Edited,
    Insertion,
    RandomSubstitution,
    Reordering,
    substituted,
)

N_ITEMS = 40
LISTS = [
    [5, 9],
    [1, 2, 3],
    list(range(10, 22)),
    [7, 8, 7, 30, 31, 7],
    [40, 39, 38, 37, 36, 35, 34, 33, 32, 31],
    [4, 6, 12, 17],
]
TRAIN = TrainSet(Sequences.from_lists(LISTS), torch.arange(len(LISTS)), N_ITEMS, instances="prefixes", max_length=20)
BATCH = TRAIN.batch(torch.arange(len(TRAIN)))
NEGATIVES = UniformNegatives(TRAIN.sequences, TRAIN.sequence_users, N_ITEMS)


def operators(ratio: float = 0.3, *, first: bool = False) -> dict[str, Edit]:
    choice = Choice(ratio, first=first)
    return {
        "substitution": RandomSubstitution(choice, NEGATIVES),
        "substitution by chance": RandomSubstitution(Choice(ratio, "chance", first=first), NEGATIVES),
        "insertion": Insertion(choice, TRAIN),
        "insertion by chance": Insertion(Choice(ratio, "chance"), TRAIN),
        "deletion": Deletion(choice),
        "deletion by chance": Deletion(Choice(ratio, "chance", first=first)),
        "cropping": Cropping(ratio),
        "reordering": Reordering(ratio, first=first),
    }


each_operator = pytest.mark.parametrize("name", operators())
each_first = pytest.mark.parametrize("first", [False, True])
ratios = pytest.mark.parametrize("ratio", [0.0, 0.2, 0.6, 1.0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(histories: list[list[int]], users: list[int]) -> Batch:
    """Gives the histories as examples of the users."""
    seqs, owners = Sequences.from_lists(histories), torch.tensor(users)
    examples = torch.searchsorted(TRAIN.row, owners)
    return Batch(examples, owners, seqs, seqs.last, torch.ones_like(owners), at_last=True)


def one(history: list[int], user: int = 0, copies: int = 1) -> Batch:
    """Gives a batch of one history, some times over."""
    return batch_of([history] * copies, [user] * copies)


def rows_of(edited: Edited) -> list[tuple[list[int], list[int], list[bool], list[bool]]]:
    """Gives ids, sources (counted from the original's beginning), changed and judged of each history."""
    seqs, offsets = edited.history, BATCH.history.offsets
    source = edited.source - offsets[seqs.rows]
    return [
        (
            seqs.ids[a:b].tolist(),
            source[a:b].tolist(),
            edited.changed[a:b].tolist(),
            edited.judged[a:b].tolist(),
        )
        for a, b in zip(seqs.offsets[:-1].tolist(), seqs.offsets[1:].tolist(), strict=True)
    ]


def count(n: int, ratio: float) -> int:
    return math.floor(round(ratio * n, 9)) + 1


# What holds for all


@each_operator
@each_first
@ratios
def test_no_edit_empties_a_history_or_leaves_it_for_another_one(name: str, first: bool, ratio: float) -> None:
    edited = operators(ratio, first=first)[name](BATCH, generator())
    seqs = edited.history
    assert len(seqs) == len(BATCH)
    assert int(seqs.lengths.min()) >= 1
    assert int(seqs.ids.min()) >= 1
    assert int(seqs.ids.max()) <= N_ITEMS
    assert torch.equal(BATCH.history.rows[edited.source], seqs.rows)


@each_operator
def test_the_same_generator_gives_the_same_edit_and_the_data_is_not_written_to(name: str) -> None:
    stored, read = TRAIN.sequences.ids.clone(), BATCH.history.ids.clone()
    edits = [operators()[name](BATCH, generator(seed)) for seed in (1, 1, 2)]
    assert edits[0].history.to_lists() == edits[1].history.to_lists()
    assert torch.equal(edits[0].changed, edits[1].changed)
    assert edits[0].history.to_lists() != edits[2].history.to_lists()
    assert torch.equal(TRAIN.sequences.ids, stored)
    assert torch.equal(BATCH.history.ids, read)


@each_operator
def test_what_can_happen_to_a_history_does_not_depend_on_what_shares_its_batch(name: str) -> None:
    """Every outcome for the history alone is as frequent among 4,000 copies of it beside longer ones."""
    history, copies = [1, 2, 3], 4000
    alone = operators()[name](one(history, 1, copies), generator(1)).history.to_lists()
    batch = batch_of([LISTS[2], *[history] * copies, LISTS[4]], [2, *[1] * copies, 4])
    together = operators()[name](batch, generator(2)).history.to_lists()[1:-1]
    # Of what the operators put in, only the place counts: there are too many items to compare their frequencies.
    a, b = (Counter(tuple(x if x in history else 0 for x in ids) for ids in found) for found in (alone, together))
    for outcome in a | b:
        assert abs(a[outcome] - b[outcome]) < 5 * math.sqrt(2 * copies * 0.25), outcome


@each_operator
@each_first
def test_a_history_of_one_item_can_be_edited(name: str, first: bool) -> None:
    edited = operators(first=first)[name](one([5]), generator())
    assert len(edited.history.ids) == (2 if "insertion" in name else 1)
    assert bool(edited.judged[0]) == (first and "substitution" in name)


@each_operator
@each_first
@pytest.mark.parametrize("history", [[5], [5, 9], [1, 2, 3], [4, 6, 12, 17]])
def test_what_is_judged_is_what_can_be_changed(name: str, first: bool, history: list[int]) -> None:
    """Over many edits of a history the places that were ever changed are those that were ever judged."""
    edited = operators(first=first)[name](one(history, copies=2000), generator())
    judged, changed = (set(edited.history.positions[flags].tolist()) for flags in (edited.judged, edited.changed))
    assert judged == changed
    assert not (edited.changed & ~edited.judged).any()


def test_the_first_item_can_be_judged_though_it_is_never_substituted() -> None:
    choice = Choice(0.3, judge_first=True)
    edited, plain = (RandomSubstitution(one, NEGATIVES)(BATCH, generator()) for one in (choice, Choice(0.3)))
    assert edited.history.to_lists() == plain.history.to_lists()
    assert torch.equal(edited.changed, plain.changed)
    assert edited.judged.all()
    assert not edited.changed[BATCH.history.positions == 0].any()


def test_the_tail_of_an_edit_is_that_of_every_part_of_it() -> None:
    edited = Insertion(Choice(0.5), TRAIN)(BATCH, generator())
    cut = edited.tail(4)
    for whole, short in zip(rows_of(edited), rows_of(cut), strict=True):
        assert tuple(part[-4:] for part in whole) == short
    assert edited.tail(1000).history.to_lists() == edited.history.to_lists()


# Which items


@pytest.mark.parametrize(
    ("length", "ratio", "count"), [(5, 0.0, 1), (5, 0.2, 1), (6, 0.4, 2), (10, 0.3, 3), (2, 0.9, 1)]
)
def test_a_share_is_rounded_down_to_one_at_least(length: int, ratio: float, count: int) -> None:
    seqs = Sequences.from_lists([list(range(1, length + 1)), [1]])
    for seed in range(20):
        chosen = Choice(ratio, "share")(seqs, torch.Generator().manual_seed(seed))
        assert int(chosen.sum()) == count
        assert not bool(chosen[seqs.offsets[:-1]].any())


@ratios
@each_first
def test_floor_of_the_share_and_one_more_are_chosen(ratio: float, first: bool) -> None:
    seqs = Sequences.from_lists([list(range(1, n + 1)) for n in range(1, 21)])
    for last in (True, False):
        chosen = Choice(ratio, first=first)(seqs, generator(), last=last)
        for n, row in zip(range(1, 21), torch.split(chosen, seqs.lengths.tolist()), strict=True):
            free = max(0, n - (not first) - (not last))
            assert int(row.sum()) == min(count(n, ratio), free)
            assert first or not row[0]
            assert last or not row[-1]


def test_every_choice_is_equally_likely() -> None:
    copies = 30_000
    seqs = Sequences.from_lists([[1, 2, 3, 4, 5]] * copies)
    chosen = Choice(0.3)(seqs, generator()).view(copies, 5)
    seen = Counter(tuple(row.nonzero()[:, 0].tolist()) for row in chosen)
    pairs = [(a, b) for a in range(1, 5) for b in range(a + 1, 5)]
    assert sorted(seen) == pairs
    assert all(abs(seen[pair] - copies / 6) < 5 * math.sqrt(copies / 6) for pair in pairs)


@each_first
def test_by_chance_each_item_is_chosen_on_its_own_and_the_last_where_none_was(first: bool) -> None:
    copies, ratio, n = 30_000, 0.3, 4
    seqs = Sequences.from_lists([[1, 2, 3, 4]] * copies)
    chosen = Choice(ratio, "chance", first=first)(seqs, generator()).view(copies, n).double()
    free = n if first else n - 1
    none = (1 - ratio) ** free
    expected = [ratio if first else 0.0, ratio, ratio, ratio + none]
    assert torch.allclose(chosen.mean(0), torch.tensor(expected, dtype=torch.float64), atol=5 * 0.5 / math.sqrt(copies))
    assert float(chosen.sum(1).min()) == 1
    both = (chosen[:, 1] * chosen[:, 2]).mean()
    assert float(both) == pytest.approx(ratio**2, abs=5 * 0.5 / math.sqrt(copies))


def test_by_chance_the_fallback_is_the_last_that_may_be_chosen() -> None:
    seqs = Sequences.from_lists([[1, 2, 3, 4], [1, 2, 3], [1, 2], [1]])
    choice = Choice(0.0, "chance")
    assert choice(seqs, generator()).int().tolist() == [0, 0, 0, 1, 0, 0, 1, 0, 1, 0]
    assert choice(seqs, generator(), last=False).int().tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 0, 0]


# Substitution


@each_first
@ratios
def test_substitution_changes_exactly_the_chosen_and_judges_by_the_item(first: bool, ratio: float) -> None:
    edited = RandomSubstitution(Choice(ratio, first=first), NEGATIVES)(BATCH, generator())
    for old, (new, source, changed, judged) in zip(BATCH.history.to_lists(), rows_of(edited), strict=True):
        n = len(old)
        assert source == list(range(n))
        assert changed == [a != b for a, b in zip(old, new, strict=True)]
        assert judged == [first or t > 0 for t in range(n)]
        assert sum(changed) == min(count(n, ratio), n if first else n - 1)


def test_random_substitutes_are_the_items_that_the_user_never_met_each_equally_often() -> None:
    copies = 20_000
    edited = RandomSubstitution(Choice(0.0), NEGATIVES)(one([5, 9], 0, copies), generator())
    seen = Counter(edited.history.ids[1::2].tolist())
    expected = sorted(set(range(1, N_ITEMS + 1)) - {5, 9})
    assert sorted(seen) == expected
    mean = copies / len(expected)
    assert all(abs(seen[item] - mean) < 5 * math.sqrt(mean) for item in expected)


def test_a_right_guess_is_no_change() -> None:
    seqs = Sequences.from_lists([[1, 2, 3], [4, 5]])
    chosen = torch.tensor([False, True, True, False, True])
    edited = substituted(seqs, chosen, torch.tensor([2, 9, 8]), judged=torch.ones(5, dtype=torch.bool))
    assert edited.history.to_lists() == [[1, 2, 9], [4, 8]]
    assert edited.changed.tolist() == [False, False, True, False, True]
    assert seqs.to_lists() == [[1, 2, 3], [4, 5]]


# Insertion


@ratios
@pytest.mark.parametrize("draw", ["count", "chance"])
def test_without_what_was_inserted_the_original_remains(ratio: float, draw: str) -> None:
    choice = Choice(ratio, "count" if draw == "count" else "chance")
    edited = Insertion(choice, TRAIN)(BATCH, generator())
    for old, (new, source, changed, judged) in zip(BATCH.history.to_lists(), rows_of(edited), strict=True):
        assert [item for item, put_in in zip(new, changed, strict=True) if not put_in] == old
        assert [at for at, put_in in zip(source, changed, strict=True) if not put_in] == list(range(len(old)))
        # An item is put in after another one, whose state it is judged under, and there once.
        assert all(source[t] == source[t - 1] and not changed[t - 1] for t in range(len(new)) if changed[t])
        assert judged == [t > 0 for t in range(len(new))]
        if draw == "count":
            assert sum(changed) == min(count(len(old), ratio), len(old))


def test_inserted_items_are_as_frequent_as_in_the_histories_of_others() -> None:
    copies = 20_000
    edited = Insertion(Choice(0.0), TRAIN)(one([7, 8], 3, copies), generator())
    seen = Counter(edited.history.ids[edited.changed].tolist())
    others = Counter(item for user, items in enumerate(LISTS) if user != 3 for item in items)
    total = sum(others.values())
    assert set(seen) == set(others)
    assert sum(seen.values()) == copies
    assert all(abs(seen[item] - copies * n / total) < 5 * math.sqrt(copies * n / total) for item, n in others.items())


def test_insertion_needs_another_user() -> None:
    alone = TrainSet(Sequences.from_lists([[1, 2, 3]]), torch.tensor([0]), 3, instances="whole", max_length=5)
    with pytest.raises(ValueError, match="one user only"):
        Insertion(Choice(0.2), alone)


# Deletion


@each_first
@ratios
@pytest.mark.parametrize("draw", ["count", "chance"])
def test_a_token_is_changed_where_the_one_before_it_is_missing(first: bool, ratio: float, draw: str) -> None:
    choice = Choice(ratio, "count" if draw == "count" else "chance", first=first)
    edited = Deletion(choice)(BATCH, generator())
    for old, (new, source, changed, judged) in zip(BATCH.history.to_lists(), rows_of(edited), strict=True):
        n = len(old)
        assert new == [old[at] for at in source]
        assert source == sorted(set(source))
        assert changed == [at > 0 and at - 1 not in source for at in source]
        assert judged == [(first or t > 0) and n > (1 if first else 2) for t in range(len(new))]
        assert source[-1] == n - 1
        assert first or source[0] == 0
        if draw == "count":
            assert n - len(new) == min(count(n, ratio), max(0, n - 1 - (not first)))


def test_a_history_of_two_loses_nothing_where_the_first_must_stay() -> None:
    edited = Deletion(Choice(1.0))(one([5, 9]), generator())
    assert edited.history.to_lists() == [[5, 9]]
    assert not edited.changed.any()
    assert not edited.judged.any()


# Cropping


@ratios
def test_a_crop_is_a_stretch_whose_first_token_alone_is_asked_whether_something_was_before_it(ratio: float) -> None:
    edited = Cropping(ratio)(BATCH, generator())
    for old, (new, source, changed, judged) in zip(BATCH.history.to_lists(), rows_of(edited), strict=True):
        n = len(old)
        assert len(new) == max(1, n - count(n, ratio))
        assert source == list(range(source[0], source[0] + len(new)))
        assert new == [old[at] for at in source]
        assert changed == [t == 0 and source[0] > 0 for t in range(len(new))]
        assert judged == [t == 0 and n > 1 for t in range(len(new))]


def test_every_crop_is_equally_likely() -> None:
    copies = 20_000
    found = Cropping(0.2)(one([1, 2, 3, 4, 5], 0, copies), generator()).history.to_lists()
    seen = Counter(map(tuple, found))
    assert sorted(seen) == [(1, 2, 3), (2, 3, 4), (3, 4, 5)]
    assert all(abs(times - copies / 3) < 5 * math.sqrt(copies / 3) for times in seen.values())


def test_by_share_a_crop_keeps_what_the_paper_keeps() -> None:
    for length, by_share, by_count in ((5, 4, 3), (10, 8, 7), (3, 2, 2), (1, 1, 1)):
        history = one(list(range(1, length + 1)), 0, 1)
        assert Cropping(0.2, draw="share")(history, generator()).history.lengths.tolist() == [by_share]
        assert Cropping(0.2)(history, generator()).history.lengths.tolist() == [by_count]


def test_by_share_a_stretch_is_as_long_as_the_paper_says() -> None:
    history = one(list(range(1, 16)), 0, 300)
    for reorder, longest in ((Reordering(0.2, draw="share"), 3), (Reordering(0.2), 4)):
        moved = (reorder(history, generator()).history.ids.view(300, 15) != torch.arange(1, 16)).int()
        first, last = moved.argmax(1), 14 - moved.flip(1).argmax(1)
        assert int((last - first + 1)[moved.any(1)].max()) == longest


# Reordering


@each_first
@ratios
def test_a_stretch_is_shuffled_and_a_token_is_changed_where_another_item_stood(first: bool, ratio: float) -> None:
    longest = 0
    for seed in range(20):
        edited = Reordering(ratio, first=first)(BATCH, generator(seed))
        for old, (new, source, changed, judged) in zip(BATCH.history.to_lists(), rows_of(edited), strict=True):
            n = len(old)
            assert sorted(new) == sorted(old)
            assert source == list(range(n))
            assert changed == [a != b for a, b in zip(old, new, strict=True)]
            assert judged == [(first or t > 0) and n > (1 if first else 2) for t in range(n)]
            moved = [t for t in range(n) if changed[t]]
            stretch = moved[-1] - moved[0] + 1 if moved else 0
            assert stretch <= max(2, count(n, ratio))
            assert first or not changed[0]
            longest = max(longest, stretch if n == 11 else 0)
    assert longest == min(max(2, count(11, ratio)), 11 if first else 10)


def test_every_start_and_every_order_is_equally_likely() -> None:
    copies = 24_000
    found = Reordering(0.5)(one([1, 2, 3, 4], 0, copies), generator()).history.to_lists()
    seen = Counter(map(tuple, found))
    assert len(seen) == 6
    assert all(abs(times - copies / 6) < 5 * math.sqrt(copies / 6) for times in seen.values())
    found = Reordering(0.25)(one([1, 2, 3, 4], 0, copies), generator()).history.to_lists()
    seen = Counter(map(tuple, found))
    # Two starts, two orders each; the old order can come of either.
    expected = {(1, 2, 3, 4): 0.5, (1, 3, 2, 4): 0.25, (1, 2, 4, 3): 0.25}
    assert seen.keys() == expected.keys()
    assert all(abs(seen[order] - copies * p) < 5 * math.sqrt(copies * p) for order, p in expected.items())


@pytest.mark.parametrize("make", [Choice, Cropping, Reordering])
@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_a_ratio_outside_its_range_is_refused(make: type[Choice | Cropping | Reordering], ratio: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\], found"):
        make(ratio)
