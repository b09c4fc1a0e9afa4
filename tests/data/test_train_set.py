from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, TrainSet, Windows

Lists = list[list[int]]
Example = tuple[int, list[int], list[tuple[int, int]]]  # user, history, (place in the history, next item)
Mode = Literal["prefixes", "whole", "windows", "disjoint"]

MODES: list[Mode] = ["prefixes", "whole", "windows", "disjoint"]
WINDOWS: dict[Mode, Windows] = {"windows": True, "disjoint": "disjoint"}
long_enough = st.lists(st.lists(st.integers(1, 9), max_size=14), min_size=1, max_size=4).filter(
    lambda lists: any(len(row) > 1 for row in lists)
)


def made(lists: Lists, mode: Mode, max_length: int) -> TrainSet:
    """Gives a train set whose user of sequence i is row 10 i + 3 of the log."""
    return TrainSet(
        Sequences.from_lists(lists),
        torch.arange(len(lists)) * 10 + 3,
        n_items=9,
        instances="prefixes" if mode == "prefixes" else "whole",
        max_length=max_length,
        windows=WINDOWS.get(mode, False),
    )


def read(batch: Batch) -> list[Example]:
    """Gives the examples of a batch as plain values."""
    ends = batch.history.offsets.tolist()
    asked = list(zip(batch.at.tolist(), batch.next_ids.tolist(), strict=True))
    return [
        (user, history, [(place - a, item) for place, item in asked if a <= place < b])
        for user, history, a, b in zip(batch.users.tolist(), batch.history.to_lists(), ends, ends[1:], strict=False)
    ]


