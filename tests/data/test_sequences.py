"""Every operation against its twin over plain lists."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conseq.data.sequences import Sequences, concatenate, offsets_of, slices

Lists = list[list[int]]

ragged = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6)


@contextmanager
def untouched(*tensors: Tensor) -> Iterator[None]:
    """Checks that nothing in the block wrote into ``tensors``."""
    before = [one.clone() for one in tensors]
    yield
    for one, old in zip(tensors, before, strict=True):
        assert torch.equal(one, old)


def test_three_sequences_by_hand() -> None:
    seqs = Sequences.from_lists([[7, 8], [], [9, 7, 7]])
    assert seqs.ids.tolist() == [7, 8, 9, 7, 7]
    assert seqs.offsets.tolist() == [0, 2, 2, 5]
    assert seqs.lengths.tolist() == [2, 0, 3]
    assert seqs.rows.tolist() == [0, 0, 2, 2, 2]
    assert seqs.positions.tolist() == [0, 1, 0, 1, 2]
    assert seqs.last[[0, 2]].tolist() == [1, 4]
    assert seqs.max_length == 3
    assert repr(seqs) == "Sequences(3 sequences, 5 tokens)"


def test_no_sequences_at_all() -> None:
    seqs = Sequences.from_lists([])
    assert len(seqs) == 0
    assert seqs.max_length == 0
    assert seqs.to_lists() == []
    assert seqs.pad(torch.zeros(0, 4)).shape == (0, 0, 4)
    assert seqs.tail(3).to_lists() == []
    assert seqs.rank(torch.zeros(0)).tolist() == []


@settings(deadline=None)
@given(ragged)
def test_lists_come_back_as_they_went_in(lists: Lists) -> None:
    seqs = Sequences.from_lists(lists)
    assert seqs.to_lists() == lists
    assert len(seqs) == len(lists)
    assert seqs.rows.tolist() == [i for i, row in enumerate(lists) for _ in row]
    assert seqs.positions.tolist() == [j for row in lists for j in range(len(row))]
    assert seqs.max_length == max(map(len, lists), default=0)
    assert seqs.ids.dtype == seqs.offsets.dtype == torch.int64


@settings(deadline=None)
@given(ragged, st.data())
def test_keep_leaves_the_chosen_tokens_in_order(lists: Lists, data: st.DataObject) -> None:
    seqs = Sequences.from_lists(lists)
    n = seqs.ids.numel()
    chosen = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=torch.bool)
    with untouched(seqs.ids, seqs.offsets, chosen):
        kept = seqs.keep(chosen)
    flags = iter(chosen.tolist())
    assert kept.to_lists() == [[one for one in row if next(flags)] for row in lists]


@settings(deadline=None)
@given(ragged.filter(bool), st.data())
def test_select_gives_rows_in_any_order_and_again(lists: Lists, data: st.DataObject) -> None:
    seqs = Sequences.from_lists(lists)
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=8))
    index = torch.tensor(rows, dtype=torch.int64)
    with untouched(seqs.ids, seqs.offsets, index):
        found = seqs.select(index)
    assert found.to_lists() == [lists[row] for row in rows]


@settings(deadline=None)
@given(ragged, st.integers(0, 7))
def test_tail_gives_the_last_tokens(lists: Lists, length: int) -> None:
    seqs = Sequences.from_lists(lists)
    with untouched(seqs.ids, seqs.offsets):
        assert seqs.tail(length).to_lists() == [row[max(0, len(row) - length) :] for row in lists]


@settings(deadline=None)
@given(ragged)
def test_rank_counts_smaller_and_earlier_equal_scores(lists: Lists) -> None:
    seqs = Sequences.from_lists(lists)
    score = seqs.ids.double()
    with untouched(seqs.ids, seqs.offsets, score):
        ranks = seqs.replace(seqs.rank(score)).to_lists()
    for row, found in zip(lists, ranks, strict=True):
        assert found == [
            sum(other < one or (other == one and k < j) for k, other in enumerate(row)) for j, one in enumerate(row)
        ]


@settings(deadline=None)
@given(ragged, st.sampled_from(["left", "right"]), st.integers(0, 3))
def test_pad_fills_with_zeros_on_the_side_asked_for(lists: Lists, side: Literal["left", "right"], spare: int) -> None:
    seqs = Sequences.from_lists(lists)
    width = seqs.max_length + spare
    values = torch.stack([seqs.ids + 1, -seqs.ids - 1], 1).double()
    with untouched(seqs.ids, seqs.offsets, values):
        block = seqs.pad(values, side=side, width=width)
    for i, row in enumerate(lists):
        zeros = [0] * (width - len(row))
        filled = [one + 1 for one in row]
        expected = zeros + filled if side == "left" else filled + zeros
        assert block[i, :, 0].tolist() == expected
        assert block[i, :, 1].tolist() == [-one for one in expected]


def test_pad_is_as_wide_as_the_longest_where_no_width_is_given() -> None:
    seqs = Sequences.from_lists([[1], [2, 3]])
    assert seqs.pad(seqs.ids).tolist() == [[1, 0], [2, 3]]


def test_a_width_too_small_is_refused() -> None:
    seqs = Sequences.from_lists([[1, 2, 3]])
    with pytest.raises(ValueError, match="width 2 is less than the longest sequence's 3 tokens"):
        seqs.pad(seqs.ids, width=2)


def test_pad_passes_the_gradient_of_each_token() -> None:
    seqs = Sequences.from_lists([[1], [2, 3]])
    values = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: seqs.pad(one, side="left", width=4), values)


@settings(deadline=None)
@given(ragged)
def test_replace_changes_the_tokens_alone(lists: Lists) -> None:
    seqs = Sequences.from_lists(lists)
    _ = seqs.rows, seqs.max_length  # known before: the new sequences may share them
    with untouched(seqs.ids, seqs.offsets):
        other = seqs.replace(seqs.ids + 10)
    assert other.to_lists() == [[one + 10 for one in row] for row in lists]
    assert torch.equal(other.rows, seqs.rows)
    assert torch.equal(other.positions, seqs.positions)
    assert other.max_length == seqs.max_length


@settings(deadline=None)
@given(st.lists(ragged, min_size=1, max_size=4))
def test_concatenate_puts_one_part_after_the_other(parts: list[Lists]) -> None:
    made = [Sequences.from_lists(part) for part in parts]
    with untouched(*(one.ids for one in made), *(one.offsets for one in made)):
        assert concatenate(made).to_lists() == [row for part in parts for row in part]


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=8), st.data())
def test_slices_are_pythons_slices(flat: list[int], data: st.DataObject) -> None:
    cut = st.tuples(st.integers(0, len(flat)), st.integers(0, len(flat))).map(sorted)
    pairs = data.draw(st.lists(cut, max_size=6))
    array = torch.tensor(flat, dtype=torch.int64)
    starts = torch.tensor([a for a, _ in pairs], dtype=torch.int64)
    lengths = torch.tensor([b - a for a, b in pairs], dtype=torch.int64)
    with untouched(array, starts, lengths):
        found = slices(array, starts, lengths)
    assert found.to_lists() == [flat[a:b] for a, b in pairs]


def test_offsets_begin_at_zero_and_end_at_the_total() -> None:
    assert offsets_of(torch.tensor([2, 0, 3])).tolist() == [0, 2, 2, 5]


def test_sequences_are_frozen() -> None:
    seqs = Sequences.from_lists([[1]])
    with pytest.raises(AttributeError):
        seqs.ids = torch.tensor([2])  # type: ignore[misc]


def test_to_gives_equal_sequences_on_the_device() -> None:
    moved = Sequences.from_lists([[1, 2], [3]]).to("meta")
    assert moved.device.type == "meta"
    assert moved.ids.shape == (3,)
    assert moved.offsets.shape == (3,)