def twin(lists: Lists, mode: Mode, max_length: int) -> list[Example]:
    """Gives the examples by loops over lists."""
    found: list[Example] = []
    for i, row in enumerate(lists):
        user, last = 10 * i + 3, len(row) - 1
        if mode == "prefixes":
            for end in range(1, len(row)):
                history = row[max(0, end - max_length) : end]
                found.append((user, history, [(len(history) - 1, row[end])]))
        elif last >= 1:
            cuts = [last]
            while mode in WINDOWS and cuts[0] > max_length:
                cuts.insert(0, cuts[0] - (max_length if mode == "disjoint" else max(1, max_length // 2)))
            asked_to = None
            for end in cuts:
                start = max(0, end - max_length)
                first = start if asked_to is None else asked_to
                found.append((user, row[start:end], [(p - start, row[p + 1]) for p in range(first, end)]))
                asked_to = end
    return found


@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None)
@given(lists=long_enough, max_length=st.integers(1, 6))
def test_examples_are_those_of_the_loop(mode: Mode, lists: Lists, max_length: int) -> None:
    train = made(lists, mode, max_length)
    expected = twin(lists, mode, max_length)
    assert len(train) == len(expected)
    assert read(train.batch(torch.arange(len(train)))) == expected
    assert train.users.tolist() == [user for user, _, _ in expected]
    assert train.n_targets == sum(len(asked) for _, _, asked in expected)


def test_prefixes_by_hand() -> None:
    train = made([[1, 2, 3, 4], [5]], "prefixes", 2)
    assert read(train.batch(torch.arange(3))) == [
        (3, [1], [(0, 2)]),
        (3, [1, 2], [(1, 3)]),
        (3, [2, 3], [(1, 4)]),
    ]


def test_whole_by_hand() -> None:
    train = made([[1, 2, 3, 4, 5], [6, 7]], "whole", 3)
    assert read(train.batch(torch.arange(2))) == [(3, [2, 3, 4], [(0, 3), (1, 4), (2, 5)]), (13, [6], [(0, 7)])]


def test_windows_by_hand() -> None:
    train = made([[1, 2, 3, 4, 5, 6, 7, 8]], "windows", 4)
    assert read(train.batch(torch.arange(3))) == [
        (3, [1, 2, 3], [(0, 2), (1, 3), (2, 4)]),
        (3, [2, 3, 4, 5], [(2, 5), (3, 6)]),
        (3, [4, 5, 6, 7], [(2, 7), (3, 8)]),
    ]


def test_disjoint_windows_by_hand() -> None:
    train = made([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5]], "disjoint", 4)
    assert read(train.batch(torch.arange(3))) == [
        (3, [1, 2, 3], [(0, 2), (1, 3), (2, 4)]),
        (3, [4, 5, 6, 7], [(0, 5), (1, 6), (2, 7), (3, 8)]),
        (13, [1, 2, 3, 4], [(0, 2), (1, 3), (2, 4), (3, 5)]),
    ]


@settings(deadline=None)
@given(lists=long_enough, max_length=st.integers(1, 9))
def test_disjoint_windows_read_and_ask_every_item_once(lists: Lists, max_length: int) -> None:
    lists = [[100 * i + j for j in range(len(row))] for i, row in enumerate(lists)]  # every item names its place
    train = made(lists, "disjoint", max_length)
    examples = read(train.batch(torch.arange(len(train))))
    rows = [row for row in lists if len(row) > 1]
    assert [item for _, history, _ in examples for item in history] == [item for row in rows for item in row[:-1]]
    assert [item for _, _, asked in examples for _, item in asked] == [item for row in rows for item in row[1:]]
    owners = [history[0] // 100 for _, history, _ in examples]
    for (_, history, asked), owner, after in zip(examples, owners, [*owners[1:], None], strict=True):
        assert [place for place, _ in asked] == list(range(len(history)))
        # The window that ends last is full where there are as many items; a rest comes first.
        assert owner == after or len(history) == min(max_length, len(lists[owner]) - 1)


@settings(deadline=None)
@given(lists=long_enough, max_length=st.integers(1, 9))
def test_windows_ask_every_next_item_once_with_enough_before_it(lists: Lists, max_length: int) -> None:
    lists = [[100 * i + j for j in range(len(row))] for i, row in enumerate(lists)]  # every item names its place
    train = made(lists, "windows", max_length)
    asked = []
    for _, history, pairs in read(train.batch(torch.arange(len(train)))):
        assert 1 <= len(history) <= max_length
        for place, item in pairs:
            assert history[place] == item - 1
            assert place + 1 >= min(item % 100, max(1, max_length // 2))
            asked.append(item)
    assert asked == [item for row in lists for item in row[1:]]


@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None)
@given(lists=long_enough, max_length=st.integers(1, 6), data=st.data())
def test_targets_follow_the_end_of_each_history(mode: Mode, lists: Lists, max_length: int, data: st.DataObject) -> None:
    train = made(lists, mode, max_length)
    rows = data.draw(st.lists(st.integers(0, len(train) - 1), min_size=1, max_size=5))
    batch = train.batch(torch.tensor(rows))
    expected = [twin(lists, mode, max_length)[row] for row in rows]
    assert batch.rows.tolist() == rows
    assert batch.targets.tolist() == [asked[-1][1] for _, _, asked in expected]
    assert batch.next_users.tolist() == [user for user, _, asked in expected for _ in asked]
    assert len(batch) == len(rows)
    assert batch.at_last == (mode == "prefixes")


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 45))
def test_batches_are_even_and_hold_every_example_once(items: int, batch_size: int) -> None:
    train = made([[1] * items], "prefixes", 3)
    batches = list(train.batches(batch_size, torch.Generator().manual_seed(7)))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == train.n_batches(batch_size) == -(-len(train) // batch_size)
    assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(len(train)))


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    train = made([list(range(1, 10)), list(range(1, 9))], "prefixes", 5)

    def order(seed: int) -> list[int]:
        return [row for batch in train.batches(4, torch.Generator().manual_seed(seed)) for row in batch.rows.tolist()]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != sorted(order(1))


def test_without_a_generator_examples_come_in_their_own_order() -> None:
    train = made([[1, 2, 3, 4]], "prefixes", 5)
    assert [batch.rows.tolist() for batch in train.batches(2)] == [[0, 1], [2]]


@pytest.mark.parametrize("mode", MODES)
def test_batches_never_write_into_the_log(mode: Mode) -> None:
    sequences = Sequences.from_lists([[1, 2, 3, 4, 5], [6, 7]])
    before = sequences.ids.clone()
    users = torch.arange(2)
    train = TrainSet(
        sequences, users, 9, instances="prefixes" if mode == "prefixes" else "whole", max_length=2, windows=True
    )
    for batch in train.batches(2):
        batch.history.ids.fill_(0)
        batch.next_ids.fill_(0)
    assert torch.equal(sequences.ids, before)


def test_a_log_of_single_items_has_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match="no training sequence has two items"):
        made([[1], [], [2]], "prefixes", 5)
    with pytest.raises(ValueError, match="no training sequence has two items"):
        made([[1], [], [2]], "windows", 5)


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, found 0"):
        next(made([[1, 2]], "prefixes", 5).batches(0))


def test_to_moves_everything_and_leaves_the_original() -> None:
    train = made([[1, 2, 3], [4, 5]], "windows", 2)
    moved = train.to("meta")
    assert moved.device.type == "meta"
    assert {one.device.type for one in (moved.row, moved.start, moved.end, moved.first, moved.users)} == {"meta"}
    assert train.device.type == "cpu"
    assert len(moved) == len(train)
    same = read(train.to("cpu").batch(torch.arange(len(train))))
    assert same == read(train.batch(torch.arange(len(train))))
